//! The quota of shared dispatches: how many an org may have a UTC day.
//!
//! The counts are in memory, so that two dispatches cannot take the last place both. An org's count of a day is
//! read once from the sums of spend, which have every dispatch that was recorded, and from then on kept here:
//! a place is taken before the dispatch, and given back where it did not come about. So no more dispatches begin
//! in a day than the quota has, over any number of callers and restarts. One that begins before midnight and is
//! recorded after it takes a place of the first day here, and after a restart of the second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Broker;
use crate::domain::cost::Spend;
use crate::domain::day::Day;
use crate::domain::id::OrgId;
use crate::domain::mode::AuthMode;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::store::MAX_SCAN;
use crate::store::keys;

#[derive(Default)]
struct Counts {
    day: Option<Day>,
    /// Of that day; the others are forgotten.
    taken: HashMap<OrgId, u64>,
}

/// The places that were taken.
#[derive(Default)]
pub(super) struct Quotas(Mutex<Counts>);

/// What asking for a place came to.
enum Asked {
    Taken,
    Full(u64),
    /// How many of this day were taken is not known yet.
    Unknown,
}

/// A place in an org's quota. It is given back when this is dropped, unless it was kept.
#[must_use]
pub struct Reservation {
    quotas: Arc<Quotas>,
    org: OrgId,
    day: Day,
    kept: bool,
}

impl Reservation {
    /// The dispatch came about, or it is not known whether it did.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// The dispatch is on its way, and goes on whoever goes away: from here on the place stays taken.
    pub fn hold(&mut self) {
        self.kept = true;
    }

    /// The dispatch that was on its way is known not to have come about.
    pub fn release(mut self) {
        self.kept = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.quotas.give_back(self.org, self.day);
        }
    }
}

impl Quotas {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts, of this day: those of another are forgotten.
    fn counts_of(&self, day: Day) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts();
        if counts.day != Some(day) {
            *counts = Counts {
                day: Some(day),
                taken: HashMap::new(),
            };
        }
        counts
    }

    fn ask(&self, org: OrgId, day: Day, limit: u32) -> Asked {
        match self.counts_of(day).taken.get_mut(&org) {
            None => Asked::Unknown,
            Some(taken) if *taken >= u64::from(limit) => Asked::Full(*taken),
            Some(taken) => {
                *taken += 1;
                Asked::Taken
            }
        }
    }

    /// How many of the org's places of the day are taken; `None`: not known yet.
    fn taken(&self, org: OrgId, day: Day) -> Option<u64> {
        self.counts_of(day).taken.get(&org).copied()
    }

    /// Who reads second finds what the first has counted on from, and leaves it.
    fn learn(&self, org: OrgId, day: Day, recorded: u64) {
        let mut counts = self.counts();
        if counts.day == Some(day) {
            counts.taken.entry(org).or_insert(recorded);
        }
    }

    fn give_back(&self, org: OrgId, day: Day) {
        let mut counts = self.counts();
        if counts.day == Some(day)
            && let Some(taken) = counts.taken.get_mut(&org)
        {
            *taken = taken.saturating_sub(1);
        }
    }
}

/// How often asking starts over because midnight passed meanwhile.
const ATTEMPTS: usize = 4;

impl Broker {
    /// Takes a place in the org's quota of shared dispatches of this day, of which there are `limit`. Keep it
    /// where the dispatch came about or may have.
    pub async fn reserve_shared(&self, org: OrgId, limit: u32) -> Result<Reservation, Refusal> {
        for _ in 0..ATTEMPTS {
            let day = Day::of(self.now());
            match self.quotas.ask(org, day, limit) {
                Asked::Taken => {
                    return Ok(Reservation {
                        quotas: Arc::clone(&self.quotas),
                        org,
                        day,
                        kept: false,
                    });
                }
                Asked::Full(used) => return Err(self.quota_exceeded(day, limit, used)),
                Asked::Unknown => {
                    let recorded = self.shared_dispatches(org, day).await?;
                    self.quotas.learn(org, day, recorded);
                }
            }
        }
        Err(Refusal::new(Reason::Overloaded, "the day keeps changing").retry_after(super::BACK_OFF))
    }

    /// Whether a place could be taken now. Takes none.
    pub(super) async fn shared_is_free(
        &self,
        org: OrgId,
        limit: u32,
    ) -> Result<Result<(), Refusal>, Refusal> {
        let day = Day::of(self.now());
        let used = match self.quotas.taken(org, day) {
            Some(used) => used,
            None => {
                let recorded = self.shared_dispatches(org, day).await?;
                self.quotas.learn(org, day, recorded);
                recorded
            }
        };
        Ok(if used < u64::from(limit) {
            Ok(())
        } else {
            Err(self.quota_exceeded(day, limit, used))
        })
    }

    fn quota_exceeded(&self, day: Day, limit: u32, used: u64) -> Refusal {
        let resets = day.ends();
        let message = format!("the org has had {used} of the {limit} shared dispatches it may have a day");
        let at = jiff::Timestamp::from_millisecond(resets.millis()).map(|at| at.to_string());
        Refusal::new(Reason::SharedQuotaExceeded, message)
            .with("limit", limit.to_string())
            .with("used", used.to_string())
            .with("resets_at", at.unwrap_or_default())
            .retry_after(resets.since(self.now()))
    }

    /// How many shared dispatches of the org and day are recorded.
    async fn shared_dispatches(&self, org: OrgId, day: Day) -> Result<u64, Refusal> {
        self.catch_up_spend().await?;
        let list = keys::spends_of_mode(org, day, AuthMode::Shared);
        let (mut sum, mut after) = (Spend::default(), None);
        loop {
            let rows = self
                .records
                .scan::<Spend>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            sum = rows.iter().fold(sum, |sum, (_, row)| sum.plus(*row.value));
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(sum.dispatches),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn org() -> OrgId {
        Id::from_bytes([1; 16])
    }

    fn reserve(quotas: &Arc<Quotas>, day: Day, limit: u32) -> Option<Reservation> {
        matches!(quotas.ask(org(), day, limit), Asked::Taken).then(|| Reservation {
            quotas: Arc::clone(quotas),
            org: org(),
            day,
            kept: false,
        })
    }

    // req: E9
    #[test]
    fn of_many_at_once_exactly_as_many_are_let_through_as_there_are_places() {
        let quotas = Arc::new(Quotas::default());
        let day = Day(20_000);
        assert!(matches!(quotas.ask(org(), day, 50), Asked::Unknown));
        quotas.learn(org(), day, 7);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let quotas = Arc::clone(&quotas);
                std::thread::spawn(move || {
                    let mut kept = 0;
                    for attempt in 0..200 {
                        match reserve(&quotas, day, 50) {
                            // A dispatch that failed.
                            Some(reservation) if attempt % 3 == 0 => drop(reservation),
                            Some(reservation) => {
                                reservation.keep();
                                kept += 1;
                            }
                            None => std::thread::yield_now(),
                        }
                    }
                    kept
                })
            })
            .collect();
        let kept: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(kept, 43);
        assert!(matches!(quotas.ask(org(), day, 50), Asked::Full(50)));
        assert!(
            matches!(quotas.ask(org(), day, 51), Asked::Taken),
            "a raised limit counts at once"
        );
    }

    #[test]
    fn another_day_begins_anew_and_takes_nothing_back_from_the_last() {
        let quotas = Arc::new(Quotas::default());
        let (day, next) = (Day(20_000), Day(20_001));
        let _unknown = quotas.ask(org(), day, 2);
        quotas.learn(org(), day, 0);
        let held = reserve(&quotas, day, 2).unwrap();
        assert!(reserve(&quotas, next, 2).is_none());
        quotas.learn(org(), day, 0);
        assert!(
            reserve(&quotas, next, 2).is_none(),
            "yesterday's count is not today's"
        );
        quotas.learn(org(), next, 2);
        quotas.learn(org(), next, 0);
        drop(held);
        assert!(matches!(quotas.ask(org(), next, 2), Asked::Full(2)));
        assert_eq!(quotas.counts().taken.len(), 1);
    }
}
