//! `credbroker account connect` and `retry`: from the connector's name to an account that is connected.

use clap::Args;
use tonic::Code;

use super::dialog::{Answers, Dialog};
use super::follow::is_open;
use super::outcome;
use super::walk::{Signals, Walk};
use super::way::{self, Flow};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::loopback::{self, Listener};
use crate::cli::qr::When;
use crate::cli::render::ShowArgs;
use crate::proto;
use crate::proto::ConnectionFlow;

/// The account that is connected.
#[derive(Args, Debug)]
pub struct ConnectArgs {
    /// The connector; 'credbroker connector list' has them.
    connector: String,
    /// The member whose account it is: id or name. Without it the caller's own.
    #[arg(long, default_value = "")]
    member: String,
    /// How to sign in; without it the first that the connector has and that fits this machine: loopback where there
    /// is a browser, else device, else paste.
    #[arg(long, value_enum)]
    flow: Option<Flow>,
    #[command(flatten)]
    walk: WalkArgs,
}

/// The connection that is begun anew.
#[derive(Args, Debug)]
pub struct RetryArgs {
    /// The connection, `cnx_…`: one that failed, expired or was cancelled, or one that still waits.
    connection: String,
    #[command(flatten)]
    walk: WalkArgs,
}

/// What this machine is good for, and how the outcome is shown.
#[derive(Args, Debug)]
pub(super) struct WalkArgs {
    /// Show the address and open no browser.
    #[arg(long)]
    no_browser: bool,
    /// Read the code, or the address that the browser ended at, from standard input: a line each try.
    #[arg(long)]
    code_stdin: bool,
    /// Whether the address is also shown as a QR code.
    #[arg(long, value_enum, default_value_t)]
    pub(super) qr: When,
    #[command(flatten)]
    pub(super) show: ShowArgs,
}

impl WalkArgs {
    fn browser(&self) -> bool {
        !self.no_browser && loopback::is_likely()
    }
}

/// Connects an account.
pub(super) async fn connect(session: &Session, args: ConnectArgs) -> Result<(), Failure> {
    // From here on Ctrl-C cancels what was begun, before it ends this program.
    let signals = Signals::listen()?;
    let mut dialog = Dialog::new(args.walk.code_stdin);
    let browser = args.walk.browser();
    let connector = described(session, &args.connector).await?;
    let ways = way::ways(connector.as_ref(), args.flow, browser);
    let redirect = loopback_redirect(connector.as_ref());
    let (flow, listener) = picked(&ways, redirect.as_ref(), &mut dialog).await?;
    let mut walk = Walk {
        session,
        org: session.org_or_own(),
        dialog,
        signals,
        browser,
        qr: args.walk.qr,
        redirect,
    };
    let request = proto::BeginConnectionRequest {
        org: walk.org.clone(),
        member: args.member,
        connector: args.connector,
        flow: flow.into(),
        loopback_port: port(listener.as_ref()),
    };
    let connection = walk.begin(request).await?;
    let connected = walk.walk_on(connection, listener).await?;
    outcome::print(session, connected, args.walk.show).await
}

/// Goes on with a connection.
pub(super) async fn retry(session: &Session, args: RetryArgs) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let org = session.org_or_own();
    let request = proto::GetConnectionRequest {
        org: org.clone(),
        connection: args.connection,
    };
    let failed = |status| session.failure(status);
    let answer = session.accounts().get_connection(request).await;
    let before = answer
        .map_err(failed)?
        .into_inner()
        .connection
        .unwrap_or_default();
    let redirect = match before.flow() {
        ConnectionFlow::Loopback => loopback_redirect(described(session, &before.connector).await?.as_ref()),
        _ => None,
    };
    let mut walk = Walk {
        session,
        org,
        dialog: Dialog::new(args.walk.code_stdin),
        signals,
        browser: args.walk.browser(),
        qr: args.walk.qr,
        redirect,
    };
    if before.flow() == ConnectionFlow::Paste && walk.dialog.answers() == Answers::Nowhere {
        return Err(nobody_pastes());
    }
    let (connection, listener) = if is_open(&before) {
        let listener = match before.flow() {
            ConnectionFlow::Loopback => Some(way::listen_again(&before.redirect_uri).await?),
            _ => None,
        };
        (before, listener)
    } else {
        walk.again(&before).await?
    };
    let connected = walk.walk_on(connection, listener).await?;
    outcome::print(session, connected, args.walk.show).await
}

/// The connector. `None`: this caller may connect accounts and not look at connectors.
async fn described(session: &Session, connector: &str) -> Result<Option<proto::Connector>, Failure> {
    let request = proto::GetConnectorRequest {
        connector: connector.to_owned(),
    };
    match session.executors().get_connector(request).await {
        Ok(answer) => Ok(answer.into_inner().connector),
        Err(status) if status.code() == Code::PermissionDenied => Ok(None),
        Err(status) => Err(session.failure(status)),
    }
}

fn loopback_redirect(connector: Option<&proto::Connector>) -> Option<proto::ConnectorRedirect> {
    let mut redirects = connector?.redirects.iter();
    let to_here = |redirect: &&proto::ConnectorRedirect| redirect.kind() == proto::RedirectKind::Loopback;
    redirects.find(to_here).cloned()
}

/// The first way that works here, and where it listens.
async fn picked(
    ways: &[ConnectionFlow],
    redirect: Option<&proto::ConnectorRedirect>,
    dialog: &mut Dialog,
) -> Result<(ConnectionFlow, Option<Listener>), Failure> {
    let mut why_not = None;
    for flow in ways {
        let tried = match (flow, redirect) {
            (ConnectionFlow::Loopback, Some(redirect)) => way::listen(redirect).await.map(Some),
            (ConnectionFlow::Paste, _) if dialog.answers() == Answers::Nowhere => Err(nobody_pastes()),
            _ => Ok(None),
        };
        match tried {
            Ok(listener) => {
                if let Some(Failure { what, .. }) = why_not {
                    dialog.tell(&format!("Signing in another way: {what}."));
                }
                return Ok((*flow, listener));
            }
            Err(failure) => why_not = why_not.or(Some(failure)),
        }
    }
    why_not.map_or(Ok((ConnectionFlow::Unspecified, None)), Err)
}

fn nobody_pastes() -> Failure {
    Failure::usage("standard input is no terminal, so that nobody can paste the code")
        .remedy("Give the code by --code-stdin, or sign in another way with --flow.")
}

/// The port to tell the broker; 0: none is listened at.
pub(super) fn port(listener: Option<&Listener>) -> u32 {
    listener.map_or(0, |listener| listener.port().into())
}
