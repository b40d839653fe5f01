//! A broker with a model proxy in front of the provider `demo`, and agents that use it with the platform's keys.

use std::sync::Arc;

use credbroker::clock::Clock as _;
use credbroker::domain::time::Time;
use credbroker::proto::{self, KeyPool, material::Material};

use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::clock::MovedClock;
use crate::support::{Caller, Enrolled, Options, TestBroker};

/// The platform's key for metered use of `demo`.
pub(crate) const KEY: &str = "the-platforms-metered-key-0001";

const PROXY: &str = "[proxy]\nbase_url = \"https://proxy.example/{provider}/v1\"\n";

/// Two executors: one has metered use of `demo` and nothing else, the other shared use.
const EXECUTORS: &str = r#"
[executors.metered-agent]
native_provider = "demo"
providers = { demo = ["metered"] }

[executors.shared-agent]
native_provider = "demo"
providers = { demo = ["shared"] }
"#;

/// An agent with a lease, and what it was handed by it.
pub(crate) struct Used {
    pub(crate) task: String,
    pub(crate) agent: Enrolled,
    pub(crate) lease: proto::Lease,
    pub(crate) grant: String,
    pub(crate) url: String,
}

pub(crate) struct Scene {
    pub(crate) broker: TestBroker,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) operator: Caller,
    /// The platform's model proxy.
    pub(crate) proxy: Caller,
    proxy_token: String,
    pub(crate) used: Vec<Used>,
}

impl Scene {
    /// With credit, an agent of metered use for the usual member, and one for each of `more`.
    pub(crate) async fn start(more: &[&str]) -> Self {
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: PROXY.to_owned(),
            registry: EXECUTORS.to_owned(),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        operator
            .set_managed_key(KeyPool::Metered, "demo", KEY)
            .await
            .unwrap();
        let proxy_token = operator.make_model_proxy().await;
        let mut scene = Self {
            proxy: broker.caller(Some(&proxy_token)).await,
            broker,
            clock,
            operator,
            proxy_token,
            used: Vec::new(),
        };
        scene.add_credit(1_000_000).await;
        for member in std::iter::once(&MEMBER).chain(more) {
            if *member != MEMBER {
                scene.operator.make_member(ORG, member).await;
            }
            let used = scene.resolved(member, "metered-agent").await;
            scene.used.push(used);
        }
        scene
    }

    /// An agent with a task of this executor, which resolves.
    pub(crate) async fn resolved(&self, member: &str, executor: &str) -> Used {
        let request = proto::CreateTaskRequest {
            org: ORG.to_owned(),
            member: member.to_owned(),
            project: PROJECT.to_owned(),
            executor: executor.to_owned(),
            ..Default::default()
        };
        let made = self.operator.tasks().create_task(request).await.unwrap();
        let task = made.into_inner().task.unwrap().id;
        let agent = self.broker.enroll(&self.operator, &task).await;
        let (lease, grant, url) = self.again(&agent, &task).await;
        Used {
            task,
            agent,
            lease,
            grant,
            url,
        }
    }

    /// What the agent is handed when it asks (again): the lease, the grant, and where that is good.
    pub(crate) async fn again(&self, agent: &Enrolled, task: &str) -> (proto::Lease, String, String) {
        let resolved = self.broker.agent(agent).await.resolve(task).await.unwrap();
        let lease = resolved.lease.unwrap();
        let material = lease.material.clone().and_then(|material| material.material);
        let Some(Material::ProxyGrant(grant)) = material else {
            panic!("no proxy grant");
        };
        (lease, grant.token.unwrap().value.clone(), grant.base_url)
    }

    /// Adds to the org's balance, which may be less than nothing.
    pub(crate) async fn add_credit(&self, micros: i64) {
        let request = proto::AddCreditRequest {
            org: ORG.to_owned(),
            micros,
            // Another one for each amount; no test adds one twice.
            request_id: format!("00000000-0000-4000-8000-{:012x}", micros & 0xffff_ffff_ffff),
            ..Default::default()
        };
        self.operator.billing().add_credit(request).await.unwrap();
    }

    /// Starts again, with these keys of `[proxy]` beside the base URL.
    pub(crate) async fn restart(self, proxy: &str) -> Self {
        let config = format!("{PROXY}{proxy}\n");
        let broker = self.broker.restart_with(|options| options.config = config).await;
        Self {
            operator: broker.operator().await,
            proxy: broker.caller(Some(&self.proxy_token)).await,
            broker,
            ..self
        }
    }

    /// The time by the broker's clock.
    pub(crate) fn now(&self) -> Time {
        self.clock.wall()
    }
}
