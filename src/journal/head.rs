//! Signed heads: what makes cutting off or rewriting show to whoever kept one.

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Deserialize;

use super::value::{Chain, JournalId, Signature, to_hex};
use crate::domain::journal::Position;
use crate::domain::secret::{Exposure, KeyMaterial, Secret};
use crate::domain::time::Time;

/// What every signed text begins with, so that the key's signatures mean nothing elsewhere.
const DOMAIN: &[u8] = b"credbroker journal head v1\0";

/// The key heads are signed with: Ed25519.
pub struct SigningKey(Ed25519KeyPair);

/// Key material that is no Ed25519 key, or a system without randomness to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither a PKCS#8 document (RFC 8410) nor a seed of 32 bytes.
    #[error("the journal's signing key is neither Ed25519 in PKCS#8 nor a seed of 32 bytes")]
    Malformed,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

impl SigningKey {
    /// From PKCS#8 (RFC 8410, RFC 5958), or from the 32 bytes of a seed (RFC 8032 §5.1.5).
    pub fn new(material: &Secret<KeyMaterial>) -> Result<Self, KeyError> {
        let bytes = material.expose(Exposure::Inspect);
        let pair = match bytes.len() {
            32 => Ed25519KeyPair::from_seed_unchecked(bytes),
            _ => Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes),
        };
        pair.map(Self).map_err(|_| KeyError::Malformed)
    }

    /// Makes a key, as PKCS#8 for [`SigningKey::new`], to be sealed and kept.
    pub fn generate() -> Result<Secret<KeyMaterial>, KeyError> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map(|document| Secret::new(document.as_ref().to_vec()))
            .map_err(|_| KeyError::NoRandomness)
    }

    /// What its signatures are checked with.
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(super) fn sign(
        &self,
        journal: JournalId,
        position: Position,
        chain: Chain,
        time: Time,
    ) -> SignedHead {
        let text = signed_bytes(&journal, position, &chain, time);
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(&text).as_ref());
        SignedHead {
            journal,
            position,
            chain,
            time,
            signature: Signature::from_bytes(signature),
        }
    }
}

/// The key heads are checked with: Ed25519, raw.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// A signed statement that the journal stood at this position with this chain value, durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The journal it is of.
    pub journal: JournalId,
    /// The last position covered; 0 for a journal without records.
    pub position: Position,
    /// The chain's value there.
    pub chain: Chain,
    /// When it was signed.
    pub time: Time,
    /// Over the bytes described in `docs/journal.md`.
    pub signature: Signature,
}

fn signed_bytes(journal: &JournalId, position: Position, chain: &Chain, time: Time) -> Vec<u8> {
    [
        DOMAIN,
        journal.as_bytes(),
        &position.0.to_be_bytes(),
        chain.as_bytes(),
        &time.millis().to_be_bytes(),
    ]
    .concat()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    journal: JournalId,
    position: u64,
    chain: Chain,
    time: i64,
    signature: Signature,
}

impl SignedHead {
    /// Whether `key` signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let text = signed_bytes(&self.journal, self.position, &self.chain, self.time);
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(&text, self.signature.as_bytes())
            .is_ok()
    }

    /// One line of JSON, without its end.
    pub fn to_line(&self) -> String {
        format!(
            r#"{{"journal":"{}","position":{},"chain":"{}","time":{},"signature":"{}"}}"#,
            self.journal,
            self.position.0,
            self.chain,
            self.time.millis(),
            self.signature
        )
    }

    /// Reads exactly what [`SignedHead::to_line`] writes; does not check the signature.
    pub fn from_line(line: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(line).ok()?;
        let head = Self {
            journal: wire.journal,
            position: Position(wire.position),
            chain: wire.chain,
            time: Time::from_millis(wire.time),
            signature: wire.signature,
        };
        (head.to_line().as_bytes() == line).then_some(head)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_bound_to_all_it_says() {
        let key = SigningKey::new(&Secret::new(vec![7; 32])).unwrap();
        let journal = JournalId::from_bytes([1; 16]);
        let head = key.sign(journal, Position(3), Chain::start(&journal), Time::from_millis(5));
        assert!(head.is_signed_by(&key.public_key()));
        assert_eq!(SignedHead::from_line(head.to_line().as_bytes()), Some(head));
        let changed = [
            SignedHead {
                journal: JournalId::from_bytes([2; 16]),
                ..head
            },
            SignedHead {
                position: Position(2),
                ..head
            },
            SignedHead {
                chain: head.chain.after(b""),
                ..head
            },
            SignedHead {
                time: Time::from_millis(6),
                ..head
            },
        ];
        assert!(changed.iter().all(|head| !head.is_signed_by(&key.public_key())));
        let other = SigningKey::new(&SigningKey::generate().unwrap()).unwrap();
        assert!(!head.is_signed_by(&other.public_key()));
        assert_eq!(
            SigningKey::new(&Secret::new(vec![7; 31])).err(),
            Some(KeyError::Malformed)
        );
    }
}
