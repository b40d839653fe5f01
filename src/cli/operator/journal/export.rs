//! `credbroker journal export`: the records with what proves them, for whoever has no broker.
//!
//! It ends at a signed head, so all of it is proven. The whole journal, of all orgs: a part of the records
//! proves nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::verify::{
    Anchor, Chain, JournalId, Signature, SignedHead, export_anchor, export_head, export_line, export_start,
};
use super::{PAGE, head, odd_answer};
use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::cli::files;
use crate::cli::render::{hex, remark};
use crate::domain::journal::Position;
use crate::domain::time::Time;
use crate::proto;

/// What is exported, and where to.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Start after this position; without it at the first record there is.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// The file to make, which must not be there yet; without it standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A head covers what was written a minute before, by the longest interval that can be configured.
const HEAD_ATTEMPTS: usize = 450;
const HEAD_PAUSE: Duration = Duration::from_millis(200);

/// Runs the command.
pub(super) async fn run(session: &Session, args: ExportArgs) -> Result<(), Failure> {
    let covering = covering_head(session).await?;
    let end = signed_head(&covering)?;
    let anchor = covering.anchor.as_ref().map(signed_anchor).transpose()?;
    let begin = beginning(session, args.after, &end, anchor).await?;
    let mut target = Target::open(args.output)?;
    target.line(export_start(&end.journal, Position(begin.0), &begin.1).as_bytes())?;
    if let Some(anchor) = anchor.filter(|anchor| anchor.position.0 == begin.0) {
        target.line(export_anchor(&anchor).as_bytes())?;
    }
    let mut last = begin.0;
    while last < end.position.0 {
        for record in records_after(session, last, PAGE).await? {
            if record.position > end.position.0 {
                break;
            }
            let chain = chain(&record.chain)?;
            target.line(&export_line(&record.stored, &chain))?;
            last = record.position;
        }
    }
    target.line(export_head(&end).as_bytes())?;
    target.finish()?;
    remark(&format!(
        "{} records, from position {} to {}; verify with --public-key {}",
        last - begin.0,
        begin.0 + 1,
        last,
        hex(&covering.public_key)
    ));
    Ok(())
}

/// A head that covers all there is now.
async fn covering_head(session: &Session) -> Result<proto::GetHeadResponse, Failure> {
    let nothing = list(session, u64::MAX, 1).await?;
    for _ in 0..HEAD_ATTEMPTS {
        let answer = head(session).await?;
        let position = answer.head.as_ref().map(|head| head.position);
        if position.is_some_and(|position| position >= nothing.tip_position) {
            return Ok(answer);
        }
        tokio::time::sleep(HEAD_PAUSE).await;
    }
    Err(Failure::new(
        Kind::Unavailable,
        "the broker signs no head of its newest records",
    )
    .remedy("See the broker's log and health."))
}

/// The place before the first record, and the chain's value there.
async fn beginning(
    session: &Session,
    after: u64,
    end: &SignedHead,
    anchor: Option<Anchor>,
) -> Result<(u64, Chain), Failure> {
    if after > end.position.0 {
        return Err(Failure::usage(format!(
            "there is no record after {after}: the last one is {}",
            end.position.0
        )));
    }
    match anchor {
        Some(anchor) if after <= anchor.position.0 => {
            if after < anchor.position.0 {
                remark(&format!(
                    "records up to {} were pruned: the export begins after them",
                    anchor.position.0
                ));
            }
            Ok((anchor.position.0, anchor.chain))
        }
        _ if after == 0 => Ok((0, Chain::start(&end.journal))),
        _ => {
            let records = records_after(session, after - 1, 1).await?;
            let record = records.first().ok_or_else(|| odd_answer("a record is missing"))?;
            Ok((after, chain(&record.chain)?))
        }
    }
}

async fn list(session: &Session, after: u64, size: usize) -> Result<proto::ListRecordsResponse, Failure> {
    let request = proto::ListRecordsRequest {
        page_size: i32::try_from(size).unwrap_or(i32::MAX),
        after_position: after,
        ..Default::default()
    };
    let page = session.journal().list_records(request).await;
    Ok(page.map_err(|status| session.failure(status))?.into_inner())
}

/// The records right after a position, without a gap; at least one.
async fn records_after(
    session: &Session,
    after: u64,
    size: usize,
) -> Result<Vec<proto::JournalRecord>, Failure> {
    let records = list(session, after, size).await?.records;
    let follow = (after + 1..).zip(&records);
    let mut gaps = follow.filter(|(position, record)| *position != record.position);
    if records.is_empty() || gaps.next().is_some() {
        return Err(Failure::new(
            Kind::Failed,
            format!("not all records after {after} were given out"),
        )
        .because("they were pruned just now, or this actor may not see those of all orgs")
        .remedy("Export as an operator of the whole broker; after a prune export again.")
        .at(&session.target));
    }
    Ok(records)
}

fn bytes<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Failure> {
    bytes
        .try_into()
        .map_err(|_| odd_answer("a value is of another length"))
}

fn chain(value: &[u8]) -> Result<Chain, Failure> {
    bytes(value).map(Chain::from_bytes)
}

fn journal_id(text: &str) -> Result<JournalId, Failure> {
    JournalId::from_hex(text).ok_or_else(|| odd_answer("the journal's id"))
}

fn time(time: Option<prost_types::Timestamp>) -> Time {
    let time = time.unwrap_or_default();
    let millis = time.seconds.saturating_mul(1000);
    Time::from_millis(millis.saturating_add(i64::from(time.nanos) / 1_000_000))
}

/// The head of an answer, as an export has it.
pub(super) fn signed_head(answer: &proto::GetHeadResponse) -> Result<SignedHead, Failure> {
    let head = answer
        .head
        .as_ref()
        .ok_or_else(|| odd_answer("there is no head"))?;
    Ok(SignedHead {
        journal: journal_id(&head.journal)?,
        position: Position(head.position),
        chain: chain(&head.chain)?,
        time: time(head.time),
        signature: Signature::from_bytes(bytes(&head.signature)?),
    })
}

fn signed_anchor(anchor: &proto::JournalAnchor) -> Result<Anchor, Failure> {
    Ok(Anchor {
        journal: journal_id(&anchor.journal)?,
        position: Position(anchor.position),
        chain: chain(&anchor.chain)?,
        time: time(anchor.time),
        signature: Signature::from_bytes(bytes(&anchor.signature)?),
    })
}

/// Where the lines go. A file gets its name when it is whole.
struct Target {
    out: BufWriter<Box<dyn Write + Send>>,
    file: Option<(File, PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self {
                out: BufWriter::new(Box::new(io::stdout())),
                file: None,
            });
        };
        if path.exists() {
            return Err(Failure::usage(format!("{} is there already", path.display()))
                .remedy("Name another file; an export is not written over."));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let aside = path.with_file_name(name);
        let mut options = OpenOptions::new();
        let made = options.write(true).create(true).truncate(true).mode(0o600);
        let file = made.open(&aside).map_err(|error| unwritable(&aside, &error))?;
        let lines = file.try_clone().map_err(|error| unwritable(&aside, &error))?;
        Ok(Self {
            out: BufWriter::new(Box::new(lines)),
            file: Some((file, aside, path)),
        })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| self.failed(&error))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| self.failed(&error))?;
        if let Some((file, aside, path)) = &self.file {
            file.sync_all().map_err(|error| unwritable(aside, &error))?;
            files::rename(aside, path)?;
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Failure {
        match &self.file {
            Some((_, aside, _)) => unwritable(aside, error),
            None => unwritable(Path::new("standard output"), error),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // What is not whole is of no use; once it has its name there is nothing left to remove.
        if let Some((_, aside, _)) = &self.file {
            let _ = fs::remove_file(aside);
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Kind::Failed, format!("cannot write {}: {error}", path.display()))
}
