//! `credbroker whoami`: who the broker takes the caller for.

use clap::Args;

use super::api_key::group_names;
use super::role::told;
use crate::cli::agent::{self, IdentityArgs};
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, Resource, ShowArgs};
use crate::proto;

/// Show who the broker takes the caller for.
#[derive(Args, Debug)]
pub struct WhoamiArgs {
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: WhoamiArgs) -> Result<(), Failure> {
    let session = agent::open(&args.connection, &args.identity).await?;
    let answer = session
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .map_err(|status| session.failure(status))?;
    render::print(&render::show(answer.get_ref(), args.show.output, render::now()))
}

impl Resource for proto::WhoAmIResponse {
    const COLUMNS: &'static [&'static str] = &["actor", "family", "org"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("actor", Field::Text(self.actor.clone())),
            ("family", Field::Text(self.family.clone())),
            ("org", Field::Text(self.org.clone())),
            ("member", Field::Text(self.member.clone())),
            ("roles", Field::List(self.roles.iter().map(told).collect())),
            ("groups", Field::List(group_names(&self.groups))),
            ("projects", Field::List(self.projects.clone())),
            ("shown", Field::Text(self.shown.clone())),
            ("shown_id", Field::Text(self.shown_id.clone())),
            ("expire_time", Field::Time(self.expire_time)),
            ("broker_version", Field::Text(self.broker_version.clone())),
            ("trust_domain", Field::Text(self.trust_domain.clone())),
        ]
    }

    fn handle(&self) -> String {
        self.actor.clone()
    }
}
