//! The embedded engine: sled 0.34, with a committer of our own that makes acknowledged mean durable.
//!
//! Promises:
//! - One thread writes. It takes what is queued as a group of at most 128 KiB as written, judges guards in commit order,
//!   applies one sled batch, flushes, and then syncs sled's file itself, because sled's own flush does not
//!   reach the disk on Linux. Only then does it answer.
//! - What readers see is durable. While a group is applied but not synced, the values from before it are kept
//!   aside and readers get those; see `engine`.
//! - After an I/O failure of a commit nothing is known of what reached the disk: every further write is
//!   refused until the store is opened anew, and readers stay at the last durable state.
//! - One process at a time: the folder is locked before anything in it is touched.

mod committer;
mod engine;
mod open;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::watch::{Watch, WatchError};
use super::{Batch, Commit, Entry, Kv, Meta, Revision, StoreError, Versioned};
use committer::{Job, Submitted};
use engine::Engine;
pub use open::{Options, SCHEMA, StoreInfo};

/// The most that may wait for the committer, in bytes.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// A store in a folder. Dropping it closes it.
pub struct SledStore {
    engine: Arc<Engine>,
    jobs: SyncSender<Job>,
    queued: Arc<AtomicUsize>,
    committer: Mutex<Option<JoinHandle<()>>>,
    closed: AtomicBool,
    info: StoreInfo,
    /// Held until the engine is gone.
    _lock: std::fs::File,
}

impl SledStore {
    /// What the store says of itself, as it was when it was opened.
    pub fn info(&self) -> &StoreInfo {
        &self.info
    }

    /// Lets what is queued be committed, then stops. Blocks meanwhile. Later writes fail with
    /// [`StoreError::Closed`]; reads go on working.
    pub fn close(&self) {
        let handle = self
            .committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(handle) = handle {
            self.closed.store(true, Ordering::SeqCst);
            // Fails only where the committer is gone already.
            let _ = self.jobs.send(Job::Stop);
            let _ = handle.join();
            self.engine.ring.close();
        }
    }

    /// Hands a job to the committer without waiting.
    fn submit(&self, job: Job) -> Result<(), StoreError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.gone());
        }
        if let Some(failure) = self.engine.failure.get() {
            return Err(failure.clone());
        }
        let cost = job.cost();
        if self.queued.fetch_add(cost, Ordering::Relaxed) > QUEUE_BYTES {
            self.queued.fetch_sub(cost, Ordering::Relaxed);
            return Err(StoreError::Overloaded);
        }
        self.jobs.try_send(job).map_err(|error| {
            self.queued.fetch_sub(cost, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => StoreError::Overloaded,
                TrySendError::Disconnected(_) => self.gone(),
            }
        })
    }

    /// Why the committer does not answer.
    fn gone(&self) -> StoreError {
        self.engine.failure.get().cloned().unwrap_or(StoreError::Closed)
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Kv for SledStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.engine.get(key)
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.engine.scan(prefix, after, limit)
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        batch.check()?;
        let (answer, outcome) = oneshot::channel();
        self.submit(Job::Commit(Submitted {
            cost: batch.cost(),
            batch,
            answer,
        }))?;
        outcome.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, WatchError> {
        self.engine.ring.subscribe(prefix, from)
    }

    fn healthy(&self) -> bool {
        self.engine.failure.get().is_none() && !self.closed.load(Ordering::SeqCst)
    }
}

impl Meta for SledStore {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.meta(name)
    }

    fn set_meta(&self, entries: &[(&str, &[u8])]) -> Result<(), StoreError> {
        let (answer, outcome) = mpsc::sync_channel(1);
        let entries = entries
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
            .collect();
        self.submit(Job::Meta { entries, answer })?;
        outcome.recv().unwrap_or_else(|_| Err(self.gone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;

    use super::super::Write;
    use super::*;

    fn put(key: &str, value: &str) -> Batch {
        Batch {
            guards: vec![],
            writes: vec![Write::Put(key.into(), value.into())],
        }
    }

    /// A store whose file cannot be synced: `/dev/null` refuses it.
    fn unsyncable(dir: &std::path::Path, newest: u64) -> Arc<SledStore> {
        let db = ::sled::open(dir).unwrap();
        let state = db.open_tree(engine::STATE).unwrap();
        let meta = db.open_tree(engine::META).unwrap();
        let log = File::open("/dev/null").unwrap();
        assert!(log.sync_data().is_err());
        let engine = Arc::new(Engine::new(db, state, meta, log, 64, Revision(newest)));
        let info = StoreInfo {
            id: [0; 16],
            trust_domain: String::new(),
            schema: SCHEMA,
            epoch: 1,
        };
        let lock = File::create(dir.join("lock")).unwrap();
        SledStore::start(engine, 16, newest, info, lock).unwrap()
    }

    #[tokio::test]
    async fn after_a_failed_sync_writes_are_refused_and_readers_see_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = unsyncable(dir.path(), 0);
        let mut watch = store.watch(b"", None).unwrap();
        let failed = |outcome| matches!(outcome, Err(StoreError::Failed(_)));
        assert!(store.healthy());
        assert!(failed(store.commit(put("a", "1")).await.map(|_| ())));
        assert!(!store.healthy());
        assert!(failed(store.commit(put("a", "2")).await.map(|_| ())));
        assert!(failed(store.set_meta(&[("name", b"value")])));
        assert_eq!(store.get(b"a").await, Ok(None));
        assert_eq!(store.scan(b"", None, 10).await, Ok(vec![]));
        store.close();
        assert_eq!(watch.next().await, Err(WatchError::Closed));
    }
}
