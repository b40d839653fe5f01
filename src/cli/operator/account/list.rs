//! `credbroker account list`: each agent program ready, to be connected, or connected, and what to type.
//!
//! Whoever may see what only an admin can mend is shown that too, below.

use std::collections::HashMap;

use comfy_table::{Attribute, Cell, Color};
use serde_json::{Value, json};

use crate::cli::client::Session;
use crate::cli::error::{Failure, plain};
use crate::cli::operator::pages;
use crate::cli::render::{self, Field, ListArgs, Output, enum_name};
use crate::domain::time::Time;
use crate::proto;

/// Whose accounts are listed.
#[derive(clap::Args, Debug)]
pub struct ListedArgs {
    /// The member: id or name. Members see their own.
    #[arg(long, default_value = "")]
    member: String,
    /// A project: what its access matrix denies counts too.
    #[arg(long, default_value = "")]
    project: String,
    #[command(flatten)]
    list: ListArgs,
}

/// The reason of an account whose grant is lost.
const REAUTH: &str = "REAUTH_REQUIRED";
/// How many ways people are shown for one reason; programs get all.
const SHOWN: usize = 6;

/// How an agent program stands with whoever is asked about; the better the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It can be used, by an account that was connected.
    Connected,
    /// It can be used, by something else.
    Ready,
    /// The member has to connect an account.
    Connect,
    /// Something is missing that connecting does not mend.
    Unavailable,
}

impl State {
    fn of(way: &proto::ExecutorWay) -> Self {
        match way.readiness() {
            proto::Readiness::Ready if way.mode() == proto::AuthMode::Oauth => State::Connected,
            proto::Readiness::Ready => State::Ready,
            proto::Readiness::Connect => State::Connect,
            _ => State::Unavailable,
        }
    }

    /// In capitals where the reader has to act.
    const fn name(self) -> &'static str {
        match self {
            State::Connected => "connected",
            State::Ready => "ready",
            State::Connect => "CONNECT",
            State::Unavailable => "unavailable",
        }
    }

    const fn color(self) -> Color {
        match self {
            State::Connected | State::Ready => Color::Green,
            State::Connect => Color::Yellow,
            State::Unavailable => Color::DarkGrey,
        }
    }
}

/// An agent program.
struct Row {
    executor: proto::Executor,
    state: State,
    /// The way that the state is of: the first of the best. `None`: there is none at all.
    way: Option<proto::ExecutorWay>,
    /// The connected account's credential.
    account: Option<proto::DescribeCredentialResponse>,
    /// The command that connects what is missing.
    command: String,
}

/// Runs the command.
pub(super) async fn run(session: &Session, args: ListedArgs) -> Result<(), Failure> {
    let org = session.org_or_own();
    let executors = pages(args.list.limit, |page_size, page_token| {
        let mut executors = session.executors();
        let (org, member, project) = (org.clone(), args.member.clone(), args.project.clone());
        async move {
            let request = proto::ListExecutorsRequest {
                org,
                member,
                project,
                page_size,
                page_token,
            };
            let page = executors.list_executors(request).await?.into_inner();
            Ok((page.executors, page.next_page_token))
        }
    });
    let executors = executors.await.map_err(|status| session.failure(status))?;
    let mut looked_up = LookedUp {
        session,
        org,
        member: args.member,
        accounts: HashMap::new(),
        connectors: HashMap::new(),
    };
    let mut rows = Vec::with_capacity(executors.len());
    for executor in executors {
        rows.push(looked_up.row(executor).await);
    }
    render::print(&match args.list.output {
        Output::Name => rows.iter().map(|row| plain(&row.executor.name) + "\n").collect(),
        Output::Json => render::json(&rows.iter().map(Row::object).collect::<Vec<_>>().into()),
        Output::Table => table(&rows, render::now()),
    })
}

/// What rows have in common is asked for once.
struct LookedUp<'a> {
    session: &'a Session,
    org: String,
    member: String,
    /// By credential.
    accounts: HashMap<String, Option<proto::DescribeCredentialResponse>>,
    /// By provider: the connector to name.
    connectors: HashMap<String, Option<String>>,
}

impl LookedUp<'_> {
    async fn row(&mut self, executor: proto::Executor) -> Row {
        // Of equals the first: ways are in the order in which they are tried.
        let way = executor.ways.iter().min_by_key(|way| State::of(way)).cloned();
        let state = way.as_ref().map_or(State::Unavailable, State::of);
        let (mut account, mut command) = (None, String::new());
        match (&way, state) {
            (Some(way), State::Connected) => account = self.account(&way.credential).await,
            (Some(way), State::Connect) => command = self.command(way).await,
            _ => {}
        }
        Row {
            executor,
            state,
            way,
            account,
            command,
        }
    }

    /// Who may list executors and not see credentials gets the list without this.
    async fn account(&mut self, credential: &str) -> Option<proto::DescribeCredentialResponse> {
        if let Some(known) = self.accounts.get(credential) {
            return known.clone();
        }
        let request = proto::DescribeCredentialRequest {
            org: self.org.clone(),
            credential: credential.to_owned(),
        };
        let told = self.session.credentials().describe_credential(request).await;
        let told = told.ok().map(|told| told.into_inner());
        self.accounts.insert(credential.to_owned(), told.clone());
        told
    }

    /// What to type: signing in again by the connector of the provider that can be used.
    async fn command(&mut self, way: &proto::ExecutorWay) -> String {
        let connector = match self.connectors.get(&way.provider) {
            Some(known) => known.clone(),
            None => {
                let request = proto::GetProviderRequest {
                    provider: way.provider.clone(),
                };
                let told = self.session.executors().get_provider(request).await;
                let provider = told.ok().and_then(|told| told.into_inner().provider);
                let connectors = provider.map(|it| it.connectors).unwrap_or_default();
                let usable = connectors.into_iter().find(|connector| connector.usable);
                let name = usable.map(|connector| connector.name);
                self.connectors.insert(way.provider.clone(), name.clone());
                name
            }
        };
        let connector = connector.unwrap_or_else(|| "CONNECTOR".to_owned());
        let member = match self.member.as_str() {
            "" => String::new(),
            member => format!(" --member {member}"),
        };
        format!("credbroker account connect {connector}{member}")
    }
}

impl Row {
    /// By what it can be used, or could: the provider and the mode.
    fn by(&self) -> String {
        let by = |way: &proto::ExecutorWay| {
            let mode = enum_name(way.mode().as_str_name(), "AUTH_MODE_");
            format!("{} {mode}", way.provider)
        };
        self.way.as_ref().map(by).unwrap_or_default()
    }

    fn credential(&self) -> Option<&proto::Credential> {
        self.account.as_ref()?.credential.as_ref()
    }

    fn object(&self) -> Value {
        let way = self.way.clone().unwrap_or_default();
        let health = enum_name(way.health().as_str_name(), "CREDENTIAL_HEALTH_");
        let expires = self.credential().and_then(|it| it.expire_time);
        let faults = self.faults().map(|way| {
            json!({
                "provider": way.provider,
                "mode": enum_name(way.mode().as_str_name(), "AUTH_MODE_"),
                "reason": way.reason,
                "fault": way.fault,
                "remedy": way.remedy,
            })
        });
        json!({
            "executor": self.executor.name,
            "state": self.state.name().to_lowercase(),
            "provider": way.provider,
            "mode": enum_name(way.mode().as_str_name(), "AUTH_MODE_"),
            "credential": way.credential,
            "health": health,
            "expire_time": expires.map(|time| time.to_string()),
            "reason": way.reason,
            "remedy": way.remedy,
            "command": self.command,
            "faults": faults.collect::<Vec<_>>(),
        })
    }

    fn faults(&self) -> impl Iterator<Item = &proto::ExecutorWay> {
        let ways = self.executor.ways.iter();
        // What only another kind of task can use is no fault of this list.
        ways.filter(|way| State::of(way) == State::Unavailable && way.fault != "caller")
    }
}

fn table(rows: &[Row], now: Time) -> String {
    let mut table = render::new_table();
    table.set_header(["EXECUTOR", "STATE", "BY", "TOKEN EXPIRES", "CREDENTIAL"]);
    for row in rows {
        let mut state = Cell::new(row.state.name()).fg(row.state.color());
        if row.state == State::Connect {
            state = state.add_attribute(Attribute::Bold);
        }
        let expires = Field::Time(row.credential().and_then(|it| it.expire_time));
        let credential = row.credential().map(|it| it.id.as_str()).unwrap_or_default();
        table.add_row([
            Cell::new(plain(&row.executor.name)),
            state,
            Cell::new(plain(&row.by())),
            Cell::new(expires.cell(now)),
            Cell::new(plain(credential)),
        ]);
    }
    let mut listed = render::finish(table);
    for (heading, told) in [
        ("To connect what is missing:", to_connect(rows)),
        ("What does not work, and what to do:", faults(rows)),
    ] {
        if !told.is_empty() {
            listed.push_str(&format!("\n{heading}\n{told}"));
        }
    }
    listed
}

/// Each command once, on a line of its own to be copied, with what it is for.
fn to_connect(rows: &[Row]) -> String {
    let mut commands: Vec<(&str, Vec<String>)> = Vec::new();
    for row in rows.iter().filter(|row| row.state == State::Connect) {
        let again = row.way.as_ref().is_some_and(|way| way.reason == REAUTH);
        let executor = match again {
            true => format!("{}: sign in again", row.executor.name),
            false => row.executor.name.clone(),
        };
        match commands.iter_mut().find(|(command, _)| *command == row.command) {
            Some((_, executors)) => executors.push(executor),
            None => commands.push((&row.command, vec![executor])),
        }
    }
    let line = |(command, executors): &(&str, Vec<String>)| {
        format!("  {}    # {}\n", plain(command), plain(&executors.join(", ")))
    };
    commands.iter().map(line).collect()
}

/// What is missing elsewhere than at the member's account, each reason with the ways that it stops. Members are told
/// only what they can mend.
fn faults(rows: &[Row]) -> String {
    let mut reasons: Vec<(&proto::ExecutorWay, Vec<String>)> = Vec::new();
    for (row, way) in rows
        .iter()
        .flat_map(|row| row.faults().map(move |way| (row, way)))
    {
        let mode = enum_name(way.mode().as_str_name(), "AUTH_MODE_");
        let stopped = plain(&format!("{} by {} {mode}", row.executor.name, way.provider));
        match reasons.iter_mut().find(|(first, _)| first.reason == way.reason) {
            // A provider may take keys of several kinds.
            Some((_, ways)) if ways.last() == Some(&stopped) => {}
            Some((_, ways)) => ways.push(stopped),
            None => reasons.push((way, vec![stopped])),
        }
    }
    let mut told = String::new();
    for (way, mut stopped) in reasons {
        let more = stopped.len().saturating_sub(SHOWN);
        stopped.truncate(SHOWN);
        if more > 0 {
            stopped.push(format!("{more} more"));
        }
        let (reason, remedy) = (plain(&way.reason), plain(&way.remedy));
        told.push_str(&format!("  {reason}: {}\n    {remedy}\n", stopped.join(", ")));
    }
    told
}
