//! The policy between API messages and what the use cases take and give.

use std::collections::BTreeMap;

use super::convert;
use crate::domain::amendment::{CellChange, Overruled, ScopeChange};
use crate::domain::id::{OrgId, ProjectId};
use crate::domain::impact::{Bounded, Effect, ModeChange};
use crate::domain::matrix::{Cell, Matrix, Verdict};
use crate::domain::mode::AuthMode;
use crate::domain::profile::{OnRejection, Profile};
use crate::domain::refusal::Refusal;
use crate::domain::role::Scope;
use crate::proto;
use crate::service::{
    Affected, NewCell, NewOrgPolicy, NewPolicy, NewProfile, NewRules, PolicyChanged, PolicyNames, PolicyView,
};

pub(super) fn mode(field: &'static str, value: i32) -> Result<AuthMode, Refusal> {
    match proto::AuthMode::try_from(value) {
        Ok(proto::AuthMode::Oauth) => Ok(AuthMode::OAuth),
        Ok(proto::AuthMode::Byok) => Ok(AuthMode::Byok),
        Ok(proto::AuthMode::Metered) => Ok(AuthMode::Metered),
        Ok(proto::AuthMode::Shared) => Ok(AuthMode::Shared),
        Ok(proto::AuthMode::HostSession) => Ok(AuthMode::HostSession),
        Ok(proto::AuthMode::Local) => Ok(AuthMode::Local),
        Ok(proto::AuthMode::Unspecified) | Err(_) => {
            let message = format!("{field} is not one of the modes this broker knows");
            Err(Refusal::invalid(field, message))
        }
    }
}

fn verdict(value: i32) -> Result<Verdict, Refusal> {
    match proto::Verdict::try_from(value) {
        Ok(proto::Verdict::Inherit) => Ok(Verdict::Inherit),
        Ok(proto::Verdict::Allow) => Ok(Verdict::Allow),
        Ok(proto::Verdict::Deny) => Ok(Verdict::Deny),
        Ok(proto::Verdict::Unspecified) | Err(_) => {
            let message = "verdict is one of inherit, allow, deny";
            Err(Refusal::invalid("verdict", message))
        }
    }
}

fn on_rejection(value: i32) -> Result<OnRejection, Refusal> {
    match proto::OnRejection::try_from(value) {
        Ok(proto::OnRejection::Unspecified | proto::OnRejection::Fail) => Ok(OnRejection::Fail),
        Ok(proto::OnRejection::Next) => Ok(OnRejection::Next),
        Err(_) => {
            let message = "on_rejection is not one this broker knows";
            Err(Refusal::invalid("profile.on_rejection", message))
        }
    }
}

fn cell(cell: &proto::PolicyCell) -> Result<NewCell, Refusal> {
    Ok(NewCell {
        mode: mode("mode", cell.mode)?,
        provider: cell.provider.clone(),
        model: cell.model.clone(),
        verdict: verdict(cell.verdict)?,
    })
}

pub(super) fn cells(cells: &[proto::PolicyCell]) -> Result<Vec<NewCell>, Refusal> {
    cells.iter().map(cell).collect()
}

/// Cells that are to go, whatever they say.
pub(super) fn places(cells: &[proto::PolicyCell]) -> Result<Vec<NewCell>, Refusal> {
    let place = |cell: &proto::PolicyCell| {
        Ok(NewCell {
            mode: mode("mode", cell.mode)?,
            provider: cell.provider.clone(),
            model: cell.model.clone(),
            verdict: Verdict::Inherit,
        })
    };
    cells.iter().map(place).collect()
}

pub(super) fn new_profile(profile: Option<&proto::Profile>) -> Result<NewProfile, Refusal> {
    let profile = profile.ok_or_else(|| Refusal::invalid("profile", "profile is required"))?;
    let modes = profile.modes.iter().map(|value| mode("profile.modes", *value));
    let models: BTreeMap<_, _> = profile.models.clone().into_iter().collect();
    Ok(NewProfile {
        name: profile.name.clone(),
        modes: modes.collect::<Result<_, _>>()?,
        on_rejection: on_rejection(profile.on_rejection)?,
        credential: profile.credential.clone(),
        models,
    })
}

fn new_rules(rules: &proto::OrgRules) -> Result<NewRules, Refusal> {
    let pin = |pin: &proto::ExecutorPin| Ok((pin.executor.clone(), mode("pins", pin.mode)?));
    let profiles = rules.profiles.iter().map(|profile| new_profile(Some(profile)));
    Ok(NewRules {
        matrix: cells(&rules.matrix)?,
        pins: rules.pins.iter().map(pin).collect::<Result<_, Refusal>>()?,
        profiles: profiles.collect::<Result<_, _>>()?,
    })
}

fn new_org(org: &proto::OrgPolicy) -> Result<NewOrgPolicy, Refusal> {
    if org.org.is_empty() {
        let message = "document.orgs.org is required: an id or a name";
        return Err(Refusal::invalid("document.orgs.org", message));
    }
    let project = |project: &proto::ProjectPolicy| Ok((project.project.clone(), cells(&project.matrix)?));
    Ok(NewOrgPolicy {
        org: org.org.clone(),
        rules: org.rules.as_ref().map(new_rules).transpose()?,
        projects: org.projects.iter().map(project).collect::<Result<_, Refusal>>()?,
    })
}

pub(super) fn document(document: &proto::PolicyDocument) -> Result<NewPolicy, Refusal> {
    let system = document.system.as_ref().map(|system| cells(&system.matrix));
    Ok(NewPolicy {
        system: system.transpose()?,
        orgs: document.orgs.iter().map(new_org).collect::<Result<_, _>>()?,
    })
}

fn proto_verdict(verdict: Verdict) -> i32 {
    (match verdict {
        Verdict::Inherit => proto::Verdict::Inherit,
        Verdict::Allow => proto::Verdict::Allow,
        Verdict::Deny => proto::Verdict::Deny,
    }) as i32
}

fn optional_mode(mode: Option<AuthMode>) -> i32 {
    mode.map(convert::mode).unwrap_or_default()
}

fn proto_cell(cell: &Cell) -> proto::PolicyCell {
    proto::PolicyCell {
        mode: convert::mode(cell.mode),
        provider: cell.provider.clone().unwrap_or_default(),
        model: cell.model.to_string(),
        verdict: proto_verdict(cell.verdict),
    }
}

fn proto_cells(matrix: &Matrix) -> Vec<proto::PolicyCell> {
    matrix.cells().iter().map(proto_cell).collect()
}

pub(super) fn profile(profile: &Profile) -> proto::Profile {
    let on_rejection = match profile.on_rejection {
        OnRejection::Fail => proto::OnRejection::Fail,
        OnRejection::Next => proto::OnRejection::Next,
    };
    proto::Profile {
        name: profile.name.to_string(),
        modes: profile.modes.iter().map(convert::mode).collect(),
        on_rejection: on_rejection as i32,
        credential: profile.credential.map(|id| id.to_string()).unwrap_or_default(),
        models: profile.models.clone().into_iter().collect(),
    }
}

pub(super) fn policy(view: &PolicyView) -> proto::GetPolicyResponse {
    let version = view.policy.version;
    let Some(id) = view.org else {
        let matrix = proto_cells(&view.policy.system);
        return proto::GetPolicyResponse {
            version,
            system: Some(proto::SystemPolicy { matrix }),
            org: None,
        };
    };
    let org = view.policy.org(id);
    let pins = org.pins.iter().map(|(executor, mode)| proto::ExecutorPin {
        executor: executor.clone(),
        mode: convert::mode(*mode),
    });
    let rules = proto::OrgRules {
        matrix: proto_cells(&org.matrix),
        pins: pins.collect(),
        profiles: Vec::new(),
    };
    let mut projects: Vec<_> = org
        .projects
        .iter()
        .map(|(project, matrix)| proto::ProjectPolicy {
            project: project.to_string(),
            name: view.names.project(*project).to_owned(),
            matrix: proto_cells(matrix),
        })
        .collect();
    projects.sort_by(|a, b| a.project.cmp(&b.project));
    proto::GetPolicyResponse {
        version,
        system: None,
        org: Some(proto::OrgPolicy {
            org: id.to_string(),
            name: view.names.org(id).to_owned(),
            rules: Some(rules),
            projects,
        }),
    }
}

fn place(names: &PolicyNames, org: Option<OrgId>, project: Option<ProjectId>) -> Option<proto::PolicyScope> {
    Some(proto::PolicyScope {
        org: org.map(|id| id.to_string()).unwrap_or_default(),
        org_name: org.map(|id| names.org(id).to_owned()).unwrap_or_default(),
        project: project.map(|id| id.to_string()).unwrap_or_default(),
        project_name: project.map(|id| names.project(id).to_owned()).unwrap_or_default(),
    })
}

fn scope(names: &PolicyNames, scope: Scope) -> Option<proto::PolicyScope> {
    match scope {
        Scope::Broker => place(names, None, None),
        Scope::Org(org) => place(names, Some(org), None),
        Scope::Project(org, project) => place(names, Some(org), Some(project)),
    }
}

fn cell_change(change: &CellChange) -> proto::CellChange {
    proto::CellChange {
        mode: convert::mode(change.mode),
        provider: change.provider.clone().unwrap_or_default(),
        model: change.model.to_string(),
        before: change.before.map(proto_verdict).unwrap_or_default(),
        after: change.after.map(proto_verdict).unwrap_or_default(),
    }
}

fn mode_change(names: &PolicyNames, row: &ModeChange) -> proto::ModeChange {
    proto::ModeChange {
        scope: place(names, row.org, row.project),
        profile: row.profile.clone(),
        executor: row.executor.clone(),
        provider: row.provider.clone(),
        before: optional_mode(row.before),
        after: optional_mode(row.after),
    }
}

fn affected(names: &PolicyNames, row: &Affected) -> proto::AffectedAgent {
    let effect = match row.change.effect {
        Effect::FirstResolution => proto::PolicyEffect::FirstResolution,
        Effect::NextTask => proto::PolicyEffect::NextTask,
        Effect::AtOnce => proto::PolicyEffect::AtOnce,
    };
    proto::AffectedAgent {
        agent: row.agent.to_string(),
        task: row.task.id.to_string(),
        scope: place(names, Some(row.task.org), Some(row.task.project)),
        member: row.task.member.to_string(),
        executor: row.task.executor.clone(),
        profile: row.task.profile.clone(),
        before: optional_mode(row.change.before),
        after: optional_mode(row.change.after),
        effect: effect as i32,
    }
}

fn impact(
    names: &PolicyNames,
    modes: &Bounded<ModeChange>,
    agents: &Bounded<Affected>,
) -> proto::PolicyImpact {
    proto::PolicyImpact {
        modes: modes.rows.iter().map(|row| mode_change(names, row)).collect(),
        modes_total: modes.total as u64,
        modes_at_least: modes.at_least,
        agents: agents.rows.iter().map(|row| affected(names, row)).collect(),
        agents_total: agents.total as u64,
        agents_at_least: agents.at_least,
    }
}

pub(super) fn change(changed: &PolicyChanged) -> proto::PolicyChange {
    let names = &changed.names;
    let scope_change = |change: &ScopeChange| proto::ScopeChange {
        scope: scope(names, change.scope),
        cells: change.cells.iter().map(cell_change).collect(),
    };
    let pins = changed.diff.pins.iter().map(|pin| proto::PinChange {
        scope: place(names, Some(pin.org), None),
        executor: pin.executor.clone(),
        before: optional_mode(pin.before),
        after: optional_mode(pin.after),
    });
    let profiles = changed.diff.profiles.iter().map(|change| proto::ProfileChange {
        scope: place(names, Some(change.org), None),
        before: change.before.as_ref().map(|it| profile(it)),
        after: change.after.as_ref().map(|it| profile(it)),
    });
    let warning = |warning: &Overruled| proto::PolicyWarning {
        scope: scope(names, warning.scope),
        cell: Some(proto_cell(&warning.cell)),
        denied_by: warning.by.name().to_owned(),
    };
    proto::PolicyChange {
        version: changed.version,
        differs: !changed.diff.is_empty(),
        scopes: changed.diff.scopes.iter().map(scope_change).collect(),
        pins: pins.collect(),
        profiles: profiles.collect(),
        impact: Some(impact(names, &changed.modes, &changed.agents)),
        warnings: changed.overruled.iter().map(warning).collect(),
    }
}
