//! `credbroker account`: the accounts that members connect, and what agents can do with them. No token is ever shown.

mod connect;
mod dialog;
mod disconnect;
mod follow;
mod list;
mod outcome;
mod present;
mod walk;
mod way;

use clap::Subcommand;

use super::{pages, print_named, print_named_list};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::proto;

/// What is done with accounts.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Connect an account: sign in at the provider, with the browser here or on any other machine.
    ///
    /// The broker keeps what the provider grants; no token comes here. What to open is told on standard error, the
    /// outcome on standard output. Ctrl-C cancels it.
    Connect(connect::ConnectArgs),
    /// Go on with a connection: begin it anew where it failed, expired or was cancelled.
    Retry(connect::RetryArgs),
    /// List the agent programs: which can be used, by which account, and which need one connected.
    List(list::ListedArgs),
    /// List the connections that wait for somebody to sign in, and those that ended within the last day.
    Connections(#[command(flatten)] ListArgs),
    /// Give a connection up that waits.
    Cancel {
        /// The connection, `cnx_…`.
        connection: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Disconnect an account: it is gone from the broker at once, and its tokens are revoked at the provider.
    ///
    /// What the provider confirmed is told, and what merely expires, and when. What it did not confirm in time is asked
    /// for again in the background.
    Disconnect(disconnect::DisconnectArgs),
    /// List the revocations at providers that go on, and those that ended within the last week.
    Revocations(#[command(flatten)] ListArgs),
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    match action {
        Action::Connect(args) => connect::connect(session, args).await,
        Action::Retry(args) => connect::retry(session, args).await,
        Action::List(args) => list::run(session, args).await,
        Action::Connections(list) => connections(session, list).await,
        Action::Disconnect(args) => disconnect::run(session, args).await,
        Action::Revocations(list) => disconnect::revocations(session, list).await,
        Action::Cancel { connection, show } => {
            let request = proto::CancelConnectionRequest {
                org: session.org_or_own(),
                connection,
            };
            let answer = session.accounts().cancel_connection(request).await;
            let answer = answer.map_err(|status| session.failure(status))?.into_inner();
            print_named(session, answer.connection, show).await
        }
    }
}

async fn connections(session: &Session, list: ListArgs) -> Result<(), Failure> {
    let org = session.org_or_own();
    let items = pages(list.limit, |page_size, page_token| {
        let (mut accounts, org) = (session.accounts(), org.clone());
        async move {
            let request = proto::ListConnectionsRequest {
                org,
                page_size,
                page_token,
            };
            let page = accounts.list_connections(request).await?.into_inner();
            Ok((page.connections, page.next_page_token))
        }
    });
    let items = items.await.map_err(|status| session.failure(status))?;
    print_named_list(session, items, list).await
}

impl Resource for proto::Connection {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "connector",
        "member",
        "flow",
        "state",
        "create_time",
        "expire_time",
        "credential",
        "reason",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let flow = enum_name(self.flow().as_str_name(), "CONNECTION_FLOW_");
        let state = enum_name(self.state().as_str_name(), "CONNECTION_STATE_");
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("member", Field::Text(self.member.clone())),
            ("connector", Field::Text(self.connector.clone())),
            ("provider", Field::Text(self.provider.clone())),
            ("flow", Field::Text(flow)),
            ("state", Field::Text(state)),
            ("url", Field::Text(self.url.clone())),
            ("user_code", Field::Text(self.user_code.clone())),
            ("url_complete", Field::Text(self.url_complete.clone())),
            ("redirect_uri", Field::Text(self.redirect_uri.clone())),
            ("code_and_state", Field::Flag(self.code_and_state)),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("end_time", Field::Time(self.end_time)),
            ("credential", Field::Text(self.credential.clone())),
            ("reason", Field::Text(self.reason.clone())),
            ("message", Field::Text(self.message.clone())),
            ("attempt", Field::Number(self.attempt.into())),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        vec![&mut self.member]
    }
}
