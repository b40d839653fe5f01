//! From the stored rows to the snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use super::Writer;
use crate::domain::id::{OrgId, ProjectId};
use crate::domain::matrix::{Cell, Matrix};
use crate::domain::policy::{OrgPolicy, Policy};
use crate::domain::profile::Profile;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::MAX_SCAN;
use crate::store::keys::{self, Key};
use crate::store::model::{PolicyHead, PolicyPage, PolicyPins};
use crate::store::record::{Record, Stored};

fn damaged(what: &str) -> Refusal {
    tracing::error!(what, "the stored policy cannot be used");
    Refusal::new(Reason::Internal, "the stored policy cannot be used")
}

fn compiled(cells: Vec<Cell>) -> Result<Matrix, Refusal> {
    Matrix::new(cells).map_err(|error| damaged(&error.to_string()))
}

impl Broker {
    /// Compiles the policy from the store. Called once, before anything is served.
    pub(in crate::service) async fn load_policy(&self) -> Result<(), Refusal> {
        let mut writer = self.policies.writer.lock().await;
        self.reload_policy(&mut writer).await
    }

    /// Where a change ended without telling whether it was made, puts in force what the store has. Tells whether
    /// there was anything to do.
    pub async fn mend_policy(&self) -> Result<bool, Refusal> {
        let mut writer = self.policies.writer.lock().await;
        if !writer.behind {
            return Ok(false);
        }
        let before = self.policy().version;
        self.reload_policy(&mut writer).await?;
        let version = self.policy().version;
        if version > before {
            // What the change was is not known any more, so all who watch hear of it.
            self.policy_changed(None, version);
        }
        Ok(true)
    }

    /// Compiles the policy from the store, for whoever may change it.
    pub(super) async fn reload_policy(&self, writer: &mut Writer) -> Result<(), Refusal> {
        let head = self.records.get::<PolicyHead>(&keys::policy_head()).await?;
        let version = head.as_ref().map_or(0, |head| head.value.version);
        type Scope = (Option<OrgId>, Option<ProjectId>);
        let mut cells: HashMap<Scope, Vec<Cell>> = HashMap::new();
        for (key, page) in self.every::<PolicyPage>(&keys::policy_pages()).await? {
            let scope = keys::policy_page_scope(&key).ok_or_else(|| damaged("the key of a page"))?;
            cells
                .entry(scope)
                .or_default()
                .extend(page.value.cells.iter().cloned());
        }
        let mut system = Matrix::default();
        let mut orgs: HashMap<OrgId, OrgPolicy> = HashMap::new();
        for (scope, cells) in cells {
            let matrix = compiled(cells)?;
            match scope {
                (None, _) => system = matrix,
                (Some(org), None) => orgs.entry(org).or_default().matrix = matrix,
                (Some(org), Some(project)) => {
                    orgs.entry(org).or_default().projects.insert(project, matrix);
                }
            }
        }
        for (key, pins) in self.every::<PolicyPins>(&keys::all_policy_pins()).await? {
            let org = keys::pins_org(&key).ok_or_else(|| damaged("the key of pins"))?;
            orgs.entry(org).or_default().pins = pins.value.pins.iter().cloned().collect();
        }
        for (key, profile) in self.every::<Profile>(&keys::all_profiles()).await? {
            let org = keys::profile_org(&key).ok_or_else(|| damaged("the key of a profile"))?;
            let profiles = &mut orgs.entry(org).or_default().profiles;
            profiles.insert(profile.value.name.to_string(), profile.value);
        }
        let orgs = orgs.into_iter().map(|(id, org)| {
            // When each was changed is not known any more: as late as may be.
            let org = OrgPolicy {
                changed: version,
                ..org
            };
            (id, Arc::new(org))
        });
        let policy = Policy {
            version,
            system,
            system_changed: version,
            orgs: orgs.collect(),
        };
        self.policies.current.store(Arc::new(policy));
        *writer = Writer {
            head: head.map(|head| head.revision),
            behind: false,
        };
        Ok(())
    }

    async fn every<T: Record>(&self, list: &Key) -> Result<Vec<(Key, Stored<T>)>, Refusal> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|(key, _): &(Key, Stored<T>)| key);
            let rows = self.records.scan::<T>(list.as_bytes(), after, MAX_SCAN).await?;
            let more = rows.len() == MAX_SCAN;
            all.extend(rows);
            if !more {
                return Ok(all);
            }
        }
    }
}
