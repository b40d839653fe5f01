//! `credbroker executor`: the agent programs, and what each can be used by now.

use clap::Subcommand;
use serde_json::{Map, Value};

use super::policy::{ChangeOutput, shown};
use super::profile::Mode;
use super::provider::supported;
use super::{pages, print_named_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs, enum_name};
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
    /// Show an executor: the providers it can use, in which modes, and whether each can be used now.
    Show {
        /// The executor's name.
        executor: String,
        /// The member whose state is shown: id or name. Members see their own.
        #[arg(long, default_value = "")]
        member: String,
        /// A project: what its access matrix denies counts too.
        #[arg(long, default_value = "")]
        project: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Hold an executor to one mode in the org: that one is used and no other, with no fallback.
    Pin {
        /// The executor.
        executor: String,
        /// The mode.
        #[arg(value_enum)]
        mode: Mode,
        /// How the change is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: ChangeOutput,
    },
    /// Let an executor use all of its modes again.
    Unpin {
        /// The executor.
        executor: String,
        /// How the change is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: ChangeOutput,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    match action {
        Action::List {
            member,
            project,
            list,
        } => list_ways(session, member, project, list).await,
        Action::Show {
            executor,
            member,
            project,
            show,
        } => {
            let request = proto::GetExecutorRequest {
                org: session.org_or_own(),
                executor,
                member,
                project,
            };
            let answer = session.executors().get_executor(request).await;
            let answer = answer.map_err(|status| session.failure(status))?;
            print_one(answer.into_inner().executor, show)
        }
        Action::Pin {
            executor,
            mode,
            output,
        } => {
            let request = proto::PinExecutorRequest {
                org: session.org()?,
                executor,
                mode: mode.message(),
                ..Default::default()
            };
            let answer = session.policies().pin_executor(request).await;
            let answer = answer.map_err(|status| session.failure(status))?.into_inner();
            render::print(&shown(&answer.change.unwrap_or_default(), output))
        }
        Action::Unpin { executor, output } => {
            let request = proto::UnpinExecutorRequest {
                org: session.org()?,
                executor,
                ..Default::default()
            };
            let answer = session.policies().unpin_executor(request).await;
            let answer = answer.map_err(|status| session.failure(status))?.into_inner();
            render::print(&shown(&answer.change.unwrap_or_default(), output))
        }
    }
}

async fn list_ways(
    session: &Session,
    member: String,
    project: String,
    list: ListArgs,
) -> Result<(), Failure> {
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

impl Resource for proto::Executor {
    const COLUMNS: &'static [&'static str] = &["name", "native_provider", "readiness", "providers"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let readiness = enum_name(self.readiness().as_str_name(), "READINESS_");
        let ways: Vec<_> = self.ways.iter().map(told).collect();
        let objects: Vec<_> = self.ways.iter().map(way_object).collect();
        vec![
            ("name", Field::Text(self.name.clone())),
            ("native_provider", Field::Text(self.native_provider.clone())),
            ("readiness", Field::Text(readiness)),
            ("providers", supported(&self.providers, |one| &one.provider)),
            ("ways", Field::Both(ways.join(", "), objects.into())),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}

/// A way in a few words: what it is, its state, and why it cannot be used.
fn told(way: &proto::ExecutorWay) -> String {
    let mode = enum_name(way.mode().as_str_name(), "AUTH_MODE_");
    let readiness = enum_name(way.readiness().as_str_name(), "READINESS_");
    let told = format!("{} {mode}: {readiness} {}", way.provider, way.reason);
    told.trim_end().to_owned()
}

fn way_object(way: &proto::ExecutorWay) -> Value {
    let fields = way_fields(way).into_iter();
    fields
        .map(|(name, field)| (name.to_owned(), field.json()))
        .collect::<Map<_, _>>()
        .into()
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
        let mut fields = vec![("executor", Field::Text(self.executor.clone()))];
        fields.extend(way_fields(&self.way));
        fields
    }

    fn handle(&self) -> String {
        self.executor.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        owner_reference(&mut self.way.owner)
    }
}

fn way_fields(way: &proto::ExecutorWay) -> Vec<(&'static str, Field)> {
    vec![
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
