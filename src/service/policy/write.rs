//! Changes of matrices and pins, and whole documents of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::change::{Change, Changing, PolicyChanged};
use super::check::{self, NewCell, NewProfile, once};
use crate::domain::actor::Caller;
use crate::domain::amendment::{Amendment, OrgAmendment, exactly};
use crate::domain::id::{OrgId, ProjectId};
use crate::domain::journal::Action;
use crate::domain::matrix::{Cell, Matrix};
use crate::domain::mode::AuthMode;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::Scope;
use crate::service::Broker;

/// A document: what scopes are to be.
#[derive(Clone, Debug, Default)]
pub struct NewPolicy {
    /// The system's cells.
    pub system: Option<Vec<NewCell>>,
    /// Orgs.
    pub orgs: Vec<NewOrgPolicy>,
}

/// What the scopes of an org are to be.
#[derive(Clone, Debug)]
pub struct NewOrgPolicy {
    /// The org.
    pub org: String,
    /// The org's own part.
    pub rules: Option<NewRules>,
    /// Projects and their cells.
    pub projects: Vec<(String, Vec<NewCell>)>,
}

/// What an org's own part is to be.
#[derive(Clone, Debug)]
pub struct NewRules {
    /// The cells.
    pub matrix: Vec<NewCell>,
    /// Executors and the modes they are held to.
    pub pins: Vec<(String, AuthMode)>,
    /// The profiles.
    pub profiles: Vec<NewProfile>,
}

/// A scope, as a request names it.
#[derive(Clone, Copy, Debug)]
pub struct ScopeRef<'a> {
    /// The org; empty: the system.
    pub org: &'a str,
    /// The project; empty: the org itself.
    pub project: &'a str,
}

/// What becomes of a scope's cells.
#[derive(Clone, Debug)]
pub struct CellsInput {
    /// To be there.
    pub set: Vec<NewCell>,
    /// To be there no more.
    pub remove: Vec<NewCell>,
    /// Whether all that are there go first.
    pub replace: bool,
}

/// Whether two cells have one place in a matrix.
fn same_place(one: &Cell, other: &Cell) -> bool {
    (one.mode, &one.provider, &one.model) == (other.mode, &other.provider, &other.model)
}

impl Broker {
    fn system_reach(caller: &Caller) -> Result<(), Refusal> {
        if caller.reach().is_everywhere() {
            return Ok(());
        }
        let message = "the system's part of the policy is changed by system admins only";
        Err(Refusal::new(Reason::PermissionDenied, message))
    }

    /// Makes the scopes that a document names what it says, all or none.
    pub async fn apply_policy(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewPolicy,
        how: Changing,
    ) -> Result<PolicyChanged, Refusal> {
        let mut to = Amendment::default();
        if let Some(cells) = new.system {
            Self::system_reach(caller)?;
            to.system = Some(check::new_matrix(&self.registry, "system", cells)?);
        }
        let mut ruled = Vec::new();
        let mut seen = BTreeSet::new();
        for new in new.orgs {
            let id = self.org_id(caller, &new.org).await?;
            once(&mut seen, id, "document.orgs")?;
            let (amendment, profiles) = self.amended_org(id, new).await?;
            ruled.extend(profiles.map(|profiles| (id, profiles)));
            to.orgs.insert(id, amendment);
        }
        self.amend(Change {
            caller: caller.clone(),
            action: Action::PolicyApply,
            how,
            create: None,
            build: Box::new(move |now| {
                let mut to = to.clone();
                for (id, profiles) in &ruled {
                    let wanted = exactly(&now.org(*id).profiles, profiles.clone());
                    to.orgs.entry(*id).or_default().profiles = wanted;
                }
                Ok(to)
            }),
        })
        .await
    }

    /// What a document says of an org, and the profiles that are to be all it has.
    async fn amended_org(
        &self,
        id: OrgId,
        new: NewOrgPolicy,
    ) -> Result<(OrgAmendment, Option<super::profiles::ByName>), Refusal> {
        let at = format!("org {}", new.org);
        let mut amendment = OrgAmendment::default();
        let mut profiles = None;
        if let Some(rules) = new.rules {
            amendment.matrix = Some(check::new_matrix(&self.registry, &at, rules.matrix)?);
            amendment.pins = Some(check::pins(&self.registry, &at, rules.pins)?);
            profiles = Some(self.checked_profiles(id, rules.profiles).await?);
        }
        for (project, cells) in new.projects {
            let at = format!("{at}, project {project}");
            let project = self.project(id, &project).await?.value.id;
            let matrix = check::new_matrix(&self.registry, &at, cells)?;
            if amendment.projects.insert(project, matrix).is_some() {
                let message = format!("{at}: it is named twice");
                return Err(Refusal::invalid("document.orgs.projects", message));
            }
        }
        Ok((amendment, profiles))
    }

    /// Changes cells of one scope.
    pub async fn set_cells(
        self: &Arc<Self>,
        caller: &Caller,
        scope: ScopeRef<'_>,
        input: CellsInput,
        how: Changing,
    ) -> Result<PolicyChanged, Refusal> {
        let (scope, at) = self.writable_scope(caller, scope).await?;
        let checked = |cells: Vec<NewCell>| -> Result<Vec<Cell>, Refusal> {
            let cells = cells.into_iter().map(|new| check::cell(&self.registry, &at, new));
            cells.collect()
        };
        let (set, remove) = (checked(input.set)?, checked(input.remove)?);
        // The same cell set twice is a mistake, whatever is there already.
        check::matrix(&at, set.clone())?;
        let build = move |now: &crate::domain::policy::Policy| {
            let there = match scope {
                Scope::Broker => &now.system,
                Scope::Org(org) => &now.org(org).matrix,
                Scope::Project(org, project) => now.org(org).project(project),
            };
            let changed = |cell: &&Cell| set.iter().chain(&remove).any(|other| same_place(cell, other));
            let kept = there
                .cells()
                .iter()
                .filter(|cell| !input.replace && !changed(cell));
            let matrix = check::matrix(&at, kept.chain(&set).cloned().collect())?;
            Ok(amended_scope(scope, matrix))
        };
        self.amend(Change {
            caller: caller.clone(),
            action: Action::PolicySetCells,
            how,
            create: None,
            build: Box::new(build),
        })
        .await
    }

    /// A scope that the caller may change, and what it is called in refusals.
    async fn writable_scope(&self, caller: &Caller, scope: ScopeRef<'_>) -> Result<(Scope, String), Refusal> {
        match (scope.org, scope.project) {
            ("", "") => {
                Self::system_reach(caller)?;
                Ok((Scope::Broker, "system".to_owned()))
            }
            (org, "") => Ok((Scope::Org(self.org_id(caller, org).await?), format!("org {org}"))),
            (org, project) => {
                let id = self.org_id(caller, org).await?;
                let found = self.project(id, project).await?;
                let at = format!("project {project}");
                Ok((Scope::Project(id, found.value.id), at))
            }
        }
    }

    /// Holds an executor to one mode; with `None`, to none any more.
    pub async fn pin_executor(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        executor: &str,
        mode: Option<AuthMode>,
        how: Changing,
    ) -> Result<PolicyChanged, Refusal> {
        let org = self.org_id(caller, org).await?;
        if executor.is_empty() {
            return Err(Refusal::invalid("executor", "executor is required"));
        }
        if let Some(mode) = mode {
            check::pin(&self.registry, "the pin", executor, mode)?;
        }
        let executor = executor.to_owned();
        self.amend(Change {
            caller: caller.clone(),
            action: match mode {
                Some(_) => Action::ExecutorPin,
                None => Action::ExecutorUnpin,
            },
            how,
            create: None,
            build: Box::new(move |now| {
                let mut pins = now.org(org).pins.clone();
                match mode {
                    Some(mode) => pins.insert(executor.clone(), mode),
                    None => pins.remove(&executor),
                };
                let amendment = OrgAmendment {
                    pins: Some(pins),
                    ..OrgAmendment::default()
                };
                Ok(of_org(org, amendment))
            }),
        })
        .await
    }
}

/// A change in one org.
pub(super) fn of_org(org: OrgId, amendment: OrgAmendment) -> Amendment {
    Amendment {
        orgs: [(org, amendment)].into(),
        ..Amendment::default()
    }
}

fn amended_scope(scope: Scope, matrix: Matrix) -> Amendment {
    let project = |id: ProjectId, matrix| OrgAmendment {
        projects: [(id, matrix)].into(),
        ..OrgAmendment::default()
    };
    match scope {
        Scope::Broker => Amendment {
            system: Some(matrix),
            ..Amendment::default()
        },
        Scope::Org(org) => of_org(
            org,
            OrgAmendment {
                matrix: Some(matrix),
                ..OrgAmendment::default()
            },
        ),
        Scope::Project(org, id) => of_org(org, project(id, matrix)),
    }
}
