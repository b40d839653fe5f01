//! A credential with where it comes from and who depends on it.

use std::sync::Arc;

use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, LeaseId, MemberId, OrgId, TaskId};
use crate::domain::lease::{Holder, Lease};
use crate::domain::lineage::Lineage;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::scope::parse_id;
use crate::store::{MAX_SCAN, keys};

/// The most dependents told, and the most leases looked through for them.
const MAX_TOLD: usize = 1_000;
pub(super) const MAX_SCANNED: usize = 50_000;

/// A credential with all that is known of it.
pub struct Described {
    /// The credential.
    pub credential: Arc<Credential>,
    /// Its generations; none of a key.
    pub lineage: Arc<Lineage>,
    /// Who depends on it.
    pub dependents: Vec<Dependent>,
    /// Whether there are more than are told.
    pub more: bool,
}

/// A lease that stands on a credential: while the credential cannot be used, its holder waits.
#[derive(Clone, Copy, Debug)]
pub struct Dependent {
    /// The lease.
    pub lease: LeaseId,
    /// Who has it.
    pub holder: Holder,
    /// The task; `None`: a direct resolution for a member.
    pub task: Option<TaskId>,
    /// The member it works for.
    pub member: MemberId,
    /// The generation last handed out; `None` where that was not kept.
    pub generation: Option<u64>,
    /// When the lease ends.
    pub expires: Time,
}

impl Broker {
    /// A credential with its generations and those who depend on it, without its secret.
    pub async fn describe_credential(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Described, Refusal> {
        let place = self.place(caller, org).await?;
        let (org, id) = (place.id(), parse_id("credential", id)?);
        let credential = self.credential(org, id).await?.value;
        place.admit("credential", None, credential.owner.member())?;
        let lineage = self.refresher.lineage(&credential).await?;
        let (dependents, more) = self.dependents(org, id).await?;
        Ok(Described {
            credential,
            lineage,
            dependents,
            more,
        })
    }

    /// The leases that stand on a credential, the oldest first, and whether there may be more.
    async fn dependents(&self, org: OrgId, id: CredentialId) -> Result<(Vec<Dependent>, bool), Refusal> {
        let (list, mut found, mut scanned, mut after) = (keys::leases(org), Vec::new(), 0, None);
        loop {
            let rows = self
                .records
                .scan::<Lease>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            scanned += rows.len();
            for lease in rows.iter().map(|(_, lease)| &lease.value) {
                if lease.credential == Some(id) && self.is_standing(lease).await? {
                    found.push(Dependent {
                        lease: lease.id,
                        holder: lease.holder,
                        task: lease.task,
                        member: lease.member,
                        generation: lease.handed.map(|handed| handed.generation),
                        expires: lease.expires,
                    });
                }
            }
            let full = found.len() > MAX_TOLD;
            found.truncate(MAX_TOLD);
            match rows.into_iter().last() {
                Some(_) if full || scanned >= MAX_SCANNED => return Ok((found, true)),
                Some((key, _)) => after = Some(key),
                None => return Ok((found, false)),
            }
        }
    }
}
