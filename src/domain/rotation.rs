//! The refresh state machine: what may happen to a grant, decided without I/O.
//!
//! `on(event)` takes the state as it is stored and says what the new state is and what the driver has to do.
//! The driver commits the new state, guarded by the revision it read, *before* it takes the step. Two things
//! follow: at most one driver gets to take a step, and a crash leaves a state from which the next one goes on.
//!
//! A claim that is found without its driver is ambiguous: the provider may have rotated the grant or not.
//! It is never free, and a refresh token is not sent again without cause (RFC 9700 section 4.14.2: a replay
//! ends the whole grant).

mod refused;
mod resend;

use std::time::Duration;

use super::time::Time;
pub use refused::{Death, Refused, Told};
pub use resend::{AMBIGUOUS_REST, AMBIGUOUS_REST_MAX, HARMLESS_REST, ResendRule};

/// Counts the claims ever made on a credential. A driver with an older fence is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// A run of the broker: new at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(pub [u8; 16]);

/// The stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Counts the secrets the credential has had, from 1.
    pub generation: u64,
    /// The last fence given out.
    pub fence: Fence,
    /// How many exchanges in a row ended without new tokens and without a refusal.
    pub failures: u32,
    /// Where the rotation stands.
    pub phase: Phase,
}

/// Where a rotation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is under way.
    Live {
        /// No exchange before this time: the provider did not process the last one.
        not_before: Option<Time>,
        /// What the provider said then; empty while all is well.
        message: String,
    },
    /// An exchange is about to be sent, or was.
    Claimed {
        /// Whose run of the broker sends it.
        by: Incarnation,
        /// When it gives up.
        deadline: Time,
        /// How often this refresh token was sent before, and when first.
        sent: Sent,
    },
    /// The provider's answer is stored, sealed and unparsed.
    Staged {
        /// How often this refresh token was sent before that, and when first.
        sent: Sent,
    },
    /// An exchange was sent and its answer is not known.
    Ambiguous {
        /// How often the token has been sent, and when first.
        sent: Sent,
        /// It is not sent again before this time.
        not_before: Time,
        /// What is known of it.
        message: String,
    },
    /// Kept and not used: the provider refused a refresh token that nothing in our own history explains the
    /// refusal of. Another copy of the grant was refreshed elsewhere, or the grant was taken back.
    Quarantined {
        /// Since when.
        since: Time,
        /// What the provider said.
        message: String,
    },
    /// The grant is proven dead.
    Dead {
        /// Since when.
        since: Time,
        /// How it died.
        cause: Death,
        /// What the provider said.
        message: String,
    },
}

/// How a refresh token has been used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When it was first sent.
    pub first: Time,
    /// How often it was sent with an answer that never came back.
    pub unanswered: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody needs a newer generation.
    Needed {
        /// The run of the broker that would do it.
        by: Incarnation,
        /// When the exchange would give up.
        deadline: Time,
        /// What the connector says about sending twice.
        rule: ResendRule,
    },
    /// The broker has started; `by` is its new run.
    Started {
        /// The new run.
        by: Incarnation,
        /// What the connector says about sending twice.
        rule: ResendRule,
    },
    /// The provider's answer is being stored.
    Answered,
    /// The answer grants new tokens.
    Granted {
        /// No exchange before this time: what was granted is good for nothing, and asking again at once would
        /// bring more of it.
        not_before: Option<Time>,
    },
    /// The answer refuses the grant for good.
    Refused(Refused),
    /// The provider did not process the request.
    NotProcessed {
        /// When to try again.
        not_before: Time,
        /// What is known.
        message: String,
    },
    /// The request was sent, and what became of it is not known.
    Lost {
        /// What is known.
        message: String,
        /// What the connector says about sending twice.
        rule: ResendRule,
        /// How long the provider wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// A new grant or key takes the place of the old.
    Replaced,
}

/// What the driver has to do, once the new state is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the refresh token.
    Exchange(Fence),
    /// Parse the stored answer.
    Adopt(Fence),
    /// Nothing: the state says it all.
    Rest,
    /// Nothing before this time.
    Wait(Time),
    /// Nothing: a person has to sign in again, or an operator to decide.
    Stop,
}

/// The driver holds a fence that is not the newest, or reports what cannot have happened in this state: it
/// has lost its claim and must change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claim is no longer held")]
pub struct ClaimLost;

/// Whether it is still too early. A time further off than any pause lasts was set before the clock was put
/// back, and is over.
fn waits(not_before: Time, now: Time) -> bool {
    now < not_before && not_before.since(now) <= AMBIGUOUS_REST_MAX
}

impl Rotation {
    /// The state of a new credential.
    pub fn new() -> Self {
        Self {
            generation: 1,
            fence: Fence(0),
            failures: 0,
            phase: Phase::rested(),
        }
    }

    /// What follows from `event` at `now`. `fence` is the driver's own where it reports on its exchange.
    pub fn on(&self, event: Event, fence: Fence, now: Time) -> Result<(Rotation, Step), ClaimLost> {
        match event {
            Event::Needed { by, deadline, rule } => Ok(self.needed(by, deadline, rule, now)),
            Event::Started { by, rule } => Ok(self.started(by, rule, now)),
            Event::Replaced => Ok((self.renewed(), Step::Rest)),
            report => self.report(report, fence, now),
        }
    }

    fn needed(&self, by: Incarnation, deadline: Time, rule: ResendRule, now: Time) -> (Rotation, Step) {
        let claim = |sent| {
            let fence = Fence(self.fence.0 + 1);
            (
                Rotation {
                    fence,
                    ..self.with(Phase::Claimed { by, deadline, sent })
                },
                Step::Exchange(fence),
            )
        };
        let stay = |step| (self.clone(), step);
        match &self.phase {
            Phase::Live {
                not_before: Some(at), ..
            } if waits(*at, now) => stay(Step::Wait(*at)),
            Phase::Live { .. } => claim(Sent {
                first: now,
                unanswered: 0,
            }),
            // Another run may still be at it. A claim of this very run belongs to a driver that is gone:
            // only one flight a credential runs in a process.
            Phase::Claimed {
                by: owner, deadline, ..
            } if *owner != by && waits(*deadline, now) => stay(Step::Wait(*deadline)),
            Phase::Claimed { sent, .. } => {
                let (next, not_before) =
                    self.ambiguous(*sent, rule, None, now, "the exchange was interrupted".to_owned());
                (next, Step::Wait(not_before))
            }
            Phase::Staged { .. } => stay(Step::Adopt(self.fence)),
            Phase::Ambiguous { not_before, .. } if waits(*not_before, now) => stay(Step::Wait(*not_before)),
            Phase::Ambiguous { sent, .. } => claim(*sent),
            Phase::Quarantined { .. } | Phase::Dead { .. } => stay(Step::Stop),
        }
    }

    fn started(&self, by: Incarnation, rule: ResendRule, now: Time) -> (Rotation, Step) {
        match &self.phase {
            Phase::Claimed { by: owner, sent, .. } if *owner != by => {
                let message = "the broker stopped while the exchange was under way".to_owned();
                (self.ambiguous(*sent, rule, None, now, message).0, Step::Rest)
            }
            Phase::Staged { .. } => (self.clone(), Step::Adopt(self.fence)),
            _ => (self.clone(), Step::Rest),
        }
    }

    fn report(&self, event: Event, fence: Fence, now: Time) -> Result<(Rotation, Step), ClaimLost> {
        if fence != self.fence {
            return Err(ClaimLost);
        }
        Ok(match (&self.phase, event) {
            (Phase::Claimed { sent, .. }, Event::Answered) => {
                (self.with(Phase::Staged { sent: *sent }), Step::Adopt(fence))
            }
            (
                Phase::Claimed { sent, .. } | Phase::Staged { sent },
                Event::Lost {
                    message,
                    rule,
                    retry_after,
                },
            ) => {
                let (next, not_before) = self.ambiguous(*sent, rule, retry_after, now, message);
                (next, Step::Wait(not_before))
            }
            (
                Phase::Claimed { sent, .. } | Phase::Staged { sent },
                Event::NotProcessed { not_before, message },
            ) => (
                self.not_processed(*sent, not_before, message),
                Step::Wait(not_before),
            ),
            (Phase::Staged { .. }, Event::Granted { not_before: None }) => (self.renewed(), Step::Rest),
            (Phase::Staged { .. }, Event::Granted { not_before }) => {
                let message = "the tokens that the provider grants have no life left".to_owned();
                let phase = Phase::Live { not_before, message };
                let failures = self.failures.saturating_add(1);
                let renewed = self.renewed();
                (
                    Rotation {
                        failures,
                        phase,
                        ..renewed
                    },
                    Step::Rest,
                )
            }
            (Phase::Staged { sent }, Event::Refused(refused)) => {
                (self.with(refused.phase(*sent, now)), Step::Stop)
            }
            _ => return Err(ClaimLost),
        })
    }

    fn with(&self, phase: Phase) -> Rotation {
        Rotation { phase, ..*self }
    }

    fn renewed(&self) -> Rotation {
        Rotation {
            generation: self.generation + 1,
            failures: 0,
            phase: Phase::rested(),
            ..*self
        }
    }

    fn ambiguous(
        &self,
        sent: Sent,
        rule: ResendRule,
        retry_after: Option<Duration>,
        now: Time,
        message: String,
    ) -> (Rotation, Time) {
        let not_before = now + rule.rest(sent, retry_after, now);
        let sent = Sent {
            unanswered: sent.unanswered.saturating_add(1),
            ..sent
        };
        let failures = self.failures.saturating_add(1);
        let next = self.with(Phase::Ambiguous {
            sent,
            not_before,
            message,
        });
        (Rotation { failures, ..next }, not_before)
    }

    /// A sending that was not processed leaves the grant as it was before: untouched, or as ambiguous as
    /// earlier sendings had made it.
    fn not_processed(&self, sent: Sent, not_before: Time, message: String) -> Rotation {
        let phase = if sent.unanswered > 0 {
            Phase::Ambiguous {
                sent,
                not_before,
                message,
            }
        } else {
            Phase::Live {
                not_before: Some(not_before),
                message,
            }
        };
        Rotation {
            failures: self.failures.saturating_add(1),
            ..self.with(phase)
        }
    }

    /// What the provider said last, where something is not well.
    pub fn message(&self) -> &str {
        match &self.phase {
            Phase::Live { message, .. }
            | Phase::Ambiguous { message, .. }
            | Phase::Quarantined { message, .. }
            | Phase::Dead { message, .. } => message,
            Phase::Claimed { .. } | Phase::Staged { .. } => "",
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Self::new()
    }
}

impl Phase {
    /// What stopped a grant, as a word; `None` where nothing did.
    pub const fn cause(&self) -> Option<&'static str> {
        Some(match self {
            Phase::Quarantined { .. } => "refreshed-elsewhere",
            Phase::Dead { cause, .. } => match cause {
                Death::Refused => "refused",
                Death::AnswerLost => "answer-lost",
                Death::Expired => "expired",
                Death::Withdrawn => "withdrawn",
            },
            _ => return None,
        })
    }

    /// Nothing under way, nothing wrong.
    pub const fn rested() -> Phase {
        Phase::Live {
            not_before: None,
            message: String::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
