//! Typed, versioned records over any [`Kv`], sealed on the way down and cached decoded on the way up.
//!
//! Stored bytes are the record's version and its CBOR, sealed for the record's key. What was changed on disk or
//! moved to another key is [`StoreError::Damaged`] and names the key; its neighbours stay readable.
//!
//! Records too long for one value are sealed whole and split; see `form` for how no reader ever mixes two
//! versions and no version leaves anything behind.
//!
//! A commit runs in a task of its own: once `commit` was polled, dropping it neither stops the commit nor
//! leaves the cache behind the store. One `Records` owns all writes of its store; see `cache`.

mod form;

use std::sync::Arc;

use zeroize::Zeroizing;

use super::cache::{Cache, Lookup};
use super::codec::Buffer;
use super::keys::Key;
use super::reserve::Reserve;
use super::seal::Sealer;
use super::watch::{Watch, WatchError};
use super::{Batch, Commit, Entry, Guard, Kv, MAX_SCAN, Revision, StoreError, hex};
pub use form::MAX_RECORD;
use form::{Assembled, CHUNK_REGION};

/// What can be stored.
///
/// Fields may be added as long as older bytes still decode (options, defaults); anything else raises
/// `VERSION`. Bytes of a version greater than the program's are refused, never guessed at.
pub trait Record: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> + Send + Sync + 'static {
    /// The version of the encoding.
    const VERSION: u8;
    /// Whether it may take more than one value of the store: up to [`MAX_RECORD`] bytes. Each change of a
    /// large record takes 26 of the operations of a batch.
    const LARGE: bool = false;
    /// Whether it is kept decoded in memory. Off for what is read once.
    const CACHE: bool = true;
}

/// A record as it was read.
#[derive(Debug)]
pub struct Stored<T> {
    /// The record.
    pub value: Arc<T>,
    /// The revision it stands at, for [`Changes::at`].
    pub revision: Revision,
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            revision: self.revision,
        }
    }
}

/// Changes to be made together, all or none.
#[derive(Default)]
#[must_use]
pub struct Changes {
    guards: Vec<Guard>,
    changes: Vec<Pending>,
    fault: Option<StoreError>,
}

struct Pending {
    key: Vec<u8>,
    /// Version and CBOR; `None` deletes.
    plaintext: Option<Zeroizing<Vec<u8>>>,
    large: bool,
}

impl Changes {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if there is nothing at `key`.
    pub fn absent(mut self, key: &Key) -> Self {
        self.guards.push(Guard::Absent(key.as_bytes().to_vec()));
        self
    }

    /// Only if the record at `key` is still the one read at `revision`.
    pub fn at(mut self, key: &Key, revision: Revision) -> Self {
        self.guards.push(Guard::At(key.as_bytes().to_vec(), revision));
        self
    }

    /// Stores `record` at `key`. What was there must have been of the same type.
    pub fn put<T: Record>(mut self, key: &Key, record: &T) -> Self {
        match encode(key, record) {
            Ok(plaintext) => self.changes.push(Pending {
                key: key.as_bytes().to_vec(),
                plaintext: Some(plaintext),
                large: T::LARGE,
            }),
            Err(fault) => self.fault = Some(fault),
        }
        self
    }

    /// Removes the record of type `T` at `key`, if there is one.
    pub fn delete<T: Record>(mut self, key: &Key) -> Self {
        self.changes.push(Pending {
            key: key.as_bytes().to_vec(),
            plaintext: None,
            large: T::LARGE,
        });
        self
    }
}

/// The records of one store.
pub struct Records {
    kv: Arc<dyn Kv>,
    sealer: Arc<Sealer>,
    cache: Arc<Cache>,
    reserve: Option<Reserve>,
}

/// How often a read starts over because the record was replaced amid it.
const ATTEMPTS: usize = 32;

impl Records {
    /// Records in `kv`, sealed by `sealer`, of which about `cached` are kept decoded.
    pub fn new(kv: Arc<dyn Kv>, sealer: Arc<Sealer>, cached: usize) -> Self {
        Self {
            kv,
            sealer,
            cache: Arc::new(Cache::new(cached)),
            reserve: None,
        }
    }

    /// With the room on its disk watched.
    #[must_use]
    pub fn within(self, reserve: Reserve) -> Self {
        Self {
            reserve: Some(reserve),
            ..self
        }
    }

    /// Whether what can wait may be written: more than `reserved` bytes are free.
    pub fn has_room(&self, reserved: u64) -> bool {
        self.reserve
            .as_ref()
            .is_none_or(|reserve| reserve.has_room(reserved))
    }

    /// The record at `key`.
    pub async fn get<T: Record>(&self, key: &Key) -> Result<Option<Stored<T>>, StoreError> {
        let stamp = match T::CACHE.then(|| self.cache.look_up(key.as_bytes())) {
            Some(Lookup::Hit(revision, record)) => match record.downcast() {
                Ok(value) => return Ok(Some(Stored { value, revision })),
                Err(_) => None,
            },
            Some(Lookup::Miss(stamp)) => Some(stamp),
            None => None,
        };
        let head = self.kv.get(key.as_bytes()).await?;
        let head = head.map(|found| (found.value, found.revision));
        let stored = self.read::<T>(key.as_bytes(), head).await?;
        if let (Some(stamp), Some(stored)) = (stamp, &stored) {
            let record = Arc::clone(&stored.value);
            self.cache.insert(key.as_bytes(), stamp, stored.revision, record);
        }
        Ok(stored)
    }

    /// Records of type `T` whose key begins with `prefix` and is greater than `after`, in order, at most
    /// `limit` (which is at most [`MAX_SCAN`]). Fewer than `limit` means there are no more. Each record is whole,
    /// but they are not one moment's picture. A damaged one fails the scan and is named; the next scan may
    /// start after it.
    pub async fn scan<T: Record>(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Stored<T>)>, StoreError> {
        if limit > MAX_SCAN {
            return Err(StoreError::Limit("the rows of a scan"));
        }
        let mut found = Vec::new();
        let mut after = after.map(|key| key.as_bytes().to_vec());
        while found.len() < limit {
            let wanted = limit - found.len();
            let rows = self.kv.scan(prefix, after.as_deref(), wanted).await?;
            let more = rows.len() == wanted;
            after = rows.last().map(|row| row.key.clone());
            for Entry { key, value, revision } in rows {
                // Gone where it was a large one, removed amid its read.
                if let Some(stored) = self.read(&key, Some((value, revision))).await? {
                    found.push((Key::from(key), stored));
                }
            }
            if !more {
                break;
            }
        }
        Ok(found)
    }

    /// Makes the changes, all or none, once all guards hold.
    pub async fn commit(&self, changes: Changes) -> Result<Commit, StoreError> {
        let touched = changes.changes.iter().map(|one| one.key.clone()).collect();
        let batch = self.seal(changes)?;
        let kv = Arc::clone(&self.kv);
        let flux = self.cache.begin(touched);
        let committing = tokio::spawn(async move {
            let outcome = kv.commit(batch).await;
            flux.end();
            outcome
        });
        committing
            .await
            .unwrap_or_else(|ended| Err(StoreError::Failed(format!("the commit ended early: {ended}"))))
    }

    /// What changes under `prefix`; see [`Kv::watch`].
    pub fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, WatchError> {
        self.kv.watch(prefix, from)
    }

    /// Whether the store still takes writes.
    pub fn healthy(&self) -> bool {
        self.kv.healthy()
    }

    fn seal(&self, changes: Changes) -> Result<Batch, StoreError> {
        if let Some(fault) = changes.fault {
            return Err(fault);
        }
        let mut writes = Vec::with_capacity(changes.changes.len());
        for change in changes.changes {
            let key = change.key;
            if key.first() == Some(&CHUNK_REGION) {
                return Err(StoreError::Limit("a key where chunks are kept"));
            }
            match change.plaintext {
                Some(plaintext) if plaintext.len() > MAX_RECORD => {
                    return Err(StoreError::Limit("the length of a record"));
                }
                Some(plaintext) => {
                    let sealed = self.sealer.seal(&key, &plaintext)?;
                    form::put(key, &sealed, change.large, &mut writes)?;
                }
                None => form::delete(key, change.large, &mut writes),
            }
        }
        Ok(Batch {
            guards: changes.guards,
            writes,
        })
    }

    /// The record whose first value is `head`, or a newer one where that was replaced meanwhile.
    async fn read<T: Record>(
        &self,
        key: &[u8],
        mut head: Option<(Vec<u8>, Revision)>,
    ) -> Result<Option<Stored<T>>, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some((value, revision)) = head else {
                return Ok(None);
            };
            let damaged = || StoreError::Damaged { key: hex(key) };
            match form::assemble(&*self.kv, key, &value).await? {
                Assembled::Whole(sealed) => {
                    let opened = self.sealer.open_sealed(key, &sealed).map_err(|_| damaged())?;
                    let value = Arc::new(decode_at(key, &opened)?);
                    return Ok(Some(Stored { value, revision }));
                }
                Assembled::Torn => {}
                Assembled::Damaged => return Err(damaged()),
            }
            let again = self.kv.get(key).await?;
            head = again.map(|found| (found.value, found.revision));
            // The chunks do not fit, and nobody replaced them.
            if head.as_ref().is_some_and(|(_, again)| *again == revision) {
                return Err(damaged());
            }
        }
        Err(StoreError::Overloaded)
    }
}

/// The bytes of `record` as they are sealed: its version and its CBOR.
pub fn encode<T: Record>(key: &Key, record: &T) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut buffer = Buffer::new();
    minicbor::encode::Write::write_all(&mut buffer, &[T::VERSION])
        .map_err(minicbor::encode::Error::write)
        .and_then(|()| minicbor::encode(record, &mut buffer))
        .map_err(|_| malformed(key.as_bytes()))?;
    Ok(buffer.into_inner())
}

/// The record that these bytes of [`encode`] are, of this version of the program or an earlier one.
pub fn decode<T: Record>(key: &Key, plaintext: &[u8]) -> Result<T, StoreError> {
    decode_at(key.as_bytes(), plaintext)
}

fn decode_at<T: Record>(key: &[u8], plaintext: &[u8]) -> Result<T, StoreError> {
    let (version, cbor) = plaintext.split_first().ok_or_else(|| malformed(key))?;
    if *version > T::VERSION {
        return Err(StoreError::RecordTooNew {
            key: hex(key),
            found: *version,
            supported: T::VERSION,
        });
    }
    minicbor::decode(cbor).map_err(|_| malformed(key))
}

fn malformed(key: &[u8]) -> StoreError {
    StoreError::Malformed { key: hex(key) }
}
