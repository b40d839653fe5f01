//! `credbroker agent`: the enrolled sandboxes.

use clap::Subcommand;
use serde_json::json;

use super::{pages, print_named, print_named_list};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::input;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs, enum_name};
use crate::proto;

/// What is done with agents.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List the org's agents.
    List(#[command(flatten)] ListArgs),
    /// Show an agent.
    Show {
        /// The agent, `agt_…`.
        agent: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Revoke an agent for good, and list what it still holds.
    Revoke {
        /// The agent, `agt_…`.
        agent: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut agents = session.agents();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut agents, org) = (session.agents(), org.clone());
                async move {
                    let request = proto::ListAgentsRequest {
                        org,
                        page_size,
                        page_token,
                        filter: None,
                    };
                    let page = agents.list_agents(request).await?.into_inner();
                    Ok((page.agents, page.next_page_token))
                }
            });
            print_named_list(session, items.await.map_err(failed)?, list).await
        }
        Action::Show { agent, show } => {
            let answer = agents.get_agent(proto::GetAgentRequest { org, agent }).await;
            print_named(session, answer.map_err(failed)?.into_inner().agent, show).await
        }
        Action::Revoke { agent, yes, show } => {
            let consequence = format!("This revokes {agent} for good: its key and certificate stop working.");
            input::confirm(&consequence, yes)?;
            let answer = agents
                .revoke_agent(proto::RevokeAgentRequest { org, agent })
                .await
                .map_err(failed)?;
            revoked(session, answer.into_inner(), show).await
        }
    }
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
        })));
    }
    print_named(session, answer.agent, show).await?;
    if show.output == Output::Table && !answer.outstanding.is_empty() {
        render::print("\nit was handed, and may still use at the provider until it expires there:\n")?;
        render::print(&render::list(&answer.outstanding, Output::Table, render::now()))?;
    }
    Ok(())
}

impl Resource for proto::Agent {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "state",
        "environment",
        "labels",
        "create_time",
        "certificate_expire_time",
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
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.environment]
    }
}

impl Resource for proto::OutstandingLease {
    const COLUMNS: &'static [&'static str] = &["lease", "credential", "generation", "material_expire_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("lease", Field::Text(self.lease.clone())),
            ("credential", Field::Text(self.credential.clone())),
            ("generation", Field::Number(self.generation)),
            ("material_expire_time", Field::Time(self.material_expire_time)),
        ]
    }

    fn handle(&self) -> String {
        self.lease.clone()
    }
}
