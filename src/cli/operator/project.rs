//! `credbroker project`: the projects of an org.

use clap::Subcommand;
use prost_types::FieldMask;

use super::{pages, print_list, print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs};
use crate::proto;

/// What is done with projects.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a project.
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and '-', beginning with a letter; unique in the org; for good.
        name: String,
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the projects of the org.
    List(#[command(flatten)] ListArgs),
    /// Show a project.
    Show {
        /// The project: id or name.
        name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change a project.
    Update {
        /// The project: id or name.
        name: String,
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
            display_name,
            show,
        } => {
            let request = proto::CreateProjectRequest {
                org,
                name,
                display_name,
                request_id: request_id()?,
            };
            let answer = directory.create_project(request).await.map_err(failed)?;
            print_one(answer.into_inner().project, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut directory, org) = (session.directory(), org.clone());
                async move {
                    let request = proto::ListProjectsRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = directory.list_projects(request).await?.into_inner();
                    Ok((page.projects, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { name, show } => {
            let request = proto::GetProjectRequest { org, project: name };
            let answer = directory.get_project(request).await.map_err(failed)?;
            print_one(answer.into_inner().project, show)
        }
        Action::Update {
            name,
            display_name,
            show,
        } => {
            let request = proto::GetProjectRequest { org, project: name };
            let read = directory.get_project(request).await.map_err(failed)?.into_inner();
            let request = proto::UpdateProjectRequest {
                project: Some(proto::Project {
                    display_name,
                    // Its id, and the etag that guards against a lost update.
                    ..read.project.unwrap_or_default()
                }),
                update_mask: Some(FieldMask {
                    paths: vec!["display_name".to_owned()],
                }),
            };
            let answer = directory.update_project(request).await.map_err(failed)?;
            print_one(answer.into_inner().project, show)
        }
    }
}

impl Resource for proto::Project {
    const COLUMNS: &'static [&'static str] = &["name", "id", "display_name", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("name", Field::Text(self.name.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            ("create_time", Field::Time(self.create_time)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
