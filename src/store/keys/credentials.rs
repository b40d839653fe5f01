//! Credentials: their part of the keyspace.

use super::{Key, holder_part, of, tagged};
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::lease::Holder;
use crate::domain::lineage::Fingerprint;
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;

/// All credentials of an org.
pub fn credentials(org: OrgId) -> Key {
    of(org, "credential", &[])
}

/// A credential.
pub fn credential(org: OrgId, id: CredentialId) -> Key {
    of(org, "credential", &[id.as_bytes()])
}

/// A credential's secret.
pub fn credential_secret(org: OrgId, id: CredentialId) -> Key {
    of(org, "credential-secret", &[id.as_bytes()])
}

/// A token endpoint's staged answer.
pub fn credential_answer(org: OrgId, id: CredentialId) -> Key {
    of(org, "credential-answer", &[id.as_bytes()])
}

/// What the last test of a credential found out.
pub fn checked(org: OrgId, id: CredentialId) -> Key {
    of(org, "checked", &[id.as_bytes()])
}

/// What reports of rejections have done to a credential.
pub fn forced(org: OrgId, id: CredentialId) -> Key {
    of(org, "forced", &[id.as_bytes()])
}

/// The last report that the provider rejects a key.
pub fn reported(org: OrgId, id: CredentialId) -> Key {
    of(org, "credential-reported", &[id.as_bytes()])
}

/// The rotations that somebody has forced.
pub fn forced_by(org: OrgId, holder: Holder) -> Key {
    of(org, "forced-by", &[&holder_part(holder)])
}

/// How many leases may stand on a credential at once, and which have a place.
pub fn parallel(org: OrgId, id: CredentialId) -> Key {
    of(org, "parallel", &[id.as_bytes()])
}

/// The generations that a grant has had.
pub fn credential_lineage(org: OrgId, id: CredentialId) -> Key {
    of(org, "credential-lineage", &[id.as_bytes()])
}

/// Which credential has the refresh token of this fingerprint, or had it.
pub fn grant(org: OrgId, refresh: Fingerprint) -> Key {
    of(org, "grant", &[&refresh.0])
}

/// All credentials of an owner.
pub fn credential_slots(org: OrgId, owner: Owner) -> Key {
    of(org, "credential-slot", &[&owner_part(owner)])
}

/// Which credential an owner has for a provider and kind: for this executor, or for all. No name has a zero
/// byte in it, so that no two slots are the same.
pub fn credential_slot(
    org: OrgId,
    owner: Owner,
    provider: &str,
    kind: CredentialKind,
    executor: Option<&str>,
) -> Key {
    let owner = owner_part(owner);
    let mut parts: Vec<&[u8]> = vec![&owner, provider.as_bytes(), b"\0", kind.name().as_bytes()];
    if let Some(executor) = executor {
        parts.extend([b"\0".as_slice(), executor.as_bytes()]);
    }
    of(org, "credential-slot", &parts)
}

fn owner_part(owner: Owner) -> [u8; 17] {
    match owner {
        Owner::Org => [0; 17],
        Owner::Member(member) => tagged(1, member.as_bytes()),
    }
}
