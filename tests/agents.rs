//! The life of agents over the port: seen, renewed after a long sleep, copied, introspected, listed, expired and
//! collected.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "agents/copies.rs"]
mod copies;
#[path = "agents/introspection.rs"]
mod introspection;
#[path = "agents/presence.rs"]
mod presence;
#[path = "agents/sleep.rs"]
mod sleep;
#[path = "agents/sweeping.rs"]
mod sweeping;

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use support::broker::{ENVIRONMENT, ORG, PROJECT};
use support::clock::MovedClock;
use support::{Caller, Enrolled, NewKey, Options, TestBroker, reason};
use tonic::Status;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A broker whose clock can be moved on, its operator, and the prepared org.
struct Site {
    broker: TestBroker,
    clock: Arc<MovedClock>,
    operator: Caller,
}

impl Site {
    async fn start(config: &str) -> Self {
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: config.to_owned(),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        Self {
            broker,
            clock,
            operator,
        }
    }

    /// An agent, and the key it enrolled with.
    async fn agent(&self, task: &str) -> (Enrolled, NewKey) {
        let token = self.operator.enrollment_token(ORG, task).await;
        let key = NewKey::generate();
        (self.broker.enroll_with(&token, &key).await.unwrap(), key)
    }

    async fn shown(&self, agent: &str) -> proto::Agent {
        let request = proto::GetAgentRequest {
            org: ORG.to_owned(),
            agent: agent.to_owned(),
        };
        let answer = self.operator.agents().get_agent(request).await.unwrap();
        answer.into_inner().agent.unwrap()
    }

    /// All agents that the filter takes, page by page, and how many pages there were.
    async fn listed(&self, filter: proto::AgentFilter, page_size: i32) -> (Vec<proto::Agent>, usize) {
        let (mut all, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = proto::ListAgentsRequest {
                org: ORG.to_owned(),
                page_size,
                page_token,
                filter: Some(filter.clone()),
            };
            let page = self
                .operator
                .agents()
                .list_agents(request)
                .await
                .unwrap()
                .into_inner();
            assert!(page_size == 0 || page.agents.len() <= usize::try_from(page_size).unwrap());
            all.extend(page.agents);
            pages += 1;
            if page.next_page_token.is_empty() {
                return (all, pages);
            }
            page_token = page.next_page_token;
        }
    }

    async fn journaled(&self, action: &str) -> Vec<proto::JournalRecord> {
        let records = self.operator.records().await.into_iter();
        records.filter(|record| record.action == action).collect()
    }
}

/// Whether the caller is taken for an agent; the reason where it is not.
async fn who(caller: &Caller) -> Result<String, String> {
    match caller.access().who_am_i(proto::WhoAmIRequest {}).await {
        Ok(answer) => Ok(answer.into_inner().actor),
        Err(status) => Err(reason(&status)),
    }
}

async fn renew(caller: &Caller, key: &NewKey) -> Result<Vec<Vec<u8>>, Status> {
    let csr_der = key.csr();
    let request = proto::RenewCertificateRequest { csr_der };
    let answer = caller.enrollment().renew_certificate(request).await?;
    Ok(answer.into_inner().certificate_chain_der)
}

/// What an enrollment token is asked for with.
fn token_request() -> proto::CreateEnrollmentTokensRequest {
    proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        ..Default::default()
    }
}
