//! The TLS side of the port: TLS 1.3 only, HTTP/2 only, client certificates optional.
//!
//! A resumed session does not run the client-certificate verifier, and would carry an identity past the end
//! of its certificate. So there is nothing to resume from: no tickets are sent, none are accepted, and no
//! session is stored.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use super::authority::ServerCertificate;
use crate::clock::Clock;
use crate::domain::secret::Exposure;

/// Why no TLS configuration could be made. The operator's to mend, by what was configured or stored.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server's key or chain is not usable, or one does not fit the other; or a root is not.
    #[error("the server certificate is not usable: {0}")]
    Certificate(#[from] rustls::Error),
    /// There is no root to check clients by.
    #[error("client certificates cannot be checked: {0}")]
    Roots(#[from] VerifierBuilderError),
}

/// The configuration for `server`, accepting client certificates under `roots` (DER). A client may show no
/// certificate; one that shows a bad one does not get in. Time is read from `clock`.
pub fn server_config(
    roots: &[Vec<u8>],
    server: &ServerCertificate,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.as_slice()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(WallTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(server)?)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Loads the key from where it is, without the owned copy that `with_single_cert` would take.
fn certified_key(server: &ServerCertificate) -> Result<CertifiedKey, rustls::Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server.key.expose(Exposure::Use)));
    let chain = server
        .chain_der
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    let certified = CertifiedKey::new(chain, ring::sign::any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(certified)
}

/// The configuration in force, replaceable while connections are accepted. Connections keep the one they
/// began with.
#[derive(Debug)]
pub struct TlsConfig(ArcSwap<ServerConfig>);

impl TlsConfig {
    /// Begins with `config`.
    pub fn new(config: ServerConfig) -> Self {
        Self(ArcSwap::from_pointee(config))
    }

    /// The one in force.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }

    /// Puts `config` in force for connections accepted from now on.
    pub fn replace(&self, config: ServerConfig) {
        self.0.store(Arc::new(config));
    }
}

/// Our clock, as rustls asks for it.
struct WallTime(Arc<dyn Clock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.wall().seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallTime")
    }
}
