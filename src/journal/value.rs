//! The two values everything else is about: which journal it is, and where its chain stands.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

macro_rules! hex_value {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From the raw bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// From lower-case hexadecimal digits, the one form that is written.
            pub fn from_hex(text: &str) -> Option<Self> {
                from_hex(text.as_bytes()).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&to_hex(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::from_hex(&text).ok_or_else(|| D::Error::custom("not lower-case hexadecimal of the right length"))
            }
        }
    };
}

hex_value! {
    /// Names a journal: 16 random bytes, drawn when it is made.
    JournalId, 16
}
hex_value! {
    /// The value of the hash chain at a position: it fixes every stored byte up to there.
    Chain, 32
}
hex_value! {
    /// An Ed25519 signature (RFC 8032).
    Signature, 64
}

impl Chain {
    /// The value before the first record: SHA-256 of the journal's id.
    pub fn start(journal: &JournalId) -> Self {
        Self::of(&[journal.as_bytes()])
    }

    /// The value after `stored`, which follows the record this value stands at.
    pub fn after(&self, stored: &[u8]) -> Self {
        Self::of(&[&self.0, stored])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in parts {
            hash.update(part);
        }
        let mut value = [0; 32];
        value.copy_from_slice(hash.finish().as_ref());
        Self(value)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

pub(super) fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_has_one_form() {
        let id = JournalId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(JournalId::from_hex(&id.to_string()), Some(id));
        assert_eq!(JournalId::from_hex(&id.to_string().to_uppercase()), None);
        assert_eq!(JournalId::from_hex(&"ab".repeat(15)), None);
    }

    #[test]
    fn the_chain_is_plain_sha256_over_the_previous_value_and_the_record() {
        let start = Chain::start(&JournalId::from_bytes([0; 16]));
        // SHA-256 of sixteen zero bytes.
        assert_eq!(
            start.to_string(),
            "374708fff7719dd5979ec875d56cd2286f6d3cf7ec317a3b25632aab28ec37bb"
        );
        let whole = digest::digest(&digest::SHA256, &[start.as_bytes().as_slice(), b"{}"].concat());
        assert_eq!(start.after(b"{}").as_bytes().as_slice(), whole.as_ref());
    }
}
