//! What changed: a bounded ring of the latest commits, and subscriptions that read from it.
//!
//! The engine publishes each commit once it is durable and readable, and never waits: a subscriber holds only
//! a position in the ring, and one that falls behind its end is told [`WatchError::Lagged`] and has to read
//! the state again. Events name keys, not values; the value is read where it is needed. Each commit wakes
//! every subscriber, so there are meant to be a handful of them, and fan-out to many clients is done above.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Revision;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put,
    /// It was removed.
    Deleted,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The commit that changed it.
    pub revision: Revision,
    /// The key.
    pub key: Vec<u8>,
    /// What happened.
    pub change: Change,
}

/// Why a subscription cannot be made or goes on no more. In each case the subscriber subscribes anew and
/// reads the state again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The commits after the revision asked for are no longer remembered.
    #[error("the changes since that revision are no longer remembered: read the state again")]
    Compacted,
    /// The subscriber was too slow.
    #[error("the subscriber fell behind the changes: read the state again")]
    Lagged,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A commit as the ring remembers it.
pub(super) struct Committed {
    pub(super) revision: Revision,
    pub(super) changes: Vec<(Vec<u8>, Change)>,
}

struct State {
    commits: VecDeque<Committed>,
    /// How many changes `commits` holds.
    changes: usize,
    /// The newest revision that is no longer in `commits`.
    forgotten: Revision,
    /// The newest revision published.
    newest: Revision,
    closed: bool,
}

/// The ring.
pub(super) struct Ring {
    state: Mutex<State>,
    capacity: usize,
    wake: tokio::sync::watch::Sender<()>,
}

impl Ring {
    /// An empty ring of at most `capacity` changes, for a store whose newest commit is `newest`.
    pub(super) fn new(capacity: usize, newest: Revision) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                commits: VecDeque::new(),
                changes: 0,
                forgotten: newest,
                newest,
                closed: false,
            }),
            capacity,
            wake: tokio::sync::watch::Sender::new(()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds commits, oldest first, each newer than all before.
    pub(super) fn publish(&self, commits: Vec<Committed>) {
        {
            let mut state = self.state();
            for commit in commits {
                state.newest = commit.revision;
                state.changes += commit.changes.len();
                state.commits.push_back(commit);
            }
            while state.changes > self.capacity {
                let Some(oldest) = state.commits.pop_front() else {
                    break;
                };
                state.changes -= oldest.changes.len();
                state.forgotten = oldest.revision;
            }
        }
        self.wake.send_replace(());
    }

    /// Ends all subscriptions once they have read what there is.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.send_replace(());
    }

    /// Subscribes; see [`super::Kv::watch`].
    pub(super) fn subscribe(
        self: &Arc<Self>,
        prefix: &[u8],
        from: Option<Revision>,
    ) -> Result<Watch, WatchError> {
        let state = self.state();
        let seen = from.unwrap_or(state.newest);
        if seen < state.forgotten {
            return Err(WatchError::Compacted);
        }
        Ok(Watch {
            wake: self.wake.subscribe(),
            ring: Arc::clone(self),
            prefix: prefix.to_vec(),
            seen,
            ready: VecDeque::new(),
        })
    }
}

/// A subscription to the changes under a prefix.
pub struct Watch {
    ring: Arc<Ring>,
    wake: tokio::sync::watch::Receiver<()>,
    prefix: Vec<u8>,
    /// Everything up to this revision was delivered or is in `ready`.
    seen: Revision,
    ready: VecDeque<Event>,
}

/// How many events a subscription takes from the ring at once, so that the lock is held shortly.
const TAKE: usize = 256;

impl Watch {
    /// The next change. Cancel safe: an event is lost only by an error.
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.wake.borrow_and_update();
            self.take()?;
            if self.ready.is_empty() && self.wake.changed().await.is_err() {
                return Err(WatchError::Closed);
            }
        }
    }

    fn take(&mut self) -> Result<(), WatchError> {
        let state = self.ring.state();
        if self.seen < state.forgotten {
            return Err(WatchError::Lagged);
        }
        let start = state
            .commits
            .partition_point(|commit| commit.revision <= self.seen);
        for commit in state.commits.range(start..) {
            self.seen = commit.revision;
            self.ready.extend(
                commit
                    .changes
                    .iter()
                    .filter(|(key, _)| key.starts_with(&self.prefix))
                    .map(|(key, change)| Event {
                        revision: commit.revision,
                        key: key.clone(),
                        change: *change,
                    }),
            );
            if self.ready.len() >= TAKE {
                break;
            }
        }
        if self.ready.is_empty() && state.closed {
            return Err(WatchError::Closed);
        }
        Ok(())
    }
}
