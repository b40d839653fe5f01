//! A request as bytes, built in place in buffers that are wiped: its fields encoded, and the client shown.
//!
//! What the HTTP client copies into its own write buffer is out of reach, and so is the URL, where a server wants a token
//! there; everything else here is wiped when the request is done with.

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Request, Url};
use zeroize::Zeroizing;

use super::client_secret::{self, SecretError};
use super::message::{ClientPart, Message, Written};
use crate::upstream::connector::{ClientAuth, Connector, Encoding};

/// Why a request cannot be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error("the {0} is no UTF-8; sign in again")]
    NoText(&'static str),
    #[error(transparent)]
    ClientSecret(#[from] SecretError),
    #[error("the request cannot be built: {0}; check the connector's endpoints")]
    Request(reqwest::Error),
    #[error("the client id or secret cannot be sent in a header; choose client_auth = \"post\"")]
    Header,
}

impl BuildError {
    /// What those are told whose request is not sent for it. Where the broker's client secret is, is told in the
    /// log only: it is no tenant's matter.
    pub(super) fn told(&self, connector: &str) -> String {
        match self {
            BuildError::NoText(_) => format!("connector {connector}: {self}"),
            fault => {
                tracing::error!(connector, %fault, "a request to an authorization server cannot be built");
                format!("the connector is misconfigured at the broker: {connector}")
            }
        }
    }
}

/// `message` as a request to `url`, of a client that shows who it is by `auth`.
pub(super) async fn build(
    client: &Client,
    connector: &Connector,
    auth: ClientAuth,
    mut url: Url,
    message: &Message<'_>,
) -> Result<Request, BuildError> {
    let auth = match message.client {
        ClientPart::Whole => auth,
        ClientPart::Id | ClientPart::Nothing => ClientAuth::None,
    };
    let secret = match auth {
        ClientAuth::None => None,
        ClientAuth::Basic | ClientAuth::Post => client_secret::read(connector).await?,
    };
    let mut fields: Vec<(&str, &str)> = message.fields.iter().map(|(k, v)| (*k, v.as_ref())).collect();
    if auth != ClientAuth::Basic
        && message.client != ClientPart::Nothing
        && let Some(id) = &connector.client_id
    {
        fields.push(("client_id", id));
    }
    if auth == ClientAuth::Post
        && let Some(secret) = &secret
    {
        fields.push(("client_secret", secret));
    }
    let (content_type, body) = match message.encoding {
        Written::Body(Encoding::Form) => (FORM, form(&fields)),
        Written::Body(Encoding::Json) => ("application/json", json(&fields)),
        Written::Query => {
            url.query_pairs_mut().extend_pairs(&fields);
            (FORM, Zeroizing::default())
        }
    };
    let mut post = client
        .post(url)
        .header(CONTENT_TYPE, content_type)
        .header(ACCEPT, "application/json")
        .body(Bytes::from_owner(body));
    if auth == ClientAuth::Basic {
        let id = connector.client_id.as_deref().unwrap_or_default();
        post = post.header(
            AUTHORIZATION,
            basic(id, secret.as_deref().map_or("", String::as_str))?,
        );
    }
    post.build().map_err(BuildError::Request)
}

const FORM: &str = "application/x-www-form-urlencoded";

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
