//! Identifiers: UUIDv7 (RFC 9562 section 5.7), one type a kind, shown with the kind's prefix.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use uuid::Uuid;
use uuid::fmt::Simple;

use super::time::Time;

/// What an [`Id`] identifies. Implemented by the marker types of this module only.
pub trait Kind: 'static {
    /// The prefix shown before the underscore.
    const PREFIX: &'static str;
}

/// The id of one `K`.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

impl<K: Kind> Id<K> {
    /// An id made at `now` from ten random bytes.
    pub fn new(now: Time, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.millis()).unwrap_or(0);
        Self(
            uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid(),
            PhantomData,
        )
    }

    /// The id whose 16 bytes these are.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes), PhantomData)
    }

    /// The 16 bytes, in an order that sorts by the time of making.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// A text that is no id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ followed by 32 hexadecimal digits")]
pub struct MalformedId {
    /// The prefix that was expected.
    pub prefix: &'static str,
}

impl<K: Kind> FromStr for Id<K> {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        let malformed = MalformedId { prefix: K::PREFIX };
        let hex = text
            .strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .filter(|hex| hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            .ok_or(malformed)?;
        Uuid::try_parse(hex)
            .map(|uuid| Self(uuid, PhantomData))
            .map_err(|_| malformed)
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; Simple::LENGTH];
        f.write_str(K::PREFIX)?;
        f.write_str("_")?;
        f.write_str(self.0.simple().encode_lower(&mut digits))
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $alias:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $kind {}
        impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
        }
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// An org.
    Org, OrgId, "org";
    /// A project.
    Project, ProjectId, "prj";
    /// An environment.
    Environment, EnvironmentId, "env";
    /// A member.
    Member, MemberId, "mbr";
    /// An agent.
    Agent, AgentId, "agt";
    /// An enrollment token.
    EnrollmentToken, EnrollmentTokenId, "etk";
    /// An operator.
    Operator, OperatorId, "opr";
    /// An org API key.
    ApiKey, ApiKeyId, "key";
    /// A task.
    Task, TaskId, "tsk";
    /// A credential.
    Credential, CredentialId, "crd";
    /// A lease.
    Lease, LeaseId, "lse";
    /// An approval.
    Approval, ApprovalId, "apr";
    /// A lock.
    Lock, LockId, "lck";
    /// A connection: an account on its way to being connected.
    Connection, ConnectionId, "cnx";
    /// A revocation of an account's tokens at its provider.
    Revocation, RevocationId, "rev";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_one_kind_does_not_parse_as_another() {
        let org = OrgId::new(Time::from_millis(1_700_000_000_000), [7; 10]);
        assert_eq!(org.to_string().parse::<OrgId>(), Ok(org));
        assert_eq!(
            org.to_string().parse::<AgentId>(),
            Err(MalformedId { prefix: "agt" })
        );
        assert!(org.to_string().to_uppercase().parse::<OrgId>().is_err());
    }

    #[test]
    fn ids_sort_by_time() {
        let earlier = TaskId::new(Time::from_millis(1_000), [255; 10]);
        let later = TaskId::new(Time::from_millis(1_001), [0; 10]);
        assert!(earlier < later);
    }
}
