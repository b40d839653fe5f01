//! Revocations at providers: their part of the keyspace.

use super::{Key, of, system};
use crate::domain::id::{CredentialId, Id, OrgId, RevocationId};
use crate::domain::time::Time;

/// All revocations of an org.
pub fn revocations(org: OrgId) -> Key {
    of(org, "revocation", &[])
}

/// A revocation.
pub fn revocation(org: OrgId, id: RevocationId) -> Key {
    of(org, "revocation", &[id.as_bytes()])
}

/// The tokens that it still has to revoke.
pub fn revocation_secret(org: OrgId, id: RevocationId) -> Key {
    of(org, "revocation-secret", &[id.as_bytes()])
}

/// The revocation of what a credential had when it was disconnected.
pub fn revocation_of(org: OrgId, credential: CredentialId) -> Key {
    of(org, "revocation-of", &[credential.as_bytes()])
}

/// All revocations that are to be tried, of all orgs, by when.
pub fn revocations_due() -> Key {
    system("revoking", &[])
}

/// That a revocation is to be tried then.
pub fn revocation_due(next: Time, org: OrgId, id: RevocationId) -> Key {
    let time = u64::try_from(next.millis()).unwrap_or(0).to_be_bytes();
    system("revoking", &[&time, org.as_bytes(), id.as_bytes()])
}

/// The time, org and revocation of a key made by [`revocation_due`].
pub fn revocation_due_of(key: &Key) -> Option<(Time, OrgId, RevocationId)> {
    let parts: &[u8; 40] = key.0.last_chunk()?;
    let (time, ids) = parts.split_first_chunk::<8>()?;
    let (org, id) = ids.split_first_chunk::<16>()?;
    let millis = i64::try_from(u64::from_be_bytes(*time)).ok()?;
    Some((
        Time::from_millis(millis),
        Id::from_bytes(*org),
        Id::from_bytes(id.try_into().ok()?),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_sorts_by_time_and_reads_back() {
        let (org, id) = (Id::from_bytes([0xff; 16]), Id::from_bytes([7; 16]));
        let early = revocation_due(Time::from_seconds(9), org, id);
        let late = revocation_due(Time::from_seconds(1_700_000_000), Id::from_bytes([0; 16]), id);
        assert!(early < late);
        assert_eq!(
            revocation_due_of(&early).unwrap(),
            (Time::from_seconds(9), org, id)
        );
    }
}
