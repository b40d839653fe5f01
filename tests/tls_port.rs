//! The TLS port as peers meet it: a real gRPC server on the accept loop, real sockets on loopback.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::{Clock, ManualClock};
use credbroker::domain::id::{AgentId, EnvironmentId, OrgId};
use credbroker::domain::secret::Exposure;
use credbroker::domain::time::Time;
use credbroker::pki::accept::{AcceptLimits, Guests, PeerInfo, listen};
use credbroker::pki::authority::{Authority, AuthorityParts};
use credbroker::pki::csr::CheckedCsr;
use credbroker::pki::spiffe::{AgentSubject, Subject};
use credbroker::pki::tls::{TlsConfig, server_config};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::crypto::ring::default_provider;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;

const NOW: Time = Time::from_seconds(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than anything here takes unless it hangs.
const HANG: Duration = Duration::from_secs(20);
const PATIENT: AcceptLimits = AcceptLimits {
    handshake_timeout: HANG,
    handshakes: 8,
    connections: 64,
};

/// A broker's port with the health service on it, and whom its handlers saw.
struct Port {
    authority: Authority,
    parts: AuthorityParts,
    clock: Arc<ManualClock>,
    tls: Arc<TlsConfig>,
    address: SocketAddr,
    seen: mpsc::UnboundedReceiver<PeerInfo>,
    stop: CancellationToken,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Port {
    async fn open(limits: AcceptLimits) -> Self {
        let (authority, parts) = Authority::create(&"broker.example".parse().unwrap(), NOW).unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let tls = Arc::new(TlsConfig::new(config(&authority, clock.clone())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let domain = authority.trust_domain().clone();
        let incoming = listen(listener, tls.clone(), domain, limits, Guests::all(), stop.clone());
        let (saw, seen) = mpsc::unbounded_channel();
        let (reporter, _) = tonic_health::server::health_reporter();
        let health = tonic_health::server::HealthService::from_health_reporter(reporter);
        let watched = move |request: tonic::Request<()>| {
            saw.send(request.extensions().get::<PeerInfo>().unwrap().clone())
                .unwrap();
            Ok(request)
        };
        let service = HealthServer::with_interceptor(health, watched);
        let stopped = stop.clone().cancelled_owned();
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stopped);
        Self {
            authority,
            parts,
            clock,
            tls,
            address,
            seen,
            stop,
            server: tokio::spawn(server),
        }
    }

    /// A client of this broker, with the identity given.
    fn client(&self, identity: Option<Identity>) -> ClientConfig {
        self.client_of(&[&TLS13], identity)
    }

    fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        identity: Option<Identity>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for root in self.authority.trust_bundle_der() {
            roots.add(CertificateDer::from(root)).unwrap();
        }
        let time = Arc::new(At(self.clock.clone()));
        let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), time)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// The handshake from the client's side. With TLS 1.3 it may succeed and the server still refuse.
    async fn connect(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        connect(self.address, Arc::new(config)).await
    }

    /// What the server said to a client it does not let in.
    async fn alert(&self, config: ClientConfig) -> AlertDescription {
        let refused = match self.connect(config).await {
            Err(error) => error,
            Ok(mut tls) => timeout(HANG, tls.read_u8()).await.unwrap().unwrap_err(),
        };
        match refused.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => *alert,
            other => panic!("no alert but {other:?}: {refused}"),
        }
    }

    async fn channel(&self, config: ClientConfig) -> Result<Channel, tonic::transport::Error> {
        let (address, config) = (self.address, Arc::new(config));
        let connector = tower::service_fn(move |_| {
            let config = config.clone();
            async move { connect(address, config).await.map(hyper_util::rt::TokioIo::new) }
        });
        Endpoint::from_static("https://localhost")
            .connect_with_connector(connector)
            .await
    }

    /// Calls a method, and returns what its handler knew about the caller.
    async fn call(&mut self, config: ClientConfig) -> PeerInfo {
        let mut client = HealthClient::new(self.channel(config).await.unwrap());
        let call = client.check(HealthCheckRequest::default());
        timeout(HANG, call).await.unwrap().unwrap();
        self.seen.try_recv().unwrap()
    }

    fn nobody_was_served(&mut self) {
        assert!(self.seen.try_recv().is_err());
    }
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The client's clock is the broker's.
#[derive(Debug)]
struct At(Arc<ManualClock>);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.wall().seconds().try_into().unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn config(authority: &Authority, clock: Arc<ManualClock>) -> rustls::ServerConfig {
    let names = ["localhost".to_owned()];
    let server = authority.issue_server(&names, NOW, 48 * HOUR).unwrap();
    server_config(&authority.trust_bundle_der(), &server, clock).unwrap()
}

async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    timeout(HANG, TlsConnector::from(config).connect(name, tcp)).await?
}

fn subject() -> AgentSubject {
    AgentSubject {
        org: OrgId::new(NOW, [1; 10]),
        environment: EnvironmentId::new(NOW, [2; 10]),
        agent: AgentId::new(NOW, [3; 10]),
    }
}

fn nameless() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

fn identity(chain: Vec<Vec<u8>>, key: &[u8]) -> Option<Identity> {
    Some(Identity {
        chain: chain.into_iter().map(CertificateDer::from).collect(),
        key: PrivatePkcs8KeyDer::from(key.to_vec()).into(),
    })
}

fn agent(authority: &Authority) -> Option<Identity> {
    let key = KeyPair::generate().unwrap();
    let csr = CheckedCsr::parse(nameless().serialize_request(&key).unwrap().der()).unwrap();
    let issued = authority.issue_agent(&csr, subject(), NOW, HOUR).unwrap();
    identity(issued.chain_der, key.serialized_der())
}

/// The peer has been shut out: the connection ends, or is reset, without another byte.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match timeout(HANG, stream.read(&mut buffer)).await.unwrap() {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

/// A peer that has sent its ClientHello and goes on no further.
async fn stalled(port: &Port) -> TcpStream {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(port.client(None)), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut tcp = TcpStream::connect(port.address).await.unwrap();
    tcp.write_all(&hello).await.unwrap();
    // The server's answer shows that it is now waiting for ours.
    timeout(HANG, tcp.read_u8()).await.unwrap().unwrap();
    tcp
}

#[tokio::test]
async fn without_a_certificate_there_is_no_identity() {
    let mut port = Port::open(PATIENT).await;
    let peer = port.call(port.client(None)).await;
    assert!(peer.identity.is_none());
    assert!(peer.remote.ip().is_loopback());
}

#[tokio::test]
async fn an_agents_certificate_reaches_the_handler_as_its_identity() {
    let mut port = Port::open(PATIENT).await;
    let peer = port.call(port.client(agent(&port.authority))).await;
    let seen = peer.identity.unwrap();
    assert_eq!(seen.subject, Subject::Agent(subject()));
    assert_eq!(seen.not_after, NOW + HOUR);
}

#[tokio::test]
async fn another_cas_certificate_is_refused() {
    let mut port = Port::open(PATIENT).await;
    // Of the same trust domain: the name is no proof.
    let (other, _) = Authority::create(port.authority.trust_domain(), NOW).unwrap();
    let alert = port.alert(port.client(agent(&other))).await;
    assert_eq!(alert, AlertDescription::UnknownCA);
    port.nobody_was_served();
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let mut port = Port::open(PATIENT).await;
    let agent = agent(&port.authority);
    port.clock.advance(HOUR + Duration::from_secs(1));
    let alert = port.alert(port.client(agent)).await;
    assert_eq!(alert, AlertDescription::CertificateExpired);
    port.nobody_was_served();
}

#[tokio::test]
async fn a_servers_certificate_is_no_clients() {
    let mut port = Port::open(PATIENT).await;
    let server = port
        .authority
        .issue_server(&["localhost".to_owned()], NOW, HOUR)
        .unwrap();
    let identity = identity(server.chain_der, server.key.expose(Exposure::Inspect));
    port.alert(port.client(identity)).await;
    port.nobody_was_served();
}

#[tokio::test]
async fn a_certificate_of_ours_that_names_no_agent_ends_the_connection() {
    let mut port = Port::open(PATIENT).await;
    let issuing_key = KeyPair::try_from(port.parts.issuing_key.expose(Exposure::Inspect)).unwrap();
    let issuing_der = CertificateDer::from(port.parts.issuing_der.as_slice());
    let issuer = Issuer::from_ca_cert_der(&issuing_der, issuing_key).unwrap();
    let mut params = nameless();
    let name = "spiffe://broker.example/admin";
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let chain = vec![leaf.der().to_vec(), issuing_der.to_vec()];

    let config = port.client(identity(chain, key.serialized_der()));
    let mut tls = port.connect(config).await.unwrap();
    let ended = timeout(HANG, tls.read_u8()).await.unwrap().unwrap_err();
    // Not a TLS alert: the chain was good, and the name was looked at after the handshake.
    assert!(matches!(
        ended.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ));
    port.nobody_was_served();
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mut port = Port::open(PATIENT).await;
    let config = port.client_of(&[&TLS12], agent(&port.authority));
    let alert = port.alert(config).await;
    assert_eq!(alert, AlertDescription::ProtocolVersion);
    port.nobody_was_served();
}

#[tokio::test]
async fn a_client_that_does_not_speak_http_2_is_refused() {
    let port = Port::open(PATIENT).await;
    let mut config = port.client(None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let alert = port.alert(config).await;
    assert_eq!(alert, AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn no_session_is_ever_resumed() {
    let port = Port::open(PATIENT).await;
    // Both connections share the configuration, and with it the client's session cache.
    let config = port.client(agent(&port.authority));
    for _ in 0..2 {
        let mut tls = port.connect(config.clone()).await.unwrap();
        // Tickets would come before the server's first HTTP/2 frame.
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        timeout(HANG, tls.read_u8()).await.unwrap().unwrap();
        let session = tls.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_replaced_configuration_is_shown_to_new_connections() {
    let port = Port::open(PATIENT).await;
    let certificate = async || {
        let tls = port.connect(port.client(None)).await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = certificate().await;
    assert_eq!(certificate().await, first);
    port.tls.replace(config(&port.authority, port.clock.clone()));
    assert_ne!(certificate().await, first);
}

#[tokio::test]
async fn silent_peers_block_nobody_and_are_dropped_in_time() {
    let mut port = Port::open(AcceptLimits {
        handshake_timeout: Duration::from_millis(500),
        handshakes: 1,
        connections: 8,
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    port.call(port.client(None)).await;
    for peer in &mut silent {
        assert!(ends(peer).await);
    }
    let mut stalled = stalled(&port).await;
    assert!(ends(&mut stalled).await, "nor may a peer stall midway");
}

#[tokio::test]
async fn handshakes_past_the_limit_wait_for_a_slot() {
    let port = Port::open(AcceptLimits {
        handshakes: 1,
        ..PATIENT
    })
    .await;
    let holding = stalled(&port).await;
    let waiting = connect(port.address, Arc::new(port.client(None)));
    let mut waiting = tokio::spawn(waiting);
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    drop(holding);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_past_the_limit_are_closed_until_one_ends() {
    let port = Port::open(AcceptLimits {
        connections: 1,
        ..PATIENT
    })
    .await;
    let open = port.connect(port.client(None)).await.unwrap();
    assert!(port.connect(port.client(None)).await.is_err());
    drop(open);
    let again = async {
        while port.connect(port.client(None)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANG, again).await.unwrap();
}

#[tokio::test]
async fn stopping_closes_the_port_and_gives_up_handshakes() {
    let port = Port::open(PATIENT).await;
    let mut stalled = stalled(&port).await;
    port.stop.cancel();
    timeout(HANG, port.server).await.unwrap().unwrap().unwrap();
    assert!(ends(&mut stalled).await);
    assert!(TcpStream::connect(port.address).await.is_err());
}
