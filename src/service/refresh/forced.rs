//! Limits on rotations that callers force, so that an agent which reports every new generation cannot wear a
//! grant out. Counted per credential and per agent, in windows of an hour, in memory: a restart forgives.
//!
//! What is counted is rotations, not reports: a generation costs the caller that reports it first, and nobody
//! else, however many hold it and find it rejected.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::actor::Actor;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;

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

/// The rotations of an hour.
#[derive(Clone, Copy)]
struct Window {
    /// When it began, monotonic.
    began: Duration,
    count: u32,
    /// Of a credential: the newest generation that was replaced by force.
    generation: u64,
}

/// A generation of a credential.
#[derive(Clone, Copy)]
pub(super) struct Rejected {
    pub(super) credential: [u8; 16],
    pub(super) generation: u64,
}

/// The windows of all who have one.
#[derive(Default)]
pub(super) struct Counts(Mutex<HashMap<Counted, Window>>);

impl Counts {
    /// Counts a rotation forced at `now` (monotonic), unless this generation was counted already, or refuses it.
    pub(super) fn count(
        &self,
        limits: Limits,
        rejected: Rejected,
        actor: &Actor,
        now: Duration,
    ) -> Result<(), Refusal> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() > SWEEP {
            counts.retain(|_, window| now.saturating_sub(window.began) < WINDOW);
        }
        let credential = Counted::Credential(rejected.credential);
        if counts
            .get(&credential)
            .is_some_and(|window| window.generation >= rejected.generation)
        {
            return Ok(());
        }
        let mut counted = vec![(credential, limits.per_credential, "credential")];
        if let Actor::Agent(agent) = actor {
            counted.push((Counted::Agent(*agent.id.as_bytes()), limits.per_agent, "agent"));
        }
        let fresh = Window {
            began: now,
            count: 0,
            generation: rejected.generation,
        };
        for (counted, limit, what) in &counted {
            let window = counts.get(counted).copied().unwrap_or(fresh);
            let age = now.saturating_sub(window.began);
            if age < WINDOW && window.count >= *limit {
                return Err(Refusal::new(
                    Reason::RotationLimited,
                    format!("this {what} has had its {limit} forced rotations of the hour"),
                )
                .retry_after(WINDOW - age));
            }
        }
        for (counted, ..) in counted {
            let window = counts.entry(counted).or_insert(fresh);
            if now.saturating_sub(window.began) >= WINDOW {
                *window = fresh;
            }
            window.count += 1;
            window.generation = rejected.generation;
        }
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

    fn rejected(credential: u8, generation: u64) -> Rejected {
        Rejected {
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
        assert!(counts.count(limits, rejected(1, 1), &agent(1), hour(0)).is_ok());
        assert!(counts.count(limits, rejected(2, 1), &agent(1), hour(0)).is_ok());
        let refusal = counts
            .count(limits, rejected(3, 1), &agent(1), hour(0))
            .unwrap_err();
        assert_eq!(refusal.reason, Reason::RotationLimited);
        // Another agent still may, up to the credential's own limit.
        assert!(counts.count(limits, rejected(1, 2), &agent(2), hour(0)).is_ok());
        assert!(counts.count(limits, rejected(1, 3), &agent(2), hour(0)).is_ok());
        assert!(counts.count(limits, rejected(1, 4), &agent(3), hour(0)).is_err());
        assert!(
            counts.count(limits, rejected(1, 4), &agent(1), hour(1)).is_ok(),
            "a new hour"
        );
    }

    #[test]
    fn a_generation_that_many_report_is_one_rotation() {
        let (counts, limits) = (
            Counts::default(),
            Limits {
                per_credential: 2,
                per_agent: 1,
            },
        );
        for reporter in 1..=8 {
            let counted = counts.count(limits, rejected(1, 5), &agent(reporter), Duration::ZERO);
            assert!(counted.is_ok(), "agent {reporter}");
        }
        // The first of them has had its own; the others are still free to.
        assert!(
            counts
                .count(limits, rejected(1, 6), &agent(1), Duration::ZERO)
                .is_err()
        );
        assert!(
            counts
                .count(limits, rejected(1, 6), &agent(2), Duration::ZERO)
                .is_ok()
        );
        assert!(
            counts
                .count(limits, rejected(1, 7), &agent(3), Duration::ZERO)
                .is_err()
        );
    }
}
