//! Why the daemon does not start, and what to do about it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::files::FileError;
use crate::config::registry::RegistryError;
use crate::config::{ConfigError, Origin};
use crate::domain::managed::KeyProblem;
use crate::domain::refusal::Refusal;
use crate::journal::{JournalError, KeyError};
use crate::pki::authority::CaError;
use crate::pki::tls::TlsError;
use crate::rpc::ServeError;
use crate::store::StoreError;
use crate::store::seal::MasterKeyError;
use crate::telemetry::TelemetryError;
use crate::upstream::connector::load::ConnectorError;
use crate::upstream::http::HttpSetupError;
use crate::upstream::key_test::TesterSetupError;
use crate::upstream::oidc::IssuerSetupError;
use crate::upstream::probe::ProberSetupError;

/// Why the daemon does not start or ended. The operator's to mend; each says how.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A registry file.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A connector file.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// The log.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// There is no broker in the data folder.
    #[error("{} holds no broker. Make one with: credbrokerd init --data-dir {}", .0.display(), .0.display())]
    NotInitialized(PathBuf),
    /// There is one already.
    #[error("{} holds a broker already. Start it with credbrokerd serve, or name another folder.", .0.display())]
    AlreadyInitialized(PathBuf),
    /// Another daemon has the folder open.
    #[error("another credbrokerd already runs on {}. Stop it first, or name another data folder.", .0.display())]
    InUse(PathBuf),
    /// The store.
    #[error("the store in {}: {source}", folder.display())]
    Store {
        /// The data folder.
        folder: PathBuf,
        /// What went wrong.
        source: StoreError,
    },
    /// The journal.
    #[error("the journal in {}: {source}", folder.display())]
    Journal {
        /// The data folder.
        folder: PathBuf,
        /// What went wrong.
        source: JournalError,
    },
    /// The journal was removed or replaced.
    #[error(
        "{} is not this broker's journal: it was removed or replaced. Put the journal back that belongs to this store.",
        .0.display()
    )]
    ForeignJournal(PathBuf),
    /// The journal's signing key.
    #[error("the journal's signing key: {0}")]
    JournalKey(#[from] KeyError),
    /// The master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The CA.
    #[error("the certificate authority: {0}")]
    Authority(#[from] CaError),
    /// The TLS configuration.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The trust domain.
    #[error("{0}")]
    TrustDomain(#[from] crate::pki::spiffe::MalformedTrustDomain),
    /// An issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerSetupError),
    /// What asks model servers whether they are there.
    #[error(transparent)]
    Prober(#[from] ProberSetupError),
    /// The client for testing credentials.
    #[error(transparent)]
    Tester(#[from] TesterSetupError),
    /// The client for token endpoints.
    #[error("the client for token endpoints: {0}")]
    Http(#[from] HttpSetupError),
    /// The port.
    #[error("cannot listen on {address}: {source}. Stop what listens there, or set another listen.address.")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port that metrics are read at.
    #[error(
        "cannot listen on {address} for metrics: {source}. Stop what listens there, or set another metrics.listen."
    )]
    MetricsBind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A port of `dev`.
    #[error(
        "cannot listen on {address} for the {what}: {source}. Where another credbrokerd dev runs, use or stop \
         that one; otherwise choose another address with {flag}."
    )]
    DevBind {
        /// What would have listened there.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What sets it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// `dev` was to listen where others can reach it.
    #[error(
        "dev gives everything to anybody who reaches it, so {flag} takes a loopback address only, not {address}. \
         A broker for others is made with credbrokerd init and run with credbrokerd serve."
    )]
    DevNotLoopback {
        /// The address.
        address: SocketAddr,
        /// What set it.
        flag: &'static str,
    },
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One of the platform's own keys will not do.
    #[error("{origin}: {problem}")]
    ManagedKey {
        /// What has to be changed: a variable, or a key of the configuration.
        origin: String,
        /// Why.
        problem: KeyProblem,
    },
    /// A file of one of the platform's own keys.
    #[error("{origin}: {source}. {}", source.remedy())]
    ManagedKeyFile {
        /// The key of the configuration that names it.
        origin: String,
        /// Why.
        source: FileError,
    },
    /// A variable of one of the platform's own keys.
    #[error("environment variable {0}: not text. Set it to the key alone.")]
    ManagedKeyVariable(String),
    /// A base URL for no provider.
    #[error("{origin}: proxy.base_urls: {problem}")]
    ProxyProvider {
        /// Where it is set.
        origin: Origin,
        /// Why.
        problem: KeyProblem,
    },
    /// A use case refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The server ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The command's own folder for contexts.
    #[error("the context for the credbroker command: {0}")]
    Context(#[from] crate::cli::context::ContextError),
    /// Something of the operating system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
