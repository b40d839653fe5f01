//! Limits on rotations that callers force, so that an agent which reports every new generation cannot wear a
//! grant out. Counted per credential and per agent, in windows of an hour, in memory: a restart forgives.

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

/// When each window began, and how many since.
#[derive(Default)]
pub(super) struct Counts(Mutex<HashMap<Counted, (Duration, u32)>>);

impl Counts {
    /// Counts one forced rotation at `now` (monotonic), or refuses it.
    pub(super) fn count(
        &self,
        limits: Limits,
        credential: [u8; 16],
        actor: &Actor,
        now: Duration,
    ) -> Result<(), Refusal> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() > SWEEP {
            counts.retain(|_, (began, _)| now.saturating_sub(*began) < WINDOW);
        }
        let mut counted = vec![(
            Counted::Credential(credential),
            limits.per_credential,
            "credential",
        )];
        if let Actor::Agent(agent) = actor {
            counted.push((Counted::Agent(*agent.id.as_bytes()), limits.per_agent, "agent"));
        }
        for (counted, limit, what) in &counted {
            let (began, count) = counts.get(counted).copied().unwrap_or((now, 0));
            let age = now.saturating_sub(began);
            if age < WINDOW && count >= *limit {
                return Err(Refusal::new(
                    Reason::RotationLimited,
                    format!("this {what} has had its {limit} forced rotations of the hour"),
                )
                .retry_after(WINDOW - age));
            }
        }
        for (counted, ..) in counted {
            let entry = counts.entry(counted).or_insert((now, 0));
            if now.saturating_sub(entry.0) >= WINDOW {
                *entry = (now, 0);
            }
            entry.1 += 1;
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
        assert!(counts.count(limits, [1; 16], &agent(1), hour(0)).is_ok());
        assert!(counts.count(limits, [2; 16], &agent(1), hour(0)).is_ok());
        let refusal = counts.count(limits, [3; 16], &agent(1), hour(0)).unwrap_err();
        assert_eq!(refusal.reason, Reason::RotationLimited);
        // Another agent still may, up to the credential's own limit.
        assert!(counts.count(limits, [1; 16], &agent(2), hour(0)).is_ok());
        assert!(counts.count(limits, [1; 16], &agent(2), hour(0)).is_ok());
        assert!(counts.count(limits, [1; 16], &agent(3), hour(0)).is_err());
        assert!(
            counts.count(limits, [1; 16], &agent(1), hour(1)).is_ok(),
            "a new hour"
        );
    }
}
