//! What a resolution starts from: the task's pin, the permit, and for whom its entries are looked at.

use super::ResolveInput;
use super::look::For;
use super::obtain::Choice;
use super::plan::{Plan, Sought};
use super::subject::Subject;
use crate::domain::credential::Credential;
use crate::domain::decision::Decision;
use crate::domain::gate::Permit;
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::policy::Policy;
use crate::domain::profile::OnRejection;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::keys::{self, Key};
use crate::store::model::{Pin, Runs};
use crate::store::record::{Changes, Stored};

/// What a resolution starts from.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) permit: Permit,
    /// The task's first choice, and where it is kept; none for a direct resolution.
    pub(super) pin: Option<Pinning>,
}

/// Where a task's first choice is kept, and what is there.
pub(super) struct Pinning {
    pub(super) key: Key,
    pub(super) stored: Option<Stored<Pin>>,
}

impl Prepared {
    /// For whom the permit's entries are looked at.
    pub(super) fn whom<'a>(&self, subject: &'a Subject, input: &ResolveInput<'a>) -> For<'a> {
        let pin = self.pin.as_ref().and_then(|pin| pin.stored.as_ref());
        For {
            org: subject.org,
            // At the scope of the system nobody's personal account is used.
            member: (!subject.system_scope).then_some(subject.member),
            executor: &subject.executor,
            capacity: subject.capacity,
            facts: input.facts,
            in_use: pin.and_then(|pin| pin.value.credential),
            named: self.plan.named,
            because: pin.and_then(|pin| pin.value.because()),
            dispatched: false,
        }
    }
}

impl Pin {
    /// Why the task does not run on the first way it might have.
    pub(super) fn because(&self) -> Option<Reason> {
        Reason::from_code(self.runs.as_ref()?.because.as_deref()?)
    }
}

impl Prepared {
    /// The pin that a choice leads to, where it is another than the one there is.
    pub(super) fn newly_pinned(&self, choice: &Choice) -> Option<Pin> {
        let pinning = self.pin.as_ref()?;
        let new = Pin {
            credential: choice.source.credential().map(|credential| credential.id),
            position: u32::try_from(choice.position).unwrap_or(u32::MAX),
            runs: Some(self.plan.runs(&self.permit, choice)),
        };
        let same = |before: &Pin| before.credential == new.credential && before.runs == new.runs;
        let kept = pinning.stored.as_ref().is_some_and(|stored| same(&stored.value));
        (!kept).then_some(new)
    }

    /// Adds to `changes` that the task is pinned so, guarded by what it was pinned to.
    pub(super) fn pinning(&self, changes: Changes, pin: &Pin) -> Changes {
        let Some(pinning) = &self.pin else {
            return changes;
        };
        let changes = match &pinning.stored {
            Some(before) => changes.at(&pinning.key, before.revision),
            None => changes.absent(&pinning.key),
        };
        changes.put(&pinning.key, pin)
    }
}

impl Broker {
    /// Reads the pin and passes the gate; the account of it goes into `decision`.
    pub(super) async fn prepare(
        &self,
        policy: &Policy,
        subject: &Subject,
        input: &ResolveInput<'_>,
        decision: &mut Decision,
    ) -> Result<Prepared, Refusal> {
        *decision = Decision {
            policy_version: policy.version,
            system_scope: subject.system_scope,
            ..Decision::default()
        };
        let executor = self.executor(&subject.executor)?;
        let provider = match input.provider {
            "" => subject.provider.as_deref().unwrap_or(&executor.native_provider),
            named => named,
        };
        self.supported(executor, provider)?;
        let pin = match subject.task_id() {
            // What is resolved at the scope of the system has nothing to do with what the task runs on.
            Some(task) if !subject.system_scope => {
                let key = keys::pin(subject.org, task, provider);
                let stored = self.records.get::<Pin>(&key).await?;
                Some(Pinning { key, stored })
            }
            _ => None,
        };
        let runs = match pin.as_ref().and_then(|pin| pin.stored.as_ref()) {
            Some(pin) => self.runs(subject, &pin.value).await?,
            None => None,
        };
        let sought = Sought {
            org: subject.org,
            project: Some(subject.project),
            executor,
            provider,
            model: input.model,
            profile: &subject.profile,
            system_scope: subject.system_scope,
        };
        let plan = self.plan(policy, sought, runs.as_ref())?;
        decision.said = Some(plan.gated.said);
        decision.selected_by = plan.selected_by.clone();
        let permit = plan.gated.permit.clone()?;
        decision.permit = permit.entries().to_vec();
        Ok(Prepared { plan, permit, pin })
    }

    /// What a task runs on. A pin of the first release tells it by its credential; where that is gone, it tells
    /// nothing.
    async fn runs(&self, subject: &Subject, pin: &Pin) -> Result<Option<Runs>, Refusal> {
        if pin.runs.is_some() {
            return Ok(pin.runs.clone());
        }
        let Some(id) = pin.credential else { return Ok(None) };
        let stored = self
            .records
            .get::<Credential>(&keys::credential(subject.org, id))
            .await?;
        Ok(stored.map(|credential| {
            let mode = match credential.value.kind {
                CredentialKind::OAuthGrant => AuthMode::OAuth,
                CredentialKind::ApiKey | CredentialKind::Aws | CredentialKind::BedrockBearer => {
                    AuthMode::Byok
                }
            };
            Runs {
                mode,
                provider: credential.value.provider.clone(),
                modes: ModeSet::EMPTY.with(mode),
                on_rejection: OnRejection::Fail,
                named: None,
                because: None,
                kind: Some(credential.value.kind),
            }
        }))
    }
}
