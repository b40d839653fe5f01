//! Between the messages of `AccessService` and domain types.

use super::convert::timestamp;
use crate::domain::directory::Group;
use crate::domain::refusal::Refusal;
use crate::domain::role::{Grant, Role, Scope};
use crate::domain::token::FamilyName;
use crate::proto;
use crate::service::{HolderId, ListedApiKey, ListedOperatorToken, NamedGrant, RoleHolder, RoleSubject};

pub(super) fn grant(grant: Grant) -> proto::RoleGrant {
    let (org, project) = match grant.scope {
        Scope::Broker => (String::new(), String::new()),
        Scope::Org(org) => (org.to_string(), String::new()),
        Scope::Project(org, project) => (org.to_string(), project.to_string()),
    };
    let role = match grant.role {
        Role::SystemAdmin => proto::Role::SystemAdmin,
        Role::OrgAdmin => proto::Role::OrgAdmin,
        Role::Member => proto::Role::Member,
        Role::Auditor => proto::Role::Auditor,
        Role::Approver => proto::Role::Approver,
        Role::ModelProxy => proto::Role::ModelProxy,
    };
    proto::RoleGrant {
        role: role as i32,
        org,
        project,
    }
}

/// The role that a request names.
pub(super) fn named(grant: Option<&proto::RoleGrant>) -> Result<NamedGrant, Refusal> {
    let Some(grant) = grant else {
        return Err(Refusal::invalid("role", "role is required"));
    };
    let role = match proto::Role::try_from(grant.role) {
        Ok(proto::Role::SystemAdmin) => Role::SystemAdmin,
        Ok(proto::Role::OrgAdmin) => Role::OrgAdmin,
        Ok(proto::Role::Member) => Role::Member,
        Ok(proto::Role::Auditor) => Role::Auditor,
        Ok(proto::Role::Approver) => Role::Approver,
        Ok(proto::Role::ModelProxy) => Role::ModelProxy,
        Ok(proto::Role::Unspecified) => return Err(Refusal::invalid("role", "role is required")),
        Err(_) => return Err(Refusal::invalid("role", "role is not one this broker knows")),
    };
    Ok(NamedGrant {
        role,
        org: grant.org.clone(),
        project: grant.project.clone(),
    })
}

pub(super) fn grants(grants: &[proto::RoleGrant]) -> Result<Vec<NamedGrant>, Refusal> {
    grants.iter().map(|grant| named(Some(grant))).collect()
}

pub(super) fn wire_groups(groups: &[Group]) -> Vec<i32> {
    let group = |group: &Group| match group {
        Group::Tasks => proto::ApiKeyGroup::Tasks,
        Group::Resolve => proto::ApiKeyGroup::Resolve,
        Group::Enrollment => proto::ApiKeyGroup::Enrollment,
        Group::Agents => proto::ApiKeyGroup::Agents,
        Group::Directory => proto::ApiKeyGroup::Directory,
        Group::Credentials => proto::ApiKeyGroup::Credentials,
        Group::Approvals => proto::ApiKeyGroup::Approvals,
        Group::Introspect => proto::ApiKeyGroup::Introspect,
        Group::Watch => proto::ApiKeyGroup::Watch,
        Group::Secrets => proto::ApiKeyGroup::Secrets,
        Group::Proxy => proto::ApiKeyGroup::Proxy,
        Group::Accounts => proto::ApiKeyGroup::Accounts,
    };
    groups.iter().map(|one| group(one) as i32).collect()
}

pub(super) fn groups(groups: &[i32]) -> Result<Vec<Group>, Refusal> {
    let known = |number: &i32| {
        let group = Group::ALL
            .into_iter()
            .find(|group| wire_groups(&[*group]) == [*number]);
        group.ok_or_else(|| Refusal::invalid("groups", "a group is not one this broker knows"))
    };
    groups.iter().map(known).collect()
}

pub(super) fn api_key(listed: &ListedApiKey) -> proto::ApiKey {
    let key = &listed.key;
    let projects = key.projects.iter().flatten().map(ToString::to_string);
    proto::ApiKey {
        id: key.id.to_string(),
        org: key.org.to_string(),
        display_name: key.display_name.clone(),
        create_time: Some(timestamp(key.created)),
        expire_time: Some(timestamp(key.expires)),
        revoke_time: key.revoked.map(timestamp),
        projects: projects.collect(),
        groups: wire_groups(&key.groups()),
        certificate_required: key.certificate.is_some(),
        last_used_time: listed.last_used.map(timestamp),
        previous_expire_time: key.previous.map(|previous| timestamp(previous.until)),
    }
}

pub(super) fn operator_token(listed: &ListedOperatorToken) -> proto::OperatorToken {
    let operator = &listed.operator;
    let (org, member) = operator
        .member
        .map(|of| (of.org.to_string(), of.member.to_string()))
        .unwrap_or_default();
    proto::OperatorToken {
        id: operator.id.to_string(),
        prefix: FamilyName::Operator.prefix().to_owned(),
        display_name: operator.display_name.clone(),
        org,
        member,
        roles: listed.grants.iter().map(|held| grant(*held)).collect(),
        create_time: Some(timestamp(operator.created)),
        expire_time: operator.expires.map(timestamp),
        revoke_time: operator.revoked.map(timestamp),
        last_used_time: listed.last_used.map(timestamp),
        previous_expire_time: operator.previous.map(|previous| timestamp(previous.until)),
    }
}

/// Whose roles a request means.
pub(super) fn subject<'a>(
    org: &'a str,
    member: &'a str,
    operator: &'a str,
) -> Result<RoleSubject<'a>, Refusal> {
    match (org, member, operator) {
        (_, "", "") => Err(Refusal::invalid("member", "name a member, or an operator")),
        ("", "", operator) => Ok(RoleSubject::Operator(operator)),
        (org, member, "") => Ok(RoleSubject::Member { org, member }),
        _ => Err(Refusal::invalid(
            "operator",
            "name either an operator or a member and its org",
        )),
    }
}

pub(super) fn holder(holder: &RoleHolder) -> proto::RoleHolder {
    let (org, member, operator) = match holder.id {
        HolderId::Member(org, member) => (org.to_string(), member.to_string(), String::new()),
        HolderId::Operator(id) => (String::new(), String::new(), id.to_string()),
    };
    proto::RoleHolder {
        org,
        member,
        operator,
        name: holder.name.clone(),
        roles: holder.grants.iter().map(|held| grant(*held)).collect(),
    }
}
