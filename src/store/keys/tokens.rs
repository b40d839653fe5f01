//! Operator tokens of members: their part of the keyspace.

use super::{Key, of};
use crate::domain::id::{MemberId, OperatorId, OrgId};

/// All operator tokens of an org's members.
pub fn members_tokens(org: OrgId) -> Key {
    of(org, "member-token", &[])
}

/// All operator tokens of a member.
pub fn member_tokens(org: OrgId, member: MemberId) -> Key {
    of(org, "member-token", &[member.as_bytes()])
}

/// The mark that an operator token is a member's.
pub fn member_token(org: OrgId, member: MemberId, id: OperatorId) -> Key {
    of(org, "member-token", &[member.as_bytes(), id.as_bytes()])
}
