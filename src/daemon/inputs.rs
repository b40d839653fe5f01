//! What a broker is opened with: the configuration, and what it refers to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::DaemonError;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, registry};
use crate::domain::executor::Registry;
use crate::domain::mode::CredentialKind;
use crate::journal::Options as JournalOptions;
use crate::service::{Jitter, system_jitter};
use crate::upstream::TokenEndpoint;
use crate::upstream::connector::load::Connectors;
use crate::upstream::http::{HttpOptions, HttpTokenEndpoint};

/// What a broker is opened with.
pub struct Inputs {
    /// The configuration.
    pub config: Config,
    /// The connectors.
    pub connectors: Connectors,
    /// The executors and providers.
    pub registry: Registry,
    /// Where token requests go.
    pub endpoint: Arc<dyn TokenEndpoint>,
    /// Where accounts are connected and tokens revoked.
    pub oauth: Arc<HttpTokenEndpoint>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// How the journal is kept.
    pub journal: JournalOptions,
    /// Where the chance in pauses comes from.
    pub jitter: Jitter,
}

/// The longest wait for a connection to a token endpoint.
const CONNECT: Duration = Duration::from_secs(10);

impl Inputs {
    /// Reads the files that the configuration names.
    pub fn load(config: Config) -> Result<Inputs, DaemonError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let connectors = connectors(&config)?;
        let registry = registry(&config)?;
        connectors.check_providers(|name| {
            let provider = registry.provider(name);
            provider.is_some_and(|provider| provider.kinds.contains(&CredentialKind::OAuthGrant))
        })?;
        let oauth = token_endpoint(&config, Arc::clone(&clock))?;
        let journal = JournalOptions {
            segment_bytes: config.journal.segment_bytes,
            head_interval: config.journal.head_interval,
            queue: config.journal.queue,
            ..JournalOptions::default()
        };
        Ok(Inputs {
            config,
            connectors,
            registry,
            endpoint: Arc::clone(&oauth) as Arc<dyn TokenEndpoint>,
            oauth,
            clock,
            journal,
            jitter: system_jitter(),
        })
    }
}

/// Token endpoints over HTTP, in the times that the configuration gives them.
pub fn token_endpoint(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<HttpTokenEndpoint>, DaemonError> {
    let connect_timeout = CONNECT.min(config.refresh.exchange_timeout / 3);
    let options = HttpOptions {
        connect_timeout,
        answer_timeout: config.refresh.exchange_timeout - connect_timeout,
        ..HttpOptions::default()
    };
    Ok(Arc::new(HttpTokenEndpoint::new(&options, clock)?))
}

fn read(path: &Path) -> Result<String, DaemonError> {
    std::fs::read_to_string(path).map_err(|source| DaemonError::File {
        path: path.to_owned(),
        source,
    })
}

fn registry(config: &Config) -> Result<Registry, DaemonError> {
    let files: Vec<(&PathBuf, String)> = config
        .registry
        .files
        .iter()
        .map(|path| Ok((path, read(path)?)))
        .collect::<Result<_, DaemonError>>()?;
    let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    let extras: Vec<_> = names
        .iter()
        .zip(&files)
        .map(|(file, (_, text))| registry::Extra { file, text })
        .collect();
    Ok(registry::load(&extras)?)
}

fn connectors(config: &Config) -> Result<Connectors, DaemonError> {
    let accepted = &config.connectors.accept_terms;
    let mut all = Connectors::shipped()?;
    for path in &config.connectors.files {
        all = all.with_file(&path.display().to_string(), &read(path)?, accepted)?;
    }
    // Accepted, and in no file: an empty table over the shipped one.
    for name in accepted {
        if all
            .get(name)
            .is_none_or(|connector| connector.terms.as_ref().is_some_and(|terms| !terms.accepted))
        {
            all = all.with_file(
                "connectors.accept_terms",
                &format!("[connectors.{name:?}]"),
                accepted,
            )?;
        }
    }
    Ok(all)
}
