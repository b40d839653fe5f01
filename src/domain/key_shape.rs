//! What keys look like, so that a key stored for the wrong provider is noticed when it is stored.
//!
//! Shapes are hints, never proof: only a likely mix-up is refused, an unknown shape passes. The shapes are
//! data (`registry/providers.toml`).

mod aws;

pub use aws::{AwsKeyText, AwsPart, is_region};

/// What a key of some shape is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// It authenticates calls.
    Call,
    /// It administers an account at the provider and authenticates no model calls.
    Admin,
    /// It is an OAuth token, which belongs to a grant and ends soon.
    OAuthToken,
    /// It names long-term AWS keys and authenticates nothing without their secret.
    AwsKeyId,
    /// It names temporary AWS keys, which work only with their session token.
    AwsTemporaryKeyId,
}

/// The characters that may follow a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Any printable ASCII.
    Printable,
    /// RFC 4648 section 5: letters, digits, `-` and `_`.
    Base64Url,
    /// RFC 4648 section 6: `A-Z` and `2-7`.
    Base32,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Alphabet::Printable => byte.is_ascii_graphic(),
            Alphabet::Base64Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Alphabet::Base32 => matches!(byte, b'A'..=b'Z' | b'2'..=b'7'),
        }
    }
}

/// One shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// The provider whose keys look so.
    pub provider: String,
    /// How they begin; never empty.
    pub prefix: String,
    /// How many characters follow; `None` for any number but zero.
    pub following: Option<usize>,
    /// Which characters follow.
    pub alphabet: Alphabet,
    /// What such a key is for.
    pub usage: KeyUse,
}

impl KeyShape {
    fn fits(&self, key: &str) -> bool {
        key.strip_prefix(self.prefix.as_str()).is_some_and(|rest| {
            !rest.is_empty()
                && self.following.is_none_or(|length| rest.len() == length)
                && rest.bytes().all(|byte| self.alphabet.has(byte))
        })
    }
}

/// The longest key taken, in bytes: what the strictest program that is handed one reads.
pub const MAX_KEY: usize = 16_384;

/// Why a key is not stored. Its text names no part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeMismatch {
    /// Nothing in it.
    #[error("the key is empty; paste the whole key")]
    Empty,
    /// Whitespace, control characters, or anything beyond ASCII.
    #[error(
        "the key has whitespace, control or non-ASCII characters in it; paste the key alone, in one line"
    )]
    Unprintable,
    /// Longer than [`MAX_KEY`], or as an access key id than those are.
    #[error("the key is longer than any that is taken; check what was pasted")]
    TooLong,
    /// An OAuth token, not a key.
    #[error(
        "this looks like an OAuth token of {looks_like}, not an API key; it would expire unnoticed: import \
         the grant instead, or create an API key"
    )]
    OAuthToken {
        /// The provider it looks like.
        looks_like: String,
    },
    /// A key that makes no model calls.
    #[error("this looks like an admin key of {looks_like}, which makes no model calls; create an API key")]
    AdminKey {
        /// The provider it looks like.
        looks_like: String,
    },
    /// Another provider's key.
    #[error("this looks like a key of {looks_like}, not of {provider}; check which key it is")]
    OtherProvider {
        /// The provider it looks like.
        looks_like: String,
        /// The provider it was meant for.
        provider: String,
    },
    /// The id of AWS keys where a secret belongs.
    #[error(
        "this looks like an AWS access key id of {looks_like}, which authenticates nothing by itself; AWS keys \
         are stored as a pair, id and secret"
    )]
    AwsKeyId {
        /// The provider it looks like.
        looks_like: String,
    },
    /// Something else where the id of AWS keys belongs.
    #[error("this does not look like an AWS access key id, such as AKIA…; check what was pasted where")]
    NoAwsKeyId,
    /// Temporary AWS keys without their session token, which do not work.
    #[error("these are temporary AWS keys, which work only with their session token; store it with them")]
    SessionTokenMissing,
    /// Long-term AWS keys with a session token, which they do not have.
    #[error("long-term AWS keys have no session token; leave it out, or check which keys these are")]
    SessionTokenUnexpected,
}

impl ShapeMismatch {
    /// The provider it looks like.
    pub fn looks_like(&self) -> Option<&str> {
        match self {
            ShapeMismatch::OAuthToken { looks_like }
            | ShapeMismatch::AdminKey { looks_like }
            | ShapeMismatch::OtherProvider { looks_like, .. }
            | ShapeMismatch::AwsKeyId { looks_like } => Some(looks_like),
            ShapeMismatch::Empty
            | ShapeMismatch::Unprintable
            | ShapeMismatch::TooLong
            | ShapeMismatch::NoAwsKeyId
            | ShapeMismatch::SessionTokenMissing
            | ShapeMismatch::SessionTokenUnexpected => None,
        }
    }

    /// Whether it may be stored all the same when the caller insists. What cannot be sent in a header, or can
    /// never work, cannot be forced.
    pub fn forceable(&self) -> bool {
        match self {
            ShapeMismatch::Empty
            | ShapeMismatch::Unprintable
            | ShapeMismatch::TooLong
            | ShapeMismatch::SessionTokenMissing => false,
            ShapeMismatch::OAuthToken { .. }
            | ShapeMismatch::AdminKey { .. }
            | ShapeMismatch::OtherProvider { .. }
            | ShapeMismatch::AwsKeyId { .. }
            | ShapeMismatch::NoAwsKeyId
            | ShapeMismatch::SessionTokenUnexpected => true,
        }
    }
}

/// Whether it can be sent in a header, and is at most `longest` bytes.
fn sendable(key: &str, longest: usize) -> Result<(), ShapeMismatch> {
    if key.is_empty() {
        return Err(ShapeMismatch::Empty);
    }
    if key.len() > longest {
        return Err(ShapeMismatch::TooLong);
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ShapeMismatch::Unprintable);
    }
    Ok(())
}

/// All known shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyShapes(Vec<KeyShape>);

impl KeyShapes {
    /// A table of these shapes. Where several fit a key, the longest prefix tells.
    pub fn new(mut shapes: Vec<KeyShape>) -> Self {
        shapes.sort_by(|a, b| {
            b.prefix
                .len()
                .cmp(&a.prefix.len())
                .then_with(|| a.prefix.cmp(&b.prefix))
        });
        Self(shapes)
    }

    /// The shape that `key` has.
    pub fn recognize(&self, key: &str) -> Option<&KeyShape> {
        self.0.iter().find(|shape| shape.fits(key))
    }

    /// Whether `key` may be stored for `provider`. A provider without shapes of its own (a gateway, a local
    /// endpoint) may hand out keys that look like anybody's; only OAuth tokens and AWS access key ids are refused
    /// there.
    pub fn check(&self, provider: &str, key: &str) -> Result<(), ShapeMismatch> {
        sendable(key, MAX_KEY)?;
        let Some(shape) = self.recognize(key) else {
            return Ok(());
        };
        let looks_like = shape.provider.clone();
        let known = self.0.iter().any(|shape| shape.provider == provider);
        match shape.usage {
            KeyUse::OAuthToken => Err(ShapeMismatch::OAuthToken { looks_like }),
            KeyUse::AwsKeyId | KeyUse::AwsTemporaryKeyId => Err(ShapeMismatch::AwsKeyId { looks_like }),
            _ if known && looks_like != provider => Err(ShapeMismatch::OtherProvider {
                looks_like,
                provider: provider.to_owned(),
            }),
            KeyUse::Admin if known => Err(ShapeMismatch::AdminKey { looks_like }),
            KeyUse::Admin | KeyUse::Call => Ok(()),
        }
    }
}

/// The last four characters, of a key long enough that they give nothing away.
pub fn hint(key: &str) -> String {
    let tail: Vec<char> = key.chars().rev().take(4).collect();
    if key.len() >= 20 {
        tail.into_iter().rev().collect()
    } else {
        String::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shape(provider: &str, prefix: &str, following: Option<usize>, usage: KeyUse) -> KeyShape {
        KeyShape {
            provider: provider.to_owned(),
            prefix: prefix.to_owned(),
            following,
            alphabet: Alphabet::Base64Url,
            usage,
        }
    }

    fn shapes() -> KeyShapes {
        KeyShapes::new(vec![
            shape("openai", "sk-", None, KeyUse::Call),
            shape("anthropic", "sk-ant-api", None, KeyUse::Call),
            shape("anthropic", "sk-ant-oat", None, KeyUse::OAuthToken),
            shape("openai", "sk-admin-", None, KeyUse::Admin),
            shape("google", "AIza", Some(35), KeyUse::Call),
        ])
    }

    #[test]
    fn the_longest_prefix_tells_whatever_the_order_of_the_table() {
        let shapes = shapes();
        assert_eq!(shapes.recognize("sk-ant-api03-x").unwrap().provider, "anthropic");
        assert_eq!(shapes.recognize("sk-x").unwrap().provider, "openai");
        assert!(shapes.recognize("sk-").is_none(), "a bare prefix is no key");
    }

    #[test]
    fn a_mix_up_is_refused_and_an_unknown_shape_passes() {
        let shapes = shapes();
        let mismatch = shapes.check("anthropic", "sk-proj-1").unwrap_err();
        assert_eq!(mismatch.looks_like(), Some("openai"));
        assert!(mismatch.forceable());
        assert!(!mismatch.to_string().contains("sk-proj"));
        assert_eq!(shapes.check("anthropic", "something-else"), Ok(()));
        assert_eq!(shapes.check("anthropic", "AIzaTooShort"), Ok(()));
        assert_eq!(shapes.check("openai", "sk-1"), Ok(()));
    }

    #[test]
    fn oauth_tokens_are_refused_even_for_their_own_provider_and_admin_keys_too() {
        let shapes = shapes();
        for provider in ["anthropic", "openai", "a-gateway"] {
            let refused = shapes.check(provider, "sk-ant-oat01-x").unwrap_err();
            assert!(matches!(refused, ShapeMismatch::OAuthToken { .. }));
        }
        assert!(matches!(
            shapes.check("openai", "sk-admin-x"),
            Err(ShapeMismatch::AdminKey { .. })
        ));
    }

    #[test]
    fn a_gateway_may_hand_out_keys_of_any_shape() {
        assert_eq!(shapes().check("a-gateway", "sk-1"), Ok(()));
    }

    #[test]
    fn what_no_header_can_carry_is_refused_always() {
        let shapes = shapes();
        for (key, why) in [
            (String::new(), ShapeMismatch::Empty),
            ("sk-1\n".to_owned(), ShapeMismatch::Unprintable),
            ("sk 1".to_owned(), ShapeMismatch::Unprintable),
            ("sk-\u{e9}".to_owned(), ShapeMismatch::Unprintable),
            ("x".repeat(MAX_KEY + 1), ShapeMismatch::TooLong),
        ] {
            let refused = shapes.check("a-gateway", &key).unwrap_err();
            assert_eq!(refused, why);
            assert!(!refused.forceable());
        }
    }
}
