//! What the journal's key signs: heads, which make cutting off and rewriting show to whoever kept one, and the
//! anchor, which says where the kept part begins after older records were pruned.

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;

use super::value::{Chain, JournalId, Signature, from_hex, to_hex};
use crate::domain::journal::Position;
use crate::domain::time::Time;

/// The key heads are checked with: Ed25519, raw.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// From 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text.as_bytes()).map(Self)
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
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

/// A statement about a place of a journal. `$domain` begins every signed text, so that one kind of statement
/// never passes for another, and the key's signatures mean nothing elsewhere.
macro_rules! statement {
    ($(#[$doc:meta])* $name:ident, $domain:literal, $(#[$position:meta])*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// The journal it is of.
            pub journal: JournalId,
            $(#[$position])*
            pub position: Position,
            /// The chain's value there.
            pub chain: Chain,
            /// When it was signed.
            pub time: Time,
            /// Over the bytes described in `docs/journal.md`.
            pub signature: Signature,
        }

        impl $name {
            pub(super) fn signed_bytes(
                journal: &JournalId,
                position: Position,
                chain: &Chain,
                time: Time,
            ) -> Vec<u8> {
                [
                    $domain.as_slice(),
                    journal.as_bytes(),
                    &position.0.to_be_bytes(),
                    chain.as_bytes(),
                    &time.millis().to_be_bytes(),
                ]
                .concat()
            }

            /// Whether `key` signed it.
            pub fn is_signed_by(&self, key: &PublicKey) -> bool {
                let text = Self::signed_bytes(&self.journal, self.position, &self.chain, self.time);
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

            /// Reads exactly what `to_line` writes; does not check the signature.
            pub fn from_line(line: &[u8]) -> Option<Self> {
                let wire: Wire = serde_json::from_slice(line).ok()?;
                let statement = Self {
                    journal: wire.journal,
                    position: Position(wire.position),
                    chain: wire.chain,
                    time: Time::from_millis(wire.time),
                    signature: wire.signature,
                };
                (statement.to_line().as_bytes() == line).then_some(statement)
            }
        }
    };
}

statement! {
    /// A signed statement that the journal stood at this position with this chain value, durable.
    SignedHead, b"credbroker journal head v1\0",
    /// The last position covered; 0 for a journal without records.
}

statement! {
    /// A signed statement that the broker itself removed all records up to this position.
    Anchor, b"credbroker journal anchor v1\0",
    /// The last position removed: the kept part begins after it.
}
