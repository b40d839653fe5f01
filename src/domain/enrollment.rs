//! Enrollment tokens, and the rule of who may enroll with one.
//!
//! Each slot of a token binds to the first public key that presents it. Until the agent's runtime key is
//! first used, the same key may come again, as it does when the answer was lost on the way.

use std::net::IpAddr;
use std::time::Duration;

use super::id::{AgentId, EnrollmentTokenId, EnvironmentId, OrgId, TaskId};
use super::network::Network;
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
    /// The networks it may be presented from; none: from anywhere.
    pub networks: Option<Vec<Network>>,
    /// When its last slot was bound.
    pub spent: Option<Time>,
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
    /// The networks it may be presented from; empty: from anywhere.
    pub fn allowed_networks(&self) -> &[Network] {
        self.networks.as_deref().unwrap_or_default()
    }

    /// When it stopped enrolling, where it has by `now`: it was revoked, has expired, or is spent and may not
    /// even be presented again.
    pub fn over(&self, now: Time, retry_window: Duration) -> Option<Time> {
        let spent = self.spent.map(|spent| spent + retry_window);
        let ends = [self.revoked, Some(self.expires), spent];
        ends.into_iter().flatten().min().filter(|end| *end <= now)
    }

    /// Decides on a presentation of this token at `now` from `peer`, by a key whose slot is `slot`. `presented`
    /// is the hash of what was presented; it is compared first, so that nobody learns about a token they do not
    /// hold.
    pub fn admit(
        &self,
        presented: &TokenHash,
        peer: Option<IpAddr>,
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
        let networks = self.allowed_networks();
        let inside = |peer| networks.iter().any(|network| network.contains(peer));
        if !networks.is_empty() && !peer.is_some_and(inside) {
            return reject(
                Reason::EnrollmentNetwork,
                "the enrollment token may not be presented from this address",
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
#[allow(clippy::unwrap_used)]
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
            networks: None,
            spent: None,
        }
    }

    fn admit(
        token: &EnrollmentToken,
        slot: Option<BoundSlot>,
        now: i64,
    ) -> Result<Admission, (Reason, bool)> {
        token
            .admit(
                &TokenHash::from_bytes([5; 32]),
                Some(IpAddr::from([10, 0, 0, 1])),
                slot,
                Time::from_millis(now),
            )
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
        let rejected = revoked
            .admit(&wrong, None, None, Time::from_millis(1))
            .unwrap_err();
        assert_eq!(rejected.refusal.reason, Reason::EnrollmentTokenUnknown);
    }

    #[test]
    fn a_token_for_some_networks_is_not_taken_from_others() {
        let of = |network: &str| EnrollmentToken {
            networks: Some(vec![network.parse().unwrap()]),
            ..token()
        };
        assert_eq!(admit(&of("10.0.0.0/8"), None, 1), Ok(Admission::New));
        let outside = Err((Reason::EnrollmentNetwork, false));
        assert_eq!(admit(&of("192.0.2.0/24"), None, 1), outside);
        let hash = TokenHash::from_bytes([5; 32]);
        let nowhere = of("10.0.0.0/8").admit(&hash, None, None, Time::from_millis(1));
        assert_eq!(nowhere.unwrap_err().refusal.reason, Reason::EnrollmentNetwork);
    }

    #[test]
    fn a_token_is_over_at_the_first_of_its_ends() {
        let at = Time::from_millis;
        let window = Duration::from_millis(10);
        assert_eq!(token().over(at(99), window), None);
        assert_eq!(token().over(at(100), window), Some(at(100)));
        let spent = EnrollmentToken {
            spent: Some(at(20)),
            ..token()
        };
        assert_eq!(spent.over(at(29), window), None);
        assert_eq!(spent.over(at(200), window), Some(at(30)));
    }
}
