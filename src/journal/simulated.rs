//! A journal without a thread and without files, for simulations: the handle and the encoding are the real ones,
//! and what becomes of a record is up to the simulation's [`Keeper`].
//!
//! Reading pages, signing and pruning are not simulated: nothing that hands out credentials does them.

use std::path::PathBuf;
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex, RwLock, Weak};

use tokio::sync::{oneshot, watch};

use super::error::JournalError;
use super::handle::{Queue, Shared};
use super::key::SigningKey;
use super::read::Reader;
use super::record::{self, Entry};
use super::value::{Chain, JournalId};
use super::writer::Append;
use super::{Journal, encode};
use crate::clock::Clock;
use crate::domain::journal::{Phase, Position};
use crate::domain::time::Time;

/// What stands in for the writer's thread. It outlives the broker that appends.
pub trait Keeper: Send + Sync + 'static {
    /// Whether the queue is full just now.
    fn is_full(&self) -> bool;

    /// Takes a record into the queue, behind those taken before. Does not wait.
    fn take(&self, appended: Appended);
}

/// A record on its way.
pub struct Appended {
    /// Which part of an effect it is.
    pub phase: Phase,
    /// The stored form but for its place; see [`entry`].
    pub body: Vec<u8>,
    answer: oneshot::Sender<Result<Position, JournalError>>,
}

impl Appended {
    /// Tells whoever waits that the record is durable, or why it is not. Whether anybody does does not matter.
    pub fn answer(self, ended: Result<Position, JournalError>) {
        let _ = self.answer.send(ended);
    }
}

/// What a stored record says; `None` where it is none.
pub fn entry(position: Position, time: Time, body: &[u8]) -> Option<Entry> {
    let mut stored = Vec::with_capacity(body.len() + 64);
    encode::place(&mut stored, position.0, time, body);
    record::parse(&stored).map(|(_, _, entry)| entry)
}

pub(super) fn send(keeper: &dyn Keeper, append: Append) -> Result<(), TrySendError<Append>> {
    if keeper.is_full() {
        return Err(TrySendError::Full(append));
    }
    let Append { body, phase, answer } = append;
    keeper.take(Appended { phase, body, answer });
    Ok(())
}

/// What a simulated journal publishes: how far it is durable. Dropping it ends the journal.
pub struct Published {
    /// The last durable position.
    pub tip: watch::Sender<Position>,
    _alive: watch::Sender<()>,
    _failure: watch::Sender<Option<JournalError>>,
}

impl Journal {
    /// A journal whose records go to `keeper`, durable up to `last`.
    pub fn simulated(
        keeper: Arc<dyn Keeper>,
        key: Arc<SigningKey>,
        clock: Arc<dyn Clock>,
        last: Position,
    ) -> (Journal, Published) {
        let published = Published {
            tip: watch::Sender::new(last),
            _alive: watch::Sender::new(()),
            _failure: watch::Sender::new(None),
        };
        let id = JournalId::from_bytes([0; 16]);
        let head = super::SignedHead {
            journal: id,
            position: Position(0),
            chain: Chain::start(&id),
            time: Time::from_millis(0),
            signature: super::Signature::from_bytes([0; 64]),
        };
        let tip = published.tip.subscribe();
        let reader = Reader::new(PathBuf::new(), vec![1], Vec::new(), None, tip.clone());
        let shared = Shared {
            queue: RwLock::new(Some(Queue::Simulated(keeper))),
            reader: Arc::new(reader),
            tip,
            head: watch::Sender::new(head).subscribe(),
            failure: published._failure.subscribe(),
            ended: published._alive.subscribe(),
            dir: PathBuf::new(),
            key,
            clock,
            lock: Weak::new(),
            anchor: watch::Sender::new(None),
            pruning: Mutex::new(()),
        };
        (Journal(Arc::new(shared)), published)
    }
}
