//! What is sent to an authorization server: the fields of each request, and where it goes.
//!
//! Fields borrow the secrets that they hold, so that nothing of them is copied before [`super::request`] writes them
//! into buffers that are wiped.

use std::borrow::Cow;

use reqwest::Url;

use super::request::BuildError;
use crate::domain::secret::{Exposure, Secret};
use crate::upstream::RefreshRequest;
use crate::upstream::connector::{Connector, DeviceFlow, Encoding, RevokeEncoding};
use crate::upstream::discovery::Need;
use crate::upstream::oauth::{CodeRequest, DevicePoll, GrantToken, RevocationRequest};

/// One request: a POST.
pub(super) struct Message<'a> {
    /// Where it goes.
    pub(super) place: Place<'a>,
    /// How its fields are written.
    pub(super) encoding: Written,
    /// Whether the client shows who it is, and how much of it.
    pub(super) client: ClientPart,
    /// What it says.
    pub(super) fields: Vec<(&'static str, Cow<'a, str>)>,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// To an endpoint that is configured or discovered.
    Endpoint(Need),
    /// To one that only the configuration has.
    Configured(&'a Url),
}

/// How the fields of a request are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Into the body.
    Body(Encoding),
    /// Into the query of the URL; the body is empty.
    Query,
}

/// What a request says of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientPart {
    /// Who it is, with its secret where it has one (RFC 6749 section 2.3).
    Whole,
    /// Its identifier alone.
    Id,
    /// Nothing.
    Nothing,
}

/// `secret` as the text of the field `what`.
fn text<'a, K>(what: &'static str, secret: &'a Secret<K>) -> Result<Cow<'a, str>, BuildError> {
    let text = secret.expose_str(Exposure::Upstream);
    text.map(Cow::Borrowed).ok_or(BuildError::NoText(what))
}

/// A new access token for a refresh token (RFC 6749 section 6).
pub(super) fn refresh<'a>(request: &RefreshRequest<'a>) -> Result<Message<'a>, BuildError> {
    let connector = request.connector;
    let mut fields = vec![
        ("grant_type", "refresh_token".into()),
        ("refresh_token", text("refresh token", request.refresh_token)?),
    ];
    if connector.scope_on_refresh && !request.scopes.is_empty() {
        fields.push(("scope", request.scopes.join(" ").into()));
    }
    Ok(Message {
        place: Place::Endpoint(Need::Token),
        encoding: Written::Body(connector.refresh_encoding),
        client: ClientPart::Whole,
        fields,
    })
}

/// Tokens for an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
pub(super) fn code<'a>(request: &CodeRequest<'a>) -> Result<Message<'a>, BuildError> {
    let mut fields = vec![
        ("grant_type", "authorization_code".into()),
        ("code", text("authorization code", request.code)?),
        ("redirect_uri", request.redirect_uri.into()),
    ];
    if let Some(verifier) = request.verifier {
        fields.push(("code_verifier", text("code verifier", verifier)?));
    }
    if request.connector.exchange_state {
        fields.push(("state", request.state.into()));
    }
    Ok(Message {
        place: Place::Endpoint(Need::Token),
        encoding: Written::Body(request.connector.exchange_encoding),
        client: ClientPart::Whole,
        fields,
    })
}

/// The beginning of a device flow (RFC 8628 section 3.1).
pub(super) fn device_begin(connector: &Connector) -> Message<'_> {
    let place = Place::Endpoint(Need::Device);
    match &connector.device_flow {
        DeviceFlow::Rfc8628 => {
            let mut fields = Vec::new();
            if !connector.scopes.is_empty() {
                fields.push(("scope", connector.scopes.join(" ").into()));
            }
            Message {
                place,
                encoding: Written::Body(Encoding::Form),
                client: ClientPart::Whole,
                fields,
            }
        }
        DeviceFlow::Code { .. } => Message {
            place,
            encoding: Written::Body(Encoding::Json),
            client: ClientPart::Id,
            fields: Vec::new(),
        },
    }
}

/// One poll of a device flow (RFC 8628 section 3.4).
pub(super) fn device_poll<'a>(request: &DevicePoll<'a>) -> Result<Message<'a>, BuildError> {
    let device_code = text("device code", request.device_code)?;
    Ok(match &request.connector.device_flow {
        DeviceFlow::Rfc8628 => Message {
            place: Place::Endpoint(Need::Token),
            encoding: Written::Body(Encoding::Form),
            client: ClientPart::Whole,
            fields: vec![
                (
                    "grant_type",
                    "urn:ietf:params:oauth:grant-type:device_code".into(),
                ),
                ("device_code", device_code),
            ],
        },
        DeviceFlow::Code { poll_url, .. } => Message {
            place: Place::Configured(poll_url),
            encoding: Written::Body(Encoding::Json),
            client: ClientPart::Nothing,
            fields: vec![
                ("device_auth_id", device_code),
                ("user_code", request.user_code.into()),
            ],
        },
    })
}

/// The revocation of a token (RFC 7009 section 2.1).
pub(super) fn revocation<'a>(request: &RevocationRequest<'a>) -> Result<Message<'a>, BuildError> {
    let (token, hint) = match &request.token {
        GrantToken::Refresh(token) => (text("refresh token", token)?, "refresh_token"),
        GrantToken::Access(token) => (text("access token", token)?, "access_token"),
    };
    let (encoding, client) = match (request.connector.revoke_encoding, &request.token) {
        (RevokeEncoding::Form, _) => (Written::Body(Encoding::Form), ClientPart::Whole),
        (RevokeEncoding::Json, GrantToken::Refresh(_)) => (Written::Body(Encoding::Json), ClientPart::Whole),
        (RevokeEncoding::Json, GrantToken::Access(_)) => (Written::Body(Encoding::Json), ClientPart::Nothing),
        (RevokeEncoding::Query, _) => (Written::Query, ClientPart::Nothing),
    };
    let mut fields = vec![("token", token)];
    if encoding != Written::Query {
        fields.push(("token_type_hint", hint.into()));
    }
    Ok(Message {
        place: Place::Endpoint(Need::Revoke),
        encoding,
        client,
        fields,
    })
}
