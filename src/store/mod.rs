//! State: a small key-value contract, the keyspace, versioned records, and sealing.
//!
//! [`Kv`] is the contract: guarded batches that are durable when acknowledged. `sled` is its first
//! implementation. Above it, [`record`] turns typed records into sealed bytes. Nothing here knows what a
//! record means.

pub mod keys;
pub mod record;
pub mod seal;
pub mod sled;

use async_trait::async_trait;

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
    /// The master key is not the one this store was made with.
    #[error("the master key does not open this store: it belongs to another one, or was replaced")]
    WrongMasterKey,
    /// A record does not open: it was changed on disk, or moved from another key.
    #[error("a stored record is damaged (key {key})")]
    Damaged {
        /// The key, as hexadecimal digits.
        key: String,
    },
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

    /// Whether the store still takes writes.
    fn healthy(&self) -> bool;
}
