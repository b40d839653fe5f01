//! Where events come in and watchers get theirs.
//!
//! Publishing never waits: it looks up who listens to the event's topics, puts the event into their queues and
//! wakes them. Queues are short. Where one is full its watcher has fallen behind: its queue is emptied, and it is
//! told so and goes on with what comes later. The last events are kept for those who come back.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::domain::watch::{Event, Interest, Notice, Topic};

/// How many of the last events are kept.
const RECENT: usize = 4096;
/// How many events wait for one watcher.
const QUEUE: usize = 128;
/// How many watchers one actor may have.
const PER_ACTOR: usize = 32;
/// How many leases and tasks one watcher listens for.
const INTERESTS: usize = 4096;

/// The number of an event: they are counted from the broker's start.
pub(super) type Sequence = u64;

/// An event that was published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) sequence: Sequence,
    pub(super) time: Time,
    notice: Notice,
}

impl Published {
    pub(super) fn event(&self) -> &Event {
        &self.notice.event
    }
}

/// What a watcher is given next.
#[derive(Debug)]
pub(super) enum Next {
    Event(Arc<Published>),
    /// Events were dropped, or cannot be known; the next one is this.
    Missed(Sequence),
}

/// Where a watcher begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// With what happens from now on.
    Now,
    /// With this event.
    Event(Sequence),
    /// Nobody knows where it was: as from now on, and it is told so.
    Unknown,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Published>>,
    missed: bool,
}

/// What publishers and one watcher share.
#[derive(Default)]
struct Slot {
    queue: Mutex<Queue>,
    wake: Notify,
}

struct Watcher {
    actor: [u8; 16],
    /// Counts what its actor was given and lost, so that a look at the store that missed one is done again.
    changes: u64,
    interests: Vec<Interest>,
    /// Set once it listens.
    slot: Option<Arc<Slot>>,
}

#[derive(Default)]
struct Inner {
    next: Sequence,
    recent: VecDeque<Arc<Published>>,
    next_watcher: u64,
    watchers: HashMap<u64, Watcher>,
    /// Watchers are in ascending order.
    by_topic: HashMap<Topic, Vec<u64>>,
    by_actor: HashMap<[u8; 16], Vec<u64>>,
}

/// All watchers, and the last events.
#[derive(Default)]
pub(in crate::service) struct Hub(Mutex<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn push(&self, event: &Arc<Published>) {
        let mut queue = lock(&self.queue);
        // An event comes once for each of its topics that the watcher listens to.
        if queue
            .events
            .back()
            .is_some_and(|last| last.sequence == event.sequence)
        {
            return;
        }
        if queue.events.len() >= QUEUE {
            queue.events.clear();
            queue.missed = true;
        }
        queue.events.push_back(Arc::clone(event));
        drop(queue);
        self.wake.notify_one();
    }
}

impl Watcher {
    /// Whether it listens to the topic at `now`.
    fn listens(&self, topic: &Topic, now: Time) -> bool {
        self.interests
            .iter()
            .any(|interest| interest.topic == *topic && interest.holds(now))
    }
}

impl Inner {
    fn listen(&mut self, id: u64, topic: Topic) {
        let under = self.by_topic.entry(topic).or_default();
        if let Err(place) = under.binary_search(&id) {
            under.insert(place, id);
        }
    }

    fn unlisten(&mut self, id: u64, topic: Topic) {
        let Some(under) = self.by_topic.get_mut(&topic) else {
            return;
        };
        if let Ok(place) = under.binary_search(&id) {
            under.remove(place);
        }
        if under.is_empty() {
            self.by_topic.remove(&topic);
        }
    }

    /// Takes those interests of a watcher for which `keep` is false, and its place under their topics where
    /// nothing else keeps it there.
    fn retain(&mut self, id: u64, keep: impl Fn(&Interest) -> bool) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        let (kept, gone): (Vec<_>, Vec<_>) = watcher.interests.drain(..).partition(keep);
        let left: Vec<Topic> = gone
            .iter()
            .map(|interest| interest.topic)
            .filter(|topic| !kept.iter().any(|interest| interest.topic == *topic))
            .collect();
        watcher.interests = kept;
        for topic in left {
            self.unlisten(id, topic);
        }
    }
}

impl Hub {
    /// Tells those who may hear of it. Never waits for any of them.
    pub(in crate::service) fn publish(&self, notice: Notice, now: Time) {
        let mut inner = lock(&self.0);
        let event = Arc::new(Published {
            sequence: inner.next,
            time: now,
            notice,
        });
        inner.next += 1;
        if inner.recent.len() >= RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(Arc::clone(&event));
        for topic in &event.notice.topics {
            for id in inner.by_topic.get(topic).into_iter().flatten() {
                let watcher = inner
                    .watchers
                    .get(id)
                    .filter(|watcher| watcher.listens(topic, now));
                if let Some(slot) = watcher.and_then(|watcher| watcher.slot.as_ref()) {
                    slot.push(&event);
                }
            }
        }
    }

    /// Watchers of `actor` listen to this as well from now on.
    pub(in crate::service) fn gained(&self, actor: [u8; 16], interests: &[Interest], now: Time) {
        let mut inner = lock(&self.0);
        for id in inner.by_actor.get(&actor).cloned().unwrap_or_default() {
            let Some(watcher) = inner.watchers.get_mut(&id) else {
                continue;
            };
            watcher.changes += 1;
            if watcher.slot.is_none() {
                continue;
            }
            let full = watcher.interests.len() + interests.len() > INTERESTS;
            inner.retain(id, |interest| {
                let replaced = interests
                    .iter()
                    .any(|new| new.source == interest.source && new.topic == interest.topic);
                !replaced && (!full || interest.holds(now))
            });
            if let Some(watcher) = inner.watchers.get_mut(&id)
                && watcher.interests.len() + interests.len() <= INTERESTS
            {
                watcher.interests.extend(interests);
                for interest in interests {
                    inner.listen(id, interest.topic);
                }
            }
        }
    }

    /// Watchers of `actor` no longer listen to what came from `source`.
    pub(in crate::service) fn lost(&self, actor: [u8; 16], source: [u8; 16]) {
        let mut inner = lock(&self.0);
        for id in inner.by_actor.get(&actor).cloned().unwrap_or_default() {
            if let Some(watcher) = inner.watchers.get_mut(&id) {
                watcher.changes += 1;
            }
            inner.retain(id, |interest| interest.source != source);
        }
    }

    /// Enters a watcher, which does not listen yet.
    pub(super) fn enter(self: &Arc<Self>, actor: [u8; 16]) -> Result<Entered, Refusal> {
        let mut inner = lock(&self.0);
        let of_actor = inner.by_actor.entry(actor).or_default();
        if of_actor.len() >= PER_ACTOR {
            let message = format!("an actor may have {PER_ACTOR} watches open at once");
            return Err(Refusal::new(Reason::Overloaded, message).retry_after(crate::service::BACK_OFF));
        }
        let id = inner.next_watcher;
        inner.next_watcher += 1;
        inner.by_actor.entry(actor).or_default().push(id);
        let watcher = Watcher {
            actor,
            changes: 0,
            interests: Vec::new(),
            slot: None,
        };
        inner.watchers.insert(id, watcher);
        Ok(Entered {
            began: inner.next,
            place: Place {
                hub: Arc::clone(self),
                id,
            },
        })
    }
}

/// A watcher's place in the hub; goes with it.
struct Place {
    hub: Arc<Hub>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = lock(&self.hub.0);
        let Some(watcher) = inner.watchers.remove(&self.id) else {
            return;
        };
        for interest in &watcher.interests {
            inner.unlisten(self.id, interest.topic);
        }
        if let Some(of_actor) = inner.by_actor.get_mut(&watcher.actor) {
            of_actor.retain(|id| *id != self.id);
            if of_actor.is_empty() {
                inner.by_actor.remove(&watcher.actor);
            }
        }
    }
}

/// A watcher that does not listen yet: what it is to listen to is being read from the store.
pub(super) struct Entered {
    place: Place,
    began: Sequence,
}

impl Entered {
    /// How often its actor gained or lost something since it was entered. To be asked before the store is read.
    pub(super) fn changes(&self) -> u64 {
        let inner = lock(&self.place.hub.0);
        inner
            .watchers
            .get(&self.place.id)
            .map_or(0, |watcher| watcher.changes)
    }

    /// Begins to listen: first to what is kept of the events from `from` on, then to new ones, with none lost or
    /// doubled in between. Gives itself back where the interests were read before the `changes`-th change.
    pub(super) fn listen(
        self,
        interests: Vec<Interest>,
        from: From,
        changes: Option<u64>,
        now: Time,
    ) -> Result<Listening, Self> {
        let mut guard = lock(&self.place.hub.0);
        let inner = &mut *guard;
        let id = self.place.id;
        let slot = Arc::new(Slot::default());
        let Some(watcher) = inner.watchers.get_mut(&id) else {
            drop(guard);
            return Err(self);
        };
        if changes.is_some_and(|changes| changes != watcher.changes) {
            drop(guard);
            return Err(self);
        }
        watcher.interests = interests;
        watcher.interests.truncate(INTERESTS);
        watcher.slot = Some(Arc::clone(&slot));
        let oldest = inner.next - u64::try_from(inner.recent.len()).unwrap_or(0);
        let wanted = match from {
            From::Event(sequence) if sequence <= inner.next => sequence,
            From::Now | From::Unknown | From::Event(_) => self.began,
        };
        let known = matches!(from, From::Now) || from == From::Event(wanted);
        lock(&slot.queue).missed = !known || wanted < oldest;
        let skipped = usize::try_from(wanted.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let topics: Vec<_> = watcher.interests.iter().map(|interest| interest.topic).collect();
        // Looked up, not searched through: this is under the hub's one lock.
        let live = watcher.interests.iter().filter(|interest| interest.holds(now));
        let heard: HashSet<Topic> = live.map(|interest| interest.topic).collect();
        for event in inner.recent.iter().skip(skipped) {
            if event.notice.topics.iter().any(|topic| heard.contains(topic)) {
                slot.push(event);
            }
        }
        for topic in topics {
            inner.listen(id, topic);
        }
        drop(guard);
        Ok(Listening {
            place: self.place,
            slot,
        })
    }
}

/// A watcher that listens.
pub(super) struct Listening {
    place: Place,
    slot: Arc<Slot>,
}

impl Listening {
    /// What comes next. Cancel safe.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.slot.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut queue = lock(&self.slot.queue);
        if queue.missed {
            queue.missed = false;
            let first = queue.events.front().map(|event| event.sequence);
            drop(queue);
            return Some(Next::Missed(first.unwrap_or_else(|| self.position())));
        }
        let event = queue.events.pop_front()?;
        if queue.events.is_empty() {
            // Most watchers are idle most of the time, and there may be many.
            queue.events = VecDeque::new();
        }
        Some(Next::Event(event))
    }

    /// Whether it missed events and was not told yet.
    pub(super) fn missed(&self) -> bool {
        lock(&self.slot.queue).missed
    }

    /// The first event that it was not given yet and may hear of.
    pub(super) fn position(&self) -> Sequence {
        let inner = lock(&self.place.hub.0);
        let queue = lock(&self.slot.queue);
        queue.events.front().map_or(inner.next, |event| event.sequence)
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
