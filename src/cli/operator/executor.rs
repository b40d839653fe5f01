//! `credbroker executor`: the agent programs, and what each can be used by now.

use clap::Subcommand;

use super::{pages, print_named_list};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, enum_name};
use crate::cli::{owner_field, owner_reference};
use crate::proto;

/// What is done with executors.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List the executors with every way each can be served, and what is missing.
    List {
        /// The member whose state is shown: id or name. Members see their own.
        #[arg(long, default_value = "")]
        member: String,
        /// A project: what its access matrix denies counts too.
        #[arg(long, default_value = "")]
        project: String,
        #[command(flatten)]
        list: ListArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let Action::List {
        member,
        project,
        list,
    } = action;
    let org = session.org()?;
    let items = pages(list.limit, |page_size, page_token| {
        let mut executors = session.executors();
        let (org, member, project) = (org.clone(), member.clone(), project.clone());
        async move {
            let request = proto::ListExecutorsRequest {
                org,
                member,
                project,
                page_size,
                page_token,
            };
            let page = executors.list_executors(request).await?.into_inner();
            Ok((page.executors, page.next_page_token))
        }
    });
    let executors = items.await.map_err(|status| session.failure(status))?;
    let ways = executors.into_iter().flat_map(|executor| {
        let name = executor.name;
        let row = move |way| Way {
            executor: name.clone(),
            way,
        };
        executor.ways.into_iter().map(row)
    });
    print_named_list(session, ways.collect(), list).await
}

/// A row: one way of one executor.
struct Way {
    executor: String,
    way: proto::ExecutorWay,
}

impl Resource for Way {
    const COLUMNS: &'static [&'static str] = &[
        "executor",
        "provider",
        "mode",
        "kind",
        "readiness",
        "owner",
        "fault",
        "reason",
        "remedy",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let way = &self.way;
        vec![
            ("executor", Field::Text(self.executor.clone())),
            ("provider", Field::Text(way.provider.clone())),
            (
                "mode",
                Field::Text(enum_name(way.mode().as_str_name(), "AUTH_MODE_")),
            ),
            (
                "kind",
                Field::Text(enum_name(way.kind().as_str_name(), "CREDENTIAL_KIND_")),
            ),
            (
                "readiness",
                Field::Text(enum_name(way.readiness().as_str_name(), "READINESS_")),
            ),
            ("credential", Field::Text(way.credential.clone())),
            ("owner", owner_field(way.owner.as_ref())),
            (
                "health",
                Field::Text(enum_name(way.health().as_str_name(), "CREDENTIAL_HEALTH_")),
            ),
            ("reason", Field::Text(way.reason.clone())),
            ("fault", Field::Text(way.fault.clone())),
            ("remedy", Field::Text(way.remedy.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.executor.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        owner_reference(&mut self.way.owner)
    }
}
