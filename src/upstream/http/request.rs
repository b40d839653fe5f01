//! The refresh request (RFC 6749 section 6), built in place in buffers that are wiped.
//!
//! What the HTTP client copies into its own write buffer is out of reach; everything here is wiped when the
//! request is done with.

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Request};
use zeroize::Zeroizing;

use super::client_secret::{self, SecretError};
use crate::domain::secret::Exposure;
use crate::upstream::RefreshRequest;
use crate::upstream::connector::{ClientAuth, Encoding};
use crate::upstream::discovery::Endpoints;

/// Why a request cannot be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error("the refresh token is no UTF-8; sign in again")]
    RefreshToken,
    #[error(transparent)]
    ClientSecret(#[from] SecretError),
    #[error("the request cannot be built: {0}; check the connector's token_url")]
    Request(reqwest::Error),
    #[error("the client id or secret cannot be sent in a header; choose client_auth = \"post\"")]
    Header,
}

impl BuildError {
    /// What those are told whose grant is not refreshed for it. Where the broker's client secret is, is told in the
    /// log only: it is no tenant's matter.
    pub(super) fn told(&self, connector: &str) -> String {
        match self {
            BuildError::RefreshToken => format!("connector {connector}: {self}"),
            fault => {
                tracing::error!(connector, %fault, "a refresh request cannot be built");
                format!("the connector is misconfigured at the broker: {connector}")
            }
        }
    }
}

pub(super) async fn build(
    client: &Client,
    request: &RefreshRequest<'_>,
    endpoints: &Endpoints,
) -> Result<Request, BuildError> {
    let connector = request.connector;
    let token = request
        .refresh_token
        .expose_str(Exposure::Upstream)
        .ok_or(BuildError::RefreshToken)?;
    let scope = request.scopes.join(" ");
    let secret = match endpoints.client_auth {
        ClientAuth::None => None,
        ClientAuth::Basic | ClientAuth::Post => client_secret::read(connector).await?,
    };

    let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    if endpoints.client_auth != ClientAuth::Basic
        && let Some(id) = &connector.client_id
    {
        fields.push(("client_id", id));
    }
    if endpoints.client_auth == ClientAuth::Post
        && let Some(secret) = &secret
    {
        fields.push(("client_secret", secret));
    }
    if connector.scope_on_refresh && !scope.is_empty() {
        fields.push(("scope", &scope));
    }
    let (content_type, body) = match connector.refresh_encoding {
        Encoding::Form => ("application/x-www-form-urlencoded", form(&fields)),
        Encoding::Json => ("application/json", json(&fields)),
    };
    let mut post = client
        .post(endpoints.token.clone())
        .header(CONTENT_TYPE, content_type)
        .header(ACCEPT, "application/json")
        .body(Bytes::from_owner(body));
    if endpoints.client_auth == ClientAuth::Basic {
        let id = connector.client_id.as_deref().unwrap_or_default();
        post = post.header(
            AUTHORIZATION,
            basic(id, secret.as_deref().map_or("", String::as_str))?,
        );
    }
    post.build().map_err(BuildError::Request)
}

/// RFC 6749 section 2.3.1: both parts form-encoded, then HTTP Basic (RFC 7617).
fn basic(id: &str, secret: &str) -> Result<HeaderValue, BuildError> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let mut pair = Zeroizing::new(Vec::with_capacity(3 * (id.len() + secret.len()) + 1));
    encode_into(&mut pair, id);
    pair.push(b':');
    encode_into(&mut pair, secret);
    let mut header = Zeroizing::new(String::with_capacity(6 + pair.len().div_ceil(3) * 4));
    header.push_str("Basic ");
    STANDARD.encode_string(pair.as_slice(), &mut header);
    let mut value = HeaderValue::from_str(&header).map_err(|_| BuildError::Header)?;
    value.set_sensitive(true);
    Ok(value)
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
fn form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let longest: usize = fields.iter().map(|(k, v)| 3 * (k.len() + v.len()) + 2).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(longest));
    for (key, value) in fields {
        if !out.is_empty() {
            out.push(b'&');
        }
        encode_into(&mut out, key);
        out.push(b'=');
        encode_into(&mut out, value);
    }
    out
}

fn encode_into(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

/// A JSON object of strings (RFC 8259 section 7).
fn json(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let longest: usize = fields.iter().map(|(k, v)| 6 * (k.len() + v.len()) + 6).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(longest + 2));
    out.push(b'{');
    for (key, value) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        quote_into(&mut out, key);
        out.push(b':');
        quote_into(&mut out, value);
    }
    out.push(b'}');
    out
}

fn quote_into(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..=0x1f => out.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use reqwest::Url;

    use super::*;

    const ODD: &str = "a b+c&d=e/\"\\\n\u{e9}~*";

    #[test]
    fn odd_characters_survive_both_encodings() {
        let encoded = form(&[("k", ODD), ("empty", "")]);
        let parsed: Vec<(String, String)> = Url::parse(&format!(
            "http://h/?{}",
            String::from_utf8(encoded.to_vec()).unwrap()
        ))
        .unwrap()
        .query_pairs()
        .into_owned()
        .collect();
        assert_eq!(
            parsed,
            [
                ("k".to_owned(), ODD.to_owned()),
                ("empty".to_owned(), String::new())
            ]
        );

        let value: serde_json::Value = serde_json::from_slice(&json(&[("k", ODD), ("l", "x")])).unwrap();
        assert_eq!(value["k"], ODD);
        assert_eq!(value["l"], "x");
    }

    #[test]
    fn buffers_do_not_grow() {
        let every_byte_escaped = "\u{1}".repeat(100);
        for built in [
            form(&[("k", &every_byte_escaped)]),
            json(&[("k", &every_byte_escaped)]),
        ] {
            assert!(built.len() <= built.capacity());
        }
        assert_eq!(form(&[("k", &every_byte_escaped)]).capacity(), 3 * 101 + 2);
        assert_eq!(json(&[("k", &every_byte_escaped)]).capacity(), 6 * 101 + 8);
    }

    #[test]
    fn basic_credentials_are_form_encoded_first_and_sensitive() {
        let header = basic("client:1", "s/e").unwrap();
        // base64("client%3A1:s%2Fe")
        assert_eq!(header.to_str().unwrap(), "Basic Y2xpZW50JTNBMTpzJTJGZQ==");
        assert!(header.is_sensitive());
    }
}
