//! A stored credential, without its secret.

use std::time::Duration;

pub use super::health::Health;
use super::id::{CredentialId, OrgId};
use super::mode::CredentialKind;
use super::owner::Owner;
use super::rotation::Rotation;
use super::time::Time;

/// A stored credential, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// The org.
    pub org: OrgId,
    /// Whose it is.
    pub owner: Owner,
    /// The provider it is for.
    pub provider: String,
    /// What it is.
    pub kind: CredentialKind,
    /// The connector that keeps a grant alive; empty for keys.
    pub connector: String,
    /// The generation and where its rotation stands. Keys have one too: replacing a key is a generation.
    pub rotation: Rotation,
    /// When the current access token or the key expires; `None` where it does not or nobody knows.
    pub expires: Option<Time>,
    /// When it was made.
    pub created: Time,
    /// When it was last refreshed or replaced.
    pub refreshed: Time,
    /// The last four characters of a key, of AWS keys those of the access key id, to tell keys apart.
    pub hint: String,
    /// The scopes of a grant.
    pub scopes: Vec<String>,
    /// How the access token is presented (RFC 6749 section 7.1).
    pub token_type: String,
    /// Non-secret facts about the account.
    pub account: Vec<(String, String)>,
    /// The only executor it is for; `None`: all that can use the provider. Keys only.
    pub executor: Option<String>,
    /// The region that AWS keys and bearer keys for Bedrock are meant for.
    pub region: Option<String>,
}

impl Credential {
    /// Whether the current secret works for at least `remaining` from `now`. One that does not expire, or
    /// whose expiry nobody told, is taken to work until the provider rejects it (RFC 6749 section 5.1:
    /// `expires_in` is only recommended).
    pub fn works_for(&self, now: Time, remaining: Duration) -> bool {
        self.expires.is_none_or(|expires| expires > now + remaining)
    }
}
