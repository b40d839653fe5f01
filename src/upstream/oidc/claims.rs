//! What an ID token has to say to be taken (OpenID Connect Core 1.0 section 3.1.3.7). Pure.

use std::time::Duration;

use serde::Deserialize;

use super::error::{IdTokenError, TokenFault};
use crate::domain::oidc::{self, Issuer};
use crate::domain::time::Time;

/// However long a token says that it lasts, it is taken for so long after it was issued: a person's access must
/// not outlive the issuer's word on them for weeks.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The claims that are looked at. E-mail addresses and names are not among them.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: Seconds,
    iat: Seconds,
    nbf: Option<Seconds>,
    /// Some issuers mark the kind of their tokens here.
    typ: Option<String>,
    /// Only logout and security event tokens have it.
    events: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn all(&self) -> &[String] {
        match self {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        }
    }
}

/// A `NumericDate` (RFC 7519 section 2).
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Seconds(Time);

impl TryFrom<f64> for Seconds {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        // The year 9999; beyond it whole milliseconds are still exact.
        if (0.0..253_402_300_800.0).contains(&seconds) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "bounded above, and a fraction of a millisecond is nothing"
            )]
            Ok(Self(Time::from_millis((seconds * 1000.0) as i64)))
        } else {
            Err("not a date")
        }
    }
}

/// An ID token of a configured issuer whose signature and claims have been checked. Made by
/// [`Issuers::verify`](super::Issuers::verify) only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedIdToken {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) expires: Time,
}

impl VerifiedIdToken {
    /// The issuer's URL, as configured.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Who it is, at that issuer.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the token's time is over; what was begun with it ends then.
    pub fn expires(&self) -> Time {
        self.expires
    }

    /// The outside identity of a member that it shows.
    pub fn identity(&self) -> String {
        oidc::identity(&self.issuer, &self.subject)
    }
}

/// Checks all but the signature. `claims.iss` is the issuer's already.
pub(super) fn check(claims: &Claims, issuer: &Issuer, now: Time) -> Result<VerifiedIdToken, IdTokenError> {
    if claims.events.is_some() || claims.typ.as_deref().is_some_and(|typ| typ != "ID") {
        return Err(TokenFault::NoIdToken.into());
    }
    check_audience(claims, issuer)?;
    if !oidc::is_subject(&claims.sub) {
        return Err(TokenFault::Subject.into());
    }
    let latest = now + issuer.clock_skew;
    if claims.iat.0 > latest {
        return Err(TokenFault::Issued.into());
    }
    if claims.nbf.is_some_and(|begin| begin.0 > latest) {
        return Err(TokenFault::NotYet.into());
    }
    let end = claims.exp.0.min(claims.iat.0 + LONGEST) + issuer.clock_skew;
    if now >= end {
        return Err(IdTokenError::Expired);
    }
    Ok(VerifiedIdToken {
        issuer: issuer.url.clone(),
        subject: claims.sub.clone(),
        expires: end,
    })
}

/// For one of our clients; and where it is for others too, given to one of ours (`azp`).
fn check_audience(claims: &Claims, issuer: &Issuer) -> Result<(), TokenFault> {
    let ours = |id: &String| issuer.audiences.contains(id);
    let audience = claims.aud.all();
    let party = match &claims.azp {
        Some(party) => ours(party),
        None => audience.len() == 1,
    };
    if party && audience.iter().any(ours) {
        Ok(())
    } else {
        Err(TokenFault::Audience)
    }
}
