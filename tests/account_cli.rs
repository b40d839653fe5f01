//! `credbroker account` as people and scripts run it: the real program, providers that let people sign in, a browser
//! by script.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "account_cli/late.rs"]
mod late;
#[path = "account_cli/listed.rs"]
mod listed;
#[path = "account_cli/pasted.rs"]
mod pasted;
mod support;
#[path = "support/user.rs"]
mod user;
#[path = "account_cli/ways.rs"]
mod ways;
#[path = "support/web.rs"]
mod web;

use std::sync::Arc;

use credbroker::dev::oauth::{DemoOAuth, DemoOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::broker::{MEMBER, ORG};
use support::clock::MovedClock;
use support::oidc::{CLI_CLIENT, OidcServer};
use support::{Options, TestBroker};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use user::{Ended, PATIENCE, User};

/// A broker whose provider `demo` has a connector, and an admin's user account.
struct Scene {
    broker: TestBroker,
    clock: Arc<MovedClock>,
    admin: User,
}

/// A command under way.
struct Running {
    child: Child,
    told: tokio::io::Lines<BufReader<ChildStderr>>,
    heard: String,
}

impl Scene {
    async fn new(connectors: String) -> Self {
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            connectors,
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let starting = user::SPAWNING.write().await;
        let broker = TestBroker::start_with(options).await;
        drop(starting);
        broker.prepare().await;
        let admin = User::new();
        let address = broker.address.to_string();
        admin
            .connect(&address, &broker.pin, ORG, broker.operator_token())
            .await;
        Self { broker, clock, admin }
    }

    /// With the demo provider, whose page shows `CODE#STATE`.
    async fn demo() -> (Self, DemoOAuth) {
        let demo = DemoOAuth::start(([127, 0, 0, 1], 0).into(), DemoOptions::default()).await;
        let demo = demo.unwrap();
        let connector = format!(
            "[connectors.demo]\nprovider = \"demo\"\ntoken_url = {:?}\nauthorize_url = {:?}\nclient_id = \"tests\"\n\
             client_auth = \"none\"\nredirects = [{{ kind = \"paste\", url = {:?}, code = \"code-and-state\" }}]\n",
            demo.token_url(),
            demo.url("/authorize"),
            demo.url("/code"),
        );
        (Self::new(connector).await, demo)
    }

    /// With a real OpenID Connect provider, for browsers on this machine and for devices.
    async fn oidc() -> (Self, OidcServer) {
        let provider = OidcServer::start().await;
        let connector = format!(
            "[connectors.demo]\nprovider = \"demo\"\nissuer = {:?}\nclient_id = {CLI_CLIENT:?}\nclient_auth = \"none\"\n\
             scopes = [\"openid\", \"offline_access\"]\nauthorize_params = {{ prompt = \"consent\" }}\n\
             redirects = [{{ kind = \"loopback\", host = \"127.0.0.1\", ports = [], path = \"/callback\" }}]\n",
            provider.issuer(),
        );
        (Self::new(connector).await, provider)
    }

    async fn run(&self, line: &str) -> Ended {
        self.admin.credbroker(&words(line)).await
    }

    async fn json(&self, line: &str) -> Value {
        self.run(&format!("{line} -o json")).await.json()
    }

    /// Begins a command, of a user who has no browser.
    async fn begin(&self, line: &str) -> Running {
        self.begin_with(line, |_| {}).await
    }

    async fn begin_with(&self, line: &str, change: impl FnOnce(&mut Command)) -> Running {
        let mut command = self.admin.command(env!("CARGO_BIN_EXE_credbroker"));
        command.args(words(line)).stdin(std::process::Stdio::piped());
        for name in ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY"] {
            command.env_remove(name);
        }
        change(&mut command);
        Running::start(command).await
    }

    /// How the only connection stands.
    async fn connection(&self) -> Value {
        let all = self.json("account connections").await;
        assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
        all[0].clone()
    }
}

impl Running {
    async fn start(mut command: Command) -> Self {
        let spawning = user::SPAWNING.read().await;
        let mut child = command.spawn().unwrap();
        drop(spawning);
        let told = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            child,
            told,
            heard: String::new(),
        }
    }

    /// The next line on standard error that begins so.
    async fn line(&mut self, begin: &str) -> String {
        let find = async {
            while let Some(line) = self.told.next_line().await.unwrap() {
                self.heard += &format!("{line}\n");
                if line.starts_with(begin) {
                    return line;
                }
            }
            panic!("it does not say '{begin}':\n{}", self.heard)
        };
        timeout(PATIENCE, find).await.unwrap()
    }

    /// Writes a line to its standard input.
    async fn give(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn end(mut self) -> Ended {
        let reading = async {
            while let Ok(Some(line)) = self.told.next_line().await {
                self.heard += &format!("{line}\n");
            }
        };
        timeout(PATIENCE, reading).await.expect("it does not end");
        let output = self.child.wait_with_output().await.unwrap();
        Ended {
            line: "account".to_owned(),
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: self.heard,
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
