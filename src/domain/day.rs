//! A day of the UTC calendar: what quotas are for and sums are by.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;

use super::time::Time;

const MILLIS: i64 = 86_400_000;
const EPOCH: Date = Date::constant(1970, 1, 1);

/// A day, counted from 1970-01-01. Shown as `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// A text that names no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a day is written YYYY-MM-DD, from 1970-01-01 on")]
pub struct NoDay;

impl Day {
    /// The day that `time` is in.
    pub fn of(time: Time) -> Day {
        Day(u32::try_from(time.millis().div_euclid(MILLIS)).unwrap_or(0))
    }

    /// The day so many days earlier; never before the first.
    #[must_use]
    pub fn before(self, days: u32) -> Day {
        Day(self.0.saturating_sub(days))
    }

    /// Its first moment.
    pub fn begins(self) -> Time {
        Time::from_millis(i64::from(self.0) * MILLIS)
    }

    /// The first moment after it.
    pub fn ends(self) -> Time {
        self.begins() + Duration::from_secs(86_400)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A span of more days than the calendar has is none.
        let span = jiff::Span::new().try_days(i64::from(self.0));
        match span.and_then(|span| EPOCH.checked_add(span)) {
            Ok(date) => write!(f, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

impl FromStr for Day {
    type Err = NoDay;

    fn from_str(text: &str) -> Result<Self, NoDay> {
        let plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let date: Date = text
            .parse()
            .ok()
            .filter(|date: &Date| plain && *date >= EPOCH)
            .ok_or(NoDay)?;
        let days = EPOCH.until(date).map_err(|_| NoDay)?.get_days();
        u32::try_from(days).map(Day).map_err(|_| NoDay)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (number, text) in [
            (0, "1970-01-01"),
            (19_782, "2024-02-29"),
            (20_818, "2026-12-31"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(Day(number).to_string(), text);
            assert_eq!(text.parse(), Ok(Day(number)));
        }
        assert_eq!(Day(u32::MAX).to_string(), "day 4294967295");
        for text in [
            "",
            "1969-12-31",
            "2025-02-29",
            "2025-1-1",
            "2025-01-01T00:00:00",
            "+2025-01-01",
        ] {
            assert_eq!(text.parse::<Day>(), Err(NoDay), "{text}");
        }
    }

    #[test]
    fn a_day_ends_where_the_next_begins() {
        let day = Day(20_000);
        assert_eq!(Day::of(day.begins()), day);
        assert_eq!(Day::of(Time::from_millis(day.ends().millis() - 1)), day);
        assert_eq!(Day::of(day.ends()), Day(20_001));
        assert_eq!(day.before(1).ends(), day.begins());
    }
}
