//! A change of the policy: what is to be there, what differs from what is there, and the policy that comes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::executor::Registry;
use super::id::{OrgId, ProjectId};
use super::matrix::{Cell, Level, Matrix, Pattern, Verdict};
use super::mode::AuthMode;
use super::policy::{OrgPolicy, Policy};
use super::profile::Profile;
use super::role::Scope;

/// What parts of the policy are to be. Parts that are not named stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Amendment {
    /// The system's cells.
    pub system: Option<Matrix>,
    /// What belongs to orgs.
    pub orgs: BTreeMap<OrgId, OrgAmendment>,
}

/// What parts of an org's policy are to be.
#[derive(Clone, Debug, Default)]
pub struct OrgAmendment {
    /// The org's own cells.
    pub matrix: Option<Matrix>,
    /// The executors held to one mode.
    pub pins: Option<BTreeMap<String, AuthMode>>,
    /// Profiles by name; `None` removes one.
    pub profiles: BTreeMap<String, Option<Arc<Profile>>>,
    /// The cells of projects.
    pub projects: BTreeMap<ProjectId, Matrix>,
}

/// One cell that differs. Without a verdict, it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellChange {
    /// The mode.
    pub mode: AuthMode,
    /// The provider; none for any.
    pub provider: Option<String>,
    /// The models.
    pub model: Pattern,
    /// What is said now.
    pub before: Option<Verdict>,
    /// What is said then.
    pub after: Option<Verdict>,
}

/// The cells of one scope that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeChange {
    /// The scope; the whole broker stands for the system.
    pub scope: Scope,
    /// Which cells, in the order of mode, provider and pattern.
    pub cells: Vec<CellChange>,
}

/// An executor that is held to another mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinChange {
    /// The org.
    pub org: OrgId,
    /// The executor.
    pub executor: String,
    /// The mode now.
    pub before: Option<AuthMode>,
    /// The mode then.
    pub after: Option<AuthMode>,
}

/// A profile that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileChange {
    /// The org.
    pub org: OrgId,
    /// As it is now; `None`: it is not there.
    pub before: Option<Arc<Profile>>,
    /// As it is then.
    pub after: Option<Arc<Profile>>,
}

/// What an amendment changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The scopes whose cells differ.
    pub scopes: Vec<ScopeChange>,
    /// The pins that differ.
    pub pins: Vec<PinChange>,
    /// The profiles that differ.
    pub profiles: Vec<ProfileChange>,
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.pins.is_empty() && self.profiles.is_empty()
    }

    /// The orgs in which anything differs.
    pub fn orgs(&self) -> BTreeSet<OrgId> {
        let scopes = self.scopes.iter().filter_map(|change| change.scope.org());
        let pins = self.pins.iter().map(|change| change.org);
        let profiles = self.profiles.iter().map(|change| change.org);
        scopes.chain(pins).chain(profiles).collect()
    }

    /// Whether the system's cells differ.
    pub fn system(&self) -> bool {
        self.scopes.iter().any(|change| change.scope == Scope::Broker)
    }

    fn scope(&mut self, scope: Scope, before: &Matrix, after: &Matrix) -> bool {
        let cells = cell_changes(before, after);
        let differs = !cells.is_empty();
        if differs {
            self.scopes.push(ScopeChange { scope, cells });
        }
        differs
    }

    fn org(&mut self, id: OrgId, before: &OrgPolicy, to: &OrgAmendment) -> Option<OrgPolicy> {
        let mut after = before.clone();
        let mut differs = false;
        if let Some(matrix) = &to.matrix
            && self.scope(Scope::Org(id), &before.matrix, matrix)
        {
            differs = true;
            after.matrix = matrix.clone();
        }
        for (project, matrix) in &to.projects {
            if !self.scope(Scope::Project(id, *project), before.project(*project), matrix) {
                continue;
            }
            differs = true;
            if matrix.cells().is_empty() {
                after.projects.remove(project);
            } else {
                after.projects.insert(*project, matrix.clone());
            }
        }
        if let Some(pins) = &to.pins {
            let names: BTreeSet<_> = before.pins.keys().chain(pins.keys()).collect();
            for name in names {
                let change = PinChange {
                    org: id,
                    executor: name.clone(),
                    before: before.pins.get(name).copied(),
                    after: pins.get(name).copied(),
                };
                if change.before != change.after {
                    differs = true;
                    self.pins.push(change);
                }
            }
            after.pins.clone_from(pins);
        }
        for (name, profile) in &to.profiles {
            let old = before.profiles.get(name);
            if old == profile.as_ref() {
                continue;
            }
            differs = true;
            match profile {
                Some(profile) => after.profiles.insert(name.clone(), Arc::clone(profile)),
                None => after.profiles.remove(name),
            };
            self.profiles.push(ProfileChange {
                org: id,
                before: old.cloned(),
                after: profile.clone(),
            });
        }
        differs.then_some(after)
    }
}

fn cell_changes(before: &Matrix, after: &Matrix) -> Vec<CellChange> {
    type Verdicts<'a> = BTreeMap<(AuthMode, Option<&'a str>, &'a Pattern), [Option<Verdict>; 2]>;
    let mut verdicts: Verdicts<'_> = BTreeMap::new();
    for (side, matrix) in [before, after].into_iter().enumerate() {
        for cell in matrix.cells() {
            let place = (cell.mode, cell.provider.as_deref(), &cell.model);
            verdicts.entry(place).or_default()[side] = Some(cell.verdict);
        }
    }
    let changes = verdicts
        .into_iter()
        .filter(|(_, [before, after])| before != after);
    changes
        .map(|((mode, provider, model), [before, after])| CellChange {
            mode,
            provider: provider.map(str::to_owned),
            model: model.clone(),
            before,
            after,
        })
        .collect()
}

impl Policy {
    /// The policy that comes of the amendment, and what differs. Where nothing does, it has the same version.
    pub fn amended(&self, to: &Amendment) -> (Policy, Diff) {
        let mut diff = Diff::default();
        let mut after = self.clone();
        let version = self.version + 1;
        if let Some(system) = &to.system
            && diff.scope(Scope::Broker, &self.system, system)
        {
            after.system = system.clone();
            after.system_changed = version;
        }
        for (id, amendment) in &to.orgs {
            if let Some(org) = diff.org(*id, self.org(*id), amendment) {
                let org = OrgPolicy {
                    changed: version,
                    ..org
                };
                after.orgs.insert(*id, Arc::new(org));
            }
        }
        if !diff.is_empty() {
            after.version = version;
        }
        (after, diff)
    }

    /// Whether all that the amendment names, and the system's cells, which reach into everything, are as they were
    /// at `version`.
    pub fn unchanged_since(&self, version: u64, to: &Amendment) -> bool {
        let orgs = to.orgs.keys().map(|org| self.org(*org).changed);
        version <= self.version
            && orgs
                .chain([self.system_changed])
                .all(|changed| changed <= version)
    }
}

/// An allow that gives nothing back, because a wider scope denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overruled {
    /// Where the allow stands.
    pub scope: Scope,
    /// The allow.
    pub cell: Cell,
    /// The widest scope that denies.
    pub by: Level,
}

/// The allows of the scopes that differ that a wider scope overrules: for every provider they speak of, and for
/// what their patterns match at large. Exceptions for single models are not looked at. At most `limit`.
pub fn overruled(after: &Policy, diff: &Diff, registry: &Registry, limit: usize) -> Vec<Overruled> {
    let found = diff.scopes.iter().flat_map(|change| {
        let scope = change.scope;
        let matrix = match scope {
            Scope::Broker => None,
            Scope::Org(org) => Some((&after.org(org).matrix, after.org(org))),
            Scope::Project(org, project) => Some((after.org(org).project(project), after.org(org))),
        };
        matrix.into_iter().flat_map(move |(matrix, org)| {
            let wider = match scope {
                Scope::Project(..) => vec![(Level::System, &after.system), (Level::Org, &org.matrix)],
                _ => vec![(Level::System, &after.system)],
            };
            let allows = matrix
                .cells()
                .iter()
                .filter(|cell| cell.verdict == Verdict::Allow);
            allows.filter_map(move |cell| {
                let by = wider.iter().find(|(_, wider)| denies(wider, cell, registry))?;
                Some(Overruled {
                    scope,
                    cell: cell.clone(),
                    by: by.0,
                })
            })
        })
    });
    found.take(limit).collect()
}

/// A model that a pattern matches and that nothing in particular is said of: no pattern has this character.
const SOME: &str = "\u{1}";

fn denies(wider: &Matrix, cell: &Cell, registry: &Registry) -> bool {
    let model = cell.model.as_str().replace('*', SOME);
    let denied = |provider: &str| wider.column(provider, &model).denied.contains(cell.mode);
    match &cell.provider {
        Some(provider) => denied(provider),
        None => {
            let mut providers = registry.providers().map(|provider| provider.name.as_str());
            providers.all(denied)
        }
    }
}

/// The profiles of an org that are to be there and no others, against those that are.
pub fn exactly(
    now: &HashMap<String, Arc<Profile>>,
    wanted: BTreeMap<String, Arc<Profile>>,
) -> BTreeMap<String, Option<Arc<Profile>>> {
    let gone = now.keys().filter(|name| !wanted.contains_key(*name));
    let mut profiles: BTreeMap<_, _> = gone.map(|name| (name.clone(), None)).collect();
    profiles.extend(wanted.into_iter().map(|(name, profile)| (name, Some(profile))));
    profiles
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;
    use crate::domain::key_shape::KeyShapes;
    use crate::domain::mode::ModeSet;
    use crate::domain::pool::Pools;
    use crate::domain::profile::OnRejection;

    fn cell(mode: AuthMode, provider: &str, model: &str, verdict: Verdict) -> Cell {
        Cell {
            mode,
            provider: Some(provider.to_owned()).filter(|provider| !provider.is_empty()),
            model: model.parse().unwrap(),
            verdict,
        }
    }

    fn matrix(cells: &[Cell]) -> Matrix {
        Matrix::new(cells.to_vec()).unwrap()
    }

    fn profile(name: &str, mode: AuthMode) -> Arc<Profile> {
        Arc::new(Profile {
            name: name.parse().unwrap(),
            modes: ModeSet::EMPTY.with(mode),
            on_rejection: OnRejection::Fail,
            credential: None,
            models: BTreeMap::new(),
        })
    }

    fn org() -> OrgId {
        Id::from_bytes([1; 16])
    }

    fn of_org(amendment: OrgAmendment) -> Amendment {
        Amendment {
            orgs: BTreeMap::from([(org(), amendment)]),
            ..Amendment::default()
        }
    }

    #[test]
    fn what_is_there_already_changes_nothing_and_the_rest_is_told_cell_by_cell() {
        let keep = cell(AuthMode::Byok, "a", "*", Verdict::Deny);
        let turned = |verdict| cell(AuthMode::Shared, "", "m-*", verdict);
        let old = cell(AuthMode::OAuth, "a", "x", Verdict::Deny);
        let new = cell(AuthMode::Local, "a", "x", Verdict::Deny);
        let first = of_org(OrgAmendment {
            matrix: Some(matrix(&[keep.clone(), turned(Verdict::Deny), old])),
            pins: Some(BTreeMap::from([("codex".to_owned(), AuthMode::Byok)])),
            profiles: BTreeMap::from([("p".to_owned(), Some(profile("p", AuthMode::Byok)))]),
            ..OrgAmendment::default()
        });
        let (one, diff) = Policy::default().amended(&first);
        assert_eq!((one.version, diff.scopes[0].cells.len()), (1, 3));
        let (same, nothing) = one.amended(&first);
        assert!(nothing.is_empty() && same.version == 1);
        assert!(Arc::ptr_eq(&same.orgs[&org()], &one.orgs[&org()]));

        let second = of_org(OrgAmendment {
            matrix: Some(matrix(&[keep, turned(Verdict::Allow), new])),
            ..OrgAmendment::default()
        });
        let (two, diff) = one.amended(&second);
        let told: Vec<_> = diff.scopes[0]
            .cells
            .iter()
            .map(|change| (change.mode, change.before, change.after))
            .collect();
        assert_eq!(
            told,
            [
                (AuthMode::OAuth, Some(Verdict::Deny), None),
                (AuthMode::Shared, Some(Verdict::Deny), Some(Verdict::Allow)),
                (AuthMode::Local, None, Some(Verdict::Deny)),
            ]
        );
        assert!(diff.pins.is_empty() && diff.profiles.is_empty());
        assert_eq!(
            two.pin(org(), "codex"),
            Some(AuthMode::Byok),
            "not named, so kept"
        );
        assert_eq!(one.org(org()).matrix.cells().len(), 3, "the old one is as it was");
    }

    #[test]
    fn a_project_without_cells_is_not_kept() {
        let project = Id::from_bytes([2; 16]);
        let of_project = |cells: &[Cell]| {
            of_org(OrgAmendment {
                projects: BTreeMap::from([(project, matrix(cells))]),
                ..OrgAmendment::default()
            })
        };
        let (one, _) =
            Policy::default().amended(&of_project(&[cell(AuthMode::Byok, "", "*", Verdict::Deny)]));
        assert_eq!(one.org(org()).projects.len(), 1);
        let (two, diff) = one.amended(&of_project(&[]));
        assert_eq!(
            (two.org(org()).projects.len(), diff.scopes[0].cells.len()),
            (0, 1)
        );
    }

    #[test]
    fn what_was_seen_is_stale_only_where_it_was_changed_since() {
        let (a, b) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let deny = || Some(matrix(&[cell(AuthMode::Byok, "", "*", Verdict::Deny)]));
        let of = |org| Amendment {
            orgs: BTreeMap::from([(
                org,
                OrgAmendment {
                    matrix: deny(),
                    ..OrgAmendment::default()
                },
            )]),
            ..Amendment::default()
        };
        let (policy, _) = Policy::default().amended(&of(a));
        assert!(policy.unchanged_since(0, &of(b)) && !policy.unchanged_since(0, &of(a)));
        assert!(policy.unchanged_since(1, &of(a)) && !policy.unchanged_since(2, &of(a)));
        let system = Amendment {
            system: deny(),
            ..Amendment::default()
        };
        let (policy, _) = policy.amended(&system);
        assert!(
            !policy.unchanged_since(1, &of(b)),
            "the system's cells reach into it"
        );
    }

    #[test]
    fn an_allow_under_a_denial_is_told_and_one_beside_it_is_not() {
        let system = [
            cell(AuthMode::Shared, "", "*", Verdict::Deny),
            cell(AuthMode::Byok, "a", "m-*", Verdict::Deny),
            cell(AuthMode::OAuth, "a", "m-1", Verdict::Deny),
        ];
        let amendment = Amendment {
            system: Some(matrix(&system)),
            ..of_org(OrgAmendment {
                matrix: Some(matrix(&[
                    cell(AuthMode::Shared, "a", "m-*", Verdict::Allow),
                    cell(AuthMode::Byok, "a", "m-1*", Verdict::Allow),
                    cell(AuthMode::Byok, "a", "*", Verdict::Allow),
                    cell(AuthMode::OAuth, "a", "m-*", Verdict::Allow),
                ])),
                ..OrgAmendment::default()
            })
        };
        let (after, diff) = Policy::default().amended(&amendment);
        let told = overruled(
            &after,
            &diff,
            &Registry::new([], [], KeyShapes::default(), Pools::sample()),
            10,
        );
        let told: Vec<_> = told
            .iter()
            .map(|told| (told.cell.mode, told.cell.model.as_str(), told.by))
            .collect();
        assert_eq!(
            told,
            [
                (AuthMode::Byok, "m-1*", Level::System),
                (AuthMode::Shared, "m-*", Level::System)
            ]
        );
    }
}
