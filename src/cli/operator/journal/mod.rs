//! `credbroker journal`: what was decided and done, in order.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use prost_types::Timestamp;

use super::{Noun, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::cli::input;
use crate::cli::render::{self, Field, ListArgs, Output, Resource, ShowArgs, hex};
use crate::journal::verify;
use crate::proto;

mod export;
mod follow;
mod offline;

/// What is done with the journal.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List records, the oldest first: those of the org that is meant, all where none is.
    List {
        /// Start after this position.
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show records as they are written, until it is interrupted.
    Follow(follow::FollowArgs),
    /// Show the newest signed head. Kept elsewhere, it shows later that nothing before it was changed.
    Head {
        /// As the one line that 'journal verify --heads' takes.
        #[arg(long, conflicts_with = "output")]
        line: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Write the records with what proves them, and the signed head of the last one.
    Export(export::ExportArgs),
    /// Check an export, without a broker: say that it holds, or where it first does not.
    Verify(offline::VerifyArgs),
    /// Remove old records for good. Export them first.
    Prune(PruneArgs),
}

/// Which records are meant. All that is given has to fit.
#[derive(Args, Clone, Debug)]
pub struct FilterArgs {
    /// By this actor: its id, `broker` or `anonymous`.
    #[arg(long)]
    actor: Option<String>,
    /// About this member: its id or, where the org is known, its name.
    #[arg(long)]
    member: Option<String>,
    /// About this credential, `crd_…`.
    #[arg(long)]
    credential: Option<String>,
    /// About this task, `tsk_…`.
    #[arg(long)]
    task: Option<String>,
    /// By or about this agent, `agt_…`.
    #[arg(long)]
    agent: Option<String>,
    /// Refused or failed for this reason, such as `TASK_ENDED`.
    #[arg(long)]
    reason: Option<String>,
    /// Of this action, such as `credential.resolve`.
    #[arg(long)]
    action: Option<String>,
    /// Ended so: `allowed`, `denied` or `failed`.
    #[arg(long)]
    outcome: Option<String>,
    /// Written then or later: a time as RFC 3339 has it, or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Written before: as for --since.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl FilterArgs {
    fn into_wire(self) -> proto::RecordFilter {
        proto::RecordFilter {
            actor: self.actor.unwrap_or_default(),
            member: self.member.unwrap_or_default(),
            credential: self.credential.unwrap_or_default(),
            task: self.task.unwrap_or_default(),
            agent: self.agent.unwrap_or_default(),
            reason: self.reason.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            outcome: self.outcome.unwrap_or_default(),
            since: self.since,
            until: self.until,
        }
    }
}

/// What may go.
#[derive(Args, Debug)]
pub struct PruneArgs {
    #[command(flatten)]
    before: BeforeArgs,
    /// Only show what would go.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct BeforeArgs {
    /// Records written before: a time as RFC 3339 has it, or how long ago, such as `90d`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Timestamp>,
    /// Records before this position.
    #[arg(long, value_name = "POSITION")]
    before_position: Option<u64>,
}

/// A time, absolute or as a span before now.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(span) = humantime::parse_duration(text) {
        let back = i64::try_from(span.as_secs()).map_err(|_| "that long ago there was nothing")?;
        return Ok(Timestamp {
            seconds: render::now().seconds().saturating_sub(back),
            nanos: 0,
        });
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| "expected a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h")?;
    Ok(Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}

/// Runs the command. Verifying needs no broker, and asks for none.
pub async fn run(noun: Noun<Action>) -> Result<(), Failure> {
    if let Action::Verify(args) = noun.action() {
        return offline::run(args);
    }
    let (session, action) = noun.open().await?;
    let session = &session;
    match action {
        Action::List { after, filter, list } => {
            let records = list_records(session, filter.into_wire(), after, list.limit as usize).await?;
            print_list(&records, list)
        }
        Action::Follow(args) => follow::run(session, args).await,
        Action::Head { line, show } => {
            let answer = head(session).await?;
            if line {
                return render::print(&format!("{}\n", export::signed_head(&answer)?.to_line()));
            }
            let public_key = answer.public_key;
            print_one(answer.head.map(|head| SignedHead { head, public_key }), show)
        }
        Action::Export(args) => export::run(session, args).await,
        Action::Verify(args) => offline::run(&args),
        Action::Prune(args) => prune(session, args).await,
    }
}

async fn head(session: &Session) -> Result<proto::GetHeadResponse, Failure> {
    let answer = session.journal().get_head(proto::GetHeadRequest {}).await;
    Ok(answer.map_err(|status| session.failure(status))?.into_inner())
}

/// The server's largest page.
const PAGE: usize = 1_000;

/// Records that fit, up to what there is now.
async fn list_records(
    session: &Session,
    filter: proto::RecordFilter,
    after: u64,
    limit: usize,
) -> Result<Vec<proto::JournalRecord>, Failure> {
    let mut records = Vec::new();
    let mut tip = None;
    let mut position = after;
    loop {
        let request = proto::ListRecordsRequest {
            org: session.org_or_own(),
            page_size: i32::try_from((limit - records.len()).min(PAGE)).unwrap_or(i32::MAX),
            page_token: String::new(),
            after_position: position,
            filter: Some(filter.clone()),
        };
        let page = session.journal().list_records(request).await;
        let page = page.map_err(|status| session.failure(status))?.into_inner();
        records.extend(page.records);
        records.truncate(limit);
        let tip = *tip.get_or_insert(page.tip_position);
        // A server that stays where it is would keep us here for good.
        if records.len() == limit || page.position >= tip || page.position <= position {
            return Ok(records);
        }
        position = page.position;
    }
}

async fn prune(session: &Session, args: PruneArgs) -> Result<(), Failure> {
    use proto::prune_records_request::Before;
    let failed = |status| session.failure(status);
    let before = match (args.before.before, args.before.before_position) {
        (Some(time), _) => Before::BeforeTime(time),
        (None, position) => Before::BeforePosition(position.unwrap_or_default()),
    };
    let request = |validate_only| proto::PruneRecordsRequest {
        before: Some(before),
        validate_only,
    };
    let planned = session.journal().prune_records(request(true)).await;
    let planned = planned.map_err(failed)?.into_inner();
    if args.dry_run || planned.records == 0 {
        if planned.records == 0 {
            render::remark("nothing can go: only whole old segments do");
        }
        return print_one(Some(planned), args.show);
    }
    let consequence = format!(
        "This removes {} records, up to position {}, for good.",
        planned.records, planned.pruned_position
    );
    input::confirm(&consequence, args.yes)?;
    let pruned = session.journal().prune_records(request(false)).await;
    print_one(Some(pruned.map_err(failed)?.into_inner()), args.show)
}

impl Resource for proto::JournalRecord {
    const COLUMNS: &'static [&'static str] = &[
        "position", "time", "action", "phase", "outcome", "reason", "actor",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("position", Field::Number(self.position)),
            ("time", Field::Time(self.time)),
            ("action", Field::Text(self.action.clone())),
            ("phase", Field::Text(self.phase.clone())),
            ("begins", Field::Number(self.begins)),
            ("outcome", Field::Text(self.outcome.clone())),
            ("reason", Field::Text(self.reason.clone())),
            ("actor", Field::Text(self.actor.clone())),
            ("org", Field::Text(self.org.clone())),
            ("subject", Field::Pairs(self.subject.clone())),
            ("request_id", Field::Text(self.request_id.clone())),
            ("stored", Field::Text(STANDARD.encode(&self.stored))),
            ("chain", Field::Text(hex(&self.chain))),
        ]
    }

    fn handle(&self) -> String {
        self.position.to_string()
    }
}

impl Resource for proto::PruneRecordsResponse {
    const COLUMNS: &'static [&'static str] = &["pruned_position", "records", "segments"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let anchor = self.anchor.clone().unwrap_or_default();
        vec![
            ("pruned_position", Field::Number(self.pruned_position)),
            ("records", Field::Number(self.records)),
            ("segments", Field::Number(self.segments.into())),
            ("anchor_position", Field::Number(anchor.position)),
            ("anchor_chain", Field::Text(hex(&anchor.chain))),
            ("anchor_time", Field::Time(anchor.time)),
            ("anchor_signature", Field::Text(hex(&anchor.signature))),
        ]
    }

    fn handle(&self) -> String {
        self.pruned_position.to_string()
    }
}

/// A head and the key that signed it.
struct SignedHead {
    head: proto::JournalHead,
    public_key: Vec<u8>,
}

impl Resource for SignedHead {
    const COLUMNS: &'static [&'static str] = &["journal", "position", "chain", "time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("journal", Field::Text(self.head.journal.clone())),
            ("position", Field::Number(self.head.position)),
            ("chain", Field::Text(hex(&self.head.chain))),
            ("time", Field::Time(self.head.time)),
            ("signature", Field::Text(hex(&self.head.signature))),
            ("public_key", Field::Text(hex(&self.public_key))),
        ]
    }

    fn handle(&self) -> String {
        self.head.position.to_string()
    }
}

/// The broker's answer is not what it should be.
fn odd_answer(what: &str) -> Failure {
    Failure::new(
        Kind::Internal,
        format!("the broker's answer is not sound: {what}"),
    )
    .remedy("Compare this program's version with the broker's.")
}
