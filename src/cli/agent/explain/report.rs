//! An explanation as people read it: what each scope says of each mode, what comes of it, and what to do.

use crate::cli::error::plain;
use crate::cli::owner_field;
use crate::cli::render::{self, enum_name};
use crate::domain::reason::Reason;
use crate::proto::{self, Decision};

/// The signs in the table.
struct Signs {
    yes: &'static str,
    no: &'static str,
    inherited: &'static str,
}

const SIGNS: Signs = Signs {
    yes: "✓",
    no: "✗",
    inherited: "–",
};
const ASCII: Signs = Signs {
    yes: "yes",
    no: "no",
    inherited: "-",
};

/// What stands behind a denial that does not bind, at the scope of the system.
const PASSED: &str = "*";

/// The whole explanation.
pub(super) fn text(answer: &proto::ExplainResolutionResponse, unicode: bool) -> String {
    let none = Decision::default();
    let decision = answer.decision.as_ref().unwrap_or(&none);
    let mut text = String::new();
    if !decision.scopes.is_empty() {
        text += &scopes(decision, if unicode { &SIGNS } else { &ASCII });
        text.push('\n');
    }
    text += &outcome(answer, decision);
    if !decision.candidates.is_empty() {
        text.push('\n');
        text += &candidates(decision);
    }
    text
}

/// A row a mode, a column a scope, in the order in which they are asked.
fn scopes(decision: &Decision, signs: &Signs) -> String {
    let columns = columns(decision);
    let mut table = render::new_table();
    let headers = columns.iter().map(|column| column[0].scope.as_str());
    let headers = std::iter::once("mode").chain(headers);
    table.set_header(headers.map(|name| plain(name).to_uppercase()));
    let mut passed = false;
    for row in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
        let Some(first) = columns[0].get(row) else { break };
        let mut cells = vec![mode(first.mode())];
        cells.extend(columns.iter().map(|column| {
            let said = column.get(row).map(|verdict| sign(verdict, signs));
            passed |= said.as_ref().is_some_and(|said| said.ends_with(PASSED));
            said.unwrap_or_default()
        }));
        table.add_row(cells);
    }
    let mut text = render::finish(table);
    let mut legend = format!("{} inherited", signs.inherited);
    if passed {
        legend += &format!(
            ", {}{PASSED} denied, and passed at the scope of the system",
            signs.no
        );
    }
    text += &format!("({legend})\n");
    text
}

fn sign(verdict: &proto::ScopeVerdict, signs: &Signs) -> String {
    match (verdict.allowed, verdict.note.as_str()) {
        (_, "inherited") => signs.inherited.to_owned(),
        // Denied by a cell of the matrix, which does not bind here.
        (true, note) if note.starts_with("passed") => format!("{}{PASSED}", signs.no),
        (true, _) => signs.yes.to_owned(),
        (false, _) => signs.no.to_owned(),
    }
}

/// The verdicts of each scope.
fn columns(decision: &Decision) -> Vec<Vec<&proto::ScopeVerdict>> {
    let mut columns: Vec<Vec<&proto::ScopeVerdict>> = Vec::new();
    for verdict in &decision.scopes {
        match columns.last_mut() {
            Some(column) if column[0].scope == verdict.scope => column.push(verdict),
            _ => columns.push(vec![verdict]),
        }
    }
    columns
}

/// The modes that every scope lets pass.
fn left(decision: &Decision) -> String {
    let columns = columns(decision);
    let Some((first, rest)) = columns.split_first() else {
        return String::new();
    };
    let left: Vec<_> = first
        .iter()
        .filter(|verdict| verdict.allowed)
        .filter(|verdict| {
            let passes = |column: &Vec<&proto::ScopeVerdict>| {
                column
                    .iter()
                    .any(|other| other.mode == verdict.mode && other.allowed)
            };
            rest.iter().all(passes)
        })
        .map(|verdict| mode(verdict.mode()))
        .collect();
    if left.is_empty() {
        "none".to_owned()
    } else {
        left.join(", ")
    }
}

/// What came of it.
fn outcome(answer: &proto::ExplainResolutionResponse, decision: &Decision) -> String {
    let chosen_by = columns(decision).last().map(|column| column[0]);
    let selected = match chosen_by.map(|verdict| (verdict.scope.as_str(), verdict.note.as_str())) {
        Some(("profile", name)) => format!("profile {name}"),
        Some(("executor", _)) => "the executor's policy pins one mode".to_owned(),
        Some(("task", _)) => "the task runs on one mode already".to_owned(),
        _ => String::new(),
    };
    let mut rows = vec![
        ("permitted", left(decision)),
        ("selected by", selected),
        ("tried in order", tried(decision)),
    ];
    if decision.allowed {
        let first = decision.fallback_reason.is_empty() && decision.permit_position == 0;
        let why = match (decision.fallback_reason.as_str(), first) {
            ("", true) => "the first that is permitted".to_owned(),
            ("", false) => String::new(),
            (code, _) => format!("not the first: {}", reason(code)),
        };
        rows.extend([
            ("pick", way(decision.mode(), &decision.provider, &decision.model)),
            ("why", why),
            ("credential", decision.credential.clone()),
            ("owner", owner_field(decision.owner.as_ref()).cell(render::now())),
        ]);
    } else {
        rows.extend([
            ("refused", decision.reason.clone()),
            ("message", answer.message.clone()),
            ("to be mended by", answer.fault.clone()),
            ("what to do", answer.remedy.clone()),
        ]);
    }
    let scope = if decision.system_scope { "the system" } else { "" };
    rows.extend([
        ("scope", scope.to_owned()),
        ("policy version", decision.policy_version.to_string()),
    ]);
    render::pairs(
        rows.into_iter()
            .map(|(name, value)| (name.to_owned(), plain(&value))),
    )
}

/// The permit: modes and providers, each kind of key for itself.
fn tried(decision: &Decision) -> String {
    let entries = decision.permit.iter().map(|entry| {
        let kind = enum_name(entry.kind().as_str_name(), "CREDENTIAL_KIND_");
        let told = way(entry.mode(), &entry.provider, "");
        match (entry.mode(), kind.as_str()) {
            (proto::AuthMode::Byok, kind) if !kind.is_empty() => format!("{told} ({kind})"),
            _ => told,
        }
    });
    entries.collect::<Vec<_>>().join(", ")
}

/// The credentials that were looked at, and why each was not taken.
fn candidates(decision: &Decision) -> String {
    let mut table = render::new_table();
    table.set_header(["LOOKED AT", "OWNER", "CREDENTIAL", "OUTCOME"]);
    for candidate in &decision.candidates {
        let position = usize::try_from(candidate.permit_position).unwrap_or(usize::MAX);
        let provider = decision.permit.get(position).map(|entry| entry.provider.as_str());
        table.add_row([
            plain(&way(candidate.mode(), provider.unwrap_or_default(), "")),
            owner_field(candidate.owner.as_ref()).cell(render::now()),
            plain(&candidate.credential),
            match candidate.chosen {
                true => "chosen".to_owned(),
                false => plain(&candidate.reason),
            },
        ]);
    }
    render::finish(table)
}

fn mode(mode: proto::AuthMode) -> String {
    super::mode(mode)
}

fn way(mode: proto::AuthMode, provider: &str, model: &str) -> String {
    let mut told = super::mode(mode);
    if !provider.is_empty() {
        told += &format!(" with {provider}");
    }
    if !model.is_empty() {
        told += &format!(", model {model}");
    }
    told
}

/// A reason, with what is to be done about it where it is one that this program knows.
fn reason(code: &str) -> String {
    match Reason::from_code(code) {
        Some(known) => format!("{code}. {}", known.remedy()),
        None => code.to_owned(),
    }
}
