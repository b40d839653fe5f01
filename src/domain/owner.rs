//! Whose a credential is.

use super::id::MemberId;

/// The owner of a credential. A member's own wins over the org's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Personal.
    Member(MemberId),
    /// The default shared by all members of the org.
    Org,
}

impl Owner {
    /// The owners to try for a task of `member`, the winner first.
    pub fn precedence(member: MemberId) -> [Owner; 2] {
        [Owner::Member(member), Owner::Org]
    }

    /// The member, where it is one's own.
    pub fn member(self) -> Option<MemberId> {
        match self {
            Owner::Member(member) => Some(member),
            Owner::Org => None,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owner::Member(member) => member.fmt(f),
            Owner::Org => f.write_str("org"),
        }
    }
}
