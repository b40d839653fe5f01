//! The breakers of all connectors: [`crate::domain::pace::breaker`] driven, in memory. A restart forgives.
//!
//! The lock is held for a look-up and a decision, never across an await. What a provider said is told only to
//! callers of the org whose credential it was said of: it may name an account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Jitter;
use crate::clock::Clock;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::name::Name;
use crate::domain::pace::breaker::{Admission, Breaker, Heard, Standing};
use crate::domain::pace::come_back;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::metrics::Metrics;
use crate::upstream::answer::Answer;

/// All breakers.
pub(super) struct Breakers {
    clock: Arc<dyn Clock>,
    jitter: Jitter,
    metrics: Arc<Metrics>,
    /// As many entries as there are connectors.
    of: Mutex<BTreeMap<Name, Kept>>,
}

#[derive(Default)]
struct Kept {
    breaker: Breaker,
    /// What was heard last that was not well.
    said: String,
    /// Of whose credential it was said; `None`: it is the broker's own word.
    of: Option<OrgId>,
}

/// Whose exchange it is.
#[derive(Clone, Copy)]
pub(super) struct Whose {
    pub(super) org: OrgId,
    pub(super) credential: CredentialId,
}

/// Leave to send one request. What came of it is told with [`Pass::tell`]; dropped without, nothing was sent.
pub(super) struct Pass {
    breakers: Arc<Breakers>,
    connector: Name,
    whose: Whose,
    probe: bool,
}

impl Breakers {
    pub(super) fn new(clock: Arc<dyn Clock>, jitter: Jitter, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            jitter,
            metrics,
            of: Mutex::default(),
        })
    }

    /// Refuses where an exchange of the connector could not begin now. Changes nothing.
    pub(super) fn look(&self, connector: &Name, whose: Whose) -> Result<(), Refusal> {
        self.with(connector, |kept, now| match kept.breaker.look(now) {
            Admission::Pass | Admission::Probe => Ok(()),
            Admission::Wait(left) => Err(self.left_alone(connector, kept, whose, left)),
        })
    }

    /// Whether exchanges of the connector pass freely: it is not left alone, nor just being tried.
    pub(super) fn standing(&self, connector: &Name) -> (Standing, bool) {
        self.with(connector, |kept, now| {
            let may_begin = !matches!(kept.breaker.look(now), Admission::Wait(_));
            (kept.breaker.standing(), may_begin)
        })
    }

    /// Leave to send now, or why not.
    pub(super) fn admit(self: &Arc<Self>, connector: &Name, whose: Whose) -> Result<Pass, Refusal> {
        let probe = self.with(connector, |kept, now| match kept.breaker.admit(now) {
            Admission::Pass => Ok(false),
            Admission::Probe => Ok(true),
            Admission::Wait(left) => Err(self.left_alone(connector, kept, whose, left)),
        })?;
        Ok(Pass {
            breakers: Arc::clone(self),
            connector: connector.clone(),
            whose,
            probe,
        })
    }

    /// Leave to send what would soon be too late to send, however the breaker stands. What comes of it is heard like
    /// any other.
    pub(super) fn urgent(self: &Arc<Self>, connector: &Name, whose: Whose) -> Pass {
        Pass {
            breakers: Arc::clone(self),
            connector: connector.clone(),
            whose,
            probe: false,
        }
    }

    fn left_alone(&self, connector: &Name, kept: &Kept, whose: Whose, left: Duration) -> Refusal {
        let said = match kept.of {
            Some(org) if org != whose.org => "",
            _ => kept.said.as_str(),
        };
        let mut message =
            format!("the provider of connector {connector} is left alone for now: exchanges with it failed");
        if !said.is_empty() {
            message.push_str(": ");
            message.push_str(said);
        }
        Refusal::new(Reason::RefreshUnavailable, message)
            .retry_after(come_back(left, (self.jitter)()))
            .with("connector", connector.as_str())
            .with("credential", whose.credential.to_string())
            .with("provider_message", said)
    }

    /// Decides something of one breaker, and tells where it stands differently afterwards.
    fn with<T>(&self, connector: &Name, decide: impl FnOnce(&mut Kept, Duration) -> T) -> T {
        let now = self.clock.monotonic();
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(connector.clone()).or_default();
        let before = kept.breaker.standing();
        let decided = decide(kept, now);
        let after = kept.breaker.standing();
        if before != after {
            self.metrics.breaker(connector, after);
            match after {
                Standing::Closed => tracing::info!(%connector, "the provider is back"),
                Standing::Probing => {
                    tracing::info!(%connector, "one exchange tries whether the provider is back")
                }
                Standing::Open => tracing::warn!(%connector, said = kept.said, "the provider is left alone"),
            }
        }
        decided
    }
}

impl Pass {
    /// What the exchange showed of the provider, and what was said, where it was not well.
    pub(super) fn tell(mut self, heard: Heard, said: &str, by: Said) {
        let probe = std::mem::take(&mut self.probe);
        let fraction = (self.breakers.jitter)();
        self.breakers.with(&self.connector, |kept, now| {
            if heard != Heard::Works {
                said.clone_into(&mut kept.said);
                kept.of = match by {
                    Said::Provider => Some(self.whose.org),
                    Said::Broker => None,
                };
            }
            kept.breaker
                .hear(self.whose.credential, probe, heard, fraction, now);
        });
    }

    /// What an answer of `status` shows of the provider. `plain` takes out of its words what is secret.
    pub(super) fn answered(self, answer: &Answer, status: u16, plain: impl Fn(String) -> String) {
        let failed = |retry_after| Heard::Failed { retry_after };
        let (heard, message) = match answer {
            Answer::Granted(_) | Answer::Rotated(_) | Answer::Refused { .. } => {
                return self.tell(Heard::Works, "", Said::Broker);
            }
            Answer::NotProcessed { retry_after, message } => (failed(*retry_after), message),
            // The client itself was rejected, before any grant was looked at.
            Answer::Misconfigured { code, message } if code == INVALID_CLIENT => {
                (Heard::ClientRejected, message)
            }
            // The other faults of a client, and what of the 4xx is not understood, may be those of one grant: one
            // that was issued to another client or for other scopes, or is no token at all. Nobody else's exchanges
            // are to end for it.
            Answer::Misconfigured { .. } => return,
            Answer::Ambiguous { .. } if (400..500).contains(&status) => return,
            Answer::Ambiguous { retry_after, message } => (failed(*retry_after), message),
        };
        self.tell(heard, &plain(message.clone()), Said::Provider);
    }
}

/// RFC 6749 section 5.2: client authentication failed.
const INVALID_CLIENT: &str = "invalid_client";

/// Whose words are told.
#[derive(Clone, Copy)]
pub(super) enum Said {
    /// The provider's, of one credential.
    Provider,
    /// The broker's own, of a connection.
    Broker,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            self.breakers
                .with(&self.connector, |kept, now| kept.breaker.give_back(now));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::id::Id;
    use crate::domain::pace::breaker::TRIP;
    use crate::domain::time::Time;

    fn whose(org: u8, credential: u8) -> Whose {
        Whose {
            org: Id::from_bytes([org; 16]),
            credential: Id::from_bytes([credential; 16]),
        }
    }

    /// A connector whose provider has just failed, by the words of org 1.
    fn open(said: Said) -> (Arc<Breakers>, Arc<ManualClock>, Name) {
        let clock = Arc::new(ManualClock::at(Time::from_seconds(1_800_000_000)));
        let breakers = Breakers::new(Arc::clone(&clock) as _, Arc::new(|| 0.5), Arc::default());
        let connector: Name = "demo".parse().unwrap();
        for number in 0..TRIP {
            let pass = breakers.admit(&connector, whose(1, u8::try_from(number).unwrap()));
            pass.unwrap()
                .tell(Heard::Failed { retry_after: None }, "quota of acme", said);
        }
        (breakers, clock, connector)
    }

    #[test]
    fn what_a_provider_said_of_one_org_is_told_to_no_other() {
        let (breakers, _, connector) = open(Said::Provider);
        let own = breakers.look(&connector, whose(1, 9)).unwrap_err();
        assert!(own.message.contains("quota of acme"));
        let other = breakers.look(&connector, whose(2, 9)).unwrap_err();
        assert!(!format!("{other:?}").contains("acme"), "{other:?}");
        assert!(other.message.contains("connector demo") && other.retry_after.is_some());
        let (breakers, _, connector) = open(Said::Broker);
        let other = breakers.look(&connector, whose(2, 9)).unwrap_err();
        assert!(
            other.message.contains("quota of acme"),
            "a connection is nobody's"
        );
    }

    #[test]
    fn leave_that_was_not_used_is_there_for_the_next() {
        let (breakers, clock, connector) = open(Said::Broker);
        clock.advance(Duration::from_secs(60));
        let probe = breakers.admit(&connector, whose(1, 1)).unwrap();
        assert!(breakers.admit(&connector, whose(1, 2)).is_err());
        drop(probe);
        let probe = breakers.admit(&connector, whose(1, 2)).unwrap();
        probe.tell(Heard::Works, "", Said::Broker);
        let passes = [3, 4].map(|credential| breakers.admit(&connector, whose(1, credential)));
        assert!(passes.iter().all(Result::is_ok));
        // Nor does one that passed freely disturb anything by ending untold.
        drop(passes);
        assert_eq!(breakers.standing(&connector), (Standing::Closed, true));
    }
}
