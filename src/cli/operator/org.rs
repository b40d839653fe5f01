//! `credbroker org`: the tenants of the broker.

use clap::Subcommand;
use prost_types::FieldMask;

use super::{pages, print_list, print_one, request_id};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs};
use crate::proto;

/// What is done with orgs.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make an org.
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and '-', beginning with a letter; for good.
        name: String,
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the orgs.
    List(#[command(flatten)] ListArgs),
    /// Show an org.
    Show {
        /// The org: id or name.
        name: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change an org.
    Update {
        /// The org: id or name.
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
    match action {
        Action::Create {
            name,
            display_name,
            show,
        } => {
            let request = proto::CreateOrgRequest {
                name,
                display_name,
                request_id: request_id()?,
            };
            let answer = directory.create_org(request).await.map_err(failed)?;
            print_one(answer.into_inner().org, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let mut directory = session.directory();
                async move {
                    let request = proto::ListOrgsRequest {
                        page_size,
                        page_token,
                    };
                    let page = directory.list_orgs(request).await?.into_inner();
                    Ok((page.orgs, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { name, show } => {
            let answer = directory.get_org(proto::GetOrgRequest { org: name }).await;
            print_one(answer.map_err(failed)?.into_inner().org, show)
        }
        Action::Update {
            name,
            display_name,
            show,
        } => {
            let request = proto::GetOrgRequest { org: name };
            let read = directory.get_org(request).await.map_err(failed)?.into_inner();
            let request = proto::UpdateOrgRequest {
                org: Some(proto::Org {
                    display_name,
                    // Its id, and the etag that guards against a lost update.
                    ..read.org.unwrap_or_default()
                }),
                update_mask: Some(FieldMask {
                    paths: vec!["display_name".to_owned()],
                }),
            };
            let answer = directory.update_org(request).await.map_err(failed)?;
            print_one(answer.into_inner().org, show)
        }
    }
}

impl Resource for proto::Org {
    const COLUMNS: &'static [&'static str] = &["name", "id", "display_name", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("name", Field::Text(self.name.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            ("create_time", Field::Time(self.create_time)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
