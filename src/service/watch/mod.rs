//! The watch: one stream of events for what a caller may see.
//!
//! An event is published after what it tells of was committed, and before whoever caused it is answered. A watch
//! ends like every stream, with the refusal its caller would get from then on.

mod cursor;
mod hub;
mod tell;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::live::expired;
use super::streams::OpenStream;
use crate::domain::actor::{Actor, AgentActor, Caller, Shown};
use crate::domain::id::OrgId;
use crate::domain::lease::{Holder, Lease};
use crate::domain::refusal::Refusal;
use crate::domain::task::{Task, TaskClaims};
use crate::domain::time::Time;
use crate::domain::watch::{Interest, listens_to};
use crate::store::keys::{self, Key};
use crate::store::model::{LeasePointer, Mark};

pub use crate::domain::watch::Event;
pub(super) use cursor::Cursors;
pub(super) use hub::Hub;
use hub::{Listening, Next, Sequence};

/// How often what a watcher listens to is read again because it changed meanwhile. After that it is taken as it
/// was read: an interest that is gained or lost at that very moment is then missing, or one too many.
const ATTEMPTS: usize = 8;
/// How many rows of an index one page of a scan has, and how many pages are read.
const PAGE: usize = 100;
const PAGES: usize = 40;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchInput<'a> {
    /// Where to go on; empty: from now on.
    pub cursor: &'a str,
    /// The org; empty: all that the caller may see.
    pub org: &'a str,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Something happened.
    Event(Event),
    /// Nothing happened; the next message comes within this time.
    Heartbeat(Duration),
    /// Events were missed: what depends on them has to be asked anew.
    Missed,
}

/// A message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where to go on after it.
    pub cursor: String,
    /// When it happened.
    pub time: Time,
    /// What it says.
    pub what: What,
}

/// An open watch.
pub struct Watch {
    broker: Arc<Broker>,
    open: OpenStream,
    listening: Listening,
    actor: Actor,
    /// When what the caller showed ends, and what that is.
    expires: Option<(Time, Shown)>,
    greeted: bool,
}

impl Broker {
    /// Opens a watch.
    pub async fn watch(self: &Arc<Self>, caller: &Caller, input: WatchInput<'_>) -> Result<Watch, Refusal> {
        let only = match input.org {
            "" => None,
            org => Some(self.org(caller, org).await?.value.id),
        };
        let actor = caller.actor().id_bytes();
        let from = self.cursors.open(&actor, input.cursor)?;
        let open = self.open_stream(caller).await?;
        let mut entered = self.hub.enter(actor)?;
        let base = listens_to(caller, only);
        let mut attempt = 0;
        let listening = loop {
            attempt += 1;
            let changes = Some(entered.changes()).filter(|_| attempt < ATTEMPTS);
            let mut interests: Vec<_> = base.iter().copied().map(Interest::always).collect();
            self.add_held(caller, &mut interests).await?;
            match entered.listen(interests, from, changes, self.now()) {
                Ok(listening) => break listening,
                Err(again) => entered = again,
            }
        };
        Ok(Watch {
            broker: Arc::clone(self),
            open,
            listening,
            actor: *caller.actor(),
            expires: caller.expires().map(|at| (at, caller.shown())),
            greeted: false,
        })
    }

    /// What the caller listens to because of what it holds: leases, and an agent's tasks.
    async fn add_held(&self, caller: &Caller, interests: &mut Vec<Interest>) -> Result<(), Refusal> {
        let (org, holder) = match *caller.actor() {
            Actor::Agent(AgentActor { id, org, .. }) => {
                self.add_tasks(org, keys::agent_tasks(org, id), interests).await?;
                (org, Holder::Agent(id))
            }
            Actor::ApiKey { id, org } => (org, Holder::ApiKey(id)),
            Actor::Operator(_) | Actor::Member { .. } => return Ok(()),
        };
        let (list, now, mut after) = (keys::leases_for(org, holder), self.now(), None);
        for _ in 0..PAGES {
            let rows = self
                .records
                .scan::<LeasePointer>(list.as_bytes(), after.as_ref(), PAGE)
                .await?;
            for (_, pointer) in &rows {
                let key = keys::lease(org, pointer.value.lease);
                let lease = self.records.get::<Lease>(&key).await?;
                let standing = lease.filter(|lease| lease.value.stands(now));
                interests.extend(standing.and_then(|lease| Interest::lease(&lease.value)));
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        Ok(())
    }

    async fn add_tasks(&self, org: OrgId, list: Key, interests: &mut Vec<Interest>) -> Result<(), Refusal> {
        let (now, mut after) = (self.now(), None);
        for _ in 0..PAGES {
            let rows = self
                .records
                .scan::<Mark>(list.as_bytes(), after.as_ref(), PAGE)
                .await?;
            for id in rows
                .iter()
                .filter_map(|(key, _)| key.last_id::<crate::domain::id::Task>())
            {
                let task = self.records.get::<Task>(&keys::task(org, id)).await?;
                if let Some(task) = task
                    && task.value.live(now, TaskClaims::default()).is_ok()
                {
                    interests.extend(Interest::task(&task.value));
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        Ok(())
    }
}

impl Watch {
    /// Who watches.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The next message, or why there is no further one. Cancel safe.
    pub async fn next(&mut self) -> Result<Told, Refusal> {
        loop {
            let left = self.left()?;
            if !self.greeted && !self.listening.missed() {
                self.greeted = true;
                return Ok(self.heartbeat());
            }
            let silence = self.broker.settings().watch_heartbeat;
            let wait = left.map_or(silence, |left| left.min(silence));
            tokio::select! {
                // What the caller may no longer hear is not told it.
                biased;
                refusal = self.open.ended() => return Err(refusal),
                next = self.listening.next() => {
                    self.left()?;
                    self.greeted = true;
                    return Ok(match next {
                        Next::Event(event) => {
                            self.told(event.sequence + 1, event.time, What::Event(event.event().clone()))
                        }
                        Next::Missed(next) => self.told(next, self.broker.now(), What::Missed),
                    });
                }
                () = tokio::time::sleep(wait) => {
                    self.left()?;
                    // One that fell behind at this moment is told that, and no cursor past it.
                    if !self.listening.missed() {
                        return Ok(self.heartbeat());
                    }
                }
            }
        }
    }

    /// How long what the caller showed is still good.
    fn left(&self) -> Result<Option<Duration>, Refusal> {
        let Some((expires, shown)) = self.expires else {
            return Ok(None);
        };
        let now = self.broker.now();
        if now >= expires {
            return Err(expired(shown));
        }
        Ok(Some(expires.since(now)))
    }

    fn heartbeat(&self) -> Told {
        let what = What::Heartbeat(self.broker.settings().watch_heartbeat);
        self.told(self.listening.position(), self.broker.now(), what)
    }

    fn told(&self, next: Sequence, time: Time, what: What) -> Told {
        Told {
            cursor: self.broker.cursors.seal(&self.actor.id_bytes(), next),
            time,
            what,
        }
    }
}
