//! What the use cases tell those who watch: always after the commit, and before anybody is answered.

use crate::domain::agent::Agent;
use crate::domain::id::{AgentId, OrgId};
use crate::domain::lease::Lease;
use crate::domain::reason::Reason;
use crate::domain::task::Task;
use crate::domain::watch::{Ended, Interest, Notice};
use crate::service::Broker;

impl Broker {
    /// Tells those who watch and may hear of it. To be called once what it tells of is committed, and before
    /// anybody is answered. Never waits.
    pub(in crate::service) fn publish(&self, notice: Notice) {
        self.hub.publish(notice, self.now());
    }

    /// The policy of an org changed; `None`: that of the whole broker.
    pub fn policy_changed(&self, org: Option<OrgId>, version: u64) {
        self.publish(Notice::policy(org, version));
    }

    /// A lease was made: who holds it and watches hears of its credential from now on.
    pub(in crate::service) fn lease_made(&self, lease: &Lease) {
        if let Some(interest) = Interest::lease(lease) {
            self.hub.gained(lease.holder.id_bytes(), &[interest], self.now());
        }
    }

    /// A lease was ended.
    pub(in crate::service) fn lease_ended(&self, lease: &Lease) {
        self.hub.lost(lease.holder.id_bytes(), *lease.id.as_bytes());
    }

    /// Agents were assigned to a task: those of them that watch hear of it and of its member from now on.
    pub(in crate::service) fn task_assigned(&self, task: &Task, agents: &[AgentId]) {
        let interests = Interest::task(task);
        for agent in agents {
            self.hub.gained(*agent.as_bytes(), &interests, self.now());
        }
    }

    /// A task was ended.
    pub(in crate::service) fn task_ended(&self, task: &Task, agents: &[AgentId]) {
        let (id, project, member) = (task.id, task.project, task.member);
        let ended = Ended::Task(id, project, member);
        self.publish(Notice::ended(task.org, ended, Reason::TaskEnded, false));
        for agent in agents {
            self.hub.lost(*agent.as_bytes(), *id.as_bytes());
        }
    }

    /// An agent was revoked, expired or stopped, for this reason.
    pub(in crate::service) async fn agent_ended(&self, agent: &Agent, reason: Reason) {
        // It is over with the agent: that its project cannot be read must not keep anybody from being told.
        let project = self
            .project_of(agent.org, agent.environment)
            .await
            .unwrap_or(None);
        let ended = Ended::Agent(agent.id, project);
        self.publish(Notice::ended(agent.org, ended, reason, false));
    }
}
