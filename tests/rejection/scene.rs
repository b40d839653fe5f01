//! A broker with several providers, each with a grant of a member of its own, and agents with several tasks.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use tonic::Status;

use crate::support::broker::{ORG, PROJECT, connector};
use crate::support::client::owner;
use crate::support::clock::MovedClock;
use crate::support::provider::Provider;
use crate::support::{Caller, Enrolled, Options, TestBroker};

/// An executor that has Bedrock beside its native provider, and the platform's keys for that.
const EXECUTORS: &str = r#"
[executors.cloud-agent]
native_provider = "demo"
providers = { demo = ["oauth", "byok", "metered"], bedrock = ["byok"] }
"#;

/// How long the providers' access tokens live: longer than all that tests let pass.
pub(crate) const LIFE: Duration = Duration::from_secs(30_000);

pub(crate) struct Office {
    pub(crate) broker: TestBroker,
    pub(crate) operator: Caller,
    pub(crate) clock: Arc<MovedClock>,
    /// The provider of the grant of each of the members `m0`, `m1`, …
    pub(crate) providers: Vec<Provider>,
    /// Their grants.
    pub(crate) grants: Vec<String>,
}

/// An agent and its identity, with which it calls again after a restart.
pub(crate) struct Agent {
    pub(crate) caller: Caller,
    pub(crate) enrolled: Enrolled,
}

impl Office {
    pub(crate) async fn start(grants: usize, config: &str) -> Self {
        let (mut providers, mut connectors) = (Vec::new(), String::new());
        for number in 0..grants {
            let provider = Provider::start(LIFE).await;
            provider.number_from(1_000 * number);
            let table = connector(&provider.token_url(), "tests", "");
            connectors += &table.replace("connectors.demo", &format!("connectors.c{number}"));
            providers.push(provider);
        }
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: config.to_owned(),
            connectors,
            registry: EXECUTORS.to_owned(),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let mut office = Self {
            broker,
            operator,
            clock,
            providers,
            grants: Vec::new(),
        };
        for number in 0..grants {
            office.operator.make_member(ORG, &format!("m{number}")).await;
            let grant = office.connect(number).await;
            office.grants.push(grant);
        }
        office
    }

    /// The member signs in (again).
    pub(crate) async fn connect(&self, number: usize) -> String {
        let request = proto::ImportGrantRequest {
            org: ORG.to_owned(),
            owner: Some(owner(&format!("m{number}"))),
            connector: format!("c{number}"),
            refresh_token: Some(proto::Secret {
                value: self.providers[number].mint(),
            }),
            ..Default::default()
        };
        let imported = self.operator.credentials().import_grant(request).await.unwrap();
        imported.into_inner().credential.unwrap().id
    }

    /// A task of the member.
    pub(crate) async fn task(&self, number: usize) -> String {
        self.operator.make_task(ORG, &format!("m{number}")).await
    }

    /// An agent that all these tasks are assigned to.
    pub(crate) async fn agent(&self, tasks: &[impl AsRef<str>]) -> Agent {
        let enrolled = self.broker.enroll(&self.operator, tasks[0].as_ref()).await;
        for task in &tasks[1..] {
            let request = proto::AssignTaskRequest {
                org: ORG.to_owned(),
                task: task.as_ref().to_owned(),
                agents: vec![enrolled.agent.clone()],
            };
            self.operator.tasks().assign_task(request).await.unwrap();
        }
        let caller = self.broker.agent(&enrolled).await;
        Agent { caller, enrolled }
    }

    /// Automation of the org.
    pub(crate) async fn automation(&self) -> Caller {
        let (_, key) = self.operator.make_broad_api_key(ORG).await;
        self.broker.caller(Some(&key)).await
    }

    pub(crate) async fn restart(self, agents: &mut [&mut Agent]) -> Self {
        let broker = self.broker.restart().await;
        for agent in agents {
            agent.caller = broker.agent(&agent.enrolled).await;
        }
        Self {
            operator: broker.operator().await,
            broker,
            ..self
        }
    }

    pub(crate) fn minutes(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(60 * minutes));
    }

    /// Calls of the provider's token endpoint so far.
    pub(crate) fn calls(&self, number: usize) -> usize {
        self.providers[number].calls()
    }

    pub(crate) async fn shown(&self, number: usize) -> proto::Credential {
        self.operator.health_of(ORG, &self.grants[number]).await
    }
}

/// What is handed out directly for a member.
pub(crate) async fn direct(automation: &Caller, number: usize) -> proto::Lease {
    let request = proto::ResolveCredentialRequest {
        member: format!("m{number}"),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    let resolved = automation.broker().resolve_credential(request).await.unwrap();
    resolved.into_inner().lease.unwrap()
}

pub(crate) async fn lease(caller: &Caller, task: &str) -> proto::Lease {
    caller.resolve(task).await.unwrap().lease.unwrap()
}

/// Reports a generation as rejected, with what the provider said.
pub(crate) async fn report(
    caller: &Caller,
    lease: &str,
    generation: u64,
    said: &str,
) -> Result<proto::RefreshTokenResponse, Status> {
    let request = proto::RefreshTokenRequest {
        lease: lease.to_owned(),
        rejected_generation: generation,
        provider_message: said.to_owned(),
        ..Default::default()
    };
    Ok(caller.broker().refresh_token(request).await?.into_inner())
}

/// Reports each generation that is handed out as rejected, until it is refused; returns the last generation and why.
pub(crate) async fn report_all(caller: &Caller, lease: &str, from: u64) -> (u64, Status) {
    let mut generation = from;
    loop {
        match report(caller, lease, generation, "401").await {
            Ok(answer) => generation = answer.lease.unwrap().generation,
            Err(refused) => return (generation, refused),
        }
        assert!(generation < from + 1_000, "never refused");
    }
}
