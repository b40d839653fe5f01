//! `credbroker agent`: the enrolled sandboxes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{pages, print_named, print_named_list};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs, enum_name};
use crate::cli::{input, key_value};
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::proto;

/// What is done with agents.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List the org's agents.
    List(#[command(flatten)] ListAgentsArgs),
    /// Show an agent.
    Show {
        /// The agent, `agt_…`.
        agent: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Ask whether a runtime key and a certificate key are one live agent's.
    Introspect(IntrospectArgs),
    /// Revoke an agent for good, and list what it still holds.
    Revoke {
        /// The agent, `agt_…`.
        agent: String,
        /// Rotate the OAuth grants of which it held the only lease, so that its tokens die where the provider
        /// ends older ones.
        #[arg(long)]
        rotate: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Which agents are listed.
#[derive(Args, Debug)]
pub struct ListAgentsArgs {
    /// Those with this label; may be repeated, for those that have them all.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Those of this environment: id or name.
    #[arg(long, default_value = "")]
    environment: String,
    /// The project: id or name; needed when the environment is given by name.
    #[arg(long, default_value = "")]
    project: String,
    /// Those in this state.
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Those not seen for so long, or never: `2h`, `7d`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    seen_before: Option<Duration>,
    /// Those seen within so long: `5m`.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    seen_after: Option<Duration>,
    #[command(flatten)]
    list: ListArgs,
}

/// A state, as it is listed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StateArg {
    /// They may act.
    Active,
    /// They were revoked.
    Revoked,
    /// They were not seen for too long.
    Expired,
    /// They are locked.
    Locked,
}

impl ListAgentsArgs {
    fn filter(&self) -> proto::AgentFilter {
        let ago = |ago: Duration| {
            let back = i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
            prost_types::Timestamp {
                seconds: render::now().seconds().saturating_sub(back),
                nanos: 0,
            }
        };
        let state = match self.state {
            None => proto::AgentState::Unspecified,
            Some(StateArg::Active) => proto::AgentState::Active,
            Some(StateArg::Revoked) => proto::AgentState::Revoked,
            Some(StateArg::Expired) => proto::AgentState::Expired,
            Some(StateArg::Locked) => proto::AgentState::Locked,
        };
        proto::AgentFilter {
            labels: self.label.iter().cloned().collect(),
            environment: self.environment.clone(),
            project: self.project.clone(),
            state: state.into(),
            seen_before: self.seen_before.map(ago),
            seen_after: self.seen_after.map(ago),
        }
    }
}

/// What is introspected.
#[derive(Args, Debug)]
pub struct IntrospectArgs {
    /// The SHA-256 of the presented certificate's SubjectPublicKeyInfo, DER: 64 hex digits, with or without
    /// `sha256:` before them.
    #[arg(long, value_name = "SHA256")]
    certificate_key_sha256: String,
    /// The file of the runtime key; otherwise standard input, or a prompt.
    #[arg(long, value_name = "FILE")]
    runtime_key_file: Option<PathBuf>,
    #[command(flatten)]
    show: ShowArgs,
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut agents = session.agents();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::List(args) => {
            let filter = args.filter();
            let items = pages(args.list.limit, |page_size, page_token| {
                let (mut agents, org) = (session.agents(), org.clone());
                let filter = Some(filter.clone());
                async move {
                    let request = proto::ListAgentsRequest {
                        org,
                        page_size,
                        page_token,
                        filter,
                    };
                    let page = agents.list_agents(request).await?.into_inner();
                    Ok((page.agents, page.next_page_token))
                }
            });
            print_named_list(session, items.await.map_err(failed)?, args.list).await
        }
        Action::Show { agent, show } => {
            let answer = agents.get_agent(proto::GetAgentRequest { org, agent }).await;
            print_named(session, answer.map_err(failed)?.into_inner().agent, show).await
        }
        Action::Introspect(args) => {
            let key: Secret<ActorToken> = input::secret(args.runtime_key_file.as_deref(), "runtime key")?;
            let key = key.expose_str(Exposure::Present).unwrap_or_default().to_owned();
            let request = proto::IntrospectRuntimeKeyRequest {
                org,
                runtime_key: Some(proto::Secret { value: key }),
                certificate_key_sha256: sha256(&args.certificate_key_sha256)?,
            };
            let answer = agents.introspect_runtime_key(request).await.map_err(failed)?;
            print_named(session, Some(answer.into_inner()), args.show).await
        }
        Action::Revoke {
            agent,
            rotate,
            yes,
            show,
        } => {
            let consequence = format!("This revokes {agent} for good: its key and certificate stop working.");
            input::confirm(&consequence, yes)?;
            let request = proto::RevokeAgentRequest {
                org,
                agent,
                rotate_outstanding: rotate,
            };
            let answer = agents.revoke_agent(request).await.map_err(failed)?;
            revoked(session, answer.into_inner(), show).await
        }
    }
}

/// The 32 bytes that 64 hex digits stand for.
fn sha256(text: &str) -> Result<Vec<u8>, Failure> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let bytes: Option<Vec<u8>> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok())
        .collect();
    bytes
        .filter(|bytes| bytes.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| Failure::usage("--certificate-key-sha256 is the SHA-256 in 64 hex digits"))
}

async fn revoked(
    session: &Session,
    answer: proto::RevokeAgentResponse,
    show: ShowArgs,
) -> Result<(), Failure> {
    if show.output == Output::Json {
        return render::print(&render::json(&json!({
            "agent": answer.agent.as_ref().map(render::object),
            "outstanding": answer.outstanding.iter().map(render::object).collect::<Vec<_>>(),
            "outstanding_truncated": answer.outstanding_truncated,
        })));
    }
    print_named(session, answer.agent, show).await?;
    print_outstanding(&answer.outstanding, answer.outstanding_truncated, show)
}

/// Shows people what was handed out and may still work at the provider, and what there is to do about each.
pub(super) fn print_outstanding(
    outstanding: &[proto::OutstandingLease],
    truncated: bool,
    show: ShowArgs,
) -> Result<(), Failure> {
    if show.output != Output::Table || outstanding.is_empty() {
        return Ok(());
    }
    render::print("\nhanded out, and out of the broker's reach at the provider:\n")?;
    render::print(&render::list(outstanding, Output::Table, render::now()))?;
    if truncated {
        render::remark("there is more than is listed; the journal has all of it");
    }
    Ok(())
}

impl Resource for proto::Agent {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "state",
        "environment",
        "labels",
        "version",
        "create_time",
        "last_seen_time",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let state = enum_name(self.state().as_str_name(), "AGENT_STATE_");
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("environment", Field::Text(self.environment.clone())),
            ("state", Field::Text(state)),
            ("labels", Field::Pairs(self.labels.clone())),
            ("attributes", Field::Pairs(self.attributes.clone())),
            ("key_fingerprint", Field::Text(self.key_fingerprint.clone())),
            ("create_time", Field::Time(self.create_time)),
            (
                "certificate_expire_time",
                Field::Time(self.certificate_expire_time),
            ),
            ("revoke_time", Field::Time(self.revoke_time)),
            ("last_seen_time", Field::Time(self.last_seen_time)),
            ("last_seen_address", Field::Text(self.last_seen_address.clone())),
            ("version", Field::Text(self.version.clone())),
            ("reported", Field::Pairs(self.reported.clone())),
            ("enrollment_token", Field::Text(self.enrollment_token.clone())),
            ("expire_time", Field::Time(self.expire_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.environment]
    }
}

impl Resource for proto::IntrospectRuntimeKeyResponse {
    const COLUMNS: &'static [&'static str] = &["active", "agent", "environment", "tasks"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("active", Field::Flag(self.active)),
            ("agent", Field::Text(self.agent.clone())),
            ("org", Field::Text(self.org.clone())),
            ("environment", Field::Text(self.environment.clone())),
            ("labels", Field::Pairs(self.labels.clone())),
            ("tasks", Field::List(self.tasks.clone())),
            (
                "certificate_expire_time",
                Field::Time(self.certificate_expire_time),
            ),
        ]
    }

    fn handle(&self) -> String {
        self.agent.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.environment]
    }
}

impl Resource for proto::OutstandingLease {
    const COLUMNS: &'static [&'static str] = &[
        "credential",
        "generation",
        "material_expire_time",
        "fate",
        "advice",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let fate = enum_name(self.fate().as_str_name(), "MATERIAL_FATE_");
        vec![
            ("lease", Field::Text(self.lease.clone())),
            ("credential", Field::Text(self.credential.clone())),
            ("generation", Field::Number(self.generation)),
            ("material_expire_time", Field::Time(self.material_expire_time)),
            ("holder", Field::Text(self.holder.clone())),
            ("lease_ended", Field::Flag(self.lease_ended)),
            ("fate", Field::Text(fate)),
            ("advice", Field::Text(self.advice.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.lease.clone()
    }
}
