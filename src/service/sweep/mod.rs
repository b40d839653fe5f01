//! Sweeping: agents that nobody has seen for too long expire, and what has ended is removed after a while, so that
//! a broker with thousands of sandboxes a day stays as large as what lives in it.
//!
//! A sweep goes through all orgs and, in each, through agents, tasks, enrollment tokens, leases and approvals, a few
//! records a step, by a cursor of its own. It is kept in memory: after a restart it begins anew, and finds less to do. Every
//! step stands by itself: what a crash leaves half done, the next sweep finishes, because the record that leads to
//! the rest goes last. What is decided about a record is committed under a guard on it, so that whoever changes it
//! first, an agent that comes back above all, wins.
//!
//! What expires is journaled, agent by agent. A removal is not: that the thing had ended is in the journal, and
//! stays there; one record a sweep says how much was removed.

mod collect;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::effect::Undone;
use super::presence::Present;
use crate::domain::agent::Agent;
use crate::domain::approval::Approval;
use crate::domain::directory::Org;
use crate::domain::enrollment::EnrollmentToken;
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Record};
use crate::domain::lease::{Holder, Lease};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::Task;
use crate::domain::time::Time;
use crate::store::StoreError;
use crate::store::keys::{self, Key};
use crate::store::record::{Changes, Record as Stores, Stored};

/// How many records one step looks at.
const LOOKED_AT: usize = 64;
/// How long is waited between two steps, and between two sweeps.
pub const PAUSE: Duration = Duration::from_millis(50);
/// See [`PAUSE`].
pub const REST: Duration = Duration::from_secs(600);

/// How long the broker has to be up before any agent expires.
const UP_BEFORE_EXPIRY: Duration = Duration::from_secs(3_600);

/// What a sweep goes through in each org, in this order: tokens outlive their agents, which free their slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Agents,
    Tasks,
    EnrollmentTokens,
    Leases,
    Approvals,
}

/// Where a sweep is, and what it has done.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The org it is in.
    org: Option<OrgId>,
    table: Option<Table>,
    after: Option<Key>,
    /// What was done.
    pub done: Swept,
}

/// What a sweep has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Agents that expired.
    pub expired: usize,
    /// Agents that were removed.
    pub agents: usize,
    /// Tasks that were removed.
    pub tasks: usize,
    /// Enrollment tokens that were removed.
    pub enrollment_tokens: usize,
    /// Leases that were removed by themselves.
    pub leases: usize,
    /// Approvals that were removed, with the notes of their uses.
    pub approvals: usize,
}

impl Broker {
    /// Goes on with a sweep, by one step. `false`: it is through.
    pub async fn sweep_on(self: &Arc<Self>, sweep: &mut Sweep) -> Result<bool, Refusal> {
        let Some(org) = sweep.org else {
            return self.next_org(sweep).await;
        };
        let step = match sweep.table.unwrap_or(Table::Agents) {
            Table::Agents => {
                let rows = self.rows::<Agent>(keys::agents(org), sweep).await?;
                let step = Step::of(&rows, Some(Table::Tasks));
                for (_, agent) in rows {
                    self.sweep_agent(agent, &mut sweep.done).await?;
                }
                step
            }
            Table::Tasks => {
                let rows = self.rows::<Task>(keys::tasks(org), sweep).await?;
                let step = Step::of(&rows, Some(Table::EnrollmentTokens));
                for (_, task) in rows {
                    sweep.done.tasks += usize::from(self.sweep_task(task).await?);
                }
                step
            }
            Table::EnrollmentTokens => {
                let list = keys::enrollment_tokens(org);
                let rows = self.rows::<EnrollmentToken>(list, sweep).await?;
                let step = Step::of(&rows, Some(Table::Leases));
                for (_, token) in rows {
                    sweep.done.enrollment_tokens += usize::from(self.sweep_token(token).await?);
                }
                step
            }
            Table::Leases => {
                let rows = self.rows::<Lease>(keys::leases(org), sweep).await?;
                let step = Step::of(&rows, Some(Table::Approvals));
                for (_, lease) in rows {
                    sweep.done.leases += usize::from(self.sweep_lease(lease).await?);
                }
                step
            }
            Table::Approvals => {
                let rows = self.rows::<Approval>(keys::approvals(org), sweep).await?;
                let step = Step::of(&rows, None);
                for (_, approval) in rows {
                    sweep.done.approvals += usize::from(self.sweep_approval(approval).await?);
                }
                step
            }
        };
        match step {
            Step::On(after) => sweep.after = Some(after),
            Step::Next(table) => (sweep.table, sweep.after) = (Some(table), None),
            Step::NextOrg => return self.next_org(sweep).await,
        }
        Ok(true)
    }

    /// A whole sweep at once, as it is done bit by bit while the broker runs.
    pub async fn sweep(self: &Arc<Self>) -> Result<Swept, Refusal> {
        let mut sweep = Sweep::default();
        while self.sweep_on(&mut sweep).await? {}
        Ok(sweep.done)
    }

    /// The next rows. A damaged one is logged and passed over: it must not keep all after it from being swept.
    async fn rows<T: Stores>(&self, list: Key, sweep: &mut Sweep) -> Result<Vec<(Key, Stored<T>)>, Refusal> {
        loop {
            let rows = self
                .records
                .scan(list.as_bytes(), sweep.after.as_ref(), LOOKED_AT)
                .await;
            let damaged = match rows {
                Err(StoreError::Damaged { ref key } | StoreError::Malformed { ref key }) => unhex(key),
                _ => None,
            };
            match damaged {
                // Only ever onwards.
                Some(key) if Some(&key) > sweep.after.as_ref() => {
                    tracing::error!(?key, "a damaged record was passed over");
                    sweep.after = Some(key);
                }
                _ => return Ok(rows?),
            }
        }
    }

    async fn next_org(&self, sweep: &mut Sweep) -> Result<bool, Refusal> {
        let after = sweep.org.map(keys::org);
        let next = self
            .records
            .scan::<Org>(keys::orgs().as_bytes(), after.as_ref(), 1)
            .await?;
        (sweep.table, sweep.after) = (None, None);
        sweep.org = next.first().map(|(_, org)| org.value.id);
        if sweep.org.is_none() && sweep.done != Swept::default() {
            self.record_sweep(sweep.done).await?;
        }
        Ok(sweep.org.is_some())
    }

    async fn record_sweep(&self, done: Swept) -> Result<(), Refusal> {
        let record = Record::new(Action::Collect, "broker", None)
            .about("expired", done.expired)
            .about("agents", done.agents)
            .about("tasks", done.tasks)
            .about("enrollment_tokens", done.enrollment_tokens)
            .about("leases", done.leases);
        self.journal.append(&record).await?;
        Ok(())
    }

    /// Whether what ended then is to be removed by now.
    fn is_due(&self, ended: Time) -> bool {
        self.now() >= ended + self.settings().collect_after
    }

    async fn sweep_agent(self: &Arc<Self>, agent: Stored<Agent>, done: &mut Swept) -> Result<(), Refusal> {
        match agent.value.ended() {
            Some(ended) if self.is_due(ended) => {
                self.collect_agent(&agent).await?;
                done.agents += 1;
            }
            Some(_) => {}
            None => done.expired += usize::from(self.expire_unseen(&agent).await?),
        }
        Ok(())
    }

    /// Expires the agent, if it has not been seen for too long.
    async fn expire_unseen(self: &Arc<Self>, stored: &Stored<Agent>) -> Result<bool, Refusal> {
        let Agent { id, org, .. } = *stored.value;
        let seen = self.last(Present::Agent(org, id)).await?.map(|seen| seen.at);
        let last = seen.map_or(stored.value.created, |seen| seen.max(stored.value.created));
        let now = self.now();
        // While the broker was down, nobody could be seen.
        if self.clock.monotonic() < self.started + UP_BEFORE_EXPIRY {
            return Ok(false);
        }
        if now < last + self.settings().unseen_expiry {
            return Ok(false);
        }
        let agent = Agent {
            expired: Some(now),
            ..Agent::clone(&stored.value)
        };
        let key = keys::agent(org, id);
        let changes = Changes::default().at(&key, stored.revision).put(&key, &agent);
        let record = Record::new(Action::AgentExpire, "broker", Some(org))
            .about("agent", id)
            .about("environment", agent.environment)
            .about("unseen_seconds", now.since(last).as_secs());
        match self.effect(record, changes).await {
            Ok(_) => {}
            // Somebody came first: the agent itself, or who revoked it.
            Err(Undone::Conflict) => return Ok(false),
            Err(Undone::Refused(refusal)) => return Err(refusal),
        }
        let told = Refusal::new(
            Reason::AgentExpired,
            "the agent was not seen for too long and has expired",
        );
        self.streams.end(*id.as_bytes(), &told);
        self.agent_ended(&agent, told.reason).await;
        self.end_leases(org, Holder::Agent(id)).await?;
        Ok(true)
    }
}

/// What comes after some rows.
enum Step {
    On(Key),
    Next(Table),
    NextOrg,
}

impl Step {
    fn of<T>(rows: &[(Key, T)], next: Option<Table>) -> Self {
        match (rows.last(), next) {
            (Some((key, _)), _) if rows.len() == LOOKED_AT => Step::On(key.clone()),
            (_, Some(table)) => Step::Next(table),
            (_, None) => Step::NextOrg,
        }
    }
}

/// The key that an error names.
pub(super) fn unhex(text: &str) -> Option<Key> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16)?.try_into().ok())
        .collect::<Option<_>>()?;
    let bytes = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    digits
        .len()
        .is_multiple_of(2)
        .then(|| Key::from_bytes(bytes.collect()))
}
