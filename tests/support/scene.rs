//! A broker with a provider behind it: one member's grant, one task, one agent that has its first lease.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use tonic::Status;

use super::broker::{MEMBER, ORG, connector};
use super::clock::MovedClock;
use super::provider::Provider;
use super::{Caller, Options, TestBroker};

/// How long the provider's access tokens live.
pub const LIFE: Duration = Duration::from_secs(600);

pub struct Scene {
    pub broker: TestBroker,
    pub clock: Arc<MovedClock>,
    pub provider: Provider,
    pub operator: Caller,
    pub task: String,
    pub credential: String,
    pub agent: Caller,
}

impl Scene {
    /// With more keys for the connector, and a configuration. The grant is imported and was not used yet.
    pub async fn imported(connector_keys: &str, config: &str) -> Self {
        let provider = Provider::start(LIFE).await;
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: config.to_owned(),
            connectors: connector(&provider.token_url(), "tests", connector_keys),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let imported = operator.import_grant(ORG, MEMBER, &provider.mint()).await;
        let task = operator.make_task(ORG, MEMBER).await;
        let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
        Self {
            broker,
            clock,
            provider,
            operator,
            task,
            credential: imported.id,
            agent,
        }
    }

    /// As [`Scene::imported`], with the lease of a first exchange: generation 2, one call.
    pub async fn leased(connector_keys: &str, config: &str) -> (Self, proto::Lease) {
        let scene = Self::imported(connector_keys, config).await;
        let lease = scene.resolve().await.unwrap();
        assert_eq!((lease.generation, scene.provider.calls()), (2, 1));
        (scene, lease)
    }

    /// The agent's lease, with any token that works.
    pub async fn resolve(&self) -> Result<proto::Lease, Status> {
        self.resolve_for(Duration::ZERO).await
    }

    pub async fn resolve_for(&self, remaining: Duration) -> Result<proto::Lease, Status> {
        let answer = self.agent.resolve_for(&self.task, remaining).await?;
        Ok(answer.lease.unwrap())
    }

    /// The current access token has expired.
    pub fn expire(&self) {
        self.clock.advance(LIFE);
    }

    pub async fn shown(&self) -> proto::Credential {
        self.operator.health_of(ORG, &self.credential).await
    }
}
