//! `credbroker operator-token`: the tokens people call with.

use std::time::Duration;

use clap::Subcommand;

use super::role::{RoleArg, told};
use super::{MintOutput, Minted, pages, print_list, print_minted, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs};
use crate::cli::{input, wire_duration};
use crate::proto;

/// What is done with operator tokens.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Mint an operator token: of a member, of yourself where none is named, or with --role of somebody who is no
    /// org's member. It is shown this once.
    Create {
        /// The member whose token it is: id or name.
        #[arg(long)]
        member: Option<String>,
        /// A role of somebody who is no org's member; may be repeated.
        #[arg(long, value_name = "ROLE[@ORG[/PROJECT]]", conflicts_with = "member")]
        role: Vec<RoleArg>,
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        /// How long it is good for; otherwise the broker's default.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
    /// List operator tokens, never the tokens themselves.
    List {
        /// Those of this member only: id or name.
        #[arg(long, default_value = "")]
        member: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Replace an operator token with a new one, shown this once. The old one stays good for the overlap.
    Rotate {
        /// Its id, `opr_…`; without it the token this command calls with.
        operator_token: Option<String>,
        /// How long the old one stays good: 0s to 7d; otherwise an hour.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        overlap: Option<Duration>,
        /// How long the new one is good for; otherwise until the old one was to end.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
    /// Revoke an operator token.
    Revoke {
        /// Its id, `opr_…`.
        operator_token: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut access = session.access();
    let failed = |status| session.failure(status);
    match action {
        Action::Create {
            member,
            role,
            display_name,
            ttl,
            output,
        } => {
            let org = if role.is_empty() {
                session.org_or_own()
            } else {
                String::new()
            };
            let request = proto::CreateOperatorTokenRequest {
                org,
                member: member.unwrap_or_default(),
                display_name,
                ttl: ttl.map(wire_duration).transpose()?,
                roles: role.into_iter().map(|role| role.0).collect(),
            };
            let answer = access.create_operator_token(request).await.map_err(failed)?;
            let answer = answer.into_inner();
            print_minted(minted(answer.operator_token, answer.token), output)
        }
        Action::List { member, list } => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut access, member) = (session.access(), member.clone());
                let org = session.org_or_own();
                async move {
                    let request = proto::ListOperatorTokensRequest {
                        org,
                        member,
                        page_size,
                        page_token,
                    };
                    let page = access.list_operator_tokens(request).await?.into_inner();
                    Ok((page.operator_tokens, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Rotate {
            operator_token,
            overlap,
            ttl,
            output,
        } => {
            let request = proto::RotateOperatorTokenRequest {
                operator_token: operator_token.unwrap_or_default(),
                overlap: overlap.map(wire_duration).transpose()?,
                ttl: ttl.map(wire_duration).transpose()?,
            };
            let answer = access.rotate_operator_token(request).await.map_err(failed)?;
            let answer = answer.into_inner();
            print_minted(minted(answer.operator_token, answer.token), output)
        }
        Action::Revoke {
            operator_token,
            yes,
            show,
        } => {
            let consequence =
                format!("This revokes {operator_token} for good: who calls with it is refused.");
            input::confirm(&consequence, yes)?;
            let request = proto::RevokeOperatorTokenRequest { operator_token };
            let answer = access.revoke_operator_token(request).await.map_err(failed)?;
            print_one(answer.into_inner().operator_token, show)
        }
    }
}

fn minted(
    operator_token: Option<proto::OperatorToken>,
    token: Option<proto::Secret>,
) -> Minted<proto::OperatorToken> {
    let resource = operator_token.unwrap_or_default();
    Minted {
        name: "operator_token",
        expires: resource.expire_time,
        resource,
        token: token.unwrap_or_default(),
        more: Vec::new(),
    }
}

impl Resource for proto::OperatorToken {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "prefix",
        "display_name",
        "member",
        "roles",
        "expire_time",
        "revoke_time",
        "last_used_time",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("prefix", Field::Text(format!("{}…", self.prefix))),
            ("display_name", Field::Text(self.display_name.clone())),
            ("org", Field::Text(self.org.clone())),
            ("member", Field::Text(self.member.clone())),
            ("roles", Field::List(self.roles.iter().map(told).collect())),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("revoke_time", Field::Time(self.revoke_time)),
            ("last_used_time", Field::Time(self.last_used_time)),
            ("previous_expire_time", Field::Time(self.previous_expire_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }
}
