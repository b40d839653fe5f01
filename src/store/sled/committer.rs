//! The one thread that writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};

use ::sled::{IVec, Tree};
use tokio::sync::oneshot;

use super::super::watch::{Change, Committed};
use super::super::{Batch, Commit, Guard, Revision, StoreError, Write};
use super::engine::{Before, Engine, failed, join, split};
use super::open::fixed;

/// What sled writes for a byte of ours, on average: it appends the change, and every tenth change of a page
/// or a split writes the whole page again. Measured from 2.2 (4 KiB values) to 3.0 (200 bytes).
const AMPLIFICATION: usize = 3;

/// The most that commits may come to, by [`Batch::cost`], to be written as one group. Up to 32 unsynced pages
/// of 4 KiB survived every simulated power cut, and more did not, so sled is given 128 KiB at a time. A batch
/// that is larger by itself is written alone.
const GROUP: usize = 128 * 1024 / AMPLIFICATION;

/// Revisions are reserved in blocks, so that the counter costs a write in a million and an opening, not one a
/// commit. What is left of a block when the store closes is never used.
const REVISION_BLOCK: u64 = 1 << 20;
/// The meta name under which the end of the reserved revisions stands.
const REVISION_NAME: &str = "revision.reserved";

/// A commit on its way.
pub(super) struct Submitted {
    pub(super) batch: Batch,
    pub(super) cost: usize,
    pub(super) answer: oneshot::Sender<Result<Commit, StoreError>>,
}

/// What the committer is asked to do.
pub(super) enum Job {
    /// Commit a batch that is within the limits.
    Commit(Submitted),
    /// Write to the meta tree.
    Meta {
        entries: Vec<(String, Vec<u8>)>,
        answer: SyncSender<Result<(), StoreError>>,
    },
    /// End, after what was queued before.
    Stop,
}

impl Job {
    /// What it adds to the queue, in bytes.
    pub(super) fn cost(&self) -> usize {
        match self {
            Job::Commit(submitted) => submitted.cost,
            Job::Meta { .. } | Job::Stop => 0,
        }
    }
}

/// The newest revision that may have been given out before the store was opened.
pub(super) fn reserved(meta: &Tree) -> Result<u64, StoreError> {
    match meta.get(REVISION_NAME).map_err(failed)? {
        Some(bytes) => Ok(u64::from_be_bytes(fixed(REVISION_NAME, &bytes)?)),
        None => Ok(0),
    }
}

/// The committer.
pub(super) struct Committer {
    engine: Arc<Engine>,
    jobs: Receiver<Job>,
    queued: Arc<AtomicUsize>,
    /// The last revision given out.
    revision: u64,
    /// The last revision reserved.
    reserved: u64,
}

/// What a group has changed so far.
#[derive(Default)]
struct Group {
    /// The keys' values from before the group.
    before: Before,
    /// The keys' revisions by now.
    now: HashMap<Vec<u8>, Option<Revision>>,
    writes: ::sled::Batch,
    commits: Vec<Committed>,
}

impl Committer {
    /// A committer for `engine`, and the queue of `length` that leads to it.
    pub(super) fn new(
        engine: Arc<Engine>,
        queued: Arc<AtomicUsize>,
        length: usize,
        reserved: u64,
    ) -> (SyncSender<Job>, Self) {
        let (sender, jobs) = mpsc::sync_channel(length);
        let committer = Self {
            engine,
            jobs,
            queued,
            revision: reserved,
            reserved,
        };
        (sender, committer)
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        let mut held = None;
        while let Some(job) = held.take().or_else(|| self.jobs.recv().ok()) {
            match job {
                Job::Stop => return,
                Job::Meta { entries, answer } => {
                    let entries: Vec<_> = entries
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_slice()))
                        .collect();
                    let outcome = self.unless_failed(|this| this.engine.write_meta(&entries));
                    // Whoever asked may be gone; the write stands.
                    let _ = answer.send(outcome);
                }
                Job::Commit(first) => {
                    let mut room = GROUP.saturating_sub(first.cost);
                    let mut group = vec![first];
                    while let Ok(job) = self.jobs.try_recv() {
                        match job {
                            Job::Commit(next) if next.cost <= room => {
                                room -= next.cost;
                                group.push(next);
                            }
                            other => {
                                held = Some(other);
                                break;
                            }
                        }
                    }
                    self.commit(group);
                }
            }
        }
    }

    fn commit(&mut self, submitted: Vec<Submitted>) {
        let cost = submitted.iter().map(|one| one.cost).sum();
        self.queued.fetch_sub(cost, Ordering::Relaxed);
        let (batches, answers): (Vec<_>, Vec<_>) =
            submitted.into_iter().map(|one| (one.batch, one.answer)).unzip();
        let outcome = self.unless_failed(|this| this.write(batches));
        match outcome {
            // Conflicts too are answered only now: they may stem from a commit of this very group.
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Runs `work` unless an earlier one failed. A failure, or a panic inside sled, is for good.
    fn unless_failed<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(failure) = self.engine.failure.get() {
            return Err(failure.clone());
        }
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
        let outcome = worked.unwrap_or_else(|_| Err(StoreError::Failed("the engine panicked".to_owned())));
        outcome.map_err(|error| {
            tracing::error!(%error, "the store failed and takes no more writes");
            self.engine.failure.get_or_init(|| error).clone()
        })
    }

    /// Judges the batches one after the other, writes what passes as one, and publishes it.
    fn write(&mut self, batches: Vec<Batch>) -> Result<Vec<Commit>, StoreError> {
        let mut group = Group::default();
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            let mut holds = true;
            for guard in &batch.guards {
                let (key, wanted) = match guard {
                    Guard::Absent(key) => (key, None),
                    Guard::At(key, revision) => (key, Some(*revision)),
                };
                if self.standing(&group, key)? != wanted {
                    holds = false;
                    break;
                }
            }
            outcomes.push(if holds {
                let revision = self.next_revision()?;
                self.add(&mut group, batch.writes, revision)?;
                Commit::Applied(revision)
            } else {
                Commit::Conflict
            });
        }
        if !group.commits.is_empty() {
            self.engine.write_group(group.writes, group.before)?;
            self.engine.ring.publish(group.commits);
        }
        Ok(outcomes)
    }

    /// The revision a key stands at within the group.
    fn standing(&self, group: &Group, key: &[u8]) -> Result<Option<Revision>, StoreError> {
        if let Some(revision) = group.now.get(key) {
            return Ok(*revision);
        }
        // A value too short to have a revision stands at none that a guard could name: a conflict.
        let stored = match group.before.get(key) {
            Some(stored) => stored.clone(),
            None => self.engine.latest(key)?,
        };
        Ok(stored.map(|stored| split(key, &stored).map_or(Revision(0), |(revision, _)| revision)))
    }

    fn add(&self, group: &mut Group, writes: Vec<Write>, revision: Revision) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            let (key, value) = match write {
                Write::Put(key, value) => (key, Some(value)),
                Write::Delete(key) => (key, None),
            };
            if !group.before.contains_key(&key) {
                group.before.insert(key.clone(), self.engine.latest(&key)?);
            }
            if let Some(value) = value {
                group.writes.insert(IVec::from(&*key), join(revision, &value));
                group.now.insert(key.clone(), Some(revision));
                changes.push((key, Change::Put));
            } else if self.standing(group, &key)?.is_some() {
                group.writes.remove(IVec::from(&*key));
                group.now.insert(key.clone(), None);
                changes.push((key, Change::Deleted));
            }
        }
        group.commits.push(Committed { revision, changes });
        Ok(())
    }

    fn next_revision(&mut self) -> Result<Revision, StoreError> {
        if self.revision == self.reserved {
            let reserved = self.reserved + REVISION_BLOCK;
            self.engine
                .write_meta(&[(REVISION_NAME, &reserved.to_be_bytes())])?;
            self.reserved = reserved;
        }
        self.revision += 1;
        Ok(Revision(self.revision))
    }
}
