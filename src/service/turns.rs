//! Whose turn it is to change what many change at once: one at a time, in the order they came.
//!
//! Every such change is guarded by what was read, so turns are not what makes it right: they are what keeps those
//! who change a busy org's account, or the places of a busy credential, from undoing each other over and over.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Entry = Arc<tokio::sync::Mutex<()>>;

/// What is being changed.
pub(super) struct Turns<K: Hash + Eq + Copy>(Arc<Mutex<HashMap<K, Entry>>>);

/// A turn, until it is dropped.
#[must_use]
pub(super) struct Turn<K: Hash + Eq + Copy> {
    turns: Arc<Mutex<HashMap<K, Entry>>>,
    of: K,
    held: Option<OwnedMutexGuard<()>>,
}

fn locked<K>(turns: &Mutex<HashMap<K, Entry>>) -> MutexGuard<'_, HashMap<K, Entry>> {
    turns.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq + Copy> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Copy> Turns<K> {
    /// Waits for the turn.
    pub(super) async fn take(&self, of: K) -> Turn<K> {
        let entry = Arc::clone(locked(&self.0).entry(of).or_default());
        // Made before the wait, so that who goes away amid it leaves no entry behind.
        let mut turn = Turn {
            turns: Arc::clone(&self.0),
            of,
            held: None,
        };
        turn.held = Some(entry.lock_owned().await);
        turn
    }
}

impl<K: Hash + Eq + Copy> Drop for Turn<K> {
    fn drop(&mut self) {
        self.held = None;
        let mut turns = locked(&self.turns);
        // Entries are handed out under this lock only: nobody else has one that the map alone holds.
        if turns
            .get(&self.of)
            .is_some_and(|entry| Arc::strong_count(entry) == 1)
        {
            turns.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::domain::id::{Id, OrgId};

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left_behind() {
        let (turns, inside) = (Arc::new(Turns::default()), Arc::new(AtomicUsize::new(0)));
        let org: OrgId = Id::from_bytes([1; 16]);
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
