//! Refreshing before anybody has to wait for it: tokens that are in use, each at a time of its own.
//!
//! In use is a generation that was handed out, and that within the life of a lease: whoever works with it asks again by
//! then. A new generation is scheduled when somebody gets it, not when it is made, so that a grant which nobody uses any
//! more is refreshed ahead once at most, however short its tokens live. The [`Schedule`] is in memory and bounded;
//! nothing is scanned, and after a restart it fills again with use.
//!
//! A refresh ahead is a flight like any other: one for each credential, with the same claim and the same records, of
//! which the begin says that nobody had asked. It gives way: it begins only with a spare place, waits for none, and
//! leaves a provider alone that its breaker leaves alone. A caller that comes while one is under way shares it.

mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::schedule::Moment;
pub(super) use self::schedule::{Item, Schedule};
use super::exchange::Why;
use super::flights::Landing;
use super::places::Place;
use super::{Need, Refresher};
use crate::domain::credential::Credential;
use crate::domain::pace::ahead::{due, spread};
use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Phase;
use crate::domain::time::Time;

/// How often it is looked what is due, besides whenever a place became free.
const TICK: Duration = Duration::from_secs(1);
/// When to try again where nothing better is known.
const LATER: Duration = Duration::from_secs(30);

impl Refresher {
    /// Refreshes what is in use ahead of need, until `stopping`.
    pub async fn refresh_ahead(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.ahead.place_is_free() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            let settings = self.parts.settings.load();
            if settings.refresh_ahead.is_none() {
                self.ahead.clear();
                continue;
            }
            let moment = Moment {
                now: self.now(),
                monotonic: self.parts.clock.monotonic(),
                in_use: settings.lease_lifetime,
            };
            self.ahead
                .turn(&self.places, &self.breakers, moment, |item, place| {
                    let refresher = Arc::clone(&self);
                    // Waited for when the broker drains, as all flights are.
                    self.tasks.spawn(async move {
                        refresher.go_ahead(&item, place).await;
                        refresher.ahead.freed();
                    });
                });
        }
    }

    /// A credential was handed out.
    pub(super) fn in_use(&self, credential: &Credential) {
        if !credential.kind.is_key() && self.parts.settings.load().refresh_ahead.is_some() {
            let used = self.parts.clock.monotonic();
            self.ahead.used(credential, used, || self.due(credential));
        }
    }

    /// When the credential is to be refreshed ahead; `None`: never.
    fn due(&self, credential: &Credential) -> Option<Time> {
        let window = self.parts.settings.load().refresh_ahead?;
        let rules = self.rules(credential);
        let spread = spread(credential.id, credential.rotation.generation);
        match credential.rotation.phase {
            // What may be sent again at a need only is not sent ahead of one.
            Phase::Ambiguous { .. } | Phase::Quarantined { .. } | Phase::Dead { .. } => None,
            _ if credential.kind.is_key() => None,
            _ => due(
                credential.refreshed,
                credential.expires?,
                rules.lead,
                window,
                spread,
            ),
        }
    }

    /// Refreshes what is due. Whoever is handed the new generation schedules it.
    async fn go_ahead(self: &Arc<Self>, item: &Item, place: Place) {
        let Err(refusal) = self.renew_ahead(item, place).await else {
            return;
        };
        self.parts.metrics.refresh_ahead(refusal.reason.code());
        tracing::debug!(credential = %item.id, %refusal, "a refresh ahead of need came to nothing");
        let ambiguous = refusal.reason == Reason::RefreshAmbiguous;
        if !ambiguous && matches!(refusal.reason.class(), Class::Unavailable | Class::Exhausted) {
            let rest = refusal.retry_after.unwrap_or(LATER);
            self.ahead.later(item, self.now() + rest);
        }
    }

    async fn renew_ahead(self: &Arc<Self>, item: &Item, place: Place) -> Result<(), Refusal> {
        let credential = self.held(item.org, item.id).await?.credential.value;
        let generation = credential.rotation.generation;
        // Somebody else may have refreshed or replaced it since.
        if generation != item.generation || self.due(&credential).is_none() {
            return Ok(());
        }
        let need = Need {
            remaining: Duration::ZERO,
            newer_than: Some(generation),
        };
        match self
            .join(item.org, item.id, need, Why::Ahead { _place: place })
            .await
        {
            Landing::Renewed => self.parts.metrics.refresh_ahead("granted"),
            // A caller's flight was under way, or the credential was replaced.
            Landing::Current => {}
            Landing::Refused(refusal) => return Err(Arc::unwrap_or_clone(refusal)),
        }
        Ok(())
    }
}
