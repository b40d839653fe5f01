//! The `credbroker` command against a broker: the real program, run as operators and agents run it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "cli/agent.rs"]
mod agent;
#[path = "cli/approvals.rs"]
mod approvals;
#[path = "cli/billing.rs"]
mod billing;
#[path = "cli/contexts.rs"]
mod contexts;
#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/journal.rs"]
mod journal;
#[path = "cli/kinds.rs"]
mod kinds;
#[path = "cli/operator.rs"]
mod operator;
#[path = "cli/platform.rs"]
mod platform;
#[path = "cli/policy.rs"]
mod policy;
#[path = "cli/refusals.rs"]
mod refusals;
mod support;
#[path = "cli/tokens.rs"]
mod tokens;
#[path = "support/user.rs"]
mod user;
#[path = "cli/watch.rs"]
mod watch;

use serde_json::Value;
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use support::{Options, TestBroker};
use user::User;

/// A broker, and an operator's user account with a context for it.
struct Scene {
    broker: TestBroker,
    user: User,
}

impl Scene {
    /// With the context `test`, whose org is the prepared one, and nothing made yet.
    async fn bare(options: Options) -> Self {
        // A process that another test starts has this one's open files, and so the lock of a store that is opened
        // twice here, for the moment until it runs its own program.
        let starting = user::SPAWNING.write().await;
        let broker = TestBroker::start_with(options).await;
        drop(starting);
        let user = User::new();
        let address = broker.address.to_string();
        user.connect(&address, &broker.pin, ORG, broker.operator_token())
            .await;
        Self { broker, user }
    }

    /// With the org and what is in it.
    async fn new() -> Self {
        let scene = Self::bare(Options::default()).await;
        scene.broker.prepare().await;
        scene
    }

    /// Runs `credbroker` with the words of `line`.
    async fn run(&self, line: &str) -> user::Ended {
        self.user.credbroker(&words(line)).await
    }

    async fn run_with(&self, line: &str, input: &str) -> user::Ended {
        self.user.credbroker_with(&words(line), input).await
    }

    /// The answer of a command, as its JSON has it.
    async fn json(&self, line: &str) -> Value {
        self.run(&format!("{line} -o json")).await.json()
    }

    /// A task of the prepared member, by the command.
    async fn task(&self) -> String {
        let line = format!("task create --member {MEMBER} --project {PROJECT} --executor demo-agent -o name");
        self.run(&line).await.good().trim().to_owned()
    }

    /// Enrolls with a token for `task` into the folder `name`, by the commands.
    async fn enroll(&self, task: &str, name: &str) -> String {
        let mint = format!("enrollment-token create --project {PROJECT} --environment {ENVIRONMENT}");
        let token = self.run(&format!("{mint} --task {task} -o value")).await.good();
        let (address, pin) = (self.broker.address, &self.broker.pin);
        let line = format!("enroll --address {address} --ca-pin {pin} --identity {name}");
        self.run_with(&line, &token).await.good()
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Whether it is a time as RFC 3339 has it, in UTC.
fn is_time(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok())
}

/// The lines of a table, each as its words.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(words).collect()
}
