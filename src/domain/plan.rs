//! What a resolution may do, before anything is looked up: registry, profile, policy and matrix put before the
//! gate. A resolution, an explanation, the state of executors and the preview of a change all ask here, so that
//! none of them says what another would not.

use super::decision::SelectedBy;
use super::executor::{Executor, Provider, Registry};
use super::gate::{GateInput, Gated, Offer, Selection, gate};
use super::id::{CredentialId, OrgId, ProjectId};
use super::matrix::Cascade;
use super::mode::{AuthMode, CredentialKind, ModeSet};
use super::policy::Policy;
use super::profile::{OnRejection, Profile};
use super::refusal::Refusal;

/// What is sought, once task and request are put together.
#[derive(Clone, Copy, Debug)]
pub struct Sought<'a> {
    /// The org.
    pub org: OrgId,
    /// `None`: as in a project that says nothing of its own.
    pub project: Option<ProjectId>,
    /// The executor.
    pub executor: &'a Executor,
    /// The provider asked for.
    pub provider: &'a str,
    /// The model asked for; empty for none.
    pub model: &'a str,
    /// The name of the profile; empty for none.
    pub profile: &'a str,
    /// Whether it is resolved at the scope of the system.
    pub system_scope: bool,
}

/// What the gate said, and what goes with it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The gate's word.
    pub gated: Gated,
    /// What selected the modes.
    pub selected_by: SelectedBy,
    /// The modes selected, for the task to keep.
    pub modes: ModeSet,
    /// What is to happen when the provider rejects the credential.
    pub on_rejection: OnRejection,
    /// The key that the profile names for byok.
    pub named: Option<CredentialId>,
}

/// What the task already runs on.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: &'a str,
    /// The kind of its credential; `None`: whichever the provider prefers.
    pub kind: Option<CredentialKind>,
    /// The modes it started with.
    pub modes: ModeSet,
    /// What is to happen when the provider rejects the credential.
    pub on_rejection: OnRejection,
    /// The key that its profile named.
    pub named: Option<CredentialId>,
}

/// Puts what is sought before the gate. `runs` is what the task already runs on.
pub fn plan(
    registry: &Registry,
    policy: &Policy,
    sought: Sought<'_>,
    runs: Option<Settled<'_>>,
) -> Result<Plan, Refusal> {
    let Sought { org, executor, .. } = sought;
    let profile = match (runs, sought.profile) {
        // What a running task's profile says by now, or whether it is still there, does not matter to it.
        (Some(_), _) | (None, "") => policy.profile(org, sought.profile),
        (None, name) => Some(policy.profile(org, name).ok_or_else(|| Refusal {
            field: Some("profile"),
            ..Refusal::not_found("profile")
        })?),
    };
    let profile = profile.map(AsRef::as_ref);
    let cascade = match sought.project {
        Some(project) => policy.cascade(org, project),
        None => policy.above_projects(org),
    };
    let native = executor.native_provider.as_str();
    let (selection, selected_by) = match (runs, policy.pin(org, executor.name.as_str()), profile) {
        (Some(runs), _, _) => {
            let running = Selection::Running {
                mode: runs.mode,
                provider: runs.provider,
                kind: runs.kind,
                modes: runs.modes,
            };
            (running, SelectedBy::Task)
        }
        (None, Some(mode), _) => {
            let serves = |provider: &Provider| provider.serves(sought.model);
            let pinned = Selection::Pinned {
                mode,
                native,
                native_model: sought.model.is_empty() || registry.provider(native).is_some_and(serves),
            };
            (pinned, SelectedBy::Executor)
        }
        (None, None, Some(profile)) => (
            Selection::Set(profile.modes),
            SelectedBy::Profile(profile.name.to_string()),
        ),
        (None, None, None) => (Selection::Set(ModeSet::ALL), SelectedBy::Nothing),
    };
    let (on_rejection, named) = match (runs, selection, profile) {
        (Some(runs), _, _) => (runs.on_rejection, runs.named),
        (None, Selection::Set(_), Some(profile)) => (profile.on_rejection, profile.credential),
        // A policy that pins a mode pins it for good; the key that the profile names it may still use.
        (None, _, profile) => (OnRejection::Fail, profile.and_then(|profile| profile.credential)),
    };
    let offered = |provider| offer(registry, cascade, sought, profile, provider);
    let stand_ins: Vec<_> = match on_rejection {
        OnRejection::Fail => Vec::new(),
        OnRejection::Next => {
            let others = executor
                .providers
                .keys()
                .filter(|other| *other != sought.provider);
            others.map(|provider| offered(provider)).collect()
        }
    };
    let main = offered(sought.provider);
    let gated = gate(&GateInput {
        executor: executor.name.as_str(),
        main: &main,
        stand_ins: &stand_ins,
        selection,
        on_rejection,
        system_scope: sought.system_scope,
        policy_version: policy.version,
    });
    Ok(Plan {
        modes: gated.said.selected,
        gated,
        selected_by,
        on_rejection,
        named,
    })
}

fn offer<'a>(
    registry: &'a Registry,
    cascade: Cascade<'_>,
    sought: Sought<'a>,
    profile: Option<&Profile>,
    provider: &'a str,
) -> Offer<'a> {
    let known = registry.provider(provider);
    let own = profile.map_or("", |profile| profile.model(provider));
    let model = match (sought.model, own, known) {
        ("", own, _) => own,
        // Elsewhere than where it was asked for, the profile knows the model's name best.
        (_, own, _) if !own.is_empty() && provider != sought.provider => own,
        (asked, _, Some(known)) => known.model_id(asked),
        (asked, _, None) => asked,
    };
    let judged = registry.judge(cascade, provider, model);
    // The name it was asked for by is one of its names, even where the profile has another.
    let judged = match sought.model {
        "" => judged,
        asked if asked == model => judged,
        asked => judged.and(cascade.judge(provider, asked)),
    };
    Offer {
        provider,
        model: model.to_owned(),
        kinds: known.map_or(&[] as &[CredentialKind], |known| &known.kinds),
        supported: sought.executor.modes(provider),
        judged,
    }
}
