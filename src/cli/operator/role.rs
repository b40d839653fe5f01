//! `credbroker role`: who may do what, and where.

use std::str::FromStr;

use clap::{Args, Subcommand};

use super::{pages, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs};
use crate::domain::role::{NoRole, Role};
use crate::proto;

/// What is done with roles.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Give a role. Nobody gives more than they have.
    Grant(ChangeArgs),
    /// Take a role away, from the holder's next call on.
    Revoke(ChangeArgs),
    /// List who holds which roles: the org's members, or without an org those who are no org's members.
    List(#[command(flatten)] ListArgs),
}

/// Which role, and whose.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("holder").required(true))]
pub struct ChangeArgs {
    /// One of system-admin, org-admin, member, auditor, approver, model-proxy, and where it holds. A member's role
    /// without @ holds in the member's whole org, anybody else's in the whole broker.
    #[arg(value_name = "ROLE[@ORG[/PROJECT]]")]
    role: RoleArg,
    /// The member: id or name.
    #[arg(long, group = "holder")]
    member: Option<String>,
    /// Somebody who is no org's member, `opr_…`.
    #[arg(long, group = "holder", value_name = "ID")]
    operator: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

/// A role and where it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleArg(pub proto::RoleGrant);

impl FromStr for RoleArg {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        let (role, scope) = text.split_once('@').unwrap_or((text, ""));
        let (org, project) = scope.split_once('/').unwrap_or((scope, ""));
        let role = match role.parse::<Role>()? {
            Role::SystemAdmin => proto::Role::SystemAdmin,
            Role::OrgAdmin => proto::Role::OrgAdmin,
            Role::Member => proto::Role::Member,
            Role::Auditor => proto::Role::Auditor,
            Role::Approver => proto::Role::Approver,
            Role::ModelProxy => proto::Role::ModelProxy,
        };
        Ok(Self(proto::RoleGrant {
            role: role as i32,
            org: org.to_owned(),
            project: project.to_owned(),
        }))
    }
}

/// A role as people and [`RoleArg`] write it.
pub(super) fn told(grant: &proto::RoleGrant) -> String {
    let role = match grant.role() {
        proto::Role::SystemAdmin => Role::SystemAdmin.name(),
        proto::Role::OrgAdmin => Role::OrgAdmin.name(),
        proto::Role::Member => Role::Member.name(),
        proto::Role::Auditor => Role::Auditor.name(),
        proto::Role::Approver => Role::Approver.name(),
        proto::Role::ModelProxy => Role::ModelProxy.name(),
        proto::Role::Unspecified => "unknown",
    };
    match (grant.org.as_str(), grant.project.as_str()) {
        ("", _) => role.to_owned(),
        (org, "") => format!("{role}@{org}"),
        (org, project) => format!("{role}@{org}/{project}"),
    }
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut access = session.access();
    let failed = |status| session.failure(status);
    // An operator belongs to no org.
    let org_of = |member: &Option<String>| match member {
        Some(_) => session.org_or_own(),
        None => String::new(),
    };
    match action {
        Action::Grant(args) => {
            let request = proto::GrantRoleRequest {
                org: org_of(&args.member),
                member: args.member.unwrap_or_default(),
                operator: args.operator.unwrap_or_default(),
                role: Some(args.role.0),
            };
            let answer = access.grant_role(request).await.map_err(failed)?;
            print_one(answer.into_inner().holder, args.show)
        }
        Action::Revoke(args) => {
            let request = proto::RevokeRoleRequest {
                org: org_of(&args.member),
                member: args.member.unwrap_or_default(),
                operator: args.operator.unwrap_or_default(),
                role: Some(args.role.0),
            };
            let answer = access.revoke_role(request).await.map_err(failed)?;
            print_one(answer.into_inner().holder, args.show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut access, org) = (session.access(), session.org_or_own());
                async move {
                    let request = proto::ListRolesRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = access.list_roles(request).await?.into_inner();
                    Ok((page.holders, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
    }
}

impl Resource for proto::RoleHolder {
    const COLUMNS: &'static [&'static str] = &["holder", "name", "roles"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("holder", Field::Text(self.handle())),
            ("org", Field::Text(self.org.clone())),
            ("member", Field::Text(self.member.clone())),
            ("operator", Field::Text(self.operator.clone())),
            ("name", Field::Text(self.name.clone())),
            ("roles", Field::List(self.roles.iter().map(told).collect())),
        ]
    }

    fn handle(&self) -> String {
        if self.member.is_empty() {
            self.operator.clone()
        } else {
            self.member.clone()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_role_reads_as_it_is_written() {
        for text in ["system-admin", "org-admin@acme", "auditor@acme/web"] {
            assert_eq!(told(&text.parse::<RoleArg>().unwrap().0), text);
        }
        assert!("admin".parse::<RoleArg>().is_err());
        assert!("@acme".parse::<RoleArg>().is_err());
    }
}
