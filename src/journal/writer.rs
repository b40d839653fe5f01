//! The writer: one thread that owns the files. It takes what is queued, writes it at once, waits for one
//! `fdatasync`, and only then answers and lets readers see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::Options;
use super::encode;
use super::error::JournalError;
use super::frame;
use super::head::SignedHead;
use super::heads::HeadLog;
use super::key::SigningKey;
use super::read::Reader;
use super::segment::{self, GROUP_BYTES, Header, Mark, Place};
use super::value::{Chain, JournalId};
use crate::clock::Clock;
use crate::domain::journal::{Phase, Position};

/// A group of this many records says that callers come faster than the disk answers.
const BUSY: usize = 8;
/// How long the writer then waits for more to come before it syncs again: about as long as a sync takes.
const LINGER: Duration = Duration::from_micros(200);

/// A record on its way to the writer.
pub(super) struct Append {
    /// The stored form but for its place.
    pub(super) body: Vec<u8>,
    pub(super) phase: Phase,
    /// Whether anybody still listens does not matter: what is queued is written.
    pub(super) answer: oneshot::Sender<Result<Position, JournalError>>,
}

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) key: Arc<SigningKey>,
    pub(super) journal: JournalId,
    pub(super) segment: u64,
    pub(super) file: File,
    pub(super) length: u64,
    /// The last position written, and the chain's value there.
    pub(super) position: u64,
    pub(super) chain: Chain,
    /// How many records the last group had.
    pub(super) last_group: usize,
    pub(super) open: BTreeMap<u64, Place>,
    pub(super) heads: HeadLog,
    /// Monotonic time of the newest head.
    pub(super) signed_at: Duration,
    pub(super) reader: Arc<Reader>,
    pub(super) tip: watch::Sender<Position>,
    pub(super) head: watch::Sender<SignedHead>,
    pub(super) failure: watch::Sender<Option<JournalError>>,
    /// Held while the writer lives, and by whoever prunes at that time.
    pub(super) lock: Arc<File>,
}

impl Writer {
    /// Writes until every sender is gone and the queue is empty, or until a write fails.
    pub(super) fn run(mut self, queue: Receiver<Append>) {
        let mut group = Group::default();
        if let Err(error) = self.serve(&queue, &mut group) {
            tracing::error!(error = %error, position = self.position, "the journal failed");
            // Before the queue and the group go, so that whoever waits in them is told why.
            self.failure
                .send_replace(Some(JournalError::Failed(error.to_string())));
        }
    }

    fn serve(&mut self, queue: &Receiver<Append>, group: &mut Group) -> io::Result<()> {
        loop {
            let next = if self.is_signed() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(self.options.head_interval.saturating_sub(self.since_head()))
            };
            match next {
                Ok(append) => {
                    self.write(append, queue, group)?;
                    if !self.is_signed() && self.since_head() >= self.options.head_interval {
                        self.sign()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.sign()?,
                Err(RecvTimeoutError::Disconnected) if self.is_signed() => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return self.sign(),
            }
        }
    }

    /// Writes one group: `first` and what is queued behind it, up to [`GROUP_BYTES`].
    ///
    /// Under load it lingers first. Larger groups are fewer syncs and fewer switches between threads, which
    /// gives callers more of the processor than the wait takes from them; a caller alone never waits.
    fn write(&mut self, first: Append, queue: &Receiver<Append>, group: &mut Group) -> io::Result<()> {
        if self.last_group >= BUSY {
            std::thread::sleep(LINGER);
        }
        let time = self.clock.wall();
        let start = Mark {
            position: self.position + 1,
            offset: self.length,
            chain: self.chain,
        };
        let mut next = Some(first);
        while let Some(append) = next {
            if append.phase == Phase::Begin && self.open.len() >= self.options.open_effects {
                let _ = append.answer.send(Err(JournalError::TooManyOpen));
            } else {
                self.position += 1;
                let offset = frame::start(&mut group.bytes);
                encode::place(&mut group.bytes, self.position, time, &append.body);
                frame::finish(&mut group.bytes, offset, offset);
                self.chain = self.chain.after(&group.bytes[offset + frame::PREFIX..]);
                let place = Place {
                    segment: self.segment,
                    offset: self.length + offset as u64,
                };
                segment::note_effect(&mut self.open, self.position, append.phase, place);
                group.answers.push((append.answer, Position(self.position)));
            }
            next = (group.bytes.len() < GROUP_BYTES)
                .then(|| queue.try_recv().ok())
                .flatten();
        }
        if group.bytes.is_empty() {
            return Ok(());
        }
        self.last_group = group.answers.len();
        self.make_durable(&group.bytes)?;
        self.length += group.bytes.len() as u64;
        self.reader.note(self.segment, start, oldest(&self.open));
        self.tip.send_replace(Position(self.position));
        for (answer, position) in group.answers.drain(..) {
            let _ = answer.send(Ok(position));
        }
        group.bytes.clear();
        if self.length >= self.options.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    fn make_durable(&mut self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(feature = "testing")]
        self.options.faults.strike(&mut self.file, bytes)?;
        io::Write::write_all(&mut self.file, bytes)?;
        self.file.sync_data()
    }

    /// Starts the next segment. The one before is durable, since every group is.
    fn rotate(&mut self) -> io::Result<()> {
        let header = Header {
            journal: self.journal,
            first: self.position + 1,
            chain: self.chain,
            open: self.open.clone(),
        };
        (self.file, self.length) = segment::create(&self.dir, &header)?;
        self.segment = header.first;
        self.reader.add_segment(self.segment);
        Ok(())
    }

    fn is_signed(&self) -> bool {
        self.head.borrow().position.0 == self.position
    }

    fn since_head(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.signed_at)
    }

    /// Signs where the journal stands, all of it durable, keeps the head, and only then publishes it.
    fn sign(&mut self) -> io::Result<()> {
        let head = self.key.sign(
            self.journal,
            Position(self.position),
            self.chain,
            self.clock.wall(),
        );
        self.heads.append(&head)?;
        self.signed_at = self.clock.monotonic();
        self.head.send_replace(head);
        Ok(())
    }
}

/// The oldest begin without a finish.
pub(super) fn oldest(open: &BTreeMap<u64, Place>) -> Option<Position> {
    open.keys().next().copied().map(Position)
}

/// What is written at once, and who waits for it. Kept from group to group for its memory.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    answers: Vec<(oneshot::Sender<Result<Position, JournalError>>, Position)>,
}
