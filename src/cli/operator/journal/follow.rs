//! `credbroker journal follow`: a line a record, as they are written.

use std::fmt::Write as _;

use clap::Args;
use tonic::Status;

use super::{FilterArgs, Output, odd_answer, render};
use crate::cli::client::Session;
use crate::cli::error::{Failure, plain};
use crate::proto;
use crate::proto::follow_records_response::Event;

/// What is followed.
#[derive(Args, Debug)]
pub struct FollowArgs {
    /// Start after this position; without it only what is new is shown.
    #[arg(long)]
    after: Option<u64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// End after so many records.
    #[arg(long)]
    limit: Option<u64>,
    /// How a record is shown: as a line for people, as one line of JSON, or its position.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub(super) async fn run(session: &Session, args: FollowArgs) -> Result<(), Failure> {
    let request = proto::FollowRecordsRequest {
        org: session.org_or_own(),
        filter: Some(args.filter.into_wire()),
        after_position: args.after,
        heartbeat: None,
    };
    let failed = |status: Status| session.failure(status);
    let answer = session.journal().follow_records(request).await.map_err(failed)?;
    let mut stream = answer.into_inner();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut reached = None;
    while left > 0 {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(resume(odd_answer("the stream ended without a reason"), reached)),
            Err(status) => return Err(resume(failed(status), reached)),
        };
        match message.event {
            Some(Event::Record(record)) => {
                reached = Some(record.position);
                left -= 1;
                render::print(&line(&record, args.output))?;
            }
            Some(Event::Progress(progress)) => reached = Some(progress.position),
            None => {}
        }
    }
    Ok(())
}

/// Says how to go on.
fn resume(failure: Failure, reached: Option<u64>) -> Failure {
    match reached {
        Some(position) => failure.because(format!("go on with --after {position}")),
        None => failure,
    }
}

fn line(record: &proto::JournalRecord, output: Output) -> String {
    match output {
        Output::Name => format!("{}\n", record.position),
        Output::Json => format!("{}\n", render::object(record)),
        Output::Table => {
            let time = record.time.map(|time| time.to_string()).unwrap_or_default();
            let mut line = format!(
                "{} {time} {} {} {}",
                record.position, record.action, record.phase, record.outcome
            );
            let mut subject: Vec<_> = record.subject.iter().collect();
            subject.sort();
            let about = [("reason", &record.reason), ("actor", &record.actor)];
            let about = about.into_iter().filter(|(_, value)| !value.is_empty());
            let subject = subject.into_iter().map(|(key, value)| (key.as_str(), value));
            for (key, value) in about.chain(subject) {
                // Writing to a String does not fail.
                let _ = write!(line, " {key}={value}");
            }
            plain(&line) + "\n"
        }
    }
}
