//! The journal: records become durable in groups, in the order they were taken, a while after; then a crash, or
//! the answers.

use std::sync::{Arc, OnceLock};

use credbroker::domain::journal::{Phase, Position};
use credbroker::domain::time::Time;
use credbroker::journal::simulated::{Appended, Keeper, Published, entry};
use credbroker::journal::{Entry, Journal, OpenEffect, SigningKey};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::clock::SimClock;
use crate::world::{Point, World};

/// A durable record.
#[derive(Clone)]
pub struct Kept {
    pub time: Time,
    pub phase: Phase,
    pub body: Vec<u8>,
}

/// What is durable.
#[derive(Clone, Default)]
pub struct Pages {
    /// How many records there were before those kept here.
    pub before: u64,
    pub kept: Vec<Kept>,
}

impl Pages {
    pub fn last(&self) -> Position {
        Position(self.before + self.kept.len() as u64)
    }

    pub fn entry(&self, position: Position) -> Option<Entry> {
        let index = position.0.checked_sub(self.before + 1)?;
        let kept = self.kept.get(usize::try_from(index).unwrap())?;
        Some(entry(position, kept.time, &kept.body).unwrap())
    }

    /// Begins without a finish, as opening a journal finds them.
    pub fn open_effects(&self) -> Vec<OpenEffect> {
        let finished: Vec<_> = self
            .kept
            .iter()
            .filter_map(|kept| match kept.phase {
                Phase::Finish(begin) => Some(begin),
                _ => None,
            })
            .collect();
        (self.before + 1..)
            .map(Position)
            .zip(&self.kept)
            .filter(|(position, kept)| kept.phase == Phase::Begin && !finished.contains(position))
            .map(|(position, kept)| OpenEffect {
                position,
                time: kept.time,
                entry: entry(position, kept.time, &kept.body).unwrap(),
            })
            .collect()
    }
}

/// The queue, and who takes from it.
struct Desk {
    world: Arc<World>,
    queue: UnboundedSender<Appended>,
}

impl Keeper for Desk {
    fn is_full(&self) -> bool {
        self.world.with(|state| state.journal_is_full())
    }

    fn take(&self, appended: Appended) {
        let _gone = self.queue.send(appended);
    }
}

fn key() -> Arc<SigningKey> {
    static KEY: OnceLock<Arc<SigningKey>> = OnceLock::new();
    let make = || Arc::new(SigningKey::new(&SigningKey::generate().unwrap()).unwrap());
    Arc::clone(KEY.get_or_init(make))
}

/// A journal over what is durable, with a writer of its own in this runtime.
pub fn open(world: &Arc<World>) -> (Journal, Vec<OpenEffect>) {
    let (queue, taken) = unbounded_channel();
    let (open, last) = world.with(|state| (state.pages.open_effects(), state.pages.last()));
    let desk = Desk {
        world: Arc::clone(world),
        queue,
    };
    let clock = Arc::new(SimClock(Arc::clone(world)));
    let (journal, published) = Journal::simulated(Arc::new(desk), key(), clock, last);
    tokio::spawn(write(Arc::clone(world), taken, published));
    (journal, open)
}

async fn write(world: Arc<World>, mut taken: UnboundedReceiver<Appended>, published: Published) {
    let mut group = Vec::new();
    while taken.recv_many(&mut group, 16).await > 0 {
        world.lag(8).await;
        let mut position = world.with(|state| state.pages.last());
        let mut answers = Vec::with_capacity(group.len());
        for appended in group.drain(..) {
            world.point(Point::BeforeAppend).await;
            position = Position(position.0 + 1);
            world.keep(position, appended.phase, appended.body.clone());
            answers.push((position, appended));
        }
        world.point(Point::AfterAppend).await;
        published.tip.send_replace(position);
        world.lag(4).await;
        for (position, appended) in answers {
            appended.answer(Ok(position));
        }
    }
}
