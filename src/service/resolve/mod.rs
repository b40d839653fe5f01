//! Resolution: whose credential this task gets, decided, recorded, handed out.

mod bounded;
mod clearance;
mod explain;
mod lease;
mod look;
mod obtain;
mod place;
mod plan;
mod prepare;
mod replace;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::actor::{Actor, Caller};
use crate::domain::credential::Credential;
use crate::domain::decision::Decision;
use crate::domain::id::{CredentialId, MemberId, OrgId};
use crate::domain::journal::{Action, Position, Record};
use crate::domain::lease::Lease;
use crate::domain::mode::CredentialKind;
use crate::domain::pool::pool_of;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::task::{Capacity, Task, TaskClaims};
use crate::domain::walk::Walk;
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::service::lease::{Material, Vended, holder};
use crate::service::managed_keys::ManagedSecret;
use crate::store::keys;
use crate::store::record::Stored;
use obtain::{Choice, Purpose, lost};
use prepare::Prepared;
use subject::Subject;

pub use explain::Explained;
pub(in crate::service) use look::{For, Source};
pub(in crate::service) use plan::Sought;
pub use replace::{RefreshInput, Refreshed};

/// What is asked for.
#[derive(Clone, Copy, Default)]
pub struct ResolveInput<'a> {
    /// The org, for an operator.
    pub org: &'a str,
    /// The task; may be empty for an agent with exactly one, and for a direct resolution.
    pub task: &'a str,
    /// Without a task: the member, by id or name.
    pub member: &'a str,
    /// Without a task: the member by outside identity.
    pub member_identity: &'a str,
    /// Without a task: the project.
    pub project: &'a str,
    /// The agent program.
    pub executor: &'a str,
    /// The provider.
    pub provider: &'a str,
    /// The model.
    pub model: &'a str,
    /// The model profile.
    pub profile: &'a str,
    /// Where the program runs.
    pub capacity: Option<Capacity>,
    /// The hash of the task specification.
    pub spec_hash: &'a str,
    /// How long the credential has to work.
    pub minimum_remaining: Option<Duration>,
    /// The token of an approval, where there is one.
    pub approval: Option<&'a Secret<ActorToken>>,
    /// What the caller found on its own machine.
    pub facts: Facts<'a>,
    /// Whether an operator resolves at the scope of the system, which the access matrix does not bind.
    pub system_scope: bool,
    /// The caller's request id.
    pub request_id: &'a str,
}

/// What a caller found on its own machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Whether the official program has a session of its own.
    pub host_session: bool,
    /// The address of a local model endpoint, and whether it answered.
    pub local_endpoint: Option<(&'a str, bool)>,
}

/// What is handed out, and how that was decided.
pub struct Resolved {
    /// The lease with its material.
    pub vended: Vended,
    /// The decision.
    pub decision: Decision,
    /// The position of the journal record that says so.
    pub position: Position,
}

/// The longest name of a model, executor or provider taken, and the longest request id, in bytes.
const MAX_NAME: usize = 128;
const MAX_REQUEST_ID: usize = 64;
const MAX_MINIMUM: Duration = Duration::from_secs(86_400);
/// How often a first lease is tried again when something it depends on changes at the same moment.
const ATTEMPTS: usize = 8;

pub(super) fn checked_request_id(text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_REQUEST_ID || text.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            "request_id",
            "request_id is at most 64 printable characters",
        ));
    }
    Ok(())
}

/// Names of models are compared as they are: a blank at an end would slip past a cell that denies the model.
pub(super) fn checked_model(model: &str) -> Result<(), Refusal> {
    let printable = model.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if model.len() > MAX_NAME || !printable || model.trim() != model {
        let message =
            format!("model is at most {MAX_NAME} printable ASCII characters, without blanks at its ends");
        return Err(Refusal::invalid("model", message));
    }
    Ok(())
}

impl Broker {
    /// Checks the form of what is asked for, and who may ask for it; returns how long the credential has to work.
    fn checked(&self, caller: &Caller, input: &ResolveInput<'_>) -> Result<Duration, Refusal> {
        checked_request_id(input.request_id)?;
        for (field, text) in [
            ("executor", input.executor),
            ("provider", input.provider),
            ("profile", input.profile),
        ] {
            if text.len() > MAX_NAME || text.chars().any(char::is_control) {
                let message = format!("{field} is at most {MAX_NAME} printable characters");
                return Err(Refusal::invalid(field, message));
            }
        }
        checked_model(input.model)?;
        if input.system_scope && !caller.reach().is_everywhere() {
            return Err(Refusal::new(
                Reason::PermissionDenied,
                "only a system admin resolves at the scope of the system",
            ));
        }
        let remaining = input
            .minimum_remaining
            .unwrap_or(self.settings().minimum_remaining);
        if remaining > MAX_MINIMUM {
            return Err(Refusal::invalid(
                "minimum_remaining",
                "minimum_remaining is at most 24 hours",
            ));
        }
        Ok(remaining)
    }

    /// Decides which credential the task gets, and hands it out.
    pub async fn resolve(
        self: &Arc<Self>,
        caller: &Caller,
        input: ResolveInput<'_>,
    ) -> Result<Resolved, Refusal> {
        self.room_for(Action::Resolve)?;
        let remaining = self.checked(caller, &input)?;
        if !input.system_scope && matches!(caller.actor(), Actor::Operator(_) | Actor::Member { .. }) {
            return Err(Refusal::new(
                Reason::PermissionDenied,
                "a human is handed nothing but what a system admin resolves at the scope of the system",
            ));
        }
        let mut record = caller
            .record(Action::Resolve, caller.org())
            .request(input.request_id);
        let subject = match self.subject(caller, &input).await {
            Ok(subject) => subject,
            Err(refusal) => {
                return Err(self
                    .denied(record.about("task", shown(input.task)), refusal)
                    .await);
            }
        };
        record.org = Some(subject.org);
        record = subject.noted(record);
        let mut decision = Decision::default();
        match self
            .resolve_for(caller, &subject, &input, remaining, &record, &mut decision)
            .await
        {
            Ok((vended, position)) => Ok(Resolved {
                vended,
                decision,
                position,
            }),
            Err(refusal) => {
                decision.refused = Some(refusal.reason);
                Err(self.denied(record, refusal.decided(decision)).await)
            }
        }
    }

    async fn resolve_for(
        self: &Arc<Self>,
        caller: &Caller,
        subject: &Subject,
        input: &ResolveInput<'_>,
        remaining: Duration,
        record: &Record,
        decision: &mut Decision,
    ) -> Result<(Vended, Position), Refusal> {
        // One version of the policy, from here to the end.
        let policy = self.policy();
        for _ in 0..ATTEMPTS {
            let prepared = self.prepare(&policy, subject, input, decision).await?;
            let permit = &prepared.permit;
            let walk = Walk::new(permit);
            let purpose = Purpose::HandOut(remaining);
            let choice = self
                .obtain(
                    caller,
                    subject,
                    prepared.whom(subject, input),
                    (permit, walk),
                    purpose,
                    decision,
                )
                .await?;
            let handed = self.hand_out(caller, subject, &prepared, &choice, remaining, record.clone());
            match handed.await {
                Ok(Some(handed)) => return Ok(handed),
                Ok(None) => {}
                // The last place was free when it was looked at, and taken by somebody else since.
                Err(refusal) if refusal.reason == Reason::ParallelismLimit => {
                    return Err(lost(decision, permit, &choice, refusal));
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the task keeps changing while it is resolved",
        ))
    }

    /// Hands out what was chosen, by a lease; `None`: something changed meanwhile, and the choice is to be made
    /// anew.
    async fn hand_out(
        self: &Arc<Self>,
        caller: &Caller,
        subject: &Subject,
        prepared: &Prepared,
        choice: &Choice,
        remaining: Duration,
        record: Record,
    ) -> Result<Option<(Vended, Position)>, Refusal> {
        let entry = &prepared.permit.entries()[choice.position];
        let credential = choice.source.credential();
        let whose = Whose {
            org: subject.org,
            member: subject.member,
            credential: credential.map(|credential| credential.id),
        };
        let mut record = record
            .about("mode", entry.mode.name())
            .about("provider", &entry.provider)
            .about(
                "pool",
                pool_of(entry.mode, &entry.provider, self.pool_of(subject)),
            )
            .about("policy", prepared.permit.policy_version());
        if !entry.model.is_empty() {
            record = record.about("model", &entry.model);
        }
        if let Some(credential) = credential {
            record = record
                .about("credential", credential.id)
                .about("generation", credential.rotation.generation);
        }
        if subject.system_scope {
            record = record.about("scope", "system");
        }
        match self
            .lease(caller, subject, prepared, choice, remaining, record)
            .await
        {
            Ok((lease, position)) => {
                self.still_allowed(caller, whose, subject.task.as_ref()).await?;
                self.still_approved(caller, &lease).await?;
                // What was removed or replaced meanwhile, or may have ended, is not handed out any more.
                if let Some(credential) = credential
                    && self.still_good(credential).await? != Some(true)
                {
                    return Ok(None);
                }
                let material = self.material(caller, subject, &lease, choice)?;
                let model = entry.model.clone();
                Ok(Some((self.vend(lease, model, material, remaining), position)))
            }
            // A task changes by ending only: trying again would change nothing.
            Err(Undone::Conflict) => {
                self.still_allowed(caller, whose, subject.task.as_ref()).await?;
                Ok(None)
            }
            Err(Undone::Refused(refusal)) => Err(refusal),
        }
    }

    /// What the task needs of what was chosen, and nothing more.
    fn material(
        &self,
        caller: &Caller,
        subject: &Subject,
        lease: &Lease,
        choice: &Choice,
    ) -> Result<Material, Refusal> {
        Ok(match &choice.source {
            Source::Stored(credential) => Material::Stored {
                credential: Arc::clone(credential),
                secret: choice.secret.clone().ok_or_else(|| {
                    Refusal::new(Reason::CredentialUnusable, "the credential has no secret")
                })?,
            },
            Source::Managed(key) if self.hands_raw(holder(caller)?) => self.managed_material(key),
            Source::Managed(_) => Material::Proxy(Arc::new(self.proxy_grant(lease)?)),
            Source::HostSession => Material::HostSession(subject.executor.clone()),
            Source::Local(base_url) => Material::Local(base_url.clone()),
        })
    }

    /// One of the platform's keys, as the provider takes it.
    fn managed_material(&self, key: &Arc<ManagedSecret>) -> Material {
        let takes_key = self
            .registry
            .kinds(&key.facts.provider)
            .contains(&CredentialKind::ApiKey);
        let kind = if takes_key {
            CredentialKind::ApiKey
        } else {
            CredentialKind::BedrockBearer
        };
        Material::Managed(Arc::clone(key), kind)
    }

    /// The capacity pool that the task runs in.
    fn pool_of<'a>(&'a self, subject: &'a Subject) -> &'a str {
        let named = subject.task.as_ref().and_then(|task| task.value.pool.as_deref());
        named.unwrap_or_else(|| self.registry.default_pool(subject.capacity).name.as_str())
    }

    fn vend(&self, lease: Arc<Lease>, model: String, material: Material, wanted: Duration) -> Vended {
        let left = material.expires().map(|expires| expires.since(self.now()));
        Vended {
            lease,
            model,
            material,
            minimum_remaining: left.map_or(wanted, |left| left.min(wanted)),
        }
    }

    /// Whether what was chosen of a credential may still be handed out; `None` where it was removed.
    async fn still_good(&self, chosen: &Credential) -> Result<Option<bool>, Refusal> {
        let Credential { org, id, .. } = *chosen;
        let stored = self.records.get::<Credential>(&keys::credential(org, id)).await?;
        Ok(stored.map(|stored| self.refresher.still_good(chosen, &stored.value)))
    }

    /// The last look before the answer: what was revoked, locked, removed or ended meanwhile wins.
    async fn still_allowed(
        &self,
        caller: &Caller,
        whose: Whose,
        task: Option<&Stored<Task>>,
    ) -> Result<(), Refusal> {
        self.still_live(caller).await?;
        self.standing_member(whose.org, whose.member).await?;
        if let Some(credential) = whose.credential {
            self.unlocked(&[*credential.as_bytes()])?;
        }
        if let Some(task) = task {
            let stored = self
                .records
                .get::<Task>(&keys::task(task.value.org, task.value.id))
                .await?;
            let stored = stored.ok_or_else(|| Refusal::not_found("task"))?;
            stored.value.live(self.now(), TaskClaims::default())?;
        }
        Ok(())
    }
}

/// Whose credential a resolution is about to hand out.
#[derive(Clone, Copy)]
struct Whose {
    org: OrgId,
    member: MemberId,
    credential: Option<CredentialId>,
}

/// A caller's text as the journal keeps it: what could be an id, and nothing else.
fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.chars().filter(|c| plain(*c)).take(64).collect()
}
