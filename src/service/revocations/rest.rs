//! What could not be tried here at all: damaged, or not to be written down. And the reading of the queue past what is
//! damaged in it.
//!
//! A try that fails at the provider has its next time in the store. One that fails here has not, so it rests in memory: a
//! restart tries it at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{LOOKED_AT, Revoker};
use crate::domain::id::RevocationId;
use crate::domain::refusal::Refusal;
use crate::store::StoreError;
use crate::store::keys::{self, Key};
use crate::store::model::RevocationDue;
use crate::store::record::Stored;

/// The rest after the first failure; doubled with each further one.
const FIRST: Duration = Duration::from_secs(2);
/// The longest rest.
const LONGEST: Duration = Duration::from_secs(600);
/// How many are remembered. What is past that is tried again sooner.
const MOST: usize = 4_096;

/// Those that rest: how often each failed, and until when it rests, in monotonic time.
#[derive(Default)]
pub(super) struct Resting(Mutex<BTreeMap<RevocationId, (u32, Duration)>>);

impl Resting {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RevocationId, (u32, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one rest from `now` on, and says for how long.
    pub(super) fn begins(&self, id: RevocationId, now: Duration) -> Duration {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(&id) {
            let _forgotten = all.pop_first();
        }
        let (failures, until) = all.entry(id).or_default();
        let pause = FIRST.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
        *failures = failures.saturating_add(1);
        *until = now + pause;
        pause
    }

    /// Whether one rests at `now`.
    pub(super) fn rests(&self, id: RevocationId, now: Duration) -> bool {
        self.all().get(&id).is_some_and(|(_, until)| now < *until)
    }

    /// Forgets one that was tried.
    pub(super) fn ends(&self, id: RevocationId) {
        self.all().remove(&id);
    }
}

impl Revoker {
    /// The next places in the queue. A damaged one is passed over with a warning: its neighbours are as they were.
    pub(super) async fn due_after(
        &self,
        after: Option<&Key>,
    ) -> Result<Vec<(Key, Stored<RevocationDue>)>, Refusal> {
        let (records, list) = (&self.parts.records, keys::revocations_due());
        match records.scan(list.as_bytes(), after, LOOKED_AT).await {
            Err(StoreError::Damaged { .. } | StoreError::Malformed { .. }) => {}
            rows => return Ok(rows?),
        }
        let (mut found, mut after) = (Vec::new(), after.cloned());
        for _ in 0..LOOKED_AT {
            match records.scan(list.as_bytes(), after.as_ref(), 1).await {
                Ok(rows) => match rows.into_iter().next() {
                    Some(row) => {
                        after = Some(row.0.clone());
                        found.push(row);
                    }
                    None => break,
                },
                Err(StoreError::Damaged { key } | StoreError::Malformed { key }) => {
                    tracing::warn!(%key, "a place in the queue of revocations is damaged");
                    match unhex(&key) {
                        Some(key) => after = Some(Key::from(key)),
                        None => break,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }
}

/// The bytes that a store's error names in hex.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    /// What is damaged is not begun again every second for ever, and what was mended is not held up.
    #[test]
    fn rests_grow_to_minutes_and_end_with_a_try_that_worked() {
        let (resting, id, other) = (
            Resting::default(),
            Id::from_bytes([1; 16]),
            Id::from_bytes([2; 16]),
        );
        let mut now = Duration::ZERO;
        assert!(!resting.rests(id, now));
        assert_eq!(resting.begins(id, now), FIRST);
        assert!(resting.rests(id, now) && !resting.rests(other, now));
        for _ in 0..40 {
            now += resting.begins(id, now);
            assert!(!resting.rests(id, now));
        }
        assert_eq!(resting.begins(id, now), LONGEST);
        resting.ends(id);
        assert!(!resting.rests(id, now));
        assert_eq!(resting.begins(id, now), FIRST);
    }

    #[test]
    fn a_store_names_keys_in_hex() {
        assert_eq!(unhex("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex("0g"), None);
    }
}
