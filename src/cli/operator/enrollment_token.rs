//! `credbroker enrollment-token`: the one-time tokens that agents enroll with.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{MintOutput, pages, print_named, print_named_list};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs, enum_name};
use crate::cli::{input, key_value, wire_duration};
use crate::proto;

/// What is done with enrollment tokens.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Mint enrollment tokens. They are shown this once.
    Create(CreateArgs),
    /// List the org's enrollment tokens, never the tokens themselves.
    List(#[command(flatten)] ListArgs),
    /// Show an enrollment token, and who enrolled with it.
    Show {
        /// The enrollment token's id, `etk_…`.
        enrollment_token: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Revoke an enrollment token. Agents enrolled by it stay, unless --cascade says that they go too.
    Revoke {
        /// The enrollment token's id, `etk_…`.
        enrollment_token: String,
        /// Also revoke the agents enrolled by it. They are shown first.
        #[arg(long)]
        cascade: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// What is minted.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The environment: id or name.
    #[arg(long)]
    environment: String,
    /// The project: id or name; needed when the environment is given by name.
    #[arg(long, default_value = "")]
    project: String,
    /// How many tokens.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// How many agents each may enroll.
    #[arg(long, default_value_t = 1)]
    max_agents: u32,
    /// How long they are good for; otherwise the broker's default.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// A task that their agents are assigned to.
    #[arg(long, default_value = "")]
    task: String,
    /// A label for their agents; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// A network they may be presented from, such as 10.0.0.0/8; may be repeated. Otherwise from anywhere.
    #[arg(long, value_name = "CIDR")]
    allow_network: Vec<String>,
    /// How they are shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: MintOutput,
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut agents = session.agents();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::Create(args) => {
            let output = args.output;
            let request = proto::CreateEnrollmentTokensRequest {
                org,
                project: args.project,
                environment: args.environment,
                count: args.count,
                max_agents: args.max_agents,
                ttl: args.ttl.map(wire_duration).transpose()?,
                task: args.task,
                labels: args.label.into_iter().collect(),
                allowed_networks: args.allow_network,
            };
            let answer = agents.create_enrollment_tokens(request).await.map_err(failed)?;
            render::print(&minted(answer.get_ref(), output))?;
            if output == MintOutput::Table {
                render::remark("Shown this once. Enroll with the token on standard input:");
                render::remark(&format!(
                    "credbroker enroll --address {} --ca-pin {}",
                    session.target.address,
                    answer.get_ref().ca_pin
                ));
            }
            Ok(())
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut agents, org) = (session.agents(), org.clone());
                async move {
                    let request = proto::ListEnrollmentTokensRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = agents.list_enrollment_tokens(request).await?.into_inner();
                    Ok((page.enrollment_tokens, page.next_page_token))
                }
            });
            print_named_list(session, items.await.map_err(failed)?, list).await
        }
        Action::Show {
            enrollment_token,
            show,
        } => {
            let request = proto::GetEnrollmentTokenRequest {
                org: org.clone(),
                enrollment_token: enrollment_token.clone(),
            };
            let answer = agents.get_enrollment_token(request).await.map_err(failed)?;
            let token = answer.into_inner().enrollment_token;
            let slots = pages(MOST_SLOTS, |page_size, page_token| {
                let (mut agents, org) = (session.agents(), org.clone());
                let enrollment_token = enrollment_token.clone();
                async move {
                    let request = proto::ListEnrollmentTokenSlotsRequest {
                        org,
                        enrollment_token,
                        page_size,
                        page_token,
                    };
                    let page = agents.list_enrollment_token_slots(request).await?.into_inner();
                    Ok((page.slots, page.next_page_token))
                }
            });
            shown(session, token, &slots.await.map_err(failed)?, show).await
        }
        Action::Revoke {
            enrollment_token,
            cascade,
            yes,
            show,
        } => {
            let mut request = proto::RevokeEnrollmentTokenRequest {
                org,
                enrollment_token,
                cascade,
                validate_only: true,
            };
            let token = &request.enrollment_token;
            let mut consequence = format!("This revokes {token} for good: it enrolls no one any more.");
            if cascade {
                let preview = agents.revoke_enrollment_token(request.clone()).await;
                let going = preview.map_err(failed)?.into_inner().agents;
                // On standard error, as what is asked about it.
                render::remark(&render::list(&going, Output::Table, render::now()));
                consequence += &format!(" It also revokes the {} agents above.", going.len());
            }
            input::confirm(&consequence, yes)?;
            request.validate_only = false;
            let answer = agents.revoke_enrollment_token(request).await.map_err(failed)?;
            let answer = answer.into_inner();
            if cascade {
                revoked(session, answer, show).await
            } else {
                print_named(session, answer.enrollment_token, show).await
            }
        }
    }
}

/// A token has no more slots than this.
const MOST_SLOTS: u32 = 1_000;

async fn shown(
    session: &Session,
    token: Option<proto::EnrollmentToken>,
    slots: &[proto::EnrollmentTokenSlot],
    show: ShowArgs,
) -> Result<(), Failure> {
    if show.output == Output::Json {
        return render::print(&render::json(&json!({
            "enrollment_token": token.as_ref().map(render::object),
            "slots": slots.iter().map(render::object).collect::<Vec<_>>(),
        })));
    }
    print_named(session, token, show).await?;
    if show.output == Output::Table && !slots.is_empty() {
        render::print("\nenrolled with it:\n")?;
        render::print(&render::list(slots, Output::Table, render::now()))?;
    }
    Ok(())
}

async fn revoked(
    session: &Session,
    answer: proto::RevokeEnrollmentTokenResponse,
    show: ShowArgs,
) -> Result<(), Failure> {
    if show.output == Output::Json {
        return render::print(&render::json(&json!({
            "enrollment_token": answer.enrollment_token.as_ref().map(render::object),
            "agents": answer.agents.iter().map(render::object).collect::<Vec<_>>(),
            "outstanding": answer.outstanding.iter().map(render::object).collect::<Vec<_>>(),
        })));
    }
    print_named(session, answer.enrollment_token, show).await?;
    if show.output == Output::Table && !answer.outstanding.is_empty() {
        render::print(
            "\nits agents were handed, and may still use at the provider until it expires there:\n",
        )?;
        render::print(&render::list(&answer.outstanding, Output::Table, render::now()))?;
    }
    Ok(())
}

/// The tokens, with their secrets: the only time they are seen.
fn minted(answer: &proto::CreateEnrollmentTokensResponse, output: MintOutput) -> String {
    let tokens = answer.tokens.iter().map(|minted| {
        let secret = minted.token.as_ref().map_or("", |secret| secret.value.as_str());
        (minted.enrollment_token.clone().unwrap_or_default(), secret)
    });
    match output {
        MintOutput::Value => tokens.map(|(_, secret)| format!("{secret}\n")).collect(),
        MintOutput::Json => render::json(&json!({
            "tokens": tokens
                .map(|(token, secret)| json!({
                    "enrollment_token": render::object(&token),
                    "token": secret,
                }))
                .collect::<Vec<_>>(),
            "ca_pin": answer.ca_pin,
        })),
        MintOutput::Table => {
            let rows = tokens.map(|(token, secret)| (token.id, secret.to_owned()));
            let pin = ("CA PIN".to_owned(), answer.ca_pin.clone());
            render::pairs(
                [("ID".to_owned(), "TOKEN".to_owned())]
                    .into_iter()
                    .chain(rows)
                    .chain([pin]),
            )
        }
    }
}

impl Resource for proto::EnrollmentToken {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "environment",
        "bound_agents",
        "max_agents",
        "task",
        "expire_time",
        "revoke_time",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("environment", Field::Text(self.environment.clone())),
            ("max_agents", Field::Number(self.max_agents.into())),
            ("bound_agents", Field::Number(self.bound_agents.into())),
            ("task", Field::Text(self.task.clone())),
            ("labels", Field::Pairs(self.labels.clone())),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("revoke_time", Field::Time(self.revoke_time)),
            ("allowed_networks", Field::List(self.allowed_networks.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.environment]
    }
}

impl Resource for proto::EnrollmentTokenSlot {
    const COLUMNS: &'static [&'static str] = &["agent", "state", "bind_time", "last_seen_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let state = enum_name(self.state().as_str_name(), "AGENT_STATE_");
        vec![
            ("agent", Field::Text(self.agent.clone())),
            ("key_fingerprint", Field::Text(self.key_fingerprint.clone())),
            ("state", Field::Text(state)),
            ("bind_time", Field::Time(self.bind_time)),
            ("last_seen_time", Field::Time(self.last_seen_time)),
        ]
    }

    fn handle(&self) -> String {
        self.agent.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_is_shown_once_in_every_form() {
        let answer = proto::CreateEnrollmentTokensResponse {
            tokens: vec![proto::MintedEnrollmentToken {
                enrollment_token: Some(proto::EnrollmentToken {
                    id: "etk_1".into(),
                    ..Default::default()
                }),
                token: Some(proto::Secret {
                    value: "cbe_secret".into(),
                }),
            }],
            ca_pin: "sha256:aa".into(),
        };
        for output in [MintOutput::Table, MintOutput::Json, MintOutput::Value] {
            assert_eq!(
                minted(&answer, output).matches("cbe_secret").count(),
                1,
                "{output:?}"
            );
        }
        assert_eq!(minted(&answer, MintOutput::Value), "cbe_secret\n");
        let value: serde_json::Value = serde_json::from_str(&minted(&answer, MintOutput::Json)).unwrap();
        assert_eq!(value["tokens"][0]["enrollment_token"]["id"], "etk_1");
    }
}
