//! A Python of the tests' own, with the packages of `tests/python/requirements.txt`.
//! Use as `#[path = "support/python.rs"] mod python;`.
//!
//! The first use installs it below the target directory, under a lock; later uses take what is there.

#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

const REQUIREMENTS: &str = include_str!("../python/requirements.txt");
/// How long a script may run.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a script of `tests/python` with `input` as JSON on its standard input, and gives the JSON it prints.
/// Panics with what it said where it fails.
pub async fn run(script: &str, input: &Value) -> Value {
    let python = tokio::task::spawn_blocking(install).await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(script);
    let mut child = tokio::process::Command::new(python)
        // Neither the user's own packages nor files beside the script.
        .arg("-I")
        .arg("-B")
        .arg(&script)
        // A proxy is no way to a loopback address.
        .env("no_grpc_proxy", "127.0.0.1,localhost")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{} did not end within {LIMIT:?}", script.display()))
        .unwrap();
    assert!(
        output.status.success(),
        "{} failed ({}):\n{}",
        script.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The interpreter, in a folder named by what is installed, so that changed requirements install anew.
fn install() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = root.join(format!("python-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder).unwrap();
    // Other test processes install at the same time; the lock goes with the handle.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (done, python) = (folder.join("done"), folder.join("venv/bin/python3"));
    if done.exists() {
        return python;
    }
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).unwrap();
    // Some systems' venv cannot bring pip along without a further package; the system's pip serves.
    let venv = ["-m", "venv", "--clear", "--without-pip"].map(Path::new);
    system_python("venv", &[&venv[..], &[&folder.join("venv")]].concat());
    let pip = [
        Path::new("-m"),
        Path::new("pip"),
        Path::new("--python"),
        &python,
        Path::new("install"),
        Path::new("--quiet"),
        Path::new("--no-input"),
        Path::new("--disable-pip-version-check"),
        Path::new("-r"),
        &requirements,
    ];
    system_python("pip", &pip);
    fs::write(done, "").unwrap();
    python
}

fn system_python(module: &str, arguments: &[&Path]) {
    let output = Command::new("python3")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| missing(&error));
    assert!(
        output.status.success(),
        "python3 -m {module} failed. These tests need Python 3.10 or later with its modules venv and pip (22.3 \
         or later), and the package registry\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn missing(error: &io::Error) -> ! {
    panic!("python3 cannot be run ({error}); these tests need Python 3.10 or later on the PATH")
}
