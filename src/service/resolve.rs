//! Resolution: whose credential this task gets, decided, recorded, handed out.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::effect::Undone;
use super::lease::{Material, Vended, holder};
use super::refresh::Need;
use super::scope::parse_id;
use crate::domain::actor::{Actor, AgentActor};
use crate::domain::agent::Agent;
use crate::domain::credential::Credential;
use crate::domain::decision::{Candidate, Decision};
use crate::domain::executor::Executor;
use crate::domain::id::{CredentialId, MemberId, OrgId, ProjectId, TaskId};
use crate::domain::journal::{Action, Outcome, Position, Record};
use crate::domain::lease::Lease;
use crate::domain::mode::{AuthMode, CredentialKind, GateInput, ModeSet, Permit, gate};
use crate::domain::owner::Owner;
use crate::domain::reason::{Reason, Refusal};
use crate::domain::task::{Capacity, Task, TaskClaims};
use crate::domain::time::Time;
use crate::store::keys::{self, Key};
use crate::store::model::{LeasePointer, Mark, Pin, Pointer};
use crate::store::record::{Changes, Stored};

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
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

/// A reported rejection.
#[derive(Clone, Copy, Debug)]
pub struct RefreshInput<'a> {
    /// The lease.
    pub lease: &'a str,
    /// The generation that was rejected.
    pub rejected_generation: u64,
    /// What the provider said.
    pub provider_message: &'a str,
    /// The caller's request id.
    pub request_id: &'a str,
}

/// The replacement.
pub struct Refreshed {
    /// The lease with newer material.
    pub vended: Vended,
    /// Whether this call waited for an exchange.
    pub exchanged: bool,
    /// The position of the journal record that says so.
    pub position: Position,
}

/// The longest model name, request id and message taken, in bytes.
const MAX_MODEL: usize = 128;
const MAX_REQUEST_ID: usize = 64;
const MAX_MESSAGE: usize = 8_192;
const MAX_MINIMUM: Duration = Duration::from_secs(86_400);
/// How often a first lease is tried again when something it depends on changes at the same moment.
const ATTEMPTS: usize = 8;
/// How many assignments are looked through for an agent that names no task.
const ASSIGNMENTS: usize = 32;

/// Whom a resolution is for.
struct Subject {
    org: OrgId,
    member: MemberId,
    project: ProjectId,
    task: Option<Stored<Task>>,
    executor: String,
    provider: Option<String>,
}

impl Subject {
    fn task_id(&self) -> Option<TaskId> {
        self.task.as_ref().map(|task| task.value.id)
    }

    /// What leases of this subject are filed under.
    fn lease_subject(&self) -> [u8; 16] {
        self.task_id()
            .map_or(*self.member.as_bytes(), |task| *task.as_bytes())
    }
}

/// A credential that was chosen, by permission of a permit.
struct Choice {
    credential: Arc<Credential>,
    position: usize,
}

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
        actor: &Actor,
        input: ResolveInput<'_>,
    ) -> Result<Resolved, Refusal> {
        checked_request_id(input.request_id)?;
        if input.model.len() > MAX_MODEL || input.model.chars().any(char::is_control) {
            return Err(Refusal::invalid(
                "model",
                "model is at most 128 printable characters",
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
        let mut record =
            Record::new(Action::Resolve, actor.to_string(), actor.org()).request(input.request_id);
        let subject = match self.subject(actor, &input).await {
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
            .resolve_for(actor, &subject, &input, remaining, &record, &mut decision)
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

    async fn subject(&self, actor: &Actor, input: &ResolveInput<'_>) -> Result<Subject, Refusal> {
        let org = self.org_id(actor, input.org).await?;
        let claims = TaskClaims {
            executor: input.executor,
            profile: input.profile,
            capacity: input.capacity,
            spec_hash: input.spec_hash,
        };
        let task = match actor {
            Actor::Agent(agent) => Some(self.assigned_task(agent, input.task).await?),
            Actor::ApiKey { .. } | Actor::Operator(_) if input.task.is_empty() => None,
            Actor::ApiKey { .. } | Actor::Operator(_) => {
                let key = keys::task(org, parse_id("task", input.task)?);
                Some(
                    self.records
                        .get(&key)
                        .await?
                        .ok_or_else(|| Refusal::not_found("task"))?,
                )
            }
        };
        if let Some(task) = task {
            let live = task.value.live(self.now(), claims)?;
            let names_member = !input.member.is_empty() || !input.member_identity.is_empty();
            if names_member {
                return Err(Refusal::invalid(
                    "member",
                    "a task fixes the member: name one or the other",
                ));
            }
            let (member, project) = (live.member, live.project);
            let (executor, provider) = (live.executor.clone(), live.provider.clone());
            return Ok(Subject {
                org,
                member,
                project,
                executor,
                provider,
                task: Some(task),
            });
        }
        let member = self
            .member_or_identity(org, input.member, input.member_identity)
            .await?
            .value
            .id;
        let project = self.project(org, input.project).await?.value.id;
        Ok(Subject {
            org,
            member,
            project,
            executor: input.executor.to_owned(),
            provider: None,
            task: None,
        })
    }

    /// The agent's task of this id, or its only one. A task of somebody else looks like none.
    async fn assigned_task(&self, agent: &AgentActor, text: &str) -> Result<Stored<Task>, Refusal> {
        let missing = || Refusal::not_found("task");
        let id = match text {
            "" => self.only_task(agent).await?,
            text => parse_id("task", text)?,
        };
        let assigned = self
            .records
            .get::<Mark>(&keys::task_agent(agent.org, id, agent.id))
            .await?;
        let task = self.records.get::<Task>(&keys::task(agent.org, id)).await?;
        task.filter(|_| assigned.is_some()).ok_or_else(missing)
    }

    async fn only_task(&self, agent: &AgentActor) -> Result<TaskId, Refusal> {
        let rows = self
            .records
            .scan::<Mark>(
                keys::agent_tasks(agent.org, agent.id).as_bytes(),
                None,
                ASSIGNMENTS,
            )
            .await?;
        let mut live = Vec::new();
        for id in rows
            .iter()
            .filter_map(|(key, _)| key.last_id::<crate::domain::id::Task>())
        {
            let task = self.records.get::<Task>(&keys::task(agent.org, id)).await?;
            if task.is_some_and(|task| task.value.live(self.now(), TaskClaims::default()).is_ok()) {
                live.push(id);
            }
        }
        match live[..] {
            [only] if rows.len() < ASSIGNMENTS => Ok(only),
            _ => Err(Refusal {
                field: Some("task"),
                ..Refusal::new(
                    Reason::TaskRequired,
                    format!("the agent is assigned to {} tasks", live.len()),
                )
            }),
        }
    }

    /// The modes that an executor has with a provider.
    pub(super) fn supported(&self, executor: &Executor, provider: &str) -> Result<ModeSet, Refusal> {
        let modes = executor.modes(provider);
        if modes.is_empty() {
            let known: Vec<_> = executor.providers.keys().map(String::as_str).collect();
            return Err(Refusal {
                field: Some("provider"),
                ..Refusal::new(
                    Reason::ProviderUnsupported,
                    format!("{} cannot use provider {provider:?}", executor.name),
                )
                .with("supported", known.join(", "))
            });
        }
        Ok(modes)
    }

    fn permit(&self, subject: &Subject, input: &ResolveInput<'_>) -> Result<Permit, Refusal> {
        let executor = self.registry.executor(&subject.executor).ok_or_else(|| Refusal {
            field: Some("executor"),
            ..Refusal::new(
                Reason::ExecutorUnknown,
                format!("there is no executor {:?}", subject.executor),
            )
        })?;
        let provider = match input.provider {
            "" => subject.provider.as_deref().unwrap_or(&executor.native_provider),
            named => named,
        };
        let supported = self.supported(executor, provider)?;
        gate(GateInput {
            executor: &subject.executor,
            provider,
            model: input.model,
            supported,
            allowed: AuthMode::ORDER.into_iter().collect(),
            policy_version: 0,
        })
    }

    async fn resolve_for(
        self: &Arc<Self>,
        actor: &Actor,
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
                Some(task) => self.records.get::<Pin>(&keys::pin(subject.org, task)).await?,
                None => None,
            };
            let choice = match self.pinned(subject, &permit, pin.as_ref()).await? {
                Some(choice) => choice,
                None => self.choose(subject, &permit, decision).await?,
            };
            decision.position = choice.position;
            decision.chosen = Some((choice.credential.id, choice.credential.owner));
            let need = Need {
                remaining,
                newer_than: None,
            };
            let material = self.material(&choice.credential, need).await?.0;
            let record = record
                .clone()
                .about("mode", permit.entries()[choice.position].mode.name())
                .about("provider", &choice.credential.provider)
                .about("credential", choice.credential.id)
                .about("generation", material.credential.rotation.generation);
            match self
                .lease(actor, subject, &permit, &choice, pin.as_ref(), record)
                .await
            {
                Ok((lease, position)) => {
                    self.still_allowed(actor, subject).await?;
                    return Ok((self.vend(lease, material, remaining), position));
                }
                Err(Undone::Conflict) => {}
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

    /// The pinned choice, where the permit still has it and the credential is still there.
    async fn pinned(
        &self,
        subject: &Subject,
        permit: &Permit,
        pin: Option<&Stored<Pin>>,
    ) -> Result<Option<Choice>, Refusal> {
        let Some(pin) = pin else { return Ok(None) };
        let credential = self
            .records
            .get::<Credential>(&keys::credential(subject.org, pin.value.credential))
            .await?;
        Ok(credential.and_then(|credential| {
            let credential = credential.value;
            let fits = |entry: &crate::domain::mode::PermitEntry| {
                entry.kind == credential.kind && entry.provider == credential.provider
            };
            let position = permit.entries().iter().position(fits)?;
            Some(Choice { credential, position })
        }))
    }

    /// The first credential along the permit; the member's before the org's.
    async fn choose(
        &self,
        subject: &Subject,
        permit: &Permit,
        decision: &mut Decision,
    ) -> Result<Choice, Refusal> {
        for (position, entry) in permit.entries().iter().enumerate() {
            for owner in Owner::precedence(subject.member) {
                let found = self.held(subject.org, owner, &entry.provider, entry.kind).await?;
                let passed_over = match (&found, entry.kind) {
                    (Some(_), _) => None,
                    (None, CredentialKind::OAuthGrant) => Some(Reason::ConnectAccount),
                    (None, _) => Some(Reason::NoCredentialConfigured),
                };
                let credential = found.as_ref().map(|credential| credential.id);
                decision.candidates.push(Candidate {
                    credential,
                    mode: entry.mode,
                    owner,
                    passed_over,
                });
                if let Some(credential) = found {
                    return Ok(Choice { credential, position });
                }
            }
        }
        let provider = &permit.entries()[0].provider;
        Err(Refusal::new(
            Reason::NoCredentialConfigured,
            format!(
                "nothing is configured for {} with provider {provider}",
                subject.executor
            ),
        )
        .with("executor", &subject.executor)
        .with("provider", provider))
    }

    async fn held(
        &self,
        org: OrgId,
        owner: Owner,
        provider: &str,
        kind: CredentialKind,
    ) -> Result<Option<Arc<Credential>>, Refusal> {
        let slot = keys::credential_slot(org, owner, provider, kind);
        let Some(pointer) = self.records.get::<Pointer>(&slot).await? else {
            return Ok(None);
        };
        let id = CredentialId::from_bytes(*pointer.value.id);
        let credential = self.records.get::<Credential>(&keys::credential(org, id)).await?;
        Ok(credential.map(|credential| credential.value))
    }

    /// The credential's material, fresh enough for `need`, and whether that took an exchange.
    async fn material(&self, credential: &Credential, need: Need) -> Result<(Material, bool), Refusal> {
        let fresh = self.refresher.fresh(credential.org, credential.id, need).await?;
        Ok((
            Material {
                credential: fresh.credential,
                secret: fresh.secret,
            },
            fresh.exchanged,
        ))
    }

    /// Finds the lease for this holder, subject and credential, or makes it, and records the resolution.
    async fn lease(
        self: &Arc<Self>,
        actor: &Actor,
        subject: &Subject,
        permit: &Permit,
        choice: &Choice,
        pin: Option<&Stored<Pin>>,
        record: Record,
    ) -> Result<(Arc<Lease>, Position), Undone> {
        let (org, now, credential) = (subject.org, self.now(), choice.credential.id);
        let file = keys::lease_for(org, holder(actor), &subject.lease_subject(), credential);
        let pointer = self
            .records
            .get::<LeasePointer>(&file)
            .await
            .map_err(Refusal::from)?;
        if let Some(pointer) = &pointer {
            let key = keys::lease(org, pointer.value.lease);
            let lease = self.records.get::<Lease>(&key).await.map_err(Refusal::from)?;
            if let Some(lease) = lease.filter(|lease| lease.value.stands(now)) {
                let record = record.about("lease", lease.value.id);
                let position = self.journal.append(&record).await.map_err(Refusal::from)?;
                return Ok((lease.value, position));
            }
        }
        let lease = self.new_lease(actor, subject, permit, choice, now)?;
        let mut changes = Changes::default();
        let key = keys::lease(org, lease.id);
        changes = changes.absent(&key);
        changes = changes.put(&key, &lease);
        match &pointer {
            Some(pointer) => changes = changes.at(&file, pointer.revision),
            None => changes = changes.absent(&file),
        }
        changes = changes.put(&file, &LeasePointer { lease: lease.id });
        let changes = self.guard_subject(changes, actor, subject, choice, pin).await?;
        let record = record.about("lease", lease.id).about("first", true);
        let done = self.effect(record, changes).await?;
        Ok((Arc::new(lease), done.position))
    }

    fn new_lease(
        &self,
        actor: &Actor,
        subject: &Subject,
        permit: &Permit,
        choice: &Choice,
        now: Time,
    ) -> Result<Lease, Refusal> {
        let entry = &permit.entries()[choice.position];
        let latest = now + self.settings().lease_lifetime;
        let task_end = subject.task.as_ref().map(|task| task.value.expires);
        Ok(Lease {
            id: self.new_id()?,
            org: subject.org,
            holder: holder(actor),
            task: subject.task_id(),
            member: subject.member,
            credential: choice.credential.id,
            mode: entry.mode,
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            permit_position: u32::try_from(choice.position).unwrap_or(u32::MAX),
            created: now,
            expires: task_end.map_or(latest, |end| end.min(latest)),
            ended: None,
        })
    }

    /// Ties the lease to what allowed it: should the agent be revoked or the task end before the commit, the
    /// commit fails. Also pins the task to its first choice.
    async fn guard_subject(
        &self,
        mut changes: Changes,
        actor: &Actor,
        subject: &Subject,
        choice: &Choice,
        pin: Option<&Stored<Pin>>,
    ) -> Result<Changes, Refusal> {
        if let Actor::Agent(agent) = actor {
            let key = keys::agent(agent.org, agent.id);
            let stored = self.records.get::<Agent>(&key).await?;
            let live = stored
                .filter(|stored| stored.value.revoked.is_none())
                .ok_or_else(revoked)?;
            changes = changes.at(&key, live.revision);
        }
        let Some(task) = &subject.task else {
            return Ok(changes);
        };
        changes = changes.at(&keys::task(subject.org, task.value.id), task.revision);
        let chosen = Pin {
            credential: choice.credential.id,
            position: u32::try_from(choice.position).unwrap_or(u32::MAX),
        };
        let key: Key = keys::pin(subject.org, task.value.id);
        match pin {
            Some(pin) if pin.value.credential == chosen.credential => {}
            Some(pin) => {
                changes = changes.at(&key, pin.revision);
                changes = changes.put(&key, &chosen);
            }
            None => {
                changes = changes.absent(&key);
                changes = changes.put(&key, &chosen);
            }
        }
        Ok(changes)
    }

    /// The last look before the answer: what was revoked or ended meanwhile wins.
    async fn still_allowed(&self, actor: &Actor, subject: &Subject) -> Result<(), Refusal> {
        if let Actor::Agent(agent) = actor {
            let stored = self
                .records
                .get::<Agent>(&keys::agent(agent.org, agent.id))
                .await?;
            stored
                .filter(|stored| stored.value.revoked.is_none())
                .ok_or_else(revoked)?;
        }
        if let Some(task) = &subject.task {
            let stored = self
                .records
                .get::<Task>(&keys::task(subject.org, task.value.id))
                .await?;
            let stored = stored.ok_or_else(|| Refusal::not_found("task"))?;
            stored.value.live(self.now(), TaskClaims::default())?;
        }
        Ok(())
    }

    /// Takes a report that the provider rejected a generation, and returns its replacement.
    pub async fn refresh_token(
        self: &Arc<Self>,
        actor: &Actor,
        input: RefreshInput<'_>,
    ) -> Result<Refreshed, Refusal> {
        checked_request_id(input.request_id)?;
        if input.provider_message.len() > MAX_MESSAGE {
            return Err(Refusal::invalid(
                "provider_message",
                "provider_message is at most 2 048 characters",
            ));
        }
        let org = actor
            .org()
            .ok_or_else(|| Refusal::new(Reason::PermissionDenied, "an operator holds no leases"))?;
        let record = Record::new(Action::ForceRotate, actor.to_string(), Some(org))
            .request(input.request_id)
            .about("lease", shown(input.lease))
            .about("rejected_generation", input.rejected_generation);
        match self.replace(actor, org, &input, record.clone()).await {
            Ok(refreshed) => Ok(refreshed),
            Err(refusal) => Err(self.denied(record, refusal).await),
        }
    }

    async fn replace(
        self: &Arc<Self>,
        actor: &Actor,
        org: OrgId,
        input: &RefreshInput<'_>,
        record: Record,
    ) -> Result<Refreshed, Refusal> {
        let lease = self.own_lease(actor, org, input.lease).await?.value;
        if !lease.stands(self.now()) {
            return Err(Refusal::new(
                Reason::LeaseEnded,
                format!("{} has ended", lease.id),
            ));
        }
        let task = match lease.task {
            Some(task) => self.records.get::<Task>(&keys::task(org, task)).await?,
            None => None,
        };
        if let Some(task) = &task {
            task.value.live(self.now(), TaskClaims::default())?;
        }
        let credential = self.credential(org, lease.credential).await?.value;
        let rejected = input.rejected_generation;
        let current = credential.rotation.generation;
        if rejected == 0 || rejected > current {
            return Err(Refusal::invalid(
                "rejected_generation",
                format!("the credential has had generations 1 to {current}"),
            ));
        }
        if rejected == current {
            if credential.kind != CredentialKind::OAuthGrant {
                return Err(Refusal::new(
                    Reason::ReauthRequired,
                    "the provider rejects the stored key, and a key cannot be refreshed: store a new one",
                )
                .with("credential", credential.id.to_string()));
            }
            self.refresher.count_forced(&credential, actor)?;
        }
        let need = Need {
            remaining: self.settings().minimum_remaining,
            newer_than: Some(rejected),
        };
        let (material, exchanged) = self.material(&credential, need).await?;
        let record = record
            .about("credential", credential.id)
            .about("generation", material.credential.rotation.generation)
            .outcome(Outcome::Allowed);
        let position = self.journal.append(&record).await?;
        let subject = Subject {
            org,
            member: lease.member,
            project: task
                .as_ref()
                .map_or(ProjectId::from_bytes([0; 16]), |task| task.value.project),
            task,
            executor: String::new(),
            provider: None,
        };
        self.still_allowed(actor, &subject).await?;
        let vended = self.vend(lease, material, self.settings().minimum_remaining);
        Ok(Refreshed {
            vended,
            exchanged,
            position,
        })
    }
}

fn revoked() -> Refusal {
    Refusal::new(Reason::CredentialUnknown, "the agent was revoked")
}

/// A caller's text as the journal keeps it: what could be an id, and nothing else.
fn shown(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.chars().filter(|c| plain(*c)).take(64).collect()
}
