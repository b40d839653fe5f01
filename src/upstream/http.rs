//! [`TokenEndpoint`] over HTTP, and what else is asked of an authorization server. The heart of it is to tell [`Delivery::NotSent`] from [`Delivery::Lost`]
//! right: a refresh token that was not sent may be sent again, one that may have been used must not be.
//!
//! Each exchange has a connection of its own. On a reused one, an error can mean either that the server had
//! closed it before the request came or that it closed it after; on a fresh one, failing to connect (name
//! resolution, TCP, proxy, TLS) is certain to come before the first byte of the request. Only that is
//! `NotSent`. Any other failure, a time-out included, is `Lost`, even where it might have been harmless.

mod client_secret;
mod flows;
mod message;
mod request;
pub(super) mod retry_after;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Response, Url};
use zeroize::Zeroizing;

use super::connector::{ClientAuth, Connector};
use super::discovery::{self, Discovered, Discovery, DiscoveryError, Endpoints, Need};
use super::{Delivery, MAX_ANSWER, RefreshRequest, TokenEndpoint, web};
use crate::clock::Clock;
use crate::domain::secret::Secret;
use message::{Message, Place};
use request::BuildError;

/// How to reach token endpoints.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The longest wait for a connection: name resolution, TCP and TLS.
    pub connect_timeout: Duration,
    /// The longest wait for the whole answer once connected.
    pub answer_timeout: Duration,
    /// A proxy for every request; `None` connects directly, whatever the environment says.
    pub proxy: Option<Url>,
    /// More CA certificates to trust, PEM, besides the system's.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            proxy: None,
            extra_roots: Vec::new(),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    /// A certificate of the configuration.
    #[error("extra CA certificate {index} is no PEM certificate: {source}; mend or remove it")]
    ExtraRoot {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// The proxy of the configuration.
    #[error("the proxy for token endpoints cannot be used: {0}; mend or remove it")]
    Proxy(reqwest::Error),
    /// Mostly: no CA bundle on the system.
    #[error(
        "the HTTPS client cannot be set up: {0}; install the system's CA certificates (package \
         ca-certificates), or point SSL_CERT_FILE to a bundle"
    )]
    Client(reqwest::Error),
}

/// How long after its connect time-out a request is given up at the earliest.
const AFTER_CONNECTING: Duration = Duration::from_secs(1);

/// Token endpoints over HTTP.
pub struct HttpTokenEndpoint {
    client: Client,
    clock: Arc<dyn Clock>,
    discovery: Discovery,
    /// Of a whole exchange, discovery included. Longer than the connect time-out, so that a time-out while connecting
    /// is always told by the connector, as certain.
    total: Duration,
    /// Of connecting, and a little more.
    connecting: Duration,
    /// How much of that may go by in waiting for discovery: what is left is still longer than the connect time-out.
    discovering: Duration,
}

impl HttpTokenEndpoint {
    /// A client with these options. `clock` reads `Retry-After` dates.
    pub fn new(options: &HttpOptions, clock: Arc<dyn Clock>) -> Result<Self, HttpSetupError> {
        let mut builder = web::builder()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(options.connect_timeout);
        if let Some(url) = &options.proxy {
            builder = builder.proxy(reqwest::Proxy::all(url.clone()).map_err(HttpSetupError::Proxy)?);
        }
        let mut roots = Vec::new();
        for (index, pem) in options.extra_roots.iter().enumerate() {
            roots.extend(
                reqwest::Certificate::from_pem_bundle(pem)
                    .map_err(|source| HttpSetupError::ExtraRoot { index, source })?,
            );
        }
        let client = builder
            .tls_certs_merge(roots)
            .build()
            .map_err(HttpSetupError::Client)?;
        Ok(Self {
            discovery: Discovery::new(client.clone(), Arc::clone(&clock)),
            client,
            clock,
            total: options.connect_timeout + options.answer_timeout,
            connecting: options.connect_timeout + AFTER_CONNECTING,
            discovering: discovery::TIMEOUT.min(options.answer_timeout / 2),
        })
    }
}

#[async_trait]
impl TokenEndpoint for HttpTokenEndpoint {
    async fn ready(&self, connector: &Connector) -> Result<(), String> {
        let found = self.endpoints(connector, Need::Token).await;
        found.map(drop).map_err(|error| error.to_string())
    }

    async fn refresh(&self, request: RefreshRequest<'_>) -> Delivery {
        let message = message::refresh(&request);
        self.send(request.connector, message, request.answer_within).await
    }

    fn discovered(&self, connector: &Connector) -> Discovered {
        self.discovery.known(connector)
    }

    fn prepare(&self, connector: &Connector) {
        if connector.usable().is_ok() {
            self.discovery.prepare(connector);
            tokio::spawn(look_for_secret(connector.clone()));
        }
    }
}

/// Whether there seems to be no such endpoint where the request went: nothing, a redirect, or a server without such a
/// page.
fn is_elsewhere(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::NotSent(_) => true,
        Delivery::Answered { status, .. } => matches!(status, 300..=399 | 404 | 405 | 410),
        Delivery::Lost(_) => false,
    }
}

/// Warns where the client secret cannot be read. It may be there by the time it is needed, so that is no fault yet.
async fn look_for_secret(connector: Connector) {
    if let Err(fault) = client_secret::read(&connector).await {
        tracing::warn!(
            file = connector.file,
            key = format!("connectors.{}.client_secret", connector.name),
            %fault,
            "nothing can be refreshed with this connector"
        );
    }
}

impl HttpTokenEndpoint {
    async fn endpoints(&self, connector: &Connector, need: Need) -> Result<Endpoints, DiscoveryError> {
        self.discovery.endpoints(connector, need, self.discovering).await
    }

    /// Sends `message` once and reads the answer, which is waited for as long as the endpoint waits, or `answer_within`
    /// where that is less.
    async fn send(
        &self,
        connector: &Connector,
        message: Result<Message<'_>, BuildError>,
        answer_within: Option<Duration>,
    ) -> Delivery {
        let name = connector.name.as_str();
        if let Err(off) = connector.usable() {
            return Delivery::NotSent(format!("connector {name}: {off}"));
        }
        let message = match message {
            Ok(message) => message,
            Err(e) => return Delivery::NotSent(e.told(name)),
        };
        let began = self.clock.monotonic();
        let (url, auth) = match message.place {
            // Whoever answers there does not ask who the client is.
            Place::Configured(url) => (url.clone(), ClientAuth::None),
            Place::Endpoint(need) => match self.endpoints(connector, need).await {
                Err(e) => return Delivery::NotSent(format!("connector {name}: {e}")),
                Ok(endpoints) => match endpoints.get(need) {
                    Some(url) => (url.clone(), endpoints.client_auth),
                    None => {
                        return Delivery::NotSent(format!(
                            "connector {name}: its server has no {}",
                            need.named()
                        ));
                    }
                },
            },
        };
        let built = request::build(&self.client, connector, auth, url, &message).await;
        let built = match built {
            Ok(built) => built,
            Err(e) => return Delivery::NotSent(e.told(name)),
        };
        let exchange = async {
            match self.client.execute(built).await {
                Ok(response) => self.read(response).await,
                Err(e) if e.is_connect() || e.is_builder() => Delivery::NotSent(web::describe(e)),
                Err(e) => Delivery::Lost(web::describe(e)),
            }
        };
        let spent = self.clock.monotonic().saturating_sub(began);
        let left = self.total - spent.min(self.discovering);
        // Never before the connector has had its say: a connection that does not come about is certain not to have
        // been sent anything.
        let left = answer_within.map_or(left, |within| left.min(within.max(self.connecting)));
        let delivery = match tokio::time::timeout(left, exchange).await {
            Ok(delivery) => delivery,
            Err(_) => Delivery::Lost(format!("no whole answer within {:.0}s", left.as_secs_f64())),
        };
        if matches!(message.place, Place::Endpoint(need) if need.is_open(connector))
            && is_elsewhere(&delivery)
        {
            self.discovery.doubt(connector);
        }
        delivery
    }

    async fn read(&self, mut response: Response) -> Delivery {
        let status = response.status().as_u16();
        let retry_after = retry_after::parse(response.headers(), self.clock.wall());
        // As large as it may get, so that growing leaves no copies of secrets behind.
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_ANSWER => {
                    return Delivery::Lost(format!(
                        "status {status}, and an answer of over {MAX_ANSWER} bytes"
                    ));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(e) => return Delivery::Lost(format!("status {status}, then {}", web::describe(e))),
            }
        }
        Delivery::Answered {
            status,
            retry_after,
            body: Secret::new(body.to_vec()),
        }
    }
}
