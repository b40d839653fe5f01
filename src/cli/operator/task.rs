//! `credbroker task`: what agents may resolve for.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::{pages, print_named, print_named_list, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::cli::{input, wire_duration};
use crate::proto;

/// Where the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Capacity {
    /// A sandbox at a cloud provider.
    #[default]
    Cloud,
    /// The member's own machine.
    Local,
}

impl Capacity {
    /// The number in messages.
    pub(in crate::cli) fn message(self) -> i32 {
        match self {
            Capacity::Cloud => proto::Capacity::Cloud as i32,
            Capacity::Local => proto::Capacity::Local as i32,
        }
    }
}

/// What is done with tasks.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a task.
    #[command(group = clap::ArgGroup::new("who").required(true))]
    Create {
        /// The member it works for: id or name.
        #[arg(long, group = "who")]
        member: Option<String>,
        /// The member by an outside identity, such as `github:octocat`.
        #[arg(long, value_name = "SYSTEM:SUBJECT", group = "who")]
        member_identity: Option<String>,
        /// The project: id or name.
        #[arg(long)]
        project: String,
        /// The agent program, such as `claude-code`.
        #[arg(long)]
        executor: String,
        /// The provider, where it differs from the executor's native one.
        #[arg(long, default_value = "")]
        provider: String,
        /// The model profile.
        #[arg(long, default_value = "")]
        profile: String,
        /// Where the program runs.
        #[arg(long, value_enum, default_value_t)]
        capacity: Capacity,
        /// The capacity pool, where it is not the default of the capacity; see `pool list`.
        #[arg(long, default_value = "")]
        pool: String,
        /// The hash of the task specification.
        #[arg(long, default_value = "")]
        spec_hash: String,
        /// How long the task may run; otherwise the broker's default.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// An agent to assign; may be repeated.
        #[arg(long)]
        agent: Vec<String>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the org's tasks, in order of making.
    List(#[command(flatten)] ListArgs),
    /// Show a task.
    Show {
        /// The task, `tsk_…`.
        task: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Let agents resolve for the task.
    Assign {
        /// The task, `tsk_…`.
        task: String,
        /// An agent, `agt_…`; may be repeated.
        #[arg(long, required = true)]
        agent: Vec<String>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// End the task: nothing is resolved for it any more.
    End {
        /// The task, `tsk_…`.
        task: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut tasks = session.tasks();
    let failed = |status| session.failure(status);
    let org = session.org_or_own();
    match action {
        Action::Create {
            member,
            member_identity,
            project,
            executor,
            provider,
            profile,
            capacity,
            pool,
            spec_hash,
            ttl,
            agent,
            show,
        } => {
            let request = proto::CreateTaskRequest {
                org,
                member: member.unwrap_or_default(),
                project,
                executor,
                profile,
                capacity: capacity.message(),
                spec_hash,
                ttl: ttl.map(wire_duration).transpose()?,
                agents: agent,
                request_id: request_id()?,
                provider,
                member_identity: member_identity.unwrap_or_default(),
                pool,
            };
            let answer = tasks.create_task(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().task, show).await
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut tasks, org) = (session.tasks(), org.clone());
                async move {
                    let request = proto::ListTasksRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = tasks.list_tasks(request).await?.into_inner();
                    Ok((page.tasks, page.next_page_token))
                }
            });
            print_named_list(session, items.await.map_err(failed)?, list).await
        }
        Action::Show { task, show } => {
            let answer = tasks.get_task(proto::GetTaskRequest { org, task }).await;
            print_named(session, answer.map_err(failed)?.into_inner().task, show).await
        }
        Action::Assign { task, agent, show } => {
            let request = proto::AssignTaskRequest {
                org,
                task,
                agents: agent,
            };
            let answer = tasks.assign_task(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().task, show).await
        }
        Action::End { task, yes, show } => {
            let consequence = format!("This ends {task}: its agents get nothing for it any more, for good.");
            input::confirm(&consequence, yes)?;
            let answer = tasks.end_task(proto::EndTaskRequest { org, task }).await;
            print_named(session, answer.map_err(failed)?.into_inner().task, show).await
        }
    }
}

impl Resource for proto::Task {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "executor",
        "provider",
        "member",
        "project",
        "expire_time",
        "end_time",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let capacity = enum_name(self.capacity().as_str_name(), "CAPACITY_");
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("member", Field::Text(self.member.clone())),
            ("project", Field::Text(self.project.clone())),
            ("executor", Field::Text(self.executor.clone())),
            ("provider", Field::Text(self.provider.clone())),
            ("profile", Field::Text(self.profile.clone())),
            ("capacity", Field::Text(capacity)),
            ("pool", Field::Text(self.pool.clone())),
            ("spec_hash", Field::Text(self.spec_hash.clone())),
            ("agents", Field::List(self.agents.clone())),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("end_time", Field::Time(self.end_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.member, &mut self.project]
    }
}
