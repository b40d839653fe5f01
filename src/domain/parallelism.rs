//! How many leases may stand at once on a personal subscription.
//!
//! Each lease on such a credential takes a place before it is handed out. The list of places is short, at most
//! [`MOST`] long, and is changed only together with the lease that it lists. What ends a lease does not touch it: a
//! place whose lease stands no more is empty, and is given to the next who finds the list full. So nothing has to be
//! counted back, and no lease can be forgotten.

use std::time::Duration;

use super::id::LeaseId;
use super::time::Time;

/// The most that may stand at once on one credential, whoever raises the cap: the list is one small record.
pub const MOST: u32 = 200;

/// Within which times who found no place is asked to come again.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// When to ask for a place again, where the first of the leases that have one ends at `next` by itself: not much later
/// whenever that is, for a lease may be given back at any moment.
pub fn come_again(next: Time, now: Time) -> Duration {
    next.since(now).clamp(SOONEST, LATEST)
}

/// The cap of one credential, and who has the places under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parallel {
    /// As many as an admin said; `None`: as the configuration has it for all.
    pub cap: Option<u32>,
    /// The leases that have a place, those that have ended meanwhile among them.
    pub leases: Vec<LeaseId>,
}

/// Whether there is a place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It has one.
    Held,
    /// There is one.
    Free,
    /// As many are listed as may stand at once. Whether all of them do is to be looked at.
    AllListed,
}

/// As many leases stand as may at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Parallel {
    /// How many may stand at once, where `usual` is what the configuration says.
    pub fn cap(&self, usual: u32) -> u32 {
        self.cap.unwrap_or(usual).min(MOST)
    }

    /// Whether there is a place for the holder of `own`, judged by the list alone.
    pub fn room(&self, own: Option<LeaseId>, usual: u32) -> Room {
        if own.is_some_and(|own| self.leases.contains(&own)) {
            Room::Held
        } else if self.leases.len() < self.cap(usual) as usize {
            Room::Free
        } else {
            Room::AllListed
        }
    }

    /// Without the places of leases that do not stand any more.
    #[must_use]
    pub fn without(&self, stands: impl Fn(LeaseId) -> bool) -> Self {
        Self {
            cap: self.cap,
            leases: self
                .leases
                .iter()
                .copied()
                .filter(|lease| stands(*lease))
                .collect(),
        }
    }

    /// With a place for `lease`: that of the lease it `replaces`, or another under the cap.
    pub fn taken(&self, lease: LeaseId, replaces: Option<LeaseId>, usual: u32) -> Result<Self, Full> {
        let mut after = self.without(|listed| Some(listed) != replaces && listed != lease);
        if after.leases.len() == self.leases.len() && self.room(None, usual) == Room::AllListed {
            return Err(Full);
        }
        after.leases.push(lease);
        Ok(after)
    }

    /// With a place for a lease that stands already, from before it needed one: past the cap where all places are
    /// taken, for nothing ends what stands. Not past [`MOST`].
    #[must_use]
    pub fn counting(&self, lease: LeaseId) -> Self {
        let mut after = self.clone();
        if !after.leases.contains(&lease) && after.leases.len() < MOST as usize {
            after.leases.push(lease);
        }
        after
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::Id;

    fn lease(number: u8) -> LeaseId {
        Id::from_bytes([number; 16])
    }

    /// What happens to a credential's leases.
    #[derive(Clone, Debug)]
    enum Step {
        /// Somebody asks for a first lease.
        Ask,
        /// One of those that stand ends, however.
        End(usize),
        /// One that stands is replaced by another of the same holder.
        Replace(usize),
        /// An admin says another cap; `None`: the usual one.
        Set(Option<u32>),
        /// One that stood before there was a cap is handed out again.
        Count,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Ask),
            4 => any::<usize>().prop_map(Step::End),
            1 => any::<usize>().prop_map(Step::Replace),
            1 => prop::option::of(1_u32..6).prop_map(Step::Set),
            1 => Just(Step::Count),
        ]
    }

    proptest! {
        // req: C9
        /// However leases come and go: exactly as many stand as may, nobody is refused while there is room, and the
        /// list does not grow with what has ended.
        #[test]
        fn exactly_as_many_stand_as_may(steps in prop::collection::vec(step(), 0..120), usual in 1_u32..5) {
            let (mut parallel, mut standing, mut next) = (Parallel::default(), BTreeSet::new(), 0_u8);
            let (mut longest, mut counted) = (0, 0);
            for step in steps {
                next += 1;
                let pick = |at: usize| standing.iter().copied().nth(at % standing.len().max(1));
                match step {
                    Step::Ask => {
                        let cap = parallel.cap(usual) as usize;
                        if parallel.room(None, usual) == Room::AllListed {
                            parallel = parallel.without(|lease| standing.contains(&lease));
                        }
                        match parallel.taken(lease(next), None, usual) {
                            Ok(after) => {
                                prop_assert!(standing.len() < cap);
                                parallel = after;
                                standing.insert(lease(next));
                            }
                            Err(Full) => prop_assert!(standing.len() >= cap, "refused with room"),
                        }
                    }
                    Step::End(at) => {
                        if let Some(ended) = pick(at) {
                            standing.remove(&ended);
                        }
                    }
                    Step::Replace(at) => {
                        if let Some(before) = pick(at) {
                            parallel = parallel.taken(lease(next), Some(before), usual).unwrap();
                            standing.remove(&before);
                            standing.insert(lease(next));
                        }
                    }
                    Step::Set(cap) => parallel.cap = cap,
                    Step::Count => {
                        parallel = parallel.counting(lease(next));
                        standing.insert(lease(next));
                        counted += 1;
                    }
                }
                longest = longest.max(parallel.cap(usual) as usize);
                for stands in &standing {
                    prop_assert_eq!(parallel.room(Some(*stands), usual), Room::Held);
                }
                prop_assert!(parallel.leases.len() <= longest + counted);
            }
        }
    }

    #[test]
    fn who_waits_comes_again_when_the_first_lease_ends_or_within_a_minute() {
        let now = Time::from_millis(1_700_000_000_000);
        for (ends_in, again) in [(0, 1), (1, 1), (25, 25), (60, 60), (3_600, 60)] {
            let next = now + Duration::from_secs(ends_in);
            assert_eq!(come_again(next, now), Duration::from_secs(again));
        }
        assert_eq!(come_again(now, now + LATEST), SOONEST);
    }

    #[test]
    fn no_cap_is_past_what_the_list_takes() {
        let parallel = Parallel {
            cap: Some(u32::MAX),
            ..Parallel::default()
        };
        assert_eq!(parallel.cap(3), MOST);
        let full = (0..MOST).fold(parallel, |parallel, number| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            parallel.taken(Id::from_bytes(bytes), None, 3).unwrap()
        });
        assert_eq!(full.taken(lease(255), None, 3), Err(Full));
        assert_eq!(full.counting(lease(255)).leases.len(), MOST as usize);
    }
}
