//! Agents, as operators and automation see them: shown, listed by what is asked for, revoked.

use std::sync::Arc;

use super::Broker;
use super::page::{Page, PageRequest};
use super::presence::Present;
use super::scope::{Place, parse_id};
use crate::domain::actor::Caller;
use crate::domain::agent::Agent;
use crate::domain::directory::Environment;
use crate::domain::id::{EnvironmentId, OrgId, ProjectId};
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::keys;
use crate::store::model::Seen;
use crate::store::record::Stored;

/// An agent, and when it was last seen.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// The agent.
    pub agent: Arc<Agent>,
    /// When it was last seen; `None`: never.
    pub seen: Option<Seen>,
    /// What it is doing.
    pub state: AgentState,
}

/// What an agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// It may act.
    Active,
    /// It was revoked.
    Revoked,
    /// It was not seen for too long.
    Expired,
    /// It is locked.
    Locked,
}

impl AgentState {
    fn of(agent: &Agent, locked: bool) -> Self {
        if agent.revoked.is_some() {
            AgentState::Revoked
        } else if agent.expired.is_some() {
            AgentState::Expired
        } else if locked {
            AgentState::Locked
        } else {
            AgentState::Active
        }
    }
}

/// Which agents are meant: those that fit all that is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentFilter<'a> {
    /// Labels they all have.
    pub labels: &'a [(String, String)],
    /// Their environment, by id or, with the project, by name; empty: any.
    pub environment: &'a str,
    /// The project, for an environment given by name.
    pub project: &'a str,
    /// Their state.
    pub state: Option<AgentState>,
    /// They were last seen before this, or never.
    pub seen_before: Option<Time>,
    /// They were last seen at this time or later.
    pub seen_after: Option<Time>,
}

impl AgentFilter<'_> {
    /// What can be told without looking when it was seen.
    fn takes(&self, agent: &Agent, state: AgentState, environment: Option<EnvironmentId>) -> bool {
        self.labels.iter().all(|label| agent.labels.contains(label))
            && environment.is_none_or(|environment| agent.environment == environment)
            && self.state.is_none_or(|wanted| wanted == state)
    }

    fn takes_seen(&self, seen: Option<Time>) -> bool {
        let before = self
            .seen_before
            .is_none_or(|before| seen.is_none_or(|seen| seen < before));
        let after = self
            .seen_after
            .is_none_or(|after| seen.is_some_and(|seen| seen >= after));
        before && after
    }
}

const MAX_PAIRS: usize = 16;
const MAX_PAIR_CHARS: usize = 256;
/// An agent's record has labels and attributes, and has to fit in one value of the store.
const MAX_PAIRS_BYTES: usize = 1_536;

/// Labels or attributes within bounds, sorted by key.
pub(super) fn checked_pairs(
    field: &'static str,
    pairs: &[(String, String)],
) -> Result<Vec<(String, String)>, Refusal> {
    let fits = |text: &str| text.chars().count() <= MAX_PAIR_CHARS && !text.chars().any(char::is_control);
    let ok = pairs
        .iter()
        .all(|(key, value)| !key.is_empty() && fits(key) && fits(value));
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if pairs.len() > MAX_PAIRS || !ok || bytes > MAX_PAIRS_BYTES {
        return Err(Refusal::invalid(
            field,
            format!(
                "{field}: at most 16 pairs of at most 256 characters, 1 536 bytes in all, none of them control characters"
            ),
        ));
    }
    let mut pairs = pairs.to_vec();
    pairs.sort();
    Ok(pairs)
}

impl Broker {
    /// An agent that the caller may see.
    pub(super) async fn agent_of(
        &self,
        caller: &Caller,
        org: &str,
        agent: &str,
    ) -> Result<Stored<Agent>, Refusal> {
        let place = self.place(caller, org).await?;
        let key = keys::agent(place.id(), parse_id("agent", agent)?);
        let missing = || Refusal::not_found("agent");
        let stored: Stored<Agent> = self.records.get(&key).await?.ok_or_else(missing)?;
        if !self.reaches(&place, stored.value.environment).await? {
            return Err(missing());
        }
        Ok(stored)
    }

    /// An agent.
    pub async fn get_agent(&self, caller: &Caller, org: &str, agent: &str) -> Result<AgentView, Refusal> {
        let agent = self.agent_of(caller, org, agent).await?.value;
        self.view(agent).await
    }

    /// What the agent is doing.
    pub fn agent_state(&self, agent: &Agent) -> AgentState {
        AgentState::of(agent, self.unlocked(&[*agent.id.as_bytes()]).is_err())
    }

    async fn view(&self, agent: Arc<Agent>) -> Result<AgentView, Refusal> {
        let seen = self.last(Present::Agent(agent.org, agent.id)).await?;
        let state = self.agent_state(&agent);
        Ok(AgentView { agent, seen, state })
    }

    /// Those of the org's agents that `filter` takes.
    pub async fn list_agents(
        &self,
        caller: &Caller,
        org: &str,
        filter: AgentFilter<'_>,
        page: PageRequest<'_>,
    ) -> Result<Page<AgentView>, Refusal> {
        let place = self.place(caller, org).await?;
        checked_pairs("filter.labels", filter.labels)?;
        let environment = match filter.environment {
            "" => None,
            text => {
                let found = self.environment(place.id(), filter.project, text).await?;
                place.admit("environment", Some(found.value.project), None)?;
                Some(found.value.id)
            }
        };
        let mut search = self.search::<Agent, AgentView>(keys::agents(place.id()), page)?;
        while let Some(row) = search.next().await? {
            let state = self.agent_state(&row.value);
            if !filter.takes(&row.value, state, environment)
                || !self.reaches(&place, row.value.environment).await?
            {
                continue;
            }
            let view = self.view(row.value).await?;
            if filter.takes_seen(view.seen.as_ref().map(|seen| seen.at)) {
                search.take(view);
            }
        }
        Ok(search.page())
    }

    /// The project that an environment belongs to.
    pub(super) async fn project_of(
        &self,
        org: OrgId,
        environment: EnvironmentId,
    ) -> Result<Option<ProjectId>, Refusal> {
        let key = keys::environment(org, environment);
        let stored = self.records.get::<Environment>(&key).await?;
        Ok(stored.map(|stored| stored.value.project))
    }

    /// Whether the call reaches the project that an environment belongs to.
    pub(super) async fn reaches(&self, place: &Place, environment: EnvironmentId) -> Result<bool, Refusal> {
        if place.within.is_whole() {
            return Ok(true);
        }
        let project = self.project_of(place.id(), environment).await?;
        Ok(project.is_some_and(|project| place.within.admits(Some(project), None)))
    }
}
