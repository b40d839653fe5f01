//! What a change of policy would do: which picks become others, and what that means for tasks under way.
//!
//! A *pick* is the mode of the first way that the gate leaves: of registry, profile, pin and cascade together.
//! It says what policy wants, not what a resolution finds: whether a credential is there, or the capacity fits,
//! is not looked at. A mode that changes takes effect with the next task. Only an explicit denial of the mode
//! that a task is running on reaches into it, at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::executor::Registry;
use super::id::{OrgId, ProjectId};
use super::matrix::Cascade;
use super::mode::AuthMode;
use super::plan::{Sought, plan};
use super::policy::Policy;
use super::task::Task;

/// Where a pick is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The org.
    pub org: OrgId,
    /// The project; none: one without cells of its own.
    pub project: Option<ProjectId>,
}

impl Place {
    fn cascade<'a>(&self, policy: &'a Policy) -> Cascade<'a> {
        match self.project {
            Some(project) => policy.cascade(self.org, project),
            None => policy.above_projects(self.org),
        }
    }
}

/// The mode of the first way that the gate leaves to this executor with this provider, where no model is asked
/// for. None also where a profile is named that is not there.
pub fn pick(
    policy: &Policy,
    registry: &Registry,
    place: Place,
    profile: &str,
    executor: &str,
    provider: &str,
) -> Option<AuthMode> {
    let sought = Sought {
        org: place.org,
        project: place.project,
        executor: registry.executor(executor)?,
        provider,
        model: "",
        profile,
        system_scope: false,
    };
    let permit = plan(registry, policy, sought, None).ok()?.gated.permit.ok()?;
    permit.ordinary_entries().first().map(|entry| entry.mode)
}

/// A pick that would become another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    /// The org; none: every org that says nothing itself.
    pub org: Option<OrgId>,
    /// The project; none: every one without cells of its own.
    pub project: Option<ProjectId>,
    /// The profile; empty: where none is named.
    pub profile: String,
    /// The executor.
    pub executor: String,
    /// The provider.
    pub provider: String,
    /// The pick now.
    pub before: Option<AuthMode>,
    /// The pick then.
    pub after: Option<AuthMode>,
}

/// A list that may have been cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded<T> {
    /// The first of them.
    pub rows: Vec<T>,
    /// How many there are.
    pub total: usize,
    /// Whether there may be more than that, because not everything was looked at.
    pub at_least: bool,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            total: 0,
            at_least: false,
        }
    }
}

impl<T> Bounded<T> {
    /// Counts a row, and keeps it while there are fewer than `keep`.
    pub fn push(&mut self, row: T, keep: usize) {
        self.total += 1;
        if self.rows.len() < keep {
            self.rows.push(row);
        }
    }
}

/// How much is looked at, and kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many pairs of picks are compared.
    pub picks: usize,
    /// How many rows are kept.
    pub rows: usize,
}

/// The org that stands for those that say nothing: no org has this id.
fn no_org() -> OrgId {
    OrgId::from_bytes([0; 16])
}

/// The picks that would become others, in all orgs. Profiles that are not there yet have no pick to lose.
pub fn mode_changes(
    before: &Policy,
    after: &Policy,
    registry: &Registry,
    bounds: Bounds,
) -> Bounded<ModeChange> {
    let mut found = Bounded::default();
    let mut left = bounds.picks;
    let system = before.system != after.system;
    let mut orgs: BTreeSet<OrgId> = before.orgs.keys().chain(after.orgs.keys()).copied().collect();
    if system {
        orgs.insert(no_org());
    }
    for org in orgs {
        let same = match (before.orgs.get(&org), after.orgs.get(&org)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if system || !same {
            org_changes(before, after, registry, org, &mut left, bounds.rows, &mut found);
        }
    }
    found.at_least = left == 0;
    found
}

fn org_changes(
    before: &Policy,
    after: &Policy,
    registry: &Registry,
    org: OrgId,
    left: &mut usize,
    keep: usize,
    found: &mut Bounded<ModeChange>,
) {
    let (old, new) = (before.org(org), after.org(org));
    let above = before.system != after.system || old.matrix != new.matrix || old.pins != new.pins;
    let projects: BTreeSet<_> = old.projects.keys().chain(new.projects.keys()).copied().collect();
    let places = std::iter::once(None).chain(projects.into_iter().map(Some));
    let names: BTreeSet<&str> = old.profiles.keys().map(String::as_str).collect();
    let same = |name: &&str| match (old.profiles.get(*name), new.profiles.get(*name)) {
        (Some(was), Some(is)) => Arc::ptr_eq(was, is) || was == is,
        (was, is) => was.is_none() && is.is_none(),
    };
    let all: Vec<&str> = std::iter::once("").chain(names).collect();
    let changed: Vec<&str> = all.iter().copied().filter(|name| !same(name)).collect();
    for project in places {
        let place = Place { org, project };
        let here = above || project.is_some_and(|project| old.project(project) != new.project(project));
        // Where no cell and no pin differs, only what a profile means does.
        for name in if here { &all } else { &changed } {
            for executor in registry.executors() {
                for provider in executor.providers.keys() {
                    if *left == 0 {
                        return;
                    }
                    *left -= 1;
                    let executor = executor.name.as_str();
                    let pick = |policy| pick(policy, registry, place, name, executor, provider);
                    let (before, after) = (pick(before), pick(after));
                    if before != after {
                        let change = ModeChange {
                            org: Some(org).filter(|org| *org != no_org()),
                            project,
                            profile: (*name).to_owned(),
                            executor: executor.to_owned(),
                            provider: provider.clone(),
                            before,
                            after,
                        };
                        found.push(change, keep);
                    }
                }
            }
        }
    }
}

/// What a standing lease of a task was handed out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: String,
    /// The model; empty where none was asked for.
    pub model: String,
}

/// When a change reaches a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was handed out for it yet: the first resolution has the new mode.
    FirstResolution,
    /// It runs, and finishes as it began; the next task has the new mode.
    NextTask,
    /// The mode it runs on is denied: it gets nothing any more.
    AtOnce,
}

/// What a change does to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskChange {
    /// The pick now; of a task that is ended at once, the mode it runs on.
    pub before: Option<AuthMode>,
    /// The pick then.
    pub after: Option<AuthMode>,
    /// When.
    pub effect: Effect,
}

/// What the change does to a task under way, if anything.
pub fn on_task(
    before: &Policy,
    after: &Policy,
    registry: &Registry,
    task: &Task,
    running: &[Running],
) -> Option<TaskChange> {
    let place = Place {
        org: task.org,
        project: Some(task.project),
    };
    let native = registry
        .executor(&task.executor)
        .map(|executor| executor.native_provider.as_str());
    let provider = task.provider.as_deref().or(native)?;
    let picked = |policy: &Policy| pick(policy, registry, place, &task.profile, &task.executor, provider);
    let then = picked(after);
    let denied = |policy: &Policy, run: &Running| {
        let judged = registry.judge(place.cascade(policy), &run.provider, &run.model);
        judged.denied().contains(run.mode)
    };
    let stopped = running
        .iter()
        .find(|run| denied(after, run) && !denied(before, run));
    if let Some(run) = stopped {
        return Some(TaskChange {
            before: Some(run.mode),
            after: then,
            effect: Effect::AtOnce,
        });
    }
    let now = picked(before);
    (now != then).then_some(TaskChange {
        before: now,
        after: then,
        effect: match running {
            [] => Effect::FirstResolution,
            _ => Effect::NextTask,
        },
    })
}

#[cfg(test)]
mod tests;
