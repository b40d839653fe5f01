//! When operator tokens and API keys were last used, without a write for each request.
//!
//! Authentication notes the time in memory; every now and then, and when the broker stops, what is new is stored
//! in a few commits. A crash loses the last minute of it, and nothing else: no decision rests on these times.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Broker;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::keys;
use crate::store::model::LastUse;
use crate::store::record::Changes;

const SHARDS: usize = 16;
/// How many uses a shard holds that are not stored yet. Past it, uses of others go unnoted until the next flush.
const MAX_UNSAVED: usize = 4_096;
/// How many uses one commit stores.
const BATCH: usize = 100;

/// By the 16 bytes of an id, whose last ones are random.
type Uses = HashMap<[u8; 16], Time>;

/// The uses that are not stored yet.
#[derive(Default)]
pub(super) struct LastUsed([Mutex<Uses>; SHARDS]);

impl LastUsed {
    fn shard(&self, id: &[u8; 16]) -> MutexGuard<'_, Uses> {
        let shard = usize::from(id[15]) % SHARDS;
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a use.
    pub(super) fn touch(&self, id: &[u8; 16], now: Time) {
        let mut uses = self.shard(id);
        if let Some(at) = uses.get_mut(id) {
            *at = now;
        } else if uses.len() < MAX_UNSAVED {
            uses.insert(*id, now);
        }
    }

    fn unsaved(&self) -> Vec<([u8; 16], Time)> {
        let uses = self.0.iter().flat_map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter().map(|(id, at)| (*id, *at)).collect::<Vec<_>>()
        });
        uses.collect()
    }

    /// Forgets a use that is stored, unless there was a later one.
    fn saved(&self, id: &[u8; 16], at: Time) {
        let mut uses = self.shard(id);
        if uses.get(id) == Some(&at) {
            uses.remove(id);
        }
    }
}

impl Broker {
    /// When the operator token or API key with this id was last used.
    pub(super) async fn last_use(&self, id: &[u8; 16]) -> Result<Option<Time>, Refusal> {
        let noted = self.last_used.shard(id).get(id).copied();
        if noted.is_some() {
            return Ok(noted);
        }
        let stored = self.records.get::<LastUse>(&keys::last_used(id)).await?;
        Ok(stored.map(|stored| stored.value.at))
    }

    /// Stores the uses that are not stored yet. While the disk is nearly full they wait.
    pub async fn flush_last_used(&self) -> Result<(), Refusal> {
        if !self.records.has_room(self.settings().reserved_bytes) {
            return Ok(());
        }
        for batch in self.last_used.unsaved().chunks(BATCH) {
            let mut changes = Changes::default();
            for (id, at) in batch {
                changes = changes.put(&keys::last_used(id), &LastUse { at: *at });
            }
            // Without guards there is nothing to conflict with.
            let _applied = self.records.commit(changes).await?;
            for (id, at) in batch {
                self.last_used.saved(id, *at);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn a_use_while_the_one_before_is_stored_is_kept() {
        let uses = LastUsed::default();
        uses.touch(&[1; 16], at(1));
        assert_eq!(uses.unsaved(), [([1; 16], at(1))]);
        uses.touch(&[1; 16], at(2));
        uses.saved(&[1; 16], at(1));
        assert_eq!(uses.unsaved(), [([1; 16], at(2))]);
        uses.saved(&[1; 16], at(2));
        assert_eq!(uses.unsaved(), []);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_known_stays_current() {
        let uses = LastUsed::default();
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id
        };
        (0..MAX_UNSAVED + 10).for_each(|number| uses.touch(&id(number), at(1)));
        assert_eq!(uses.unsaved().len(), MAX_UNSAVED);
        uses.touch(&id(0), at(2));
        assert!(uses.unsaved().contains(&(id(0), at(2))));
    }
}
