//! What is asked of an authorization server beside a refresh: to exchange a code, to begin and to poll a device flow,
//! and to revoke a token. [`HttpTokenEndpoint`](super::http::HttpTokenEndpoint) sends each once and says how far it
//! got; what an answer means is decided by [`super::answer`].

use std::time::Duration;

use reqwest::Url;

use super::connector::{Connector, OURS, Redirect};
use crate::domain::secret::{AccessToken, AuthorizationCode, CodeVerifier, DeviceCode, RefreshToken, Secret};

/// The exchange of an authorization code (RFC 6749 section 4.1.3).
pub struct CodeRequest<'a> {
    /// Where and how to send it.
    pub connector: &'a Connector,
    /// The code.
    pub code: &'a Secret<AuthorizationCode>,
    /// The redirect URI of the authorization request, as it was there.
    pub redirect_uri: &'a str,
    /// The verifier (RFC 7636 section 4.5), where the authorization request had a challenge.
    pub verifier: Option<&'a Secret<CodeVerifier>>,
    /// The state of the authorization request; sent only where the connector says so.
    pub state: &'a str,
}

/// A device flow that the server has begun (RFC 8628 section 3.2).
pub struct DeviceGrant {
    /// What it is polled with.
    pub device_code: Secret<DeviceCode>,
    /// What the member enters.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code filled in.
    pub verification_uri_complete: Option<String>,
    /// How long it can be used.
    pub expires_in: Duration,
    /// How long to wait between polls.
    pub interval: Duration,
}

/// Why a device flow was not begun.
#[derive(Debug)]
pub enum DeviceFault {
    /// The connector has no device flow.
    Unsupported,
    /// The server could not be reached, or could not do it now; it may pass.
    Unavailable {
        /// What happened, redacted.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server will not have it: the client, its scopes, or the flow as such.
    Refused {
        /// The error code, as the server has it.
        code: String,
        /// What it said, redacted.
        message: String,
    },
}

/// One poll of a device flow (RFC 8628 section 3.4).
pub struct DevicePoll<'a> {
    /// Where and how to send it.
    pub connector: &'a Connector,
    /// The device code.
    pub device_code: &'a Secret<DeviceCode>,
    /// The user code; some servers want both.
    pub user_code: &'a str,
}

/// A token of a grant.
pub enum GrantToken<'a> {
    /// The refresh token.
    Refresh(&'a Secret<RefreshToken>),
    /// An access token.
    Access(&'a Secret<AccessToken>),
}

/// The revocation of a token (RFC 7009 section 2.1).
pub struct RevocationRequest<'a> {
    /// Where and how to send it.
    pub connector: &'a Connector,
    /// The token.
    pub token: GrantToken<'a>,
}

/// The address to send a member to, who signs in there and comes back by `redirect` with a code (RFC 6749 section
/// 4.1.1). `challenge` is the S256 challenge of the verifier (RFC 7636 section 4.3); it is left out where the redirect
/// goes without (see [`Connector::challenges`]), and the exchange must then have no verifier.
///
/// No parameter is there twice (RFC 6749 section 3.1), and neither the endpoint's own query nor `authorize_params` can
/// set one that is set here.
pub fn authorization_request(
    endpoint: &Url,
    connector: &Connector,
    redirect: &Redirect,
    redirect_uri: &str,
    state: &str,
    challenge: Option<&str>,
) -> Url {
    let more = &connector.authorize_params;
    let kept: Vec<(String, String)> = endpoint
        .query_pairs()
        .filter(|(name, _)| !OURS.contains(&name.as_ref()) && !more.contains_key(name.as_ref()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let mut url = endpoint.clone();
    url.set_query(None);
    let mut query = url.query_pairs_mut();
    query
        .extend_pairs(kept)
        .append_pair("response_type", "code")
        .append_pair("client_id", connector.client_id.as_deref().unwrap_or_default())
        .append_pair("redirect_uri", redirect_uri);
    if !connector.scopes.is_empty() {
        query.append_pair("scope", &connector.scopes.join(" "));
    }
    query.append_pair("state", state);
    if let Some(challenge) = challenge.filter(|_| connector.challenges(redirect)) {
        query
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
    }
    query.extend_pairs(more.iter().filter(|(name, _)| !OURS.contains(&name.as_str())));
    drop(query);
    url
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
