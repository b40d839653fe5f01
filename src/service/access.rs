//! The caller itself, as the broker sees it, and what tokens of all kinds have in common.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use crate::domain::actor::{Actor, Caller, Shown};
use crate::domain::directory::{ApiKey, Group, Member, Operator};
use crate::domain::id::ProjectId;
use crate::domain::refusal::Refusal;
use crate::domain::role::Grant;
use crate::domain::time::Time;
use crate::store::keys;
use crate::store::record::Stored;

/// Who the broker takes the caller for.
#[derive(Clone, Debug)]
pub struct WhoAmI {
    /// The actor.
    pub actor: Actor,
    /// What it showed.
    pub shown: Shown,
    /// Until when that is good.
    pub expires: Option<Time>,
    /// The roles of a human.
    pub grants: Vec<Grant>,
    /// What an API key may be used for.
    pub groups: Vec<Group>,
    /// The projects an API key is confined to; none: the whole org.
    pub projects: Vec<ProjectId>,
    /// The broker's trust domain.
    pub trust_domain: String,
}

const DAY: Duration = Duration::from_secs(86_400);
/// How long an operator token or API key is good for where nothing was said.
pub(super) const TOKEN_TTL: Duration = DAY.saturating_mul(90);
/// How long one is good for at most.
pub(super) const TOKEN_TTL_MAX: Duration = DAY.saturating_mul(365);
const TTL_MIN: Duration = Duration::from_secs(60);
const OVERLAP: Duration = Duration::from_secs(3_600);
const OVERLAP_MAX: Duration = DAY.saturating_mul(7);

/// A time to live within bounds; `None` for the default.
pub(super) fn checked_ttl(
    ttl: Option<Duration>,
    default: Duration,
    max: Duration,
) -> Result<Duration, Refusal> {
    let ttl = ttl.unwrap_or(default);
    if ttl < TTL_MIN || ttl > max {
        let max = max.as_secs() / 86_400;
        return Err(Refusal::invalid("ttl", format!("ttl is 1 minute to {max} days")));
    }
    Ok(ttl)
}

/// How long a token that is rotated away stays good, within bounds; `None` for the default.
pub(super) fn checked_overlap(overlap: Option<Duration>) -> Result<Duration, Refusal> {
    let overlap = overlap.unwrap_or(OVERLAP);
    if overlap > OVERLAP_MAX {
        return Err(Refusal::invalid("overlap", "overlap is 0 to 7 days"));
    }
    Ok(overlap)
}

impl Broker {
    /// Who the caller is.
    pub async fn who_am_i(&self, caller: &Caller) -> Result<WhoAmI, Refusal> {
        let (mut groups, mut projects) = (Vec::new(), Vec::new());
        if let Actor::ApiKey { id, org } = *caller.actor() {
            let key: Stored<ApiKey> = self.read(&keys::api_key(org, id), "API key").await?;
            groups = key.value.groups();
            projects = key.value.projects.clone().unwrap_or_default();
        }
        Ok(WhoAmI {
            actor: *caller.actor(),
            shown: caller.shown(),
            expires: caller.expires(),
            grants: self.grants_of(caller).await?,
            groups,
            projects,
            trust_domain: self.authority.trust_domain().to_string(),
        })
    }

    /// The roles the caller holds now; only humans hold any.
    pub(super) async fn grants_of(&self, caller: &Caller) -> Result<Vec<Grant>, Refusal> {
        match *caller.actor() {
            Actor::Operator(id) => {
                let operator: Arc<Operator> = self.read(&keys::operator(id), "operator").await?.value;
                Ok(operator.grants())
            }
            Actor::Member { id, org } => {
                let member: Arc<Member> = self.read(&keys::member(org, id), "member").await?.value;
                Ok(member.grants())
            }
            Actor::ApiKey { .. } | Actor::Agent(_) => Ok(Vec::new()),
        }
    }
}
