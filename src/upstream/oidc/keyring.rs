//! The keys of one issuer as they are remembered: fetched when needed, again for a key that is not known, and
//! never so often that a flood of made-up tokens becomes a flood at the issuer.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::error::{IdTokenError, TokenFault};
use super::fetch;
use super::jws::Jws;
use super::keys::KeySet;
use crate::clock::Clock;

/// So long keys are used without asking again. A key that the issuer takes back is good for no longer.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// So long they are used while the issuer does not answer.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// So long after a fetch the next one waits, whatever came of it.
const REST: Duration = Duration::from_secs(10);

pub(super) struct Keyring {
    issuer: String,
    client: Client,
    clock: Arc<dyn Clock>,
    current: ArcSwapOption<Fetched>,
    /// When the last fetch ended; locked while one is under way.
    flight: Arc<Mutex<Option<Duration>>>,
}

struct Fetched {
    keys: KeySet,
    at: Duration,
}

/// What came of asking for a fetch.
enum Asked {
    /// The keys are what the issuer publishes now.
    Done,
    /// They are not, and are asked for again after this time.
    Not(Duration),
}

impl Keyring {
    pub(super) fn new(issuer: String, client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            issuer,
            client,
            clock,
            current: ArcSwapOption::empty(),
            flight: Arc::default(),
        }
    }

    /// Checks the signature, with keys fetched for it where that is needed and allowed.
    pub(super) async fn verify(self: &Arc<Self>, jws: &Jws<'_>) -> Result<(), IdTokenError> {
        let known = self.known(jws, FRESH);
        if let Some(fetched) = known {
            return Ok(fetched.keys.verify(jws)?);
        }
        let stale = self.known(jws, USABLE);
        let flight = Arc::clone(&self.flight);
        let asked = match stale {
            // Whoever is fetching already will bring the news; nobody else waits for it.
            Some(_) => match flight.try_lock_owned() {
                Ok(flight) => self.ask(flight).await,
                Err(_) => Asked::Not(REST),
            },
            None => self.ask(flight.lock_owned().await).await,
        };
        match (self.known(jws, USABLE), asked) {
            (Some(fetched), _) => Ok(fetched.keys.verify(jws)?),
            (None, Asked::Done) => Err(TokenFault::Key.into()),
            (None, Asked::Not(retry_after)) => Err(IdTokenError::Unavailable {
                issuer: self.issuer.clone(),
                retry_after,
            }),
        }
    }

    /// The remembered keys, if one may have signed it and they are no older than `most`.
    fn known(&self, jws: &Jws<'_>, most: Duration) -> Option<Arc<Fetched>> {
        let age = |fetched: &Fetched| self.clock.monotonic().saturating_sub(fetched.at);
        let current = self.current.load_full();
        current.filter(|fetched| age(fetched) < most && fetched.keys.has_key_for(jws))
    }

    /// Fetches the keys, unless that was just done. The fetch is a task of its own: a caller that goes away
    /// must not leave it half done and the rest after it begun.
    async fn ask(self: &Arc<Self>, mut flight: OwnedMutexGuard<Option<Duration>>) -> Asked {
        if let Some(ended) = *flight {
            let rest = (ended + REST).saturating_sub(self.clock.monotonic());
            if !rest.is_zero() {
                return Asked::Not(rest);
            }
        }
        let this = Arc::clone(self);
        let fetching = tokio::spawn(async move {
            let fetched = fetch::keys(&this.client, &this.issuer).await;
            let now = this.clock.monotonic();
            *flight = Some(now);
            match fetched {
                Ok(keys) => {
                    this.current.store(Some(Arc::new(Fetched { keys, at: now })));
                    Asked::Done
                }
                Err(error) => {
                    tracing::warn!(issuer = this.issuer, %error, "the keys of an issuer cannot be fetched");
                    Asked::Not(REST)
                }
            }
        });
        fetching.await.unwrap_or(Asked::Not(REST))
    }
}
