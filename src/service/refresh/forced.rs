//! Limits on rotations that callers force, so that an agent which reports every new generation cannot wear a
//! grant out. Counted per credential and per agent, in windows of an hour, in memory: a restart forgives.
//!
//! What counts is the rotation, not the report: however many report one generation, the first of them is
//! charged, since one rotation is all they get.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::actor::Actor;
use crate::domain::reason::{Reason, Refusal};

const WINDOW: Duration = Duration::from_secs(3_600);
/// Past this many counters, those whose window is over are dropped.
const SWEEP: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Credential([u8; 16]),
    Agent([u8; 16]),
}

/// How many an hour.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) per_credential: u32,
    pub(super) per_agent: u32,
}

/// What is about to be rotated because a caller says so.
#[derive(Clone, Copy)]
pub(super) struct Forced {
    pub(super) credential: [u8; 16],
    /// The generation that was rejected.
    pub(super) generation: u64,
}

#[derive(Clone, Copy)]
struct Window {
    began: Duration,
    count: u32,
    /// The last generation counted.
    generation: u64,
}

#[derive(Default)]
pub(super) struct Counts(Mutex<HashMap<Counted, Window>>);

impl Counts {
    /// Counts one forced rotation at `now` (monotonic), or refuses it.
    pub(super) fn count(
        &self,
        limits: Limits,
        forced: Forced,
        actor: &Actor,
        now: Duration,
    ) -> Result<(), Refusal> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() > SWEEP {
            counts.retain(|_, window| now.saturating_sub(window.began) < WINDOW);
        }
        let current = |counted: &Counted| {
            let window = counts.get(counted).copied();
            window.filter(|window| now.saturating_sub(window.began) < WINDOW)
        };
        let credential = Counted::Credential(forced.credential);
        if current(&credential).is_some_and(|window| window.generation == forced.generation) {
            return Ok(());
        }
        let mut counted = vec![(credential, limits.per_credential, "credential")];
        if let Actor::Agent(agent) = actor {
            counted.push((Counted::Agent(*agent.id.as_bytes()), limits.per_agent, "agent"));
        }
        let mut charged = Vec::new();
        for (counted, limit, what) in counted {
            let window = current(&counted).unwrap_or(Window {
                began: now,
                count: 0,
                generation: 0,
            });
            if window.count >= limit {
                return Err(Refusal::new(
                    Reason::RotationLimited,
                    format!("this {what} has had its {limit} forced rotations of the hour"),
                )
                .retry_after(WINDOW - now.saturating_sub(window.began)));
            }
            let (count, generation) = (window.count + 1, forced.generation);
            charged.push((
                counted,
                Window {
                    count,
                    generation,
                    ..window
                },
            ));
        }
        counts.extend(charged);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::actor::AgentActor;
    use crate::domain::id::Id;

    fn agent(id: u8) -> Actor {
        Actor::Agent(AgentActor {
            id: Id::from_bytes([id; 16]),
            org: Id::from_bytes([0; 16]),
            environment: Id::from_bytes([0; 16]),
        })
    }

    fn forced(credential: u8, generation: u64) -> Forced {
        Forced {
            credential: [credential; 16],
            generation,
        }
    }

    #[test]
    fn one_agent_wears_out_neither_one_credential_nor_many() {
        let (counts, limits) = (
            Counts::default(),
            Limits {
                per_credential: 3,
                per_agent: 2,
            },
        );
        let hour = |hours| WINDOW * hours;
        assert!(counts.count(limits, forced(1, 1), &agent(1), hour(0)).is_ok());
        assert!(counts.count(limits, forced(2, 1), &agent(1), hour(0)).is_ok());
        let refusal = counts
            .count(limits, forced(3, 1), &agent(1), hour(0))
            .unwrap_err();
        assert_eq!(refusal.reason, Reason::RotationLimited);
        // Another agent still may, up to the credential's own limit.
        assert!(counts.count(limits, forced(1, 2), &agent(2), hour(0)).is_ok());
        assert!(counts.count(limits, forced(1, 3), &agent(2), hour(0)).is_ok());
        assert!(counts.count(limits, forced(1, 4), &agent(3), hour(0)).is_err());
        assert!(
            counts.count(limits, forced(1, 4), &agent(1), hour(1)).is_ok(),
            "a new hour"
        );
    }

    #[test]
    fn reports_of_one_generation_count_once() {
        let (counts, limits) = (
            Counts::default(),
            Limits {
                per_credential: 1,
                per_agent: 1,
            },
        );
        for reporter in 1..=9 {
            assert!(
                counts
                    .count(limits, forced(1, 7), &agent(reporter), WINDOW)
                    .is_ok()
            );
        }
        // Only the first was charged: the second has its own rotation left, of another credential.
        assert!(counts.count(limits, forced(2, 1), &agent(2), WINDOW).is_ok());
        assert!(counts.count(limits, forced(3, 1), &agent(1), WINDOW).is_err());
        assert!(counts.count(limits, forced(1, 8), &agent(3), WINDOW).is_err());
    }
}
