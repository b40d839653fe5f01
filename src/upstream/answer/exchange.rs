//! What the answer to a code exchange means (RFC 6749 sections 4.1.4 and 5.2).
//!
//! Nothing exists yet that could be lost: a code is good for one exchange, and whoever signs in again gets another. So a
//! server that refuses is believed without its connector listing the code, and no answer says anything of a grant.

use std::time::Duration;

use super::{Body, Granted, Said, granted};
use crate::domain::secret::{RawAnswer, RefreshToken, Secret};
use crate::upstream::connector::Connector;

/// What the answer to a code exchange means.
pub enum ExchangeAnswer {
    /// Tokens.
    Granted(Granted),
    /// A refresh token without an access token, which a refresh brings.
    RefreshOnly(Secret<RefreshToken>),
    /// The code is refused: it was used or is too old, or was not for this client or redirect. Only a new sign-in
    /// brings another.
    Refused {
        /// The provider's code, or `http_STATUS` where it has none.
        code: String,
        /// The provider's words: redacted, at most [`MAX_MESSAGE`](super::MAX_MESSAGE) characters.
        message: String,
    },
    /// The server rejects this client or this sort of request (RFC 6749 section 5.2); the connector's configuration has
    /// to be mended before another sign-in is of use.
    Misconfigured {
        /// The provider's code.
        code: String,
        /// The provider's words: redacted and bounded.
        message: String,
    },
    /// Nothing happened; the same code may be sent again, as long as it lives.
    NotProcessed {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// The provider's words: redacted and bounded.
        message: String,
    },
    /// It cannot be told what became of the code. Sent again, it may be taken for a replay, which revokes what it
    /// brought (RFC 6749 section 4.1.2).
    Ambiguous {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// What was seen: redacted and bounded.
        message: String,
    },
}

/// What an answer of `status` with this `body` to a code exchange means; also that to a poll of a device flow that
/// [`classify_device`](super::classify_device) calls granted.
pub fn classify_exchange(
    connector: &Connector,
    status: u16,
    retry_after: Option<Duration>,
    body: &Secret<RawAnswer>,
) -> ExchangeAnswer {
    let parsed = Body::parse(body);
    let said = match parsed {
        None => Said::nothing(status),
        Some(mut body) => {
            let success = (200..300).contains(&status);
            if success && let Some(access_token) = body.take_access_token() {
                return ExchangeAnswer::Granted(granted(connector, access_token, &mut body));
            }
            if success && let Some(refresh_token) = body.take_refresh_token() {
                return ExchangeAnswer::RefreshOnly(refresh_token);
            }
            Said::of(connector, status, &body)
        }
    };
    if said.unprocessed(connector) {
        let message = said.message;
        return ExchangeAnswer::NotProcessed { retry_after, message };
    }
    if let Some(code) = said.client_fault().filter(|_| said.decided) {
        let message = said.message;
        return ExchangeAnswer::Misconfigured { code, message };
    }
    if said.refuses() {
        let (code, message) = (said.code(), said.message);
        return ExchangeAnswer::Refused { code, message };
    }
    ExchangeAnswer::Ambiguous {
        retry_after,
        message: said.with_status(),
    }
}
