//! The health of a credential: at a glance, since when, and what to do about it.

use std::time::Duration;

use super::credential::Credential;
use super::rotation::{Death, Phase};
use super::time::Time;

/// The health of a credential at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Usable.
    Ok,
    /// Usable, and due for a refresh.
    Expiring,
    /// A refresh is under way.
    Refreshing,
    /// A refresh was sent and its answer is not known.
    Ambiguous,
    /// Kept and not used.
    Quarantined,
    /// Someone has to sign in again.
    ReauthRequired,
    /// A key whose time is over: someone has to store another.
    Expired,
    /// The provider replaced the grant, and its answer was lost before it could be kept: someone has to sign in again.
    GrantLost,
}

impl Health {
    /// All of them, the worst first: what needs a person, then what may, then what mends itself.
    pub const WORST_FIRST: [Health; 8] = [
        Health::GrantLost,
        Health::ReauthRequired,
        Health::Expired,
        Health::Quarantined,
        Health::Ambiguous,
        Health::Expiring,
        Health::Refreshing,
        Health::Ok,
    ];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Health::Ok => "ok",
            Health::Expiring => "expiring",
            Health::Refreshing => "refreshing",
            Health::Ambiguous => "ambiguous",
            Health::Quarantined => "quarantined",
            Health::ReauthRequired => "reauth-required",
            Health::Expired => "expired",
            Health::GrantLost => "grant-lost",
        }
    }

    /// Whether nobody is handed the credential until a person has done something about it.
    pub const fn needs_a_person(self) -> bool {
        match self {
            Health::Ok | Health::Expiring | Health::Refreshing | Health::Ambiguous => false,
            Health::Quarantined | Health::ReauthRequired | Health::Expired | Health::GrantLost => true,
        }
    }
}

impl Phase {
    /// The health of a credential that stands there, whatever the time; `None` where the time decides.
    pub const fn health(&self) -> Option<Health> {
        Some(match self {
            Phase::Live { .. } => return None,
            Phase::Claimed { .. } | Phase::Staged { .. } => Health::Refreshing,
            Phase::Ambiguous { .. } => Health::Ambiguous,
            Phase::Quarantined { .. } => Health::Quarantined,
            Phase::Dead { cause, .. } => match cause {
                Death::AnswerLost => Health::GrantLost,
                Death::Refused | Death::Expired | Death::Withdrawn => Health::ReauthRequired,
            },
        })
    }
}

impl Credential {
    /// Its health at `now`, where `lead` is how long before expiry its connector refreshes.
    pub fn health(&self, now: Time, lead: Duration) -> Health {
        match self.rotation.phase.health() {
            Some(health) => health,
            None if self.works_for(now, lead) => Health::Ok,
            // Only grants are refreshed.
            None if self.kind.is_key() => Health::Expired,
            None => Health::Expiring,
        }
    }

    /// Since when its health is what it is at `now`, as far as its state tells.
    pub fn since(&self, now: Time, lead: Duration) -> Time {
        match &self.rotation.phase {
            Phase::Quarantined { since, .. } | Phase::Dead { since, .. } => *since,
            Phase::Claimed { sent, .. } | Phase::Staged { sent } | Phase::Ambiguous { sent, .. } => {
                sent.first
            }
            Phase::Live { .. } => match self.health(now, lead) {
                Health::Ok => self.refreshed,
                _ => self.expires.map_or(self.refreshed, |expires| {
                    self.refreshed.max(before(expires, lead))
                }),
            },
        }
    }

    /// What to do about a health, in words; empty where there is nothing to do. `reported`: whether somebody reports
    /// what it hands out as rejected, though all looks well from here.
    pub fn next_step(&self, health: Health, reported: bool) -> String {
        let id = self.id;
        let sign_in = format!("sign in again: credbroker account connect {}", self.connector);
        match health {
            Health::Ok if reported && self.kind.is_key() => {
                format!(
                    "try it: credbroker credential test {id}; where the provider rejects it, store another key"
                )
            }
            Health::Ok if reported => sign_in,
            Health::Expiring if self.rotation.failures > 0 => {
                "wait: the refresh failed, and is tried again by itself".to_owned()
            }
            Health::Ok | Health::Expiring | Health::Refreshing => String::new(),
            Health::Ambiguous => {
                "wait: the provider is asked again by itself, and what became of the grant is told then"
                    .to_owned()
            }
            Health::Quarantined => {
                format!("find the other copy of this login and stop using it there, then {sign_in}")
            }
            Health::ReauthRequired | Health::GrantLost => sign_in,
            Health::Expired => "store another key: credbroker credential set".to_owned(),
        }
    }
}

/// So long before `time`.
fn before(time: Time, span: Duration) -> Time {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Time::from_millis(time.millis().saturating_sub(span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;
    use crate::domain::mode::CredentialKind;
    use crate::domain::owner::Owner;
    use crate::domain::rotation::{Rotation, Sent};

    const LEAD: Duration = Duration::from_secs(300);

    fn at(seconds: i64) -> Time {
        Time::from_seconds(1_000_000 + seconds)
    }

    fn credential(kind: CredentialKind, phase: Phase, expires: Option<Time>) -> Credential {
        Credential {
            id: Id::from_bytes([1; 16]),
            org: Id::from_bytes([2; 16]),
            owner: Owner::Org,
            provider: "demo".to_owned(),
            kind,
            connector: "demo".to_owned(),
            rotation: Rotation {
                phase,
                ..Rotation::new()
            },
            expires,
            created: at(0),
            refreshed: at(100),
            hint: String::new(),
            scopes: Vec::new(),
            token_type: "Bearer".to_owned(),
            account: Vec::new(),
            executor: None,
            region: None,
        }
    }

    fn grant(phase: Phase) -> Credential {
        credential(CredentialKind::OAuthGrant, phase, Some(at(1_000)))
    }

    fn dead(cause: Death) -> Phase {
        Phase::Dead {
            since: at(150),
            cause,
            message: String::new(),
        }
    }

    #[test]
    fn a_grant_whose_replacement_was_lost_is_told_from_one_that_was_refused() {
        for (cause, health) in [
            (Death::AnswerLost, Health::GrantLost),
            (Death::Refused, Health::ReauthRequired),
            (Death::Expired, Health::ReauthRequired),
            (Death::Withdrawn, Health::ReauthRequired),
        ] {
            let dead = grant(dead(cause));
            assert_eq!(dead.health(at(200), LEAD), health);
            assert_eq!(dead.since(at(200), LEAD), at(150));
            assert!(dead.next_step(health, false).contains("account connect demo"));
        }
    }

    #[test]
    fn since_when_is_told_of_every_state() {
        let live = grant(Phase::rested());
        assert_eq!(live.health(at(200), LEAD), Health::Ok);
        assert_eq!(live.since(at(200), LEAD), at(100));
        assert_eq!(live.health(at(700), LEAD), Health::Expiring);
        assert_eq!(live.since(at(700), LEAD), at(700), "the lead before its end");
        assert_eq!(live.since(at(5_000), LEAD), at(700));
        // A token that is too short-lived for the lead is due from the moment it was made.
        let short = Duration::from_secs(2_000);
        assert_eq!(live.since(at(200), short), at(100));
        let key = credential(CredentialKind::ApiKey, Phase::rested(), Some(at(1_000)));
        assert_eq!(key.health(at(999), Duration::ZERO), Health::Ok);
        assert_eq!(key.health(at(1_000), Duration::ZERO), Health::Expired);
        assert_eq!(key.since(at(1_500), Duration::ZERO), at(1_000));
        let sent = Sent {
            first: at(120),
            unanswered: 1,
        };
        let staged = grant(Phase::Staged { sent });
        assert_eq!(staged.health(at(200), LEAD), Health::Refreshing);
        assert_eq!(staged.since(at(200), LEAD), at(120));
    }

    #[test]
    fn the_worst_comes_first_and_none_is_left_out() {
        let mut names: Vec<_> = Health::WORST_FIRST.map(Health::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Health::WORST_FIRST.len());
        let first_that_can_wait = Health::WORST_FIRST
            .iter()
            .position(|health| !health.needs_a_person());
        assert_eq!(first_that_can_wait, Some(4));
        assert!(
            Health::WORST_FIRST[4..]
                .iter()
                .all(|health| !health.needs_a_person())
        );
    }

    #[test]
    fn what_mends_itself_asks_for_nothing_and_what_does_not_says_what_to_do() {
        let (live, key) = (
            grant(Phase::rested()),
            credential(CredentialKind::ApiKey, Phase::rested(), None),
        );
        for health in [Health::Ok, Health::Expiring, Health::Refreshing] {
            assert_eq!(live.next_step(health, false), "");
        }
        for health in Health::WORST_FIRST
            .into_iter()
            .filter(|health| health.needs_a_person())
        {
            assert!(!live.next_step(health, false).is_empty(), "{health:?}");
        }
        assert!(key.next_step(Health::Ok, true).contains("credential test crd_"));
        assert!(live.next_step(Health::Ok, true).contains("account connect"));
    }
}
