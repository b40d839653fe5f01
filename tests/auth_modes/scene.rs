//! A broker on which each test, or each cell of a table, has an org of its own, in which any auth mode can be made to
//! work and any condition be brought about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, Capacity, KeyPool, PolicyCell, ResolveCredentialRequest, Verdict};
use prost_types::FieldMask;
use tonic::Status;

use crate::support::broker::{MEMBER, PROJECT, connector};
use crate::support::clock::MovedClock;
use crate::support::provider::Provider;
use crate::support::{Caller, Options, TestBroker, reason};

/// An executor that has all six modes with one provider and keys with another, and one that has Bedrock beside.
const EXECUTORS: &str = r#"
[executors.all-agent]
native_provider = "demo"

[executors.all-agent.providers]
demo = ["oauth", "byok", "metered", "shared", "host-session", "local"]
second = ["byok"]

[executors.cloud-agent]
native_provider = "demo"
providers = { demo = ["oauth", "byok", "metered", "shared"], bedrock = ["byok"] }
"#;

/// The executor of most tasks.
pub(crate) const EXECUTOR: &str = "all-agent";
/// Where the member's own machine has a model server.
pub(crate) const ENDPOINT: &str = "http://localhost:11434";
/// What the provider says of a grant that it does not take any more.
pub(crate) const REFUSED: &str = r#"{"error":"invalid_grant","error_description":"signed out by the user"}"#;

/// The mode in messages.
pub(crate) fn wire(mode: Mode) -> AuthMode {
    AuthMode::try_from(i32::try_from(Mode::ORDER.iter().position(|of| *of == mode).unwrap()).unwrap() + 1)
        .unwrap()
}

/// Denials of these modes, everywhere and for all models.
pub(crate) fn denying(modes: &[AuthMode]) -> Vec<PolicyCell> {
    let cell = |mode: &AuthMode| PolicyCell {
        mode: *mode as i32,
        model: "*".to_owned(),
        verdict: Verdict::Deny as i32,
        ..Default::default()
    };
    modes.iter().map(cell).collect()
}

/// A profile of these modes that goes on after a rejection.
pub(crate) fn profile(name: &str, modes: &[AuthMode]) -> proto::Profile {
    proto::Profile {
        name: name.to_owned(),
        modes: modes.iter().map(|mode| *mode as i32).collect(),
        on_rejection: proto::OnRejection::Next as i32,
        ..Default::default()
    }
}

/// The rules of an org that has one profile, named `set`.
pub(crate) fn with_profile(modes: &[AuthMode]) -> proto::OrgRules {
    proto::OrgRules {
        profiles: vec![profile("set", modes)],
        ..Default::default()
    }
}

/// The same rules with [`EXECUTOR`] pinned.
pub(crate) fn pinned(mode: AuthMode, rules: proto::OrgRules) -> proto::OrgRules {
    let pin = proto::ExecutorPin {
        executor: EXECUTOR.to_owned(),
        mode: mode as i32,
    };
    proto::OrgRules {
        pins: vec![pin],
        ..rules
    }
}

pub(crate) struct World {
    pub(crate) broker: TestBroker,
    pub(crate) operator: Caller,
    pub(crate) provider: Provider,
    pub(crate) clock: Arc<MovedClock>,
    orgs: AtomicUsize,
    requests: AtomicUsize,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With more configuration. The platform has keys for metered and shared use of `demo`.
    pub(crate) async fn with(config: &str) -> Self {
        let provider = Provider::start(Duration::from_secs(600)).await;
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: config.to_owned(),
            registry: EXECUTORS.to_owned(),
            connectors: connector(&provider.token_url(), "tests", "sharing = \"personal\""),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let world = Self {
            operator: broker.operator().await,
            broker,
            provider,
            clock,
            orgs: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        };
        world.set_platform_key(KeyPool::Metered).await;
        world.set_platform_key(KeyPool::Shared).await;
        world
    }

    pub(crate) async fn set_platform_key(&self, pool: KeyPool) {
        let key = format!("the-platforms-{}-key", pool.as_str_name());
        self.operator.set_managed_key(pool, "demo", &key).await.unwrap();
    }

    pub(crate) async fn remove_platform_key(&self, pool: KeyPool) {
        let request = proto::RemoveManagedKeyRequest {
            pool: pool as i32,
            provider: "demo".to_owned(),
        };
        self.operator
            .platform()
            .remove_managed_key(request)
            .await
            .unwrap();
    }

    pub(crate) async fn system(&self, denied: &[AuthMode]) {
        let document = proto::PolicyDocument {
            system: Some(proto::SystemPolicy {
                matrix: denying(denied),
            }),
            orgs: Vec::new(),
        };
        self.apply(document).await;
    }

    async fn apply(&self, document: proto::PolicyDocument) {
        let request = proto::ApplyPolicyRequest {
            document: Some(document),
            ..Default::default()
        };
        self.operator.policies().apply_policy(request).await.unwrap();
    }

    /// A new org, in which nothing is connected, stored or credited.
    pub(crate) async fn org(&self) -> Scene<'_> {
        let org = format!("org-{}", self.orgs.fetch_add(1, Ordering::SeqCst));
        self.operator.make_org(&org).await;
        let (_, key) = self.operator.make_broad_api_key(&org).await;
        Scene {
            world: self,
            automation: self.broker.caller(Some(&key)).await,
            org,
            executor: EXECUTOR,
            capacity: Capacity::Local,
            facts: proto::LocalFacts::default(),
            model: String::new(),
            minimum: Duration::ZERO,
        }
    }
}

/// An org and its automation.
pub(crate) struct Scene<'a> {
    pub(crate) world: &'a World,
    pub(crate) org: String,
    pub(crate) automation: Caller,
    /// Of new tasks.
    pub(crate) executor: &'static str,
    pub(crate) capacity: Capacity,
    /// Of requests.
    pub(crate) facts: proto::LocalFacts,
    pub(crate) model: String,
    pub(crate) minimum: Duration,
}

impl Scene<'_> {
    pub(crate) async fn rules(&self, rules: proto::OrgRules) {
        self.rules_and_project(rules, &[]).await;
    }

    /// The org's rules, and what its project denies.
    pub(crate) async fn rules_and_project(&self, rules: proto::OrgRules, project: &[AuthMode]) {
        let project = proto::ProjectPolicy {
            project: PROJECT.to_owned(),
            matrix: denying(project),
            ..Default::default()
        };
        let document = proto::PolicyDocument {
            system: None,
            orgs: vec![proto::OrgPolicy {
                org: self.org.clone(),
                rules: Some(rules),
                projects: vec![project],
                ..Default::default()
            }],
        };
        self.world.apply(document).await;
    }

    /// Connects the member's account; returns the grant's id.
    pub(crate) async fn connect(&self) -> String {
        let refresh_token = self.world.provider.mint();
        let imported = self
            .world
            .operator
            .import_grant(&self.org, MEMBER, &refresh_token);
        imported.await.id
    }

    /// Stores a key for `demo`, of the org where `member` is empty; returns its id.
    pub(crate) async fn store_key(&self, member: &str) -> String {
        let key = format!("the-own-key-of-{member}-{}", self.org);
        self.world.operator.set_key(&self.org, member, &key).await.id
    }

    pub(crate) async fn remove(&self, credential: &str) {
        let request = proto::RemoveCredentialRequest {
            org: self.org.clone(),
            credential: credential.to_owned(),
        };
        let mut credentials = self.world.operator.credentials();
        credentials.remove_credential(request).await.unwrap();
    }

    pub(crate) async fn lock(&self, credential: &str) {
        let request = proto::CreateLockRequest {
            org: self.org.clone(),
            target: Some(proto::LockTarget {
                target: Some(proto::lock_target::Target::Credential(credential.to_owned())),
                ..Default::default()
            }),
            message: "looked into".to_owned(),
            ..Default::default()
        };
        self.world.operator.locks().create_lock(request).await.unwrap();
    }

    pub(crate) async fn add_credit(&self, micros: i64) {
        let number = self.world.requests.fetch_add(1, Ordering::SeqCst);
        let request = proto::AddCreditRequest {
            org: self.org.clone(),
            micros,
            request_id: format!("00000000-0000-4000-8000-{number:012x}"),
            note: String::new(),
        };
        self.world.operator.billing().add_credit(request).await.unwrap();
    }

    async fn account(&self, path: &str, account: proto::Account) {
        let request = proto::UpdateAccountRequest {
            account: Some(proto::Account {
                org: self.org.clone(),
                ..account
            }),
            update_mask: Some(FieldMask {
                paths: vec![path.to_owned()],
            }),
        };
        self.world
            .operator
            .billing()
            .update_account(request)
            .await
            .unwrap();
    }

    pub(crate) async fn entitle(&self, metered: proto::Entitlement) {
        let account = proto::Account {
            metered: metered as i32,
            ..Default::default()
        };
        self.account("metered", account).await;
    }

    pub(crate) async fn shared_per_day(&self, limit: u32) {
        let account = proto::Account {
            shared_per_day: Some(limit),
            ..Default::default()
        };
        self.account("shared_per_day", account).await;
    }

    pub(crate) async fn subscribe(&self, subscription: proto::Subscription) {
        let account = proto::Account {
            subscription: subscription as i32,
            ..Default::default()
        };
        self.account("subscription", account).await;
    }

    /// A task with this profile, none where it is empty.
    pub(crate) async fn task(&self, profile: &str) -> String {
        let request = proto::CreateTaskRequest {
            org: self.org.clone(),
            member: MEMBER.to_owned(),
            project: PROJECT.to_owned(),
            executor: self.executor.to_owned(),
            profile: profile.to_owned(),
            capacity: self.capacity as i32,
            ..Default::default()
        };
        let made = self.world.operator.tasks().create_task(request).await.unwrap();
        made.into_inner().task.unwrap().id
    }

    /// Resolves for the task, after having it explained: both have to say the same.
    pub(crate) async fn resolve(&self, task: &str) -> Result<proto::ResolveCredentialResponse, Status> {
        let explained = self.explain(task).await;
        let resolved = self.resolve_unexplained(task).await;
        let mut decision = explained.decision.unwrap();
        match &resolved {
            Ok(resolved) => {
                // Answers leave out what each scope said.
                assert!(!std::mem::take(&mut decision.scopes).is_empty());
                assert_eq!(Some(&decision), resolved.decision.as_ref());
                assert!(decision.allowed);
                let lease = resolved.lease.as_ref().unwrap();
                assert_eq!(
                    (decision.mode, &decision.provider, &decision.credential),
                    (lease.mode, &lease.provider, &lease.credential)
                );
                assert_eq!(decision.fallback_reason, resolved.fallback_reason);
            }
            Err(refused) => {
                assert!(!decision.allowed && decision.mode == 0 && decision.credential.is_empty());
                assert_eq!(decision.reason, reason(refused));
                assert_eq!(explained.message, refused.message());
                assert!(!explained.remedy.is_empty() && !explained.fault.is_empty());
            }
        }
        resolved
    }

    pub(crate) fn asks(&self, task: &str) -> ResolveCredentialRequest {
        ResolveCredentialRequest {
            task: task.to_owned(),
            model: self.model.clone(),
            minimum_remaining: Some(self.minimum.try_into().unwrap()),
            local_facts: Some(self.facts.clone()),
            ..Default::default()
        }
    }

    /// Without asking for an explanation first.
    pub(crate) async fn resolve_unexplained(
        &self,
        task: &str,
    ) -> Result<proto::ResolveCredentialResponse, Status> {
        let resolved = self
            .automation
            .broker()
            .resolve_credential(self.asks(task))
            .await?;
        Ok(resolved.into_inner())
    }

    pub(crate) async fn explain(&self, task: &str) -> proto::ExplainResolutionResponse {
        let request = proto::ExplainResolutionRequest {
            resolution: Some(self.asks(task)),
        };
        let explained = self.automation.broker().explain_resolution(request).await;
        explained.unwrap().into_inner()
    }

    /// The mode that a new task with the profile `set` resolves to, and why no other before it.
    pub(crate) async fn picks(&self) -> (AuthMode, String) {
        let resolved = self.resolve(&self.task("set").await).await.unwrap();
        (resolved.lease.unwrap().mode(), resolved.fallback_reason)
    }

    /// Why a new task with the profile `set` gets nothing.
    pub(crate) async fn refuses(&self) -> Status {
        self.resolve(&self.task("set").await).await.unwrap_err()
    }

    /// All cost events of the org.
    pub(crate) async fn cost_events(&self) -> Vec<proto::CostEvent> {
        let request = proto::ListCostEventsRequest {
            org: self.org.clone(),
            page_size: 200,
            ..Default::default()
        };
        let page = self.world.operator.billing().list_cost_events(request).await;
        page.unwrap().into_inner().events
    }
}
