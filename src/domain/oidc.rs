//! OpenID Connect issuers: who may vouch for members, and how an outside identity of theirs is written.
//!
//! A person is known by issuer and subject (OpenID Connect Core 1.0 section 5.7), never by an e-mail address:
//! those are handed on to other people, and any issuer can claim any address.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ring::digest;

use super::id::OrgId;

/// The longest URL of an issuer, in bytes: with the longest subject it still fits into a key of the store.
pub const MAX_ISSUER: usize = 200;
/// The longest subject, in bytes (OpenID Connect Core 1.0 section 2).
pub const MAX_SUBJECT: usize = 255;

/// A signature algorithm that may be accepted (RFC 7518 section 3.1, RFC 8037 section 3.1). There is no `none`
/// and nothing with a shared key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The name in a token's `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// An issuer that the configuration trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its URL, exactly as its tokens and its discovery document write it.
    pub url: String,
    /// The client ids whose ID tokens are taken.
    pub audiences: Vec<String>,
    /// The client id that `credbroker login` uses; one of `audiences`.
    pub client_id: String,
    /// The orgs, by id or name, whose members it may vouch for. It vouches for nobody else's.
    pub orgs: Vec<String>,
    /// What `credbroker login` asks for; `openid` is among them.
    pub scopes: Vec<String>,
    /// The algorithms its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock and ours may be apart.
    pub clock_skew: Duration,
    /// CA certificates, PEM, to trust for it in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// What outside identities of this module's form begin with; no other kind may.
const SYSTEM: &str = "oidc:";

/// The outside identity of a subject at an issuer: `oidc:ISSUER#SUBJECT`. An issuer's URL has no fragment, so
/// no two pairs are written alike, and it names the issuer itself and not what somebody called it.
pub fn identity(issuer: &str, subject: &str) -> String {
    format!("{SYSTEM}{issuer}#{subject}")
}

/// Stands for the outside identity of an org's member where it has to be small: the first half of a SHA-256. No
/// two can be found with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link([u8; 16]);

impl Link {
    /// Of an outside identity in an org.
    pub fn of(org: OrgId, identity: &str) -> Self {
        let text = [org.as_bytes(), identity.as_bytes()].concat();
        let hash = digest::digest(&digest::SHA256, &text);
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_ref()[..16]);
        Self(first)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A text that claims to be such an identity and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'oidc:' begins an identity of the form oidc:ISSUER#SUBJECT: the issuer's URL as configured, and a subject \
     of 1 to 255 printable ASCII characters"
)]
pub struct MalformedIdentity;

/// Issuer and subject of an outside identity; `None` where it is of another system.
///
/// # Errors
/// It begins like one and is none.
pub fn parse_identity(identity: &str) -> Result<Option<(&str, &str)>, MalformedIdentity> {
    let system = identity.get(..SYSTEM.len());
    if !system.is_some_and(|system| system.eq_ignore_ascii_case(SYSTEM)) {
        return Ok(None);
    }
    let rest = identity.strip_prefix(SYSTEM).ok_or(MalformedIdentity)?;
    match rest.split_once('#') {
        Some((issuer, subject)) if is_issuer(issuer) && is_subject(subject) => Ok(Some((issuer, subject))),
        _ => Err(MalformedIdentity),
    }
}

/// Whether it can be a subject: 1 to 255 ASCII characters (OpenID Connect Core 1.0 section 2), none of them
/// blank or a control character.
pub fn is_subject(text: &str) -> bool {
    (1..=MAX_SUBJECT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether it can be an issuer: a URL without query and fragment (OpenID Connect Discovery 1.0 section 3) that
/// may be called.
pub fn is_issuer(text: &str) -> bool {
    text.len() <= MAX_ISSUER && !text.contains(['?', '#']) && is_endpoint(text)
}

/// Whether a URL may be called: https, or http on this machine only, and with no user in it.
pub fn is_endpoint(url: &str) -> bool {
    let (local_only, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return false,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let plain = !authority.is_empty()
        && !authority.contains(['@', '\\'])
        && url.bytes().all(|byte| byte.is_ascii_graphic());
    plain && (!local_only || is_local(authority))
}

fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_cannot_be_imitated() {
        let written = identity("https://idp.example/realms/corp", "a#b:c");
        assert_eq!(written, "oidc:https://idp.example/realms/corp#a#b:c");
        assert_eq!(
            parse_identity(&written),
            Ok(Some(("https://idp.example/realms/corp", "a#b:c")))
        );
        assert_eq!(parse_identity("github:octocat"), Ok(None));
        for wrong in [
            "oidc:corp:alice",
            "oidc:https://idp.example",
            "oidc:https://idp.example#",
            "oidc:https://idp.example#two words",
            "oidc:http://idp.example#alice",
            "oidc:https://idp.example?x#alice",
            "OIDC:https://idp.example#alice",
        ] {
            assert_eq!(parse_identity(wrong), Err(MalformedIdentity), "{wrong}");
        }
    }

    #[test]
    fn clear_text_goes_to_this_machine_only() {
        for good in [
            "https://idp.example",
            "https://idp.example:8443/x?y=z",
            "http://127.0.0.1:1/x",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "http://idp.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "https://user@idp.example",
            "https://",
            "ftp://localhost",
            "https://idp.example/a b",
            "idp.example",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }

    #[test]
    fn no_algorithm_has_a_shared_key() {
        for name in ["none", "None", "HS256", "HS512", "rs256", ""] {
            assert_eq!(Algorithm::of(name), None);
        }
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::of(algorithm.name()), Some(algorithm));
        }
    }
}
