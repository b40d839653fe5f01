//! The policy over the port: written whole or not at all, checked when written, kept, told, and previewed.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "policy/access.rs"]
mod access;
#[path = "policy/apply.rs"]
mod apply;
#[path = "policy/impact.rs"]
mod impact;
#[path = "policy/profiles.rs"]
mod profiles;
mod support;
#[path = "policy/written.rs"]
mod written;

use credbroker::proto::{self, AuthMode, PolicyCell, PolicyDocument, Verdict};
use support::broker::ORG;
use support::{Caller, TestBroker};
use tonic::Status;

fn cell(mode: AuthMode, provider: &str, model: &str, verdict: Verdict) -> PolicyCell {
    PolicyCell {
        mode: mode as i32,
        provider: provider.to_owned(),
        model: model.to_owned(),
        verdict: verdict as i32,
    }
}

/// A denial of a mode, everywhere and for all models.
fn deny(mode: AuthMode) -> PolicyCell {
    cell(mode, "", "*", Verdict::Deny)
}

fn pin(executor: &str, mode: AuthMode) -> proto::ExecutorPin {
    proto::ExecutorPin {
        executor: executor.to_owned(),
        mode: mode as i32,
    }
}

fn profile(name: &str, modes: &[AuthMode]) -> proto::Profile {
    proto::Profile {
        name: name.to_owned(),
        modes: modes.iter().map(|mode| *mode as i32).collect(),
        on_rejection: proto::OnRejection::Fail as i32,
        ..Default::default()
    }
}

fn rules(matrix: &[PolicyCell]) -> proto::OrgRules {
    proto::OrgRules {
        matrix: matrix.to_vec(),
        ..Default::default()
    }
}

/// A document about one org.
fn of_org(org: &str, rules: Option<proto::OrgRules>, projects: &[(&str, &[PolicyCell])]) -> PolicyDocument {
    let projects = projects.iter().map(|(project, cells)| proto::ProjectPolicy {
        project: (*project).to_owned(),
        matrix: cells.to_vec(),
        ..Default::default()
    });
    PolicyDocument {
        system: None,
        orgs: vec![proto::OrgPolicy {
            org: org.to_owned(),
            rules,
            projects: projects.collect(),
            ..Default::default()
        }],
    }
}

/// A document about the system.
fn of_system(matrix: &[PolicyCell]) -> PolicyDocument {
    PolicyDocument {
        system: Some(proto::SystemPolicy {
            matrix: matrix.to_vec(),
        }),
        orgs: Vec::new(),
    }
}

async fn applied(
    caller: &Caller,
    document: PolicyDocument,
    expected_version: Option<u64>,
    validate_only: bool,
) -> Result<proto::PolicyChange, Status> {
    let request = proto::ApplyPolicyRequest {
        document: Some(document),
        expected_version,
        validate_only,
    };
    let answer = caller.policies().apply_policy(request).await?;
    Ok(answer.into_inner().change.unwrap())
}

async fn apply(caller: &Caller, document: PolicyDocument) -> Result<proto::PolicyChange, Status> {
    applied(caller, document, None, false).await
}

async fn preview(caller: &Caller, document: PolicyDocument) -> proto::PolicyChange {
    applied(caller, document, None, true).await.unwrap()
}

async fn set(
    caller: &Caller,
    scope: (&str, &str),
    cells: &[PolicyCell],
) -> Result<proto::PolicyChange, Status> {
    let request = proto::SetCellsRequest {
        scope: Some(proto::PolicyScope {
            org: scope.0.to_owned(),
            project: scope.1.to_owned(),
            ..Default::default()
        }),
        set: cells.to_vec(),
        ..Default::default()
    };
    let answer = caller.policies().set_cells(request).await?;
    Ok(answer.into_inner().change.unwrap())
}

/// The org's policy without its profiles; of the system where `org` is empty.
async fn get(caller: &Caller, org: &str) -> Result<proto::GetPolicyResponse, Status> {
    let request = proto::GetPolicyRequest {
        org: org.to_owned(),
        system: org.is_empty(),
    };
    Ok(caller.policies().get_policy(request).await?.into_inner())
}

async fn profiles_of(caller: &Caller, org: &str) -> Vec<proto::Profile> {
    let request = proto::ListProfilesRequest {
        org: org.to_owned(),
        page_size: 200,
        ..Default::default()
    };
    let page = caller.policies().list_profiles(request).await.unwrap();
    page.into_inner().profiles
}

async fn version(caller: &Caller) -> u64 {
    get(caller, "").await.unwrap().version
}

/// What was done in the journal: all records that are no refusals.
async fn done(caller: &Caller) -> usize {
    let records = caller.records().await;
    records.iter().filter(|record| record.outcome != "denied").count()
}

/// A member of the prepared org, new, with this role.
async fn human(broker: &TestBroker, operator: &Caller, name: &str, role: proto::Role) -> Caller {
    operator.make_member(ORG, name).await;
    let request = proto::GrantRoleRequest {
        org: ORG.to_owned(),
        member: name.to_owned(),
        role: Some(proto::RoleGrant {
            role: role as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    if role != proto::Role::Member {
        operator.access().grant_role(request).await.unwrap();
    }
    let request = proto::CreateOperatorTokenRequest {
        org: ORG.to_owned(),
        member: name.to_owned(),
        ..Default::default()
    };
    let made = operator.access().create_operator_token(request).await.unwrap();
    broker.caller(Some(&made.into_inner().token.unwrap().value)).await
}
