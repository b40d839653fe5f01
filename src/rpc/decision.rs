//! Decisions in messages: of answers and of explanations.

use super::convert::{kind, mode, owner};
use crate::domain::decision::{Candidate, Decision, SelectedBy};
use crate::domain::gate::Said;
use crate::domain::mode::{AuthMode, PermitEntry};
use crate::domain::reason::Reason;
use crate::proto;

/// How much of a decision is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// What came of it, to somebody who acts on it.
    Outcome,
    /// What each scope said too, to somebody who wants to know why.
    Everything,
}

/// The code of a reason; empty for none.
pub(super) fn code(reason: Option<Reason>) -> String {
    reason.map(|reason| reason.code().to_owned()).unwrap_or_default()
}

fn position(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn permit_entry(entry: &PermitEntry) -> proto::PermitEntry {
    proto::PermitEntry {
        mode: mode(entry.mode),
        provider: entry.provider.clone(),
        kind: entry.kind.map(kind).unwrap_or_default(),
        model: entry.model.clone(),
    }
}

fn candidate(candidate: &Candidate) -> proto::Candidate {
    proto::Candidate {
        credential: candidate.credential.map(|id| id.to_string()).unwrap_or_default(),
        mode: mode(candidate.mode),
        owner: candidate.owner.map(owner),
        chosen: candidate.passed_over.is_none(),
        reason: code(candidate.passed_over),
        permit_position: position(candidate.position),
    }
}

/// A decision.
pub(super) fn decision(decision: &Decision, telling: Telling) -> proto::Decision {
    let entry = decision.entry().filter(|_| decision.refused.is_none());
    let scopes = match (telling, decision.said) {
        (Telling::Everything, Some(said)) => scopes(&said, &decision.selected_by, decision.system_scope),
        _ => Vec::new(),
    };
    proto::Decision {
        allowed: decision.refused.is_none(),
        reason: code(decision.refused),
        mode: entry.map(|entry| mode(entry.mode)).unwrap_or_default(),
        provider: entry.map(|entry| entry.provider.clone()).unwrap_or_default(),
        model: entry.map(|entry| entry.model.clone()).unwrap_or_default(),
        credential: decision.chosen.map(|(id, _)| id.to_string()).unwrap_or_default(),
        owner: decision.chosen.map(|(_, of)| owner(of)),
        permit: decision.permit.iter().map(permit_entry).collect(),
        permit_position: position(decision.position),
        fallback_reason: code(decision.fallback),
        policy_version: decision.policy_version,
        scopes,
        candidates: decision.candidates.iter().map(candidate).collect(),
        system_scope: decision.system_scope,
    }
}

/// What each scope said of each mode, in the order in which they are asked.
fn scopes(said: &Said, selected_by: &SelectedBy, system_scope: bool) -> Vec<proto::ScopeVerdict> {
    let mut verdicts = Vec::new();
    let mut add = |scope: &str, of: AuthMode, allowed: bool, note: String| {
        verdicts.push(proto::ScopeVerdict {
            scope: scope.to_owned(),
            mode: mode(of),
            allowed,
            note,
        });
    };
    for of in AuthMode::ORDER {
        add("registry", of, said.registry.contains(of), String::new());
    }
    for (level, column) in said.columns {
        for of in AuthMode::ORDER {
            let note = if system_scope && column.denied.contains(of) {
                "passed at the scope of the system"
            } else if column.denied.contains(of) {
                "denied"
            } else if column.allowed.contains(of) {
                "allowed"
            } else {
                "inherited"
            };
            add(
                level.name(),
                of,
                system_scope || !column.denied.contains(of),
                note.to_owned(),
            );
        }
    }
    let (scope, note) = match selected_by {
        SelectedBy::Nothing => return verdicts,
        SelectedBy::Profile(name) => ("profile", name.as_str()),
        SelectedBy::Executor => ("executor", "pinned"),
        SelectedBy::Task => ("task", "in use"),
    };
    for of in AuthMode::ORDER {
        add(scope, of, said.selected.contains(of), note.to_owned());
    }
    verdicts
}
