//! Revocations as callers see them, and when they are forgotten.

use crate::domain::actor::Caller;
use crate::domain::id::OrgId;
use crate::domain::refusal::Refusal;
use crate::domain::revocation::Revocation;
use crate::service::Broker;
use crate::service::page::{Page, PageRequest};
use crate::service::scope::parse_id;
use crate::store::model::{Pointer, RevocationSecret};
use crate::store::record::Changes;
use crate::store::{MAX_SCAN, keys};
use std::sync::Arc;

impl Broker {
    /// A revocation at a provider.
    pub async fn get_revocation(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<Revocation>, Refusal> {
        let place = self.place(caller, org).await?;
        let key = keys::revocation(place.id(), parse_id("revocation", id)?);
        let stored = self.records.get::<Revocation>(&key).await?;
        let revocation = stored.ok_or_else(|| Refusal::not_found("revocation"))?.value;
        place.admit("revocation", None, revocation.member)?;
        Ok(revocation)
    }

    /// The revocations that are under way, and those that ended within the last week.
    pub async fn list_revocations(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Arc<Revocation>>, Refusal> {
        let place = self.place(caller, org).await?;
        let now = self.now();
        let mut page = self
            .page::<Revocation>(&keys::revocations(place.id()), page)
            .await?
            .map(|stored| stored.value);
        page.rows
            .retain(|one| place.within.admits(None, one.member) && !one.is_over(now));
        Ok(page)
    }

    /// Forgets revocations of the org that ended long ago.
    pub(in crate::service) async fn collect_revocations(&self, org: OrgId) -> Result<(), Refusal> {
        let (now, mut after) = (self.now(), None);
        loop {
            let list = keys::revocations(org);
            let rows = self
                .records
                .scan::<Revocation>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            for (key, stored) in rows.iter().filter(|(_, stored)| stored.value.is_over(now)) {
                let mut changes = Changes::default()
                    .at(key, stored.revision)
                    .delete::<Revocation>(key)
                    .delete::<RevocationSecret>(&keys::revocation_secret(org, stored.value.id));
                if let Some(credential) = stored.value.credential {
                    changes = changes.delete::<Pointer>(&keys::revocation_of(org, credential));
                }
                let _applied = self.records.commit(changes).await?;
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }
}
