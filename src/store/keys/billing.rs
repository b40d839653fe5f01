//! Accounts, reported usage and sums of spend: their part of the keyspace.

use super::{Key, of, system};
use crate::domain::day::Day;
use crate::domain::id::{Id, MemberId, OrgId, ProjectId};
use crate::domain::mode::AuthMode;

/// An org's account.
pub fn account(org: OrgId) -> Key {
    of(org, "account", &[])
}

/// That an event was taken: usage that was reported, or credit that was added. `hash` covers its kind and id.
pub fn taken(org: OrgId, hash: &[u8; 32]) -> Key {
    of(org, "taken", &[hash])
}

/// All events that were taken, by day.
pub fn taken_days(org: OrgId) -> Key {
    of(org, "taken-day", &[])
}

/// The events that were taken before this day end before this key.
pub fn taken_before(org: OrgId, day: Day) -> Key {
    of(org, "taken-day", &[&day.0.to_be_bytes()])
}

/// The day on which an event was taken, for its collection.
pub fn taken_day(org: OrgId, day: Day, hash: &[u8; 32]) -> Key {
    of(org, "taken-day", &[&day.0.to_be_bytes(), hash])
}

/// The hash of a key made by [`taken_day`].
pub fn taken_hash(key: &Key) -> Option<[u8; 32]> {
    key.0.last_chunk().copied()
}

/// How far the sums of spend have read the journal.
pub fn spend_checkpoint() -> Key {
    system("spend", &[])
}

/// What a row of spend is the sum for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpendOf {
    /// The day.
    pub day: Day,
    /// The mode.
    pub mode: AuthMode,
    /// The project; `None` where it is not known.
    pub project: Option<ProjectId>,
    /// The member.
    pub member: MemberId,
    /// The provider.
    pub provider: String,
}

/// Id bytes that stand for none: no id is made of them.
const NONE: [u8; 16] = [0; 16];

/// All sums of an org.
pub fn spends(org: OrgId) -> Key {
    of(org, "spend", &[])
}

/// All sums of an org and day.
pub fn spends_of_day(org: OrgId, day: Day) -> Key {
    of(org, "spend", &[&day.0.to_be_bytes()])
}

/// All sums of an org, day and mode.
pub fn spends_of_mode(org: OrgId, day: Day, mode: AuthMode) -> Key {
    of(org, "spend", &[&day.0.to_be_bytes(), &[mode as u8]])
}

/// A sum.
pub fn spend(org: OrgId, of_what: &SpendOf) -> Key {
    let project = of_what.project.map_or(NONE, |project| *project.as_bytes());
    of(
        org,
        "spend",
        &[
            &of_what.day.0.to_be_bytes(),
            &[of_what.mode as u8],
            &project,
            of_what.member.as_bytes(),
            of_what.provider.as_bytes(),
        ],
    )
}

/// What a key made by [`spend`] is the sum for.
pub fn spend_of(org: OrgId, key: &Key) -> Option<SpendOf> {
    let rest = key.0.strip_prefix(spends(org).as_bytes())?;
    let (day, rest) = rest.split_first_chunk::<4>()?;
    let (mode, rest) = rest.split_first()?;
    let (project, rest) = rest.split_first_chunk::<16>()?;
    let (member, provider) = rest.split_first_chunk::<16>()?;
    Some(SpendOf {
        day: Day(u32::from_be_bytes(*day)),
        mode: *AuthMode::ORDER.get(usize::from(*mode))?,
        project: (*project != NONE).then(|| Id::from_bytes(*project)),
        member: Id::from_bytes(*member),
        provider: String::from_utf8(provider.to_vec()).ok()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sums_key_says_what_it_is_for() {
        let org = Id::from_bytes([7; 16]);
        for (mode, project) in AuthMode::ORDER
            .into_iter()
            .zip([None, Some(Id::from_bytes([1; 16]))].into_iter().cycle())
        {
            let of_what = SpendOf {
                day: Day(20_000),
                mode,
                project,
                member: Id::from_bytes([2; 16]),
                provider: "demo".to_owned(),
            };
            let key = spend(org, &of_what);
            assert_eq!(spend_of(org, &key), Some(of_what));
            assert!(
                key.as_bytes()
                    .starts_with(spends_of_mode(org, Day(20_000), mode).as_bytes())
            );
            assert_eq!(spend_of(Id::from_bytes([8; 16]), &key), None);
        }
    }
}
