//! An agent, and the check of its runtime key.

use subtle::ConstantTimeEq;

use super::id::{AgentId, EnrollmentTokenId, EnvironmentId, OrgId};
use super::reason::Reason;
use super::refusal::Refusal;
use super::time::Time;
use super::token::TokenHash;

/// SHA-256 of a public key's SubjectPublicKeyInfo, DER (RFC 5280 section 4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyFingerprint(pub [u8; 32]);

impl std::fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An enrolled sandbox.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The org.
    pub org: OrgId,
    /// The environment it enrolled into.
    pub environment: EnvironmentId,
    /// The key it enrolled with. Its certificates carry this key and no other.
    pub key: KeyFingerprint,
    /// The hash of the runtime key in use.
    pub runtime_key: TokenHash,
    /// The hash of a runtime key that was handed out and not used yet. Its first use ends the one above.
    pub next_runtime_key: Option<TokenHash>,
    /// Whether a runtime key has been used. Until then the enrollment may be repeated with the same key.
    pub used: bool,
    /// The enrollment token it came by.
    pub enrollment_token: EnrollmentTokenId,
    /// Labels from the enrollment token.
    pub labels: Vec<(String, String)>,
    /// What it said of itself.
    pub attributes: Vec<(String, String)>,
    /// When it enrolled.
    pub created: Time,
    /// When its newest certificate ends.
    pub certificate_expires: Time,
    /// When it was revoked.
    pub revoked: Option<Time>,
}

/// A good runtime key, and whether its use changes the agent's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// The key in use, used before.
    Known,
    /// A first use: the record has to be changed, durably, before the request goes on.
    First,
}

impl Agent {
    /// Checks what an agent presents: its certificate's key and the hash of its runtime key.
    pub fn authenticate(&self, certificate: KeyFingerprint, key: &TokenHash) -> Result<KeyUse, Refusal> {
        let unknown = || Refusal::new(Reason::CredentialUnknown, "the runtime key is not known");
        if !bool::from(self.key.0.ct_eq(&certificate.0)) {
            return Err(Refusal::new(
                Reason::CertificateMismatch,
                "the certificate's key is not the one this agent enrolled with",
            ));
        }
        let use_ = if self.next_runtime_key.is_some_and(|next| next.matches(key)) {
            KeyUse::First
        } else if !self.runtime_key.matches(key) {
            return Err(unknown());
        } else if self.used {
            KeyUse::Known
        } else {
            KeyUse::First
        };
        // Said only to who holds the key: nobody else learns that the agent existed.
        if self.revoked.is_some() {
            return Err(Refusal::new(Reason::CredentialUnknown, "the agent was revoked"));
        }
        Ok(use_)
    }

    /// The record after the first use of the key with this hash.
    #[must_use]
    pub fn after_first_use(&self, key: &TokenHash) -> Agent {
        let mut agent = self.clone();
        if let Some(next) = agent.next_runtime_key.take_if(|next| next.matches(key)) {
            agent.runtime_key = next;
        }
        agent.used = true;
        agent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    const KEY: KeyFingerprint = KeyFingerprint([7; 32]);

    fn hash(byte: u8) -> TokenHash {
        TokenHash::from_bytes([byte; 32])
    }

    fn agent() -> Agent {
        Agent {
            id: Id::from_bytes([1; 16]),
            org: Id::from_bytes([2; 16]),
            environment: Id::from_bytes([3; 16]),
            key: KEY,
            runtime_key: hash(1),
            next_runtime_key: None,
            used: false,
            enrollment_token: Id::from_bytes([4; 16]),
            labels: vec![],
            attributes: vec![],
            created: Time::from_millis(0),
            certificate_expires: Time::from_millis(0),
            revoked: None,
        }
    }

    #[test]
    fn the_earlier_runtime_key_ends_at_the_next_ones_first_use() {
        let rotated = Agent {
            next_runtime_key: Some(hash(2)),
            used: true,
            ..agent()
        };
        assert_eq!(rotated.authenticate(KEY, &hash(1)).unwrap(), KeyUse::Known);
        assert_eq!(rotated.authenticate(KEY, &hash(2)).unwrap(), KeyUse::First);
        let after = rotated.after_first_use(&hash(2));
        assert_eq!(after.authenticate(KEY, &hash(2)).unwrap(), KeyUse::Known);
        assert_eq!(
            after.authenticate(KEY, &hash(1)).unwrap_err().reason,
            Reason::CredentialUnknown
        );
    }

    #[test]
    fn using_the_first_key_leaves_a_repeats_key_waiting() {
        let repeated = Agent {
            next_runtime_key: Some(hash(2)),
            ..agent()
        };
        let after = repeated.after_first_use(&hash(1));
        assert!(after.used && after.next_runtime_key.is_some());
    }

    #[test]
    fn another_key_or_another_certificate_or_a_revocation_is_refused() {
        let reason =
            |agent: Agent, certificate, key| agent.authenticate(certificate, &key).unwrap_err().reason;
        assert_eq!(reason(agent(), KEY, hash(9)), Reason::CredentialUnknown);
        assert_eq!(
            reason(agent(), KeyFingerprint([8; 32]), hash(1)),
            Reason::CertificateMismatch
        );
        let revoked = Agent {
            revoked: Some(Time::from_millis(1)),
            ..agent()
        };
        assert_eq!(reason(revoked, KEY, hash(1)), Reason::CredentialUnknown);
    }
}
