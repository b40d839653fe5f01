//! How exchanges with providers are paced: how long to pause after one that failed, when to leave a provider
//! alone altogether ([`breaker`]), and when to refresh before anybody has to wait ([`ahead`]).
//!
//! All of it is decided from what is passed in: times, what was heard, and a random fraction. Three promises:
//! no pause is longer than [`PAUSE_MAX`]; whatever the clock does, nothing is stopped for longer than its
//! longest pause; nobody who pauses does so in step with everybody else.

pub mod ahead;
pub mod breaker;

use std::time::Duration;

use super::rotation::AMBIGUOUS_REST_MAX;

/// The longest that is chosen from after a first failure; doubled with each further one.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The shortest pause: what jitter chooses below it would be no pause.
pub const PAUSE_LEAST: Duration = Duration::from_millis(100);
/// The longest pause of any kind, also of those that a provider asks for: whoever asks for more is asked again
/// every five minutes, by one exchange.
pub const PAUSE_MAX: Duration = AMBIGUOUS_REST_MAX;

/// How long a credential pauses after an exchange that was not processed, where `failures` went before it.
///
/// What the provider asks for with `Retry-After` (RFC 9110 section 10.2.3) is taken as it is. Otherwise the pause is
/// chosen evenly between nothing and a ceiling that doubles (full jitter), by `fraction`, from 0 to 1. `Retry-After: 0`
/// asks for nothing: a provider that fails and says so all the same is not asked again at once.
pub fn back_off(failures: u32, fraction: f64, retry_after: Option<Duration>) -> Duration {
    match retry_after {
        Some(after) if !after.is_zero() => after.clamp(PAUSE_LEAST, PAUSE_MAX),
        _ => part(doubled(PAUSE_FIRST, failures), fraction).max(PAUSE_LEAST),
    }
}

/// `first`, doubled so many `times`, at most [`PAUSE_MAX`].
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(PAUSE_MAX)
}

/// The part of `whole` that a random fraction names. What is no fraction counts as the whole: the careful side.
fn part(whole: Duration, fraction: f64) -> Duration {
    if (0.0..1.0).contains(&fraction) {
        whole.mul_f64(fraction)
    } else {
        whole
    }
}

/// How long to tell a caller to wait for what is to happen `after` so long: a little more, and not the same for all, so
/// that those who were refused together do not come back together. At most a quarter and five seconds more.
pub fn come_back(after: Duration, fraction: f64) -> Duration {
    let more = (after / 4).clamp(PAUSE_LEAST, Duration::from_secs(5));
    (after + part(more, fraction)).max(PAUSE_LEAST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
