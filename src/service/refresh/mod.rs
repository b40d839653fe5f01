//! The refresh engine: a grant is refreshed once however many callers ask.
//!
//! Callers come to [`Refresher::fresh`] with what they need. If the stored secret meets it, they get it.
//! Otherwise they join the credential's flight: one task of its own that asks
//! [`Rotation`](crate::domain::rotation::Rotation) what to do and does it. A caller that goes away takes
//! nothing with it.

mod adopt;
mod ahead;
mod breaker;
#[cfg(feature = "testing")]
mod bypass;
mod exchange;
mod flights;
mod forced;
mod jitter;
mod leave;
mod places;
mod planted;
mod recover;
mod settle;
mod told;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use super::Settings;
use super::revocations::Revoker;
use super::watch::Hub;
use crate::clock::Clock;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::pace::breaker::Standing;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Fence, Incarnation, Phase, Rotation};
use crate::domain::time::Time;
use crate::domain::watch::Notice;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::store::keys;
use crate::store::model::CredentialSecret;
use crate::store::record::{Records, Stored};
use crate::upstream::TokenEndpoint;
use crate::upstream::connector::load::Connectors;
pub(super) use adopt::bounded_account;
use ahead::Schedule;
use breaker::Breakers;
use exchange::Why;
use flights::{Flights, Landed, Landing};
pub use jitter::{Jitter, system_jitter};
use places::Places;
pub use planted::Planted;
pub(super) use told::stopped;

/// What the engine is made of.
pub(super) struct Parts {
    pub records: Arc<Records>,
    pub journal: Journal,
    pub clock: Arc<dyn Clock>,
    pub connectors: Arc<Connectors>,
    pub endpoint: Arc<dyn TokenEndpoint>,
    pub settings: Arc<ArcSwap<Settings>>,
    pub incarnation: Incarnation,
    pub hub: Arc<Hub>,
    pub metrics: Arc<Metrics>,
    pub jitter: Jitter,
    pub revoker: Arc<Revoker>,
}

/// The engine.
pub struct Refresher {
    parts: Parts,
    flights: Flights,
    places: Places,
    breakers: Arc<Breakers>,
    ahead: Schedule,
    tasks: TaskTracker,
    #[cfg(feature = "testing")]
    planted: planted::Plot,
    #[cfg(feature = "testing")]
    bypass: std::sync::atomic::AtomicBool,
}

/// What a caller needs of a credential.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// How long it has to work.
    pub remaining: Duration,
    /// The generation that the provider rejected: only a newer one will do.
    pub newer_than: Option<u64>,
}

/// A credential and its secret, of one generation.
pub(super) struct Fresh {
    pub credential: Arc<Credential>,
    pub secret: Arc<CredentialSecret>,
    /// Whether an exchange was waited for.
    pub exchanged: bool,
}

/// A credential as stored, with its secret of the same generation.
pub(super) struct Held {
    pub credential: Stored<Credential>,
    pub secret: Stored<CredentialSecret>,
    /// Whether an exchange brought it, no longer ago than a tenth of its life.
    newly_issued: bool,
}

/// How often a caller goes round: an answer that is stale for its need sends it once more.
const ROUNDS: usize = 3;
/// How often the two records are read again until they are of one generation.
const READS: usize = 16;

impl Need {
    fn rejects(&self, held: &Held) -> bool {
        self.newer_than
            .is_some_and(|rejected| held.credential.value.rotation.generation <= rejected)
    }

    /// Whether what is held may be handed out at all, were there life enough in it.
    fn allows(&self, held: &Held, rules: Rules) -> bool {
        rules.is_alive(&held.credential.value.rotation.phase)
            && held.secret.value.access.is_some()
            && !self.rejects(held)
    }

    /// Whether what is held serves without looking further.
    fn met_by(&self, held: &Held, now: Time, rules: Rules) -> bool {
        let credential = &held.credential.value;
        self.allows(held, rules) && credential.works_for(now, self.life(held, rules.lead))
    }

    /// Whether what is held still serves where nothing better can be had now.
    fn bearable(&self, held: &Held, now: Time, rules: Rules) -> bool {
        self.allows(held, rules) && held.credential.value.works_for(now, self.remaining)
    }

    /// How much life to ask of the token. One that an exchange brought is good enough for the first tenth of
    /// its life, whatever is asked: who asks for more than tokens ever have must not wear the grant out. One that
    /// somebody brought may be the remainder of a longer life, so that the provider has more to give.
    fn life(&self, held: &Held, lead: Duration) -> Duration {
        let asked = self.remaining.max(lead);
        match most(&held.credential.value) {
            Some(most) if held.newly_issued => asked.min(most),
            _ => asked,
        }
    }
}

/// How much of a token's life is left after its first tenth.
fn most(credential: &Credential) -> Option<Duration> {
    let expires = credential.expires?;
    Some(expires.since(credential.refreshed) / 10 * 9)
}

/// What the connector says of its access tokens.
#[derive(Clone, Copy, Default)]
pub(super) struct Rules {
    /// How long before its expiry a token is to be refreshed.
    lead: Duration,
    /// Whether an old token lives on when a newer one is issued.
    survives: bool,
}

impl Rules {
    /// Whether the access token of a grant that stands there is still good, as far as is known.
    const fn is_alive(self, phase: &Phase) -> bool {
        match phase {
            Phase::Live { .. } => true,
            // The provider may have rotated the grant; whether the access token lived through that is the
            // connector's to say.
            Phase::Claimed { .. } | Phase::Staged { .. } | Phase::Ambiguous { .. } => self.survives,
            Phase::Quarantined { .. } | Phase::Dead { .. } => false,
        }
    }

    /// Whether what was chosen is good to the last: nothing newer took its place, and no exchange, nor the provider's
    /// refusal, may have ended its token meanwhile.
    const fn still_good(self, chosen: &Rotation, now: &Rotation) -> bool {
        chosen.generation == now.generation && self.is_alive(&now.phase)
    }
}

impl Refresher {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let settings = parts.settings.load_full();
        let (all, each) = (settings.max_exchanges, settings.max_exchanges_per_connector);
        let breakers = Breakers::new(
            Arc::clone(&parts.clock),
            Arc::clone(&parts.jitter),
            Arc::clone(&parts.metrics),
        );
        for connector in parts
            .connectors
            .iter()
            .filter(|connector| connector.usable().is_ok())
        {
            parts.metrics.breaker(&connector.name, Standing::Closed);
        }
        Arc::new(Self {
            flights: Flights::new(settings.max_waiters),
            places: Places::new(all, each, Arc::clone(&parts.metrics)),
            breakers,
            ahead: Schedule::new(),
            tasks: TaskTracker::new(),
            #[cfg(feature = "testing")]
            planted: planted::Plot::default(),
            #[cfg(feature = "testing")]
            bypass: false.into(),
            parts,
        })
    }

    fn now(&self) -> Time {
        self.parts.clock.wall()
    }

    pub(super) fn records(&self) -> &Records {
        &self.parts.records
    }

    /// Tells those who watch what a commit changed.
    fn tell(&self, before: &Credential, after: &Credential) {
        for notice in Notice::credential(Some(before), after) {
            self.parts.hub.publish(notice, self.now());
        }
    }

    /// The credential with a secret that meets `need`, refreshed first where it does not; to be handed out.
    pub(super) async fn fresh(
        self: &Arc<Self>,
        org: OrgId,
        id: CredentialId,
        need: Need,
    ) -> Result<Fresh, Refusal> {
        let fresh = self.renewed(org, id, need).await?;
        self.in_use(&fresh.credential);
        Ok(fresh)
    }

    /// As [`Refresher::fresh`], where nobody is going to use it.
    pub(super) async fn renewed(
        self: &Arc<Self>,
        org: OrgId,
        id: CredentialId,
        need: Need,
    ) -> Result<Fresh, Refusal> {
        let need = self.forgiving(need);
        let mut exchanged = false;
        for _ in 0..ROUNDS {
            let held = self.held(org, id).await?;
            let credential = &held.credential.value;
            let rules = self.rules(credential);
            if credential.kind.is_key() {
                lasting(credential, self.now(), need)?;
                return Ok(fresh(held, exchanged));
            }
            if need.met_by(&held, self.now(), rules) {
                return Ok(fresh(held, exchanged));
            }
            // A token that was made just now and is still too short-lived is as good as this provider gets.
            if exchanged && need.allows(&held, rules) {
                return Ok(fresh(held, exchanged));
            }
            #[cfg(feature = "testing")]
            if self.bypass.load(std::sync::atomic::Ordering::Relaxed) {
                self.exchange_unserialized(&held).await?;
                exchanged = true;
                continue;
            }
            match self.join(org, id, need, Why::Asked).await {
                Landing::Renewed if self.is_behind(&held) => return Ok(fresh(held, true)),
                Landing::Renewed => exchanged = true,
                Landing::Current => {}
                Landing::Refused(refusal) => {
                    let held = self.held(org, id).await?;
                    if need.bearable(&held, self.now(), rules) {
                        return Ok(fresh(held, exchanged));
                    }
                    if outdated(&refusal, &held.credential.value) {
                        continue;
                    }
                    return Err(Arc::unwrap_or_clone(refusal));
                }
            }
        }
        Err(Refusal::new(
            Reason::RefreshUnavailable,
            "no newer token could be had",
        ))
    }

    /// Whether what was chosen of a credential may still be handed out, seen how it stands `now`.
    pub(super) fn still_good(&self, chosen: &Credential, now: &Credential) -> bool {
        self.planted(Planted::StaleWaiter) || self.rules(now).still_good(&chosen.rotation, &now.rotation)
    }

    fn rules(&self, credential: &Credential) -> Rules {
        let connector = self.parts.connectors.get(&credential.connector);
        connector.map_or_else(Rules::default, |connector| Rules {
            lead: connector.lead,
            survives: connector.old_access_survives,
        })
    }

    /// The credential and its secret, of one generation: the two records are read one after the other, and a
    /// rotation may come in between.
    async fn held(&self, org: OrgId, id: CredentialId) -> Result<Held, Refusal> {
        let missing = || Refusal::not_found("credential");
        for _ in 0..READS {
            let (at, secret_at) = (keys::credential(org, id), keys::credential_secret(org, id));
            let credential: Stored<Credential> = self.parts.records.get(&at).await?.ok_or_else(missing)?;
            let secret: Stored<CredentialSecret> =
                self.parts.records.get(&secret_at).await?.ok_or_else(missing)?;
            if secret.value.generation == credential.value.rotation.generation {
                let newly_issued = self.newly_issued(&credential.value).await?;
                return Ok(Held {
                    credential,
                    secret,
                    newly_issued,
                });
            }
            tokio::task::yield_now().await;
        }
        tracing::error!(credential = %id, "a credential and its secret differ in generation");
        Err(Refusal::new(
            Reason::CredentialUnusable,
            "the credential's secret is of another generation",
        ))
    }

    /// Whether an exchange brought the present token, no longer ago than a tenth of its life. Its lineage is read for
    /// that only where the answer can be yes.
    async fn newly_issued(&self, credential: &Credential) -> Result<bool, Refusal> {
        let early = most(credential).is_some_and(|most| credential.works_for(self.now(), most));
        if !early || credential.rotation.fence == Fence(0) {
            return Ok(false);
        }
        let lineage = self.lineage(credential).await?;
        Ok(!lineage.was_brought(credential.rotation.generation))
    }

    async fn join(self: &Arc<Self>, org: OrgId, id: CredentialId, need: Need, why: Why) -> Landing {
        let tied = planted::Tied::default();
        let start = || {
            let refresher = Arc::clone(self);
            let flight = self.tasks.spawn(async move {
                // Out of the map before the result is told: who comes now starts by reading the new state.
                // However the flight ends, by a panic too: nobody must be given that end for good.
                let landed = Landed(&refresher.flights, id);
                let _landed = refresher.until_landed(landed);
                refresher.fly(org, id, need, why).await
            });
            self.tie(&tied, &flight);
            async move {
                flight.await.unwrap_or_else(|error| {
                    tracing::error!(%error, "a refresh ended abnormally");
                    Landing::refused(Refusal::new(Reason::Internal, "the refresh ended abnormally"))
                })
            }
        };
        match self.flights.join(id, self.tasks.is_closed(), start) {
            Ok(flight) => flight.await,
            Err(refusal) => Landing::refused(refusal),
        }
    }

    /// How many credentials are to be refreshed ahead of need.
    pub(super) fn scheduled_ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Takes no new exchanges and waits for those under way. Their answers are staged and adopted.
    pub async fn drain(&self) {
        self.tasks.close();
        // Who waits for a place is told to come again: nothing was sent for it yet.
        self.places.close();
        self.tasks.wait().await;
    }

    /// Lets every caller refresh for itself, as if there were no broker. Shows in tests that they bite.
    #[cfg(feature = "testing")]
    pub fn bypass_single_flight(&self) {
        self.bypass.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Nothing makes a key last longer than it does.
fn lasting(key: &Credential, now: Time, need: Need) -> Result<(), Refusal> {
    if key.works_for(now, need.remaining) {
        return Ok(());
    }
    let message = if key.works_for(now, Duration::ZERO) {
        "the stored key does not last as long as was asked for"
    } else {
        "the stored key has expired"
    };
    Err(Refusal::new(Reason::KeyExpired, message)
        .with("credential", key.id.to_string())
        .with("provider", &key.provider))
}

/// Whether a flight was refused for what the grant is no longer: it ends a while after it has told the store, and
/// somebody may have signed in again before that.
fn outdated(refusal: &Refusal, credential: &Credential) -> bool {
    let of_the_grant = matches!(refusal.reason, Reason::ReauthRequired | Reason::RefreshAmbiguous);
    of_the_grant && credential.rotation.phase == Phase::rested()
}

fn fresh(held: Held, exchanged: bool) -> Fresh {
    Fresh {
        credential: held.credential.value,
        secret: held.secret.value,
        exchanged,
    }
}

#[cfg(test)]
mod tests;
