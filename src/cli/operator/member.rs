//! `credbroker member`: the human users of an org.

mod link;

use clap::Subcommand;
use prost_types::FieldMask;
use serde_json::json;

use super::agent::print_outstanding;
use super::{pages, print_list, print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::input;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs, enum_name};
use crate::proto;

/// What is done with members.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a member.
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and '-', beginning with a letter; unique in the org; for good.
        name: String,
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        /// An outside identity, such as `github:octocat`; may be repeated.
        #[arg(long, value_name = "SYSTEM:SUBJECT")]
        identity: Vec<String>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the members of the org.
    List(#[command(flatten)] ListArgs),
    /// Show a member.
    Show {
        /// The member: id or name.
        name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change a member.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// The member: id or name.
        name: String,
        /// What people call it.
        #[arg(long, group = "change")]
        display_name: Option<String>,
        /// The outside identities, in place of those there are; may be repeated.
        #[arg(long, value_name = "SYSTEM:SUBJECT", group = "change")]
        identity: Vec<String>,
        /// Take all outside identities away.
        #[arg(long, group = "change", conflicts_with = "identity")]
        no_identities: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Link outside identities to members in bulk, beside those that they have.
    ///
    /// What is linked already stays so: the same file may be given again.
    LinkIdentities(link::LinkArgs),
    /// Remove a member for good, and end what was theirs.
    Remove {
        /// The member: id or name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut directory = session.directory();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::Create {
            name,
            display_name,
            identity,
            show,
        } => {
            let request = proto::CreateMemberRequest {
                org,
                name,
                display_name,
                request_id: request_id()?,
                identities: identity,
            };
            let answer = directory.create_member(request).await.map_err(failed)?;
            print_one(answer.into_inner().member, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut directory, org) = (session.directory(), org.clone());
                async move {
                    let request = proto::ListMembersRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = directory.list_members(request).await?.into_inner();
                    Ok((page.members, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { name, show } => {
            let request = proto::GetMemberRequest { org, member: name };
            let answer = directory.get_member(request).await.map_err(failed)?;
            print_one(answer.into_inner().member, show)
        }
        Action::Update {
            name,
            display_name,
            identity,
            no_identities,
            show,
        } => {
            let mut paths = Vec::new();
            if display_name.is_some() {
                paths.push("display_name".to_owned());
            }
            if no_identities || !identity.is_empty() {
                paths.push("identities".to_owned());
            }
            let request = proto::GetMemberRequest { org, member: name };
            let read = directory.get_member(request).await.map_err(failed)?.into_inner();
            let request = proto::UpdateMemberRequest {
                member: Some(proto::Member {
                    display_name: display_name.unwrap_or_default(),
                    identities: identity,
                    // Its id, and the etag that guards against a lost update.
                    ..read.member.unwrap_or_default()
                }),
                update_mask: Some(FieldMask { paths }),
            };
            let answer = directory.update_member(request).await.map_err(failed)?;
            print_one(answer.into_inner().member, show)
        }
        Action::LinkIdentities(args) => link::run(session, org, args).await,
        Action::Remove { name, yes, show } => {
            let consequence = format!(
                "This removes {name} for good: their tokens, tasks, leases, credentials and linked identities end."
            );
            input::confirm(&consequence, yes)?;
            let request = proto::RemoveMemberRequest { org, member: name };
            let answer = directory.remove_member(request).await.map_err(failed)?;
            removed(answer.into_inner(), show)
        }
    }
}

fn removed(answer: proto::RemoveMemberResponse, show: ShowArgs) -> Result<(), Failure> {
    if show.output == Output::Json {
        return render::print(&render::json(&json!({
            "member": answer.member.as_ref().map(render::object),
            "operator_tokens_revoked": answer.operator_tokens_revoked,
            "tasks_ended": answer.tasks_ended,
            "leases_ended": answer.leases_ended,
            "credentials": answer.credentials.iter().map(render::object).collect::<Vec<_>>(),
            "outstanding": answer.outstanding.iter().map(render::object).collect::<Vec<_>>(),
            "outstanding_truncated": answer.outstanding_truncated,
        })));
    }
    let counts = format!(
        "ended: {} operator tokens, {} tasks, {} leases, {} credentials",
        answer.operator_tokens_revoked,
        answer.tasks_ended,
        answer.leases_ended,
        answer.credentials.len()
    );
    print_one(answer.member, show)?;
    if show.output == Output::Table {
        render::print(&format!("\n{counts}\n"))?;
        if !answer.credentials.is_empty() {
            render::print(&render::list(&answer.credentials, Output::Table, render::now()))?;
        }
    }
    print_outstanding(&answer.outstanding, answer.outstanding_truncated, show)
}

impl Resource for proto::RemovedCredential {
    const COLUMNS: &'static [&'static str] = &["credential", "provider", "kind", "advice"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let kind = enum_name(self.kind().as_str_name(), "CREDENTIAL_KIND_");
        vec![
            ("credential", Field::Text(self.credential.clone())),
            ("provider", Field::Text(self.provider.clone())),
            ("kind", Field::Text(kind)),
            ("advice", Field::Text(self.advice.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.credential.clone()
    }
}

impl Resource for proto::Member {
    const COLUMNS: &'static [&'static str] = &["name", "id", "display_name", "identities", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("name", Field::Text(self.name.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            ("identities", Field::List(self.identities.clone())),
            ("create_time", Field::Time(self.create_time)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
