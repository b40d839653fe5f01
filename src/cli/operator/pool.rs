//! `credbroker pool`: what the cost of own credentials and own machines is booked on.

use clap::Subcommand;

use super::{pages, print_list};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, enum_name};
use crate::proto;

/// What is done with pools.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List the capacity pools, one of which is the default of each capacity.
    List(#[command(flatten)] ListArgs),
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let Action::List(list) = action;
    let items = pages(list.limit, |page_size, page_token| {
        let mut executors = session.executors();
        async move {
            let request = proto::ListPoolsRequest {
                page_size,
                page_token,
            };
            let page = executors.list_pools(request).await?.into_inner();
            Ok((page.pools, page.next_page_token))
        }
    });
    print_list(&items.await.map_err(|status| session.failure(status))?, list)
}

impl Resource for proto::Pool {
    const COLUMNS: &'static [&'static str] = &["name", "title", "capacity", "default"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let capacity = enum_name(self.capacity().as_str_name(), "CAPACITY_");
        vec![
            ("name", Field::Text(self.name.clone())),
            ("title", Field::Text(self.title.clone())),
            ("capacity", Field::Text(capacity)),
            ("default", Field::Flag(self.default)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
