//! Removing what has ended, with all that belongs to it. The record that leads to the rest goes last.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::agent::Agent;
use crate::domain::approval::Approval;
use crate::domain::enrollment::EnrollmentToken;
use crate::domain::id::{OrgId, TaskId};
use crate::domain::lease::{Holder, Lease};
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Window;
use crate::domain::task::Task;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::billing::USAGE_TAKEN_FOR;
use crate::service::outstanding::Kept;
use crate::service::presence::Present;
use crate::store::keys::{self, Key};
use crate::store::model::{ApprovalUse, Home, LeasePointer, Mark, Pin, Seen, Slot};
use crate::store::record::{Changes, Record as Stores, Stored};

/// How many things one commit removes: two records each, within the store's limit.
const AT_ONCE: usize = 40;
/// How long a lease is kept after its end for the sake of its usage: a day longer than a call's usage is taken,
/// for calls that outlast the lease.
const USAGE_KEPT: Duration = Duration::from_secs(USAGE_TAKEN_FOR.as_secs() + 86_400);

/// When a lease ended or will end.
fn ended(lease: &Lease) -> Time {
    lease.ended.unwrap_or(lease.expires).min(lease.expires)
}

impl Broker {
    /// Removes everything below `list`, `AT_ONCE` a commit; `with` adds what goes with each.
    async fn clear<T: Stores>(
        &self,
        list: &Key,
        with: impl Fn(Changes, &Key, &T) -> Changes + Send + Sync,
    ) -> Result<(), Refusal> {
        loop {
            let rows = self.records.scan::<T>(list.as_bytes(), None, AT_ONCE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut changes = Changes::default();
            for (key, row) in &rows {
                changes = with(changes.delete::<T>(key), key, &row.value);
            }
            let _applied = self.records.commit(changes).await?;
        }
    }

    /// Removes an agent that has ended. Nobody makes anything for it any more, so nothing is guarded.
    pub(super) async fn collect_agent(self: &Arc<Self>, stored: &Stored<Agent>) -> Result<(), Refusal> {
        let Agent { id, org, key, .. } = *stored.value;
        self.collect_leases_of(org, Holder::Agent(id)).await?;
        self.clear::<Mark>(&keys::agent_tasks(org, id), |changes, key, _| {
            match key.last_id() {
                Some(task) => changes.delete::<Mark>(&keys::task_agent(org, task, id)),
                None => changes,
            }
        })
        .await?;
        self.collect_locks_of(id).await?;
        // A token that still enrolls keeps its slots: the key of an agent that has ended enrolls no second time.
        let token = stored.value.enrollment_token;
        let minted = self
            .records
            .get::<EnrollmentToken>(&keys::enrollment_token(org, token))
            .await?;
        let mut changes = Changes::default();
        if minted.is_none_or(|minted| self.is_over(&minted.value)) {
            changes = changes.delete::<Slot>(&keys::slot(org, token, key));
        }
        let who = Present::Agent(org, id);
        let _forgotten = self.presence.forgetting(who).await;
        changes = changes.delete::<Seen>(&keys::agent_seen(org, id));
        changes = changes.delete::<Window>(&keys::forced_by(org, Holder::Agent(id)));
        changes = changes.delete::<Agent>(&keys::agent(org, id));
        let _applied = self.records.commit(changes).await?;
        Ok(())
    }

    /// Removes the leases of a holder that is being removed, but for those that usage may still be reported of:
    /// the sweep of leases collects those in their time.
    async fn collect_leases_of(&self, org: OrgId, holder: Holder) -> Result<(), Refusal> {
        let list = keys::leases_for(org, holder);
        loop {
            let rows = self
                .records
                .scan::<LeasePointer>(list.as_bytes(), None, AT_ONCE)
                .await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut changes = Changes::default();
            for (file, pointer) in &rows {
                changes = changes.delete::<LeasePointer>(file);
                let key = keys::lease(org, pointer.value.lease);
                let lease = self.records.get::<Lease>(&key).await?;
                if lease.is_none_or(|lease| self.usage_is_over(&lease.value)) {
                    changes = changes.delete::<Lease>(&key);
                }
            }
            let _applied = self.records.commit(changes).await?;
        }
    }

    /// Whether no usage of the lease is taken any more, or none ever was.
    fn usage_is_over(&self, lease: &Lease) -> bool {
        !lease.mode.has_reported_usage() || self.now() >= ended(lease) + USAGE_KEPT
    }

    fn is_over(&self, token: &EnrollmentToken) -> bool {
        let window = self.settings().enrollment_window;
        token.over(self.now(), window).is_some()
    }

    /// Removes a task that ended long ago, with its pins and assignments. Its leases go with their holders, or
    /// by themselves.
    pub(super) async fn sweep_task(&self, stored: Stored<Task>) -> Result<bool, Refusal> {
        let Task { id, org, .. } = *stored.value;
        let ended = stored.value.ended.unwrap_or(stored.value.expires);
        if !self.is_due(ended.min(stored.value.expires)) {
            return Ok(false);
        }
        self.clear::<Mark>(&keys::task_agents(org, id), |changes, key, _| {
            match key.last_id() {
                Some(agent) => changes.delete::<Mark>(&keys::agent_task(org, agent, id)),
                None => changes,
            }
        })
        .await?;
        self.clear::<Pin>(&keys::pins(org, id), |changes, _, _| changes)
            .await?;
        let key = keys::task(org, id);
        let changes = Changes::default().at(&key, stored.revision).delete::<Task>(&key);
        self.commits(changes).await
    }

    /// Removes an enrollment token that is over for long, once no agent that came by it is left: until then, they
    /// can be revoked by it.
    pub(super) async fn sweep_token(&self, stored: Stored<EnrollmentToken>) -> Result<bool, Refusal> {
        let EnrollmentToken { id, org, .. } = *stored.value;
        let window = self.settings().enrollment_window;
        let over = stored.value.over(self.now(), window);
        if !over.is_some_and(|over| self.is_due(over)) {
            return Ok(false);
        }
        if self.has_agents(org, &keys::slots(org, id)).await? {
            return Ok(false);
        }
        self.clear::<Slot>(&keys::slots(org, id), |changes, _, _| changes)
            .await?;
        let key = keys::enrollment_token(org, id);
        let changes = Changes::default()
            .at(&key, stored.revision)
            .delete::<EnrollmentToken>(&key)
            .delete::<Home>(&keys::enrollment_token_home(id));
        self.commits(changes).await
    }

    /// Removes an approval whose time was over long ago, however it was decided. No lease made with it stands any
    /// more: they end with it.
    pub(super) async fn sweep_approval(&self, stored: Stored<Approval>) -> Result<bool, Refusal> {
        let Approval { id, org, expires, .. } = *stored.value;
        if !self.is_due(expires) {
            return Ok(false);
        }
        // The record goes last: while it is there its uses are looked for.
        self.clear::<ApprovalUse>(&keys::approval_uses(org, id), |changes, _, _| changes)
            .await?;
        let key = keys::approval(org, id);
        let changes = Changes::default()
            .at(&key, stored.revision)
            .delete::<Approval>(&key);
        self.commits(changes).await
    }

    async fn has_agents(&self, org: OrgId, slots: &Key) -> Result<bool, Refusal> {
        let mut after = None;
        loop {
            let rows = self
                .records
                .scan::<Slot>(slots.as_bytes(), after.as_ref(), AT_ONCE)
                .await?;
            for (_, slot) in &rows {
                let agent = keys::agent(org, slot.value.agent);
                if self.records.get::<Agent>(&agent).await?.is_some() {
                    return Ok(true);
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(false),
            }
        }
    }

    /// Removes a lease that ended long ago. That of an agent stays as long as the agent and its material: a
    /// revocation lists what the agent may still use at the provider.
    pub(super) async fn sweep_lease(&self, stored: Stored<Lease>) -> Result<bool, Refusal> {
        let lease = &*stored.value;
        let now = self.now();
        if !self.is_due(ended(lease)) || !self.usage_is_over(lease) {
            return Ok(false);
        }
        let subject = lease
            .task
            .map_or(*lease.member.as_bytes(), |task: TaskId| *task.as_bytes());
        let file = keys::lease_for(lease.org, lease.holder, &subject, lease.backing());
        // A newer lease of the same subject may have taken the pointer over.
        let pointer = self.records.get::<LeasePointer>(&file).await?;
        let pointer = pointer.filter(|pointer| pointer.value.lease == lease.id);
        // As long as the task is there, asking again is no other dispatch: the filed lease is what tells so.
        if pointer.is_some()
            && let Some(task) = lease.task
            && self
                .records
                .get::<Task>(&keys::task(lease.org, task))
                .await?
                .is_some()
        {
            return Ok(false);
        }
        if let Holder::Agent(agent) = lease.holder
            && self
                .records
                .get::<Agent>(&keys::agent(lease.org, agent))
                .await?
                .is_some()
            && self.still_valid(lease, Kept::Ended, now).await?.is_some()
        {
            return Ok(false);
        }
        let key = keys::lease(lease.org, lease.id);
        let mut changes = Changes::default().at(&key, stored.revision).delete::<Lease>(&key);
        if let Some(pointer) = pointer {
            changes = changes.at(&file, pointer.revision).delete::<LeasePointer>(&file);
        }
        self.commits(changes).await
    }

    /// Whether the changes came about; `false`: somebody else came first.
    async fn commits(&self, changes: Changes) -> Result<bool, Refusal> {
        let commit = self.records.commit(changes).await?;
        Ok(matches!(commit, crate::store::Commit::Applied(_)))
    }
}
