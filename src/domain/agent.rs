//! An agent: the check of its runtime key, and the rule that tells its renewals from a copy's.

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

/// A certificate's serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SerialNumber(pub [u8; 16]);

impl std::fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How far the renewals of an agent's certificate have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The newest certificate's serial number.
    pub newest: SerialNumber,
    /// The one it was renewed from.
    pub earlier: Option<SerialNumber>,
    /// When the newest was issued.
    pub issued: Time,
    /// Whether the newest has been used. Until then its answer may have been lost.
    pub used: bool,
    /// The nonce that the newest was issued for; none where it was renewed over mTLS.
    pub nonce: Option<RenewalNonce>,
}

/// The part of a renewal's nonce that tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalNonce(pub [u8; 16]);

/// The bytes that the enrolled key signs to renew a certificate that has ended: a label, so that the signature is
/// good for nothing else; the nonce; the SHA-256 of the signing request; and the serial number of the certificate.
pub fn renewal_proof(nonce: &[u8], request_sha256: &[u8], serial: &[u8]) -> Vec<u8> {
    const LABEL: &[u8] = b"credbroker renew-expired-certificate v1\0";
    [LABEL, nonce, request_sha256, serial].concat()
}

/// Two copies of the agent renewed one certificate: the newest has been used, and somebody comes with one
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloned;

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
    /// How far the renewals of its certificate have come; none where it enrolled before this was kept.
    pub certificates: Option<Certificates>,
    /// When it expired, for not being seen.
    pub expired: Option<Time>,
}

/// A good runtime key, and whether its use changes the agent's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// The key in use, used before.
    Known,
    /// A first use: the record has to be changed, durably, before the request goes on.
    First,
    /// The key in use, and the first use of the newest certificate: the same.
    FirstOfCertificate,
}

impl Agent {
    /// Checks what an agent presents: its certificate's key and serial number, and the hash of its runtime key.
    pub fn authenticate(
        &self,
        certificate: KeyFingerprint,
        serial: SerialNumber,
        key: &TokenHash,
    ) -> Result<KeyUse, Refusal> {
        if !bool::from(self.key.0.ct_eq(&certificate.0)) {
            return Err(Refusal::new(
                Reason::CertificateMismatch,
                "the certificate's key is not the one this agent enrolled with",
            ));
        }
        let next = self.next_runtime_key.is_some_and(|next| next.matches(key));
        if !next && !self.runtime_key.matches(key) {
            return Err(Refusal::new(
                Reason::CredentialUnknown,
                "the runtime key is not known",
            ));
        }
        // Said only to who holds the key: nobody else learns that the agent existed.
        self.standing()?;
        Ok(if next || !self.used {
            KeyUse::First
        } else if self.newest_unused(serial) {
            KeyUse::FirstOfCertificate
        } else {
            KeyUse::Known
        })
    }

    /// Whether this is the hash of a runtime key of the agent, in use or handed out.
    pub fn holds(&self, key: &TokenHash) -> bool {
        let next = self.next_runtime_key.is_some_and(|next| next.matches(key));
        self.runtime_key.matches(key) || next
    }

    /// Whether it has not ended. Whether it is locked is another question.
    pub fn standing(&self) -> Result<(), Refusal> {
        let refuse = |reason, message: &str| Err(Refusal::new(reason, message));
        if self.revoked.is_some() {
            refuse(Reason::CredentialUnknown, "the agent was revoked")
        } else if self.expired.is_some() {
            refuse(
                Reason::AgentExpired,
                "the agent was not seen for too long and has expired",
            )
        } else {
            Ok(())
        }
    }

    /// When it ended for good.
    pub fn ended(&self) -> Option<Time> {
        match (self.revoked, self.expired) {
            (Some(revoked), Some(expired)) => Some(revoked.min(expired)),
            (revoked, expired) => revoked.or(expired),
        }
    }

    fn newest_unused(&self, serial: SerialNumber) -> bool {
        self.certificates
            .is_some_and(|certificates| !certificates.used && certificates.newest == serial)
    }

    /// Decides on a renewal from the certificate `from`.
    ///
    /// Each certificate is renewed once. Who comes with an earlier one than the newest has lost an answer, if
    /// nobody has used the newest. Where somebody has, there are two who hold the same identity.
    pub fn may_renew(&self, from: SerialNumber) -> Result<(), Cloned> {
        match self.certificates {
            Some(certificates) if certificates.used && certificates.newest != from => Err(Cloned),
            _ => Ok(()),
        }
    }

    /// The record after a renewal.
    #[must_use]
    pub fn renewed(&self, certificates: Certificates, expires: Time) -> Agent {
        Agent {
            certificates: Some(certificates),
            certificate_expires: expires,
            ..self.clone()
        }
    }

    /// The record after the first use of the key with this hash, or of this certificate.
    #[must_use]
    pub fn after_first_use(&self, key: &TokenHash, serial: SerialNumber) -> Agent {
        let mut agent = self.clone();
        if let Some(next) = agent.next_runtime_key.take_if(|next| next.matches(key)) {
            agent.runtime_key = next;
        }
        agent.used = true;
        if let Some(certificates) = &mut agent.certificates {
            certificates.used |= certificates.newest == serial;
        }
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
            certificates: None,
            expired: None,
        }
    }

    const FIRST: SerialNumber = SerialNumber([0x41; 16]);
    const SECOND: SerialNumber = SerialNumber([0x42; 16]);

    /// As it is after the certificate FIRST was renewed.
    fn renewed() -> Agent {
        let certificates = Certificates {
            newest: SECOND,
            earlier: Some(FIRST),
            issued: Time::from_millis(5),
            used: false,
            nonce: None,
        };
        let used = Agent {
            used: true,
            ..agent()
        };
        used.renewed(certificates, Time::from_millis(9))
    }

    #[test]
    fn a_copy_shows_once_the_newest_certificate_was_used() {
        let agent = renewed();
        assert_eq!(agent.may_renew(FIRST), Ok(()), "its answer may have been lost");
        assert_eq!(agent.may_renew(SECOND), Ok(()));
        // The earlier one goes on being used, by connections that are open.
        assert_eq!(agent.authenticate(KEY, FIRST, &hash(1)).unwrap(), KeyUse::Known);
        let agent = agent.after_first_use(&hash(1), FIRST);
        assert_eq!(agent.may_renew(FIRST), Ok(()));
        let first = agent.authenticate(KEY, SECOND, &hash(1)).unwrap();
        assert_eq!(first, KeyUse::FirstOfCertificate);
        let agent = agent.after_first_use(&hash(1), SECOND);
        assert_eq!(agent.authenticate(KEY, SECOND, &hash(1)).unwrap(), KeyUse::Known);
        assert_eq!(agent.authenticate(KEY, FIRST, &hash(1)).unwrap(), KeyUse::Known);
        assert_eq!(agent.may_renew(FIRST), Err(Cloned));
        assert_eq!(agent.may_renew(SECOND), Ok(()));
    }

    #[test]
    fn who_has_ended_is_told_how_if_it_holds_the_key() {
        let at = Some(Time::from_millis(1));
        let revoked = Agent {
            revoked: at,
            ..agent()
        };
        let expired = Agent {
            expired: at,
            ..agent()
        };
        for (agent, expected) in [
            (&revoked, Reason::CredentialUnknown),
            (&expired, Reason::AgentExpired),
        ] {
            let told = |key| agent.authenticate(KEY, FIRST, &hash(key)).unwrap_err().reason;
            assert_eq!(told(1), expected);
            assert_eq!(told(9), Reason::CredentialUnknown);
        }
        assert_eq!(
            (revoked.ended(), expired.ended(), agent().ended()),
            (at, at, None)
        );
    }

    #[test]
    fn the_earlier_runtime_key_ends_at_the_next_ones_first_use() {
        let rotated = Agent {
            next_runtime_key: Some(hash(2)),
            used: true,
            ..agent()
        };
        assert_eq!(rotated.authenticate(KEY, FIRST, &hash(1)).unwrap(), KeyUse::Known);
        assert_eq!(rotated.authenticate(KEY, FIRST, &hash(2)).unwrap(), KeyUse::First);
        let after = rotated.after_first_use(&hash(2), FIRST);
        assert_eq!(after.authenticate(KEY, FIRST, &hash(2)).unwrap(), KeyUse::Known);
        assert_eq!(
            after.authenticate(KEY, FIRST, &hash(1)).unwrap_err().reason,
            Reason::CredentialUnknown
        );
    }

    #[test]
    fn using_the_first_key_leaves_a_repeats_key_waiting() {
        let repeated = Agent {
            next_runtime_key: Some(hash(2)),
            ..agent()
        };
        let after = repeated.after_first_use(&hash(1), FIRST);
        assert!(after.used && after.next_runtime_key.is_some());
    }

    #[test]
    fn another_key_or_another_certificate_or_a_revocation_is_refused() {
        let reason =
            |agent: Agent, certificate, key| agent.authenticate(certificate, FIRST, &key).unwrap_err().reason;
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
