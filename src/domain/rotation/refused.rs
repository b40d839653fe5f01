//! What a provider's refusal makes of a grant: what our own history explains is its death, what nothing explains is
//! somebody else's doing.

use super::{Phase, Sent};
use crate::domain::time::Time;

/// How a grant died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The provider refused a refresh token that it never replaces: the grant was taken back.
    Refused,
    /// The provider refused a resend: the answer to the first was lost on its way to us.
    AnswerLost,
    /// The grant had reached the end of its own life.
    Expired,
    /// The provider says that the grant was taken back.
    Withdrawn,
}

/// What a provider's refusal says of its cause, as the connector reads the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing: `invalid_grant` stands for all of them (RFC 6749 section 5.2).
    #[default]
    Nothing,
    /// The refresh token is too old.
    Expired,
    /// The refresh token was used before.
    Reused,
    /// The grant was taken back.
    Withdrawn,
}

/// A provider's refusal of a grant, with what is known that may explain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the provider said.
    pub message: String,
    /// What that says of the cause.
    pub told: Told,
    /// Whether the provider replaces refresh tokens when they are used.
    pub rotates: bool,
    /// When the refresh token's own life ends, where the provider told.
    pub expires: Option<Time>,
}

impl Refused {
    /// Where the refusal of a refresh token that was `sent` before leaves the grant. What our own sendings, its
    /// age or the provider's words explain is its death; what nothing explains is somebody else's doing.
    pub(super) fn phase(self, sent: Sent, since: Time) -> Phase {
        let over = self.expires.is_some_and(|expires| expires <= since);
        let cause = match self.told {
            Told::Expired => Some(Death::Expired),
            // Whatever it says of a resend: the first sending may have been what it speaks of.
            _ if self.rotates && sent.unanswered > 0 => Some(Death::AnswerLost),
            Told::Withdrawn => Some(Death::Withdrawn),
            Told::Nothing if over => Some(Death::Expired),
            Told::Nothing if !self.rotates => Some(Death::Refused),
            Told::Nothing | Told::Reused => None,
        };
        let message = self.message;
        match cause {
            Some(cause) => Phase::Dead {
                since,
                cause,
                message,
            },
            None => Phase::Quarantined { since, message },
        }
    }
}
