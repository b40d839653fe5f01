//! A place for a lease, where only so many may stand on a credential at once.
//!
//! A place is taken in the commit that makes the lease, guarded by the list of those that have one: over any number of
//! callers, crashes and restarts no lease is made without its place. Those who take one take turns, so that a crowd
//! does not undo each other's commits until somebody gives up.

use super::look::Source;
use super::obtain::Choice;
use super::subject::Subject;
use crate::domain::actor::{Actor, Caller};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, LeaseId};
use crate::domain::lease::Lease;
use crate::domain::mode::PermitEntry;
use crate::domain::parallelism::{Full, Parallel, Room};
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::service::turns::Turn;
use crate::store::record::{Changes, Stored};
use crate::store::{Commit, keys};

/// A turn at the places of a credential; keep it until the commit is through.
pub(super) type PlaceTurn = Option<Turn<CredentialId>>;

impl Broker {
    /// Whether there is a place for what the caller would be given of a source. Takes none: it is for refusing early
    /// what would be refused when the lease is made, and for explaining.
    ///
    /// The inner result is the limit's; the outer one says that it could not be looked at.
    pub(super) async fn check_place(
        &self,
        caller: &Caller,
        subject: &Subject,
        source: &Source,
        entry: &PermitEntry,
    ) -> Result<Result<(), Refusal>, Refusal> {
        let Some(credential) = self.capped(source) else {
            return Ok(Ok(()));
        };
        let Some(stored) = self.parallel(credential).await? else {
            return Ok(Ok(()));
        };
        let (parallel, usual) = (&stored.value, self.settings().personal_parallelism);
        if parallel.room(None, usual) == Room::Free {
            return Ok(Ok(()));
        }
        // What people want to know is whether the task is served: they are handed nothing of anybody's own.
        let person = matches!(caller.actor(), Actor::Member { .. } | Actor::Operator(_));
        if !person {
            let filed = self.filed(caller, subject, source.backing(entry)).await?;
            let now = self.now();
            if filed.lease.is_some_and(|lease| lease.value.stands(now)) {
                return Ok(Ok(()));
            }
        }
        let standing = self.standing_of(credential.org, &parallel.leases).await?;
        let task = subject.task_id().filter(|_| person);
        let served = task.is_some() && standing.iter().any(|lease| lease.task == task);
        let cap = parallel.cap(usual);
        if served || standing.len() < cap as usize {
            return Ok(Ok(()));
        }
        Ok(Err(self.at_limit(caller, credential, cap, &standing)))
    }

    /// Adds to `changes` that a new lease has a place, that of the lease it replaces or another; with the turn that
    /// this took.
    pub(super) async fn placed(
        &self,
        caller: &Caller,
        changes: Changes,
        choice: &Choice,
        lease: &Lease,
        replaces: Option<LeaseId>,
    ) -> Result<(Changes, PlaceTurn), Refusal> {
        let Some(credential) = self.capped(&choice.source) else {
            return Ok((changes, None));
        };
        let turn = self.places.take(credential.id).await;
        let stored = self.parallel(credential).await?;
        let usual = self.settings().personal_parallelism;
        let parallel = stored.as_ref().map(|stored| Parallel::clone(&stored.value));
        let parallel = parallel.unwrap_or_default();
        let after = match parallel.taken(lease.id, replaces, usual) {
            Ok(after) => after,
            Err(Full) => {
                let standing = self.standing_of(credential.org, &parallel.leases).await?;
                let stands = |id| standing.iter().any(|lease| lease.id == id);
                match parallel.without(stands).taken(lease.id, replaces, usual) {
                    Ok(after) => after,
                    Err(Full) => {
                        return Err(self.at_limit(caller, credential, parallel.cap(usual), &standing));
                    }
                }
            }
        };
        Ok((listing(changes, credential, stored.as_ref(), &after), Some(turn)))
    }

    /// Counts a lease that is about to be handed out again and has no place: one from before its credential had a
    /// cap. It stands, so it is not refused.
    pub(super) async fn count_in(&self, choice: &Choice, lease: &Stored<Lease>) -> Result<(), Undone> {
        let Some(credential) = self.capped(&choice.source) else {
            return Ok(());
        };
        let listed = |stored: Option<&Stored<Parallel>>| {
            stored.is_some_and(|stored| stored.value.leases.contains(&lease.value.id))
        };
        if listed(self.parallel(credential).await?.as_ref()) {
            return Ok(());
        }
        let _turn = self.places.take(credential.id).await;
        let stored = self.parallel(credential).await?;
        if listed(stored.as_ref()) {
            return Ok(());
        }
        let before = stored.as_ref().map(|stored| Parallel::clone(&stored.value));
        let before = before.unwrap_or_default();
        let after = before.counting(lease.value.id);
        if after == before {
            return Ok(());
        }
        let key = keys::lease(lease.value.org, lease.value.id);
        let changes = Changes::default().at(&key, lease.revision);
        let changes = listing(changes, credential, stored.as_ref(), &after);
        match self.records.commit(changes).await.map_err(Refusal::from)? {
            Commit::Applied(_) => Ok(()),
            Commit::Conflict => Err(Undone::Conflict),
        }
    }

    /// The credential of a source, where only so many leases may stand on it at once.
    fn capped<'a>(&self, source: &'a Source) -> Option<&'a Credential> {
        let credential = source.credential()?;
        self.is_capped(credential).then_some(&**credential)
    }
}

/// Adds to `changes` that these leases have the places, guarded by who had them.
fn listing(
    changes: Changes,
    credential: &Credential,
    before: Option<&Stored<Parallel>>,
    after: &Parallel,
) -> Changes {
    let key = keys::parallel(credential.org, credential.id);
    let changes = match before {
        Some(before) => changes.at(&key, before.revision),
        None => changes.absent(&key),
    };
    changes.put(&key, after)
}
