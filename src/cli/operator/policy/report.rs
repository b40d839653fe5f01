//! A change of the policy, as people and programs read it: what differs, and what it does to whom.

use serde_json::{Value, json};

use crate::cli::error::plain;
use crate::cli::render::{self, Field, Output, Resource, enum_name};
use crate::proto;

/// What people call a mode; `none` where there is no one.
fn mode(mode: proto::AuthMode) -> String {
    match enum_name(mode.as_str_name(), "AUTH_MODE_") {
        name if name.is_empty() => "none".to_owned(),
        name => name,
    }
}

fn verdict(verdict: proto::Verdict) -> String {
    enum_name(verdict.as_str_name(), "VERDICT_")
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// What people call a scope.
fn place(scope: Option<&proto::PolicyScope>) -> String {
    let Some(scope) = scope else {
        return "system".to_owned();
    };
    let (org, project) = (
        or(&scope.org_name, &scope.org),
        or(&scope.project_name, &scope.project),
    );
    match (org, project) {
        ("", _) => "system".to_owned(),
        (org, "") => format!("org {org}"),
        (org, project) => format!("org {org}, project {project}"),
    }
}

fn profile(profile: &proto::Profile) -> String {
    let modes: Vec<_> = profile.modes().map(mode).collect();
    let mut told = modes.join(", ");
    if profile.on_rejection() == proto::OnRejection::Next {
        told.push_str("; on rejection next");
    }
    if !profile.credential.is_empty() {
        told.push_str(&format!("; credential {}", profile.credential));
    }
    let mut models: Vec<_> = profile.models.iter().collect();
    models.sort();
    for (provider, model) in models {
        told.push_str(&format!("; {provider}: {model}"));
    }
    told
}

fn cell(change: &proto::CellChange) -> String {
    let place = format!(
        "{} {} {}",
        mode(change.mode()),
        or(&change.provider, "(any provider)"),
        change.model
    );
    let (before, after) = (verdict(change.before()), verdict(change.after()));
    match (before.as_str(), after.as_str()) {
        ("", after) => format!("+ {after} {place}"),
        (before, "") => format!("- {before} {place}"),
        (before, after) => format!("~ {before} -> {after} {place}"),
    }
}

/// What differs, a line each, under the scopes.
fn differences(change: &proto::PolicyChange) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for scope in &change.scopes {
        let at = place(scope.scope.as_ref());
        lines.extend(scope.cells.iter().map(|change| (at.clone(), cell(change))));
    }
    for pin in &change.pins {
        let (before, after) = (mode(pin.before()), mode(pin.after()));
        let line = match (before.as_str(), after.as_str()) {
            ("none", after) => format!("+ pin {} to {after}", pin.executor),
            (before, "none") => format!("- pin {} to {before}", pin.executor),
            (before, after) => format!("~ pin {}: {before} -> {after}", pin.executor),
        };
        lines.push((place(pin.scope.as_ref()), line));
    }
    for change in &change.profiles {
        let line = match (&change.before, &change.after) {
            (Some(old), Some(new)) => {
                format!("~ profile {}: {} -> {}", new.name, profile(old), profile(new))
            }
            (Some(old), None) => format!("- profile {}: {}", old.name, profile(old)),
            (None, Some(new)) => format!("+ profile {}: {}", new.name, profile(new)),
            (None, None) => continue,
        };
        lines.push((place(change.scope.as_ref()), line));
    }
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}

fn counted(total: u64, at_least: bool) -> String {
    if at_least {
        format!("at least {total}")
    } else {
        total.to_string()
    }
}

/// All of it, for people.
pub(super) fn text(change: &proto::PolicyChange) -> String {
    if !change.differs {
        return "No difference.\n".to_owned();
    }
    let mut out = String::new();
    let mut under = String::new();
    for (at, line) in differences(change) {
        if at != under {
            out.push_str(&format!("{}\n", plain(&at)));
            under = at;
        }
        out.push_str(&format!("  {}\n", plain(&line)));
    }
    for warning in &change.warnings {
        let cell = warning.cell.clone().unwrap_or_default();
        out.push_str(&plain(&format!(
            "warning: {}: the allow for {} {} {} has no effect: the {} denies",
            place(warning.scope.as_ref()),
            mode(cell.mode()),
            or(&cell.provider, "(any provider)"),
            cell.model,
            warning.denied_by,
        )));
        out.push('\n');
    }
    let impact = change.impact.clone().unwrap_or_default();
    let now = render::now();
    if impact.modes_total == 0 && !impact.modes_at_least {
        out.push_str("\nNo mode changes for any profile.\n");
    } else {
        let count = counted(impact.modes_total, impact.modes_at_least);
        out.push_str(&format!(
            "\nModes that change, as far as policy decides: {count}\n"
        ));
        out.push_str(&render::list(&impact.modes, Output::Table, now));
    }
    if impact.agents_total == 0 && !impact.agents_at_least {
        out.push_str("\nNo agent at work is concerned.\n");
    } else {
        let count = counted(impact.agents_total, impact.agents_at_least);
        out.push_str(&format!("\nAgents with tasks that it concerns: {count}\n"));
        out.push_str(&render::list(&impact.agents, Output::Table, now));
    }
    out
}

/// All of it, for programs.
pub(super) fn json(change: &proto::PolicyChange) -> Value {
    let impact = change.impact.clone().unwrap_or_default();
    let scopes = change.scopes.iter().map(|change| {
        let cells = change.cells.iter().map(|cell| {
            json!({
                "mode": mode(cell.mode()),
                "provider": cell.provider,
                "model": cell.model,
                "before": verdict(cell.before()),
                "after": verdict(cell.after()),
            })
        });
        json!({ "scope": scope(change.scope.as_ref()), "cells": cells.collect::<Vec<_>>() })
    });
    let pins = change.pins.iter().map(|pin| {
        json!({
            "scope": scope(pin.scope.as_ref()),
            "executor": pin.executor,
            "before": mode(pin.before()),
            "after": mode(pin.after()),
        })
    });
    let profiles = change.profiles.iter().map(|change| {
        json!({
            "scope": scope(change.scope.as_ref()),
            "before": change.before.as_ref().map(render::object),
            "after": change.after.as_ref().map(render::object),
        })
    });
    let warnings = change.warnings.iter().map(|warning| {
        let cell = warning.cell.clone().unwrap_or_default();
        json!({
            "scope": scope(warning.scope.as_ref()),
            "mode": mode(cell.mode()),
            "provider": cell.provider,
            "model": cell.model,
            "denied_by": warning.denied_by,
        })
    });
    json!({
        "version": change.version,
        "differs": change.differs,
        "scopes": scopes.collect::<Vec<_>>(),
        "pins": pins.collect::<Vec<_>>(),
        "profiles": profiles.collect::<Vec<_>>(),
        "warnings": warnings.collect::<Vec<_>>(),
        "impact": {
            "modes": impact.modes.iter().map(render::object).collect::<Vec<_>>(),
            "modes_total": impact.modes_total,
            "modes_at_least": impact.modes_at_least,
            "agents": impact.agents.iter().map(render::object).collect::<Vec<_>>(),
            "agents_total": impact.agents_total,
            "agents_at_least": impact.agents_at_least,
        },
    })
}

fn scope(scope: Option<&proto::PolicyScope>) -> Value {
    let scope = scope.cloned().unwrap_or_default();
    json!({
        "org": scope.org,
        "org_name": scope.org_name,
        "project": scope.project,
        "project_name": scope.project_name,
    })
}

fn named(id: &str, name: &str, otherwise: &str) -> Field {
    Field::Both(or(or(name, id), otherwise).to_owned(), id.into())
}

impl Resource for proto::ModeChange {
    const COLUMNS: &'static [&'static str] = &[
        "org", "project", "profile", "executor", "provider", "before", "after",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let scope = self.scope.clone().unwrap_or_default();
        vec![
            ("org", named(&scope.org, &scope.org_name, "(others)")),
            (
                "project",
                named(&scope.project, &scope.project_name, "(without cells)"),
            ),
            (
                "profile",
                Field::Both(
                    or(&self.profile, "(none)").to_owned(),
                    self.profile.clone().into(),
                ),
            ),
            ("executor", Field::Text(self.executor.clone())),
            ("provider", Field::Text(self.provider.clone())),
            ("before", Field::Text(mode(self.before()))),
            ("after", Field::Text(mode(self.after()))),
        ]
    }

    fn handle(&self) -> String {
        self.executor.clone()
    }
}

impl Resource for proto::AffectedAgent {
    const COLUMNS: &'static [&'static str] = &["agent", "project", "executor", "before", "after", "effect"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let scope = self.scope.clone().unwrap_or_default();
        let effect = enum_name(self.effect().as_str_name(), "POLICY_EFFECT_");
        let told = match self.effect() {
            proto::PolicyEffect::FirstResolution => "first resolution",
            proto::PolicyEffect::NextTask => "running; next task",
            proto::PolicyEffect::AtOnce => "running; STOPS AT ONCE",
            proto::PolicyEffect::Unspecified => "",
        };
        vec![
            ("agent", Field::Text(self.agent.clone())),
            ("task", Field::Text(self.task.clone())),
            ("org", named(&scope.org, &scope.org_name, "")),
            ("project", named(&scope.project, &scope.project_name, "")),
            ("member", Field::Text(self.member.clone())),
            ("executor", Field::Text(self.executor.clone())),
            ("profile", Field::Text(self.profile.clone())),
            ("before", Field::Text(mode(self.before()))),
            ("after", Field::Text(mode(self.after()))),
            ("effect", Field::Both(told.to_owned(), effect.into())),
        ]
    }

    fn handle(&self) -> String {
        self.agent.clone()
    }
}
