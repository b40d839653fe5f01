//! What a resolution may do, before anything is looked up: registry, profile, policy and matrix put before the
//! gate.

use crate::domain::decision::SelectedBy;
use crate::domain::executor::Executor;
use crate::domain::gate::{GateInput, Gated, Offer, Selection, gate};
use crate::domain::id::{CredentialId, OrgId, ProjectId};
use crate::domain::matrix::Cascade;
use crate::domain::mode::{CredentialKind, ModeSet};
use crate::domain::policy::Policy;
use crate::domain::profile::{OnRejection, Profile};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::model::Runs;

/// What is sought, once task and request are put together.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Sought<'a> {
    pub(in crate::service) org: OrgId,
    /// `None`: as in a project that says nothing of its own.
    pub(in crate::service) project: Option<ProjectId>,
    pub(in crate::service) executor: &'a Executor,
    pub(in crate::service) provider: &'a str,
    pub(in crate::service) model: &'a str,
    pub(in crate::service) profile: &'a str,
    pub(in crate::service) system_scope: bool,
}

/// What the gate said, and what goes with it.
pub(in crate::service) struct Plan {
    pub(in crate::service) gated: Gated,
    pub(in crate::service) selected_by: SelectedBy,
    /// The modes selected, for the task to keep.
    pub(in crate::service) modes: ModeSet,
    pub(in crate::service) on_rejection: OnRejection,
    /// The key that the profile names for byok.
    pub(in crate::service) named: Option<CredentialId>,
}

impl Broker {
    /// The executor of this name.
    pub(super) fn executor(&self, name: &str) -> Result<&Executor, Refusal> {
        self.registry.executor(name).ok_or_else(|| Refusal {
            field: Some("executor"),
            ..Refusal::new(Reason::ExecutorUnknown, format!("there is no executor {name:?}"))
        })
    }

    /// Refuses a provider that the executor cannot use.
    pub(in crate::service) fn supported(&self, executor: &Executor, provider: &str) -> Result<(), Refusal> {
        if !executor.modes(provider).is_empty() {
            return Ok(());
        }
        let known: Vec<_> = executor.providers.keys().map(String::as_str).collect();
        Err(Refusal {
            field: Some("provider"),
            ..Refusal::new(
                Reason::ProviderUnsupported,
                format!("{} cannot use provider {provider:?}", executor.name),
            )
            .with("supported", known.join(", "))
        })
    }

    /// Puts what is sought before the gate. `runs` is what the task already runs on.
    pub(in crate::service) fn plan(
        &self,
        policy: &Policy,
        sought: Sought<'_>,
        runs: Option<&Runs>,
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
                    provider: &runs.provider,
                    kind: runs.kind,
                    modes: runs.modes,
                };
                (running, SelectedBy::Task)
            }
            (None, Some(mode), _) => {
                let serves = |provider: &crate::domain::executor::Provider| provider.serves(sought.model);
                let pinned = Selection::Pinned {
                    mode,
                    native,
                    native_model: sought.model.is_empty()
                        || self.registry.provider(native).is_some_and(serves),
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
        let offer = |provider| self.offer(cascade, sought, profile, provider);
        let stand_ins: Vec<_> = match on_rejection {
            OnRejection::Fail => Vec::new(),
            OnRejection::Next => {
                let others = executor
                    .providers
                    .keys()
                    .filter(|other| *other != sought.provider);
                others.map(|provider| offer(provider)).collect()
            }
        };
        let main = offer(sought.provider);
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
        &'a self,
        cascade: Cascade<'_>,
        sought: Sought<'a>,
        profile: Option<&Profile>,
        provider: &'a str,
    ) -> Offer<'a> {
        let known = self.registry.provider(provider);
        let own = profile.map_or("", |profile| profile.model(provider));
        let model = match (sought.model, own, known) {
            ("", own, _) => own,
            // Elsewhere than where it was asked for, the profile knows the model's name best.
            (_, own, _) if !own.is_empty() && provider != sought.provider => own,
            (asked, _, Some(known)) => known.model_id(asked),
            (asked, _, None) => asked,
        };
        let judged = self.registry.judge(cascade, provider, model);
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
}
