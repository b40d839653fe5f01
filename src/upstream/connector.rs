//! How one OAuth server behaves, as data.
//!
//! Servers differ in what they rotate, how they encode, where they put the error code and which statuses
//! mean that nothing happened. All of it is a [`Connector`], made from TOML by [`load`], which checks it
//! whole; the code in [`super::answer`] and [`super::http`] follows the data and knows no server by name.
//!
//! Promises: a connector that exists was validated; its URLs are https, or http to a loopback host; every
//! URL's host is on its allow-list; one with terms of use is off until they are accepted, and its grants
//! are personal.

mod check;
pub mod choices;
pub mod load;
mod raw;

pub(super) use check::{OURS, checked_url, is_loopback};
pub use raw::KEYS;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use crate::domain::name::Name;

/// RFC 6749 section 5.2: the errors that blame the client or the request and not the grant, in every connector.
pub(super) const CLIENT_FAULTS: [&str; 5] = [
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// How one OAuth server behaves. Made by [`load`] only.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Its name in configuration and records.
    pub name: Name,
    /// The provider whose model calls its grants authenticate.
    pub provider: String,
    /// Whether the configuration wants it. See [`Connector::usable`].
    pub enabled: bool,
    /// What the operator has to accept before it may be used.
    pub terms: Option<Terms>,
    /// The file that its last part is from; one of ours, where no other says anything of it.
    pub file: String,
    /// The server's issuer identifier, exactly as it writes it, where endpoints are discovered (RFC 8414). What is
    /// set here wins over what is discovered.
    pub issuer: Option<String>,
    /// The token endpoint (RFC 6749 section 3.2). Where there is none, there is an issuer.
    pub token_url: Option<Url>,
    /// The authorization endpoint (RFC 6749 section 3.1).
    pub authorize_url: Option<Url>,
    /// The revocation endpoint (RFC 7009 section 2).
    pub revoke_url: Option<Url>,
    /// The device authorization endpoint (RFC 8628 section 3.1), or what a flow of the server's own has in its place.
    pub device_authorization_url: Option<Url>,
    /// How a device flow goes.
    pub device_flow: DeviceFlow,
    /// The hosts the broker may contact for it.
    pub hosts: Vec<String>,
    /// The client identifier (RFC 6749 section 2.2); present on every usable connector.
    pub client_id: Option<String>,
    /// Where the client secret is; the secret itself is read at each use.
    pub client_secret: Option<SecretRef>,
    /// How the client authenticates at the token endpoint. `None`: as the server says where it has a secret, else as
    /// a public client.
    pub client_auth: Option<ClientAuth>,
    /// What to ask for when connecting.
    pub scopes: Vec<String>,
    /// Whether a refresh repeats the scopes (RFC 6749 section 6 leaves it to the client).
    pub scope_on_refresh: bool,
    /// More parameters of the authorization request.
    pub authorize_params: BTreeMap<String, String>,
    /// The ways the authorization code can come back.
    pub redirects: Vec<Redirect>,
    /// Whether S256 is used (RFC 7636), where a redirect does not say otherwise. Nothing that a server says changes it:
    /// who could change its metadata could go without (RFC 9700 section 2.1.1).
    pub pkce: bool,
    /// How a code exchange is encoded.
    pub exchange_encoding: Encoding,
    /// Whether a code exchange repeats the state of the authorization request, which no standard asks for.
    pub exchange_state: bool,
    /// How a refresh is encoded.
    pub refresh_encoding: Encoding,
    /// How a revocation is encoded.
    pub revoke_encoding: RevokeEncoding,
    /// Error codes of a revocation that say that the token was not valid any more.
    pub revoked_errors: Vec<String>,
    /// Whether a refresh token that is revoked takes the access tokens of its grant with it (RFC 7009 section 2.1: a server
    /// should, where it revokes access tokens at all).
    pub revoke_ends_access: bool,
    /// What else a revocation ends at the provider.
    pub revoke_scope: RevokeScope,
    /// Where the access token's expiry is told.
    pub expiry: ExpirySource,
    /// Where error codes are found, tried in this order.
    pub error_at: Vec<ErrorAt>,
    /// Error codes that prove the grant dead.
    pub permanent_errors: Vec<String>,
    /// What some of those codes say of why; the others say nothing of it.
    pub error_causes: BTreeMap<String, ErrorCause>,
    /// Statuses (4xx) that prove the grant dead whatever the body says.
    pub permanent_statuses: Vec<u16>,
    /// Error codes that say the request was not processed, at any status.
    pub unprocessed_errors: Vec<String>,
    /// Statuses that say the request was not processed.
    pub unprocessed_statuses: Vec<u16>,
    /// What else it does that no standard has.
    pub quirks: Vec<Quirk>,
    /// Whether a refresh brings a new refresh token that replaces the old one.
    pub rotates: bool,
    /// Whether an access token stays valid when a newer one is issued.
    pub old_access_survives: bool,
    /// How long after its use the server takes a refresh token again and answers alike. `None`: never.
    pub grace: Option<Duration>,
    /// How long before the expiry to refresh.
    pub lead: Duration,
    /// Whose its grants may be.
    pub sharing: Sharing,
    /// What takes an access token and shows that it works; what is set wins over the issuer's userinfo endpoint.
    pub test_url: Option<Url>,
    /// What an answer tells of the account.
    pub account: Vec<AccountFact>,
    /// Where all this is from.
    pub sources: Vec<String>,
    _validated: check::Validated,
}

/// Why a connector may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Off {
    /// `enabled = false`.
    #[error("it is switched off: set enabled = true for it in the configuration")]
    Disabled,
    /// It has terms, and nobody accepted them.
    #[error(
        "its terms are not accepted: read them, then list it under connectors.accept_terms in the configuration"
    )]
    TermsNotAccepted,
}

impl Connector {
    /// Whether it may be used. Checked before each request, also by the token endpoint itself.
    pub fn usable(&self) -> Result<(), Off> {
        if !self.enabled {
            Err(Off::Disabled)
        } else if self.terms.as_ref().is_some_and(|terms| !terms.accepted) {
            Err(Off::TermsNotAccepted)
        } else {
            Ok(())
        }
    }
}

impl Connector {
    /// Whether S256 is used (RFC 7636) where the code comes back by `redirect`.
    pub fn challenges(&self, redirect: &Redirect) -> bool {
        redirect.pkce.unwrap_or(self.pkce)
    }

    /// Whether the server has this quirk.
    pub fn has(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }
}

/// Terms of use that limit who may use a connector, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What they say, in short.
    pub text: String,
    /// Where they are.
    pub url: Option<Url>,
    /// Whether the configuration says so.
    pub accepted: bool,
}

/// Where a client secret is. Never the secret itself, so that configuration can be printed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretRef {
    /// In an environment variable of the daemon.
    Env(String),
    /// In a file; one trailing newline is not part of it.
    File(PathBuf),
}

/// How the client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// A public client: `client_id` in the body (RFC 6749 section 3.2.1).
    None,
    /// HTTP Basic, both parts form-encoded first (RFC 6749 section 2.3.1).
    Basic,
    /// `client_id` and `client_secret` in the body (RFC 6749 section 2.3.1).
    Post,
}

impl ClientAuth {
    /// As configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            ClientAuth::None => "none",
            ClientAuth::Basic => "basic",
            ClientAuth::Post => "post",
        }
    }
}

/// How a request body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, the standard (RFC 6749 section 4.1.3).
    Form,
    /// A JSON object, a quirk.
    Json,
}

/// How a revocation is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevokeEncoding {
    /// `application/x-www-form-urlencoded`, the standard (RFC 7009 section 2.1).
    Form,
    /// A JSON object, a quirk; who the client is goes with a refresh token only.
    Json,
    /// The token alone, in the query of the URL, a quirk.
    Query,
}

/// What a revocation ends (RFC 7009 section 2.1 leaves that to the server).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevokeScope {
    /// The grant that the token is of, and no other of the same account.
    Token,
    /// What the account has granted to this client, in other sign-ins too; or it is not known that it does not.
    Account,
}

/// How a device flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceFlow {
    /// As RFC 8628 has it: the token endpoint is polled, and answers with the tokens.
    Rfc8628,
    /// One of the server's own, a quirk: JSON both times, and a poll brings an authorization code with its verifier,
    /// which is exchanged as any other.
    Code {
        /// Where to poll.
        poll_url: Url,
        /// The page where the user code is entered.
        page_url: Url,
        /// The redirect URI of the exchange. Nobody is sent there.
        redirect_uri: String,
    },
}

/// Where an access token's expiry is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpirySource {
    /// `expires_in`, in seconds from now (RFC 6749 section 5.1).
    ExpiresIn,
    /// The claim `exp` of an access token that is a JWT (RFC 7519 section 4.1.4); `expires_in` where it is
    /// none.
    JwtExp,
}

/// Where an answer holds its error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ErrorAt {
    /// `{"error": "…"}`, the standard (RFC 6749 section 5.2).
    #[serde(rename = "error")]
    Error,
    /// `{"error": {"code": "…"}}`.
    #[serde(rename = "error.code")]
    ErrorCode,
    /// `{"error": {"type": "…"}}`.
    #[serde(rename = "error.type")]
    ErrorType,
    /// `{"code": "…"}`.
    #[serde(rename = "code")]
    Code,
}

/// What a server may do that no standard has, and no other key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quirk {
    /// `scope` of an answer as a JSON array (against RFC 6749 section 3.3).
    ScopeList,
    /// Numbers of seconds as texts (against RFC 6749 section 5.1).
    TextSeconds,
    /// An error code in an answer of status 2xx, which then counts as one of status 400 (against RFC 6749 section
    /// 5.2). Without this quirk such an answer is ambiguous.
    ErrorInSuccess,
}

/// What an error code says of why a grant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCause {
    /// The refresh token is too old.
    Expired,
    /// The refresh token was used before.
    Reused,
    /// The grant was taken back by its owner or the provider.
    Withdrawn,
}

/// Whose grants may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// A member's only; never an org's.
    Personal,
    /// Anybody's.
    Any,
}

/// A way the authorization code comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Which way.
    pub kind: RedirectKind,
    /// Whether S256 is used with it (RFC 7636); `None`: as with the others of its connector.
    pub pkce: Option<bool>,
}

/// The kinds of redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectKind {
    /// To a listener on the member's machine (RFC 8252 section 7.3).
    Loopback {
        /// `localhost` or a loopback address, as the server has it registered.
        host: String,
        /// The ports to try in order; empty where any port may be used.
        ports: Vec<u16>,
        /// The path, beginning with `/`.
        path: String,
    },
    /// To a page of the provider that shows a code to be pasted.
    Paste {
        /// The page.
        url: Url,
        /// What it shows.
        code: PasteCode,
    },
}

/// What a paste page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PasteCode {
    /// The code alone.
    Code,
    /// `CODE#STATE`.
    CodeAndState,
}

/// One thing an answer tells of the account, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountFact {
    /// What to call it.
    pub label: String,
    /// Which document has it.
    pub from: FactSource,
    /// Where in it (RFC 6901).
    pub pointer: String,
}

/// Which document has an [`AccountFact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactSource {
    /// The answer itself.
    Answer,
    /// The claims of its `id_token` (OpenID Connect Core section 2).
    IdToken,
}
