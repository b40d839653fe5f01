//! Resolution: whose credential this task gets, decided, recorded, handed out.

mod choose;
mod clearance;
mod lease;
mod replace;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::decision::Decision;
use crate::domain::id::{CredentialId, MemberId, OrgId};
use crate::domain::journal::{Action, Position, Record};
use crate::domain::lease::Lease;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::task::{Capacity, Task, TaskClaims};
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::service::lease::{Material, Vended};
use crate::service::refresh::Need;
use crate::store::keys;
use crate::store::model::Pin;
use crate::store::record::Stored;
use choose::Choice;
use subject::Subject;

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
    /// The caller's request id.
    pub request_id: &'a str,
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

impl Broker {
    /// Decides which credential the task gets, and hands it out.
    pub async fn resolve(
        self: &Arc<Self>,
        caller: &Caller,
        input: ResolveInput<'_>,
    ) -> Result<Resolved, Refusal> {
        self.room_for(Action::Resolve)?;
        checked_request_id(input.request_id)?;
        for (field, text) in [
            ("model", input.model),
            ("executor", input.executor),
            ("provider", input.provider),
        ] {
            if text.len() > MAX_NAME || text.chars().any(char::is_control) {
                let message = format!("{field} is at most {MAX_NAME} printable characters");
                return Err(Refusal::invalid(field, message));
            }
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
        record = record
            .about("member", subject.member)
            .about("project", subject.project)
            .about("executor", &subject.executor);
        if let Some(task) = subject.task_id() {
            record = record.about("task", task);
        }
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
        let permit = self.permit(subject, input)?;
        decision.permit = permit.entries().to_vec();
        decision.policy_version = permit.policy_version();
        for _ in 0..ATTEMPTS {
            decision.candidates.clear();
            let pin = match subject.task_id() {
                Some(task) => {
                    let provider = &permit.entries()[0].provider;
                    self.records
                        .get::<Pin>(&keys::pin(subject.org, task, provider))
                        .await?
                }
                None => None,
            };
            let choice = match self.pinned(subject, &permit, pin.as_ref()).await? {
                Some(choice) => choice,
                None => self.choose(subject, &permit, decision).await?,
            };
            decision.position = choice.position;
            decision.chosen = Some((choice.credential.id, choice.credential.owner));
            // A locked credential is a stop, not a gap that another one fills.
            self.unlocked(&[*choice.credential.id.as_bytes()])?;
            let need = Need {
                remaining,
                newer_than: None,
            };
            let entry = &permit.entries()[choice.position];
            self.check_cleared(caller, subject, entry, choice.credential.id)
                .await?;
            let material = self.material(&choice.credential, need).await?.0;
            let choice = Choice {
                credential: Arc::clone(&material.credential),
                ..choice
            };
            let whose = Whose {
                org: subject.org,
                member: subject.member,
                credential: choice.credential.id,
            };
            let record = record
                .clone()
                .about("mode", entry.mode.name())
                .about("provider", &choice.credential.provider)
                .about("credential", choice.credential.id)
                .about("generation", material.generation());
            match self
                .lease(caller, subject, &permit, &choice, pin.as_ref(), record)
                .await
            {
                Ok((lease, position)) => {
                    self.still_allowed(caller, whose, subject.task.as_ref()).await?;
                    self.still_approved(caller, &lease).await?;
                    // What was removed or replaced meanwhile is not handed out any more.
                    if self.generation(&material).await? == Some(material.generation()) {
                        return Ok((self.vend(lease, material, remaining), position));
                    }
                }
                // A task changes by ending only: trying again would change nothing.
                Err(Undone::Conflict) => self.still_allowed(caller, whose, subject.task.as_ref()).await?,
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the task keeps changing while it is resolved",
        ))
    }

    fn vend(&self, lease: Arc<Lease>, material: Material, wanted: Duration) -> Vended {
        let left = material
            .credential
            .expires
            .map(|expires| expires.since(self.now()));
        Vended {
            lease,
            material,
            minimum_remaining: left.map_or(wanted, |left| left.min(wanted)),
        }
    }

    /// The generation that the credential has by now; `None` where it was removed.
    async fn generation(&self, material: &Material) -> Result<Option<u64>, Refusal> {
        let Credential { org, id, .. } = *material.credential;
        let stored = self.records.get::<Credential>(&keys::credential(org, id)).await?;
        Ok(stored.map(|stored| stored.value.rotation.generation))
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
        self.unlocked(&[*whose.credential.as_bytes()])?;
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
    credential: CredentialId,
}

/// A caller's text as the journal keeps it: what could be an id, and nothing else.
fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.chars().filter(|c| plain(*c)).take(64).collect()
}
