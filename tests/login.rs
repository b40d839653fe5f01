//! `credbroker login` as people run it: the real program, a real OpenID Connect provider, a browser by script.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "login/session.rs"]
mod session;
mod support;
#[path = "support/user.rs"]
mod user;
#[path = "login/ways.rs"]
mod ways;
#[path = "support/web.rs"]
mod web;

use std::sync::Arc;
use std::time::Duration;

use support::broker::{MEMBER, ORG};
use support::clock::MovedClock;
use support::oidc::{CLI_CLIENT, OidcServer};
use support::{Options, TestBroker};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;
use user::{Ended, PATIENCE, User};
use web::{Browser, Page};

/// A broker that trusts a provider; its operator, and somebody with a home of their own.
struct Scene {
    provider: OidcServer,
    broker: TestBroker,
    clock: Arc<MovedClock>,
    admin: User,
    user: User,
}

/// A `credbroker login` under way.
struct Login {
    child: Child,
    told: tokio::io::Lines<BufReader<ChildStderr>>,
}

impl Scene {
    async fn new() -> Self {
        let provider = OidcServer::start().await;
        let clock = Arc::new(MovedClock::default());
        let config = format!(
            "[[oidc.issuers]]\nissuer = {:?}\nclient_id = {CLI_CLIENT:?}\norgs = [{ORG:?}]\n",
            provider.issuer()
        );
        let options = Options {
            config,
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let starting = user::SPAWNING.write().await;
        let broker = TestBroker::start_with(options).await;
        drop(starting);
        broker.prepare().await;
        let admin = User::new();
        let address = broker.address.to_string();
        let add = [
            "context",
            "add",
            "admin",
            "--address",
            &address,
            "--ca-pin",
            &broker.pin,
            "--org",
            ORG,
        ];
        admin.credbroker_with(&add, broker.operator_token()).await.good();
        Self {
            provider,
            broker,
            clock,
            admin,
            user: User::new(),
        }
    }

    /// With the prepared member linked to the provider's subject `alice`.
    async fn linked() -> Self {
        let scene = Self::new().await;
        scene.link().await;
        scene
    }

    async fn link(&self) {
        let identity = format!("oidc:{}#alice", self.provider.issuer());
        let update = ["member", "update", MEMBER, "--identity", &identity];
        self.admin.credbroker(&update).await.good();
    }

    async fn unlink(&self) {
        let update = ["member", "update", MEMBER, "--no-identities"];
        self.admin.credbroker(&update).await.good();
    }

    /// Begins `credbroker login` with these arguments, at this broker.
    async fn begin(&self, arguments: &[&str]) -> Login {
        let mut command = self.user.command(env!("CARGO_BIN_EXE_credbroker"));
        command
            .arg("login")
            .args(["--address", &self.broker.address.to_string()]);
        command.args(["--ca-pin", &self.broker.pin, "--context", "corp", "--org", ORG]);
        command.args(arguments);
        let spawning = user::SPAWNING.read().await;
        let mut child = command.spawn().unwrap();
        drop(spawning);
        let told = BufReader::new(child.stderr.take().unwrap()).lines();
        Login { child, told }
    }

    /// Signs in with the browser, as `person`.
    async fn sign_in(&self, person: &str) -> (Page, Ended) {
        let mut login = self.begin(&["--no-browser"]).await;
        let address = login.line("http://").await;
        let page = Browser::of(person).run(&address).await;
        (page, login.end().await)
    }

    async fn run(&self, line: &str) -> Ended {
        self.user
            .credbroker(&line.split_whitespace().collect::<Vec<_>>())
            .await
    }

    /// The file with the tokens of the context.
    fn session(&self) -> std::path::PathBuf {
        self.user.path("config/tokens/corp.session")
    }

    /// What is in it.
    fn stored(&self, field: &str) -> String {
        let text = std::fs::read_to_string(self.session()).unwrap();
        let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
        stored[field].as_str().unwrap().to_owned()
    }
}

impl Login {
    /// The next line that begins so.
    async fn line(&mut self, begin: &str) -> String {
        let find = async {
            while let Some(line) = self.told.next_line().await.unwrap() {
                if line.starts_with(begin) {
                    return line;
                }
            }
            panic!("it does not say '{begin}'")
        };
        timeout(PATIENCE, find).await.unwrap()
    }

    async fn end(mut self) -> Ended {
        let mut err = String::new();
        let reading = async {
            while let Ok(Some(line)) = self.told.next_line().await {
                err += &(line + "\n");
            }
        };
        timeout(PATIENCE, reading).await.expect("it does not end");
        let output = self.child.wait_with_output().await.unwrap();
        Ended {
            line: "login".to_owned(),
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err,
        }
    }
}
