//! When a token that is in use is refreshed before anybody has to wait for it.
//!
//! Tokens that were issued together expire together. Each is due at a time of its own inside a window that ends before
//! the moment at which callers would have to wait (the expiry less the connector's lead). Where in the window is a hash
//! of credential and generation: the same after a restart, the same on every node, and another for the next generation.

use std::time::Duration;

use crate::domain::id::CredentialId;
use crate::domain::time::Time;

/// The window is at most this part of a token's life.
const SHARE: u32 = 4;
/// This part of the window, its last, stays empty: an exchange begun at its end is over when callers would notice.
const MARGIN: u32 = 10;

/// When to refresh a token that was issued at `refreshed` and ends at `expires`.
///
/// Never in the first half of its life, so that no lead wears a grant out; `window` bounds how far ahead it is of what
/// callers would notice. `None` where it had no life at all.
pub fn due(refreshed: Time, expires: Time, lead: Duration, window: Duration, spread: u64) -> Option<Time> {
    let life = expires.since(refreshed);
    if life.is_zero() {
        return None;
    }
    let noticed = life.saturating_sub(lead);
    let first = noticed.saturating_sub(window.min(life / SHARE)).max(life / 2);
    let room = noticed.saturating_sub(first);
    let room = (room - room / MARGIN).as_millis();
    let into = (room * u128::from(spread)) >> u64::BITS;
    let into = Duration::from_millis(u64::try_from(into).unwrap_or(u64::MAX));
    Some(refreshed + first + into)
}

/// Where in its window a generation is due, evenly spread over all that there are.
pub fn spread(credential: CredentialId, generation: u64) -> u64 {
    let halves = credential.as_bytes().split_at(8);
    let [high, low] = [halves.0, halves.1].map(|half| {
        half.iter()
            .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
    });
    mix(high ^ mix(low ^ mix(generation)))
}

/// The finalizer of SplitMix64: every bit of the input moves about half of the output's.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
