//! How many leases stand on each credential of an org: one pass over the org's leases for all of them, not one each.
//!
//! What was counted serves for twenty times as long as counting took. So a small org's counts are as of now, and
//! counting costs at most a twentieth of a core an org, however often it is asked for and however many leases there
//! are. Who asks while it is counted waits for that count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::describe::MAX_SCANNED;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::lease::Lease;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::{MAX_SCAN, keys};

/// How much longer a count serves than counting took.
const SERVES: u32 = 20;
/// Of how many orgs counts are kept.
const MAX_ORGS: usize = 256;

/// How many leases stand on each credential of an org.
pub(super) struct Dependents {
    by_credential: HashMap<CredentialId, u32>,
    /// Whether there are more leases than were looked through.
    pub(super) more: bool,
    /// When it was counted, and how long that took, on the clock that only goes forward.
    at: Duration,
    took: Duration,
}

impl Dependents {
    /// How many stand on this one.
    pub(super) fn of(&self, id: CredentialId) -> u32 {
        self.by_credential.get(&id).copied().unwrap_or(0)
    }

    fn serves(&self, now: Duration) -> bool {
        now < self.at + self.took * SERVES
    }
}

type Place = Arc<tokio::sync::Mutex<Option<Arc<Dependents>>>>;

/// The counts that were made lately.
#[derive(Default)]
pub(in crate::service) struct Counted(Mutex<HashMap<OrgId, Place>>);

impl Counted {
    fn place(&self, org: OrgId) -> Place {
        let mut orgs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orgs.len() >= MAX_ORGS && !orgs.contains_key(&org) {
            // What nobody waits for can be counted anew.
            orgs.retain(|_, place| Arc::strong_count(place) > 1);
        }
        Arc::clone(orgs.entry(org).or_default())
    }
}

impl Broker {
    /// How many leases stand on each credential of the org, as of a moment ago.
    pub(super) async fn count_dependents(&self, org: OrgId) -> Result<Arc<Dependents>, Refusal> {
        let place = self.dependents.place(org);
        let mut counted = place.lock().await;
        if let Some(counted) = counted
            .as_ref()
            .filter(|counted| counted.serves(self.clock.monotonic()))
        {
            return Ok(Arc::clone(counted));
        }
        let fresh = Arc::new(self.look_through_leases(org).await?);
        *counted = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    async fn look_through_leases(&self, org: OrgId) -> Result<Dependents, Refusal> {
        let (now, began) = (self.now(), self.clock.monotonic());
        let (list, mut by_credential) = (keys::leases(org), HashMap::new());
        // Many leases are the same holder's for the same task.
        let mut known = HashMap::new();
        let (mut scanned, mut after) = (0, None);
        let more = loop {
            let rows = self
                .records
                .scan::<Lease>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            scanned += rows.len();
            for lease in rows.iter().map(|(_, lease)| &lease.value) {
                let Some(credential) = lease.credential.filter(|_| lease.stands(now)) else {
                    continue;
                };
                let holding = (lease.holder, lease.task, lease.member);
                let held = match known.get(&holding) {
                    Some(held) => *held,
                    None => {
                        let held = self.is_held(lease).await?;
                        known.insert(holding, held);
                        held
                    }
                };
                if held {
                    *by_credential.entry(credential).or_insert(0) += 1;
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) if scanned < MAX_SCANNED => after = Some(key),
                Some(_) => break true,
                None => break false,
            }
            tokio::task::yield_now().await;
        };
        let at = self.clock.monotonic();
        Ok(Dependents {
            by_credential,
            more,
            at,
            took: at.saturating_sub(began),
        })
    }
}
