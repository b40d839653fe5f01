//! The lease of a resolution: found, or made under guards that a revocation breaks.

use std::sync::Arc;
use std::time::Duration;

use super::look::Source;
use super::obtain::Choice;
use super::prepare::Prepared;
use super::subject::Subject;
use crate::domain::actor::Caller;
use crate::domain::approval::{Approved, Clearance};
use crate::domain::credential::Credential;
use crate::domain::gate::Permit;
use crate::domain::journal::{Position, Record};
use crate::domain::lease::{Handed, Lease};
use crate::domain::mode::AuthMode;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Row;
use crate::domain::time::Time;
use crate::service::effect::{Failed, Undone};
use crate::service::lease::holder;
use crate::service::{Broker, Planted};
use crate::store::Commit;
use crate::store::keys;
use crate::store::model::{ApprovalUse, LeasePointer};
use crate::store::record::{Changes, Stored};

impl Broker {
    /// Finds the lease for this holder, subject and what is behind it, or makes it, and records the resolution.
    pub(super) async fn lease(
        self: &Arc<Self>,
        caller: &Caller,
        subject: &Subject,
        prepared: &Prepared,
        choice: &Choice,
        remaining: Duration,
        record: Record,
    ) -> Result<(Arc<Lease>, Position), Undone> {
        let (org, now) = (subject.org, self.now());
        let entry = &prepared.permit.entries()[choice.position];
        let cleared = self.cleared(caller, subject, entry).await?;
        let filed = self.filed(caller, subject, choice.source.backing(entry)).await?;
        let (mut changes, mut again) = (Changes::default(), None);
        let before = filed.lease.as_ref().map(|lease| Arc::clone(&lease.value));
        if let Some(lease) = filed.lease {
            if self.keeps(&cleared, &lease.value).await? {
                self.count_in(choice, &lease).await?;
                let handed = self.handed(caller, choice)?;
                let lease = self.prolonged(caller, subject, choice, lease, remaining).await?;
                let lease = self.handing(lease, handed, &entry.model).await?;
                // What a rejection or a lapsed subscription led to is the task's choice from now on.
                self.repin(prepared, choice).await?;
                let recorded = self.journal.append(&record.about("lease", lease.id));
                let position = if self.refresher.planted(Planted::Unrecorded) {
                    Position(self.journal.tip().borrow().0 + 1)
                } else {
                    recorded.await.map_err(Refusal::from)?
                };
                return Ok((lease, position));
            }
            if stands_again(&lease.value, cleared.demands_approval(), now) {
                again = Some(lease);
            } else if lease.value.mode.has_reported_usage() {
                // Usage of it may still be reported: it stays until that is refused anyway.
                if lease.value.stands(now) {
                    changes = ending(changes, &lease, now);
                }
            } else {
                // The one before goes: giving leases back and asking anew must not fill the store.
                changes = changes.delete::<Lease>(&keys::lease(org, lease.value.id));
            }
        }
        let (clearance, mut changes) = cleared.leave(changes)?;
        let lease = match again {
            Some(before) => {
                let key = keys::lease(org, before.value.id);
                changes = changes.at(&key, before.revision);
                let handed = self.handed(caller, choice)?.or(before.value.handed);
                Lease {
                    ended: None,
                    handed,
                    ..Lease::clone(&before.value)
                }
            }
            None => {
                let mut lease = self.new_lease(caller, subject, &prepared.permit, choice, now, &clearance)?;
                if let Some(before) = &before {
                    lease.follow(before);
                }
                changes = changes.absent(&keys::lease(org, lease.id));
                lease
            }
        };
        changes = changes.put(&keys::lease(org, lease.id), &lease);
        match &filed.pointer {
            Some(pointer) => changes = changes.at(&filed.file, pointer.revision),
            None => changes = changes.absent(&filed.file),
        }
        changes = changes.put(&filed.file, &LeasePointer { lease: lease.id });
        let mut record = record.about("lease", lease.id).about("first", true);
        // A lease made anew for the same task, when the one before has ended, is no other dispatch.
        let dispatch = filed.pointer.is_none() || subject.task.is_none();
        let mut place = match (dispatch, entry.mode) {
            (true, AuthMode::Shared) => Some(self.reserve_shared(org, self.shared_limit(org).await?).await?),
            _ => None,
        };
        if dispatch {
            record = record.about("dispatch", true);
        }
        if let Some(approved) = clearance.approved() {
            let slot = keys::approval_use(org, approved.approval(), approved.slot());
            let used = ApprovalUse {
                lease: lease.id,
                holder: lease.holder,
                at: now,
            };
            changes = changes.absent(&slot).put(&slot, &used);
            record = record
                .about("approval", approved.approval())
                .about("approval_use", approved.slot());
        }
        let changes = self
            .guard_subject(changes, caller, subject, prepared, choice)
            .await?;
        let replaces = before.as_ref().map(|before| before.id);
        let (changes, turn) = self.placed(caller, changes, choice, &lease, replaces).await?;
        // An effect goes on when its caller goes away, and of one that failed it may not be known whether it came
        // about: the place stays taken unless it is known that nothing did.
        if let Some(place) = &mut place {
            place.hold();
        }
        let done = self.effect_or_fate(record, changes).await;
        drop(turn);
        if let (Err(Failed { known: true, .. }), Some(place)) = (&done, place) {
            place.release();
        }
        let done = done.map_err(Undone::from)?;
        // Before the credential is looked at once more: a rotation from that look on is heard of.
        self.lease_made(&lease);
        Ok((Arc::new(lease), done.position))
    }

    /// Keeps which generation a lease is about to hand out, so that a revocation can tell what is out there, and for
    /// which model, so that what is judged by the lease is judged by that. A commit where either is another than the
    /// last time, and none otherwise.
    pub(super) async fn handing(
        &self,
        lease: Stored<Lease>,
        handed: Option<Handed>,
        model: &str,
    ) -> Result<Arc<Lease>, Undone> {
        let rejections = lease.value.rejections;
        self.handing_after(lease, handed, model, rejections).await
    }

    /// As [`Broker::handing`], after a report that led to this row of rejections.
    pub(super) async fn handing_after(
        &self,
        lease: Stored<Lease>,
        handed: Option<Handed>,
        model: &str,
        rejections: Option<Row>,
    ) -> Result<Arc<Lease>, Undone> {
        let before = lease.value.handed;
        let newer = match (before, handed) {
            (Some(before), Some(handed)) => handed.generation > before.generation,
            (None, handed) => handed.is_some(),
            (Some(_), None) => false,
        };
        if !newer && lease.value.model == model && lease.value.rejections == rejections {
            return Ok(lease.value);
        }
        let key = keys::lease(lease.value.org, lease.value.id);
        let handing = Lease {
            handed: if newer { handed } else { before },
            model: model.to_owned(),
            rejections,
            ..Lease::clone(&lease.value)
        };
        // Guarded: what ended the lease meanwhile wins.
        let changes = Changes::default().at(&key, lease.revision).put(&key, &handing);
        match self.records.commit(changes).await.map_err(Refusal::from)? {
            Commit::Applied(_) => Ok(Arc::new(handing)),
            Commit::Conflict => Err(Undone::Conflict),
        }
    }

    /// A lease that ends too soon for a grant that is to work for `remaining`, with a later end: a grant for the model
    /// proxy ends with its lease. What a task runs on is one dispatch however often it asks, so that this costs
    /// nobody anything; a lease that was made with an approval ends when that says.
    async fn prolonged(
        &self,
        caller: &Caller,
        subject: &Subject,
        choice: &Choice,
        lease: Stored<Lease>,
        remaining: Duration,
    ) -> Result<Stored<Lease>, Undone> {
        let is_grant = matches!(choice.source, Source::Managed(_)) && !self.hands_raw(holder(caller)?);
        let (Some(task), true, None) = (&subject.task, is_grant, lease.value.approval) else {
            return Ok(lease);
        };
        let now = self.now();
        let (lasts, wanted) = {
            let settings = self.settings();
            (
                settings.lease_lifetime,
                remaining.min(settings.proxy.grant_lifetime),
            )
        };
        let latest = task.value.expires.min(now + lasts);
        if now + wanted <= lease.value.expires || latest <= lease.value.expires {
            return Ok(lease);
        }
        let prolonged = Lease {
            expires: latest,
            ..Lease::clone(&lease.value)
        };
        let key = keys::lease(prolonged.org, prolonged.id);
        let changes = Changes::default().at(&key, lease.revision).put(&key, &prolonged);
        match self.records.commit(changes).await.map_err(Refusal::from)? {
            Commit::Applied(revision) => Ok(Stored {
                value: Arc::new(prolonged),
                revision,
            }),
            Commit::Conflict => Err(Undone::Conflict),
        }
    }

    pub(super) fn new_lease(
        &self,
        caller: &Caller,
        subject: &Subject,
        permit: &Permit,
        choice: &Choice,
        now: Time,
        clearance: &Clearance,
    ) -> Result<Lease, Refusal> {
        let entry = &permit.entries()[choice.position];
        let latest = now + self.settings().lease_lifetime;
        let task_end = subject.task.as_ref().map(|task| task.value.expires);
        Ok(Lease {
            id: self.new_id()?,
            org: subject.org,
            holder: holder(caller)?,
            task: subject.task_id(),
            member: subject.member,
            credential: choice.source.credential().map(|credential| credential.id),
            mode: entry.mode,
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            permit_position: u32::try_from(choice.position).unwrap_or(u32::MAX),
            created: now,
            expires: clearance.bound(task_end.map_or(latest, |end| end.min(latest))),
            ended: None,
            handed: self.handed(caller, choice)?,
            approval: clearance.approved().map(Approved::approval),
            project: Some(subject.project),
            rejections: None,
        })
    }

    /// Ties the lease to what allowed it: should the caller be revoked, the member removed or the task end
    /// before the commit, the commit fails. Also pins the task to its first choice.
    pub(super) async fn guard_subject(
        &self,
        mut changes: Changes,
        caller: &Caller,
        subject: &Subject,
        prepared: &Prepared,
        choice: &Choice,
    ) -> Result<Changes, Refusal> {
        let (key, revision) = self.still_live(caller).await?;
        changes = changes.at(&key, revision);
        let (key, revision) = self.standing_member(subject.org, subject.member).await?;
        changes = changes.at(&key, revision);
        if let Some(task) = &subject.task {
            changes = changes.at(&keys::task(subject.org, task.value.id), task.revision);
        }
        Ok(match prepared.newly_pinned(choice) {
            Some(pin) => prepared.pinning(changes, &pin),
            None => changes,
        })
    }

    /// What handing out a choice lets out; `None` where nothing leaves that works without the broker.
    fn handed(&self, caller: &Caller, choice: &Choice) -> Result<Option<Handed>, Refusal> {
        Ok(match &choice.source {
            Source::Stored(credential) => Some(handed(credential, self.now())),
            Source::Managed(key) if self.hands_raw(holder(caller)?) => Some(Handed {
                generation: key.facts.generation,
                expires: None,
                at: Some(self.now()),
            }),
            Source::Managed(_) | Source::HostSession | Source::Local(_) => None,
        })
    }

    /// Pins the task to another choice than before, where it came to one.
    async fn repin(&self, prepared: &Prepared, choice: &Choice) -> Result<(), Undone> {
        let Some(pin) = prepared.newly_pinned(choice) else {
            return Ok(());
        };
        let changes = prepared.pinning(Changes::default(), &pin);
        match self.records.commit(changes).await.map_err(Refusal::from)? {
            Commit::Applied(_) => Ok(()),
            Commit::Conflict => Err(Undone::Conflict),
        }
    }
}

/// Whether a lease that was given back stands again, rather than another being made: in the modes whose leases are
/// kept for the sake of their usage, giving back and asking anew must not fill the store. One that an approval
/// allowed, or that one is demanded for by now, takes another use of an approval and so is another lease.
fn stands_again(lease: &Lease, demands_approval: bool, now: Time) -> bool {
    lease.mode.has_reported_usage()
        && lease.ended.is_some()
        && now < lease.expires
        && lease.approval.is_none()
        && !demands_approval
}

fn ending(changes: Changes, lease: &Stored<Lease>, now: Time) -> Changes {
    let ended = Lease {
        ended: Some(now),
        ..Lease::clone(&lease.value)
    };
    let key = keys::lease(ended.org, ended.id);
    changes.at(&key, lease.revision).put(&key, &ended)
}

/// What handing out this credential lets out.
pub(super) fn handed(credential: &Credential, now: Time) -> Handed {
    Handed {
        generation: credential.rotation.generation,
        expires: credential.expires,
        at: Some(now),
    }
}
