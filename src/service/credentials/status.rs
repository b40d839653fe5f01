//! How credentials stand: health, since when, why, who depends on them, and what to do.

use std::sync::Arc;

use super::dependents::Dependents;
use super::reported::LastError;
use crate::domain::actor::Caller;
use crate::domain::credential::{Credential, Health};
use crate::domain::key_test::Checked;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::page::{Page, PageRequest};
use crate::service::scope::parse_id;
use crate::store::keys;

/// How a credential stands.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// The credential.
    pub credential: Arc<Credential>,
    /// Its health now.
    pub health: Health,
    /// Since when, as far as is known.
    pub since: Time,
    /// What is not well.
    pub last_error: LastError,
    /// How many leases stand on it, as of a moment ago.
    pub dependents: u32,
    /// Whether there may be more than that.
    pub more_dependents: bool,
    /// What the last test of its present secret found out.
    pub tested: Option<Arc<Checked>>,
    /// What to do about it, in words; empty where there is nothing to do.
    pub next_step: String,
}

/// Which credentials are wanted.
#[derive(Clone, Copy, Debug)]
pub struct StatusFilter<'a> {
    /// Only this member's; empty: all that the caller sees.
    pub member: &'a str,
    /// Only those of one of these; none: whatever their health.
    pub health: &'a [Health],
}

impl CredentialStatus {
    /// What the account subscribes to and its tier within that, in the provider's words.
    pub fn plan(&self) -> (Option<&str>, Option<&str>) {
        (self.fact("subscription"), self.fact("tier"))
    }

    fn fact(&self, label: &str) -> Option<&str> {
        let facts = &self.credential.account;
        let found = facts.iter().find(|(known, _)| known == label);
        found.map(|(_, value)| value.as_str())
    }
}

impl Broker {
    /// How one credential stands.
    pub async fn credential_status(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<CredentialStatus, Refusal> {
        let place = self.place(caller, org).await?;
        let credential = self
            .credential(place.id(), parse_id("credential", id)?)
            .await?
            .value;
        place.admit("credential", None, credential.owner.member())?;
        let dependents = self.count_dependents(place.id()).await?;
        let health = self.health(&credential);
        self.told_of(credential, health, &dependents).await
    }

    /// How credentials of the org stand: those of them that the caller sees and wants.
    pub async fn credential_statuses(
        &self,
        caller: &Caller,
        org: &str,
        filter: StatusFilter<'_>,
        page: PageRequest<'_>,
    ) -> Result<Page<CredentialStatus>, Refusal> {
        let place = self.place(caller, org).await?;
        let org = place.id();
        let member = match filter.member {
            "" => None,
            named => {
                let member = self.member(org, named).await?.value.id;
                place.admit("member", None, Some(member))?;
                Some(member)
            }
        };
        let mut search = self.search::<Credential, _>(keys::credentials(org), page)?;
        let dependents = self.count_dependents(org).await?;
        while let Some(stored) = search.next().await? {
            let credential = stored.value;
            let owner = credential.owner.member();
            let wanted = member.is_none() || owner == member;
            if !wanted || !place.within.admits(None, owner) {
                continue;
            }
            let health = self.health(&credential);
            if filter.health.is_empty() || filter.health.contains(&health) {
                search.take(self.told_of(credential, health, &dependents).await?);
            }
        }
        Ok(search.page())
    }

    async fn told_of(
        &self,
        credential: Arc<Credential>,
        health: Health,
        dependents: &Dependents,
    ) -> Result<CredentialStatus, Refusal> {
        let last_error = self.last_error(&credential).await?;
        Ok(CredentialStatus {
            tested: self.last_check(&credential).await?,
            health,
            since: credential.since(self.now(), self.lead(&credential)),
            dependents: dependents.of(credential.id),
            more_dependents: dependents.more,
            next_step: credential.next_step(health, last_error.reported),
            last_error,
            credential,
        })
    }
}
