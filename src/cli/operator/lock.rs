//! `credbroker lock`: stops that can be lifted again.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::agent::print_outstanding;
use super::{pages, print_list, print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::input;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs};
use crate::proto;
use crate::proto::lock_target::Target;

/// What is to be locked.
#[derive(Args, Debug)]
#[group(required = true, multiple = false, id = "target")]
pub struct TargetArgs {
    /// An agent, `agt_…`: all its calls.
    #[arg(long, group = "target")]
    agent: Option<String>,
    /// A member: their calls, and whatever is resolved for them.
    #[arg(long, group = "target")]
    member: Option<String>,
    /// A credential, `crd_…`: nobody is handed it.
    #[arg(long, group = "target")]
    credential: Option<String>,
    /// An environment: all its agents, and enrolling into it.
    #[arg(long, group = "target")]
    environment: Option<String>,
    /// The whole org, its admins too: then only a system admin lifts it.
    #[arg(long, group = "target")]
    whole_org: bool,
}

/// What is done with locks.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Lock an agent, member, credential, environment or the org, until it is unlocked.
    Create {
        #[command(flatten)]
        target: TargetArgs,
        /// The project of an environment given by name.
        #[arg(long, default_value = "", requires = "environment")]
        project: String,
        /// What those who are stopped are told.
        #[arg(long, default_value = "")]
        message: String,
        /// After what time it ends by itself, such as `2h`.
        #[arg(long, value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the org's locks.
    List(#[command(flatten)] ListArgs),
    /// Remove a lock: what it stopped goes on.
    Remove {
        /// The lock, `lck_…`.
        lock: String,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut locks = session.locks();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::Create {
            target,
            project,
            message,
            ttl,
            yes,
            show,
        } => {
            if target.whole_org {
                let consequence =
                    "This shuts out the whole org, its admins too; only a system admin lifts it.";
                input::confirm(consequence, yes)?;
            }
            let request = proto::CreateLockRequest {
                org,
                target: Some(target.into_message(project)),
                message,
                ttl: ttl.and_then(|ttl| ttl.try_into().ok()),
                request_id: request_id()?,
            };
            let answer = locks.create_lock(request).await.map_err(failed)?.into_inner();
            if show.output == Output::Json {
                return render::print(&render::json(&json!({
                    "lock": answer.lock.as_ref().map(render::object),
                    "outstanding": answer.outstanding.iter().map(render::object).collect::<Vec<_>>(),
                    "outstanding_truncated": answer.outstanding_truncated,
                })));
            }
            print_one(answer.lock, show)?;
            print_outstanding(&answer.outstanding, answer.outstanding_truncated, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut locks, org) = (session.locks(), org.clone());
                async move {
                    let request = proto::ListLocksRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = locks.list_locks(request).await?.into_inner();
                    Ok((page.locks, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Remove { lock, show } => {
            let answer = locks.remove_lock(proto::RemoveLockRequest { org, lock }).await;
            print_one(answer.map_err(failed)?.into_inner().lock, show)
        }
    }
}

impl TargetArgs {
    fn into_message(self, project: String) -> proto::LockTarget {
        let target = None
            .or(self.agent.map(Target::Agent))
            .or(self.member.map(Target::Member))
            .or(self.credential.map(Target::Credential))
            .or(self.environment.map(Target::Environment))
            .or(self.whole_org.then_some(Target::Org(true)));
        proto::LockTarget { target, project }
    }
}

impl Resource for proto::Lock {
    const COLUMNS: &'static [&'static str] =
        &["id", "subject", "message", "actor", "create_time", "expire_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("subject", Field::Text(self.subject.clone())),
            ("message", Field::Text(self.message.clone())),
            ("actor", Field::Text(self.actor.clone())),
            ("by_system", Field::Flag(self.by_system)),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }
}
