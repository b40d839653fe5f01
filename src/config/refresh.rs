//! `[refresh]`: how grants are kept alive.

use std::time::Duration;

use super::raw;

/// `[refresh]`.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// How long one exchange with a provider may take.
    pub exchange_timeout: Duration,
    /// Exchanges at a time, over all credentials.
    pub max_concurrent_exchanges: usize,
    /// Exchanges at a time of one connector; never 0.
    pub max_concurrent_exchanges_per_connector: usize,
    /// Callers waiting for exchanges, over all credentials; the next is refused as overload.
    pub max_waiters: usize,
    /// What a lease promises where the caller does not say.
    pub minimum_remaining_default: Duration,
    /// Forced rotations of one credential, an hour.
    pub forced_rotations_per_hour_per_credential: u32,
    /// Forced rotations one agent or API key may cause, an hour.
    pub forced_rotations_per_hour_per_agent: u32,
    /// Fresh tokens of one lease that are replaced when they are rejected one after the other.
    pub rejections_in_a_row: u32,
    /// Whether tokens in use are refreshed before anybody has to wait for it.
    pub ahead: bool,
    /// Over how long a time such refreshes are spread at most.
    pub ahead_window: Duration,
}

/// What a connector may have at a time where it is not said: this part of the whole.
const PART: usize = 4;

pub(super) fn refresh(raw: &raw::Refresh) -> Refresh {
    let all = raw.max_concurrent_exchanges;
    Refresh {
        exchange_timeout: raw.exchange_timeout.0,
        max_concurrent_exchanges: all,
        max_concurrent_exchanges_per_connector: match raw.max_concurrent_exchanges_per_connector {
            0 => all.div_ceil(PART),
            said => said,
        },
        max_waiters: raw.max_waiters,
        minimum_remaining_default: raw.minimum_remaining_default.0,
        forced_rotations_per_hour_per_credential: raw.forced_rotations_per_hour_per_credential,
        forced_rotations_per_hour_per_agent: raw.forced_rotations_per_hour_per_agent,
        rejections_in_a_row: raw.rejections_in_a_row,
        ahead: raw.ahead,
        ahead_window: raw.ahead_window.0,
    }
}
