//! What is to be refreshed ahead, and when: in memory, bounded, without a clock or a task of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::name::Name;
use crate::domain::pace::breaker::Standing;
use crate::domain::time::Time;
use crate::service::refresh::breaker::Breakers;
use crate::service::refresh::places::{Place, Places};

/// How many credentials are scheduled at most. What is in use past that is refreshed when a caller needs it.
pub(super) const MOST: usize = 131_072;

/// The schedule.
pub(in crate::service::refresh) struct Schedule {
    inner: Mutex<Inner>,
    free: Notify,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<CredentialId, Entry>,
    /// By connector, so that one whose turn it is not holds up no other. As many as there are connectors.
    queues: Vec<(Name, BTreeSet<(Time, CredentialId)>)>,
}

struct Entry {
    org: OrgId,
    queue: usize,
    generation: u64,
    due: Time,
    /// When it was handed out last, monotonic.
    used: Duration,
}

/// A credential whose time has come. It is out of the schedule until it is put back.
pub(in crate::service::refresh) struct Item {
    pub(in crate::service::refresh) org: OrgId,
    pub(in crate::service::refresh) id: CredentialId,
    pub(in crate::service::refresh) generation: u64,
    connector: Name,
    used: Duration,
}

/// When a turn is taken.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Time,
    pub(super) monotonic: Duration,
    /// For how long after it was handed out a credential counts as in use.
    pub(super) in_use: Duration,
}

impl Moment {
    /// Whether what was handed out last at `used` is in use.
    fn uses(self, used: Duration) -> bool {
        self.monotonic.saturating_sub(used) <= self.in_use
    }
}

impl Schedule {
    pub(in crate::service::refresh) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            free: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credential was handed out. `due` is asked for where this generation was not seen before.
    pub(super) fn used(&self, credential: &Credential, used: Duration, due: impl FnOnce() -> Option<Time>) {
        let generation = credential.rotation.generation;
        let mut inner = self.inner();
        if let Some(entry) = inner.entries.get_mut(&credential.id) {
            entry.used = used;
            if entry.generation >= generation {
                return;
            }
        }
        let (Some(due), Ok(connector)) = (due(), credential.connector.parse::<Name>()) else {
            return inner.remove(credential.id);
        };
        let item = Item {
            org: credential.org,
            id: credential.id,
            connector,
            generation,
            used,
        };
        inner.put(item, due);
    }

    /// What was taken out is to be tried once more at `at`.
    pub(super) fn later(&self, item: &Item, at: Time) {
        let item = Item {
            connector: item.connector.clone(),
            ..*item
        };
        self.inner().put(item, at);
    }

    /// Begins what is due, as far as there are spare places, by `depart`. Nothing waits for anything here. What is not
    /// in use any more is dropped as its time comes.
    pub(super) fn turn(
        &self,
        places: &Places,
        breakers: &Breakers,
        moment: Moment,
        mut depart: impl FnMut(Item, Place),
    ) {
        self.inner().make_room(moment);
        let connectors: Vec<Name> = self.inner().queues.iter().map(|(name, _)| name.clone()).collect();
        for (queue, connector) in connectors.iter().enumerate() {
            if !self.inner().is_due(queue, moment) {
                continue;
            }
            let mut most = match breakers.standing(connector) {
                (Standing::Closed, true) => usize::MAX,
                // One that tries it out.
                (_, true) => 1,
                (_, false) => 0,
            };
            while most > 0
                && let Some(place) = places.take_spare(connector)
                && let Some(item) = self.take(queue, moment)
            {
                depart(item, place);
                most -= 1;
            }
        }
    }

    fn take(&self, queue: usize, moment: Moment) -> Option<Item> {
        self.inner().take(queue, moment)
    }

    /// A place became free.
    pub(super) fn freed(&self) {
        self.free.notify_one();
    }

    /// Waits for that.
    pub(super) async fn place_is_free(&self) {
        self.free.notified().await;
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut inner = self.inner();
        if !inner.entries.is_empty() {
            *inner = Inner::default();
        }
    }

    /// How many are scheduled.
    pub(in crate::service::refresh) fn len(&self) -> usize {
        self.inner().entries.len()
    }
}

impl Inner {
    /// Puts in a generation, unless a newer one is there already.
    fn put(&mut self, item: Item, due: Time) {
        let mut used = item.used;
        match self.entries.get(&item.id) {
            Some(there) if there.generation > item.generation => return,
            Some(there) => used = used.max(there.used),
            None if self.entries.len() >= MOST => return,
            None => {}
        }
        self.remove(item.id);
        let queue = self.queue(item.connector);
        self.queues[queue].1.insert((due, item.id));
        let entry = Entry {
            org: item.org,
            queue,
            generation: item.generation,
            due,
            used,
        };
        self.entries.insert(item.id, entry);
    }

    fn queue(&mut self, connector: Name) -> usize {
        if let Some(at) = self.queues.iter().position(|(name, _)| *name == connector) {
            return at;
        }
        self.queues.push((connector, BTreeSet::new()));
        self.queues.len() - 1
    }

    fn remove(&mut self, id: CredentialId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.queues[entry.queue].1.remove(&(entry.due, id));
        }
    }

    /// Where there is no room left, forgets what is not in use any more, whenever it would be due: what is in use now
    /// must not be kept out by it.
    fn make_room(&mut self, moment: Moment) {
        if self.entries.len() < MOST {
            return;
        }
        let queues = &mut self.queues;
        self.entries.retain(|id, entry| {
            let kept = moment.uses(entry.used);
            if !kept {
                queues[entry.queue].1.remove(&(entry.due, *id));
            }
            kept
        });
    }

    fn is_due(&self, queue: usize, moment: Moment) -> bool {
        let first = self.queues.get(queue).and_then(|(_, queue)| queue.first());
        first.is_some_and(|(due, _)| *due <= moment.now)
    }

    /// Takes out the first that is due and in use.
    fn take(&mut self, queue: usize, moment: Moment) -> Option<Item> {
        while self.is_due(queue, moment) {
            let (connector, queue) = self.queues.get_mut(queue)?;
            let (_, id) = queue.pop_first()?;
            let Some(entry) = self.entries.remove(&id) else {
                continue;
            };
            if moment.uses(entry.used) {
                return Some(Item {
                    org: entry.org,
                    id,
                    connector: connector.clone(),
                    generation: entry.generation,
                    used: entry.used,
                });
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests;
