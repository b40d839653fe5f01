//! The connection against a TLS server in the test.

#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(in crate::cli) struct Ca {
    certificate: CertificateDer<'static>,
    pub(in crate::cli) issuer: Issuer<'static, KeyPair>,
}

fn ca(parent: Option<&Ca>, name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = match parent {
        Some(parent) => params.signed_by(&key, &parent.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Ca {
        certificate: certificate.der().clone(),
        issuer: Issuer::new(params, key),
    }
}

/// A server with a chain as the broker presents it: leaf, issuing, root. Its clients' certificates are from the
/// same issuing CA.
pub(in crate::cli) struct Server {
    root: Ca,
    pub(in crate::cli) issuing: Ca,
    leaf: CertificateDer<'static>,
    key: KeyPair,
}

pub(in crate::cli) fn server_for(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Server {
    let root = ca(None, "root");
    let issuing = ca(Some(&root), "issuing");
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuing.issuer).unwrap().der().clone();
    Server {
        root,
        issuing,
        leaf,
        key,
    }
}

impl Server {
    pub(in crate::cli) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let (issuing, root) = (&self.issuing.certificate, &self.root.certificate);
        vec![self.leaf.clone(), issuing.clone(), root.clone()]
    }

    pub(in crate::cli) fn pin(&self) -> Pin {
        Pin::of_certificate(&self.root.certificate).unwrap()
    }

    /// Asks clients for a certificate, and takes those without one too.
    pub(in crate::cli) fn acceptor(&self, chain: Vec<CertificateDer<'static>>) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.certificate.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut config = ServerConfig::builder_with_provider(ring())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Accepts one connection with `chain`; returns the port.
    async fn accept_one(&self, chain: Vec<CertificateDer<'static>>) -> u16 {
        let acceptor = self.acceptor(chain);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            // Kept open until the client goes; its failures are the client's to tell.
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
            }
        });
        port
    }
}

async fn outcome(server: &Server, chain: Vec<CertificateDer<'static>>, pin: Pin) -> Result<(), ConnectError> {
    let port = server.accept_one(chain).await;
    connect(&format!("127.0.0.1:{port}"), Trust::Pin(pin), None)
        .await
        .map(|_| ())
}

fn certificate_error(outcome: Result<(), ConnectError>) -> rustls::CertificateError {
    let Err(ConnectError::Handshake(error)) = outcome else {
        panic!("not refused in the handshake: {outcome:?}");
    };
    match error.get_ref().unwrap().downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(error)) => error.clone(),
        other => panic!("refused for another reason: {other:?}"),
    }
}

#[tokio::test]
async fn the_pinned_root_is_accepted() {
    let server = server_for("127.0.0.1", |_| {});
    outcome(&server, server.chain(), server.pin()).await.unwrap();
}

#[tokio::test]
async fn another_root_is_refused_and_told_as_such() {
    let (server, other) = (server_for("127.0.0.1", |_| {}), server_for("127.0.0.1", |_| {}));
    let refused = outcome(&server, server.chain(), other.pin()).await;
    let target = Target {
        context: None,
        address: "a:1".into(),
    };
    let Err(error) = refused else { panic!("accepted") };
    let failure = error.into_failure(&target);
    assert_eq!(failure.kind, Kind::Config);
    assert!(
        failure.what.contains(&other.pin().to_string()),
        "{}",
        failure.what
    );
}

#[tokio::test]
async fn showing_the_pinned_root_without_being_signed_by_it_is_refused() {
    let (genuine, thief) = (server_for("127.0.0.1", |_| {}), server_for("127.0.0.1", |_| {}));
    let mut chain = thief.chain();
    chain.push(genuine.root.certificate.clone());
    let refused = outcome(&thief, chain, genuine.pin()).await;
    // Both roots have the same name, so that only the signature tells them apart.
    assert_eq!(certificate_error(refused), rustls::CertificateError::BadSignature);
}

#[tokio::test]
async fn the_name_the_dates_and_the_usage_are_checked_under_a_pin_too() {
    use rustls::CertificateError as Refused;
    let elsewhere = server_for("127.0.0.2", |_| {});
    let refused = outcome(&elsewhere, elsewhere.chain(), elsewhere.pin()).await;
    assert!(matches!(
        certificate_error(refused),
        Refused::NotValidForNameContext { .. }
    ));

    let expired = server_for("127.0.0.1", |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1)
    });
    let refused = outcome(&expired, expired.chain(), expired.pin()).await;
    assert!(matches!(
        certificate_error(refused),
        Refused::ExpiredContext { .. }
    ));

    let client = server_for("127.0.0.1", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let refused = outcome(&client, client.chain(), client.pin()).await;
    assert!(matches!(
        certificate_error(refused),
        Refused::InvalidPurposeContext { .. }
    ));
}

#[tokio::test]
async fn a_leaf_with_the_pinned_key_is_not_its_own_root() {
    let server = server_for("127.0.0.1", |_| {});
    let pin = Pin::of_certificate(&server.leaf).unwrap();
    let refused = outcome(&server, server.chain(), pin).await;
    assert!(matches!(
        certificate_error(refused),
        rustls::CertificateError::Other(_)
    ));
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let pin = Pin::from_bytes([0; 32]);
    let error = connect(&address, Trust::Pin(pin), None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    let target = Target {
        context: Some("dev".into()),
        address,
    };
    assert_eq!(error.into_failure(&target).kind.exit_code(), 69);
}

#[tokio::test]
async fn addresses_are_host_and_port_and_nothing_more() {
    for wrong in [
        "",
        "broker",
        "broker:",
        "https://broker:1",
        "user@broker:1",
        "broker:1/path",
        "a b:1",
    ] {
        let error = connect(wrong, Trust::Pin(Pin::from_bytes([0; 32])), None)
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Address(_)), "{wrong}: {error}");
    }
}

#[test]
fn the_token_goes_along_and_is_marked_sensitive() {
    let token = Secret::from("cbo_secret".to_owned());
    let mut bearer = Bearer::new(Some(&token), Duration::from_secs(7)).unwrap();
    let request = bearer.call(tonic::Request::new(())).unwrap();
    let value = request.metadata().get("authorization").unwrap();
    assert_eq!(value.to_str().unwrap(), "Bearer cbo_secret");
    assert!(!format!("{request:?}").contains("cbo_secret"));
    assert_eq!(
        request.metadata().get("grpc-timeout").unwrap().to_str().unwrap(),
        "7000000u"
    );
    assert!(Bearer::new(Some(&Secret::from("a\nb".to_owned())), Duration::ZERO).is_err());
}
