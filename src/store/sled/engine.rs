//! Reading and writing sled, and keeping what is not yet durable from readers.
//!
//! Applying a batch to sled shows it to readers before it is synced, and a write that a reader has acted on
//! must not vanish with the power. So before a group is applied, the values that it replaces are published
//! (`unsynced`), and they are taken back once it is synced. A reader reads sled first and looks at `unsynced`
//! second. Had it seen a value of the group, then either the group is still unsynced, and the value from
//! before it is there to be returned instead, or the group has been synced meanwhile. A value of an earlier
//! group is durable, for groups do not overlap.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use ::sled::{Batch, Db, IVec, Tree};
use arc_swap::ArcSwapOption;

use super::super::watch::Ring;
use super::super::{Entry, MAX_SCAN, Revision, StoreError, Versioned};

/// The tree of the keys.
pub(super) const STATE: &str = "state";
/// The tree of what the store says of itself.
pub(super) const META: &str = "meta";
/// Every stored value begins with its revision, big-endian.
const REVISION: usize = size_of::<u64>();

/// The values from before a group, by key; `None` where there was none.
pub(super) type Before = HashMap<Vec<u8>, Option<IVec>>;

/// sled and what we keep beside it.
pub(super) struct Engine {
    state: Tree,
    meta: Tree,
    db: Db,
    /// sled's own file, opened once more to sync it.
    log: File,
    unsynced: ArcSwapOption<Before>,
    /// Set once, by the first failure.
    pub(super) failure: OnceLock<StoreError>,
    pub(super) ring: Arc<Ring>,
}

impl Engine {
    pub(super) fn new(
        db: Db,
        state: Tree,
        meta: Tree,
        log: File,
        remembered_changes: usize,
        newest: Revision,
    ) -> Self {
        Self {
            state,
            meta,
            db,
            log,
            unsynced: ArcSwapOption::empty(),
            failure: OnceLock::new(),
            ring: Ring::new(remembered_changes, newest),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        let found = self.state.get(key).map_err(failed)?;
        let found = match self.unsynced.load().as_deref() {
            Some(before) => before.get(key).cloned().unwrap_or(found),
            None => found,
        };
        found
            .map(|stored| {
                let (revision, value) = split(key, &stored)?;
                Ok(Versioned {
                    value: value.to_vec(),
                    revision,
                })
            })
            .transpose()
    }

    /// Not one moment's picture: each row is as durable as a `get` of it, but rows may stem from different
    /// commits.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        if limit > MAX_SCAN {
            return Err(StoreError::Limit("the rows of a scan"));
        }
        let end = end_of(prefix);
        let mut low = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let mut rows = Vec::with_capacity(limit.min(64));
        while rows.len() < limit {
            let (start, end) = (low, end.clone());
            if is_empty(&start, &end) {
                break;
            }
            let (page, next) = self.scan_page(start, end, limit - rows.len())?;
            for (key, stored) in page {
                let (revision, value) = split(&key, &stored)?;
                rows.push(Entry {
                    revision,
                    value: value.to_vec(),
                    key,
                });
            }
            match next {
                Some(last) => low = Bound::Excluded(last),
                None => break,
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Up to about `limit` rows, and the key to go on after where there may be more.
    #[expect(clippy::type_complexity, reason = "read once, right here")]
    fn scan_page(
        &self,
        start: Bound<Vec<u8>>,
        end: Bound<Vec<u8>>,
        limit: usize,
    ) -> Result<(BTreeMap<Vec<u8>, IVec>, Option<Vec<u8>>), StoreError> {
        let mut rows = BTreeMap::new();
        for row in self.state.range((start.clone(), end.clone())).take(limit) {
            let (key, stored) = row.map_err(failed)?;
            rows.insert(key.to_vec(), stored);
        }
        let last = (rows.len() == limit)
            .then(|| rows.last_key_value().map(|(key, _)| key.clone()))
            .flatten();
        if let Some(before) = self.unsynced.load().as_deref() {
            // What was not reached is left to the next page.
            let reached = last.clone().map_or(end, Bound::Included);
            let within = |key: &Vec<u8>| {
                !is_empty(&start, &Bound::Included(key.clone()))
                    && !is_empty(&Bound::Included(key.clone()), &reached)
            };
            for (key, value) in before.iter().filter(|(key, _)| within(key)) {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
        }
        Ok((rows, last))
    }

    pub(super) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.meta.get(name).map_err(failed)?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// The stored bytes of a key as the committer left them, synced or not. For the committer only.
    pub(super) fn latest(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.state.get(key).map_err(failed)
    }

    /// Writes to the meta tree, durably. For the committer, and for opening before there is one.
    pub(super) fn write_meta(&self, entries: &[(&str, &[u8])]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (name, value) in entries {
            batch.insert(*name, *value);
        }
        self.meta.apply_batch(batch).map_err(failed)?;
        self.sync()
    }

    /// Writes a group, durably; readers see it when this returns. After an error they go on seeing what was
    /// before it. For the committer only.
    pub(super) fn write_group(&self, batch: Batch, before: Before) -> Result<(), StoreError> {
        self.unsynced.store(Some(Arc::new(before)));
        self.state.apply_batch(batch).map_err(failed)?;
        self.sync()?;
        self.unsynced.store(None);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed)?;
        self.log
            .sync_data()
            .map_err(|error| StoreError::Failed(format!("syncing the store: {error}")))
    }
}

/// What is stored for a value written at `revision`.
pub(super) fn join(revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(REVISION + value.len());
    stored.extend_from_slice(&revision.0.to_be_bytes());
    stored.extend_from_slice(value);
    stored
}

/// The revision and value of what is stored.
pub(super) fn split<'a>(key: &[u8], stored: &'a [u8]) -> Result<(Revision, &'a [u8]), StoreError> {
    let (revision, value) = stored
        .split_first_chunk::<REVISION>()
        .ok_or_else(|| StoreError::Damaged {
            key: super::super::hex(key),
        })?;
    Ok((Revision(u64::from_be_bytes(*revision)), value))
}

/// Where the keys that begin with `prefix` end.
fn end_of(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

/// Whether no key lies between the bounds.
fn is_empty(start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}

/// An error of sled's.
pub(super) fn failed(error: ::sled::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn value(text: &str) -> IVec {
        join(Revision(1), text.as_bytes()).into()
    }

    /// A group that was applied but whose sync failed (`/dev/null` cannot be synced) is in sled, and must be
    /// in no answer.
    #[test]
    fn what_is_not_synced_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let db = ::sled::open(dir.path()).unwrap();
        let state = db.open_tree(STATE).unwrap();
        let meta = db.open_tree(META).unwrap();
        for key in ["a", "c", "e", "g"] {
            state.insert(key, value("old")).unwrap();
        }
        let log = File::open("/dev/null").unwrap();
        let engine = Engine::new(db, state.clone(), meta, log, 1, Revision(1));

        let mut batch = Batch::default();
        let mut before = Before::new();
        for key in ["b", "c", "d", "h"] {
            batch.insert(key, value("new"));
            before.insert(key.into(), state.get(key).unwrap());
        }
        for key in ["a", "g"] {
            batch.remove(key);
            before.insert(key.into(), state.get(key).unwrap());
        }
        assert!(engine.write_group(batch, before).is_err());
        assert_eq!(state.get("b").unwrap(), Some(value("new")), "sled has it");

        assert_eq!(engine.get(b"b"), Ok(None));
        assert_eq!(engine.get(b"a").unwrap().unwrap().value, b"old");
        for limit in 1..6 {
            let mut seen: Vec<Vec<u8>> = Vec::new();
            loop {
                let page = engine.scan(b"", seen.last().map(Vec::as_slice), limit).unwrap();
                assert!(page.iter().all(|row| row.value == b"old"));
                seen.extend(page.iter().map(|row| row.key.clone()));
                if page.len() < limit {
                    break;
                }
            }
            assert_eq!(seen, [b"a", b"c", b"e", b"g"], "by {limit}");
        }
    }
}
