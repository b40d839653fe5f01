//! Approvals: their part of the keyspace.

use super::{Key, of, tagged};
use crate::domain::approval::Party;
use crate::domain::id::{ApprovalId, OrgId};

/// All approvals of an org.
pub fn approvals(org: OrgId) -> Key {
    of(org, "approval", &[])
}

/// An approval.
pub fn approval(org: OrgId, id: ApprovalId) -> Key {
    of(org, "approval", &[id.as_bytes()])
}

/// The uses of an approval.
pub fn approval_uses(org: OrgId, id: ApprovalId) -> Key {
    of(org, "approval-use", &[id.as_bytes()])
}

/// The use of an approval that took this slot.
pub fn approval_use(org: OrgId, id: ApprovalId, slot: u16) -> Key {
    of(org, "approval-use", &[id.as_bytes(), &slot.to_be_bytes()])
}

/// The slot of a key made by [`approval_use`].
pub fn approval_slot(key: &Key) -> Option<u16> {
    key.0.last_chunk().map(|slot| u16::from_be_bytes(*slot))
}

/// A place among what waits to be decided: of one requester or, `None`, of the whole org.
pub fn approval_wait(org: OrgId, requester: Option<Party>, slot: u16) -> Key {
    let requester = match requester {
        None => [0; 17],
        Some(Party::Agent(id)) => tagged(1, id.as_bytes()),
        Some(Party::ApiKey(id)) => tagged(2, id.as_bytes()),
        Some(Party::Member(id)) => tagged(3, id.as_bytes()),
        Some(Party::Operator(id)) => tagged(4, id.as_bytes()),
    };
    of(org, "approval-wait", &[&requester, &slot.to_be_bytes()])
}
