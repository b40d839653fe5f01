//! Reports that the provider rejects what was handed out: how many in a row are answered with a new generation, and
//! how many rotations they may force.
//!
//! Two limits, for two cases. A *row* belongs to a lease: tokens that the provider issues and then rejects, one after
//! the other, are not mended by one more. A *window* belongs to a credential, or to whoever reports: however many
//! leases somebody holds, a grant is rotated by force only so often an hour. Both are stored, so that a restart
//! forgives nothing.

use std::time::Duration;

use super::lease::{Handed, Holder};
use super::time::Time;

/// A generation that is rejected so long after it was handed out had worked: its rejection is the first of a row.
pub const LASTED: Duration = Duration::from_secs(300);
/// How long the rejections of a row count together, from the first of them.
pub const ROW: Duration = Duration::from_secs(600);
/// How long forced rotations count together.
pub const WINDOW: Duration = Duration::from_secs(3_600);
/// How long it is told that a holder ended with tokens that are rejected.
pub const TOLD: Duration = Duration::from_secs(86_400);
/// How many such holders are told of a credential.
pub const MAX_FAILING: usize = 8;
/// How many holders' shares of a credential's window are counted one by one. All others have one share together.
pub const MAX_SHARES: usize = 8;

/// Fresh generations that one lease reported as rejected, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// How many of them.
    pub count: u32,
    /// When the first was reported.
    pub since: Time,
    /// The newest of them.
    pub generation: u64,
}

impl Row {
    /// The row that a report of `generation` leads to. `handed` is what the lease last handed out, `connected` the
    /// generation with which the present grant was put in place, 0 where that is long ago.
    pub fn after(
        before: Option<Row>,
        generation: u64,
        handed: Option<Handed>,
        connected: u64,
        now: Time,
    ) -> Row {
        let first = Row {
            count: 1,
            since: now,
            generation,
        };
        let Some(row) = before else {
            return first;
        };
        // A report that is repeated, because its answer was lost, counts once.
        if generation <= row.generation {
            return row;
        }
        // The clock was put back: nothing is known of the time between.
        let over = now < row.since || row.since + ROW <= now;
        let replaced = connected > row.generation;
        let lasted = handed
            .filter(|handed| handed.generation == generation)
            .is_some_and(|handed| handed.at.is_none_or(|at| at + LASTED <= now));
        if over || replaced || lasted {
            return first;
        }
        Row {
            count: row.count.saturating_add(1),
            since: row.since,
            generation,
        }
    }
}

/// Forced rotations that count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When the first was forced.
    pub began: Time,
    /// How many were.
    pub count: u32,
}

impl Window {
    /// One that begins now.
    pub const fn beginning(now: Time) -> Window {
        Window { began: now, count: 0 }
    }

    /// With one more, or how long to wait until there may be one more.
    pub fn with_one_more(self, limit: u32, now: Time) -> Result<Window, Duration> {
        // One that begins later than now was begun before the clock was put back: it would last until the clock is
        // there again.
        let over = now < self.began || self.began + WINDOW <= now;
        let began = if over { now } else { self.began };
        let count = if over { 0 } else { self.count };
        if count >= limit {
            return Err((began + WINDOW).since(now));
        }
        Ok(Window {
            began,
            count: count + 1,
        })
    }
}

/// What reports of rejections have done to a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Its forced rotations.
    pub window: Window,
    /// The newest generation that was replaced by force; 0 where none was.
    pub generation: u64,
    /// The generation with which the present grant was put in place; 0 where it is the first.
    pub connected: u64,
    /// Who ended with tokens that are rejected, oldest first.
    pub failing: Vec<Failing>,
    /// Who forced the rotations of the window; `None` while nobody did, and of a window that was begun before that
    /// was counted.
    pub shares: Option<Vec<Share>>,
}

/// How many of a window's rotations a holder forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub holder: Holder,
    /// How many.
    pub count: u32,
}

/// Why a rotation may not be forced now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// The credential has had all of its window.
    Credential(Duration),
    /// The holder has had its half.
    Share(Duration),
}

/// A holder that was told `REAUTH_FAILED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Who.
    pub holder: Holder,
    /// When first, in the row that led there.
    pub at: Time,
}

impl Forced {
    /// Nothing was forced yet.
    pub const fn none(now: Time) -> Forced {
        Forced {
            window: Window::beginning(now),
            generation: 0,
            connected: 0,
            failing: Vec::new(),
            shares: None,
        }
    }

    /// With one more rotation, forced by `holder` on `generation`; or why not, and how long to wait. No holder has
    /// more than half of the window, rounded up, so that whoever reports everything leaves others something.
    pub fn with_one_more(
        &self,
        holder: Holder,
        generation: u64,
        limit: u32,
        now: Time,
    ) -> Result<Forced, Limited> {
        let window = self
            .window
            .with_one_more(limit, now)
            .map_err(Limited::Credential)?;
        let begins = window.count == 1;
        let mut shares = self.shares.clone().filter(|_| !begins).unwrap_or_default();
        let listed = shares.iter().position(|share| share.holder == holder);
        let had = match listed {
            Some(at) => shares[at].count,
            None if shares.len() < MAX_SHARES => 0,
            // Those who are not listed have one share together.
            None => (window.count - 1).saturating_sub(shares.iter().map(|share| share.count).sum()),
        };
        if had >= limit.div_ceil(2) {
            return Err(Limited::Share((window.began + WINDOW).since(now)));
        }
        match listed {
            Some(at) => shares[at].count += 1,
            None if shares.len() < MAX_SHARES => shares.push(Share { holder, count: 1 }),
            None => {}
        }
        Ok(Forced {
            window,
            generation,
            shares: Some(shares),
            ..self.clone()
        })
    }

    /// A new grant took the place of the old, as `generation`: what was is forgotten.
    pub fn connected(generation: u64, now: Time) -> Forced {
        Forced {
            connected: generation,
            ..Forced::none(now)
        }
    }

    /// With a holder that failed; `None` where it is in there already since `row`.
    pub fn with_failing(&self, holder: Holder, row: Row, now: Time) -> Option<Forced> {
        let known = |failing: &Failing| failing.holder == holder && failing.at >= row.since;
        if self.failing.iter().any(known) {
            return None;
        }
        let mut forced = self.clone();
        forced.failing.retain(|failing| failing.holder != holder);
        forced.failing.push(Failing { holder, at: now });
        let excess = forced.failing.len().saturating_sub(MAX_FAILING);
        forced.failing.drain(..excess);
        Some(forced)
    }

    /// Who failed lately.
    pub fn failing(&self, now: Time) -> impl Iterator<Item = Failing> {
        self.failing
            .iter()
            .copied()
            .filter(move |failing| failing.at <= now && now < failing.at + TOLD)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn at(seconds: u64) -> Time {
        Time::from_millis(1_000_000_000) + Duration::from_secs(seconds)
    }

    fn handed(generation: u64, seconds: u64) -> Option<Handed> {
        Some(Handed {
            generation,
            expires: None,
            at: Some(at(seconds)),
        })
    }

    #[test]
    fn generations_that_are_rejected_at_once_make_a_row() {
        let one = Row::after(None, 2, handed(2, 0), 0, at(400));
        let two = Row::after(Some(one), 3, handed(3, 400), 0, at(401));
        let three = Row::after(Some(two), 4, handed(4, 401), 0, at(402));
        assert_eq!((one.count, two.count, three.count), (1, 2, 3));
        assert_eq!((three.since, three.generation), (at(400), 4));
        assert_eq!(
            Row::after(Some(three), 4, handed(5, 402), 0, at(403)),
            three,
            "repeated"
        );
        assert_eq!(
            Row::after(Some(three), 2, handed(5, 402), 0, at(403)),
            three,
            "stale"
        );
    }

    #[test]
    fn what_lasted_and_time_and_a_new_grant_begin_anew() {
        let row = Some(Row {
            count: 3,
            since: at(0),
            generation: 4,
        });
        let after = |handed, connected, now| Row::after(row, 5, handed, connected, now).count;
        assert_eq!(after(handed(5, 10), 0, at(309)), 4);
        assert_eq!(after(handed(5, 10), 0, at(310)), 1, "it lasted");
        // Whoever reports what was not handed to it cannot say that it lasted.
        assert_eq!(after(handed(4, 10), 0, at(599)), 4);
        assert_eq!(after(handed(5, 500), 0, at(599)), 4);
        assert_eq!(after(handed(5, 500), 0, at(600)), 1, "long ago");
        assert_eq!(after(handed(5, 10), 4, at(20)), 4, "the grant of before");
        assert_eq!(after(handed(5, 10), 5, at(20)), 1, "a new grant");
    }

    #[test]
    fn a_window_holds_for_an_hour_and_for_no_longer_whatever_the_clock_does() {
        let mut window = Window::beginning(at(0));
        for _ in 0..2 {
            window = window.with_one_more(2, at(10)).unwrap();
        }
        assert_eq!(window.with_one_more(2, at(600)), Err(Duration::from_secs(3_000)));
        let put_back = Time::from_millis(1_000_000_000 - 86_400_000);
        let mut again = window;
        for _ in 0..2 {
            again = again.with_one_more(2, put_back).unwrap();
        }
        assert_eq!(again.began, put_back);
        assert_eq!(again.with_one_more(2, put_back), Err(WINDOW));
        let later = put_back + WINDOW;
        assert_eq!(again.with_one_more(2, later).unwrap().count, 1);
        assert_eq!(window.with_one_more(2, at(3_600)).unwrap().count, 1);
    }

    #[test]
    fn no_holder_has_more_than_half_of_a_window() {
        let holder = |n| Holder::Agent(Id::from_bytes([n; 16]));
        let forced_by = |mut forced: Forced, n: u8, limit: u32, now: Time| {
            let mut count = 0;
            loop {
                match forced.with_one_more(holder(n), forced.generation + 1, limit, now) {
                    Ok(more) => (forced, count) = (more, count + 1),
                    Err(limited) => return (forced, count, limited),
                }
            }
        };
        let hour = Duration::from_secs(3_600);
        for (limit, half) in [(1, 1), (2, 1), (5, 3), (6, 3)] {
            let (forced, count, limited) = forced_by(Forced::none(at(0)), 1, limit, at(0));
            assert_eq!(count, half, "{limit}");
            let whole = if half == limit {
                Limited::Credential(hour)
            } else {
                Limited::Share(hour)
            };
            assert_eq!(limited, whole);
            let (forced, count, limited) = forced_by(forced, 2, limit, at(1));
            assert_eq!((count, forced.window.count), (limit - half, limit));
            assert_eq!(limited, Limited::Credential(hour - Duration::from_secs(1)));
            // The next window is everybody's again.
            assert_eq!(forced_by(forced, 1, limit, at(3_600)).1, half);
        }
        // However many there are, those that are not listed have no more than one of them would.
        let mut forced = Forced::none(at(0));
        for n in 0..8 {
            forced = forced.with_one_more(holder(n), 2, 100, at(0)).unwrap();
        }
        let total: u32 = (8..40)
            .map(|n| {
                let (next, count, _) = forced_by(forced.clone(), n, 100, at(0));
                forced = next;
                count
            })
            .sum();
        assert_eq!((total, forced.shares.as_ref().unwrap().len()), (50, MAX_SHARES));
        assert_eq!(forced_by(forced, 0, 100, at(0)).1, 42);
    }

    #[test]
    fn holders_that_fail_are_told_once_each_and_not_for_ever() {
        let row = Row {
            count: 3,
            since: at(0),
            generation: 4,
        };
        let holder = |n| Holder::Agent(Id::from_bytes([n; 16]));
        let mut forced = Forced::none(at(0));
        for n in 0..=8 {
            forced = forced.with_failing(holder(n), row, at(u64::from(n))).unwrap();
            assert_eq!(forced.with_failing(holder(n), row, at(9)), None);
        }
        assert_eq!(forced.failing.len(), MAX_FAILING);
        assert_eq!(forced.failing[0].holder, holder(1), "the newest are kept");
        assert_eq!(forced.failing(at(9)).count(), MAX_FAILING);
        assert_eq!(forced.failing(at(86_404)).count(), 4);
        assert_eq!(Forced::connected(9, at(10)).failing(at(10)).count(), 0);
    }
}
