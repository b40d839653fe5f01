//! The broker's certificate authority: a root that signs one issuing CA, which signs everything else.
//!
//! All CA keys are ECDSA P-256. The root lives 10 years and is what clients pin; its key is needed only to
//! make a new issuing CA, so [`Authority`] does not keep it. The caller seals and stores
//! [`AuthorityParts`]. No URI name constraint is set on the CAs: verifiers differ in whether they know
//! them, and one that does not must refuse the whole chain.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;

use super::csr::CheckedCsr;
use super::identity::{not_after, only_uri, read};
use super::key::{MalformedKey, P256Key, RandomFailed, Serial, fingerprint};
use super::spiffe::{AgentSubject, ApiKeySubject, Subject, TrustDomain};
use crate::domain::secret::{KeyMaterial, Secret};
use crate::domain::time::Time;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root lives.
pub const ROOT_LIFETIME: Duration = DAY.saturating_mul(3650);
/// How long an issuing CA lives.
pub const ISSUING_LIFETIME: Duration = DAY.saturating_mul(730);
/// Certificates begin this much before they are made, for peers whose clocks are behind.
pub const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// What a CA is made of, to be sealed and stored by the caller.
pub struct AuthorityParts {
    /// The root certificate, DER.
    pub root_der: Vec<u8>,
    /// The root's private key, PKCS#8.
    pub root_key: Secret<KeyMaterial>,
    /// The issuing CA's certificate, DER, signed by the root.
    pub issuing_der: Vec<u8>,
    /// The issuing CA's private key, PKCS#8.
    pub issuing_key: Secret<KeyMaterial>,
}

/// A CA that is ready to sign.
pub struct Authority {
    trust_domain: TrustDomain,
    root_der: Vec<u8>,
    root_not_after: Time,
    issuing_der: Vec<u8>,
    issuing_not_after: Time,
    issuer: Issuer<'static, P256Key>,
    pin: String,
}

/// A client certificate: an agent's, or an API key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The client's certificate and the issuing CA's, DER.
    pub chain_der: Vec<Vec<u8>>,
    /// The client certificate's serial number.
    pub serial: Serial,
    /// The last second the certificate is good for.
    pub not_after: Time,
}

/// What a server shows and proves itself with.
pub struct ServerCertificate {
    /// The server's certificate first, DER.
    pub chain_der: Vec<Vec<u8>>,
    /// Its private key, PKCS#8.
    pub key: Secret<KeyMaterial>,
    /// The last second the certificate is good for.
    pub not_after: Time,
}

/// Why the CA did not sign, or does not load. Except for [`CaError::ServerName`] never a caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The machine's random source failed.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The stored parts are damaged, or do not belong together: restore them from a backup.
    #[error("the stored CA is not usable: {0}")]
    Parts(&'static str),
    /// The root has expired. There is no remedy but a new CA, which every client has to pin anew.
    #[error("the root certificate has expired: make a new CA, and hand out its pin")]
    RootExpired,
    /// The issuing CA has expired; the operator renews it.
    #[error("the issuing certificate has expired: renew it with `credbrokerd ca rotate`")]
    IssuingExpired,
    /// The configured server names are empty, or one is neither a DNS name nor an IP address.
    #[error("'{0}' is neither a DNS name nor an IP address that a server certificate could carry")]
    ServerName(String),
    /// The machine's clock stands outside the years certificates can express.
    #[error("the clock stands outside the years 0 to 9999")]
    Clock,
    /// A certificate could not be built: a fault of the program.
    #[error("a certificate could not be built: {0}")]
    Build(#[from] rcgen::Error),
}

impl AuthorityParts {
    /// Makes a CA for `trust_domain`.
    pub fn create(trust_domain: &TrustDomain, now: Time) -> Result<Self, CaError> {
        let (key, root_key) = P256Key::generate()?;
        let params = ca_params("root", &key, trust_domain, 1, Validity::of(now, ROOT_LIFETIME))?;
        let root_der = params.self_signed(&key)?.der().to_vec();
        let root = Issuer::new(params, key);
        let (issuing_der, issuing_key) = make_issuing(&root, trust_domain, now, now + ROOT_LIFETIME)?;
        Ok(Self {
            root_der,
            root_key,
            issuing_der,
            issuing_key,
        })
    }

    /// Replaces the issuing CA with a new one under the same root. Certificates issued by the old one stay
    /// good: peers show it along with them.
    pub fn rotate_issuing(self, now: Time) -> Result<Self, CaError> {
        let root = read(&self.root_der).ok_or(CaError::Parts("the root certificate cannot be read"))?;
        let trust_domain = trust_domain_of(&root)?;
        let ends = not_after(&root);
        if ends <= now {
            return Err(CaError::RootExpired);
        }
        let issuer = load_issuer(&root, &self.root_der, &self.root_key)?;
        let (issuing_der, issuing_key) = make_issuing(&issuer, &trust_domain, now, ends)?;
        Ok(Self {
            issuing_der,
            issuing_key,
            ..self
        })
    }
}

impl Authority {
    /// Makes a CA for `trust_domain`, and the parts to store.
    pub fn create(trust_domain: &TrustDomain, now: Time) -> Result<(Self, AuthorityParts), CaError> {
        let parts = AuthorityParts::create(trust_domain, now)?;
        Ok((Self::from_parts(&parts, now)?, parts))
    }

    /// Loads a stored CA and checks that its parts belong together and are in force.
    pub fn from_parts(parts: &AuthorityParts, now: Time) -> Result<Self, CaError> {
        let root = read(&parts.root_der).ok_or(CaError::Parts("the root certificate cannot be read"))?;
        let issuing =
            read(&parts.issuing_der).ok_or(CaError::Parts("the issuing certificate cannot be read"))?;
        load_issuer(&root, &parts.root_der, &parts.root_key)?;
        let issuer = load_issuer(&issuing, &parts.issuing_der, &parts.issuing_key)?;
        issuing
            .verify_signature(Some(root.public_key()))
            .map_err(|_| CaError::Parts("the root did not sign the issuing certificate"))?;
        let (root_not_after, issuing_not_after) = (not_after(&root), not_after(&issuing));
        if root_not_after <= now {
            return Err(CaError::RootExpired);
        }
        if issuing_not_after <= now {
            return Err(CaError::IssuingExpired);
        }
        Ok(Self {
            trust_domain: trust_domain_of(&root)?,
            root_der: parts.root_der.clone(),
            root_not_after,
            issuing_der: parts.issuing_der.clone(),
            issuing_not_after,
            issuer,
            pin: fingerprint(root.public_key().raw).to_string(),
        })
    }

    /// Issues a client certificate for `subject` and the request's key. It ends after `lifetime`, or with
    /// the issuing CA if that is earlier.
    pub fn issue_agent(
        &self,
        csr: &CheckedCsr,
        subject: AgentSubject,
        now: Time,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, CaError> {
        self.issue_client(csr, Subject::Agent(subject), now, lifetime)
    }

    /// As [`Authority::issue_agent`], for an API key that has to come with a certificate.
    pub fn issue_api_key(
        &self,
        csr: &CheckedCsr,
        subject: ApiKeySubject,
        now: Time,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, CaError> {
        self.issue_client(csr, Subject::ApiKey(subject), now, lifetime)
    }

    fn issue_client(
        &self,
        csr: &CheckedCsr,
        subject: Subject,
        now: Time,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, CaError> {
        let name = SanType::URI(subject.uri(&self.trust_domain).try_into()?);
        let leaf = self.issue(
            csr.key(),
            vec![name],
            ExtendedKeyUsagePurpose::ClientAuth,
            now,
            lifetime,
        )?;
        Ok(IssuedCertificate {
            chain_der: vec![leaf.der, self.issuing_der.clone()],
            serial: leaf.serial,
            not_after: leaf.not_after,
        })
    }

    /// Issues a server certificate for `names` (DNS names and IP addresses) and a new key. The chain
    /// includes the root, so that a client which only knows the pin can find the root in it.
    pub fn issue_server(
        &self,
        names: &[String],
        now: Time,
        lifetime: Duration,
    ) -> Result<ServerCertificate, CaError> {
        if names.is_empty() {
            return Err(CaError::ServerName(String::new()));
        }
        let names = names
            .iter()
            .map(|name| server_name(name))
            .collect::<Result<_, _>>()?;
        let (public, key) = P256Key::generate()?;
        let leaf = self.issue(&public, names, ExtendedKeyUsagePurpose::ServerAuth, now, lifetime)?;
        Ok(ServerCertificate {
            chain_der: vec![leaf.der, self.issuing_der.clone(), self.root_der.clone()],
            key,
            not_after: leaf.not_after,
        })
    }

    /// The roots by which to trust this broker and its agents, DER.
    pub fn trust_bundle_der(&self) -> Vec<Vec<u8>> {
        vec![self.root_der.clone()]
    }

    /// What clients pin: `sha256:` and the hex SHA-256 of the root's SubjectPublicKeyInfo in DER.
    pub fn ca_pin(&self) -> &str {
        &self.pin
    }

    /// The trust domain it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The last second the root is good for.
    pub fn root_not_after(&self) -> Time {
        self.root_not_after
    }

    /// The last second the issuing CA, and so anything it issues, is good for.
    pub fn issuing_not_after(&self) -> Time {
        self.issuing_not_after
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        now: Time,
        lifetime: Duration,
    ) -> Result<Leaf, CaError> {
        let validity = Validity::of(now, lifetime).until(self.issuing_not_after);
        if validity.not_after <= now {
            return Err(CaError::IssuingExpired);
        }
        let serial = Serial::random()?;
        let mut params = base_params(serial, validity)?;
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        Ok(Leaf {
            der: params.signed_by(key, &self.issuer)?.der().to_vec(),
            serial,
            not_after: validity.not_after,
        })
    }
}

struct Leaf {
    der: Vec<u8>,
    serial: Serial,
    not_after: Time,
}

/// From when until when, in whole seconds: certificates have no finer ones.
#[derive(Clone, Copy)]
struct Validity {
    not_before: Time,
    not_after: Time,
}

impl Validity {
    fn of(now: Time, lifetime: Duration) -> Self {
        Self {
            not_before: Time::from_seconds(now.seconds().saturating_sub_unsigned(BACKDATED.as_secs())),
            not_after: Time::from_seconds((now + lifetime).seconds()),
        }
    }

    fn until(self, end: Time) -> Self {
        Self {
            not_after: self.not_after.min(end),
            ..self
        }
    }
}

/// What all certificates have in common. The subject is empty: names are in the alternative names, which
/// are then critical (RFC 5280 section 4.2.1.6).
fn base_params(serial: Serial, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial.as_bytes().to_vec().into());
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn date(time: Time) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(time.seconds()).map_err(|_| CaError::Clock)
}

/// A CA certificate's parameters. Its name has a part of its key's hash, so that the CAs of two brokers, or
/// of one before and after a rotation, are told apart wherever they are listed by name.
fn ca_params(
    role: &str,
    key: &P256Key,
    trust_domain: &TrustDomain,
    path_length: u8,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = base_params(Serial::random()?, validity)?;
    let hash: String = fingerprint(&key.subject_public_key_info()).0[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("credbroker {role} CA {hash}"));
    params.subject_alt_names = vec![SanType::URI(trust_domain.uri().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn make_issuing(
    root: &Issuer<'_, P256Key>,
    trust_domain: &TrustDomain,
    now: Time,
    root_not_after: Time,
) -> Result<(Vec<u8>, Secret<KeyMaterial>), CaError> {
    let (key, secret) = P256Key::generate()?;
    let validity = Validity::of(now, ISSUING_LIFETIME).until(root_not_after);
    let mut params = ca_params("issuing", &key, trust_domain, 0, validity)?;
    // On a CA certificate this bounds what its leaves may be used for.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    Ok((params.signed_by(&key, root)?.der().to_vec(), secret))
}

fn load_issuer(
    certificate: &X509Certificate<'_>,
    der: &[u8],
    key: &Secret<KeyMaterial>,
) -> Result<Issuer<'static, P256Key>, CaError> {
    let key = P256Key::load(key).map_err(|MalformedKey| CaError::Parts("a private key does not load"))?;
    if key.subject_public_key_info() != certificate.public_key().raw {
        return Err(CaError::Parts("a private key does not fit its certificate"));
    }
    if !certificate.is_ca() {
        return Err(CaError::Parts("a certificate is not a CA's"));
    }
    Ok(Issuer::from_ca_cert_der(&CertificateDer::from(der), key)?)
}

fn trust_domain_of(root: &X509Certificate<'_>) -> Result<TrustDomain, CaError> {
    only_uri(root)
        .and_then(TrustDomain::from_uri)
        .ok_or(CaError::Parts("the root certificate names no trust domain"))
}

fn server_name(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    DnsName::try_from(name).map_err(|_| CaError::ServerName(name.to_owned()))?;
    Ok(SanType::DnsName(name.try_into()?))
}
