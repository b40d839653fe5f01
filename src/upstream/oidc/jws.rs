//! The compact form of a signed token (RFC 7515 section 3.1), and the one check of its signature.
//!
//! Everything that makes a token say two things at once is refused: other base64 than the one form, a field
//! twice, extensions that have to be understood, an algorithm that is not on the issuer's list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::claims::Claims;
use super::error::TokenFault;
use crate::domain::oidc::Algorithm;

/// The longest token looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// A token taken apart. Nothing of it is to be believed yet.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Claims,
    /// What was signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

/// Whether it has the shape of a signed token: three parts with points between.
pub fn looks_signed(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'a> Jws<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenFault> {
        if text.len() > MAX_TOKEN {
            return Err(TokenFault::Malformed("it is too long"));
        }
        let shape = TokenFault::Malformed("it is not of three parts");
        let (message, signature) = text.rsplit_once('.').ok_or(shape)?;
        let (header, payload) = message.split_once('.').ok_or(shape)?;
        if payload.contains('.') {
            return Err(shape);
        }
        let header: Header = json(header).ok_or(TokenFault::Malformed("its header cannot be read"))?;
        if header.crit.is_some() {
            return Err(TokenFault::Malformed("it needs an extension (crit)"));
        }
        check_type(header.typ.as_deref())?;
        Ok(Self {
            algorithm: Algorithm::of(&header.alg).ok_or(TokenFault::Algorithm)?,
            key_id: header.kid,
            claims: json(payload).ok_or(TokenFault::Malformed("its claims cannot be read"))?,
            message: message.as_bytes(),
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| TokenFault::Malformed("its signature cannot be read"))?,
        })
    }
}

/// An ID token says `JWT` or nothing; other kinds say what they are: access tokens `at+jwt` (RFC 9068 section
/// 2.1), logout tokens `logout+jwt`, and so on.
fn check_type(typ: Option<&str>) -> Result<(), TokenFault> {
    match typ {
        None => Ok(()),
        Some(typ) if typ.eq_ignore_ascii_case("jwt") => Ok(()),
        Some(_) => Err(TokenFault::NoIdToken),
    }
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}
