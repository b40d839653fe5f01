//! Events for those who watch, and who may hear of which.
//!
//! A [`Notice`] is an event under the topics it concerns; a watcher hears what comes under a topic it listens
//! to. Topics carry the whole rule: nothing is filtered afterwards. An agent listens to itself, its environment,
//! its org, its tasks and their members, and the credentials of its leases. Everybody else listens to what their
//! [`Reach`](super::role::Reach) covers.

use super::actor::{Actor, Caller};
use super::credential::{Credential, Health};
use super::id::{
    AgentId, ApiKeyId, ApprovalId, CredentialId, EnvironmentId, LeaseId, MemberId, OrgId, ProjectId, TaskId,
};
use super::lease::{Holder, Lease};
use super::owner::Owner;
use super::reason::Reason;
use super::role::{Standing, Within};
use super::rotation::Phase;
use super::task::Task;
use super::time::Time;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A credential has a new generation.
    CredentialRotated {
        /// The credential.
        credential: CredentialId,
        /// Its generation now.
        generation: u64,
    },
    /// A credential needs a person, or has got what it needed.
    CredentialHealthChanged {
        /// The credential.
        credential: CredentialId,
        /// Its health now.
        health: Health,
    },
    /// Something was revoked, locked or ended.
    AccessEnded {
        /// The id of what was.
        subject: String,
        /// Why, as who depends on it is told from now on.
        reason: Reason,
        /// Whether it can be lifted again.
        reversible: bool,
    },
    /// The policy changed.
    PolicyChanged {
        /// The version now in force.
        version: u64,
    },
    /// An approval was granted or denied.
    ApprovalDecided {
        /// The approval.
        approval: ApprovalId,
        /// Whether it was granted.
        granted: bool,
    },
}

/// What an event concerns and a watcher listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The broker itself: for all who watch.
    Broker,
    /// Every event of every org.
    Everything,
    /// An org itself: for all of its watchers.
    Org(OrgId),
    /// Every event in an org.
    WholeOrg(OrgId),
    /// What belongs to a project.
    Project(ProjectId),
    /// What belongs to a member, anywhere in the org.
    Own(MemberId),
    /// What belongs to a member in one project.
    OwnIn(ProjectId, MemberId),
    /// One actor, by the bytes of its id; ids are unique over all kinds.
    Actor([u8; 16]),
    /// An environment, for its agents.
    Environment(EnvironmentId),
    /// A member, for the agents of their tasks.
    Member(MemberId),
    /// A task, for its agents.
    Task(TaskId),
    /// A credential, for those who hold leases on it.
    Credential(CredentialId),
}

/// An event and all it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub event: Event,
    /// Who hears of it: whoever listens to any of these.
    pub topics: Vec<Topic>,
}

/// What was revoked, locked or ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// The org.
    Org,
    /// An environment, and its project.
    Environment(EnvironmentId, ProjectId),
    /// A member.
    Member(MemberId),
    /// An agent, and the project of its environment where that is known.
    Agent(AgentId, Option<ProjectId>),
    /// An org API key.
    ApiKey(ApiKeyId),
    /// A task, its project and its member.
    Task(TaskId, ProjectId, MemberId),
    /// A credential.
    Credential(CredentialId, Owner),
    /// A lease, its holder and its member.
    Lease(LeaseId, Holder, MemberId),
}

/// Those who reach what belongs to this project and this member of the org; `None`: to none in particular. The
/// same rule as [`Within::admits`].
fn reached(org: OrgId, project: Option<ProjectId>, member: Option<MemberId>) -> Vec<Topic> {
    let mut topics = vec![Topic::Everything, Topic::WholeOrg(org)];
    topics.extend(project.map(Topic::Project));
    topics.extend(member.map(Topic::Own));
    if let (Some(project), Some(member)) = (project, member) {
        topics.push(Topic::OwnIn(project, member));
    }
    topics
}

impl Notice {
    fn new(event: Event, mut topics: Vec<Topic>, more: impl IntoIterator<Item = Topic>) -> Self {
        topics.extend(more);
        Self { event, topics }
    }

    /// Something of an org was revoked, locked or ended.
    pub fn ended(org: OrgId, ended: Ended, reason: Reason, reversible: bool) -> Self {
        let (subject, topics, own) = match ended {
            Ended::Org => (org.to_string(), vec![Topic::Everything], Some(Topic::Org(org))),
            Ended::Environment(id, project) => (
                id.to_string(),
                reached(org, Some(project), None),
                Some(Topic::Environment(id)),
            ),
            Ended::Member(id) => (
                id.to_string(),
                reached(org, None, Some(id)),
                Some(Topic::Member(id)),
            ),
            Ended::Agent(id, project) => (
                id.to_string(),
                reached(org, project, None),
                Some(Topic::Actor(*id.as_bytes())),
            ),
            Ended::ApiKey(id) => (
                id.to_string(),
                reached(org, None, None),
                Some(Topic::Actor(*id.as_bytes())),
            ),
            Ended::Task(id, project, member) => (
                id.to_string(),
                reached(org, Some(project), Some(member)),
                Some(Topic::Task(id)),
            ),
            Ended::Credential(id, owner) => (
                id.to_string(),
                reached(org, None, owner.member()),
                Some(Topic::Credential(id)),
            ),
            Ended::Lease(id, of, member) => (
                id.to_string(),
                reached(org, None, Some(member)),
                Some(Topic::Actor(of.id_bytes())),
            ),
        };
        let event = Event::AccessEnded {
            subject,
            reason,
            reversible,
        };
        Self::new(event, topics, own)
    }

    /// The policy of an org changed; `None`: that of the whole broker.
    pub fn policy(org: Option<OrgId>, version: u64) -> Self {
        let topics = match org {
            Some(org) => vec![Topic::Everything, Topic::Org(org)],
            None => vec![Topic::Broker],
        };
        Self::new(Event::PolicyChanged { version }, topics, None)
    }

    /// An approval was decided, for a project and on behalf of a member where it has them. `requester` is the
    /// id of the actor who asked for it.
    pub fn approval(
        org: OrgId,
        project: Option<ProjectId>,
        member: Option<MemberId>,
        requester: [u8; 16],
        approval: ApprovalId,
        granted: bool,
    ) -> Self {
        let event = Event::ApprovalDecided { approval, granted };
        Self::new(event, reached(org, project, member), [Topic::Actor(requester)])
    }

    /// What there is to tell of a credential that was `before` and is `after` now. That one is there which was not,
    /// or works again which did not, is told to all who may have been refused for want of it and have no lease
    /// on it: the agents of its member's tasks, or of the whole org where it is the org's.
    pub fn credential(before: Option<&Credential>, after: &Credential) -> Vec<Self> {
        let (id, member) = (after.id, after.owner.member());
        let topics = || reached(after.org, None, member);
        let health = trouble(after);
        let healthy = Event::CredentialHealthChanged {
            credential: id,
            health,
        };
        let refused = member.map_or(Topic::Org(after.org), Topic::Member);
        let Some(before) = before else {
            return vec![Self::new(healthy, topics(), [refused])];
        };
        let mut notices = Vec::new();
        let generation = after.rotation.generation;
        if generation > before.rotation.generation {
            let event = Event::CredentialRotated {
                credential: id,
                generation,
            };
            notices.push(Self::new(event, topics(), [Topic::Credential(id)]));
        }
        if health != trouble(before) {
            let mut more = vec![Topic::Credential(id)];
            more.extend((health == Health::Ok).then_some(refused));
            notices.push(Self::new(healthy, topics(), more));
        }
        notices
    }
}

/// The credential's health as far as its state tells, without the passing ups and downs of refreshing it.
fn trouble(credential: &Credential) -> Health {
    let phase = &credential.rotation.phase;
    match phase {
        Phase::Claimed { sent, .. } | Phase::Staged { sent } if sent.unanswered > 0 => Health::Ambiguous,
        Phase::Claimed { .. } | Phase::Staged { .. } => Health::Ok,
        _ => phase.health().unwrap_or(Health::Ok),
    }
}

/// A topic that a watcher listens to for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The topic.
    pub topic: Topic,
    /// What it comes from, such as a lease, by the bytes of its id; it ends together with that.
    pub source: [u8; 16],
    /// When it ends by itself; `None`: it does not.
    pub until: Option<Time>,
}

impl Interest {
    /// What a watcher listens to for as long as it watches.
    pub fn always(topic: Topic) -> Self {
        Self {
            topic,
            source: [0; 16],
            until: None,
        }
    }

    /// What the holder of a lease listens to: its credential, where there is one.
    pub fn lease(lease: &Lease) -> Option<Self> {
        Some(Self {
            topic: Topic::Credential(lease.credential?),
            source: *lease.id.as_bytes(),
            until: Some(lease.expires),
        })
    }

    /// What an agent listens to that is assigned to a task.
    pub fn task(task: &Task) -> [Self; 2] {
        [Topic::Task(task.id), Topic::Member(task.member)].map(|topic| Self {
            topic,
            source: *task.id.as_bytes(),
            until: Some(task.expires),
        })
    }

    /// Whether it still holds at `now`.
    pub fn holds(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What a caller listens to for as long as it watches; in the org `only`, where that is named. Leases and tasks
/// add to it.
pub fn listens_to(caller: &Caller, only: Option<OrgId>) -> Vec<Topic> {
    let mut topics = vec![Topic::Broker];
    if let Actor::Agent(agent) = caller.actor() {
        topics.extend([
            Topic::Org(agent.org),
            Topic::Environment(agent.environment),
            Topic::Actor(*agent.id.as_bytes()),
        ]);
        return topics;
    }
    topics.push(Topic::Actor(caller.actor().id_bytes()));
    let orgs = match (caller.reach().orgs(), only) {
        (None, None) => {
            topics.push(Topic::Everything);
            return topics;
        }
        (_, Some(only)) => vec![only],
        (Some(orgs), None) => orgs,
    };
    for org in orgs {
        if let Standing::Within(within) = caller.reach().within(org, caller.member_of(org)) {
            topics.push(Topic::Org(org));
            within_org(org, &within, &mut topics);
        }
    }
    topics
}

fn within_org(org: OrgId, within: &Within, topics: &mut Vec<Topic>) {
    if within.is_whole() {
        topics.push(Topic::WholeOrg(org));
        return;
    }
    topics.extend(within.projects().iter().copied().map(Topic::Project));
    for (member, project) in within.own() {
        topics.push(project.map_or(Topic::Own(member), |project| Topic::OwnIn(project, member)));
    }
}

#[cfg(test)]
mod tests;
