//! The policy of the whole broker at one moment: matrices, pins and profiles of all orgs.
//!
//! A [`Policy`] never changes. A change makes a new one, which shares with the old one whatever stayed the same,
//! so that whoever has taken hold of one sees one version from start to end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use super::id::{OrgId, ProjectId};
use super::matrix::{Cascade, Matrix};
use super::mode::AuthMode;
use super::profile::Profile;

/// The policy of one org.
#[derive(Clone, Debug, Default)]
pub struct OrgPolicy {
    /// The org's own cells.
    pub matrix: Matrix,
    /// The cells of its projects; a project without cells is not in it.
    pub projects: HashMap<ProjectId, Matrix>,
    /// The executors that are held to one mode, by name.
    pub pins: BTreeMap<String, AuthMode>,
    /// The profiles, by name.
    pub profiles: HashMap<String, Arc<Profile>>,
    /// A version at or after that of the last change to any of this.
    pub changed: u64,
}

impl OrgPolicy {
    /// The most profiles an org has.
    pub const MAX_PROFILES: usize = 10_000;
    /// The most cells that the scopes of one org have together.
    pub const MAX_CELLS: usize = 10_000;

    /// The cells of a project.
    pub fn project(&self, project: ProjectId) -> &Matrix {
        self.projects.get(&project).unwrap_or(&NO_CELLS)
    }

    /// How many cells all of its scopes have.
    pub fn cells(&self) -> usize {
        let projects = self.projects.values().map(|matrix| matrix.cells().len());
        self.matrix.cells().len() + projects.sum::<usize>()
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.cells() == 0 && self.pins.is_empty() && self.profiles.is_empty()
    }
}

/// The policy of the whole broker, in one version.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Its version: one more with each change of anything.
    pub version: u64,
    /// The system's cells.
    pub system: Matrix,
    /// A version at or after that of the last change to the system's cells.
    pub system_changed: u64,
    /// The orgs that say anything.
    pub orgs: HashMap<OrgId, Arc<OrgPolicy>>,
}

static NO_CELLS: LazyLock<Matrix> = LazyLock::new(Matrix::default);
static NOTHING: LazyLock<OrgPolicy> = LazyLock::new(OrgPolicy::default);

impl Policy {
    /// The policy of an org; an empty one where it says nothing.
    pub fn org(&self, org: OrgId) -> &OrgPolicy {
        self.orgs.get(&org).map_or(&NOTHING, |policy| policy)
    }

    /// The scopes that a resolution in this project passes through.
    pub fn cascade(&self, org: OrgId, project: ProjectId) -> Cascade<'_> {
        let org = self.org(org);
        Cascade::new(&self.system, &org.matrix, org.project(project))
    }

    /// The scopes above a project's own, as in a project without cells.
    pub fn above_projects(&self, org: OrgId) -> Cascade<'_> {
        Cascade::new(&self.system, &self.org(org).matrix, &NO_CELLS)
    }

    /// The one mode that an executor is held to.
    pub fn pin(&self, org: OrgId, executor: &str) -> Option<AuthMode> {
        self.org(org).pins.get(executor).copied()
    }

    /// The profile of this name.
    pub fn profile(&self, org: OrgId, name: &str) -> Option<&Arc<Profile>> {
        self.org(org).profiles.get(name)
    }
}
