//! The configuration as the program uses it: checked, in the types of its use.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustls_pki_types::ServerName;
use toml::{Table, Value};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::ConfigError;
use super::keys::{KEYS, Limit};
use super::local;
use super::oidc;
use super::platform::{self, KeyFiles, Proxy};
use super::raw::{self, Origins, Raw};
use super::refresh::{self, Refresh};
use crate::domain::oidc::Issuer;

/// The whole configuration. Holds no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the store, the journal and the keys are. Relative paths in the file are relative to the file.
    pub data_dir: PathBuf,
    /// The port and its limits.
    pub listen: Listen,
    /// Names and certificates.
    pub identity: Identity,
    /// How agents join.
    pub enrollment: Enrollment,
    /// How agents live and end.
    pub agents: Agents,
    /// How grants are kept alive.
    pub refresh: Refresh,
    /// What is handed out.
    pub leases: Leases,
    /// The journal.
    pub journal: Journal,
    /// The store.
    pub store: Store,
    /// The log.
    pub log: Log,
    /// Stopping.
    pub drain: Drain,
    /// More executors and providers.
    pub registry: Registry,
    /// Model servers on members' machines.
    pub local: Local,
    /// More connectors, and whose terms are accepted.
    pub connectors: Connectors,
    /// `[[oidc.issuers]]`: who may vouch for members.
    pub issuers: Vec<Issuer>,
    /// The streams of events.
    pub watch: Watch,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// The platform's keys that are paid for.
    pub metered: Metered,
    /// The platform's keys that are free up to a quota.
    pub shared: Shared,
    /// `metered.key_files` and `shared.key_files`: the files of the platform's own keys.
    pub key_files: Vec<KeyFiles>,
    /// `[proxy]`.
    pub proxy: Proxy,
    pub(super) raw: Raw,
}

/// `[listen]`.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where the port is.
    pub address: SocketAddr,
    /// What the server certificate is for; never empty.
    pub server_names: Vec<ServerName<'static>>,
    /// Open connections; the next is closed at once.
    pub max_connections: usize,
    /// TLS handshakes at a time; the next wait.
    pub max_concurrent_handshakes: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a call may take that is not a stream.
    pub request_timeout: Duration,
    /// The longest request message, in bytes.
    pub max_message_bytes: usize,
    /// Calls at a time on one connection.
    pub max_concurrent_streams: u32,
    /// Calls at a time on all connections; the next is refused as overload.
    pub max_requests_in_flight: usize,
}

/// `[identity]`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The SPIFFE trust domain (SPIFFE ID specification, section 2.1).
    pub trust_domain: String,
    /// How long an agent's certificate lasts.
    pub certificate_lifetime: Duration,
}

/// `[enrollment]`.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// How long an enrollment may be repeated with the same key.
    pub retry_window: Duration,
    /// How long after its end a certificate may be renewed.
    pub renewal_grace: Duration,
}

/// `[agents]`.
#[derive(Clone, Debug)]
pub struct Agents {
    /// How often agents are asked to tell that they live.
    pub heartbeat_interval: Duration,
    /// How long an agent may go unseen before it expires.
    pub unseen_expiry: Duration,
    /// How long what has ended is kept before it is collected.
    pub collect_after: Duration,
}

/// `[leases]`.
#[derive(Clone, Debug)]
pub struct Leases {
    /// How long a lease lasts.
    pub lifetime: Duration,
    /// How many stand at once on a personal subscription, where nothing else was said of it.
    pub personal_parallelism: u32,
}

/// `[journal]`.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The size at which a new segment is begun, in bytes.
    pub segment_bytes: u64,
    /// At most so long between signed heads while records are written.
    pub head_interval: Duration,
    /// Records waiting to be written.
    pub queue: usize,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    /// Batches waiting to be committed.
    pub queue: usize,
    /// Disk space kept back for what must not fail, in bytes.
    pub reserved_bytes: u64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// `[drain]`.
#[derive(Clone, Debug)]
pub struct Drain {
    /// How long stopping may take; at least the exchange time-out, so that no exchange is cut off.
    pub timeout: Duration,
}

/// `[registry]`.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Files of executors and providers that are added to those shipped, in order.
    pub files: Vec<PathBuf>,
}

/// `[local]`.
#[derive(Clone, Debug)]
pub struct Local {
    /// The base URLs of the servers that the broker itself asks whether they are there.
    pub probe_endpoints: Vec<String>,
}

/// `[connectors]`.
#[derive(Clone, Debug)]
pub struct Connectors {
    /// The connectors whose terms the operator has accepted.
    pub accept_terms: Vec<String>,
    /// Files of connectors that are added to those shipped, in order.
    pub files: Vec<PathBuf>,
}

/// `[watch]`.
#[derive(Clone, Debug)]
pub struct Watch {
    /// How long a watch is silent at most.
    pub heartbeat: Duration,
}

/// `[metrics]`.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Where they are read; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[metered]`.
#[derive(Clone, Copy, Debug)]
pub struct Metered {
    /// Whether orgs may use metered keys of which nothing else was said.
    pub allow_all: bool,
}

/// `[shared]`.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Shared dispatches of an org a UTC day, where nothing else was said of it.
    pub dispatches_per_day: u32,
}

/// Checks every key, then what two keys demand of each other.
pub(super) fn check(raw: Raw, path: &Path, origins: &Origins) -> Result<Config, ConfigError> {
    check_limits(&raw.to_table(), origins)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let config = Config {
        data_dir: data_dir(&raw, folder, origins)?,
        listen: listen(&raw, origins)?,
        identity: Identity {
            trust_domain: trust_domain(&raw, origins)?,
            certificate_lifetime: raw.identity.certificate_lifetime.0,
        },
        enrollment: Enrollment {
            retry_window: raw.enrollment.retry_window.0,
            renewal_grace: raw.enrollment.renewal_grace.0,
        },
        agents: Agents {
            heartbeat_interval: raw.agents.heartbeat_interval.0,
            unseen_expiry: raw.agents.unseen_expiry.0,
            collect_after: raw.agents.collect_after.0,
        },
        refresh: refresh::refresh(&raw.refresh),
        leases: Leases {
            lifetime: raw.leases.lifetime.0,
            personal_parallelism: raw.leases.personal_parallelism,
        },
        journal: Journal {
            segment_bytes: raw.journal.segment_bytes,
            head_interval: raw.journal.head_interval.0,
            queue: raw.journal.queue,
        },
        store: Store {
            queue: raw.store.queue,
            reserved_bytes: raw.store.reserved_bytes,
        },
        log: log(&raw, origins)?,
        drain: Drain {
            timeout: raw.drain.timeout.0,
        },
        registry: Registry {
            files: files("registry.files", &raw.registry.files, folder, origins)?,
        },
        local: Local {
            probe_endpoints: local::probe_endpoints(&raw.local.probe_endpoints, origins)?,
        },
        connectors: Connectors {
            accept_terms: raw.connectors.accept_terms.clone(),
            files: files("connectors.files", &raw.connectors.files, folder, origins)?,
        },
        issuers: oidc::issuers(&raw.oidc.issuers, folder, origins)?,
        watch: Watch {
            heartbeat: raw.watch.heartbeat.0,
        },
        metrics: Metrics {
            listen: metrics_listen(&raw, origins)?,
        },
        metered: Metered {
            allow_all: raw.metered.allow_all,
        },
        shared: Shared {
            dispatches_per_day: raw.shared.dispatches_per_day,
        },
        key_files: platform::key_files(&raw, folder, origins)?,
        proxy: platform::proxy(&raw.proxy, origins)?,
        raw,
    };
    check_pairs(&config, origins)?;
    Ok(config)
}

fn check_limits(values: &Table, origins: &Origins) -> Result<(), ConfigError> {
    for key in KEYS {
        let Some(value) = raw::value_at(values, key.path) else {
            continue;
        };
        let within = match (key.limit, value) {
            (Limit::Own, _) => true,
            (Limit::Number(least, most), Value::Integer(n)) => {
                u64::try_from(*n).is_ok_and(|n| (least..=most).contains(&n))
            }
            (Limit::Time(least, most), Value::String(text)) => {
                humantime::parse_duration(text).is_ok_and(|time| (least..=most).contains(&time))
            }
            (Limit::List(most), Value::Array(entries)) => entries.len() <= most,
            _ => false,
        };
        if !within {
            return Err(origins.fault(key.path, "out of range", format!("Set it to {}.", key.limit)));
        }
    }
    Ok(())
}

fn check_pairs(config: &Config, origins: &Origins) -> Result<(), ConfigError> {
    let at_least = |greater: (&str, u128), lesser: (&str, u128), why: &str| {
        if greater.1 >= lesser.1 {
            return Ok(());
        }
        Err(origins.fault(
            greater.0,
            format!("less than {}", lesser.0),
            format!("Raise it, or lower {}: {why}.", lesser.0),
        ))
    };
    at_least(
        ("drain.timeout", config.drain.timeout.as_millis()),
        (
            "refresh.exchange_timeout",
            config.refresh.exchange_timeout.as_millis(),
        ),
        "an exchange that is cut off may lose a grant",
    )?;
    at_least(
        (
            "refresh.max_concurrent_exchanges",
            config.refresh.max_concurrent_exchanges as u128,
        ),
        (
            "refresh.max_concurrent_exchanges_per_connector",
            config.refresh.max_concurrent_exchanges_per_connector as u128,
        ),
        "one connector has no more places than there are",
    )?;
    at_least(
        ("leases.lifetime", config.leases.lifetime.as_millis()),
        (
            "refresh.minimum_remaining_default",
            config.refresh.minimum_remaining_default.as_millis(),
        ),
        "a lease cannot promise more than its own life",
    )
}

fn data_dir(raw: &Raw, folder: &Path, origins: &Origins) -> Result<PathBuf, ConfigError> {
    if raw.data_dir.as_os_str().is_empty() {
        return Err(origins.fault("data_dir", "empty", "Name the folder for the broker's state."));
    }
    Ok(folder.join(&raw.data_dir))
}

fn metrics_listen(raw: &Raw, origins: &Origins) -> Result<Option<SocketAddr>, ConfigError> {
    let text = raw.metrics.listen.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    SocketAddr::from_str(text).map(Some).map_err(|_| {
        origins.fault(
            "metrics.listen",
            "not an IP address and port",
            "Write it as \"127.0.0.1:7421\", or leave it empty.",
        )
    })
}

fn listen(raw: &Raw, origins: &Origins) -> Result<Listen, ConfigError> {
    let listen = &raw.listen;
    let address = SocketAddr::from_str(&listen.address).map_err(|_| {
        origins.fault(
            "listen.address",
            "not an IP address and port",
            "Write it as \"127.0.0.1:7420\" or \"[::1]:7420\".",
        )
    })?;
    if listen.server_names.is_empty() {
        return Err(origins.fault(
            "listen.server_names",
            "empty",
            "Name at least one host that clients call the broker by.",
        ));
    }
    let server_names = listen
        .server_names
        .iter()
        .map(|name| {
            ServerName::try_from(name.clone()).map_err(|_| {
                origins.fault(
                    "listen.server_names",
                    format!(
                        "'{}' is neither a host name nor an IP address",
                        name.escape_debug()
                    ),
                    "Write names and addresses without scheme or port.",
                )
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Listen {
        address,
        server_names,
        max_connections: listen.max_connections,
        max_concurrent_handshakes: listen.max_concurrent_handshakes,
        handshake_timeout: listen.handshake_timeout.0,
        request_timeout: listen.request_timeout.0,
        max_message_bytes: listen.max_message_bytes,
        max_concurrent_streams: listen.max_concurrent_streams,
        max_requests_in_flight: listen.max_requests_in_flight,
    })
}

fn trust_domain(raw: &Raw, origins: &Origins) -> Result<String, ConfigError> {
    let domain = &raw.identity.trust_domain;
    let fits = (1..=255).contains(&domain.len())
        && domain
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
    if !fits {
        return Err(origins.fault(
            "identity.trust_domain",
            "not a SPIFFE trust domain",
            "Use 1 to 255 of a-z, 0-9, '.', '-' and '_'.",
        ));
    }
    Ok(domain.clone())
}

fn log(raw: &Raw, origins: &Origins) -> Result<Log, ConfigError> {
    let format = match raw.log.format.as_str() {
        "json" => LogFormat::Json,
        "pretty" => LogFormat::Pretty,
        _ => return Err(origins.fault("log.format", "unknown", "Write \"json\" or \"pretty\".")),
    };
    if !is_filter(&raw.log.filter) {
        return Err(origins.fault(
            "log.filter",
            "not a filter",
            "Write a level (\"info\"), or levels by module (\"info,credbroker::rpc=debug\").",
        ));
    }
    Ok(Log {
        format,
        filter: raw.log.filter.clone(),
    })
}

/// Stricter than `EnvFilter`, which takes a mistyped level for the name of a module, and then logs nothing.
fn is_filter(text: &str) -> bool {
    let is_level = |text: &str| !text.is_empty() && LevelFilter::from_str(text).is_ok();
    let parts_are_plain = text.split(',').all(|part| match part.trim().rsplit_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part.trim()),
    });
    let selects_spans = text.contains('[');
    (parts_are_plain || selects_spans) && EnvFilter::try_new(text).is_ok()
}

fn files(
    key: &str,
    files: &[PathBuf],
    folder: &Path,
    origins: &Origins,
) -> Result<Vec<PathBuf>, ConfigError> {
    if files.iter().any(|file| file.as_os_str().is_empty()) {
        return Err(origins.fault(key, "an empty path", "Remove the empty entry."));
    }
    Ok(files.iter().map(|file| folder.join(file)).collect())
}
