//! Decoded records, kept so that a hot read costs no store access, no decryption and no decoding.
//!
//! Coherence, which makes a cached read as good as one of the store:
//! - While a commit that touches a key is on its way, the key is *in flux*: it has no cached value, and nobody
//!   may insert one. This begins before the commit is handed to the store and ends after it was answered.
//! - A reader takes a [`Stamp`] before it reads the store, which is void while the key is in flux, and its
//!   insertion counts only if no key of the shard has come into flux since. So what is inserted was read while
//!   no commit was on its way.
//!
//! All writes must come through the one [`super::record::Records`] that owns the cache. Cached plaintext of
//! secrets is zeroized by their own drop, when the last holder lets go after eviction.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Revision;

/// A decoded record of some type.
type AnyRecord = Arc<dyn Any + Send + Sync>;

const SHARDS: usize = 16;

struct Slot {
    key: Box<[u8]>,
    revision: Revision,
    record: AnyRecord,
    /// Asked for since the hand last passed.
    used: bool,
}

/// One part of the keys: a clock (second-chance) cache.
struct Shard {
    index: HashMap<Box<[u8]>, usize>,
    slots: Vec<Option<Slot>>,
    hand: usize,
    capacity: usize,
    /// How many commits on their way touch a key.
    flux: HashMap<Vec<u8>, usize>,
    /// Counts how often a key came into flux.
    generation: u64,
}

/// What a lookup gives.
pub(super) enum Lookup {
    /// The record.
    Hit(Revision, AnyRecord),
    /// Nothing; what is read now may be inserted under this stamp.
    Miss(Stamp),
}

/// The moment of a lookup. `None` where the key was in flux.
#[derive(Clone, Copy)]
pub(super) struct Stamp(Option<u64>);

/// The cache.
pub(super) struct Cache {
    shards: Vec<Mutex<Shard>>,
}

impl Cache {
    /// A cache of about `capacity` records; none are kept with 0.
    pub(super) fn new(capacity: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                index: HashMap::new(),
                slots: Vec::new(),
                hand: 0,
                capacity: capacity.div_ceil(SHARDS),
                flux: HashMap::new(),
                generation: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let shard = crc32fast::hash(key) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look_up(&self, key: &[u8]) -> Lookup {
        let mut shard = self.shard(key);
        if let Some(slot) = shard.slot(key) {
            slot.used = true;
            return Lookup::Hit(slot.revision, Arc::clone(&slot.record));
        }
        let free = !shard.flux.contains_key(key);
        Lookup::Miss(Stamp(free.then_some(shard.generation)))
    }

    /// Keeps what was read since `stamp`, unless it may be outdated.
    pub(super) fn insert(&self, key: &[u8], stamp: Stamp, revision: Revision, record: AnyRecord) {
        let mut shard = self.shard(key);
        if stamp.0 == Some(shard.generation) && shard.capacity > 0 {
            // What is evicted is dropped, and its secrets zeroized, outside the lock.
            let evicted = shard.insert(key, revision, record);
            drop(shard);
            drop(evicted);
        }
    }

    /// Puts the keys in flux until the guard is ended.
    pub(super) fn begin(self: &Arc<Self>, keys: Vec<Vec<u8>>) -> Flux {
        for key in &keys {
            let mut shard = self.shard(key);
            shard.generation += 1;
            *shard.flux.entry(key.clone()).or_insert(0) += 1;
            let removed = shard.remove(key);
            drop(shard);
            drop(removed);
        }
        Flux {
            cache: Arc::clone(self),
            keys,
        }
    }
}

/// Keys in flux. Dropped without [`Flux::end`], as when the runtime stops amid a commit, they stay so: they
/// are merely no longer cached.
#[must_use]
pub(super) struct Flux {
    cache: Arc<Cache>,
    keys: Vec<Vec<u8>>,
}

impl Flux {
    /// The commit was answered.
    pub(super) fn end(self) {
        for key in self.keys {
            let mut shard = self.cache.shard(&key);
            if let Some(count) = shard.flux.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    shard.flux.remove(&key);
                }
            }
        }
    }
}

impl Shard {
    fn slot(&mut self, key: &[u8]) -> Option<&mut Slot> {
        let at = *self.index.get(key)?;
        self.slots.get_mut(at)?.as_mut()
    }

    fn remove(&mut self, key: &[u8]) -> Option<Slot> {
        let at = self.index.remove(key)?;
        self.slots.get_mut(at)?.take()
    }

    fn insert(&mut self, key: &[u8], revision: Revision, record: AnyRecord) -> Option<Slot> {
        let slot = Slot {
            key: key.into(),
            revision,
            record,
            used: false,
        };
        let at = match self.index.get(key) {
            Some(at) => *at,
            None => self.free_slot(),
        };
        let evicted = self.slots[at].replace(slot);
        if let Some(evicted) = &evicted {
            self.index.remove(&evicted.key);
        }
        self.index.insert(key.into(), at);
        evicted
    }

    /// The place of a new slot: a fresh one up to the capacity, then one that is empty or was not used for a
    /// round of the hand.
    fn free_slot(&mut self) -> usize {
        if self.slots.len() < self.capacity {
            self.slots.push(None);
            return self.slots.len() - 1;
        }
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            match &mut self.slots[at] {
                Some(slot) if slot.used => slot.used = false,
                _ => return at,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(cache: &Cache, key: &[u8]) -> Option<u64> {
        match cache.look_up(key) {
            Lookup::Hit(revision, _) => Some(revision.0),
            Lookup::Miss(_) => None,
        }
    }

    fn stamp(cache: &Cache, key: &[u8]) -> Stamp {
        match cache.look_up(key) {
            Lookup::Miss(stamp) => stamp,
            Lookup::Hit(..) => panic!("a hit"),
        }
    }

    fn put(cache: &Cache, key: &[u8], stamp: Stamp, revision: u64) {
        cache.insert(key, stamp, Revision(revision), Arc::new(()));
    }

    #[test]
    fn a_read_that_began_before_or_amid_a_commit_is_not_kept() {
        let cache = Arc::new(Cache::new(64));
        let before = stamp(&cache, b"k");
        let flux = cache.begin(vec![b"k".to_vec()]);
        let amid = stamp(&cache, b"k");
        put(&cache, b"k", before, 1);
        put(&cache, b"k", amid, 1);
        assert_eq!(read(&cache, b"k"), None);
        flux.end();
        put(&cache, b"k", before, 1);
        put(&cache, b"k", amid, 1);
        assert_eq!(read(&cache, b"k"), None);
        let after = stamp(&cache, b"k");
        put(&cache, b"k", after, 2);
        assert_eq!(read(&cache, b"k"), Some(2));
        cache.begin(vec![b"k".to_vec()]).end();
        assert_eq!(read(&cache, b"k"), None);
    }

    #[test]
    fn of_two_commits_on_their_way_the_first_to_end_does_not_free_the_key() {
        let cache = Arc::new(Cache::new(64));
        let first = cache.begin(vec![b"k".to_vec()]);
        let second = cache.begin(vec![b"k".to_vec()]);
        first.end();
        let amid = stamp(&cache, b"k");
        put(&cache, b"k", amid, 1);
        assert_eq!(read(&cache, b"k"), None);
        second.end();
        assert!(
            cache
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().flux.is_empty())
        );
    }

    #[test]
    fn the_capacity_holds_and_what_is_used_stays() {
        let cache = Arc::new(Cache::new(SHARDS * 4));
        let hot = b"hot".to_vec();
        let at = stamp(&cache, &hot);
        put(&cache, &hot, at, 1);
        for i in 0..1000_u32 {
            assert_eq!(read(&cache, &hot), Some(1));
            let key = i.to_be_bytes();
            let at = stamp(&cache, &key);
            put(&cache, &key, at, 2);
            if i % 3 == 0 {
                cache.begin(vec![key.to_vec()]).end();
            }
        }
        for shard in &cache.shards {
            let shard = shard.lock().unwrap();
            assert!(shard.slots.len() <= 4 && shard.index.len() <= 4);
        }
    }
}
