//! A broker with a member's personal grant, and workers: agents with a task each.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use tonic::Status;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT, connector};
use crate::support::clock::MovedClock;
use crate::support::provider::Provider;
use crate::support::{Caller, Enrolled, NewKey, Options, TestBroker, reason};

/// What makes a connector's grants personal.
pub(crate) const PERSONAL: &str = "sharing = \"personal\"";
/// Longer than any lease.
const LIFE: Duration = Duration::from_secs(86_400);

pub(crate) struct Scene {
    pub(crate) broker: TestBroker,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) provider: Provider,
    pub(crate) operator: Caller,
    /// The member's grant.
    pub(crate) credential: String,
}

/// An agent, and the task that it works on.
pub(crate) struct Worker {
    pub(crate) enrolled: Enrolled,
    pub(crate) caller: Caller,
    pub(crate) task: String,
}

impl Worker {
    pub(crate) async fn resolve(&self) -> Result<proto::Lease, Status> {
        Ok(self.caller.resolve(&self.task).await?.lease.unwrap())
    }

    /// The resolution is refused for want of a place.
    pub(crate) async fn is_refused(&self) -> Status {
        let refused = self.resolve().await.unwrap_err();
        assert_eq!(reason(&refused), "PARALLELISM_LIMIT", "{refused:?}");
        refused
    }

    pub(crate) async fn release(&self, lease: &proto::Lease) {
        let lease = lease.id.clone();
        let request = proto::ReleaseLeaseRequest { lease };
        self.caller.broker().release_lease(request).await.unwrap();
    }
}

impl Scene {
    /// With a configuration, and connector keys such as [`PERSONAL`].
    pub(crate) async fn start(config: &str, keys: &str) -> Self {
        let provider = Provider::start(LIFE).await;
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: config.to_owned(),
            connectors: connector(&provider.token_url(), "tests", keys),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let credential = operator.import_grant(ORG, MEMBER, &provider.mint()).await.id;
        Self {
            broker,
            clock,
            provider,
            operator,
            credential,
        }
    }

    /// Stops, and starts again with these connector keys.
    pub(crate) async fn restart(self, keys: &str) -> Self {
        let connectors = connector(&self.provider.token_url(), "tests", keys);
        let broker = self
            .broker
            .restart_with(|options| options.connectors = connectors);
        let broker = broker.await;
        Self {
            operator: broker.operator().await,
            broker,
            ..self
        }
    }

    pub(crate) async fn worker(&self) -> Worker {
        let task = self.operator.make_task(ORG, MEMBER).await;
        let enrolled = self.broker.enroll(&self.operator, &task).await;
        let caller = self.broker.agent(&enrolled).await;
        Worker {
            enrolled,
            caller,
            task,
        }
    }

    /// The same agent, after a restart.
    pub(crate) async fn again(&self, worker: Worker) -> Worker {
        let caller = self.broker.agent(&worker.enrolled).await;
        Worker { caller, ..worker }
    }

    /// Workers with a lease each.
    pub(crate) async fn holding(&self, count: usize) -> Vec<(Worker, proto::Lease)> {
        let mut holding = Vec::new();
        for _ in 0..count {
            let worker = self.worker().await;
            let lease = worker.resolve().await.unwrap();
            holding.push((worker, lease));
        }
        holding
    }

    /// Many agents that work on one task.
    pub(crate) async fn crowd(&self, count: u32) -> Vec<Worker> {
        let task = self.operator.make_task(ORG, MEMBER).await;
        let request = proto::CreateEnrollmentTokensRequest {
            org: ORG.to_owned(),
            project: PROJECT.to_owned(),
            environment: ENVIRONMENT.to_owned(),
            task: task.clone(),
            count: 1,
            max_agents: count,
            ..Default::default()
        };
        let minted = self.operator.agents().create_enrollment_tokens(request).await;
        let token = minted.unwrap().into_inner().tokens.remove(0).token.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..count {
            let enrolled = self.broker.enroll_with(&token.value, &NewKey::generate()).await;
            let enrolled = enrolled.unwrap();
            let caller = self.broker.agent(&enrolled).await;
            let task = task.clone();
            crowd.push(Worker {
                enrolled,
                caller,
                task,
            });
        }
        crowd
    }

    /// Says how many leases may stand at once.
    pub(crate) async fn set(&self, parallelism: u32) -> proto::Credential {
        set(&self.operator, &self.credential, parallelism).await.unwrap()
    }

    /// Cap and count, as an admin sees them.
    pub(crate) async fn standing(&self) -> (u32, u32) {
        let shown = self.operator.health_of(ORG, &self.credential).await;
        let parallelism = shown.parallelism.unwrap();
        (parallelism.standing, parallelism.cap)
    }
}

pub(crate) async fn set(
    caller: &Caller,
    credential: &str,
    parallelism: u32,
) -> Result<proto::Credential, Status> {
    let request = proto::SetParallelismRequest {
        org: ORG.to_owned(),
        credential: credential.to_owned(),
        parallelism,
    };
    let answer = caller.credentials().set_parallelism(request).await?;
    Ok(answer.into_inner().credential.unwrap())
}
