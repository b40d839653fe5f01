//! Whose turn it is to change an org's account: one at a time, in the order they came.
//!
//! What changes an account is guarded by what was read, so turns are not what makes it right: they are what keeps
//! a busy org's reports from undoing each other over and over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::domain::id::OrgId;

type Entry = Arc<tokio::sync::Mutex<()>>;

/// The orgs whose accounts are being changed.
#[derive(Default)]
pub(in super::super) struct Turns(Arc<Mutex<HashMap<OrgId, Entry>>>);

/// A turn, until it is dropped.
#[must_use]
pub(super) struct Turn {
    turns: Arc<Mutex<HashMap<OrgId, Entry>>>,
    org: OrgId,
    held: Option<OwnedMutexGuard<()>>,
}

fn locked(turns: &Mutex<HashMap<OrgId, Entry>>) -> MutexGuard<'_, HashMap<OrgId, Entry>> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    /// Waits for the turn.
    pub(super) async fn take(&self, org: OrgId) -> Turn {
        let entry = Arc::clone(locked(&self.0).entry(org).or_default());
        // Made before the wait, so that who goes away amid it leaves no entry behind.
        let mut turn = Turn {
            turns: Arc::clone(&self.0),
            org,
            held: None,
        };
        turn.held = Some(entry.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        let mut turns = locked(&self.turns);
        // Entries are handed out under this lock only: nobody else has one that the map alone holds.
        if turns
            .get(&self.org)
            .is_some_and(|entry| Arc::strong_count(entry) == 1)
        {
            turns.remove(&self.org);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::domain::id::Id;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left_behind() {
        let (turns, inside) = (Arc::new(Turns::default()), Arc::new(AtomicUsize::new(0)));
        let org = Id::from_bytes([1; 16]);
        let held = turns.take(org).await;
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (turns, inside) = (Arc::clone(&turns), Arc::clone(&inside));
            waiting.spawn(async move {
                let _turn = turns.take(org).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut gone = tokio::task::JoinSet::new();
        let other = Arc::clone(&turns);
        gone.spawn(async move { drop(other.take(org).await) });
        tokio::task::yield_now().await;
        gone.shutdown().await;
        drop(held);
        while let Some(ended) = waiting.join_next().await {
            assert!(ended.is_ok());
        }
        assert!(locked(&turns.0).is_empty());
    }
}
