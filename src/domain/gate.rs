//! The gate, and the permit that only it makes: the ordered list of ways a task may be served.
//!
//! What is permitted is what the registry supports, the profile asks for and no scope of the access matrix
//! denies. The gate fails closed: a mode that any of them leaves out is not in the permit, an empty permit is a
//! refusal, and so is a mode that was settled beforehand (pinned by a policy, or in use by a running task) and is
//! denied now.

use super::matrix::{Column, Judged, Level};
use super::mode::{AuthMode, CredentialKind, ModeSet, PermitEntry};
use super::profile::OnRejection;
use super::reason::Reason;
use super::refusal::Refusal;

/// A provider that the executor can use, and what there is to say about its modes.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// Its name.
    pub provider: &'a str,
    /// The model as this provider names it; empty for none.
    pub model: String,
    /// The kinds of credential it takes, the preferred one first.
    pub kinds: &'a [CredentialKind],
    /// The modes that the registry has for it.
    pub supported: ModeSet,
    /// What the access matrix says.
    pub judged: Judged,
}

/// How the mode is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection<'a> {
    /// The first usable one of a set.
    Set(ModeSet),
    /// The executor's policy pins one, and holds it to the native provider.
    Pinned {
        /// The mode.
        mode: AuthMode,
        /// The provider that the executor is made for.
        native: &'a str,
        /// Whether the model asked for is one of that provider's.
        native_model: bool,
    },
    /// The task already runs on one. What its profile says by now does not matter to it.
    Running {
        /// The mode.
        mode: AuthMode,
        /// The provider that serves it.
        provider: &'a str,
        /// The kind of its credential; `None`: whichever the provider prefers.
        kind: Option<CredentialKind>,
        /// The modes it started with.
        modes: ModeSet,
    },
}

/// What the gate judges.
#[derive(Clone, Debug)]
pub struct GateInput<'a> {
    /// The executor's name.
    pub executor: &'a str,
    /// The provider asked for.
    pub main: &'a Offer<'a>,
    /// Those that may stand in for it with keys of the org's or the member's own.
    pub stand_ins: &'a [Offer<'a>],
    /// How the mode is settled.
    pub selection: Selection<'a>,
    /// What is to happen when the provider rejects the credential.
    pub on_rejection: OnRejection,
    /// Whether it is resolved at the scope of the system, which the access matrix does not bind.
    pub system_scope: bool,
    /// The version of the policy.
    pub policy_version: u64,
}

/// What each scope said, for explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// What the registry supports.
    pub registry: ModeSet,
    /// What the profile, the executor's policy or the running task selects.
    pub selected: ModeSet,
    /// The columns of the access matrix, the widest scope first.
    pub columns: [(Level, Column); 3],
}

/// Proof that the gate was passed: an ordered, non-empty list of ways to serve the task. Vending takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    entries: Vec<PermitEntry>,
    ordinary: usize,
    lapse: Option<usize>,
    start: usize,
    settled: bool,
    running: bool,
    on_rejection: OnRejection,
    policy_version: u64,
}

impl Permit {
    /// The entries, in order; never empty. An entry that is there for a lapsed subscription alone is the last.
    pub fn entries(&self) -> &[PermitEntry] {
        &self.entries
    }

    /// Those that may be tried in turn.
    pub fn ordinary_entries(&self) -> &[PermitEntry] {
        &self.entries[..self.ordinary]
    }

    /// How many of them may be tried in turn.
    pub(super) fn ordinary(&self) -> usize {
        self.ordinary
    }

    /// What a lapsed subscription gives way to.
    pub(super) fn lapse(&self) -> Option<usize> {
        self.lapse
    }

    /// The first to be tried.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Whether the mode was settled before the resolution.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// Whether it is for a task that already runs on a mode.
    pub fn running(&self) -> bool {
        self.running
    }

    /// What is to happen when the provider rejects the credential.
    pub fn on_rejection(&self) -> OnRejection {
        self.on_rejection
    }

    /// The version of the policy it was made under.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }
}

/// What the gate said, and the account of it whichever way it went.
#[derive(Clone, Debug)]
pub struct Gated {
    /// The permit, or why there is none.
    pub permit: Result<Permit, Refusal>,
    /// What each scope said about the provider asked for.
    pub said: Said,
}

/// The gate: the only maker of a [`Permit`].
pub fn gate(input: &GateInput<'_>) -> Gated {
    let selected = match input.selection {
        Selection::Set(modes) => modes,
        Selection::Pinned { mode, .. } => ModeSet::EMPTY.with(mode),
        Selection::Running { modes, mode, .. } => modes.with(mode),
    };
    let said = Said {
        registry: input.main.supported,
        selected,
        columns: input.main.judged.columns,
    };
    let permit = settled(input).and_then(|()| permit(input, &said));
    Gated { permit, said }
}

/// Refuses a mode that was settled beforehand and may not be used.
fn settled(input: &GateInput<'_>) -> Result<(), Refusal> {
    let main = input.main;
    let (mode, offer) = match input.selection {
        Selection::Set(_) => return Ok(()),
        Selection::Pinned {
            mode,
            native,
            native_model,
        } => {
            if main.provider != native || !native_model {
                return Err(Refusal::new(
                    Reason::ModelNotAvailable,
                    format!(
                        "{} is pinned to {} and to the models of {native}",
                        input.executor,
                        mode.name()
                    ),
                )
                .with("executor", input.executor)
                .with("mode", mode.name())
                .with("provider", native)
                .with("model", &main.model));
            }
            (mode, main)
        }
        Selection::Running { mode, provider, .. } => {
            let mut offers = std::iter::once(main).chain(input.stand_ins);
            match offers.find(|offer| offer.provider == provider) {
                Some(offer) => (mode, offer),
                None => return Err(unsupported(input.executor, mode, provider, ModeSet::EMPTY)),
            }
        }
    };
    if !offer.supported.contains(mode) {
        return Err(unsupported(input.executor, mode, offer.provider, offer.supported));
    }
    match offer.judged.removed_by(mode) {
        Some(level) if !input.system_scope => Err(Refusal::new(
            Reason::AccessDenied,
            format!(
                "the {} denies {} with {}",
                level.name(),
                mode.name(),
                offer.provider
            ),
        )
        .with("scope", level.name())
        .with("mode", mode.name())
        .with("provider", offer.provider)),
        _ => Ok(()),
    }
}

fn unsupported(executor: &str, mode: AuthMode, provider: &str, supported: ModeSet) -> Refusal {
    Refusal::new(
        Reason::ModeUnsupported,
        format!("{executor} has no {} with {provider}", mode.name()),
    )
    .with("executor", executor)
    .with("provider", provider)
    .with("supported", supported.to_string())
}

fn permit(input: &GateInput<'_>, said: &Said) -> Result<Permit, Refusal> {
    let (main, selected) = (input.main, said.selected);
    let passes = |offer: &Offer<'_>| {
        let matrix = if input.system_scope {
            ModeSet::ALL
        } else {
            offer.judged.permits()
        };
        offer.supported.intersection(matrix)
    };
    // Only what a task's own profile may go on to: a pinned mode has nothing beside it.
    let stand_ins = match (input.on_rejection, input.selection) {
        (OnRejection::Next, Selection::Set(_) | Selection::Running { .. }) => input.stand_ins,
        _ => &[],
    };
    let mut entries = Vec::new();
    let permitted = passes(main).intersection(selected);
    for mode in AuthMode::ORDER {
        if permitted.contains(mode) {
            entries.extend(ways(main, mode));
        }
        if mode == AuthMode::Byok && selected.contains(mode) {
            let others = stand_ins.iter().filter(|offer| passes(offer).contains(mode));
            entries.extend(others.flat_map(|offer| ways(offer, mode)));
        }
    }
    if entries.is_empty() {
        return Err(unsatisfiable(input, said));
    }
    let ordinary = entries.len();
    let start = match input.selection {
        // A task goes on where it is, or not at all: never on what happens to come first.
        Selection::Running {
            mode, provider, kind, ..
        } => entries
            .iter()
            .position(|entry| {
                let same_kind = kind.is_none() || entry.kind == kind;
                entry.mode == mode && entry.provider == provider && same_kind
            })
            .ok_or_else(|| unsupported(input.executor, mode, provider, main.supported))?,
        _ => 0,
    };
    let metered = entries.iter().position(|entry| entry.mode == AuthMode::Metered);
    // Only keys of one's own give way to a lapsed subscription: without one there is nothing to follow.
    let gives_way = entries.iter().any(|entry| entry.mode == AuthMode::Byok);
    let lapse = match metered {
        None if gives_way && passes(main).contains(AuthMode::Metered) => {
            entries.extend(ways(main, AuthMode::Metered));
            Some(ordinary)
        }
        found => found,
    };
    Ok(Permit {
        entries,
        ordinary,
        lapse,
        start,
        settled: !matches!(input.selection, Selection::Set(_)),
        running: matches!(input.selection, Selection::Running { .. }),
        on_rejection: input.on_rejection,
        policy_version: input.policy_version,
    })
}

/// The entries of a mode with a provider.
fn ways<'a>(offer: &'a Offer<'_>, mode: AuthMode) -> impl Iterator<Item = PermitEntry> + use<'a> {
    let kinds: Vec<_> = match mode {
        AuthMode::OAuth => vec![Some(CredentialKind::OAuthGrant)],
        AuthMode::Byok => {
            let keys = offer.kinds.iter().filter(|kind| kind.is_key());
            keys.copied().map(Some).collect()
        }
        AuthMode::Metered | AuthMode::Shared | AuthMode::HostSession | AuthMode::Local => vec![None],
    };
    let (provider, model) = (offer.provider.to_owned(), offer.model.clone());
    kinds.into_iter().map(move |kind| PermitEntry {
        mode,
        provider: provider.clone(),
        kind,
        model: model.clone(),
    })
}

fn unsatisfiable(input: &GateInput<'_>, said: &Said) -> Refusal {
    let main = input.main;
    if main.supported.is_empty() {
        return Refusal::new(
            Reason::ProviderUnsupported,
            format!(
                "{} has no auth mode for provider {}",
                input.executor, main.provider
            ),
        )
        .with("executor", input.executor)
        .with("provider", main.provider);
    }
    let mut message = format!(
        "no auth mode is left for {} with {}: the registry has {}, the profile asks for {}",
        input.executor, main.provider, said.registry, said.selected
    );
    let mut refusal = Refusal::new(Reason::AuthmodesUnsatisfiable, "")
        .with("executor", input.executor)
        .with("provider", main.provider)
        .with("registry", said.registry.to_string())
        .with("profile", said.selected.to_string());
    for (level, column) in said.columns {
        if !column.denied.is_empty() {
            message += &format!(", the {} denies {}", level.name(), column.denied);
            refusal = refusal.with(denied_by(level), column.denied.to_string());
        }
    }
    if main.model.is_empty() && said.columns.iter().any(|(_, column)| !column.denied.is_empty()) {
        message += "; a request that names no model stands for every model";
    }
    refusal.message = message;
    refusal
}

/// The word under which an error's metadata tells what a scope denies.
const fn denied_by(level: Level) -> &'static str {
    match level {
        Level::System => "denied_by_system",
        Level::Org => "denied_by_org",
        Level::Project => "denied_by_project",
    }
}

#[cfg(test)]
mod tests;
