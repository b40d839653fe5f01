//! The journal's signing key. Apart from what it signs, which those who only verify have too.

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::head::{Anchor, PublicKey, SignedHead};
use super::value::{Chain, JournalId, Signature};
use crate::domain::journal::Position;
use crate::domain::secret::{Exposure, KeyMaterial, Secret};
use crate::domain::time::Time;

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
        SignedHead {
            journal,
            position,
            chain,
            time,
            signature: self.signature(&SignedHead::signed_bytes(&journal, position, &chain, time)),
        }
    }

    pub(super) fn sign_anchor(
        &self,
        journal: JournalId,
        position: Position,
        chain: Chain,
        time: Time,
    ) -> Anchor {
        Anchor {
            journal,
            position,
            chain,
            time,
            signature: self.signature(&Anchor::signed_bytes(&journal, position, &chain, time)),
        }
    }

    fn signature(&self, text: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(text).as_ref());
        Signature::from_bytes(signature)
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
        // A head is no anchor, whatever it says.
        let SignedHead {
            journal,
            position,
            chain,
            time,
            signature,
        } = head;
        let passed_off = Anchor {
            journal,
            position,
            chain,
            time,
            signature,
        };
        assert!(!passed_off.is_signed_by(&key.public_key()));
        let anchor = key.sign_anchor(journal, position, chain, time);
        assert!(anchor.is_signed_by(&key.public_key()));
        assert_eq!(Anchor::from_line(anchor.to_line().as_bytes()), Some(anchor));
        let other = SigningKey::new(&SigningKey::generate().unwrap()).unwrap();
        assert!(!head.is_signed_by(&other.public_key()));
        assert_eq!(
            SigningKey::new(&Secret::new(vec![7; 31])).err(),
            Some(KeyError::Malformed)
        );
    }
}
