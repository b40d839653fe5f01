//! The CA, what it takes in, and what it gives out, checked with parsers and verifiers of other makes.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use credbroker::domain::id::{AgentId, EnvironmentId, OrgId};
use credbroker::domain::time::Time;
use credbroker::pki::authority::{
    Authority, AuthorityParts, BACKDATED, CaError, ISSUING_LIFETIME, IssuedCertificate, ROOT_LIFETIME,
};
use credbroker::pki::csr::CheckedCsr;
use credbroker::pki::identity::PeerIdentity;
use credbroker::pki::spiffe::{AgentSubject, Subject, TrustDomain};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

const NOW: Time = Time::from_seconds(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn authority() -> Authority {
    Authority::create(&domain("broker.example"), NOW).unwrap().0
}

fn subject() -> AgentSubject {
    AgentSubject {
        org: OrgId::new(NOW, [1; 10]),
        environment: EnvironmentId::new(NOW, [2; 10]),
        agent: AgentId::new(NOW, [3; 10]),
    }
}

fn checked(key: &KeyPair) -> CheckedCsr {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    CheckedCsr::parse(params.serialize_request(key).unwrap().der()).unwrap()
}

fn issue(authority: &Authority, key: &KeyPair, lifetime: Duration) -> IssuedCertificate {
    authority
        .issue_agent(&checked(key), subject(), NOW, lifetime)
        .unwrap()
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn store(authority: &Authority) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for root in authority.trust_bundle_der() {
        store.add(CertificateDer::from(root)).unwrap();
    }
    Arc::new(store)
}

fn unix(time: Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.seconds().try_into().unwrap()))
}

fn chain(ders: &[Vec<u8>]) -> Vec<CertificateDer<'_>> {
    ders.iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect()
}

fn verify_client(trusting: &Authority, ders: &[Vec<u8>], at: Time) -> Result<(), rustls::Error> {
    let chain = chain(ders);
    WebPkiClientVerifier::builder_with_provider(store(trusting), Arc::new(default_provider()))
        .build()
        .unwrap()
        .verify_client_cert(&chain[0], &chain[1..], unix(at))
        .map(drop)
}

fn verify_server(trusting: &Authority, ders: &[Vec<u8>], name: &str) -> Result<(), rustls::Error> {
    let chain = chain(ders);
    WebPkiServerVerifier::builder_with_provider(store(trusting), Arc::new(default_provider()))
        .build()
        .unwrap()
        .verify_server_cert(
            &chain[0],
            &chain[1..],
            &ServerName::try_from(name).unwrap(),
            &[],
            unix(NOW),
        )
        .map(drop)
}

#[test]
fn an_agent_certificate_says_exactly_what_the_broker_decided() {
    let authority = authority();
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issued = issue(&authority, &key, 24 * HOUR);
        assert_eq!(issued.chain_der.len(), 2);
        let (leaf, issuing) = (parse(&issued.chain_der[0]), parse(&issued.chain_der[1]));

        assert_eq!(leaf.version.0, 2);
        assert_eq!(leaf.raw_serial(), issued.serial.as_bytes());
        assert_eq!(leaf.subject.as_raw(), [0x30, 0x00]);
        assert_eq!(leaf.issuer, issuing.subject);
        assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
        let validity = leaf.validity();
        assert_eq!(
            NOW.since(Time::from_seconds(validity.not_before.timestamp())),
            BACKDATED
        );
        assert_eq!(issued.not_after, NOW + 24 * HOUR);
        assert_eq!(validity.not_after.timestamp(), issued.not_after.seconds());

        let uri = subject().uri(authority.trust_domain());
        let mut seen = Vec::new();
        for extension in leaf.extensions() {
            seen.push((extension.oid.to_id_string(), extension.critical));
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    assert_eq!(names.general_names, [GeneralName::URI(&uri)]);
                }
                // Bit 0 alone: digitalSignature.
                ParsedExtension::KeyUsage(usage) => assert_eq!(usage.flags, 1),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    assert!(usage.client_auth && !usage.any && !usage.server_auth && !usage.ocsp_signing);
                    assert!(!usage.code_signing && !usage.email_protection && !usage.time_stamping);
                    assert!(usage.other.is_empty());
                }
                ParsedExtension::BasicConstraints(basic) => {
                    assert!(!basic.ca && basic.path_len_constraint.is_none());
                }
                ParsedExtension::AuthorityKeyIdentifier(theirs) => {
                    assert_eq!(theirs.key_identifier.clone().unwrap().0, key_id(&issuing));
                }
                ParsedExtension::SubjectKeyIdentifier(_) => {}
                other => panic!("unexpected extension {other:?}"),
            }
        }
        seen.sort();
        let expected = [
            ("2.5.29.14", false),
            ("2.5.29.15", true),
            ("2.5.29.17", true),
            ("2.5.29.19", true),
            ("2.5.29.35", false),
            ("2.5.29.37", false),
        ];
        assert!(
            seen.iter()
                .map(|(oid, critical)| (oid.as_str(), *critical))
                .eq(expected)
        );

        let identity = PeerIdentity::from_verified(&issued.chain_der[0], authority.trust_domain()).unwrap();
        assert_eq!(
            identity,
            PeerIdentity {
                subject: Subject::Agent(subject()),
                key: checked(&key).key_fingerprint(),
                serial: issued.serial,
                not_after: issued.not_after,
            }
        );
    }
}

fn key_id<'a>(certificate: &'a X509Certificate<'_>) -> &'a [u8] {
    certificate
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
        .unwrap()
}

#[test]
fn the_ca_certificates_can_sign_and_no_more() {
    let (_, parts) = Authority::create(&domain("broker.example"), NOW).unwrap();
    for (der, path_length, lifetime) in [
        (&parts.root_der, 1, ROOT_LIFETIME),
        (&parts.issuing_der, 0, ISSUING_LIFETIME),
    ] {
        let ca = parse(der);
        let basic = ca.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, Some(path_length));
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        let ends = Time::from_seconds(ca.validity().not_after.timestamp());
        assert_eq!(ends, NOW + lifetime);
    }
    assert_ne!(parse(&parts.root_der).subject, parse(&parts.issuing_der).subject);
}

#[test]
fn serials_are_positive_full_length_and_differ() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let issued = issue(&authority, &key, HOUR);
        assert_eq!(parse(&issued.chain_der[0]).raw_serial().len(), 16);
        assert!(seen.insert(issued.serial));
    }
}

#[test]
fn a_certificate_verifies_for_its_purpose_and_time_only() {
    let (ours, theirs) = (authority(), authority());
    let agent = issue(&ours, &KeyPair::generate().unwrap(), HOUR).chain_der;
    assert_eq!(verify_client(&ours, &agent, NOW), Ok(()));
    let behind = Time::from_seconds(NOW.seconds() - 299);
    assert_eq!(
        verify_client(&ours, &agent, behind),
        Ok(()),
        "a clock 5 minutes behind"
    );
    assert!(matches!(
        verify_client(&ours, &agent, NOW + HOUR + Duration::from_secs(1)),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. }
        ))
    ));
    assert_eq!(
        verify_client(&theirs, &agent, NOW),
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
    );

    let names = [
        "broker.internal".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let server = ours.issue_server(&names, NOW, HOUR).unwrap().chain_der;
    assert_eq!(server.len(), 3);
    assert_eq!(server[2], ours.trust_bundle_der()[0]);
    for name in ["broker.internal", "127.0.0.1", "::1"] {
        assert_eq!(verify_server(&ours, &server, name), Ok(()), "{name}");
    }
    assert!(verify_server(&ours, &server, "elsewhere.internal").is_err());
    assert!(
        verify_client(&ours, &server, NOW).is_err(),
        "a server is no client"
    );
    assert!(
        verify_server(&ours, &agent, "broker.internal").is_err(),
        "an agent is no server"
    );
}

#[test]
fn nothing_outlives_the_issuing_ca() {
    let authority = authority();
    let csr = checked(&KeyPair::generate().unwrap());
    let issued = authority
        .issue_agent(&csr, subject(), NOW, ROOT_LIFETIME)
        .unwrap();
    assert_eq!(issued.not_after, authority.issuing_not_after());
    assert_eq!(issued.not_after, NOW + ISSUING_LIFETIME);
    let late = NOW + ISSUING_LIFETIME;
    let refused = authority.issue_agent(&csr, subject(), late, HOUR);
    assert!(matches!(refused, Err(CaError::IssuingExpired)));
}

#[test]
fn server_names_are_checked() {
    let authority = authority();
    for name in [
        "",
        "*.internal",
        "https://broker",
        "a b",
        "broker:8443",
        "ä.example",
    ] {
        let refused = authority.issue_server(&[name.to_owned()], NOW, HOUR);
        assert!(
            matches!(refused, Err(CaError::ServerName(n)) if n == name),
            "{name}"
        );
    }
    assert!(matches!(
        authority.issue_server(&[], NOW, HOUR),
        Err(CaError::ServerName(_))
    ));
}

#[test]
fn a_stored_ca_goes_on_as_the_same_ca() {
    let (before, parts) = Authority::create(&domain("broker.example"), NOW).unwrap();
    let after = Authority::from_parts(&parts, NOW + HOUR).unwrap();
    assert_eq!(after.ca_pin(), before.ca_pin());
    assert_eq!(after.trust_domain(), before.trust_domain());
    assert_eq!(after.trust_bundle_der(), before.trust_bundle_der());
    let agent = issue(&after, &KeyPair::generate().unwrap(), HOUR).chain_der;
    assert_eq!(verify_client(&before, &agent, NOW), Ok(()));

    let spki = parse(&parts.root_der).public_key().raw.to_vec();
    let hash = ring::digest::digest(&ring::digest::SHA256, &spki);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(before.ca_pin(), format!("sha256:{hex}"));
    assert_ne!(before.ca_pin(), authority().ca_pin());
}

#[test]
fn an_issuing_ca_is_replaced_under_the_same_root() {
    let (old, parts) = Authority::create(&domain("broker.example"), NOW).unwrap();
    let key = KeyPair::generate().unwrap();
    let early = issue(&old, &key, HOUR).chain_der;

    let later = NOW + ISSUING_LIFETIME;
    assert!(matches!(
        Authority::from_parts(&parts, later),
        Err(CaError::IssuingExpired)
    ));
    let parts = parts.rotate_issuing(later).unwrap();
    let new = Authority::from_parts(&parts, later).unwrap();
    assert_eq!(new.ca_pin(), old.ca_pin());
    let late = new.issue_agent(&checked(&key), subject(), later, HOUR).unwrap();
    assert_ne!(late.chain_der[1], early[1]);
    assert_eq!(verify_client(&old, &late.chain_der, later), Ok(()));
    assert_eq!(verify_client(&new, &early, NOW), Ok(()));

    let end = NOW + ROOT_LIFETIME;
    let parts = parts.rotate_issuing(NOW + ISSUING_LIFETIME * 9 / 2).unwrap();
    let last = Authority::from_parts(&parts, later).unwrap();
    assert_eq!(last.issuing_not_after(), last.root_not_after());
    assert!(matches!(parts.rotate_issuing(end), Err(CaError::RootExpired)));
}

#[test]
fn parts_that_do_not_belong_together_do_not_load() {
    let make = || AuthorityParts::create(&domain("broker.example"), NOW).unwrap();
    let swaps: [fn(&mut AuthorityParts, AuthorityParts); 6] = [
        |parts, other| parts.root_der = other.root_der,
        |parts, other| parts.root_key = other.root_key,
        |parts, other| parts.issuing_der = other.issuing_der,
        |parts, other| parts.issuing_key = other.issuing_key,
        |parts, other| (parts.issuing_der, parts.issuing_key) = (other.issuing_der, other.issuing_key),
        |parts, _| parts.root_der.push(0),
    ];
    for (i, swap) in swaps.into_iter().enumerate() {
        let mut parts = make();
        swap(&mut parts, make());
        let refused = Authority::from_parts(&parts, NOW);
        assert!(matches!(refused, Err(CaError::Parts(_))), "swap {i}");
    }
}
