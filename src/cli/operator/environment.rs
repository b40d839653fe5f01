//! `credbroker environment`: the environments of a project, where agents are enrolled.

use clap::Subcommand;
use prost_types::FieldMask;

use super::{pages, print_named, print_named_list, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs};
use crate::proto;

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
        #[arg(long)]
        display_name: String,
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
            show,
        } => {
            let request = proto::CreateEnvironmentRequest {
                org,
                project,
                name,
                display_name,
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
            let request = proto::UpdateEnvironmentRequest {
                environment: Some(proto::Environment {
                    display_name,
                    // Its id, and the etag that guards against a lost update.
                    ..read.environment.unwrap_or_default()
                }),
                update_mask: Some(FieldMask {
                    paths: vec!["display_name".to_owned()],
                }),
            };
            let answer = directory.update_environment(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().environment, show).await
        }
    }
}

impl Resource for proto::Environment {
    const COLUMNS: &'static [&'static str] = &["name", "id", "project", "display_name", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("project", Field::Text(self.project.clone())),
            ("name", Field::Text(self.name.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
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
