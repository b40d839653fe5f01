//! What the answer to a revocation means (RFC 7009 section 2.2).
//!
//! A revocation can be asked for again without harm, so nothing here is ambiguous: what is not certain is not now.

use std::time::Duration;

use super::{Body, Said};
use crate::domain::secret::{RawAnswer, Secret};
use crate::upstream::connector::Connector;

/// What the answer to a revocation means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationAnswer {
    /// The token does not work any more, or never did: a server says the same of a token that it does not know
    /// (RFC 7009 section 2.2).
    Revoked,
    /// The server does not revoke this sort of token (`unsupported_token_type`, RFC 7009 section 2.2.1). It works until
    /// it expires.
    Unsupported {
        /// The provider's code.
        code: String,
    },
    /// Not now; the same may be sent again. A client that the server does not know is a fault of the configuration,
    /// which may be mended.
    NotNow {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// The provider's words: redacted, at most [`MAX_MESSAGE`](super::MAX_MESSAGE) characters.
        message: String,
    },
    /// The server will not have it, from this client or in this form. Sent again as it is, it will be refused again.
    Refused {
        /// The provider's code, or `http_STATUS` where it has none.
        code: String,
        /// The provider's words: redacted and bounded.
        message: String,
    },
}

/// RFC 7009 section 2.2.1.
const UNSUPPORTED: &str = "unsupported_token_type";
/// Errors that blame who the client is and not what it asks for (RFC 6749 section 5.2).
const CLIENT_ONLY: [&str; 2] = ["invalid_client", "unauthorized_client"];

/// What an answer of `status` with this `body` to a revocation means.
pub fn classify_revocation(
    connector: &Connector,
    status: u16,
    retry_after: Option<Duration>,
    body: &Secret<RawAnswer>,
) -> RevocationAnswer {
    let body = Body::parse(body);
    let said = body.map_or_else(
        || Said::nothing(status),
        |body| Said::of(connector, status, &body),
    );
    let success = (200..300).contains(&status);
    if said.decided && said.listed(&connector.revoked_errors).is_some() {
        return RevocationAnswer::Revoked;
    }
    if said.decided && said.says(UNSUPPORTED) {
        let code = UNSUPPORTED.to_owned();
        return RevocationAnswer::Unsupported { code };
    }
    if said.unprocessed(connector) {
        let message = said.message;
        return RevocationAnswer::NotNow { retry_after, message };
    }
    // Success is told by the status alone, and the body is of no meaning, but for a server that puts errors there.
    if success && (!said.heard || said.codes.is_empty()) {
        return RevocationAnswer::Revoked;
    }
    // A fault of the configuration: the same is taken once that is mended, and a token that is given up is lost by then.
    if let Some(code) = said
        .client_fault()
        .filter(|code| CLIENT_ONLY.contains(&code.as_str()))
    {
        let message = if said.message.is_empty() || said.message == code {
            code
        } else {
            format!("{code}: {}", said.message)
        };
        return RevocationAnswer::NotNow { retry_after, message };
    }
    if success || said.refuses() || (300..400).contains(&status) {
        let (code, message) = (said.code(), said.message);
        return RevocationAnswer::Refused { code, message };
    }
    RevocationAnswer::NotNow {
        retry_after,
        message: said.with_status(),
    }
}
