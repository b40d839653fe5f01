//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::domain::time::Time;

/// The longest wait believed.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long to wait, at most a day; `None` where it is not said or not understood.
pub(in crate::upstream) fn parse(headers: &HeaderMap, now: Time) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits to parse is a long wait, not none.
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
        Time::from_seconds(at).since(now)
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str, now: i64) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        parse(&headers, Time::from_seconds(now))
    }

    #[test]
    fn seconds_and_dates_are_understood_and_bounded() {
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(at("120", 0), Some(Duration::from_secs(120)));
        assert_eq!(at("99999999999999999999999", 0), day);
        // RFC 9110 section 5.6.7 gives this date; it is 784111777 seconds after the epoch.
        assert_eq!(
            at("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_747),
            Some(Duration::from_secs(30))
        );
        assert_eq!(
            at("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_999),
            Some(Duration::ZERO)
        );
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT", 0), day);
        assert_eq!(at("soon", 0), None);
        assert_eq!(at("-1", 0), None);
        assert_eq!(at("", 0), None);
    }
}
