//! When a refresh token is sent again whose answer was lost.

use std::time::Duration;

use super::Sent;
use crate::domain::time::Time;

/// How long an ambiguous grant rests before its refresh token is sent again, doubled each time. Long enough
/// for an answer that is still under way to be given up by both sides.
pub const AMBIGUOUS_REST: Duration = Duration::from_secs(2);
/// How long it rests where sending it again is harmless: long enough not to hammer at a server that fails, short
/// enough to be well inside of any grace window.
pub const HARMLESS_REST: Duration = Duration::from_millis(250);
/// The longest such rest, and the longest pause of any kind.
pub const AMBIGUOUS_REST_MAX: Duration = Duration::from_secs(300);

/// What the connector says about sending a refresh token twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResendRule {
    /// Whether the provider rotates refresh tokens at all. Where it does not, sending again is harmless.
    pub rotates: bool,
    /// For how long after a rotation the provider answers the earlier refresh token again.
    pub grace: Option<Duration>,
}

impl ResendRule {
    /// For a connector of which nothing is known.
    pub const CAREFUL: Self = Self {
        rotates: true,
        grace: None,
    };

    /// Whether what was `sent` may be sent once more at `at` without any harm.
    pub fn harmless(self, sent: Sent, at: Time) -> bool {
        let in_grace = |grace| at >= sent.first && at < sent.first + grace;
        !self.rotates || self.grace.is_some_and(in_grace)
    }

    /// How long what was `sent` and not answered rests from `now`. What the provider asks for holds, but for what it
    /// would let a grace window pass.
    pub(super) fn rest(self, sent: Sent, retry_after: Option<Duration>, now: Time) -> Duration {
        let doubled = |rest: Duration| rest.saturating_mul(1 << sent.unanswered.min(16));
        let asked = retry_after.unwrap_or_default();
        let short = doubled(HARMLESS_REST);
        let patient = short.max(asked).min(AMBIGUOUS_REST_MAX);
        let harmless = |rest| self.harmless(sent, now + rest);
        if harmless(patient) {
            patient
        } else if harmless(short) {
            short
        } else {
            doubled(AMBIGUOUS_REST).max(asked).min(AMBIGUOUS_REST_MAX)
        }
    }
}
