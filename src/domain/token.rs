//! The five families of the broker's own tokens, each a type from parse to check.
//!
//! A token is a prefix, 66 base62 digits (16 bytes of id and 32 of secret, as three big-endian 128-bit
//! numbers of 22 digits), and 6 base62 digits of CRC-32 (ISO-HDLC) over everything before them. The prefix
//! and the checksum let secret scanners find it and let a cut-off copy be told from a wrong one. Only the
//! hash is ever stored.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::id::{self, Id};
use super::secret::{ActorToken, Secret};

/// A family of tokens. Implemented by the markers of this module only.
pub trait Family: 'static {
    /// What the token's id names.
    type Subject: id::Kind;
    /// Which family it is.
    const NAME: FamilyName;
}

/// The families, as errors and tables name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyName {
    /// A human operator's token.
    Operator,
    /// An org API key, for automation.
    ApiKey,
    /// An enrollment token.
    Enrollment,
    /// An agent's runtime key.
    RuntimeKey,
    /// An approval.
    Approval,
    /// A proxy grant: what agents get in place of one of the platform's own keys; see
    /// [`super::grant_token`]. No actor's: it is presented to a model proxy, never to the broker as a bearer.
    ProxyGrant,
}

impl FamilyName {
    /// All families.
    pub const ALL: [FamilyName; 6] = [
        FamilyName::Operator,
        FamilyName::ApiKey,
        FamilyName::Enrollment,
        FamilyName::RuntimeKey,
        FamilyName::Approval,
        FamilyName::ProxyGrant,
    ];

    /// What its tokens begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            FamilyName::Operator => "cbo_",
            FamilyName::ApiKey => "cbk_",
            FamilyName::Enrollment => "cbe_",
            FamilyName::RuntimeKey => "cbr_",
            FamilyName::Approval => "cba_",
            FamilyName::ProxyGrant => "cbg_",
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            FamilyName::Operator => "operator token",
            FamilyName::ApiKey => "org API key",
            FamilyName::Enrollment => "enrollment token",
            FamilyName::RuntimeKey => "runtime key",
            FamilyName::Approval => "approval",
            FamilyName::ProxyGrant => "proxy grant",
        }
    }

    /// The family a text claims to be of, by its prefix.
    pub fn of(text: &str) -> Option<FamilyName> {
        Self::ALL
            .into_iter()
            .find(|family| text.starts_with(family.prefix()))
    }
}

macro_rules! families {
    ($($(#[$doc:meta])* $marker:ident, $subject:ty, $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $marker {}
        impl Family for $marker {
            type Subject = $subject;
            const NAME: FamilyName = FamilyName::$name;
        }
    )*};
}

families! {
    /// A human operator's token.
    OperatorFamily, id::Operator, Operator;
    /// An org API key.
    ApiKeyFamily, id::ApiKey, ApiKey;
    /// An enrollment token.
    EnrollmentFamily, id::EnrollmentToken, Enrollment;
    /// A runtime key; its id is the agent's.
    RuntimeKeyFamily, id::Agent, RuntimeKey;
    /// An approval.
    ApprovalFamily, id::Approval, Approval;
}

/// A token of family `F`.
pub struct Token<F: Family> {
    id: Id<F::Subject>,
    secret: Zeroizing<[u8; 32]>,
}

/// Why a text is no token of the family asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is a token of another family, or of none.
    #[error("not {}", match .found { Some(found) => found.name(), None => "a token of this broker" })]
    WrongFamily {
        /// The family it is of, where its prefix says so.
        found: Option<FamilyName>,
    },
    /// The length, alphabet or checksum does not fit.
    #[error("the token is cut short or mistyped")]
    Malformed,
}

/// How many base62 digits 16 bytes take.
pub(super) const DIGITS: usize = 22;
const BODY: usize = 3 * DIGITS;
/// How many base62 digits the checksum takes.
pub(super) const CHECK: usize = 6;

impl<F: Family> Token<F> {
    /// A token for `id` with 32 random bytes of secret.
    pub fn new(id: Id<F::Subject>, secret: [u8; 32]) -> Self {
        Self {
            id,
            secret: Zeroizing::new(secret),
        }
    }

    /// Parses a token of this family.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let prefix = F::NAME.prefix();
        let Some(rest) = text.strip_prefix(prefix) else {
            return Err(TokenError::WrongFamily {
                found: FamilyName::of(text),
            });
        };
        if rest.len() != BODY + CHECK || !rest.is_ascii() {
            return Err(TokenError::Malformed);
        }
        let (covered, check) = text.split_at(prefix.len() + BODY);
        let expected = u128::from(crc32fast::hash(covered.as_bytes()));
        if decode_number(check.as_bytes()) != Some(expected) {
            return Err(TokenError::Malformed);
        }
        let mut bytes = Zeroizing::new([0u8; 48]);
        let (digits, places) = (rest.as_bytes().chunks_exact(DIGITS), bytes.chunks_exact_mut(16));
        for (digits, place) in digits.zip(places) {
            let mut number = decode_number(digits).ok_or(TokenError::Malformed)?;
            place.copy_from_slice(&number.to_be_bytes());
            number.zeroize();
        }
        let (mut id, mut secret) = ([0; 16], Zeroizing::new([0; 32]));
        id.copy_from_slice(&bytes[..16]);
        secret.copy_from_slice(&bytes[16..]);
        Ok(Self {
            id: Id::from_bytes(id),
            secret,
        })
    }

    /// What the token's id names. Says nothing about whether the token is good.
    pub fn id(&self) -> Id<F::Subject> {
        self.id
    }

    /// The token as text, to be shown once to whom it is for.
    pub fn reveal(&self) -> Secret<ActorToken> {
        let mut text = Vec::with_capacity(4 + BODY + CHECK);
        text.extend_from_slice(F::NAME.prefix().as_bytes());
        let (first, second) = self.secret.split_at(16);
        for part in [&self.id.as_bytes()[..], first, second] {
            let mut number = [0; 16];
            number.copy_from_slice(part);
            encode_number(&mut text, u128::from_be_bytes(number), DIGITS);
            number.zeroize();
        }
        let check = crc32fast::hash(&text);
        encode_number(&mut text, u128::from(check), CHECK);
        Secret::new(text)
    }

    /// The hash that is stored in place of the token. A plain SHA-256 serves: the secret is 256 random bits,
    /// so there is nothing to guess that a slow hash would protect.
    pub fn hash(&self) -> TokenHash {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(F::NAME.prefix().as_bytes());
        context.update(self.id.as_bytes());
        context.update(&*self.secret);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        TokenHash(hash)
    }
}

/// The stored hash of a token. Compared in constant time only.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// From stored bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are the hash of one token.
    pub fn matches(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends `number` in so many base62 digits.
pub(super) fn encode_number(out: &mut Vec<u8>, mut number: u128, digits: usize) {
    let start = out.len();
    for _ in 0..digits {
        // The remainder is below 62.
        out.push(ALPHABET[(number % 62) as usize]);
        number /= 62;
    }
    out[start..].reverse();
}

/// The number that base62 digits are; `None` where they are none, or more than 128 bits.
pub(super) fn decode_number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return None,
        };
        number.checked_mul(62)?.checked_add(u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::secret::Exposure;

    fn text(token: &Token<RuntimeKeyFamily>) -> String {
        token.reveal().expose_str(Exposure::Inspect).unwrap().to_owned()
    }

    proptest! {
        #[test]
        fn every_token_parses_back(id: [u8; 16], secret: [u8; 32]) {
            let token = Token::<RuntimeKeyFamily>::new(Id::from_bytes(id), secret);
            let parsed = Token::<RuntimeKeyFamily>::parse(&text(&token)).unwrap();
            prop_assert_eq!(parsed.id(), token.id());
            prop_assert!(parsed.hash().matches(&token.hash()));
        }

        #[test]
        fn one_changed_character_is_malformed(at in 4usize..76, to in "[0-9A-Za-z]") {
            let token = text(&Token::new(Id::from_bytes([3; 16]), [9; 32]));
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert_eq!(Token::<RuntimeKeyFamily>::parse(&changed).err(), Some(TokenError::Malformed));
        }

        #[test]
        fn no_text_panics(text in ".{0,100}") {
            let _ = Token::<OperatorFamily>::parse(&text);
        }
    }

    #[test]
    fn a_token_of_one_family_is_never_one_of_another() {
        let runtime = text(&Token::new(Id::from_bytes([3; 16]), [9; 32]));
        let found = Token::<OperatorFamily>::parse(&runtime).err();
        assert_eq!(
            found,
            Some(TokenError::WrongFamily {
                found: Some(FamilyName::RuntimeKey)
            })
        );
        let renamed = runtime.replacen("cbr_", "cbo_", 1);
        assert_eq!(
            Token::<OperatorFamily>::parse(&renamed).err(),
            Some(TokenError::Malformed)
        );
    }

    #[test]
    fn the_same_secret_hashes_differently_in_each_family_and_id() {
        let runtime = Token::<RuntimeKeyFamily>::new(Id::from_bytes([3; 16]), [9; 32]).hash();
        let operator = Token::<OperatorFamily>::new(Id::from_bytes([3; 16]), [9; 32]).hash();
        let other_id = Token::<RuntimeKeyFamily>::new(Id::from_bytes([4; 16]), [9; 32]).hash();
        assert!(!runtime.matches(&operator) && !runtime.matches(&other_id));
    }
}
