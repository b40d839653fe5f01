//! What a policy may say: checked when it is written, with refusals that name the place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::rows::too_much;
use crate::domain::amendment::Diff;
use crate::domain::credential::Credential;
use crate::domain::executor::Registry;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::matrix::{Cell, Matrix, MatrixError, Verdict};
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::name::{MalformedName, Name};
use crate::domain::owner::Owner;
use crate::domain::policy::{OrgPolicy, Policy};
use crate::domain::profile::{OnRejection, Profile};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::keys;

/// A cell, as a request says it.
#[derive(Clone, Debug)]
pub struct NewCell {
    /// The mode.
    pub mode: AuthMode,
    /// The provider; empty: any.
    pub provider: String,
    /// The pattern of models; empty: all.
    pub model: String,
    /// What is said of them.
    pub verdict: Verdict,
}

/// A profile, as a request says it.
#[derive(Clone, Debug)]
pub struct NewProfile {
    /// Its name.
    pub name: String,
    /// Its modes.
    pub modes: ModeSet,
    /// What happens after a rejection.
    pub on_rejection: OnRejection,
    /// The key that byok uses; empty for none in particular.
    pub credential: String,
    /// Models by provider.
    pub models: BTreeMap<String, String>,
}

/// The most executors that one org holds to a mode: with the longest names they fit one value of the store.
const MAX_PINS: usize = 48;

/// Something is wrong at a place of the policy.
fn fault(field: &'static str, reason: Reason, at: &str, message: impl std::fmt::Display) -> Refusal {
    Refusal {
        field: Some(field),
        ..Refusal::new(reason, format!("{at}: {message}")).with("at", at)
    }
}

/// A text of a request, for a message: it may be long, and hold anything.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

fn known<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    names.map(Name::as_str).collect::<Vec<_>>().join(", ")
}

fn known_provider(registry: &Registry, field: &'static str, at: &str, provider: &str) -> Result<(), Refusal> {
    if registry.provider(provider).is_some() {
        return Ok(());
    }
    let message = format!("there is no provider {}", quoted(provider));
    let all = known(registry.providers().map(|provider| &provider.name));
    Err(fault(field, Reason::ProviderUnknown, at, message).with("known", all))
}

/// A cell of the scope that `at` names.
pub(super) fn cell(registry: &Registry, at: &str, new: NewCell) -> Result<Cell, Refusal> {
    let model = if new.model.is_empty() { "*" } else { &new.model };
    let provider = match new.provider.as_str() {
        "" => "any provider".to_owned(),
        named => quoted(named),
    };
    let at = format!(
        "{at}: the cell for {}, {provider}, {}",
        new.mode.name(),
        quoted(model)
    );
    if !new.provider.is_empty() {
        known_provider(registry, "provider", &at, &new.provider)?;
    }
    let model = model
        .parse()
        .map_err(|malformed| fault("model", Reason::InvalidArgument, &at, malformed))?;
    Ok(Cell {
        mode: new.mode,
        provider: Some(new.provider).filter(|provider| !provider.is_empty()),
        model,
        verdict: new.verdict,
    })
}

/// The matrix of a scope's cells.
pub(super) fn matrix(at: &str, cells: Vec<Cell>) -> Result<Matrix, Refusal> {
    Matrix::new(cells).map_err(|error| match error {
        MatrixError::TooMany { .. } => fault("matrix", Reason::PolicyLimit, at, error),
        MatrixError::Twice { .. } => fault("matrix", Reason::InvalidArgument, at, error),
    })
}

/// The matrix of the cells that a request gives a scope.
pub(super) fn new_matrix(registry: &Registry, at: &str, cells: Vec<NewCell>) -> Result<Matrix, Refusal> {
    let cells: Result<_, _> = cells.into_iter().map(|new| cell(registry, at, new)).collect();
    matrix(at, cells?)
}

/// The mode that an executor is held to: one that it has with its native provider.
pub(super) fn pin(registry: &Registry, at: &str, executor: &str, mode: AuthMode) -> Result<(), Refusal> {
    let Some(found) = registry.executor(executor) else {
        let message = format!("there is no executor {}", quoted(executor));
        let all = known(registry.executors().map(|executor| &executor.name));
        return Err(fault("executor", Reason::ExecutorUnknown, at, message).with("known", all));
    };
    let supported = found.modes(&found.native_provider);
    if supported.contains(mode) {
        return Ok(());
    }
    let message = format!(
        "{executor} does not have {} with {}",
        mode.name(),
        found.native_provider
    );
    let modes: Vec<_> = supported.iter().map(AuthMode::name).collect();
    Err(fault("mode", Reason::ModeUnsupported, at, message)
        .with("executor", executor)
        .with("supported", modes.join(", ")))
}

/// The pins of an org.
pub(super) fn pins(
    registry: &Registry,
    at: &str,
    new: Vec<(String, AuthMode)>,
) -> Result<BTreeMap<String, AuthMode>, Refusal> {
    let mut pins = BTreeMap::new();
    for (executor, mode) in new {
        pin(registry, at, &executor, mode)?;
        if pins.insert(executor.clone(), mode).is_some() {
            let message = format!("{executor} is pinned twice");
            return Err(fault("pins", Reason::InvalidArgument, at, message));
        }
    }
    Ok(pins)
}

/// Whether what changes stays within what an org may have.
pub(super) fn bounds(after: &Policy, diff: &Diff) -> Result<(), Refusal> {
    for id in diff.orgs() {
        let org = after.org(id);
        let limits = [
            (org.cells(), OrgPolicy::MAX_CELLS, "cells in all of its scopes"),
            (org.pins.len(), MAX_PINS, "pinned executors"),
            (org.profiles.len(), OrgPolicy::MAX_PROFILES, "profiles"),
        ];
        for (count, most, what) in limits {
            if count > most {
                return Err(too_much(format!("an org has at most {most} {what}, not {count}")));
            }
        }
    }
    Ok(())
}

/// A profile's name.
pub(super) fn profile_name(text: &str) -> Result<Name, Refusal> {
    let malformed = |malformed: MalformedName| Refusal::invalid("profile.name", malformed.to_string());
    text.parse().map_err(malformed)
}

impl Broker {
    /// A profile of the org; its credential has to be a key of that org.
    pub(super) async fn checked_profile(&self, org: OrgId, new: NewProfile) -> Result<Arc<Profile>, Refusal> {
        let name = profile_name(&new.name)?;
        let at = format!("the profile {name}");
        let invalid = |field, message: String| fault(field, Reason::InvalidArgument, &at, message);
        if new.modes.is_empty() {
            return Err(invalid(
                "profile.modes",
                "it has no modes; name at least one".to_owned(),
            ));
        }
        if new.models.len() > Profile::MAX_MODELS {
            let message = format!("it names models for more than {} providers", Profile::MAX_MODELS);
            return Err(invalid("profile.models", message));
        }
        for (provider, model) in &new.models {
            known_provider(&self.registry, "profile.models", &at, provider)?;
            let printable = model.bytes().all(|byte| byte.is_ascii_graphic());
            if model.is_empty() || model.len() > Profile::MAX_MODEL || !printable || model.contains('*') {
                let message = format!(
                    "a model has 1 to {} printable ASCII characters, without blanks and stars",
                    Profile::MAX_MODEL
                );
                return Err(invalid("profile.models", message));
            }
        }
        let credential = match new.credential.as_str() {
            "" => None,
            text => Some(self.key_of_org(org, &at, text).await?),
        };
        Ok(Arc::new(Profile {
            name,
            modes: new.modes,
            on_rejection: new.on_rejection,
            credential,
            models: new.models,
        }))
    }

    /// A key that belongs to the org itself. Any other credential looks like none.
    async fn key_of_org(&self, org: OrgId, at: &str, text: &str) -> Result<CredentialId, Refusal> {
        let field = "profile.credential";
        let id: CredentialId = text
            .parse()
            .map_err(|malformed| fault(field, Reason::InvalidArgument, at, malformed))?;
        let stored = self.records.get::<Credential>(&keys::credential(org, id)).await?;
        let fits = stored.is_some_and(|stored| {
            stored.value.owner == Owner::Org && stored.value.kind != CredentialKind::OAuthGrant
        });
        if fits {
            return Ok(id);
        }
        let message = "no such credential; it has to be a key of the org itself";
        Err(fault(field, Reason::NotFound, at, message).with("kind", "credential"))
    }

    /// The profiles of a document, each name once.
    pub(super) async fn checked_profiles(
        &self,
        org: OrgId,
        new: Vec<NewProfile>,
    ) -> Result<BTreeMap<String, Arc<Profile>>, Refusal> {
        let mut profiles = BTreeMap::new();
        for profile in new {
            let profile = self.checked_profile(org, profile).await?;
            let name = profile.name.to_string();
            if profiles.insert(name.clone(), profile).is_some() {
                let at = format!("the profile {name}");
                return Err(fault(
                    "profiles",
                    Reason::InvalidArgument,
                    &at,
                    "it is there twice",
                ));
            }
        }
        Ok(profiles)
    }
}

/// Refuses the same thing named twice.
pub(super) fn once<T: Ord>(seen: &mut BTreeSet<T>, it: T, field: &'static str) -> Result<(), Refusal> {
    if seen.insert(it) {
        Ok(())
    } else {
        Err(Refusal::invalid(
            field,
            format!("{field}: the same one is named twice"),
        ))
    }
}
