//! What others need to trust this broker by: its roots, and the keys that it signs with.

use std::time::Duration;

use super::Broker;
use crate::domain::time::Time;
use crate::pki::key::fingerprint;

/// The roots and signing keys, and when to ask again.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    /// The roots, DER.
    pub roots_der: Vec<Vec<u8>>,
    /// What clients pin.
    pub ca_pin: String,
    /// The journal's public key: Ed25519, raw.
    pub journal_key: [u8; 32],
    /// `sha256:` and the hex SHA-256 of it.
    pub journal_key_id: String,
    /// When to ask again.
    pub refresh: Time,
}

/// How long a bundle may be kept. New roots and keys are served for longer than this before they are used.
const KEPT: Duration = Duration::from_secs(86_400);

impl Broker {
    /// The trust bundle as it is now.
    pub fn trust_bundle(&self) -> TrustBundle {
        let (_, journal_key) = self.journal_head();
        TrustBundle {
            roots_der: self.authority.trust_bundle_der(),
            ca_pin: self.authority.ca_pin().to_owned(),
            journal_key: journal_key.0,
            journal_key_id: fingerprint(&journal_key.0).to_string(),
            refresh: (self.now() + KEPT).min(self.authority.root_not_after()),
        }
    }
}
