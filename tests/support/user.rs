//! A user of this machine who has a home with nothing in it, and runs the real programs.
//! Use as `#[path = "support/user.rs"] mod user;`.

#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::RwLock;
use tokio::time::timeout;

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Held for reading while a program is started.
pub static SPAWNING: RwLock<()> = RwLock::const_new(());

pub struct User {
    home: TempDir,
}

/// A program that has ended.
pub struct Ended {
    /// What was run, for messages.
    pub line: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl User {
    /// Adds the context `test`, of a broker's org.
    pub async fn connect(&self, address: &str, ca_pin: &str, org: &str, token: &str) {
        let place = ["context", "add", "test", "--address", address, "--ca-pin", ca_pin];
        let add = [&place[..], &["--org", org]].concat();
        self.credbroker_with(&add, token).await.good();
    }

    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("tmp")).unwrap();
        Self { home }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A file in the home; gives its path as an argument.
    pub fn file(&self, name: &str, content: &str, mode: u32) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    /// A program in the home. What the environment of the test says of brokers is not for it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CREDBROKER_") || name.starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.home.path())
            .env("TMPDIR", self.path("tmp"))
            .env("CREDBROKER_CONFIG_DIR", self.path("config"))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, command: Command) -> Ended {
        self.run_with(command, "").await
    }

    /// Runs a program to its end, with `input` on its standard input.
    pub async fn run_with(&self, mut command: Command, input: &str) -> Ended {
        let arguments = command.as_std().get_args().map(OsStr::to_string_lossy);
        let line = arguments.collect::<Vec<_>>().join(" ");
        let spawning = SPAWNING.read().await;
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        drop(spawning);
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read it may have ended.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = timeout(PATIENCE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("{line}: it does not end"))
            .unwrap();
        Ended {
            line,
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The `credbroker` command.
    pub async fn credbroker(&self, arguments: &[&str]) -> Ended {
        self.credbroker_with(arguments, "").await
    }

    /// The `credbroker` command, with something on standard input.
    pub async fn credbroker_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.command(env!("CARGO_BIN_EXE_credbroker"));
        command.args(arguments);
        self.run_with(command, input).await
    }
}

impl Ended {
    /// What a program printed that has to have worked.
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}{}", self.line, self.out, self.err);
        self.out
    }

    /// The JSON that a program printed that has to have worked.
    pub fn json(self) -> Value {
        let line = self.line.clone();
        let out = self.good();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line}: {error}\n{out}"))
    }

    /// What a program said that has to have failed with `code`, and has to say all of `told`.
    pub fn bad(self, code: i32, told: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}{}", self.line, self.out, self.err);
        assert_eq!(
            self.out, "",
            "{}: nothing for a program to take for an answer",
            self.line
        );
        for told in told {
            assert!(
                self.err.contains(told),
                "{}: no '{told}' in\n{}",
                self.line,
                self.err
            );
        }
        self.err
    }
}
