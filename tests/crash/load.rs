//! What keeps the daemon busy until it is killed, and a ledger of all that it acknowledged.

use std::sync::{Arc, Mutex, MutexGuard};

use credbroker::proto;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::support::broker::{MEMBER, ORG};
use super::support::client::secret;
use super::support::process::Daemon;
use super::support::{Caller, Enrolled};

/// An agent and the member it works for.
pub struct Worker {
    pub member: usize,
    pub enrolled: Enrolled,
}

/// A credential that was handed out.
#[derive(Clone, Debug)]
pub struct Given {
    pub member: usize,
    pub action: &'static str,
    pub position: u64,
    pub lease: String,
    pub credential: String,
    pub generation: u64,
    pub token: String,
}

/// What was acknowledged, as the clients saw it.
#[derive(Default)]
pub struct Acknowledged {
    pub tasks: Vec<String>,
    pub api_keys: Vec<String>,
    pub given: Vec<Given>,
    /// What the broker refused. It was never asked for anything it may refuse.
    pub refused: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Acknowledged>>);

impl Ledger {
    fn open(&self) -> MutexGuard<'_, Acknowledged> {
        self.0.lock().unwrap()
    }

    /// Takes what was acknowledged since the last time.
    pub fn take(&self) -> Acknowledged {
        std::mem::take(&mut self.open())
    }

    /// A refusal has details; where the connection broke there are none.
    fn failed(&self, what: &str, status: &Status) {
        if status.get_error_details().error_info().is_some() {
            self.open().refused.push(format!("{what}: {status:?}"));
        }
    }
}

impl Worker {
    /// What was handed out by a resolution.
    pub async fn resolve(&self, agent: &Caller) -> Result<Given, Status> {
        let answer = agent.resolve("").await?;
        Ok(self.given(
            "credential.resolve",
            answer.journal_position,
            answer.lease.unwrap(),
        ))
    }

    /// Reports a generation as rejected; what is handed out in its place.
    pub async fn replace(&self, agent: &Caller, rejected: &Given) -> Result<Given, Status> {
        let request = proto::RefreshTokenRequest {
            lease: rejected.lease.clone(),
            rejected_generation: rejected.generation,
            ..Default::default()
        };
        let answer = agent.broker().refresh_token(request).await?.into_inner();
        let (position, lease) = (answer.journal_position, answer.lease.unwrap());
        assert!(lease.generation > rejected.generation);
        Ok(self.given("credential.force_rotate", position, lease))
    }

    fn given(&self, action: &'static str, position: u64, lease: proto::Lease) -> Given {
        Given {
            member: self.member,
            action,
            position,
            token: secret(&lease).to_owned(),
            lease: lease.id,
            credential: lease.credential,
            generation: lease.generation,
        }
    }
}

/// Every agent asks again and again, and now and then reports a rejection.
async fn resolving(worker: Arc<Worker>, agent: Caller, ledger: Ledger) {
    for turn in 1_u64.. {
        let given = match worker.resolve(&agent).await {
            Ok(given) => given,
            Err(status) => return ledger.failed("resolve", &status),
        };
        ledger.open().given.push(given.clone());
        if turn.is_multiple_of(4) {
            match worker.replace(&agent, &given).await {
                Ok(given) => ledger.open().given.push(given),
                Err(status) => return ledger.failed("replace", &status),
            }
        }
    }
}

async fn creating_tasks(operator: Caller, ledger: Ledger) {
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: super::support::broker::PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    loop {
        match operator.tasks().create_task(request.clone()).await {
            Ok(answer) => ledger.open().tasks.push(answer.into_inner().task.unwrap().id),
            Err(status) => return ledger.failed("create task", &status),
        }
    }
}

async fn creating_api_keys(operator: Caller, ledger: Ledger) {
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    loop {
        match operator.access().create_api_key(request.clone()).await {
            Ok(answer) => {
                let token = answer.into_inner().token.unwrap();
                ledger.open().api_keys.push(token.value.clone());
            }
            Err(status) => return ledger.failed("create API key", &status),
        }
    }
}

/// Starts it all; it ends by itself when the daemon does.
pub async fn start(daemon: &Daemon, workers: &[Arc<Worker>], ledger: &Ledger) -> tokio::task::JoinSet<()> {
    let mut load = tokio::task::JoinSet::new();
    for worker in workers {
        let agent = daemon.agent(&worker.enrolled).await;
        load.spawn(resolving(Arc::clone(worker), agent, ledger.clone()));
    }
    let operator = daemon.operator().await;
    load.spawn(creating_tasks(operator.clone(), ledger.clone()));
    load.spawn(creating_api_keys(operator, ledger.clone()));
    load
}
