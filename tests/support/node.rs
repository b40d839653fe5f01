//! A Node program of the tests' own, with the packages of `tests/node`.
//! Use as `#[path = "support/node.rs"] mod node;`.
//!
//! The first use installs them below the target directory, under a lock; later uses take what is there.

#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

const FILES: [(&str, &str); 3] = [
    ("package.json", include_str!("../node/package.json")),
    ("package-lock.json", include_str!("../node/package-lock.json")),
    ("agent.mjs", include_str!("../node/agent.mjs")),
];
/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running program, which prints lines of JSON. It ends with this value.
pub struct Node {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _stdin: ChildStdin,
}

impl Node {
    /// Starts `agent.mjs` with `job` as its first line of input.
    pub async fn start(job: &Value) -> Self {
        let folder = tokio::task::spawn_blocking(install).await.unwrap();
        let mut child = tokio::process::Command::new("node")
            .arg(folder.join("agent.mjs"))
            // A proxy is no way to a loopback address.
            .env("no_grpc_proxy", "127.0.0.1,localhost")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| missing("node", &error));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{job}\n").as_bytes()).await.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            _stdin: stdin,
        }
    }

    /// The next line. Panics with what the program said where it failed.
    pub async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        match line.expect("the program prints nothing").unwrap() {
            Some(line) => serde_json::from_str(&line).unwrap(),
            None => {
                let mut said = String::new();
                let mut stderr = self.child.stderr.take().unwrap();
                stderr.read_to_string(&mut said).await.unwrap();
                panic!("the program failed:\n{said}");
            }
        }
    }
}

/// The folder with everything in it, by what is in it, so that a changed file installs anew.
fn install() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = root.join(format!("node-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder).unwrap();
    // Other test processes install at the same time; the lock goes with the handle.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = folder.join("done");
    if done.exists() {
        return folder;
    }
    for (name, text) in FILES {
        fs::write(folder.join(name), text).unwrap();
    }
    let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    let npm = Command::new("npm")
        .arg("ci")
        .args(quiet)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| missing("npm", &error));
    assert!(
        npm.status.success(),
        "npm ci in {} failed; is the package registry reachable?\n{}",
        folder.display(),
        String::from_utf8_lossy(&npm.stderr)
    );
    fs::write(done, "").unwrap();
    folder
}

fn missing(program: &str, error: &io::Error) -> ! {
    panic!("{program} cannot be run ({error}); these tests need Node.js 20 or later with npm on the PATH")
}
