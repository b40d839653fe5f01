//! A service of nothing but tonic, beside the broker: behind its accept loop and its TLS configuration.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::{Clock, SystemClock};
use credbroker::pki::accept::{AcceptLimits, Guests, listen};
use credbroker::pki::tls::{TlsConfig, server_config};
use credbroker::service::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tower::Service;

/// Serves on a port of its own until the process ends.
pub async fn start<S>(broker: &Broker, service: S) -> SocketAddr
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let authority = broker.authority();
    let names = ["127.0.0.1".to_owned()];
    let day = Duration::from_secs(86_400);
    let certificate = authority.issue_server(&names, clock.wall(), day).unwrap();
    let tls = server_config(&authority.trust_bundle_der(), &certificate, clock).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = listen(
        listener,
        Arc::new(TlsConfig::new(tls)),
        authority.trust_domain().clone(),
        AcceptLimits::default(),
        Guests::all(),
        CancellationToken::new(),
    );
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    address
}
