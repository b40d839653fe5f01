//! State: a small key-value contract, the keyspace, versioned records, and sealing.
//!
//! [`Kv`] is the contract: guarded batches that are durable when acknowledged. `sled` is its first
//! implementation. Above it, [`record`] turns typed records into sealed bytes. Nothing here knows what a
//! record means.

mod cache;
mod codec;
pub mod keys;
pub mod model;
pub mod record;
pub mod reserve;
pub mod seal;
pub mod sled;
mod table;
pub mod watch;

use async_trait::async_trait;

use watch::{Watch, WatchError};

/// Counts changes of one key, from 1; 0 is never a revision. A key that was deleted and made again has a
/// greater revision than it ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A value and the revision it was written at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The stored bytes.
    pub value: Vec<u8>,
    /// The revision of the commit that wrote them.
    pub revision: Revision,
}

/// One row of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: Vec<u8>,
    /// The stored bytes.
    pub value: Vec<u8>,
    /// The revision of the commit that wrote them.
    pub revision: Revision,
}

/// What has to hold for a batch to be applied, judged at the moment of commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent(Vec<u8>),
    /// The key stands at this revision.
    At(Vec<u8>, Revision),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Stores a value.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key; removing what is not there is no error.
    Delete(Vec<u8>),
}

/// Guards and writes that are applied all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// What has to hold.
    pub guards: Vec<Guard>,
    /// What changes; each key at most once.
    pub writes: Vec<Write>,
}

/// What an operation costs beside its key and value: sled's headers and our revision, rounded up.
const OPERATION_COST: usize = 64;

impl Batch {
    /// What writing this batch comes to, in bytes, estimated from above.
    pub fn cost(&self) -> usize {
        self.writes
            .iter()
            .map(|write| match write {
                Write::Put(key, value) => OPERATION_COST + key.len() + value.len(),
                Write::Delete(key) => OPERATION_COST + key.len(),
            })
            .sum()
    }

    /// Checks the batch against the store's limits: operations, keys, values, a key once, the whole.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.guards.len() + self.writes.len() > MAX_OPERATIONS {
            return Err(StoreError::Limit("the number of operations"));
        }
        let mut seen = std::collections::HashSet::with_capacity(self.writes.len());
        for write in &self.writes {
            let key = match write {
                Write::Put(_, value) if value.len() > MAX_VALUE => {
                    return Err(StoreError::Limit("the length of a value"));
                }
                Write::Put(key, _) | Write::Delete(key) => key,
            };
            check_key(key)?;
            if !seen.insert(key) {
                return Err(StoreError::Limit("changing a key twice in one batch"));
            }
        }
        for Guard::Absent(key) | Guard::At(key, _) in &self.guards {
            check_key(key)?;
        }
        if self.cost() > MAX_BATCH {
            return Err(StoreError::Limit("the size of a batch"));
        }
        Ok(())
    }
}

/// A key has at least one byte and at most [`MAX_KEY`].
fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(StoreError::Limit("the length of a key"));
    }
    Ok(())
}

/// The outcome of a commit that reached the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// Applied and durable. All keys written carry this revision.
    Applied(Revision),
    /// A guard did not hold; nothing was changed.
    Conflict,
}

/// At most this many guards and writes together in a batch: what etcd allows in a transaction by default.
pub const MAX_OPERATIONS: usize = 128;
/// The longest value, in bytes. Larger leaves leave sled's log for files that are never synced.
pub const MAX_VALUE: usize = 4096;
/// The longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// The most one batch may come to, in bytes, by the count of [`Batch::cost`]. It is a bound, not a good size:
/// a batch is never split, and the less is unsynced when the power fails, the better.
pub const MAX_BATCH: usize = 128 * 1024;
/// The most rows one scan returns.
pub const MAX_SCAN: usize = 1000;

/// What went wrong in the store. None of it is the caller's fault, except the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The engine failed. Nothing is known of the write that hit it; the store refuses further writes.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The committer's queue is full.
    #[error("the store is overloaded")]
    Overloaded,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// A batch, key or value past its limit: a fault of the program.
    #[error("{0} is past the store's limit")]
    Limit(&'static str),
    /// Another process has the data folder open.
    #[error("another credbrokerd already uses this data folder")]
    InUse,
    /// The store was written by a newer version.
    #[error(
        "this store has schema {found}, newer than this program's {supported}: run the newer credbrokerd"
    )]
    TooNew {
        /// The schema found.
        found: u32,
        /// The newest schema this program knows.
        supported: u32,
    },
    /// The store was made for another trust domain; every identity in it names that one.
    #[error("this store belongs to trust domain {found}, the configuration says {configured}")]
    WrongTrustDomain {
        /// The trust domain the store was made for.
        found: String,
        /// The one it was opened with.
        configured: String,
    },
    /// The keeper of the master key did not answer. The local key file always does.
    #[error("the master key cannot be reached: {0}")]
    MasterKeyUnavailable(String),
    /// The master key is not the one this store was made with.
    #[error("the master key does not open this store: it belongs to another one, or was replaced")]
    WrongMasterKey,
    /// A record does not open: it was changed on disk, or moved from another key.
    #[error("a stored record is damaged (key {key})")]
    Damaged {
        /// The key, as hexadecimal digits.
        key: String,
    },
    /// A record was written by a newer version of this program.
    #[error(
        "the record at key {key} has version {found}, newer than this program's {supported}: run the newer credbrokerd"
    )]
    RecordTooNew {
        /// The key, as hexadecimal digits.
        key: String,
        /// The version found.
        found: u8,
        /// The newest version this program knows.
        supported: u8,
    },
    /// A record opens but does not read as the type asked for: a fault of the program.
    #[error("the record at key {key} does not read as the type asked for")]
    Malformed {
        /// The key, as hexadecimal digits.
        key: String,
    },
}

impl StoreError {
    /// Whether a commit that ended so is known not to have changed anything, now or later.
    pub fn changed_nothing(&self) -> bool {
        matches!(self, StoreError::Overloaded | StoreError::Limit(_))
    }
}

/// The store contract. Every implementation passes the one suite in `tests/kv_conformance.rs`.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// The value at `key`. Sees every commit acknowledged before the call.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError>;

    /// Rows whose key begins with `prefix` and is greater than `after`, in order, at most `limit` (which is
    /// at most [`MAX_SCAN`]).
    async fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize)
    -> Result<Vec<Entry>, StoreError>;

    /// Judges the guards and applies the writes, all or none. When it returns [`Commit::Applied`] the
    /// writes survive `kill -9` and a power cut. Dropping the future does not undo or stop the commit.
    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError>;

    /// What changes under `prefix` from now on, or since after the commit `from`. An event arrives once its
    /// commit is durable and readable.
    fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, WatchError>;

    /// Whether the store still takes writes.
    fn healthy(&self) -> bool;
}

/// Small facts about the store as a whole, kept apart from its keys: what it is, and its wrapped data keys.
///
/// Calls block for as long as a write takes; they are for opening, and for what happens once in very many
/// operations.
pub trait Meta: Send + Sync + 'static {
    /// The value under `name`.
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores the entries, all or none; they are durable when it returns.
    fn set_meta(&self, entries: &[(&str, &[u8])]) -> Result<(), StoreError>;
}

/// Bytes as hexadecimal digits, for naming a key.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
