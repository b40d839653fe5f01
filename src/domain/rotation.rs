//! The refresh state machine: what may happen to a grant, decided without I/O.
//!
//! `on(event)` takes the state as it is stored and says what the new state is and what the driver has to do.
//! The driver commits the new state, guarded by the revision it read, *before* it takes the step. Two things
//! follow: at most one driver gets to take a step, and a crash leaves a state from which the next one goes on.
//!
//! A claim that is found without its driver is ambiguous: the provider may have rotated the grant or not.
//! It is never free, and a refresh token is not sent again without cause (RFC 9700 section 4.14.2: a replay
//! ends the whole grant).

use std::time::Duration;

use super::time::Time;

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
    /// Kept and not used: another copy of the grant was refreshed elsewhere.
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

/// How a grant died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The provider refused a refresh token that had not been sent before.
    Refused,
    /// The provider refused a resend: the answer to the first was lost on its way to us.
    AnswerLost,
}

/// What the connector says about sending a refresh token twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResendRule {
    /// Whether the provider rotates refresh tokens at all. Where it does not, sending again is harmless.
    pub rotates: bool,
    /// For how long after a rotation the provider answers the earlier refresh token again.
    pub grace: Option<Duration>,
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
    },
    /// The provider's answer is being stored.
    Answered,
    /// The answer grants new tokens.
    Granted,
    /// The answer refuses the grant for good.
    Refused {
        /// What the provider said.
        message: String,
    },
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

/// How long an ambiguous grant rests before its refresh token is sent again, doubled each time. Long enough
/// for an answer that is still under way to be given up by both sides.
pub const AMBIGUOUS_REST: Duration = Duration::from_secs(2);
/// The longest such rest.
pub const AMBIGUOUS_REST_MAX: Duration = Duration::from_secs(300);

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
            Event::Started { by } => Ok(self.started(by, now)),
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
            } if now < *at => stay(Step::Wait(*at)),
            Phase::Live { .. } => claim(Sent {
                first: now,
                unanswered: 0,
            }),
            // Another run may still be at it. A claim of this very run belongs to a driver that is gone:
            // only one flight a credential runs in a process.
            Phase::Claimed {
                by: owner, deadline, ..
            } if *owner != by && now < *deadline => stay(Step::Wait(*deadline)),
            Phase::Claimed { sent, .. } => {
                let (next, not_before) =
                    self.ambiguous(*sent, now, "the exchange was interrupted".to_owned());
                (next, Step::Wait(not_before))
            }
            Phase::Staged { .. } => stay(Step::Adopt(self.fence)),
            Phase::Ambiguous { sent, not_before, .. } => {
                let harmless = !rule.rotates || rule.grace.is_some_and(|grace| now < sent.first + grace);
                if harmless || now >= *not_before {
                    claim(*sent)
                } else {
                    stay(Step::Wait(*not_before))
                }
            }
            Phase::Quarantined { .. } | Phase::Dead { .. } => stay(Step::Stop),
        }
    }

    fn started(&self, by: Incarnation, now: Time) -> (Rotation, Step) {
        match &self.phase {
            Phase::Claimed { by: owner, sent, .. } if *owner != by => {
                let message = "the broker stopped while the exchange was under way".to_owned();
                (self.ambiguous(*sent, now, message).0, Step::Rest)
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
            (Phase::Claimed { sent, .. } | Phase::Staged { sent }, Event::Lost { message }) => {
                let (next, not_before) = self.ambiguous(*sent, now, message);
                (next, Step::Wait(not_before))
            }
            (
                Phase::Claimed { sent, .. } | Phase::Staged { sent },
                Event::NotProcessed { not_before, message },
            ) => (
                self.not_processed(*sent, not_before, message),
                Step::Wait(not_before),
            ),
            (Phase::Staged { .. }, Event::Granted) => (self.renewed(), Step::Rest),
            (Phase::Staged { sent }, Event::Refused { message }) => {
                let cause = if sent.unanswered > 0 {
                    Death::AnswerLost
                } else {
                    Death::Refused
                };
                (
                    self.with(Phase::Dead {
                        since: now,
                        cause,
                        message,
                    }),
                    Step::Stop,
                )
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

    fn ambiguous(&self, sent: Sent, now: Time, message: String) -> (Rotation, Time) {
        let rest = AMBIGUOUS_REST
            .saturating_mul(1 << sent.unanswered.min(16))
            .min(AMBIGUOUS_REST_MAX);
        let not_before = now + rest;
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
    /// Nothing under way, nothing wrong.
    pub const fn rested() -> Phase {
        Phase::Live {
            not_before: None,
            message: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Incarnation = Incarnation([1; 16]);
    const BEFORE: Incarnation = Incarnation([0; 16]);
    const ROTATING: ResendRule = ResendRule {
        rotates: true,
        grace: None,
    };

    fn at(millis: i64) -> Time {
        Time::from_millis(millis)
    }

    fn needed(state: &Rotation, rule: ResendRule, now: Time) -> (Rotation, Step) {
        let deadline = now + Duration::from_secs(30);
        state
            .on(
                Event::Needed {
                    by: ME,
                    deadline,
                    rule,
                },
                Fence(0),
                now,
            )
            .unwrap()
    }

    fn claimed() -> Rotation {
        needed(&Rotation::new(), ROTATING, at(0)).0
    }

    fn report(state: &Rotation, event: Event, now: Time) -> (Rotation, Step) {
        state.on(event, state.fence, now).unwrap()
    }

    fn lost() -> Event {
        Event::Lost {
            message: "cut".into(),
        }
    }

    #[test]
    fn the_good_way() {
        let (claimed, step) = needed(&Rotation::new(), ROTATING, at(0));
        assert_eq!(step, Step::Exchange(Fence(1)));
        let (staged, step) = report(&claimed, Event::Answered, at(1));
        assert_eq!(step, Step::Adopt(Fence(1)));
        let (live, step) = report(&staged, Event::Granted, at(2));
        assert_eq!(
            (live.generation, &live.phase, step),
            (2, &Phase::rested(), Step::Rest)
        );
    }

    #[test]
    fn a_claim_of_an_earlier_run_is_ambiguous_and_never_free() {
        let claim = Rotation {
            phase: Phase::Claimed {
                by: BEFORE,
                deadline: at(30_000),
                sent: Sent {
                    first: at(0),
                    unanswered: 0,
                },
            },
            ..claimed()
        };
        let (state, step) = claim.on(Event::Started { by: ME }, Fence(0), at(100)).unwrap();
        assert!(matches!(state.phase, Phase::Ambiguous { .. }), "{state:?}");
        assert_eq!(step, Step::Rest);
        // Met without a start, as in a cluster: left alone until its deadline, then ambiguous.
        assert_eq!(
            needed(&claim, ROTATING, at(100)),
            (claim.clone(), Step::Wait(at(30_000)))
        );
        assert!(matches!(
            needed(&claim, ROTATING, at(30_000)).0.phase,
            Phase::Ambiguous { .. }
        ));
    }

    #[test]
    fn an_ambiguous_token_rests_longer_each_time_unless_sending_again_is_harmless() {
        let (once, _) = report(&claimed(), lost(), at(1_000));
        assert_eq!(needed(&once, ROTATING, at(2_999)).1, Step::Wait(at(3_000)));
        assert_eq!(needed(&once, ROTATING, at(3_000)).1, Step::Exchange(Fence(2)));
        let grace = ResendRule {
            rotates: true,
            grace: Some(Duration::from_secs(5)),
        };
        assert_eq!(needed(&once, grace, at(1_001)).1, Step::Exchange(Fence(2)));
        let steady = ResendRule {
            rotates: false,
            grace: None,
        };
        assert_eq!(needed(&once, steady, at(1_001)).1, Step::Exchange(Fence(2)));

        let (twice, _) = report(&needed(&once, ROTATING, at(3_000)).0, lost(), at(4_000));
        assert_eq!(needed(&twice, ROTATING, at(7_999)).1, Step::Wait(at(8_000)));
        // The grace window counts from the first sending: by then it is over.
        assert_eq!(needed(&twice, grace, at(5_001)).1, Step::Wait(at(8_000)));
    }

    #[test]
    fn a_refusal_after_a_lost_answer_is_told_from_a_plain_one() {
        let refused = || Event::Refused {
            message: "invalid_grant".into(),
        };
        let death = |claim: &Rotation| {
            let staged = report(claim, Event::Answered, at(9)).0;
            match report(&staged, refused(), at(10)).0.phase {
                Phase::Dead { cause, .. } => cause,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(death(&claimed()), Death::Refused);
        let once = report(&claimed(), lost(), at(1)).0;
        assert_eq!(death(&needed(&once, ROTATING, at(9_000)).0), Death::AnswerLost);
    }

    #[test]
    fn what_was_not_processed_changes_nothing_but_the_time_of_the_next() {
        let busy = || Event::NotProcessed {
            not_before: at(500),
            message: "429".into(),
        };
        let (live, step) = report(&claimed(), busy(), at(1));
        assert_eq!(
            (live.generation, live.failures, step),
            (1, 1, Step::Wait(at(500)))
        );
        assert_eq!(needed(&live, ROTATING, at(499)).1, Step::Wait(at(500)));
        let again = needed(&live, ROTATING, at(500)).0;
        assert_eq!(report(&again, busy(), at(501)).0.failures, 2);

        let once = report(&claimed(), lost(), at(1)).0;
        let resent = needed(&once, ROTATING, at(9_000)).0;
        let after = report(&resent, busy(), at(9_001)).0;
        assert!(matches!(
            after.phase,
            Phase::Ambiguous {
                sent: Sent { unanswered: 1, .. },
                ..
            }
        ));
    }

    #[test]
    fn an_old_fence_changes_nothing() {
        let state = claimed();
        for event in [Event::Answered, Event::Granted, lost()] {
            assert_eq!(state.on(event, Fence(0), at(1)), Err(ClaimLost));
        }
        assert_eq!(
            state.on(Event::Granted, state.fence, at(1)),
            Err(ClaimLost),
            "granted before staged"
        );
    }

    #[test]
    fn a_dead_grant_is_not_sent_again() {
        let dead = Phase::Dead {
            since: at(0),
            cause: Death::Refused,
            message: String::new(),
        };
        let state = Rotation {
            phase: dead,
            ..Rotation::new()
        };
        assert_eq!(
            needed(&state, ROTATING, at(1_000_000)),
            (state.clone(), Step::Stop)
        );
        assert_eq!(
            state.on(Event::Replaced, Fence(0), at(1)).unwrap().0.generation,
            2
        );
    }
}
