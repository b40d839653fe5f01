//! The connection to the broker: TLS 1.3 over which HTTP/2 and gRPC run, the caller's token on every call,
//! and a deadline on every call.

use std::future::Future;
use std::path::Path;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use zeroize::Zeroizing;

use super::context::{ConnectionArgs, Settings, Target, TrustSource};
use super::error::{Failure, Kind};
use super::pin::{Pin, PinVerifier};
use super::{client_certificate, context, files, input, login};
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::proto;

/// How long connecting and the TLS handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take where nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the broker is recognized by.
#[derive(Clone, Debug)]
pub enum Trust {
    /// By these roots.
    Roots(Vec<CertificateDer<'static>>),
    /// By the hash of its root's public key.
    Pin(Pin),
}

/// What a caller shows of itself in the handshake.
pub struct ClientIdentity {
    /// The certificate chain, DER, the caller's own first.
    pub chain_der: Vec<CertificateDer<'static>>,
    /// The private key, PKCS#8 DER.
    pub key_pkcs8: Zeroizing<Vec<u8>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none.
    #[error("'{0}' is not an address of the form HOST:PORT")]
    Address(String),
    /// The certificates or the key cannot be used.
    #[error("the certificates or the key for the connection cannot be used: {0}")]
    Material(rustls::Error),
    /// Nobody listens there, or there is no way there.
    #[error("cannot connect: {0}")]
    Unreachable(std::io::Error),
    /// It took too long.
    #[error("no connection within {} seconds", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The server is not the one that was meant, or not for us.
    #[error("the TLS handshake failed: {}", handshake_fault(.0))]
    Handshake(std::io::Error),
    /// TLS went well, HTTP/2 did not.
    #[error("the server does not speak gRPC: {0}")]
    Transport(tonic::transport::Error),
}

impl ConnectError {
    /// The failure a command ends with.
    pub fn into_failure(self, target: &Target) -> Failure {
        let (kind, remedy) = match &self {
            ConnectError::Address(_) => (Kind::Config, "Give HOST:PORT, such as broker.example:7420."),
            ConnectError::Material(_) => (
                Kind::Config,
                "Check the CA file; an agent's identity folder may have to be made anew with 'credbroker enroll'.",
            ),
            ConnectError::Unreachable(_) | ConnectError::TimedOut => (
                Kind::Unavailable,
                "Check that the broker runs and that the address is right.",
            ),
            ConnectError::Handshake(error) if is_untrusted(error) => (
                Kind::Config,
                "This is not the broker that was meant, or its CA has changed. Compare the pin with what its \
                 operator tells; do not send it a token until they agree.",
            ),
            ConnectError::Handshake(_) | ConnectError::Transport(_) => (
                Kind::Unavailable,
                "Check that the address is a credbroker's and not another server's.",
            ),
        };
        Failure::new(kind, self.to_string()).remedy(remedy).at(target)
    }
}

/// What went wrong in a handshake. The library shows what it does not know itself, such as a pin that does not
/// fit, in a programmer's form.
fn handshake_fault(error: &std::io::Error) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            other.0.to_string()
        }
        _ => error.to_string(),
    }
}

fn is_untrusted(error: &std::io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)))
}

/// Opens a connection to `HOST:PORT`. Reopens it by itself where it breaks later.
pub async fn connect(
    address: &str,
    trust: Trust,
    identity: Option<ClientIdentity>,
) -> Result<Channel, ConnectError> {
    let malformed = || ConnectError::Address(address.to_owned());
    let uri: Uri = format!("https://{address}").parse().map_err(|_| malformed())?;
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
        return Err(malformed());
    };
    // A path or a user name in it would be ignored silently; better to say that it does not belong there.
    let whole = uri
        .authority()
        .is_some_and(|authority| authority.as_str() == address);
    if !whole || address.contains('@') {
        return Err(malformed());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let dialer = Dialer {
        name: ServerName::try_from(host.clone()).map_err(|_| malformed())?,
        host,
        port,
        tls: TlsConnector::from(Arc::new(
            tls_config(trust, identity).map_err(ConnectError::Material)?,
        )),
    };
    Endpoint::from(uri)
        .user_agent(concat!("credbroker/", env!("CARGO_PKG_VERSION")))
        .map_err(ConnectError::Transport)?
        .connect_with_connector(dialer)
        .await
        .map_err(own_error)
}

/// The dialer's own error out of the transport's wrapping.
fn own_error(error: tonic::transport::Error) -> ConnectError {
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        match inner.downcast_ref::<ConnectError>() {
            Some(ConnectError::TimedOut) => return ConnectError::TimedOut,
            Some(ConnectError::Unreachable(inner)) => return ConnectError::Unreachable(copy(inner)),
            Some(ConnectError::Handshake(inner)) => return ConnectError::Handshake(copy(inner)),
            _ => cause = inner.source(),
        }
    }
    ConnectError::Transport(error)
}

/// An I/O error that says the same; errors behind a reference cannot be moved out.
fn copy(error: &std::io::Error) -> std::io::Error {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(tls) => std::io::Error::new(error.kind(), tls.clone()),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}

/// TLS 1.3 only, `h2` by ALPN, nothing kept of earlier sessions.
fn tls_config(trust: Trust, identity: Option<ClientIdentity>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match trust {
        Trust::Roots(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Pin(pin) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier::new(pin, provider))),
    };
    let mut config = match identity {
        Some(identity) => {
            let key = PrivatePkcs8KeyDer::from(identity.key_pkcs8.to_vec());
            builder.with_client_auth_cert(identity.chain_der, PrivateKeyDer::Pkcs8(key))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Makes one TLS connection each time the transport asks for one.
#[derive(Clone)]
struct Dialer {
    name: ServerName<'static>,
    host: String,
    port: u16,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pinned<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, dialer.dial())
                .await
                .unwrap_or(Err(ConnectError::TimedOut))
        })
    }
}

impl Dialer {
    async fn dial(self) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(ConnectError::Unreachable)?;
        tcp.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        let stream = self
            .tls
            .connect(self.name, tcp)
            .await
            .map_err(ConnectError::Handshake)?;
        Ok(TokioIo::new(stream))
    }
}

/// Puts the caller's token and the deadline on every call.
#[derive(Clone)]
pub struct Bearer {
    header: Option<MetadataValue<Ascii>>,
    org: Option<MetadataValue<Ascii>>,
    timeout: Option<Duration>,
}

impl Bearer {
    /// Presents `token`, where there is one, and gives each call `timeout`.
    pub fn new(token: Option<&Secret<ActorToken>>, timeout: Duration) -> Result<Self, Failure> {
        let header = token
            .map(|token| {
                let text = token.expose_str(Exposure::Present).unwrap_or_default();
                let line = Zeroizing::new(format!("Bearer {text}"));
                let mut value = MetadataValue::try_from(line.as_str())
                    .map_err(|_| Failure::config("the token holds characters that no token has"))?;
                value.set_sensitive(true);
                Ok::<_, Failure>(value)
            })
            .transpose()?;
        Ok(Self {
            header,
            org: None,
            timeout: Some(timeout),
        })
    }

    /// The same caller, for streams, which end when they end.
    #[must_use]
    pub fn without_deadline(self) -> Self {
        Self {
            timeout: None,
            ..self
        }
    }

    /// Also says which org is meant: one ID token may stand for members of several.
    pub fn naming(mut self, org: Option<&str>) -> Result<Self, Failure> {
        let value = org.map(MetadataValue::try_from).transpose();
        self.org = value.map_err(|_| Failure::usage("an org is named by its name or its id"))?;
        Ok(self)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.clone());
        }
        if let Some(org) = &self.org {
            request.metadata_mut().insert("credbroker-org", org.clone());
        }
        if let Some(timeout) = self.timeout {
            // The channel keeps this deadline too, should the broker not.
            request.set_timeout(timeout);
        }
        Ok(request)
    }
}

/// A connection with the caller's token on it.
pub type Transport = InterceptedService<Channel, Bearer>;

/// A connection as one caller.
#[derive(Clone)]
pub struct Session {
    transport: Transport,
    streams: Transport,
    /// Which broker it is to.
    pub target: Target,
    org: Option<String>,
    agent: bool,
}

impl Session {
    /// A session over `channel`.
    pub fn new(channel: Channel, bearer: Bearer, target: Target, org: Option<String>) -> Self {
        Self {
            streams: InterceptedService::new(channel.clone(), bearer.clone().without_deadline()),
            transport: InterceptedService::new(channel, bearer),
            target,
            org,
            agent: false,
        }
    }

    /// The same session, as that of an agent.
    #[must_use]
    pub fn of_agent(self) -> Self {
        Self { agent: true, ..self }
    }

    /// Whether the caller is an agent, which may ask for less than others.
    pub fn is_agent(&self) -> bool {
        self.agent
    }

    /// Connects as the actor whose token the flags, the environment or the context name.
    pub async fn open(args: &ConnectionArgs) -> Result<Session, Failure> {
        let folder = context::default_folder()?;
        let contexts = context::read(&folder)?;
        let settings = Settings::resolve(args, &contexts)?;
        let timeout = args.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let bearer = match (&settings.token_file, &settings.login, &settings.target.context) {
            (Some(file), ..) => {
                let token: Secret<ActorToken> = input::secret_in_file(file)?;
                Bearer::new(Some(&token), timeout)?
            }
            (None, Some(login), Some(name)) => {
                let token = login::session::id_token(&folder, name, login).await?;
                Bearer::new(Some(&token), timeout)?.naming(settings.org.as_deref())?
            }
            (None, ..) => {
                return Err(Failure::config("there is no token to present to the broker")
                    .remedy(
                        "Sign in with 'credbroker login', give --token-file, or add one to the context with \
                         'credbroker context add --force'.",
                    )
                    .at(&settings.target));
            }
        };
        let trust = match &settings.trust {
            TrustSource::Pin(pin) => Trust::Pin(*pin),
            TrustSource::File(path) => Trust::Roots(certificates(path)?),
        };
        let folder = settings
            .client_certificate
            .as_deref()
            .map(client_certificate::Folder::at);
        let identity = folder.map(|folder| folder.load()).transpose()?;
        let channel = connect(&settings.target.address, trust, identity)
            .await
            .map_err(|error| error.into_failure(&settings.target))?;
        Ok(Session::new(channel, bearer, settings.target, settings.org))
    }

    /// The org that is meant, or how to say it.
    pub fn org(&self) -> Result<String, Failure> {
        self.org.clone().ok_or_else(|| {
            Failure::usage("which org is meant?")
                .remedy("Give --org, set CREDBROKER_ORG, or put 'org' into the context.")
                .at(&self.target)
        })
    }

    /// The org that is meant; empty where none was named: an agent's or API key's own is taken then.
    pub fn org_or_own(&self) -> String {
        self.org.clone().unwrap_or_default()
    }

    /// Streams of events.
    pub fn watches(&self) -> proto::watch_service_client::WatchServiceClient<Transport> {
        proto::watch_service_client::WatchServiceClient::new(self.streams.clone())
    }

    /// Streams of how connections of accounts go.
    pub fn account_watches(&self) -> proto::account_service_client::AccountServiceClient<Transport> {
        proto::account_service_client::AccountServiceClient::new(self.streams.clone())
    }

    /// What a refusal is told as.
    pub fn failure(&self, status: Status) -> Failure {
        Failure::from(status).at(&self.target)
    }
}

macro_rules! stubs {
    ($($(#[$doc:meta])* $method:ident: $module:ident::$client:ident;)*) => {
        impl Session {
            $(
                $(#[$doc])*
                pub fn $method(&self) -> proto::$module::$client<Transport> {
                    proto::$module::$client::new(self.transport.clone())
                }
            )*
        }
    };
}

stubs! {
    /// Orgs, projects, environments and members.
    directory: directory_service_client::DirectoryServiceClient;
    /// The agent programs.
    executors: executor_service_client::ExecutorServiceClient;
    /// Tasks.
    tasks: task_service_client::TaskServiceClient;
    /// Agents and enrollment tokens.
    agents: agent_service_client::AgentServiceClient;
    /// Enrollment.
    enrollment: enrollment_service_client::EnrollmentServiceClient;
    /// Stored credentials.
    credentials: credential_service_client::CredentialServiceClient;
    /// The journal.
    journal: journal_service_client::JournalServiceClient;
    /// Who may call.
    access: access_service_client::AccessServiceClient;
    /// Approvals.
    approvals: approval_service_client::ApprovalServiceClient;
    /// Secrets of extensions.
    secrets: secret_service_client::SecretServiceClient;
    /// What hands credentials out.
    broker: broker_service_client::BrokerServiceClient;
    /// Locks.
    locks: lock_service_client::LockServiceClient;
    /// The platform's own keys.
    platform: platform_service_client::PlatformServiceClient;
    /// Accounts and spend.
    billing: billing_service_client::BillingServiceClient;
    /// The policy.
    policies: policy_service_client::PolicyServiceClient;
    /// Connected accounts.
    accounts: account_service_client::AccountServiceClient;
}

/// The certificates in a PEM file; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = files::read_text(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(
            Failure::config(format!("{} holds no certificate in PEM form", path.display()))
                .remedy("Check that the path is right and the file whole."),
        ),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(super) mod tests;
