//! The identity after enrollment: what the certificate says, renewal, rotation of the runtime key, expiry, and
//! the pin that keeps a token from strangers.

use std::sync::Arc;
use std::time::Duration;

use credbroker::cli::client::{ConnectError, Trust, connect};
use credbroker::cli::pin::Pin;
use credbroker::proto;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::support::broker::{MEMBER, ORG, now};
use crate::support::{Caller, Enrolled, NewKey, TestBroker, details, reason};
use crate::{refused, who, with_clock};

const HOUR: Duration = Duration::from_secs(3600);

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

// req: K3 D5
#[tokio::test]
async fn the_certificate_names_the_agent_and_nothing_else() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    for key in [KeyPair::generate_for(&rcgen::PKCS_ED25519), KeyPair::generate()] {
        let key = NewKey(key.unwrap());
        let token = operator.enrollment_token(ORG, "").await;
        let request = proto::EnrollRequest {
            token: Some(proto::Secret { value: token }),
            csr_der: key.csr(),
            ..Default::default()
        };
        let caller = broker.caller(None).await;
        let answer = caller.enrollment().enroll(request).await.unwrap().into_inner();
        let who = broker.agent(&Enrolled::new(answer.clone(), &key)).await;
        let who = who
            .access()
            .who_am_i(proto::WhoAmIRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (&*who.family, &who.actor, &who.org),
            ("agent", &answer.agent, &answer.org)
        );

        let leaf = parse(&answer.certificate_chain_der[0]);
        assert_eq!(leaf.public_key().raw, key.0.subject_public_key_info());
        assert_eq!(leaf.subject().iter_rdn().count(), 0);
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let uri = format!(
            "spiffe://{}/org/{}/env/{}/agent/{}",
            who.trust_domain, answer.org, answer.environment, answer.agent
        );
        assert_eq!(names.value.general_names, [GeneralName::URI(&uri)]);
        assert!(
            leaf.basic_constraints()
                .unwrap()
                .is_none_or(|found| !found.value.ca)
        );
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let lifetime = leaf.validity().not_after.timestamp() - now().seconds();
        assert!(
            (24 * 3600 - 120..=24 * 3600).contains(&lifetime),
            "{lifetime} s left"
        );
        let told = answer.certificate_expire_time.unwrap().seconds;
        assert_eq!(told, leaf.validity().not_after.timestamp());

        let issuing = parse(&answer.certificate_chain_der[1]);
        let root = parse(&answer.trust_bundle_der[0]);
        leaf.verify_signature(Some(issuing.public_key())).unwrap();
        issuing.verify_signature(Some(root.public_key())).unwrap();
    }
}

async fn renew(caller: &Caller, key: &NewKey) -> Result<proto::RenewCertificateResponse, String> {
    let request = proto::RenewCertificateRequest { csr_der: key.csr() };
    match caller.enrollment().renew_certificate(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(reason(&status)),
    }
}

// req: D5
#[tokio::test]
async fn a_renewal_is_for_the_enrolled_key_only() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    let enrolled = broker.enroll_with(&token, &key).await.unwrap();
    let agent = broker.agent(&enrolled).await;
    let renewed = renew(&agent, &key).await.unwrap();
    let (old, new) = (
        parse(&enrolled.chain_der[0]),
        parse(&renewed.certificate_chain_der[0]),
    );
    assert_ne!(old.raw_serial(), new.raw_serial());
    assert_eq!(old.public_key().raw, new.public_key().raw);
    assert_eq!(
        old.subject_alternative_name().unwrap().unwrap().value,
        new.subject_alternative_name().unwrap().unwrap().value
    );

    let before = crate::agents(&operator).await;
    assert_eq!(
        renew(&agent, &NewKey::generate()).await.err(),
        Some("CSR_KEY_NOT_ENROLLED".to_owned())
    );
    assert_eq!(crate::agents(&operator).await, before);
    let records = operator.records().await;
    let denied = records
        .iter()
        .find(|record| record.reason == "CSR_KEY_NOT_ENROLLED")
        .unwrap();
    assert_eq!(
        (&*denied.action, &denied.actor),
        ("agent.renew_certificate", &enrolled.agent)
    );
}

// req: D5
#[tokio::test]
async fn runtime_keys_rotate_with_overlap() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let mut enrolled = broker.enroll(&operator, "").await;
    let old = broker.agent(&enrolled).await;
    let rotate = async |caller: &Caller| {
        let request = proto::RotateRuntimeKeyRequest {};
        let answer = caller
            .enrollment()
            .rotate_runtime_key(request)
            .await
            .unwrap()
            .into_inner();
        answer.runtime_key.unwrap().value.clone()
    };
    // A key that was handed out and never used ends with the next rotation.
    let unused = rotate(&old).await;
    let next = rotate(&old).await;
    let agent = enrolled.agent.clone();
    assert_eq!(who(&old).await, Ok(agent.clone()));
    enrolled.runtime_key = unused;
    assert_eq!(
        who(&broker.agent(&enrolled).await).await,
        refused("CREDENTIAL_UNKNOWN")
    );
    assert_eq!(who(&old).await, Ok(agent.clone()));
    enrolled.runtime_key = next;
    let new = broker.agent(&enrolled).await;
    assert_eq!(who(&new).await, Ok(agent.clone()));
    assert_eq!(who(&old).await, refused("CREDENTIAL_UNKNOWN"));
    assert_eq!(who(&new).await, Ok(agent));
}

// req: K2 D5
#[tokio::test]
async fn a_certificate_ends_on_an_open_connection_too() {
    let (broker, clock) = with_clock().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let token = operator.enrollment_token(ORG, &task).await;
    let key = NewKey::generate();
    let mut enrolled = broker.enroll_with(&token, &key).await.unwrap();
    let open = broker.agent(&enrolled).await;
    clock.advance(23 * HOUR);
    assert_eq!(who(&open).await, Ok(enrolled.agent.clone()));
    let renewed = renew(&open, &key).await.unwrap();
    clock.advance(HOUR);
    assert_eq!(who(&open).await, refused("CLIENT_CERTIFICATE_REQUIRED"));
    assert_eq!(
        reason(&open.resolve("").await.unwrap_err()),
        "CLIENT_CERTIFICATE_REQUIRED"
    );
    assert_eq!(
        renew(&open, &key).await.err(),
        Some("CLIENT_CERTIFICATE_REQUIRED".to_owned())
    );

    // The handshake follows the same clock: the old certificate opens nothing, the renewed one does.
    let anew = |enrolled: &Enrolled| {
        let (address, trust) = (broker.address.to_string(), broker.trust());
        let (identity, key) = (enrolled.identity(), enrolled.runtime_key.clone());
        async move { Caller::try_connect(&address, trust, Some(identity), Some(&key)).await }
    };
    clock.advance(Duration::from_secs(1));
    // In TLS 1.3 the client hears of it with its first call at the latest, and not from a handler.
    if let Ok(caller) = anew(&enrolled).await {
        let answer = caller.access().who_am_i(proto::WhoAmIRequest {}).await;
        assert!(details(&answer.unwrap_err()).error_info().is_none());
    }
    enrolled.chain_der = renewed.certificate_chain_der;
    assert_eq!(
        who(&anew(&enrolled).await.unwrap()).await,
        Ok(enrolled.agent.clone())
    );
}

// req: K3 N3
#[tokio::test]
async fn a_stranger_without_the_pinned_key_gets_no_token() {
    // A server with a CA of its own, who would read whatever is sent to it.
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone(), certificate.der().clone()],
            private,
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stranger = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
            .accept(tcp)
            .await
            .map(drop)
    });

    let pin: Pin = TestBroker::start().await.pin.parse().unwrap();
    let refused = connect(&address, Trust::Pin(pin), None).await.map(drop);
    match refused {
        Err(error @ ConnectError::Handshake(_)) => {
            assert!(error.to_string().contains(&pin.to_string()), "{error}")
        }
        other => panic!("{other:?}"),
    }
    // The stranger's handshake did not end well, so nothing of ours could be read.
    assert!(stranger.await.unwrap().is_err());
}
