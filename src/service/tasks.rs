//! Tasks: made, assigned and ended by the control plane.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::access::checked_ttl;
use super::effect::Undone;
use super::page::{Page, PageRequest};
use super::request::Repeatable;
use super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::agent::Agent;
use crate::domain::directory::Environment;
use crate::domain::id::{AgentId, OrgId, ProjectId, TaskId};
use crate::domain::journal::Action;
use crate::domain::pool::Pool;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::{Capacity, Task, TaskClaims};
use crate::store::keys;
use crate::store::model::Mark;
use crate::store::record::{Changes, Stored};

/// What is asked for when making a task.
#[derive(Clone, Copy, Debug)]
pub struct NewTask<'a> {
    /// The org.
    pub org: &'a str,
    /// The member, by id or name.
    pub member: &'a str,
    /// The member, by outside identity, where `member` is empty.
    pub member_identity: &'a str,
    /// The project.
    pub project: &'a str,
    /// The agent program.
    pub executor: &'a str,
    /// The provider; empty: the executor's native one.
    pub provider: &'a str,
    /// The model profile.
    pub profile: &'a str,
    /// Where the program runs.
    pub capacity: Capacity,
    /// The capacity pool; empty: the default of the capacity.
    pub pool: &'a str,
    /// The hash of the task specification.
    pub spec_hash: &'a str,
    /// How long it may run.
    pub ttl: Option<Duration>,
    /// Agents to assign at once.
    pub agents: &'a [String],
    /// From the request.
    pub request_id: &'a str,
}

/// A task and the agents assigned to it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The task.
    pub task: Arc<Task>,
    /// The agents, at most 100 of them.
    pub agents: Vec<AgentId>,
}

const TASK_TTL: Duration = Duration::from_secs(86_400);
const TASK_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The most agents named at once.
const MAX_AGENTS: usize = 100;
/// How many assignments one commit stores: two records and a guard each.
const ASSIGNMENTS_PER_COMMIT: usize = 30;

impl Broker {
    /// Makes a task.
    pub async fn create_task(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewTask<'_>,
    ) -> Result<TaskView, Refusal> {
        let place = self.place(caller, new.org).await?;
        let org = place.id();
        let own = new.member.is_empty() && new.member_identity.is_empty();
        let member = match caller.member_of(org).filter(|_| own) {
            Some(me) => me,
            None => {
                let named = self.member_or_identity(org, new.member, new.member_identity);
                named.await?.value.id
            }
        };
        let project = self.project(org, new.project).await?.value.id;
        place.admit("member", Some(project), Some(member))?;
        // An agent is given its tasks by who runs the project, not by the member a task is for.
        if !new.agents.is_empty() && !place.within.admits(Some(project), None) {
            return Err(Refusal::new(
                Reason::PermissionDenied,
                "members make tasks of their own, and do not assign agents",
            ));
        }
        let executor = self.registry.executor(new.executor).ok_or_else(|| {
            let known: Vec<_> = self
                .registry
                .executors()
                .map(|known| known.name.as_str())
                .collect();
            Refusal {
                field: Some("executor"),
                ..Refusal::new(
                    Reason::ExecutorUnknown,
                    format!("there is no executor {:?}", new.executor),
                )
                .with("known", known.join(", "))
            }
        })?;
        let provider = (!new.provider.is_empty()).then_some(new.provider);
        self.supported(executor, provider.unwrap_or(&executor.native_provider))?;
        self.checked_pool(new.pool, new.capacity)?;
        for (field, text) in [("profile", new.profile), ("spec_hash", new.spec_hash)] {
            if text.len() > 128 || text.chars().any(char::is_control) {
                return Err(Refusal::invalid(
                    field,
                    format!("{field} is at most 128 printable characters"),
                ));
            }
        }
        let ttl = checked_ttl(new.ttl, TASK_TTL, TASK_TTL_MAX)?;
        let agents = self.checked_agents(org, project, new.agents).await?;

        let seconds = ttl.as_secs().to_be_bytes();
        let mut content: Vec<&[u8]> = vec![
            member.as_bytes(),
            project.as_bytes(),
            new.executor.as_bytes(),
            new.provider.as_bytes(),
            new.profile.as_bytes(),
            new.capacity.name().as_bytes(),
            new.spec_hash.as_bytes(),
            &seconds,
        ];
        // Absent where none is named, so that a repeat of a request from before there were pools is one still.
        if !new.pool.is_empty() {
            content.extend([b"pool", new.pool.as_bytes()]);
        }
        content.extend(agents.iter().map(|agent| &agent.as_bytes()[..]));
        let create = Repeatable {
            caller,
            call: "task",
            request_id: new.request_id,
            content: &content,
        };
        if let Some(id) = self.made_before(org, create).await? {
            return self.made_again(caller, org, id, agents).await;
        }

        self.known_profile(org, new.profile)?;
        let now = self.now();
        let task = Task {
            id: self.new_id()?,
            org,
            member,
            project,
            executor: new.executor.to_owned(),
            provider: provider.map(str::to_owned),
            profile: new.profile.to_owned(),
            capacity: new.capacity,
            spec_hash: new.spec_hash.to_owned(),
            created: now,
            expires: now + ttl,
            ended: None,
            pool: (!new.pool.is_empty()).then(|| new.pool.to_owned()),
        };
        let key = keys::task(org, task.id);
        let mut changes = Changes::default();
        changes = changes.absent(&key);
        changes = changes.put(&key, &task);
        let (member_key, revision) = self.present_member(org, member).await?;
        changes = changes.at(&member_key, revision);
        changes = self.remember(changes, org, create, task.id);
        let record = caller
            .record(Action::TaskCreate, Some(org))
            .about("task", task.id)
            .about("member", member)
            .about("project", project)
            .about("executor", new.executor)
            .request(new.request_id);
        match self.effect(record, changes).await {
            Ok(_) => {}
            // A repeat that raced with the first: it lost, and what the first made is its answer.
            Err(Undone::Conflict) => match self.made_before(org, create).await? {
                Some(id) => return self.made_again(caller, org, id, agents).await,
                None => return Err(Undone::Conflict.into()),
            },
            Err(Undone::Refused(refusal)) => return Err(refusal),
        }
        self.assign(caller, &task, &agents).await?;
        self.task_view(org, task.id).await
    }

    /// Lets pass no pool, or one of the task's capacity.
    fn checked_pool(&self, pool: &str, capacity: Capacity) -> Result<(), Refusal> {
        let fits = |pool: &Pool| pool.capacity == capacity;
        if pool.is_empty() || self.registry.pool(pool).is_some_and(fits) {
            return Ok(());
        }
        let message = match self.registry.pool(pool) {
            Some(other) => format!(
                "pool {pool} has capacity {}, and the task {}",
                other.capacity.name(),
                capacity.name()
            ),
            None => format!("there is no pool {pool:?}"),
        };
        let known = self.registry.pools().filter(|pool| fits(pool));
        let known: Vec<_> = known.map(|pool| pool.name.as_str()).collect();
        Err(Refusal::invalid("pool", message).with("known", known.join(", ")))
    }

    /// The answer to a repeat. The first call may have been cut off before it assigned the agents.
    async fn made_again(
        self: &Arc<Self>,
        caller: &Caller,
        org: OrgId,
        id: TaskId,
        agents: Vec<AgentId>,
    ) -> Result<TaskView, Refusal> {
        let made = self.task_view(org, id).await?;
        let missing: Vec<_> = agents
            .into_iter()
            .filter(|id| !made.agents.contains(id))
            .collect();
        self.assign(caller, &made.task, &missing).await?;
        self.task_view(org, id).await
    }

    /// The agents, each enrolled into an environment of the task's project: who may assign in one project gets no
    /// hold of another's agents, and what the environments of a project demand holds for all of its tasks.
    async fn checked_agents(
        &self,
        org: OrgId,
        project: ProjectId,
        agents: &[String],
    ) -> Result<Vec<AgentId>, Refusal> {
        if agents.len() > MAX_AGENTS {
            return Err(Refusal::invalid("agents", "at most 100 agents at once"));
        }
        let mut checked = Vec::new();
        for agent in agents {
            let id = parse_id("agents", agent)?;
            let missing = || Refusal::not_found("agent in the task's project");
            let agent = self.records.get::<Agent>(&keys::agent(org, id)).await?;
            let agent = agent
                .filter(|agent| agent.value.ended().is_none())
                .ok_or_else(missing)?;
            let environment = keys::environment(org, agent.value.environment);
            let environment = self.records.get::<Environment>(&environment).await?;
            environment
                .filter(|environment| environment.value.project == project)
                .ok_or_else(missing)?;
            checked.push(id);
        }
        checked.sort_unstable();
        checked.dedup();
        Ok(checked)
    }

    async fn assign(
        self: &Arc<Self>,
        caller: &Caller,
        task: &Task,
        agents: &[AgentId],
    ) -> Result<(), Refusal> {
        let since = Mark { since: self.now() };
        for some in agents.chunks(ASSIGNMENTS_PER_COMMIT) {
            let mut changes = Changes::default();
            for agent in some {
                changes = changes.put(&keys::task_agent(task.org, task.id, *agent), &since);
                changes = changes.put(&keys::agent_task(task.org, *agent, task.id), &since);
            }
            let ids: Vec<_> = some.iter().map(ToString::to_string).collect();
            let record = caller
                .record(Action::TaskAssign, Some(task.org))
                .about("task", task.id)
                .about("agents", ids.join(","));
            self.effect(record, changes).await?;
            self.task_assigned(task, some);
        }
        Ok(())
    }

    pub(super) async fn task_view(&self, org: OrgId, id: TaskId) -> Result<TaskView, Refusal> {
        let task: Stored<Task> = self
            .records
            .get(&keys::task(org, id))
            .await?
            .ok_or_else(|| Refusal::not_found("task"))?;
        self.with_agents(task).await
    }

    async fn with_agents(&self, task: Stored<Task>) -> Result<TaskView, Refusal> {
        let list = keys::task_agents(task.value.org, task.value.id);
        let rows = self
            .records
            .scan::<Mark>(list.as_bytes(), None, MAX_AGENTS)
            .await?;
        let agents = rows.iter().filter_map(|(key, _)| key.last_id()).collect();
        Ok(TaskView {
            task: task.value,
            agents,
        })
    }

    /// A task.
    pub async fn get_task(&self, caller: &Caller, org: &str, task: &str) -> Result<TaskView, Refusal> {
        let place = self.place(caller, org).await?;
        let view = self.task_view(place.id(), parse_id("task", task)?).await?;
        place.admit("task", Some(view.task.project), Some(view.task.member))?;
        Ok(view)
    }

    /// The org's tasks.
    pub async fn list_tasks(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<TaskView>, Refusal> {
        let place = self.place(caller, org).await?;
        let list = keys::tasks(place.id());
        let Page { mut rows, next } = self.page::<Task>(&list, page).await?;
        rows.retain(|row| {
            let Task { project, member, .. } = *row.value;
            place.within.admits(Some(project), Some(member))
        });
        let mut views = Vec::with_capacity(rows.len());
        for task in rows {
            views.push(self.with_agents(task).await?);
        }
        Ok(Page { rows: views, next })
    }

    /// Lets agents resolve for a task.
    pub async fn assign_task(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        task: &str,
        agents: &[String],
    ) -> Result<TaskView, Refusal> {
        let TaskView { task, .. } = self.get_task(caller, org, task).await?;
        task.live(self.now(), TaskClaims::default())?;
        if agents.is_empty() {
            return Err(Refusal::invalid("agents", "name at least one agent"));
        }
        let agents = self.checked_agents(task.org, task.project, agents).await?;
        self.assign(caller, &task, &agents).await?;
        self.task_view(task.org, task.id).await
    }

    /// Ends a task. Ending it again changes nothing.
    pub async fn end_task(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        task: &str,
    ) -> Result<TaskView, Refusal> {
        let place = self.place(caller, org).await?;
        let (org, id) = (place.id(), parse_id::<crate::domain::id::Task>("task", task)?);
        let key = keys::task(org, id);
        let stored: Stored<Task> = self
            .records
            .get(&key)
            .await?
            .ok_or_else(|| Refusal::not_found("task"))?;
        place.admit("task", Some(stored.value.project), Some(stored.value.member))?;
        if stored.value.ended.is_none() {
            let task = Task {
                ended: Some(self.now()),
                ..Task::clone(&stored.value)
            };
            let mut changes = Changes::default();
            changes = changes.at(&key, stored.revision);
            changes = changes.put(&key, &task);
            let record = caller.record(Action::TaskEnd, Some(org)).about("task", id);
            self.effect(record, changes).await?;
            let view = self.task_view(org, id).await;
            let agents = view.as_ref().map_or(&[][..], |view| &view.agents);
            self.task_ended(&task, agents);
            return view;
        }
        self.task_view(org, id).await
    }
}
