//! From a peer's certificate to the agent or API key it names.
//!
//! Parsed once a connection, after the handshake has proven that our root vouches for the certificate and
//! that the peer holds its key.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::key::{KeyFingerprint, Serial, fingerprint};
use super::spiffe::{NotACaller, Subject, TrustDomain};
use crate::domain::id::AgentId;
use crate::domain::time::Time;

/// Who is at the other end of a connection, as its certificate says. Whether that caller may still do
/// anything is another question, asked on every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The agent or API key that the certificate was issued to. Good for calls of that one only.
    pub subject: Subject,
    /// The key it proved to hold.
    pub key: KeyFingerprint,
    /// The certificate it showed.
    pub serial: Serial,
    /// When that certificate ends; the connection may live longer.
    pub not_after: Time,
}

/// Why a certificate names no caller of ours. The broker never issued it to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is no X.509 certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no subject alternative name, another kind of name, or more than one.
    #[error("the certificate does not have exactly one name, a URI")]
    Names,
    /// The one name is neither an agent's nor an API key's.
    #[error(transparent)]
    NotACaller(#[from] NotACaller),
    /// The serial number is not one this broker makes.
    #[error("the certificate's serial number is not one of this broker's")]
    Serial,
}

impl PeerIdentity {
    /// Reads a certificate (DER) whose chain has already been verified.
    pub fn from_verified(certificate_der: &[u8], trust_domain: &TrustDomain) -> Result<Self, IdentityError> {
        let certificate = read(certificate_der).ok_or(IdentityError::Unreadable)?;
        let uri = only_uri(&certificate).ok_or(IdentityError::Names)?;
        Ok(Self {
            subject: Subject::from_uri(uri, trust_domain)?,
            key: fingerprint(certificate.public_key().raw),
            serial: Serial::from_bytes(certificate.raw_serial()).ok_or(IdentityError::Serial)?,
            not_after: not_after(&certificate),
        })
    }

    /// The agent it is, if it is one.
    pub fn agent(&self) -> Option<AgentId> {
        match self.subject {
            Subject::Agent(agent) => Some(agent.agent),
            Subject::ApiKey(_) => None,
        }
    }
}

/// The certificate that these bytes are, the whole of them.
pub(super) fn read(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// The URI that is the certificate's only subject alternative name.
pub(super) fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    // The parser fails this call where the extension appears twice.
    let names = certificate.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => Some(uri),
        _ => None,
    }
}

/// The last second the certificate is good for.
pub(super) fn not_after(certificate: &X509Certificate<'_>) -> Time {
    Time::from_seconds(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::domain::id::{ApiKeyId, EnvironmentId, OrgId};
    use crate::pki::spiffe::{AgentSubject, ApiKeySubject};

    #[test]
    fn only_one_caller_name_of_our_trust_domain_makes_an_identity() {
        let ours: TrustDomain = "broker.example".parse().unwrap();
        let now = Time::from_seconds(1_800_000_000);
        let subject = AgentSubject {
            org: OrgId::new(now, [1; 10]),
            environment: EnvironmentId::new(now, [2; 10]),
            agent: AgentId::new(now, [3; 10]),
        };
        let uri = |text: String| SanType::URI(text.try_into().unwrap());
        let agent = uri(subject.uri(&ours));
        let key = ApiKeySubject {
            org: subject.org,
            api_key: ApiKeyId::new(now, [4; 10]),
        };
        let api_key = uri(key.uri(&ours));
        let dns = SanType::DnsName("broker.example".try_into().unwrap());
        let name = |names: Vec<SanType>| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = names;
            params.serial_number = Some(vec![0x55; 16].into());
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            PeerIdentity::from_verified(certificate.der(), &ours).map(drop)
        };
        assert_eq!(name(vec![agent.clone()]), Ok(()));
        assert_eq!(name(vec![api_key.clone()]), Ok(()));
        for names in [
            vec![],
            vec![dns.clone()],
            vec![agent.clone(), dns],
            vec![agent.clone(), agent.clone()],
            vec![agent.clone(), api_key],
        ] {
            assert_eq!(name(names), Err(IdentityError::Names));
        }
        let foreign = uri(subject.uri(&"other.example".parse().unwrap()));
        assert_eq!(name(vec![foreign]), Err(NotACaller::Foreign.into()));
        let admin = uri("spiffe://broker.example/admin".to_owned());
        assert_eq!(name(vec![admin]), Err(NotACaller::Shape.into()));
        assert_eq!(
            PeerIdentity::from_verified(&[0x30, 0x00], &ours),
            Err(IdentityError::Unreadable)
        );

        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![agent];
        params.serial_number = Some(vec![7].into());
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let refused = PeerIdentity::from_verified(certificate.der(), &ours);
        assert_eq!(refused, Err(IdentityError::Serial));
    }
}
