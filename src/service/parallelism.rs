//! How many leases stand at once on a personal subscription: who counts, and who says how many may.
//!
//! Providers sell such accounts to one person each, and may close one that looks like many. So the grants of
//! connectors with `sharing = "personal"` have a cap, low by default, that only an admin raises, credential by
//! credential. What is listed under it is looked at when it is full, and never counted back: see
//! [`crate::domain::parallelism`].

use std::sync::Arc;

use super::Broker;
use super::effect::Undone;
use super::scope::parse_id;
use crate::domain::actor::{Actor, Caller};
use crate::domain::agent::Agent;
use crate::domain::credential::Credential;
use crate::domain::directory::{ApiKey, Member, Operator};
use crate::domain::id::{LeaseId, OrgId};
use crate::domain::journal::Action;
use crate::domain::lease::{Holder, Lease};
use crate::domain::mode::CredentialKind;
use crate::domain::parallelism::{MOST, Parallel, come_again};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::{Task, TaskClaims};
use crate::store::keys;
use crate::store::record::{Changes, Stored};
use crate::upstream::connector::Sharing;

/// How many leases may stand at once on a credential, and how many do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallelism {
    /// As many as may.
    pub cap: u32,
    /// Whether that was said of this credential, rather than of all.
    pub set: bool,
    /// As many as do.
    pub standing: usize,
}

/// How often a cap is set again when the credential changes at the same moment.
const ATTEMPTS: usize = 16;
/// How many of those who have the places are named.
const MAX_NAMED: usize = 8;

impl Broker {
    /// Whether only so many leases may stand on the credential at once. A grant whose connector is not configured any
    /// more counts as personal: taking a connector out lifts no cap.
    pub(super) fn is_capped(&self, credential: &Credential) -> bool {
        let connector = self.connectors.get(&credential.connector);
        credential.kind == CredentialKind::OAuthGrant
            && connector.is_none_or(|connector| connector.sharing == Sharing::Personal)
    }

    /// The places on a credential; `None` where none was ever taken.
    pub(super) async fn parallel(
        &self,
        credential: &Credential,
    ) -> Result<Option<Stored<Parallel>>, Refusal> {
        let key = keys::parallel(credential.org, credential.id);
        Ok(self.records.get::<Parallel>(&key).await?)
    }

    /// Those of the leases that stand.
    pub(super) async fn standing_of(
        &self,
        org: OrgId,
        leases: &[LeaseId],
    ) -> Result<Vec<Arc<Lease>>, Refusal> {
        let mut standing = Vec::with_capacity(leases.len());
        for id in leases {
            let lease = self.records.get::<Lease>(&keys::lease(org, *id)).await?;
            if let Some(lease) = lease
                && self.is_standing(&lease.value).await?
            {
                standing.push(lease.value);
            }
        }
        Ok(standing)
    }

    /// Whether a lease is good for anything still. What ends its holder, task or member ends it for good, whether its
    /// own record says so by then or not. A lock ends nothing: once it is lifted, the lease goes on.
    pub(super) async fn is_standing(&self, lease: &Lease) -> Result<bool, Refusal> {
        Ok(lease.stands(self.now()) && self.is_held(lease).await?)
    }

    /// Whether holder, task and member of a lease are what they have to be for it to stand.
    pub(super) async fn is_held(&self, lease: &Lease) -> Result<bool, Refusal> {
        let (org, now) = (lease.org, self.now());
        let held = match lease.holder {
            Holder::Agent(id) => {
                let agent = self.records.get::<Agent>(&keys::agent(org, id)).await?;
                agent.is_some_and(|agent| agent.value.ended().is_none())
            }
            Holder::ApiKey(id) => {
                let key = self.records.get::<ApiKey>(&keys::api_key(org, id)).await?;
                key.is_some_and(|key| key.value.is_live(now))
            }
            Holder::Operator(id) => {
                let token = self.records.get::<Operator>(&keys::operator(id)).await?;
                token.is_some_and(|token| token.value.is_live(now))
            }
        };
        if !held {
            return Ok(false);
        }
        if let Some(id) = lease.task {
            let task = self.records.get::<Task>(&keys::task(org, id)).await?;
            if task.is_none_or(|task| task.value.live(now, TaskClaims::default()).is_err()) {
                return Ok(false);
            }
        }
        let member = self
            .records
            .get::<Member>(&keys::member(org, lease.member))
            .await?;
        Ok(member.is_some_and(|member| member.value.removed.is_none()))
    }

    /// The refusal of a lease for which there is no place. Who has the places is told to people: an agent is not
    /// told of others.
    pub(super) fn at_limit(
        &self,
        caller: &Caller,
        credential: &Credential,
        cap: u32,
        standing: &[Arc<Lease>],
    ) -> Refusal {
        let count = standing.len();
        let mut message =
            format!("{count} leases stand on this personal subscription, and {cap} may stand on it at once");
        let mut refusal = Refusal::new(Reason::ParallelismLimit, "")
            .with("credential", credential.id.to_string())
            .with("cap", cap.to_string())
            .with("standing", count.to_string());
        if let Some(next) = standing.iter().map(|lease| lease.expires).min() {
            let at = jiff::Timestamp::from_millisecond(next.millis()).map(|at| at.to_string());
            refusal = refusal
                .with("next_end_time", at.unwrap_or_default())
                .retry_after(come_again(next, self.now()));
        }
        if matches!(caller.actor(), Actor::Member { .. } | Actor::Operator(_)) {
            let named = standing.iter().take(MAX_NAMED).map(|lease| match lease.task {
                Some(task) => format!("{} for {task}", lease.holder),
                None => lease.holder.to_string(),
            });
            let holders = named.collect::<Vec<_>>().join(", ");
            message = format!("{message}; held by {holders}");
            refusal = refusal.with("holders", holders);
        }
        Refusal { message, ..refusal }
    }

    /// How many leases may stand at once on a credential, and how many do; `None` where as many as there are.
    pub async fn parallelism(&self, credential: &Credential) -> Result<Option<Parallelism>, Refusal> {
        if !self.is_capped(credential) {
            return Ok(None);
        }
        let stored = self.parallel(credential).await?;
        let parallel = stored.map(|stored| stored.value).unwrap_or_default();
        Ok(Some(Parallelism {
            cap: parallel.cap(self.settings().personal_parallelism),
            set: parallel.cap.is_some(),
            standing: self.standing_of(credential.org, &parallel.leases).await?.len(),
        }))
    }

    /// Says how many leases may stand at once on a credential; 0: as many as the configuration says. Ends none of those
    /// that do.
    pub async fn set_parallelism(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        cap: u32,
    ) -> Result<Arc<Credential>, Refusal> {
        if cap > MOST {
            let message = format!("parallelism is 1 to {MOST}, or 0 for as many as the configuration says");
            return Err(Refusal::invalid("parallelism", message));
        }
        let place = self.place(caller, org).await?;
        let (org, id) = (place.id(), parse_id("credential", id)?);
        let cap = (cap > 0).then_some(cap);
        let _turn = self.places.take(id).await;
        for _ in 0..ATTEMPTS {
            let stored = self.credential(org, id).await?;
            place.admit("credential", None, stored.value.owner.member())?;
            if !self.is_capped(&stored.value) {
                let message =
                    "only grants of personal subscriptions have a cap: see 'credbroker connector list'";
                return Err(Refusal::invalid("credential", message));
            }
            let before = self.parallel(&stored.value).await?;
            let parallel = before.as_ref().map(|before| Parallel::clone(&before.value));
            let parallel = parallel.unwrap_or_default();
            if parallel.cap == cap {
                return Ok(stored.value);
            }
            let key = keys::parallel(org, id);
            // Nothing stays behind of a credential that is removed at this moment.
            let changes = Changes::default().at(&keys::credential(org, id), stored.revision);
            let changes = match &before {
                Some(before) => changes.at(&key, before.revision),
                None => changes.absent(&key),
            };
            let usual = self.settings().personal_parallelism;
            let record = caller
                .record(Action::CredentialParallelism, Some(org))
                .about("credential", id)
                .about("owner", stored.value.owner)
                .about("before", parallel.cap(usual))
                .about("parallelism", cap.unwrap_or(usual));
            let changes = changes.put(&key, &Parallel { cap, ..parallel });
            match self.effect(record, changes).await {
                Ok(_) => return Ok(stored.value),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }
}
