//! `credbroker environment`: the environments of a project, where agents are enrolled.

use clap::{Subcommand, ValueEnum};
use prost_types::FieldMask;

use super::{pages, print_named, print_named_list, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::proto;

/// Whether agents need an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Posture {
    /// No approval.
    #[default]
    None,
    /// An approval for every lease.
    Required,
}

impl Posture {
    fn into_wire(self) -> i32 {
        (match self {
            Posture::None => proto::ApprovalPosture::None,
            Posture::Required => proto::ApprovalPosture::Required,
        }) as i32
    }
}

/// What is done with environments.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make an environment.
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and '-', beginning with a letter; unique in the project; for good.
        name: String,
        /// The project: id or name.
        #[arg(long)]
        project: String,
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        /// Whether its agents are handed a credential only with an approval.
        #[arg(long, value_enum, default_value_t)]
        approval: Posture,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the environments of the org.
    List {
        /// Only those of this project: id or name.
        #[arg(long, default_value = "")]
        project: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show an environment.
    Show {
        /// The environment: id or name.
        name: String,
        /// The project: id or name; needed when the environment is given by name.
        #[arg(long, default_value = "")]
        project: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change an environment.
    Update {
        /// The environment: id or name.
        name: String,
        /// The project: id or name; needed when the environment is given by name.
        #[arg(long, default_value = "")]
        project: String,
        /// What people call it.
        #[arg(long, required_unless_present = "approval")]
        display_name: Option<String>,
        /// Whether its agents are handed a credential only with an approval.
        #[arg(long, value_enum)]
        approval: Option<Posture>,
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
            project,
            display_name,
            approval,
            show,
        } => {
            let request = proto::CreateEnvironmentRequest {
                org,
                project,
                name,
                display_name,
                approval: approval.into_wire(),
                request_id: request_id()?,
            };
            let answer = directory.create_environment(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().environment, show).await
        }
        Action::List { project, list } => {
            let items = pages(list.limit, |page_size, page_token| {
                let mut directory = session.directory();
                let request = proto::ListEnvironmentsRequest {
                    org: org.clone(),
                    project: project.clone(),
                    page_size,
                    page_token,
                };
                async move {
                    let page = directory.list_environments(request).await?.into_inner();
                    Ok((page.environments, page.next_page_token))
                }
            });
            print_named_list(session, items.await.map_err(failed)?, list).await
        }
        Action::Show { name, project, show } => {
            let request = proto::GetEnvironmentRequest {
                org,
                project,
                environment: name,
            };
            let answer = directory.get_environment(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().environment, show).await
        }
        Action::Update {
            name,
            project,
            display_name,
            approval,
            show,
        } => {
            let request = proto::GetEnvironmentRequest {
                org,
                project,
                environment: name,
            };
            let read = directory
                .get_environment(request)
                .await
                .map_err(failed)?
                .into_inner();
            let mut environment = read.environment.unwrap_or_default();
            let mut paths = Vec::new();
            if let Some(display_name) = display_name {
                environment.display_name = display_name;
                paths.push("display_name".to_owned());
            }
            if let Some(approval) = approval {
                environment.approval = approval.into_wire();
                paths.push("approval".to_owned());
            }
            let request = proto::UpdateEnvironmentRequest {
                // With its id, and the etag that guards against a lost update.
                environment: Some(environment),
                update_mask: Some(FieldMask { paths }),
            };
            let answer = directory.update_environment(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().environment, show).await
        }
    }
}

impl Resource for proto::Environment {
    const COLUMNS: &'static [&'static str] =
        &["name", "id", "project", "display_name", "approval", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("project", Field::Text(self.project.clone())),
            ("name", Field::Text(self.name.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            (
                "approval",
                Field::Text(enum_name(self.approval().as_str_name(), "APPROVAL_POSTURE_")),
            ),
            ("create_time", Field::Time(self.create_time)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.project]
    }
}
