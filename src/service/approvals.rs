//! Approvals: asked for, decided, taken back, looked at. Their use is part of a resolution; see
//! `resolve::clearance`.
//!
//! Separation of duties: nobody decides about what they asked for themselves, nor about a task that runs for
//! them, and an approval is not good for its approver's own tasks. System admins may approve; org admins only with
//! the role of an approver.

mod decide;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::page::{Page, PageRequest};
use super::scope::{Place, parse_id};
use crate::domain::actor::{Actor, Caller};
use crate::domain::approval::{
    Approval, Capability, MAX_USES, PENDING_FOR, Party, Ruling, State, TTL_MAX, TTL_MIN, TTL_USUAL,
};
use crate::domain::id::{ApprovalId, EnvironmentId, MemberId, OrgId, ProjectId, TaskId};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::task::{Task, TaskClaims};
use crate::domain::token::{ApprovalFamily, Token};
use crate::store::keys::{self, Key};
use crate::store::model::{ApprovalUse, Pointer};
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, Revision};

pub use decide::{Grant, RevokedApproval};

/// The lists of a capability, as a caller wrote them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CapabilityLists<'a> {
    /// The agent programs.
    pub executors: &'a [String],
    /// The providers.
    pub providers: &'a [String],
    /// The modes, by name.
    pub modes: &'a [String],
}

/// What is asked for, or approved unasked.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewApproval<'a> {
    /// The org.
    pub org: &'a str,
    /// The project, where the environment is given by name.
    pub project: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// The task.
    pub task: &'a str,
    /// The spec hash, where no task is named. Approvers only.
    pub spec_hash: &'a str,
    /// What is to be allowed.
    pub capability: CapabilityLists<'a>,
    /// How long it is good for.
    pub ttl: Option<Duration>,
    /// How many leases it is good for; 0: one.
    pub use_limit: u32,
    /// What the requester, or the approver, says.
    pub words: &'a str,
}

/// An approval and how it stands.
#[derive(Clone, Debug)]
pub struct ApprovalView {
    /// The approval.
    pub approval: Arc<Approval>,
    /// How often it was used.
    pub uses: usize,
    /// How it stands.
    pub state: State,
}

/// A new approval, with its token.
pub struct MintedApproval {
    /// What lists show of it.
    pub view: ApprovalView,
    /// The token, to be shown once.
    pub token: Secret<ActorToken>,
}

/// How many of one requester's, and of an org's, approvals wait to be decided.
const WAITING_OF_ONE: u16 = 16;
const WAITING_OF_ORG: u16 = 256;
const MAX_WORDS: usize = 512;
const MAX_SPEC_HASH: usize = 128;
/// How often a request is tried again when somebody else takes its place among those that wait.
const ATTEMPTS: usize = 8;

/// What an approval is about.
struct About {
    org: OrgId,
    project: ProjectId,
    environment: EnvironmentId,
    task: Option<TaskId>,
    member: Option<MemberId>,
    spec_hash: String,
}

/// A free place among what waits, with the guard that keeps it free.
struct Wait {
    key: Key,
    before: Option<Revision>,
    /// What had it, if that is over and nobody decided about it.
    stale: Option<ApprovalId>,
}

fn checked_words(field: &'static str, words: &str) -> Result<String, Refusal> {
    let fits = words.len() <= MAX_WORDS && !words.chars().any(|c| c.is_control() && c != '\n');
    fits.then(|| words.to_owned())
        .ok_or_else(|| Refusal::invalid(field, format!("{field} is at most {MAX_WORDS} printable bytes")))
}

fn checked_terms(ttl: Option<Duration>, use_limit: u32) -> Result<(Duration, u32), Refusal> {
    let ttl = ttl.unwrap_or(TTL_USUAL);
    if ttl < TTL_MIN || ttl > TTL_MAX {
        return Err(Refusal::invalid("ttl", "ttl is 1 minute to 7 days"));
    }
    let use_limit = use_limit.max(1);
    if use_limit > MAX_USES {
        return Err(Refusal::invalid("use_limit", "use_limit is at most 1 000"));
    }
    Ok((ttl, use_limit))
}

impl Broker {
    fn capability(&self, lists: CapabilityLists<'_>) -> Result<Capability, Refusal> {
        Capability::of(
            lists.executors,
            lists.providers,
            lists.modes,
            |name| self.registry.executor(name).is_some(),
            |name| self.registry.provider(name).is_some(),
        )
        .map_err(|bad| Refusal::invalid(bad.field, bad.to_string()))
    }

    /// What a request is about: a task of the caller's own, and the environment that its agent is in.
    async fn asked_about(&self, caller: &Caller, new: &NewApproval<'_>) -> Result<About, Refusal> {
        let place = self.place(caller, new.org).await?;
        let org = place.id();
        let (task, environment) = match caller.actor() {
            Actor::Agent(agent) => {
                let task = self.assigned_task(agent, new.task).await?;
                let own = agent.environment.to_string();
                if !new.environment.is_empty() && new.environment != own {
                    let message = "an agent asks for its own environment: leave it empty";
                    return Err(Refusal::invalid("environment", message));
                }
                (task, self.environment(org, "", &own).await?)
            }
            _ => {
                let task = self.task_within(&place, new.task).await?;
                let environment = self.environment(org, new.project, new.environment).await?;
                place.sees(environment.value.project, "environment")?;
                (task, environment)
            }
        };
        let task = task.value.live(self.now(), TaskClaims::default())?;
        if task.spec_hash.is_empty() {
            let message = "the task has no spec hash, so there is nothing an approval could be bound to";
            return Err(Refusal::invalid("task", message));
        }
        Ok(About {
            org,
            project: environment.value.project,
            environment: environment.value.id,
            task: Some(task.id),
            member: Some(task.member),
            spec_hash: task.spec_hash.clone(),
        })
    }

    async fn task_within(&self, place: &Place, text: &str) -> Result<Stored<Task>, Refusal> {
        let task = self
            .records
            .get::<Task>(&keys::task(place.id(), parse_id("task", text)?))
            .await?
            .ok_or_else(|| Refusal::not_found("task"))?;
        place.admit("task", Some(task.value.project), Some(task.value.member))?;
        Ok(task)
    }

    /// Takes a request for an approval. Its token is good for nothing until somebody grants it.
    pub async fn request_approval(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewApproval<'_>,
    ) -> Result<MintedApproval, Refusal> {
        let reason = checked_words("reason", new.words)?;
        let (ttl, use_limit) = checked_terms(new.ttl, new.use_limit)?;
        let capability = self.capability(new.capability)?;
        let about = self.asked_about(caller, &new).await?;
        let (org, requester) = (about.org, Party::from(caller.actor()));
        for _ in 0..ATTEMPTS {
            let token = Token::<ApprovalFamily>::new(self.new_id()?, self.random()?);
            let now = self.now();
            let approval = Approval {
                requester: Some(requester),
                reason: reason.clone(),
                expires: now + PENDING_FOR,
                ..self.approval(&about, &token, capability.clone(), ttl, use_limit)
            };
            let own = self.wait(org, Some(requester), WAITING_OF_ONE).await?;
            let all = self.wait(org, None, WAITING_OF_ORG).await?;
            let pointer = Pointer {
                id: (*approval.id.as_bytes()).into(),
            };
            let (live, revision) = self.still_live(caller).await?;
            let mut changes = put_new(&approval).at(&live, revision);
            let mut stale: Vec<_> = [&own, &all].into_iter().filter_map(|wait| wait.stale).collect();
            stale.dedup();
            for wait in [own, all] {
                changes = match wait.before {
                    Some(revision) => changes.at(&wait.key, revision),
                    None => changes.absent(&wait.key),
                };
                changes = changes.put(&wait.key, &pointer);
            }
            for id in stale {
                changes = changes.delete::<Approval>(&keys::approval(org, id));
            }
            let record = about_record(caller, Action::ApprovalRequest, &approval);
            match self.effect(record, changes).await {
                Ok(_) => return Ok(self.minted(approval, &token)),
                Err(super::effect::Undone::Conflict) => {}
                Err(super::effect::Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "others keep asking for approvals at the same moment",
        ))
    }

    /// Approves what nobody asked for yet.
    pub async fn create_approval(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewApproval<'_>,
    ) -> Result<MintedApproval, Refusal> {
        let message = checked_words("message", new.words)?;
        let (ttl, use_limit) = checked_terms(new.ttl, new.use_limit)?;
        let capability = self.capability(new.capability)?;
        let place = self.place(caller, new.org).await?;
        let org = place.id();
        let environment = self.environment(org, new.project, new.environment).await?.value;
        place.admit("environment", Some(environment.project), None)?;
        let mut about = About {
            org,
            project: environment.project,
            environment: environment.id,
            task: None,
            member: None,
            spec_hash: new.spec_hash.to_owned(),
        };
        if !new.task.is_empty() {
            let task = self.task_within(&place, new.task).await?.value;
            if !new.spec_hash.is_empty() && new.spec_hash != task.spec_hash {
                return Err(Refusal::invalid("spec_hash", "the task has another spec hash"));
            }
            about.task = Some(task.id);
            about.member = Some(task.member);
            about.spec_hash.clone_from(&task.spec_hash);
        }
        let spec = &about.spec_hash;
        if spec.is_empty() || spec.len() > MAX_SPEC_HASH || spec.chars().any(char::is_control) {
            let message = "an approval is bound to a spec hash: 1 to 128 printable characters";
            return Err(Refusal::invalid("spec_hash", message));
        }
        let token = Token::<ApprovalFamily>::new(self.new_id()?, self.random()?);
        let (by, now) = (Party::from(caller.actor()), self.now());
        let approval = Approval {
            expires: now + ttl,
            ruling: Some(Ruling {
                by,
                at: now,
                granted: true,
                message,
            }),
            ..self.approval(&about, &token, capability, ttl, use_limit)
        };
        let record = about_record(caller, Action::ApprovalCreate, &approval);
        if approval.member.is_some_and(|member| by == Party::Member(member)) {
            return Err(self.denied(record, decide::own()).await);
        }
        let (live, revision) = self.still_live(caller).await?;
        self.effect(record, put_new(&approval).at(&live, revision))
            .await?;
        Ok(self.minted(approval, &token))
    }

    /// An approval that nobody has asked for or decided about.
    fn approval(
        &self,
        about: &About,
        token: &Token<ApprovalFamily>,
        capability: Capability,
        ttl: Duration,
        use_limit: u32,
    ) -> Approval {
        let now = self.now();
        Approval {
            id: token.id(),
            org: about.org,
            project: about.project,
            environment: about.environment,
            task: about.task,
            member: about.member,
            spec_hash: about.spec_hash.clone(),
            capability,
            token: token.hash(),
            requester: None,
            reason: String::new(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            use_limit,
            created: now,
            expires: now + ttl,
            ruling: None,
            revoked: None,
        }
    }

    fn minted(&self, approval: Approval, token: &Token<ApprovalFamily>) -> MintedApproval {
        MintedApproval {
            view: ApprovalView {
                state: approval.state(self.now(), 0),
                approval: Arc::new(approval),
                uses: 0,
            },
            token: token.reveal(),
        }
    }

    /// A free place among what waits to be decided. Places are guarded, so there are never more than `places`
    /// waiting; what nobody decided about in time makes room, and goes.
    async fn wait(&self, org: OrgId, requester: Option<Party>, places: u16) -> Result<Wait, Refusal> {
        let start = u16::from_be_bytes(self.random()?) % places.max(1);
        for slot in (start..places).chain(0..start) {
            let key = keys::approval_wait(org, requester, slot);
            let free = |before, stale| Wait {
                key: key.clone(),
                before,
                stale,
            };
            let Some(pointer) = self.records.get::<Pointer>(&key).await? else {
                return Ok(free(None, None));
            };
            let id = ApprovalId::from_bytes(*pointer.value.id);
            let waiting = self.records.get::<Approval>(&keys::approval(org, id)).await?;
            let Some(waiting) = waiting else {
                return Ok(free(Some(pointer.revision), None));
            };
            let undecided = waiting.value.ruling.is_none();
            if waiting.value.state(self.now(), 0) != State::Pending {
                return Ok(free(Some(pointer.revision), undecided.then_some(id)));
            }
        }
        let whose = requester.map_or("the org", |_| "the caller");
        Err(Refusal::new(
            Reason::ApprovalsPending,
            format!("{whose} has {places} approvals waiting to be decided"),
        ))
    }

    /// Whether the caller may know of an approval: automation and agents of what they asked for, humans of what
    /// their roles reach.
    fn may_see(caller: &Caller, place: &Place, approval: &Approval) -> bool {
        match caller.actor() {
            Actor::Agent(_) | Actor::ApiKey { .. } => approval.requester == Some(Party::from(caller.actor())),
            Actor::Operator(_) | Actor::Member { .. } => {
                place.within.admits(Some(approval.project), approval.member)
            }
        }
    }

    async fn uses(&self, approval: &Approval) -> Result<Vec<ApprovalUse>, Refusal> {
        if approval.ruling.is_none() {
            return Ok(Vec::new());
        }
        let uses = keys::approval_uses(approval.org, approval.id);
        let rows = self
            .records
            .scan::<ApprovalUse>(uses.as_bytes(), None, MAX_SCAN)
            .await?;
        Ok(rows.into_iter().map(|(_, row)| *row.value).collect())
    }

    async fn approval_view(&self, approval: Arc<Approval>) -> Result<ApprovalView, Refusal> {
        let uses = self.uses(&approval).await?.len();
        Ok(ApprovalView {
            state: approval.state(self.now(), uses),
            uses,
            approval,
        })
    }

    async fn visible_approval(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Stored<Approval>, Refusal> {
        let place = self.place(caller, org).await?;
        let key = keys::approval(place.id(), parse_id("approval", id)?);
        let stored = self.records.get::<Approval>(&key).await?;
        stored
            .filter(|stored| Self::may_see(caller, &place, &stored.value))
            .ok_or_else(|| Refusal::not_found("approval"))
    }

    /// An approval.
    pub async fn get_approval(&self, caller: &Caller, org: &str, id: &str) -> Result<ApprovalView, Refusal> {
        self.approval_view(self.visible_approval(caller, org, id).await?.value)
            .await
    }

    /// The approvals the caller may see, or those of them in one state. A page may be shorter than asked for and
    /// not be the last.
    pub async fn list_approvals(
        &self,
        caller: &Caller,
        org: &str,
        state: Option<State>,
        page: PageRequest<'_>,
    ) -> Result<Page<ApprovalView>, Refusal> {
        let place = self.place(caller, org).await?;
        let Page { rows, next } = self.page::<Approval>(&keys::approvals(place.id()), page).await?;
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            if Self::may_see(caller, &place, &row.value) {
                let view = self.approval_view(row.value).await?;
                if state.is_none_or(|state| state == view.state) {
                    views.push(view);
                }
            }
        }
        Ok(Page { rows: views, next })
    }
}

fn put_new(approval: &Approval) -> Changes {
    let key = keys::approval(approval.org, approval.id);
    Changes::default().absent(&key).put(&key, approval)
}

fn about_record(caller: &Caller, action: Action, approval: &Approval) -> Record {
    let record = caller
        .record(action, Some(approval.org))
        .about("approval", approval.id)
        .about("environment", approval.environment)
        .about("project", approval.project)
        .about("spec_hash", &approval.spec_hash);
    let record = match approval.task {
        Some(task) => record.about("task", task),
        None => record,
    };
    match approval.member {
        Some(member) => record.about("member", member),
        None => record,
    }
}
