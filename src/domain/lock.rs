//! A lock: a stop that can be lifted again, on an agent, a member, a credential, an environment or an org.
//!
//! Revoking is for good; a lock holds until it is removed or expires, and whatever it stopped goes on from there.

use std::fmt;

use super::id::{AgentId, CredentialId, EnvironmentId, LockId, MemberId, OrgId};
use super::reason::Reason;
use super::refusal::Refusal;
use super::time::Time;

/// What a lock stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockTarget {
    /// One agent: all its calls.
    Agent(AgentId),
    /// One member: their own calls, and whatever is resolved for them.
    Member(MemberId),
    /// One credential: it is handed to nobody, and no other takes its place.
    Credential(CredentialId),
    /// One environment: all its agents, and enrolling into it.
    Environment(EnvironmentId),
    /// A whole org: its agents, API keys and members, org admins among them.
    Org(OrgId),
}

impl LockTarget {
    /// The 16 bytes of the target's id. Ids are unique over all kinds.
    pub fn subject(self) -> [u8; 16] {
        *match &self {
            LockTarget::Agent(id) => id.as_bytes(),
            LockTarget::Member(id) => id.as_bytes(),
            LockTarget::Credential(id) => id.as_bytes(),
            LockTarget::Environment(id) => id.as_bytes(),
            LockTarget::Org(id) => id.as_bytes(),
        }
    }

    /// What sort of thing it is.
    pub const fn kind(self) -> &'static str {
        match self {
            LockTarget::Agent(_) => "agent",
            LockTarget::Member(_) => "member",
            LockTarget::Credential(_) => "credential",
            LockTarget::Environment(_) => "environment",
            LockTarget::Org(_) => "org",
        }
    }
}

impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockTarget::Agent(id) => id.fmt(f),
            LockTarget::Member(id) => id.fmt(f),
            LockTarget::Credential(id) => id.fmt(f),
            LockTarget::Environment(id) => id.fmt(f),
            LockTarget::Org(id) => id.fmt(f),
        }
    }
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Its id.
    pub id: LockId,
    /// The org of its target.
    pub org: OrgId,
    /// What it stops.
    pub target: LockTarget,
    /// What those who are stopped are told.
    pub message: String,
    /// Who made it: an actor's id, or `broker`.
    pub by: String,
    /// Whether a system admin made it: then only a system admin lifts it.
    pub by_system: bool,
    /// When it was made.
    pub created: Time,
    /// When it ends by itself; `None`: it does not.
    pub expires: Option<Time>,
}

impl Lock {
    /// Whether it holds at `now`.
    pub fn holds(&self, now: Time) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// What those are told whom it stops. Said only to callers who have shown who they are.
    pub fn refusal(&self) -> Refusal {
        let Lock { target, message, .. } = self;
        let said = match message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let kind = target.kind();
        let refusal = Refusal::new(Reason::Locked, format!("the {kind} is locked{said}"))
            .with("subject", target.to_string())
            .with("lock", self.id.to_string());
        match self.expires {
            Some(expires) => refusal.with("until_seconds", expires.seconds().to_string()),
            None => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    #[test]
    fn a_lock_ends_at_its_expiry_and_says_who_is_stopped_by_what() {
        let mut lock = Lock {
            id: Id::from_bytes([1; 16]),
            org: Id::from_bytes([2; 16]),
            target: LockTarget::Agent(Id::from_bytes([3; 16])),
            message: "seen twice".to_owned(),
            by: "broker".to_owned(),
            by_system: false,
            created: Time::from_millis(0),
            expires: Some(Time::from_millis(1000)),
        };
        assert!(lock.holds(Time::from_millis(999)) && !lock.holds(Time::from_millis(1000)));
        let refusal = lock.refusal();
        assert_eq!(refusal.message, "the agent is locked: seen twice");
        let subject = ("subject", lock.target.to_string());
        assert!(refusal.metadata.contains(&subject) && subject.1.starts_with("agt_"));
        lock.expires = None;
        assert!(lock.holds(Time::from_millis(i64::MAX)));
    }
}
