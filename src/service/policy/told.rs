//! What people call the orgs and projects of a change.

use std::collections::{BTreeSet, HashMap};

use super::impact::Affected;
use crate::domain::amendment::Diff;
use crate::domain::directory::{Org, Project};
use crate::domain::id::{OrgId, ProjectId};
use crate::domain::impact::{Bounded, ModeChange};
use crate::domain::refusal::Refusal;
use crate::domain::role::Scope;
use crate::service::Broker;
use crate::store::keys;

/// Names by id. What has gone has none.
#[derive(Clone, Debug, Default)]
pub struct Names {
    orgs: HashMap<OrgId, String>,
    projects: HashMap<ProjectId, String>,
}

impl Names {
    /// An org's name.
    pub fn org(&self, id: OrgId) -> &str {
        self.orgs.get(&id).map_or("", String::as_str)
    }

    /// A project's name.
    pub fn project(&self, id: ProjectId) -> &str {
        self.projects.get(&id).map_or("", String::as_str)
    }
}

impl Broker {
    pub(super) async fn names_in(
        &self,
        diff: &Diff,
        modes: &Bounded<ModeChange>,
        agents: &Bounded<Affected>,
    ) -> Result<Names, Refusal> {
        let mut places: BTreeSet<(OrgId, Option<ProjectId>)> =
            diff.orgs().into_iter().map(|org| (org, None)).collect();
        places.extend(diff.scopes.iter().filter_map(|change| match change.scope {
            Scope::Project(org, project) => Some((org, Some(project))),
            _ => None,
        }));
        places.extend(modes.rows.iter().filter_map(|row| Some((row.org?, row.project))));
        places.extend(
            agents
                .rows
                .iter()
                .map(|row| (row.task.org, Some(row.task.project))),
        );
        self.names_of(places).await
    }

    /// The names of these orgs and projects.
    pub(super) async fn names_of(
        &self,
        places: impl IntoIterator<Item = (OrgId, Option<ProjectId>)>,
    ) -> Result<Names, Refusal> {
        let mut names = Names::default();
        for (id, project) in places {
            if !names.orgs.contains_key(&id)
                && let Some(org) = self.records.get::<Org>(&keys::org(id)).await?
            {
                names.orgs.insert(id, org.value.name.clone());
            }
            if let Some(project) = project
                && let Some(found) = self.records.get::<Project>(&keys::project(id, project)).await?
            {
                names.projects.insert(project, found.value.name.clone());
            }
        }
        Ok(names)
    }
}
