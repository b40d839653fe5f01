//! Enrollment tokens, and the rule of who may enroll with one.
//!
//! Each slot of a token binds to the first public key that presents it. Until the agent's runtime key is
//! first used, the same key may come again, as it does when the answer was lost on the way.

use super::id::{AgentId, EnrollmentTokenId, EnvironmentId, OrgId, TaskId};
use super::reason::Reason;
use super::refusal::Refusal;
use super::time::Time;
use super::token::TokenHash;

/// An enrollment token, without its secret.
#[derive(Clone, Debug)]
pub struct EnrollmentToken {
    /// Its id.
    pub id: EnrollmentTokenId,
    /// The org.
    pub org: OrgId,
    /// The environment it enrolls into.
    pub environment: EnvironmentId,
    /// The hash of the token.
    pub token: TokenHash,
    /// How many agents it may enroll.
    pub max_agents: u32,
    /// How many slots are bound.
    pub bound: u32,
    /// The task its agents are assigned to.
    pub task: Option<TaskId>,
    /// Labels its agents get.
    pub labels: Vec<(String, String)>,
    /// When it was made.
    pub created: Time,
    /// When it expires.
    pub expires: Time,
    /// When it was revoked.
    pub revoked: Option<Time>,
}

/// What the slot bound to the presented key says, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundSlot {
    /// The agent that enrolled with this key.
    pub agent: AgentId,
    /// Whether no repeat is taken any more: its runtime key has been used, it was revoked, or the time for
    /// repeats is over.
    pub closed: bool,
}

/// What a good presentation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A new agent, in a slot of its own.
    New,
    /// The agent that already enrolled with this key: it gets a fresh runtime key.
    Repeat(AgentId),
}

/// A presentation that is refused, and whether it looks like theft.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Why.
    pub refusal: Refusal,
    /// Whether a key other than the bound ones presented a good token: somebody else has, or had, it.
    pub alarm: bool,
}

impl EnrollmentToken {
    /// Decides on a presentation of this token at `now`, by a key whose slot is `slot`. `presented` is the
    /// hash of what was presented; it is compared first, so that nobody learns about a token they do not hold.
    pub fn admit(
        &self,
        presented: &TokenHash,
        slot: Option<BoundSlot>,
        now: Time,
    ) -> Result<Admission, Rejected> {
        let reject = |reason, message: &str, alarm| {
            let refusal = Refusal::new(reason, message).with("enrollment_token", self.id.to_string());
            Err(Rejected { refusal, alarm })
        };
        if !self.token.matches(presented) {
            let refusal = Refusal::new(
                Reason::EnrollmentTokenUnknown,
                "the enrollment token is not known",
            );
            return Err(Rejected {
                refusal,
                alarm: false,
            });
        }
        if self.revoked.is_some() {
            return reject(
                Reason::EnrollmentTokenRevoked,
                "the enrollment token was revoked",
                false,
            );
        }
        match slot {
            Some(slot) if slot.closed => reject(
                Reason::EnrollmentTokenSpent,
                "this key has enrolled already, and the time to repeat that is over",
                false,
            ),
            _ if now >= self.expires => reject(
                Reason::EnrollmentTokenExpired,
                "the enrollment token has expired",
                false,
            ),
            Some(slot) => Ok(Admission::Repeat(slot.agent)),
            None if self.bound < self.max_agents => Ok(Admission::New),
            None if self.max_agents == 1 => reject(
                Reason::EnrollmentTokenBound,
                "the enrollment token is bound to another key",
                true,
            ),
            None => reject(
                Reason::EnrollmentTokenSpent,
                "every slot of the enrollment token is bound",
                true,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn token() -> EnrollmentToken {
        EnrollmentToken {
            id: Id::from_bytes([1; 16]),
            org: Id::from_bytes([2; 16]),
            environment: Id::from_bytes([3; 16]),
            token: TokenHash::from_bytes([5; 32]),
            max_agents: 1,
            bound: 0,
            task: None,
            labels: vec![],
            created: Time::from_millis(0),
            expires: Time::from_millis(100),
            revoked: None,
        }
    }

    fn admit(
        token: &EnrollmentToken,
        slot: Option<BoundSlot>,
        now: i64,
    ) -> Result<Admission, (Reason, bool)> {
        token
            .admit(&TokenHash::from_bytes([5; 32]), slot, Time::from_millis(now))
            .map_err(|rejected| (rejected.refusal.reason, rejected.alarm))
    }

    #[test]
    fn the_first_key_binds_the_slot_and_may_come_again_until_its_runtime_key_is_used() {
        let agent = Id::from_bytes([9; 16]);
        let bound = EnrollmentToken { bound: 1, ..token() };
        assert_eq!(admit(&token(), None, 1), Ok(Admission::New));
        let open = BoundSlot { agent, closed: false };
        assert_eq!(admit(&bound, Some(open), 1), Ok(Admission::Repeat(agent)));
        let closed = BoundSlot { agent, closed: true };
        assert_eq!(
            admit(&bound, Some(closed), 1),
            Err((Reason::EnrollmentTokenSpent, false))
        );
    }

    #[test]
    fn another_key_is_refused_with_an_alarm() {
        let single = EnrollmentToken { bound: 1, ..token() };
        assert_eq!(admit(&single, None, 1), Err((Reason::EnrollmentTokenBound, true)));
        let pool = EnrollmentToken {
            bound: 3,
            max_agents: 3,
            ..token()
        };
        assert_eq!(admit(&pool, None, 1), Err((Reason::EnrollmentTokenSpent, true)));
    }

    #[test]
    fn expiry_revocation_and_a_wrong_secret() {
        assert_eq!(
            admit(&token(), None, 100),
            Err((Reason::EnrollmentTokenExpired, false))
        );
        let revoked = EnrollmentToken {
            revoked: Some(Time::from_millis(1)),
            ..token()
        };
        assert_eq!(
            admit(&revoked, None, 1),
            Err((Reason::EnrollmentTokenRevoked, false))
        );
        let wrong = TokenHash::from_bytes([6; 32]);
        let rejected = revoked.admit(&wrong, None, Time::from_millis(1)).unwrap_err();
        assert_eq!(rejected.refusal.reason, Reason::EnrollmentTokenUnknown);
    }
}
