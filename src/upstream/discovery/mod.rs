//! Endpoints that a connector leaves open, found by its issuer's metadata (RFC 8414).
//!
//! A connector stays what was configured; what is discovered is kept here, beside it, and [`Endpoints`] is what both
//! make together. Promises: what is configured wins; a document counts only if it is the issuer's own and its
//! endpoints are ones that the connector could have; it is asked for by one task at a time, at most every [`REST`],
//! bounded in size and time, without redirects; it is used for [`FRESH`], then refetched beside the use that finds it
//! old, and used for [`USABLE`] at most; where an endpoint it names answers as none does, it is refetched before
//! the next use. Nothing of a grant is sent before its endpoint is known.

mod metadata;
mod need;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::{Client, Url};
use tokio::sync::OwnedMutexGuard;

pub use metadata::{Endpoints, Metadata, Oddity};
pub(super) use need::Need;

use super::connector::Connector;
use super::connector::load::ConnectorFault;
use super::web::{self, DocumentError};
use crate::clock::Clock;
use crate::domain::time::Time;
use metadata::Document;

/// So long what was found is used without asking again.
pub const FRESH: Duration = Duration::from_secs(3600);
/// So long it is used while the issuer does not answer.
pub const USABLE: Duration = Duration::from_secs(24 * 3600);
/// So long after a failure nobody asks again.
pub const REST: Duration = Duration::from_secs(10);
/// How long finding out may take, all told.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest document, in bytes.
pub const MAX_DOCUMENT: usize = 64 * 1024;

/// Why a connector's endpoints are not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The document cannot be had.
    #[error("{first}{}", second.as_ref().map(|second| format!("; {second}")).unwrap_or_default())]
    Document {
        /// At the place of RFC 8414.
        first: Arc<DocumentError>,
        /// At the place of OpenID Connect Discovery, where that was tried.
        second: Option<Arc<DocumentError>>,
    },
    /// Nothing came in time.
    #[error("no metadata within {0:?}")]
    Slow(Duration),
    /// It is another issuer's document.
    #[error("{place}: it is the document of the issuer '{found}'; write `issuer` as the server does itself")]
    OtherIssuer {
        /// Where it was found.
        place: String,
        /// Whose it is.
        found: String,
    },
    /// It has no token endpoint.
    #[error("{place}: it names no token_endpoint; set token_url")]
    NoTokenEndpoint {
        /// Where it was found.
        place: String,
    },
    /// Its token endpoint is none that this connector may have.
    #[error("{place}: token_endpoint {url}: {fault}")]
    Endpoint {
        /// Where it was found.
        place: String,
        /// The endpoint.
        url: String,
        /// What is wrong with it, and the remedy.
        fault: Box<ConnectorFault>,
    },
    /// The server takes no secret in a way that we know.
    #[error(
        "the server lists {listed} for client authentication; credbroker knows basic and post: set client_auth"
    )]
    NoMethod {
        /// What it lists.
        listed: String,
    },
    /// Nothing was found out yet.
    #[error("what the issuer says of itself is not known yet")]
    Unknown,
}

/// What is known of a connector's server.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// What it says of itself; `None`: not known.
    pub metadata: Option<Arc<Metadata>>,
    /// When that was found.
    pub at: Option<Time>,
    /// Where that was found.
    pub place: String,
    /// What in it does not fit the connector, with the remedy.
    pub oddities: Vec<Oddity>,
    /// Why it could not be found the last time, if it could not.
    pub error: Option<DiscoveryError>,
    /// When that was.
    pub failed_at: Option<Time>,
}

/// What is known of all servers.
pub(super) struct Discovery {
    client: Client,
    clock: Arc<dyn Clock>,
    /// By name and issuer of the connector: as many as are configured.
    servers: Mutex<HashMap<(String, String), Arc<Server>>>,
}

struct Server {
    connector: Connector,
    found: ArcSwapOption<Found>,
    failed: ArcSwapOption<Failed>,
    /// Held while somebody asks.
    flight: Arc<tokio::sync::Mutex<()>>,
}

struct Found {
    metadata: Arc<Metadata>,
    oddities: Vec<Oddity>,
    place: String,
    /// On the clock that only goes forward.
    since: Duration,
    at: Time,
    /// Whether it seems to hold no longer; so until somebody has asked again.
    doubted: AtomicBool,
}

struct Failed {
    error: DiscoveryError,
    /// On the clock that only goes forward.
    since: Duration,
    at: Time,
}

impl Discovery {
    pub(super) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            clock,
            servers: Mutex::default(),
        }
    }

    /// The endpoints of `connector`, with the one that is needed. Where it has to be found out first, that is waited for
    /// until `limit`; it goes on after that for those who come later.
    pub(super) async fn endpoints(
        &self,
        connector: &Connector,
        need: Need,
        limit: Duration,
    ) -> Result<Endpoints, DiscoveryError> {
        let Some(server) = self.server(connector) else {
            return Endpoints::of(connector, None);
        };
        if let Some(found) = server.current(&*self.clock) {
            return Endpoints::of(connector, Some(&found.metadata));
        }
        if let Some(found) = server.found(&*self.clock, USABLE) {
            if !found.doubted.load(Ordering::Relaxed) {
                self.ask_beside(&server);
                return Endpoints::of(connector, Some(&found.metadata));
            }
            // What is doubted is better than nothing.
            let again = tokio::time::timeout(limit, self.ask(&server)).await;
            let found = again.ok().and_then(Result::ok).unwrap_or(found);
            return Endpoints::of(connector, Some(&found.metadata));
        }
        if !needs_metadata(connector, need) {
            self.ask_beside(&server);
            return Endpoints::of(connector, None);
        }
        let found = tokio::time::timeout(limit, self.ask(&server)).await;
        let found = found.map_err(|_| DiscoveryError::Slow(limit))??;
        Endpoints::of(connector, Some(&found.metadata))
    }

    /// An endpoint that was found for `connector` cannot be reached or answers as none does: the server may
    /// have moved it. What was found just now is not doubted, so that nobody asks more often than every [`REST`].
    pub(super) fn doubt(&self, connector: &Connector) {
        let found = self.server(connector).and_then(|server| server.found.load_full());
        let Some(found) = found else {
            return;
        };
        let age = self.clock.monotonic().saturating_sub(found.since);
        if age >= REST && !found.doubted.swap(true, Ordering::Relaxed) {
            let (connector, place) = (connector.name.as_str(), &found.place);
            tracing::warn!(
                connector,
                place,
                "a discovered endpoint may have moved: it is looked up again"
            );
        }
    }

    pub(super) fn known(&self, connector: &Connector) -> Discovered {
        let Some(server) = self.server(connector) else {
            return Discovered::default();
        };
        let found = server.found(&*self.clock, USABLE);
        let failed = server.failed.load_full();
        Discovered {
            metadata: found.as_ref().map(|found| Arc::clone(&found.metadata)),
            at: found.as_ref().map(|found| found.at),
            place: found
                .as_ref()
                .map(|found| found.place.clone())
                .unwrap_or_default(),
            oddities: found.map(|found| found.oddities.clone()).unwrap_or_default(),
            error: failed.as_ref().map(|failed| failed.error.clone()),
            failed_at: failed.map(|failed| failed.at),
        }
    }

    pub(super) fn prepare(&self, connector: &Connector) {
        if let Some(server) = self.server(connector) {
            self.ask_beside(&server);
        }
    }

    /// `None`: nothing is left to a server.
    fn server(&self, connector: &Connector) -> Option<Arc<Server>> {
        let issuer = connector.issuer.clone()?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Server {
                connector: connector.clone(),
                found: ArcSwapOption::empty(),
                failed: ArcSwapOption::empty(),
                flight: Arc::default(),
            })
        };
        let key = (connector.name.to_string(), issuer);
        Some(Arc::clone(servers.entry(key).or_insert_with(new)))
    }

    /// Asks, unless somebody does already or it is too soon; nobody waits for it.
    fn ask_beside(&self, server: &Arc<Server>) {
        if server.rests(&*self.clock).is_none()
            && let Ok(flight) = Arc::clone(&server.flight).try_lock_owned()
        {
            self.fetch(server, flight);
        }
    }

    /// What the server says of itself, found out by whoever comes first.
    async fn ask(&self, server: &Arc<Server>) -> Result<Arc<Found>, DiscoveryError> {
        let flight = Arc::clone(&server.flight).lock_owned().await;
        if let Some(found) = server.current(&*self.clock) {
            return Ok(found);
        }
        if let Some(failed) = server.rests(&*self.clock) {
            return Err(failed.error.clone());
        }
        // A caller that goes away must not leave it half done and the rest after it begun.
        let fetching = self.fetch(server, flight);
        fetching.await.unwrap_or(Err(DiscoveryError::Unknown))
    }

    fn fetch(
        &self,
        server: &Arc<Server>,
        flight: OwnedMutexGuard<()>,
    ) -> tokio::task::JoinHandle<Result<Arc<Found>, DiscoveryError>> {
        let (server, client, clock) = (Arc::clone(server), self.client.clone(), Arc::clone(&self.clock));
        tokio::spawn(async move {
            let asked = tokio::time::timeout(TIMEOUT, fetch(&client, &server.connector)).await;
            let asked = asked.unwrap_or(Err(DiscoveryError::Slow(TIMEOUT)));
            let (since, at) = (clock.monotonic(), clock.wall());
            let connector = server.connector.name.as_str();
            let outcome = match asked {
                Ok((place, metadata, oddities)) => {
                    let before = server.found.load_full();
                    if before.is_none_or(|before| before.oddities != oddities) {
                        for oddity in &oddities {
                            tracing::warn!(connector, %oddity, "a connector and its server contradict each other");
                        }
                    }
                    let found = Arc::new(Found {
                        metadata: Arc::new(metadata),
                        oddities,
                        place,
                        since,
                        at,
                        doubted: AtomicBool::new(false),
                    });
                    server.found.store(Some(Arc::clone(&found)));
                    server.failed.store(None);
                    Ok(found)
                }
                Err(error) => {
                    tracing::warn!(connector, %error, "the endpoints of a connector cannot be discovered");
                    let failed = Failed {
                        error: error.clone(),
                        since,
                        at,
                    };
                    server.failed.store(Some(Arc::new(failed)));
                    // Nobody waits in vain for that again before the endpoint has failed once more.
                    if let Some(found) = server.found.load_full() {
                        found.doubted.store(false, Ordering::Relaxed);
                    }
                    Err(error)
                }
            };
            drop(flight);
            outcome
        })
    }
}

impl Server {
    /// What was found, if nobody has to ask again.
    fn current(&self, clock: &dyn Clock) -> Option<Arc<Found>> {
        let found = self.found(clock, FRESH);
        found.filter(|found| !found.doubted.load(Ordering::Relaxed))
    }

    /// What was found, if it is no older than `most`.
    fn found(&self, clock: &dyn Clock, most: Duration) -> Option<Arc<Found>> {
        let found = self.found.load_full();
        found.filter(|found| clock.monotonic().saturating_sub(found.since) < most)
    }

    /// The last failure, if it is too soon to ask again.
    fn rests(&self, clock: &dyn Clock) -> Option<Arc<Failed>> {
        let failed = self.failed.load_full();
        failed.filter(|failed| clock.monotonic().saturating_sub(failed.since) < REST)
    }
}

/// Whether a request cannot be made without knowing what the server says of itself.
fn needs_metadata(connector: &Connector, need: Need) -> bool {
    need.is_open(connector)
        || Need::Token.is_open(connector)
        || (connector.client_auth.is_none() && connector.client_secret.is_some())
}

/// Where the metadata is: with the path inserted between the issuer's host and path (RFC 8414 section 3.1), and
/// where OpenID Connect Discovery has it (version 1.0 section 4.1), which many servers know alone.
fn places(issuer: &str) -> [String; 2] {
    let whole = issuer.trim_end_matches('/');
    let origin = Url::parse(issuer).map(|url| url.origin().ascii_serialization());
    let origin = origin.unwrap_or_default();
    let after_scheme = whole.find("://").map_or(0, |at| at + 3);
    let path = whole
        .get(after_scheme..)
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    [
        format!(
            "{origin}/.well-known/oauth-authorization-server{}",
            path.unwrap_or_default()
        ),
        format!("{whole}/.well-known/openid-configuration"),
    ]
}

async fn fetch(
    client: &Client,
    connector: &Connector,
) -> Result<(String, Metadata, Vec<Oddity>), DiscoveryError> {
    let [place, fallback] = places(connector.issuer.as_deref().unwrap_or_default());
    let document = web::document::<Document>(client, &place, MAX_DOCUMENT).await;
    let (place, document) = match document {
        Ok(document) => (place, document),
        // There is something, and not this document: a page of an application, or an error for what it does not know.
        Err(first @ (DocumentError::Status { status: ..500, .. } | DocumentError::Form { .. })) => {
            let second = web::document::<Document>(client, &fallback, MAX_DOCUMENT).await;
            let document = second.map_err(|second| DiscoveryError::Document {
                first: Arc::new(first),
                second: Some(Arc::new(second)),
            })?;
            (fallback, document)
        }
        Err(first) => {
            return Err(DiscoveryError::Document {
                first: Arc::new(first),
                second: None,
            });
        }
    };
    let (metadata, oddities) = Metadata::take(document, connector, &place)?;
    Ok((place, metadata, oddities))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
