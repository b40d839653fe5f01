//! What a token endpoint's answer means, decided purely from the connector's data.
//!
//! The rule (RFC 6749 section 5, and what servers make of it): an access token in a 2xx is a grant, whatever
//! else the body says, and a refresh token alone is a rotation; what the connector documents as unprocessed was
//! not processed; a documented permanent error is a refusal; an error that blames the client is a
//! misconfiguration and says nothing about the grant; everything else is ambiguous, because the request was
//! sent and nothing proves what it did. Nothing a provider wrote leaves here unredacted or unbounded.

mod body;
mod device;
mod exchange;
mod revocation;

use std::time::Duration;

use super::connector::{CLIENT_FAULTS, Connector, ErrorCause, ExpirySource, Quirk};
use super::redact;
use crate::domain::rotation::Told;
use crate::domain::secret::{AccessToken, RawAnswer, RefreshToken, Secret};
use crate::domain::time::Time;
use body::Body;
pub(super) use device::begun;
pub use device::{DeviceAnswer, classify_device};
pub use exchange::{ExchangeAnswer, classify_exchange};
pub use revocation::{RevocationAnswer, classify_revocation};

/// What an answer means.
pub enum Answer {
    /// New tokens. They replace the old ones at once.
    Granted(Granted),
    /// A new refresh token without an access token. The refresh token replaces the old one at once; then
    /// refresh again.
    Rotated(Secret<RefreshToken>),
    /// The grant is dead, as the connector documents it: only a new sign-in helps.
    Refused {
        /// The provider's code, or `http_STATUS` where the status alone decided.
        code: String,
        /// What the code says of why.
        told: Told,
        /// The provider's words: redacted, at most [`MAX_MESSAGE`] characters.
        message: String,
    },
    /// Nothing happened; the same refresh token may be sent again later.
    NotProcessed {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// The provider's words: redacted, at most [`MAX_MESSAGE`] characters.
        message: String,
    },
    /// The server rejects this client or this sort of request (RFC 6749 section 5.2). The grant is as it
    /// was; the connector's configuration has to be mended.
    Misconfigured {
        /// The provider's code.
        code: String,
        /// The provider's words: redacted, at most [`MAX_MESSAGE`] characters.
        message: String,
    },
    /// It cannot be told what happened to the grant.
    Ambiguous {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// What was seen: redacted, at most [`MAX_MESSAGE`] characters.
        message: String,
    },
}

/// New tokens.
pub struct Granted {
    /// The access token.
    pub access_token: Secret<AccessToken>,
    /// The new refresh token; `None` keeps the old one (RFC 6749 section 6).
    pub refresh_token: Option<Secret<RefreshToken>>,
    /// When the access token ends; `None` where the server does not tell.
    pub expiry: Option<Expiry>,
    /// How long the refresh token lasts, where the server tells.
    pub refresh_expires_in: Option<Duration>,
    /// The scopes granted; `None` where they are those asked for (RFC 6749 section 5.1).
    pub scopes: Option<Vec<String>>,
    /// The token's type as the server wrote it (RFC 6749 section 7.1); `Bearer` where it left it out.
    pub token_type: String,
    /// What it tells of the account, by the connector's labels. No secrets.
    pub account: Vec<(String, String)>,
}

/// When an access token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So long after the answer was received.
    In(Duration),
    /// At this time by the provider's clock.
    At(Time),
}

impl Expiry {
    /// The point in time, for an answer received at `now`.
    pub fn at(self, now: Time) -> Time {
        match self {
            Expiry::In(life) => now + life,
            Expiry::At(time) => time,
        }
    }
}

/// The longest message kept of a provider, in characters.
pub const MAX_MESSAGE: usize = 512;
/// The longest error code kept of a provider, in characters.
const MAX_CODE: usize = 64;
/// The longest life of a token believed: ten years.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What an answer of `status` with this `body` means.
pub fn classify(
    connector: &Connector,
    status: u16,
    retry_after: Option<Duration>,
    body: &Secret<RawAnswer>,
) -> Answer {
    let Some(mut body) = Body::parse(body) else {
        return by_status(connector, status, retry_after);
    };
    let success = (200..300).contains(&status);
    if success && let Some(access_token) = body.take_access_token() {
        return Answer::Granted(granted(connector, access_token, &mut body));
    }
    // Before any code is read: whatever else is wrong, the old refresh token may have ended with the new one.
    if success && let Some(refresh_token) = body.take_refresh_token() {
        return Answer::Rotated(refresh_token);
    }
    let said = Said::of(connector, status, &body);
    let Said { message, .. } = &said;
    if said.unprocessed(connector) {
        let message = message.clone();
        return Answer::NotProcessed { retry_after, message };
    }
    if said.decided {
        if let Some(code) = said.listed(&connector.permanent_errors) {
            let told = told(connector, &said.codes);
            let message = message.clone();
            return Answer::Refused { code, told, message };
        }
        if let Some(code) = said.client_fault() {
            let message = message.clone();
            return Answer::Misconfigured { code, message };
        }
    }
    if connector.permanent_statuses.contains(&status) {
        return Answer::Refused {
            code: said.code(),
            told: Told::Nothing,
            message: said.message,
        };
    }
    Answer::Ambiguous {
        retry_after,
        message: said.with_status(),
    }
}

/// What an answer without tokens says of an error.
struct Said {
    status: u16,
    /// The codes, as the server has them.
    codes: Vec<String>,
    /// Whether the codes count.
    heard: bool,
    /// Whether they also prove what the server did: one that fails does not know itself.
    decided: bool,
    /// What it says in words: redacted and bounded.
    message: String,
}

impl Said {
    fn of(connector: &Connector, status: u16, body: &Body) -> Self {
        let success = (200..300).contains(&status);
        let codes = body.codes(&connector.error_at);
        let heard = !success || connector.has(Quirk::ErrorInSuccess);
        let message = body
            .message()
            .map(|text| redact::redact(&text, MAX_MESSAGE))
            .or_else(|| codes.first().map(|code| redact::redact(code, MAX_CODE)))
            .unwrap_or_else(|| format!("status {status} without an error code"));
        Self {
            status,
            heard,
            decided: heard && (success || (400..500).contains(&status)),
            codes,
            message,
        }
    }

    /// Of an answer that is no JSON object: the page of a gateway, mostly.
    fn nothing(status: u16) -> Self {
        Self {
            status,
            codes: Vec::new(),
            heard: false,
            decided: false,
            message: format!("status {status} with a body that is no JSON object"),
        }
    }

    /// The first code that is on the list.
    fn listed(&self, list: &[String]) -> Option<String> {
        let mut codes = self.codes.iter();
        codes.find(|code| self.heard && list.contains(code)).cloned()
    }

    /// Whether `code` is among the codes.
    fn says(&self, code: &str) -> bool {
        self.heard && self.codes.iter().any(|said| said == code)
    }

    /// Whether nothing was done, as the connector documents it.
    fn unprocessed(&self, connector: &Connector) -> bool {
        connector.unprocessed_statuses.contains(&self.status)
            || self.listed(&connector.unprocessed_errors).is_some()
    }

    /// The code that blames the client and not what it sent.
    fn client_fault(&self) -> Option<String> {
        let mut codes = self.codes.iter();
        codes.find(|code| CLIENT_FAULTS.contains(&code.as_str())).cloned()
    }

    /// Whether the server refuses what it was sent, where that is all there is to know. Not where it has not read it
    /// (RFC 9110 section 15.5.9) or would have it again (RFC 8470 section 5.2).
    fn refuses(&self) -> bool {
        let refusal = (400..500).contains(&self.status) && !matches!(self.status, 408 | 425 | 429);
        refusal || (self.decided && !self.codes.is_empty() && self.status < 300)
    }

    /// The first code, fit to be shown; `http_STATUS` where there is none.
    fn code(&self) -> String {
        self.codes.first().map_or_else(
            || format!("http_{}", self.status),
            |code| redact::redact(code, MAX_CODE),
        )
    }

    fn with_status(&self) -> String {
        redact::clip(&format!("status {}: {}", self.status, self.message), MAX_MESSAGE)
    }
}

/// What the codes of a refusal say of why, the first that says anything.
fn told(connector: &Connector, codes: &[String]) -> Told {
    let cause = codes.iter().find_map(|code| connector.error_causes.get(code));
    match cause {
        None => Told::Nothing,
        Some(ErrorCause::Expired) => Told::Expired,
        Some(ErrorCause::Reused) => Told::Reused,
        Some(ErrorCause::Withdrawn) => Told::Withdrawn,
    }
}

/// For a body that is no JSON object.
fn by_status(connector: &Connector, status: u16, retry_after: Option<Duration>) -> Answer {
    let said = Said::nothing(status);
    let (code, message) = (said.code(), said.message);
    if connector.unprocessed_statuses.contains(&status) {
        Answer::NotProcessed { retry_after, message }
    } else if connector.permanent_statuses.contains(&status) {
        let told = Told::Nothing;
        Answer::Refused { code, told, message }
    } else {
        Answer::Ambiguous { retry_after, message }
    }
}

fn granted(connector: &Connector, access_token: Secret<AccessToken>, body: &mut Body) -> Granted {
    let expires_in = body
        .seconds("expires_in", &connector.quirks)
        .map(|life| Expiry::In(life.min(MAX_LIFE)));
    let expiry = match connector.expiry {
        ExpirySource::ExpiresIn => expires_in,
        ExpirySource::JwtExp => body::jwt_expiry(&access_token).map(Expiry::At).or(expires_in),
    };
    Granted {
        expiry,
        refresh_token: body.take_refresh_token(),
        refresh_expires_in: body
            .seconds("refresh_token_expires_in", &connector.quirks)
            .map(|life| life.min(MAX_LIFE)),
        scopes: body.scopes(&connector.quirks),
        token_type: body
            .token_type()
            .map_or_else(|| "Bearer".to_owned(), |kind| redact::clip(&kind, MAX_CODE)),
        account: body.account(&connector.account),
        access_token,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;

#[cfg(test)]
#[path = "answer/flow_tests.rs"]
#[allow(clippy::unwrap_used)]
mod flow_tests;
