//! How often credentials are tested: one test at a time each, its outcome for those who ask again at once, and so many
//! an org.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, Semaphore};

use super::Tested;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;

/// How long what was found is the answer to those who ask again, at least.
const REMEMBERED: Duration = Duration::from_secs(5);
/// And at most, however long the provider wants to be left alone.
const MOST_REMEMBERED: Duration = Duration::from_secs(600);
/// How many tests an org may have in [`WINDOW`].
const PER_ORG: u32 = 120;
/// How long tests of an org count together.
const WINDOW: Duration = Duration::from_secs(60);
/// How many tests run at once.
const AT_ONCE: usize = 32;

/// Tests under way and of a moment ago.
pub(in crate::service) struct Tests {
    slots: Mutex<HashMap<CredentialId, Slot>>,
    orgs: Mutex<HashMap<OrgId, (Duration, u32)>>,
    pub(super) places: Semaphore,
}

/// What was found last and when, on the clock that only goes forward. Locked while a test runs.
pub(super) type Slot = Arc<tokio::sync::Mutex<Option<(Duration, Tested)>>>;
pub(super) type Held = OwnedMutexGuard<Option<(Duration, Tested)>>;

impl Default for Tests {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            orgs: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }
}

pub(super) fn is_recent(since: Duration, now: Duration, span: Duration) -> bool {
    now.saturating_sub(since) < span
}

/// How long what was found is the answer: also for as long as the provider wants to be left alone.
pub(super) fn remembered_for(tested: &Tested) -> Duration {
    let wanted = tested.retry_after.unwrap_or_default();
    wanted.clamp(REMEMBERED, MOST_REMEMBERED)
}

impl Tests {
    /// Also forgets what is over, so that only those whose outcome is remembered take room.
    pub(super) fn slot(&self, id: CredentialId, now: Duration) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            let Ok(last) = slot.try_lock() else { return true };
            let recent = last
                .as_ref()
                .is_some_and(|(since, tested)| is_recent(*since, now, remembered_for(tested)));
            recent || Arc::strong_count(slot) > 1
        });
        Arc::clone(slots.entry(id).or_default())
    }

    /// Counts one more test of an org, or says how long to wait.
    pub(super) fn count(&self, org: OrgId, now: Duration) -> Result<(), Refusal> {
        let mut orgs = self.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        orgs.retain(|_, (since, _)| is_recent(*since, now, WINDOW));
        let (since, count) = orgs.entry(org).or_insert((now, 0));
        if *count >= PER_ORG {
            let message = format!("the org has had its {PER_ORG} tests of credentials of the minute");
            let wait = (*since + WINDOW).saturating_sub(now);
            return Err(Refusal::new(Reason::Overloaded, message).retry_after(wait));
        }
        *count += 1;
        Ok(())
    }
}
