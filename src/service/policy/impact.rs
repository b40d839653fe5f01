//! Whom a change concerns: agents with live tasks, found by looking at the tasks.

use std::sync::Arc;

use crate::domain::agent::Agent;
use crate::domain::amendment::Diff;
use crate::domain::directory::Org;
use crate::domain::id::{AgentId, OrgId};
use crate::domain::impact::{Bounded, Bounds, ModeChange, Running, TaskChange, mode_changes, on_task};
use crate::domain::lease::Lease;
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::{Task, TaskClaims};
use crate::service::Broker;
use crate::store::keys;
use crate::store::model::{LeasePointer, Mark};

/// An agent with a live task that a change concerns.
#[derive(Clone, Debug)]
pub struct Affected {
    /// The agent.
    pub agent: AgentId,
    /// The task.
    pub task: Arc<Task>,
    /// What becomes of it.
    pub change: TaskChange,
}

/// What a change does.
#[derive(Default)]
pub(super) struct Impact {
    /// The picks that become others.
    pub(super) modes: Bounded<ModeChange>,
    /// The agents with live tasks that it concerns.
    pub(super) agents: Bounded<Affected>,
}

impl Impact {
    /// Of which nothing was found out.
    pub(super) fn unknown() -> Self {
        let mut unknown = Self::default();
        unknown.modes.at_least = true;
        unknown.agents.at_least = true;
        unknown
    }
}

/// How many picks are compared, and how many rows told.
const BOUNDS: Bounds = Bounds {
    picks: 100_000,
    rows: 200,
};
/// How many records are looked at for agents.
const LOOKED_AT: usize = 4_000;
/// Rows of one page of a scan.
const PAGE: usize = 100;
/// How many leases of one agent for one task are looked at: one for each credential it used.
const LEASES: usize = 20;

/// A search that looks at so many records and no more.
struct Search<'a> {
    before: &'a Policy,
    after: &'a Policy,
    left: usize,
    found: Bounded<Affected>,
}

impl Search<'_> {
    /// Counts records that were looked at; whether more may be.
    fn spend(&mut self, records: usize) -> bool {
        if records >= self.left {
            self.left = 0;
            self.found.at_least = true;
        } else {
            self.left -= records;
        }
        self.left > 0
    }
}

impl Broker {
    /// What leads from one policy to the other does. Refused where as many look into changes as may.
    pub(super) async fn impact(
        self: &Arc<Self>,
        before: &Arc<Policy>,
        after: &Arc<Policy>,
        diff: &Diff,
    ) -> Result<Impact, Refusal> {
        let places = Arc::clone(&self.policies.previews);
        let place = places.try_acquire_owned().map_err(|_| {
            let message = "as many changes of the policy are looked into as may be at once";
            Refusal::new(Reason::Overloaded, message).retry_after(crate::service::BACK_OFF)
        })?;
        let mut search = Search {
            before,
            after,
            left: LOOKED_AT,
            found: Bounded::default(),
        };
        if diff.system() {
            self.search_all_orgs(&mut search).await?;
        } else {
            for org in diff.orgs() {
                self.search_org(org, &mut search).await?;
            }
        }
        let agents = search.found;
        let (broker, before, after) = (Arc::clone(self), Arc::clone(before), Arc::clone(after));
        // The place is the work's, not the caller's: who hangs up leaves the thread busy.
        let modes = tokio::task::spawn_blocking(move || {
            let _place = place;
            mode_changes(&before, &after, &broker.registry, BOUNDS)
        });
        let modes = modes
            .await
            .map_err(|_| Refusal::new(Reason::Internal, "the picks could not be compared"))?;
        Ok(Impact { modes, agents })
    }

    async fn search_all_orgs(&self, search: &mut Search<'_>) -> Result<(), Refusal> {
        let (list, mut after) = (keys::orgs(), None);
        while search.left > 0 {
            let rows = self.records.scan::<Org>(list.as_bytes(), after.as_ref(), PAGE);
            let rows = rows.await?;
            for (_, org) in &rows {
                if !search.spend(1) {
                    return Ok(());
                }
                self.search_org(org.value.id, search).await?;
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn search_org(&self, org: OrgId, search: &mut Search<'_>) -> Result<(), Refusal> {
        let (list, mut after) = (keys::tasks(org), None);
        while search.left > 0 {
            let rows = self.records.scan::<Task>(list.as_bytes(), after.as_ref(), PAGE);
            let rows = rows.await?;
            for (_, task) in &rows {
                if !search.spend(1) {
                    return Ok(());
                }
                if task.value.live(self.now(), TaskClaims::default()).is_ok() {
                    self.search_task(&task.value, search).await?;
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    async fn search_task(&self, task: &Arc<Task>, search: &mut Search<'_>) -> Result<(), Refusal> {
        let list = keys::task_agents(task.org, task.id);
        let agents = self.records.scan::<Mark>(list.as_bytes(), None, PAGE).await?;
        if agents.len() == PAGE {
            search.found.at_least = true;
        }
        for agent in agents.iter().filter_map(|(key, _)| key.last_id()) {
            if !search.spend(1) {
                return Ok(());
            }
            let key = keys::agent(task.org, agent);
            let live = self.records.get::<Agent>(&key).await?;
            if live.is_none_or(|agent| agent.value.ended().is_some()) {
                continue;
            }
            let running = self.running(task, agent, search).await?;
            if let Some(change) = on_task(search.before, search.after, &self.registry, task, &running) {
                let task = Arc::clone(task);
                search.found.push(Affected { agent, task, change }, BOUNDS.rows);
            }
        }
        Ok(())
    }

    /// What the agent holds standing leases for.
    async fn running(
        &self,
        task: &Task,
        agent: AgentId,
        search: &mut Search<'_>,
    ) -> Result<Vec<Running>, Refusal> {
        let list = keys::leases_of_task(task.org, agent, task.id);
        let rows = self.records.scan::<LeasePointer>(list.as_bytes(), None, LEASES);
        let mut running = Vec::new();
        for (_, pointer) in rows.await? {
            search.spend(1);
            let key = keys::lease(task.org, pointer.value.lease);
            let lease = self.records.get::<Lease>(&key).await?;
            let standing = lease.filter(|lease| lease.value.stands(self.now()));
            running.extend(standing.map(|lease| Running {
                mode: lease.value.mode,
                provider: lease.value.provider.clone(),
                model: lease.value.model.clone(),
            }));
        }
        Ok(running)
    }
}
