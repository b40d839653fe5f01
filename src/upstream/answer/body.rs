//! The body of an answer: a JSON object, its secrets kept apart from the rest as they are read.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::domain::secret::{AccessToken, Exposure, RawAnswer, RefreshToken, Secret};
use crate::domain::time::Time;
use crate::upstream::connector::{AccountFact, ErrorAt, FactSource, Quirk};
use crate::upstream::redact;

/// The longest account fact kept, in characters.
const MAX_FACT: usize = 256;
/// The longest scope kept, in bytes.
const MAX_SCOPE: usize = 256;
/// The most scopes kept.
const MAX_SCOPES: usize = 64;

/// Other fields that hold secrets: of device flows.
const HIDDEN: [&str; 4] = [
    "device_code",
    "device_auth_id",
    "authorization_code",
    "code_verifier",
];

/// A parsed answer.
pub(super) struct Body {
    access_token: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
    id_token: Option<Zeroizing<String>>,
    /// By their names in [`HIDDEN`].
    hidden: [Option<Zeroizing<String>>; HIDDEN.len()],
    rest: Map<String, Value>,
}

/// A string that is wiped when dropped; JSON `null` is none.
struct Hidden(Option<Zeroizing<String>>);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.map(Zeroizing::new);
        Ok(Self(text.filter(|text| !text.is_empty())))
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut body = Body {
                    access_token: None,
                    refresh_token: None,
                    id_token: None,
                    hidden: Default::default(),
                    rest: Map::new(),
                };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "access_token" => body.access_token = map.next_value::<Hidden>()?.0,
                        "refresh_token" => body.refresh_token = map.next_value::<Hidden>()?.0,
                        "id_token" => body.id_token = map.next_value::<Hidden>()?.0,
                        _ => {
                            let value = map.next_value()?;
                            let at = HIDDEN.iter().position(|name| *name == key);
                            match (at.and_then(|at| body.hidden.get_mut(at)), value) {
                                (Some(place), Value::String(text)) => *place = Some(Zeroizing::new(text)),
                                // What is no text is no secret, and no reason to lose the tokens beside it.
                                (Some(_), _) => {}
                                (None, value) => {
                                    body.rest.insert(key, value);
                                }
                            }
                        }
                    }
                }
                Ok(body)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Body {
    /// The object in `raw`; `None` where it is none.
    pub(super) fn parse(raw: &Secret<RawAnswer>) -> Option<Self> {
        serde_json::from_slice(raw.expose(Exposure::Inspect)).ok()
    }

    pub(super) fn take_access_token(&mut self) -> Option<Secret<AccessToken>> {
        self.access_token.take().map(secret)
    }

    pub(super) fn take_refresh_token(&mut self) -> Option<Secret<RefreshToken>> {
        self.refresh_token.take().map(secret)
    }

    /// Whether there is an access token or a refresh token.
    pub(super) fn has_tokens(&self) -> bool {
        self.access_token.is_some() || self.refresh_token.is_some()
    }

    /// One of the fields in [`HIDDEN`], if it is there and no longer than `most` bytes.
    pub(super) fn take<K>(&mut self, name: &str, most: usize) -> Option<Secret<K>> {
        let at = HIDDEN.iter().position(|hidden| *hidden == name)?;
        let text = self.hidden.get_mut(at)?.take()?;
        (!text.is_empty() && text.len() <= most).then(|| secret(text))
    }

    /// A field that is a text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.rest.get(key)?.as_str()
    }

    /// The error codes at these places, in this order, without repetition.
    pub(super) fn codes(&self, places: &[ErrorAt]) -> Vec<String> {
        let error = self.rest.get("error");
        let mut codes: Vec<String> = Vec::new();
        for place in places {
            let value = match place {
                ErrorAt::Error => error,
                ErrorAt::ErrorCode => error.and_then(|error| error.get("code")),
                ErrorAt::ErrorType => error.and_then(|error| error.get("type")),
                ErrorAt::Code => self.rest.get("code"),
            };
            if let Some(code) = value.and_then(Value::as_str)
                && !code.is_empty()
                && !codes.iter().any(|seen| seen == code)
            {
                codes.push(code.to_owned());
            }
        }
        codes
    }

    /// What the server says in words, raw.
    pub(super) fn message(&self) -> Option<String> {
        let error = self.rest.get("error");
        [
            self.rest.get("error_description"),
            error.and_then(|error| error.get("message")),
            self.rest.get("message"),
        ]
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|text| !text.is_empty())
        .map(str::to_owned)
    }

    /// A number of seconds; one written as a text where `quirks` say so.
    pub(super) fn seconds(&self, key: &str, quirks: &[Quirk]) -> Option<Duration> {
        let seconds = match self.rest.get(key)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) if quirks.contains(&Quirk::TextSeconds) => text.trim().parse().ok()?,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds.floor()).ok()
    }

    pub(super) fn token_type(&self) -> Option<String> {
        let kind = self.rest.get("token_type")?.as_str()?;
        (!kind.is_empty()).then(|| kind.to_owned())
    }

    /// Space-separated (RFC 6749 section 3.3), or a JSON array where `quirks` say so.
    pub(super) fn scopes(&self, quirks: &[Quirk]) -> Option<Vec<String>> {
        let mut scopes: Vec<String> = match self.rest.get("scope")? {
            Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
            Value::Array(values) if quirks.contains(&Quirk::ScopeList) => values
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => return None,
        };
        // What is no scope token is left out whole: cut short, it would be another scope.
        scopes.retain(|scope| scope.len() <= MAX_SCOPE && scope.bytes().all(is_scope_char));
        scopes.truncate(MAX_SCOPES);
        Some(scopes)
    }

    pub(super) fn account(&self, facts: &[AccountFact]) -> Vec<(String, String)> {
        let claims = self
            .id_token
            .as_deref()
            .and_then(|token| jwt_claims(token.as_bytes()));
        let mut account = Vec::new();
        for fact in facts {
            let value = match fact.from {
                FactSource::IdToken => claims.as_ref().and_then(|claims| claims.pointer(&fact.pointer)),
                FactSource::Answer => self.pointer(&fact.pointer),
            };
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => continue,
            };
            account.push((fact.label.clone(), redact::clip(&text, MAX_FACT)));
        }
        account
    }

    /// RFC 6901 over the fields that are no tokens.
    fn pointer(&self, pointer: &str) -> Option<&Value> {
        let path = pointer.strip_prefix('/')?;
        let (first, below) = path.find('/').map_or((path, ""), |at| path.split_at(at));
        let key = first.replace("~1", "/").replace("~0", "~");
        self.rest.get(&key)?.pointer(below)
    }
}

/// RFC 6749 section 3.3.
fn is_scope_char(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

fn secret<K>(mut text: Zeroizing<String>) -> Secret<K> {
    Secret::from(std::mem::take(&mut *text))
}

/// The claims of a JWT (RFC 7519 section 3). Its signature is not checked: it came from the token endpoint
/// itself over TLS, and the claims are shown or used as a hint, never to authenticate anybody.
fn jwt_claims(token: &[u8]) -> Option<Value> {
    let mut parts = token.split(|byte| *byte == b'.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    serde_json::from_slice(&decoded).ok()
}

/// The claim `exp` (RFC 7519 section 4.1.4) of an access token that is a JWT.
pub(super) fn jwt_expiry(token: &Secret<AccessToken>) -> Option<Time> {
    let seconds = jwt_claims(token.expose(Exposure::Inspect))?
        .get("exp")?
        .as_f64()?;
    // Past the year 9999 it is no expiry but a mistake.
    (0.0..253_402_300_800.0)
        .contains(&seconds)
        .then(|| Time::from_millis((seconds * 1000.0) as i64))
}
