//! Secrets of extensions: their names, and who may read a namespace.
//!
//! Namespaces and names are made of letters that nothing takes for a separator, so that no name can reach into
//! another namespace, whatever they are put together with.

use super::id::{AgentId, EnvironmentId};
use super::name::Name;
use super::time::Time;

/// A secret's name in its namespace: 1 to 128 of `A-Z`, `a-z`, `0-9`, `_` and `-`, beginning with a letter or `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName(String);

/// A text that names no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret's name is 1 to 128 of A-Z, a-z, 0-9, '_' and '-', beginning with a letter or '_'")]
pub struct MalformedSecretName;

/// The longest name, in bytes.
const MAX_NAME: usize = 128;

impl SecretName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SecretName {
    type Err = MalformedSecretName;

    fn from_str(text: &str) -> Result<Self, MalformedSecretName> {
        let bytes = text.as_bytes();
        let fits = matches!(bytes.first(), Some(b'A'..=b'Z' | b'a'..=b'z' | b'_'))
            && bytes.len() <= MAX_NAME
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedSecretName)
        }
    }
}

/// Where a secret is: made from checked names only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretPath {
    /// The namespace.
    pub namespace: Name,
    /// The name in it.
    pub name: SecretName,
}

/// A secret of an extension, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionSecret {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
    /// Counts the values it has had, from 1. A secret that was removed and set again begins anew.
    pub version: u64,
    /// When it was first set.
    pub created: Time,
    /// When its value was set.
    pub updated: Time,
}

/// Who a namespace is granted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// An agent.
    Agent(AgentId),
    /// All agents of an environment.
    Environment(EnvironmentId),
}

impl std::fmt::Display for Grantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Grantee::Agent(id) => id.fmt(f),
            Grantee::Environment(id) => id.fmt(f),
        }
    }
}

/// That somebody may read a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretGrant {
    /// The namespace.
    pub namespace: String,
    /// Who.
    pub grantee: Grantee,
    /// Since when.
    pub created: Time,
}

/// How much a namespace holds. There is one while it holds anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its secrets.
    pub secrets: u32,
    /// Its grants.
    pub grants: u32,
}

/// How many secrets, and how many grants, a namespace has at most.
pub const MAX_SECRETS: u32 = 256;
/// See [`MAX_SECRETS`].
pub const MAX_GRANTS: u32 = 1_000;
/// How many namespaces an org has at most.
pub const MAX_NAMESPACES: usize = 256;
/// The longest value, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

impl Namespace {
    /// Whether there is nothing left in it.
    pub fn is_empty(self) -> bool {
        self.secrets == 0 && self.grants == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_be_a_path_is_no_name() {
        for text in [
            "", ".", "..", "a/b", "a.b", "a\0b", "a b", "a:b", "1a", "-a", "é", "a%2f", "a\n",
        ] {
            assert_eq!(text.parse::<SecretName>(), Err(MalformedSecretName), "{text:?}");
        }
        assert!("a".repeat(129).parse::<SecretName>().is_err());
        for text in ["GITHUB_TOKEN", "_x", "a-b", "A1"] {
            assert_eq!(text.parse::<SecretName>().unwrap().as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn a_name_has_none_of_the_bytes_that_keys_are_put_together_with(text in ".{0,40}") {
            if text.parse::<SecretName>().is_ok() || text.parse::<Name>().is_ok() {
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            }
        }
    }
}
