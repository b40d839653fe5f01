//! Whether a model server on somebody's machine answers.
//!
//! The broker asks only servers that its operator has listed, and sends them the same request whoever wants to know:
//! nothing of what a caller says becomes part of it. No credential is sent, no redirect followed, no proxy used, and
//! nothing of the answer but its status is read. A server is asked at most once at a time and once in
//! [`REMEMBERED`], so that no number of callers makes a scanner or a hammer of the broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::Mutex;

use super::base_url::{BadBaseUrl, checked_base_url, parse};
use super::web;
use crate::clock::Clock;

/// How long a server may take to answer, all told.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer is good for.
pub const REMEMBERED: Duration = Duration::from_secs(5);
/// The list of models, which every OpenAI-compatible server has (OpenAI API reference, "List models"). Any other
/// answer also tells that there is a server.
const PATH: &str = "/v1/models";

/// Why there is no [`Prober`].
#[derive(Debug, thiserror::Error)]
pub enum ProberSetupError {
    /// An entry of the list.
    #[error("local.probe_endpoints: {endpoint:?} {fault}")]
    Endpoint {
        /// The entry.
        endpoint: String,
        /// What is wrong with it, and the remedy.
        fault: BadBaseUrl,
    },
    /// Mostly: no CA bundle on the system.
    #[error(
        "the client for local.probe_endpoints cannot be set up: {0}; install the system's CA certificates (package \
         ca-certificates), or point SSL_CERT_FILE to a bundle"
    )]
    Client(reqwest::Error),
}

/// Asks the listed servers.
pub struct Prober {
    /// By origin: scheme, host and port.
    listed: BTreeMap<String, Arc<Listed>>,
}

struct Listed {
    url: Url,
    client: Client,
    clock: Arc<dyn Clock>,
    /// What came out last, and when, on the clock that only goes forward. Locked while the server is asked.
    last: Arc<Mutex<Option<(Duration, bool)>>>,
}

impl Prober {
    /// A prober of these base URLs and no others.
    pub fn new(endpoints: &[String], clock: Arc<dyn Clock>) -> Result<Self, ProberSetupError> {
        let mut listed = BTreeMap::new();
        if endpoints.is_empty() {
            return Ok(Self { listed });
        }
        let client = client().map_err(ProberSetupError::Client)?;
        for endpoint in endpoints {
            let url = probed(endpoint).map_err(|fault| ProberSetupError::Endpoint {
                endpoint: endpoint.clone(),
                fault,
            })?;
            let one = Listed {
                client: client.clone(),
                clock: Arc::clone(&clock),
                last: Arc::default(),
                url,
            };
            listed.insert(one.url.origin().ascii_serialization(), Arc::new(one));
        }
        Ok(Self { listed })
    }

    /// Whether the server at the origin of `base_url` answers, now or up to [`REMEMBERED`] ago. `None`: it is not
    /// listed, nothing was sent, and the broker cannot tell.
    pub async fn reachable(&self, base_url: &str) -> Option<bool> {
        let origin = parse(base_url).ok()?.origin().ascii_serialization();
        let listed = Arc::clone(self.listed.get(&origin)?);
        let mut last = Arc::clone(&listed.last).lock_owned().await;
        let fresh = |asked: &Duration| listed.clock.monotonic().saturating_sub(*asked) < REMEMBERED;
        if let Some((_, answered)) = last.filter(|(asked, _)| fresh(asked)) {
            return Some(answered);
        }
        // A task of its own keeps the lock to the end: a caller that goes away makes no room for another request.
        let asking = tokio::spawn(async move {
            let answered = listed.ask().await;
            *last = Some((listed.clock.monotonic(), answered));
            answered
        });
        Some(asking.await.unwrap_or(false))
    }
}

impl Listed {
    async fn ask(&self) -> bool {
        let answer = self.client.get(self.url.clone()).send().await;
        // Dropped with its body unread.
        answer.is_ok_and(|answer| answer.status().as_u16() < 500)
    }
}

/// What is asked for at `endpoint`.
fn probed(endpoint: &str) -> Result<Url, BadBaseUrl> {
    let base = checked_base_url(endpoint)?;
    Url::parse(&format!("{base}{PATH}")).map_err(|_| BadBaseUrl::NotAUrl)
}

fn client() -> Result<Client, reqwest::Error> {
    web::builder()
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT)
        .build()
}
