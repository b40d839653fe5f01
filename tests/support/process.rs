//! The real `credbrokerd`, in a process of its own: made, started, signalled, killed, started again.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use credbroker::cli::client::Trust;
use credbroker::cli::pin::Pin;
use credbroker::proto;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::broker::{ORG, REGISTRY};
use super::client::{Caller, Enrolled, NewKey};

/// How long the daemon may take for anything, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A data folder with a broker in it, its configuration, and what `init` said.
pub struct Installation {
    dir: TempDir,
    pub operator_token: String,
    pub pin: String,
    /// All that `init` printed.
    pub init: Output,
}

/// `credbrokerd` with these arguments and nothing of this process's settings.
pub fn credbrokerd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_credbrokerd"));
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("CREDBROKER_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command of `credbrokerd` to its end.
pub async fn run(arguments: &[&str]) -> Output {
    let ended = credbrokerd(arguments).output();
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Installation {
    /// Makes a broker with `credbrokerd init --data-dir`. `config` is TOML over the defaults, tables only;
    /// `connectors` are `[connectors.NAME]` tables.
    pub async fn make(config: &str, connectors: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let init = run(&["init", "--data-dir", data_dir.to_str().unwrap()]).await;
        assert!(init.status.success(), "{}", text(&init.stderr));
        let said = text(&init.stdout);
        let after = |line: &str| said.split(line).nth(1).unwrap().lines().next().unwrap();
        let made = Self {
            operator_token: after("shown this once:\n").to_owned(),
            pin: after("--ca-pin ").to_owned(),
            init,
            dir,
        };
        fs::write(made.dir.path().join("registry.toml"), REGISTRY).unwrap();
        fs::write(made.dir.path().join("connectors.toml"), connectors).unwrap();
        made.configure(config);
        made
    }

    /// Writes the configuration anew. Keys of `[listen]` go into `config` as that table's.
    pub fn configure(&self, config: &str) {
        let listen = "[listen]\n";
        let (before, listening) = config.split_once(listen).unwrap_or((config, ""));
        let text = format!(
            "data_dir = {:?}\nregistry.files = [{:?}]\nconnectors.files = [{:?}]\n{before}\n\
             [listen]\naddress = \"127.0.0.1:0\"\n{listening}\n",
            self.data_dir(),
            self.dir.path().join("registry.toml"),
            self.dir.path().join("connectors.toml"),
        );
        fs::write(self.config(), text).unwrap();
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("credbrokerd.toml")
    }

    /// Starts the daemon and does not wait for it to serve.
    pub fn spawn(&self) -> Daemon {
        self.spawn_with(&[])
    }

    /// As [`Installation::spawn`], with these variables in its environment.
    pub fn spawn_with(&self, variables: &[(&str, &str)]) -> Daemon {
        let config = self.config();
        let mut child = credbrokerd(&["serve", "--config", config.to_str().unwrap()])
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|log| log.push(line));
            }
        });
        Daemon {
            child,
            log,
            address: ([0, 0, 0, 0], 0).into(),
            pin: self.pin.clone(),
            operator_token: self.operator_token.clone(),
        }
    }

    /// Starts the daemon and waits until it serves, which its log says at `info`.
    pub async fn start(&self) -> Daemon {
        self.start_with(&[]).await
    }

    /// As [`Installation::start`], with these variables in its environment.
    pub async fn start_with(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut daemon = self.spawn_with(variables);
        let line = daemon.line(|line| serving_at(line).is_some()).await;
        daemon.address = serving_at(&line).unwrap();
        daemon
    }
}

/// The address in the line that says `serving`, in either format.
fn serving_at(line: &str) -> Option<SocketAddr> {
    let address = match serde_json::from_str::<Value>(line) {
        Ok(line) => (line["message"] == "serving").then(|| line["address"].as_str().unwrap().to_owned())?,
        Err(_) => line
            .split(" serving address=")
            .nth(1)?
            .split(' ')
            .next()?
            .to_owned(),
    };
    Some(address.parse().unwrap())
}

/// A running daemon. It is killed when this goes out of scope.
pub struct Daemon {
    child: Child,
    log: watch::Receiver<Vec<String>>,
    pub address: SocketAddr,
    pin: String,
    operator_token: String,
}

impl Daemon {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the daemon has ended")
    }

    /// What it has written on standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// The first line of its log, in JSON, for which `wanted` holds; waits for it.
    pub async fn logged(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let holds = |line: &str| serde_json::from_str(line).is_ok_and(|line| wanted(&line));
        serde_json::from_str(&self.line(holds).await).unwrap()
    }

    /// The first line of its log for which `wanted` holds; waits for it.
    pub async fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let find = |log: &Vec<String>| log.iter().find(|line| wanted(line)).cloned();
        let found = self.log.wait_for(|log| find(log).is_some());
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(Ok(log)) => return find(&log).unwrap(),
            Ok(Err(_)) => {}
            Err(_) => eprintln!("waited in vain for a line of the log"),
        }
        panic!("the log has no such line:\n{}", self.log().join("\n"))
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().expect("the daemon has ended")).unwrap();
        kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// `kill -9`. Returns when it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it does not end:\n{}", self.log().join("\n")))
            .unwrap()
    }

    /// Waits for its end, and for the last line of what it wrote: standard output, then standard error.
    pub async fn output(mut self) -> (ExitStatus, String, Vec<String>) {
        use tokio::io::AsyncReadExt as _;
        let status = self.ended().await;
        let mut stdout = String::new();
        let pipe = self.child.stdout.as_mut().unwrap();
        pipe.read_to_string(&mut stdout).await.unwrap();
        while self.log.changed().await.is_ok() {}
        (status, stdout, self.log())
    }

    pub fn trust(&self) -> Trust {
        Trust::Pin(self.pin.parse::<Pin>().unwrap())
    }

    /// A caller with this token and no certificate.
    pub async fn caller(&self, token: Option<&str>) -> Caller {
        Caller::connect(&self.address.to_string(), self.trust(), None, token).await
    }

    pub async fn operator(&self) -> Caller {
        self.caller(Some(&self.operator_token)).await
    }

    /// Exchanges an enrollment token for an agent.
    pub async fn enroll_with(&self, token: &str) -> Enrolled {
        let key = NewKey::generate();
        let request = proto::EnrollRequest {
            token: Some(proto::Secret {
                value: token.to_owned(),
            }),
            csr_der: key.csr(),
            attributes: Default::default(),
        };
        let caller = self.caller(None).await;
        let answer = caller.enrollment().enroll(request).await.unwrap();
        Enrolled::new(answer.into_inner(), &key)
    }

    /// An agent of the org [`ORG`], assigned to `task`.
    pub async fn enroll(&self, operator: &Caller, task: &str) -> Enrolled {
        let token = operator.enrollment_token(ORG, task).await;
        self.enroll_with(&token).await
    }

    /// The agent, calling over its own connection.
    pub async fn agent(&self, enrolled: &Enrolled) -> Caller {
        let (identity, key) = (Some(enrolled.identity()), Some(enrolled.runtime_key.as_str()));
        Caller::connect(&self.address.to_string(), self.trust(), identity, key).await
    }
}
