//! Proxy grants: short-lived tokens that agents show to a model proxy in place of one of the platform's own keys.
//!
//! A grant is stateless: it names a lease and says until when, under a MAC (HMAC-SHA-256, RFC 2104) by a key of the
//! broker's own. Nothing is stored of it, and by itself it permits nothing: the broker looks at the lease and all it
//! hangs on each time a proxy asks.
//!
//! ```text
//! prefix   110 digits   6 digits
//!
//! 22 digits each, as in the other families, of
//!   version (1)  expiry, milliseconds since the Unix epoch, big-endian (7)  salt (8)
//!   org (16)
//!   lease (16)
//!   MAC over the prefix and the 48 bytes above (32)
//! ```
//!
//! The last 6 digits are the checksum of the other families, so that secret scanners tell a grant from what only
//! looks alike.

use ring::hmac;
use zeroize::{Zeroize as _, Zeroizing};

use super::id::{Id, LeaseId, OrgId};
use super::secret::{Exposure, KeyMaterial, ProxyGrantToken, Secret};
use super::time::Time;
use super::token::{CHECK, DIGITS, FamilyName, decode_number, encode_number};

/// How long the key is, in bytes.
pub const KEY_LENGTH: usize = 32;

const VERSION: u8 = 1;
const CLAIMS: usize = 48;
const MAC: usize = 32;
const BODY: usize = (CLAIMS + MAC) / 16 * DIGITS;
const PREFIX: &str = FamilyName::ProxyGrant.prefix();
const LAST_EXPIRY: i64 = (1 << 56) - 1;

/// What grants are made and checked with.
pub struct GrantKey(hmac::Key);

impl GrantKey {
    /// From [`KEY_LENGTH`] random bytes.
    pub fn new(key: &Secret<KeyMaterial>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose(Exposure::Use)))
    }
}

/// What a grant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantClaims {
    /// The org of the lease.
    pub org: OrgId,
    /// The lease.
    pub lease: LeaseId,
    /// From when on it is good for nothing.
    pub expires: Time,
}

/// Why a text is no grant of this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Prefix, length, alphabet or checksum do not fit.
    #[error("not a proxy grant, or cut short or mistyped")]
    Malformed,
    /// The MAC is not this broker's, or the grant is of a form that it does not know.
    #[error("not a grant of this broker")]
    Forged,
}

impl GrantClaims {
    /// The grant as text. `salt` tells grants apart that say the same; it need not be secret.
    pub fn mint(&self, key: &GrantKey, salt: [u8; 8]) -> Secret<ProxyGrantToken> {
        let mut body = Zeroizing::new([0; CLAIMS + MAC]);
        let expires = self.expires.millis().clamp(0, LAST_EXPIRY);
        body[..8].copy_from_slice(&expires.to_be_bytes());
        body[0] = VERSION;
        body[8..16].copy_from_slice(&salt);
        body[16..32].copy_from_slice(self.org.as_bytes());
        body[32..48].copy_from_slice(self.lease.as_bytes());
        let mac = hmac::sign(&key.0, &covered(&body));
        body[CLAIMS..].copy_from_slice(mac.as_ref());

        let mut text = Vec::with_capacity(PREFIX.len() + BODY + CHECK);
        text.extend_from_slice(PREFIX.as_bytes());
        for part in body.chunks_exact(16) {
            let mut number = [0; 16];
            number.copy_from_slice(part);
            encode_number(&mut text, u128::from_be_bytes(number), DIGITS);
            number.zeroize();
        }
        let check = crc32fast::hash(&text);
        encode_number(&mut text, u128::from(check), CHECK);
        Secret::new(text)
    }

    /// What a text claims that was made with this key. Says nothing about whether it has expired or the lease stands.
    /// The MAC is compared in constant time.
    pub fn read(key: &GrantKey, text: &str) -> Result<Self, GrantError> {
        let digits = text.strip_prefix(PREFIX).ok_or(GrantError::Malformed)?;
        if digits.len() != BODY + CHECK || !digits.is_ascii() {
            return Err(GrantError::Malformed);
        }
        let (checked, check) = text.split_at(PREFIX.len() + BODY);
        let expected = u128::from(crc32fast::hash(checked.as_bytes()));
        if decode_number(check.as_bytes()) != Some(expected) {
            return Err(GrantError::Malformed);
        }
        let mut body = Zeroizing::new([0; CLAIMS + MAC]);
        for (digits, place) in digits
            .as_bytes()
            .chunks_exact(DIGITS)
            .zip(body.chunks_exact_mut(16))
        {
            let number = decode_number(digits).ok_or(GrantError::Malformed)?;
            place.copy_from_slice(&number.to_be_bytes());
        }
        hmac::verify(&key.0, &covered(&body), &body[CLAIMS..]).map_err(|_| GrantError::Forged)?;
        if body[0] != VERSION {
            return Err(GrantError::Forged);
        }
        let (mut expires, mut org, mut lease) = ([0; 8], [0; 16], [0; 16]);
        expires[1..].copy_from_slice(&body[1..8]);
        org.copy_from_slice(&body[16..32]);
        lease.copy_from_slice(&body[32..48]);
        Ok(Self {
            org: Id::from_bytes(org),
            lease: Id::from_bytes(lease),
            expires: Time::from_millis(i64::from_be_bytes(expires)),
        })
    }
}

/// What the MAC covers.
fn covered(body: &[u8; CLAIMS + MAC]) -> [u8; 4 + CLAIMS] {
    let mut covered = [0; 4 + CLAIMS];
    covered[..4].copy_from_slice(PREFIX.as_bytes());
    covered[4..].copy_from_slice(&body[..CLAIMS]);
    covered
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> GrantKey {
        GrantKey::new(&Secret::new(vec![byte; KEY_LENGTH]))
    }

    fn claims() -> GrantClaims {
        GrantClaims {
            org: Id::from_bytes([1; 16]),
            lease: Id::from_bytes([2; 16]),
            expires: Time::from_millis(1_700_000_000_123),
        }
    }

    fn text(grant: &Secret<ProxyGrantToken>) -> String {
        grant.expose_str(Exposure::Inspect).unwrap().to_owned()
    }

    /// The same digits with a checksum that fits.
    fn resealed(text: &str) -> String {
        let covered = &text[..text.len() - CHECK];
        let mut sealed = covered.as_bytes().to_vec();
        encode_number(
            &mut sealed,
            u128::from(crc32fast::hash(covered.as_bytes())),
            CHECK,
        );
        String::from_utf8(sealed).unwrap()
    }

    proptest! {
        #[test]
        fn every_grant_reads_back(org: [u8; 16], lease: [u8; 16], expires in 0..=LAST_EXPIRY, salt: [u8; 8]) {
            let (org, lease) = (Id::from_bytes(org), Id::from_bytes(lease));
            let claims = GrantClaims { org, lease, expires: Time::from_millis(expires) };
            let grant = claims.mint(&key(7), salt);
            prop_assert_eq!(GrantClaims::read(&key(7), &text(&grant)), Ok(claims));
        }

        #[test]
        fn no_changed_digit_passes_even_under_a_checksum_that_fits(at in 4usize..114, to in "[0-9A-Za-z]") {
            let grant = text(&claims().mint(&key(7), [3; 8]));
            let mut changed = grant.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != grant);
            prop_assert_eq!(GrantClaims::read(&key(7), &changed), Err(GrantError::Malformed));
            prop_assert!(GrantClaims::read(&key(7), &resealed(&changed)).is_err());
        }

        #[test]
        fn no_text_panics(text in ".{0,150}", digits in "cbg_[0-9A-Za-z]{116}") {
            prop_assert!(GrantClaims::read(&key(7), &text).is_err());
            prop_assert!(GrantClaims::read(&key(7), &resealed(&digits)).is_err());
        }
    }

    #[test]
    fn a_grant_is_good_under_its_own_key_only() {
        let grant = text(&claims().mint(&key(7), [3; 8]));
        assert_eq!(grant.len(), 120);
        assert_eq!(GrantClaims::read(&key(8), &grant), Err(GrantError::Forged));
        assert_ne!(grant, text(&claims().mint(&key(7), [4; 8])));
    }
}
