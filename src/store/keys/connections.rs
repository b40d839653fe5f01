//! Connections: their part of the keyspace.

use super::{Key, of, system};
use crate::domain::id::{ConnectionId, MemberId, OrgId};

/// All connections of an org.
pub fn connections(org: OrgId) -> Key {
    of(org, "connection", &[])
}

/// A connection.
pub fn connection(org: OrgId, id: ConnectionId) -> Key {
    of(org, "connection", &[id.as_bytes()])
}

/// What a connection is bound by.
pub fn connection_secret(org: OrgId, id: ConnectionId) -> Key {
    of(org, "connection-secret", &[id.as_bytes()])
}

/// A token endpoint's staged answer to a connection.
pub fn connection_answer(org: OrgId, id: ConnectionId) -> Key {
    of(org, "connection-answer", &[id.as_bytes()])
}

/// That a connection goes on without its member's help: all orgs' together, for one scan at the start.
pub fn connecting(org: OrgId, id: ConnectionId) -> Key {
    system("connecting", &[org.as_bytes(), id.as_bytes()])
}

/// All connections that go on without their members' help.
pub fn all_connecting() -> Key {
    system("connecting", &[])
}

/// The org and connection of a key made by [`connecting`].
pub fn connecting_ids(key: &Key) -> Option<(OrgId, ConnectionId)> {
    let (rest, id) = key.0.split_last_chunk::<16>()?;
    let (_, org) = rest.split_last_chunk::<16>()?;
    Some((OrgId::from_bytes(*org), ConnectionId::from_bytes(*id)))
}

/// Which connections there are of a member.
pub fn connections_of(org: OrgId, member: MemberId) -> Key {
    of(org, "connections-of", &[member.as_bytes()])
}
