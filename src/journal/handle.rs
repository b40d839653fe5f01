//! The handle on an open journal: what the rest of the program appends and reads through.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::error::{JournalError, io_error};
#[cfg(feature = "testing")]
use super::fault::Faults;
use super::head::{Anchor, PublicKey, SignedHead};
use super::key::SigningKey;
use super::read::Reader;
use super::record::{Entry, StoredRecord};
use super::value::JournalId;
use super::writer::Append;
use super::{encode, open};
use crate::clock::Clock;
use crate::domain::journal::{Position, Record};
use crate::domain::time::Time;

/// The largest segment: opening reads the last one into memory.
const MAX_SEGMENT: u64 = 1 << 30;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A new segment is begun when one has reached this many bytes; at most 1 GiB.
    pub segment_bytes: u64,
    /// While there are new records, a head is signed at least this often.
    pub head_interval: Duration,
    /// How many records may wait for the writer.
    pub queue: usize,
    /// How many signed heads are kept in the folder.
    pub heads_kept: usize,
    /// How many effects may be begun and not finished; at most 16 384.
    pub open_effects: usize,
    /// Fault switches.
    #[cfg(feature = "testing")]
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            head_interval: Duration::from_secs(1),
            queue: 16_384,
            heads_kept: 10_000,
            open_effects: 16_384,
            #[cfg(feature = "testing")]
            faults: Faults::default(),
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The journal's id.
    pub journal: JournalId,
    /// The last position; 0 where there is none yet.
    pub last: Position,
    /// Begins without a finish, oldest first: effects that may or may not have happened.
    pub open_effects: Vec<OpenEffect>,
    /// Where the kept part begins, where older records were pruned.
    pub anchor: Option<Anchor>,
    /// How many bytes of a half-written last write were cut off. Nobody had been answered for it.
    pub recovered_tail: Option<u64>,
}

/// An effect that was begun and not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEffect {
    /// The begin's position, for its [`Phase::Finish`](crate::domain::journal::Phase::Finish).
    pub position: Position,
    /// When it was begun.
    pub time: Time,
    /// What the begin says.
    pub entry: Entry,
}

/// Where records go.
pub(super) enum Queue {
    /// To the writer's thread.
    Writer(SyncSender<Append>),
    /// To what a simulation keeps in place of thread and files.
    #[cfg(feature = "testing")]
    Simulated(Arc<dyn super::simulated::Keeper>),
}

impl Queue {
    fn send(&self, append: Append) -> Result<(), TrySendError<Append>> {
        match self {
            Queue::Writer(writer) => writer.try_send(append),
            #[cfg(feature = "testing")]
            Queue::Simulated(keeper) => super::simulated::send(keeper.as_ref(), append),
        }
    }
}

/// A handle on an open journal. The last one to go lets the writer finish what is queued and end.
#[derive(Clone)]
pub struct Journal(pub(super) Arc<Shared>);

pub(super) struct Shared {
    /// `None` once closed.
    pub(super) queue: RwLock<Option<Queue>>,
    pub(super) reader: Arc<Reader>,
    pub(super) tip: watch::Receiver<Position>,
    pub(super) head: watch::Receiver<SignedHead>,
    pub(super) failure: watch::Receiver<Option<JournalError>>,
    /// Its sender goes when the writer has ended and let the folder go.
    pub(super) ended: watch::Receiver<()>,
    pub(super) dir: PathBuf,
    pub(super) key: Arc<SigningKey>,
    pub(super) clock: Arc<dyn Clock>,
    /// The folder's lock, while the writer has it. What else changes files holds it meanwhile.
    pub(super) lock: Weak<File>,
    pub(super) anchor: watch::Sender<Option<Anchor>>,
    /// Held while segments are pruned.
    pub(super) pruning: Mutex<()>,
}

impl Journal {
    /// Opens the journal in `dir`, or makes it. Reads files: not for an async task.
    pub fn open(
        dir: &Path,
        key: SigningKey,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<(Journal, Opened), JournalError> {
        let options = Options {
            segment_bytes: options.segment_bytes.min(MAX_SEGMENT),
            open_effects: options.open_effects.min(16_384),
            ..options
        };
        let key = Arc::new(key);
        let (sender, queue) = sync_channel(options.queue.max(1));
        let (alive, ended) = watch::channel(());
        let (writer, opened) = open::open(dir, Arc::clone(&key), Arc::clone(&clock), options)?;
        let shared = Shared {
            queue: RwLock::new(Some(Queue::Writer(sender))),
            reader: Arc::clone(&writer.reader),
            tip: writer.tip.subscribe(),
            head: writer.head.subscribe(),
            failure: writer.failure.subscribe(),
            ended,
            dir: dir.to_path_buf(),
            key,
            clock,
            lock: Arc::downgrade(&writer.lock),
            anchor: watch::Sender::new(opened.anchor),
            pruning: Mutex::new(()),
        };
        let thread = thread::Builder::new().name("journal".to_owned());
        let spawned = thread.spawn(move || {
            writer.run(queue);
            drop(alive);
        });
        spawned.map_err(io_error(dir))?;
        Ok((Journal(Arc::new(shared)), opened))
    }

    /// Takes a record; the future is ready when it is durable. Records get their places in the order of the
    /// calls. The record is on its way when this returns: dropping the future undoes nothing.
    ///
    /// A finish is taken whether or not what it finishes is open.
    pub fn append(
        &self,
        record: &Record,
    ) -> impl Future<Output = Result<Position, JournalError>> + Send + use<> {
        let queued = self.enqueue(record);
        let shared = Arc::clone(&self.0);
        async move { queued?.await.unwrap_or_else(|_| Err(shared.why_ended())) }
    }

    fn enqueue(
        &self,
        record: &Record,
    ) -> Result<oneshot::Receiver<Result<Position, JournalError>>, JournalError> {
        let body = encode::encode(record)?;
        let (answer, answered) = oneshot::channel();
        let append = Append {
            body,
            phase: record.phase,
            answer,
        };
        let sent = {
            let queue = self.0.queue.read().unwrap_or_else(PoisonError::into_inner);
            queue.as_ref().map(|queue| queue.send(append))
        };
        match sent {
            Some(Ok(())) => Ok(answered),
            Some(Err(TrySendError::Full(_))) => Err(JournalError::Overloaded),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(self.0.why_ended()),
        }
    }

    /// The durable records after a position, in order: at most `limit`, at most
    /// [`MAX_PAGE`](super::read::MAX_PAGE), and fewer where
    /// they are long. Empty means the end. Reads files: not for an async task.
    pub fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredRecord>, JournalError> {
        self.0.reader.read(after, limit)
    }

    /// The last durable position, and a way to wait for the next.
    pub fn tip(&self) -> watch::Receiver<Position> {
        self.0.tip.clone()
    }

    /// Where the kept part begins, where older records were pruned.
    pub fn anchor(&self) -> Option<Anchor> {
        *self.0.anchor.borrow()
    }

    /// The newest signed head.
    pub fn head(&self) -> SignedHead {
        *self.0.head.borrow()
    }

    /// The newest signed head, and a way to wait for the next.
    pub fn heads(&self) -> watch::Receiver<SignedHead> {
        self.0.head.clone()
    }

    /// What heads are checked with.
    pub fn public_key(&self) -> PublicKey {
        self.0.key.public_key()
    }

    /// Whether records are taken.
    pub fn healthy(&self) -> bool {
        self.0.ended.has_changed().is_ok() && self.0.failure.borrow().is_none()
    }

    /// Why the journal failed, once it has, and a way to wait for it.
    pub fn failure(&self) -> watch::Receiver<Option<JournalError>> {
        self.0.failure.clone()
    }

    /// Takes no more records, writes what is queued, signs a last head and lets the folder go.
    pub async fn close(&self) -> Result<SignedHead, JournalError> {
        self.0
            .queue
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Nothing is ever sent: this waits for the sender to go.
        let _ = self.0.ended.clone().changed().await;
        match self.0.failure.borrow().clone() {
            Some(failure) => Err(failure),
            None => Ok(self.head()),
        }
    }
}

impl Shared {
    fn why_ended(&self) -> JournalError {
        let closed = self
            .queue
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none();
        match self.failure.borrow().clone() {
            Some(failure) => failure,
            None if closed => JournalError::Closed,
            None => JournalError::Failed("its writer ended".to_owned()),
        }
    }
}
