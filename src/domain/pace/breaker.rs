//! The breaker of a connector: when its provider is left alone, and by what it is taken up again.
//!
//! ```text
//! closed --(failures of TRIP credentials in a row, or our client rejected)--> open
//! open --(its pause is over)--> probing, by one exchange
//! probing --(granted or refused)--> closed;   --(failed)--> open, for longer;   --(not sent)--> open, its pause over
//! ```
//!
//! What counts is *credentials*, not exchanges. Each credential has a back-off of its own, so a connector with few of
//! them is not called often whatever happens; and one grant that the provider chokes on, or holds back with a 429 of
//! its own, says nothing about the others and must not stop them. When [`TRIP`] different ones fail and none gets
//! through, it is the provider. The longest `Retry-After` among them is then kept for all of them.
//!
//! A refusal counts for the provider: who refuses, works. An answer that rejects our own client is different again: no
//! grant plays a part in it, so the first one opens the breaker, and until the configuration is mended there is one
//! exchange a minute for the whole connector.

use std::time::Duration;

use super::{PAUSE_MAX, doubled, part};
use crate::domain::id::CredentialId;

/// How many credentials have to fail in a row, with no success between them.
pub const TRIP: usize = 5;
/// Failures further apart than this are not in a row.
pub const ROW: Duration = PAUSE_MAX;
/// The longest first pause; doubled with each probe that fails.
pub const OPEN_FIRST: Duration = Duration::from_secs(5);
/// The pause after the provider rejected our own client: only the configuration helps.
pub const PAUSE_REJECTED: Duration = Duration::from_secs(60);
/// A probe that is not heard of for so long is given up. Longer than an exchange can take.
pub const PROBE_LIMIT: Duration = Duration::from_secs(360);
/// When to come back while a probe is under way.
pub const PROBE_WAIT: Duration = Duration::from_secs(1);

/// What an exchange showed of its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It granted or refused: it works.
    Works,
    /// It could not be reached, was lost on the way, failed, or was too busy.
    Failed {
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It rejects our client, whatever the grant (RFC 6749 section 5.2, `invalid_client`).
    ClientRejected,
}

/// Whether an exchange may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Pass,
    /// It may, and is the one that shows whether others may.
    Probe,
    /// Not before this much time is over.
    Wait(Duration),
}

/// How it stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Exchanges pass.
    Closed,
    /// One exchange is under way to see.
    Probing,
    /// None passes.
    Open,
}

/// The breaker of one connector. Times are those of a clock that does not go back; should it do so all the same, a
/// pause that lies ahead of it is over.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Closed {
        /// Those that failed in a row; fewer than [`TRIP`].
        failed: Vec<CredentialId>,
        /// When the last of them did.
        last: Duration,
        /// The longest wait that the provider asked them for.
        asked: Duration,
    },
    Open {
        since: Duration,
        pause: Duration,
        /// How many probes have failed.
        probes: u32,
    },
    Probing {
        since: Duration,
        probes: u32,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::closed(),
        }
    }
}

impl State {
    const fn closed() -> State {
        State::Closed {
            failed: Vec::new(),
            last: Duration::ZERO,
            asked: Duration::ZERO,
        }
    }
}

/// What is left of a pause of `length` that began at `since`.
fn left(since: Duration, length: Duration, now: Duration) -> Option<Duration> {
    let elapsed = now.checked_sub(since)?;
    length.checked_sub(elapsed).filter(|left| !left.is_zero())
}

impl Breaker {
    /// Whether an exchange might begin now. Changes nothing.
    pub fn look(&self, now: Duration) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Pass,
            State::Open { since, pause, .. } => {
                left(since, pause, now).map_or(Admission::Probe, Admission::Wait)
            }
            State::Probing { since, .. } => match left(since, PROBE_LIMIT, now) {
                Some(left) => Admission::Wait(left.min(PROBE_WAIT)),
                None => Admission::Probe,
            },
        }
    }

    /// An exchange is about to be sent. Who gets [`Admission::Probe`] has to say what came of it, by
    /// [`Breaker::hear`] or [`Breaker::give_back`].
    pub fn admit(&mut self, now: Duration) -> Admission {
        let admission = self.look(now);
        if admission == Admission::Probe
            && let State::Open { probes, .. } | State::Probing { probes, .. } = self.state
        {
            self.state = State::Probing { since: now, probes };
        }
        admission
    }

    /// The probe was not sent after all: the next exchange is one.
    pub fn give_back(&mut self, now: Duration) {
        if let State::Probing { probes, .. } = self.state {
            self.open(Duration::ZERO, probes, now);
        }
    }

    /// An exchange of `credential` has ended. `probe`: it was admitted as one. `fraction` is random, from 0 to 1.
    pub fn hear(
        &mut self,
        credential: CredentialId,
        probe: bool,
        heard: Heard,
        fraction: f64,
        now: Duration,
    ) {
        match (heard, &mut self.state) {
            (Heard::Works, _) => self.state = State::closed(),
            (Heard::ClientRejected, State::Closed { .. }) => self.open(PAUSE_REJECTED, 0, now),
            (Heard::Failed { retry_after }, State::Closed { failed, last, asked }) => {
                if now.checked_sub(*last).is_none_or(|apart| apart > ROW) {
                    failed.clear();
                    *asked = Duration::ZERO;
                }
                *last = now;
                *asked = retry_after.unwrap_or_default().max(*asked);
                if !failed.contains(&credential) {
                    failed.push(credential);
                }
                if failed.len() >= TRIP {
                    let pause = pause(0, fraction, *asked);
                    self.open(pause, 0, now);
                }
            }
            (Heard::ClientRejected, State::Probing { probes, .. }) if probe => {
                let probes = *probes;
                self.open(PAUSE_REJECTED, probes, now);
            }
            (Heard::Failed { retry_after }, State::Probing { probes, .. }) if probe => {
                let probes = probes.saturating_add(1);
                self.open(
                    pause(probes, fraction, retry_after.unwrap_or_default()),
                    probes,
                    now,
                );
            }
            // Sent before it opened: it tells nothing new.
            (Heard::ClientRejected | Heard::Failed { .. }, State::Open { .. } | State::Probing { .. }) => {}
        }
    }

    fn open(&mut self, pause: Duration, probes: u32, now: Duration) {
        self.state = State::Open {
            since: now,
            pause,
            probes,
        };
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Closed { .. } => Standing::Closed,
            State::Probing { .. } => Standing::Probing,
            State::Open { .. } => Standing::Open,
        }
    }
}

/// How long to stay open: between half the ceiling and the whole, so that brokers beside each other do not probe in
/// step, and no less than was asked for.
fn pause(probes: u32, fraction: f64, asked: Duration) -> Duration {
    let half = doubled(OPEN_FIRST, probes) / 2;
    (half + part(half, fraction)).max(asked).min(PAUSE_MAX)
}
