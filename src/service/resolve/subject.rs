//! Whom a resolution is for: a task and what it fixes, or a member directly.

use super::ResolveInput;
use crate::domain::actor::{Actor, AgentActor, Caller};
use crate::domain::id::{MemberId, OrgId, ProjectId, TaskId};
use crate::domain::journal::Record;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::domain::task::{Capacity, Task, TaskClaims};
use crate::domain::token::{ApprovalFamily, FamilyName, Token, TokenError};
use crate::service::Broker;
use crate::service::scope::parse_id;
use crate::store::keys;
use crate::store::model::Mark;
use crate::store::record::Stored;

/// How many assignments are looked through for an agent that names no task.
const ASSIGNMENTS: usize = 32;

/// Whom a resolution is for.
pub(super) struct Subject {
    pub(super) org: OrgId,
    pub(super) member: MemberId,
    pub(super) project: ProjectId,
    pub(super) task: Option<Stored<Task>>,
    pub(super) executor: String,
    pub(super) provider: Option<String>,
    pub(super) profile: String,
    pub(super) capacity: Capacity,
    pub(super) system_scope: bool,
    pub(super) approval: Option<Token<ApprovalFamily>>,
}

impl Subject {
    pub(super) fn task_id(&self) -> Option<TaskId> {
        self.task.as_ref().map(|task| task.value.id)
    }

    /// The record of a resolution with whom and what it is for.
    pub(super) fn noted(&self, record: Record) -> Record {
        let record = record
            .about("member", self.member)
            .about("project", self.project)
            .about("executor", &self.executor);
        match self.task_id() {
            Some(task) => record.about("task", task),
            None => record,
        }
    }

    /// What leases of this subject are filed under.
    pub(super) fn lease_subject(&self) -> [u8; 16] {
        self.task_id()
            .map_or(*self.member.as_bytes(), |task| *task.as_bytes())
    }
}

impl Broker {
    pub(super) async fn subject(
        &self,
        caller: &Caller,
        input: &ResolveInput<'_>,
    ) -> Result<Subject, Refusal> {
        let approval = input.approval.map(approval_token).transpose()?;
        let place = self.place(caller, input.org).await?;
        let org = place.id();
        let claims = TaskClaims {
            executor: input.executor,
            provider: input.provider,
            profile: input.profile,
            capacity: input.capacity,
            spec_hash: input.spec_hash,
        };
        let task = match caller.actor() {
            Actor::Agent(agent) => Some(self.assigned_task(agent, input.task).await?),
            Actor::ApiKey { .. } | Actor::Operator(_) | Actor::Member { .. } if input.task.is_empty() => None,
            Actor::ApiKey { .. } | Actor::Operator(_) | Actor::Member { .. } => {
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
            place.admit("task", Some(project), Some(member))?;
            self.standing_member(org, member).await?;
            let (executor, provider) = (live.executor.clone(), live.provider.clone());
            let (profile, capacity) = (live.profile.clone(), live.capacity);
            return Ok(Subject {
                profile,
                capacity,
                system_scope: input.system_scope,
                org,
                member,
                project,
                executor,
                provider,
                task: Some(task),
                approval,
            });
        }
        let member = self
            .member_or_identity(org, input.member, input.member_identity)
            .await?
            .value
            .id;
        self.standing_member(org, member).await?;
        let project = self.project(org, input.project).await?.value.id;
        place.admit("project", Some(project), Some(member))?;
        Ok(Subject {
            org,
            member,
            project,
            executor: input.executor.to_owned(),
            provider: None,
            profile: input.profile.to_owned(),
            capacity: input.capacity.unwrap_or_default(),
            system_scope: input.system_scope,
            task: None,
            approval,
        })
    }

    /// The agent's task of this id, or its only one. A task of somebody else looks like none.
    pub(in crate::service) async fn assigned_task(
        &self,
        agent: &AgentActor,
        text: &str,
    ) -> Result<Stored<Task>, Refusal> {
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

    pub(super) async fn only_task(&self, agent: &AgentActor) -> Result<TaskId, Refusal> {
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
}

/// The token of the approval that a request carries.
fn approval_token(presented: &Secret<ActorToken>) -> Result<Token<ApprovalFamily>, Refusal> {
    let text = presented.expose_str(Exposure::Use).unwrap_or_default();
    Token::parse(text).map_err(|error| {
        let refusal = match error {
            TokenError::WrongFamily { .. } => Refusal::new(
                Reason::WrongCredentialFamily,
                format!("what was sent as an approval is {error}"),
            )
            .with("accepts", FamilyName::Approval.name()),
            TokenError::Malformed => Refusal::new(Reason::CredentialMalformed, error.to_string()),
        };
        Refusal {
            field: Some("approval"),
            ..refusal
        }
    })
}
