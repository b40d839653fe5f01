//! What both test files of the journal need.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::ManualClock;
use credbroker::domain::journal::{Action, Phase, Position, Record};
use credbroker::domain::secret::Secret;
use credbroker::domain::time::Time;
use credbroker::journal::verify::{self, Report, VerifyError};
use credbroker::journal::{Journal, JournalError, Opened, Options, PublicKey, SigningKey, StoredRecord};

pub const TIME: i64 = 1_700_000_000_000;

pub fn key() -> SigningKey {
    SigningKey::new(&Secret::new(vec![7; 32])).unwrap()
}

/// Options under which no head is signed until the journal is closed.
pub fn unsigned() -> Options {
    Options {
        head_interval: Duration::from_secs(3600),
        ..Options::default()
    }
}

pub fn open(dir: &Path, options: &Options) -> Result<(Journal, Opened), JournalError> {
    let clock = Arc::new(ManualClock::at(Time::from_millis(TIME)));
    Journal::open(dir, key(), clock, options.clone())
}

pub fn record(number: usize) -> Record {
    Record::new(Action::Resolve, "agt_1", None)
        .about("lease", number)
        .request(&format!("request {number}"))
}

pub fn begin(number: usize) -> Record {
    Record::new(Action::Refresh, "broker", None)
        .about("credential", number)
        .phase(Phase::Begin)
}

pub fn finish(begin: Position) -> Record {
    Record::new(Action::Refresh, "broker", None).phase(Phase::Finish(begin))
}

pub async fn append_all(journal: &Journal, numbers: std::ops::Range<usize>) {
    for number in numbers {
        journal.append(&record(number)).await.unwrap();
    }
}

/// All records, page by page.
pub fn all(journal: &Journal) -> Result<Vec<StoredRecord>, JournalError> {
    let mut records: Vec<StoredRecord> = Vec::new();
    loop {
        let after = records.last().map_or(Position(0), |record| record.position);
        let page = journal.read(after, 7)?;
        if page.is_empty() {
            return Ok(records);
        }
        records.extend(page);
    }
}

/// The whole journal as an export.
pub fn export(journal: &Journal) -> Vec<u8> {
    let head = journal.head();
    let start = credbroker::journal::Chain::start(&head.journal);
    let mut lines = verify::export_start(&head.journal, Position(0), &start).into_bytes();
    lines.push(b'\n');
    for record in all(journal).unwrap() {
        lines.extend(record.export_line());
        lines.push(b'\n');
    }
    lines
}

pub fn check(export: &[u8], heads: &[u8], key: &PublicKey) -> Result<Report, VerifyError> {
    verify::verify(export, &verify::read_heads(heads)?, key)
}

/// The files as a crash at this moment would leave them, page cache and all.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("journal.lock") {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    paths.sort();
    paths
}

/// A frame of a segment, as docs/journal.md has it.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub start: usize,
    pub end: usize,
    pub back: u32,
}

/// The frames of records; the header's is left out.
pub fn frames(segment: &[u8]) -> Vec<Frame> {
    let word = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap());
    let mut frames = Vec::new();
    let mut start = 12;
    while start < segment.len() {
        let end = start + 12 + usize::try_from(word(start + 4)).unwrap();
        frames.push(Frame {
            start,
            end,
            back: word(start + 8),
        });
        start = end;
    }
    frames.remove(0);
    frames
}
