//! Verification of an export, offline: pure, with nothing but the lines, the heads and the public key.
//!
//! An export is lines of JSON. The first names the journal and the place before the first record; where older
//! records were pruned, the next is the signed anchor of that place; each line after that embeds a record's
//! exact stored bytes beside the chain's value after it; the last ones are signed heads of the last record.
//! What a signed head covers is proven; records past the newest head are only consistent, and the report says
//! how many those are.

use std::io::{self, BufRead};

use serde::Deserialize;

pub use super::head::{Anchor, PublicKey, SignedHead};
use super::record::{self, MAX_RECORD, StoredRecord, Verdict};
pub use super::value::{Chain, JournalId, Signature};
use crate::domain::journal::Position;
use crate::domain::time::Time;

const ANCHOR_OPENS: &[u8] = b"{\"anchor\":";
const HEAD_OPENS: &[u8] = b"{\"head\":";
const CHAIN_OPENS: &[u8] = b"{\"chain\":\"";
const RECORD_OPENS: &[u8] = b"\",\"record\":";
const MAX_LINE: usize = MAX_RECORD + 128;

/// The first line of an export of the records after a position, without its end.
pub fn export_start(journal: &JournalId, after: Position, chain: &Chain) -> String {
    format!(
        r#"{{"journal":"{journal}","after":{},"chain":"{chain}"}}"#,
        after.0
    )
}

/// The line after the first, where the export begins at an anchor, without its end.
pub fn export_anchor(anchor: &Anchor) -> String {
    format!(r#"{{"anchor":{}}}"#, anchor.to_line())
}

/// The line for a head of the export's last record, without its end.
pub fn export_head(head: &SignedHead) -> String {
    format!(r#"{{"head":{}}}"#, head.to_line())
}

impl StoredRecord {
    /// Its line of an export, without its end.
    pub fn export_line(&self) -> Vec<u8> {
        export_line(&self.stored, &self.chain)
    }
}

/// The line of an export for a record's stored bytes and the chain's value after it, without its end.
pub fn export_line(stored: &[u8], chain: &Chain) -> Vec<u8> {
    [
        CHAIN_OPENS,
        chain.to_string().as_bytes(),
        RECORD_OPENS,
        stored,
        b"}",
    ]
    .concat()
}

/// What an export that holds was found to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The journal.
    pub journal: JournalId,
    /// The place before the first record.
    pub after: Position,
    /// The last record.
    pub last: Position,
    /// The newest signed head among them: everything up to here is proven.
    pub signed: Position,
    /// How many heads were held against the records.
    pub heads: usize,
    /// What says that the records before the first were pruned, where the export has it.
    pub anchor: Option<Anchor>,
    /// When the first and the last record were written, by the broker's clock.
    pub times: Option<(Time, Time)>,
    /// How many records are of each outcome.
    pub outcomes: Outcomes,
}

/// Records by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Allowed, or done.
    pub allowed: u64,
    /// Refused.
    pub denied: u64,
    /// Allowed, and failed.
    pub failed: u64,
    /// Of a form that this program does not know, as a newer one may write it. The chain covers them all the
    /// same.
    pub unknown: u64,
}

impl Report {
    /// How many records, the last ones, no head covers yet.
    pub fn unsigned(&self) -> u64 {
        self.last.0 - self.signed.0
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.last.0 - self.after.0
    }

    fn note(&mut self, stored: &[u8]) {
        let Some((_, time, entry)) = record::parse(stored) else {
            self.outcomes.unknown += 1;
            return;
        };
        let first = self.times.map_or(time, |(first, _)| first);
        self.times = Some((first, time));
        match entry.verdict {
            Verdict::Allowed => self.outcomes.allowed += 1,
            Verdict::Denied => self.outcomes.denied += 1,
            Verdict::Failed => self.outcomes.failed += 1,
        }
    }
}

/// The first thing that does not hold.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The lines could not be read.
    #[error("the export could not be read: {0}")]
    Read(#[from] io::Error),
    /// A line.
    #[error("line {line}, where position {} is expected: {broken}", position.0)]
    Line {
        /// The line's number in the export, from 1.
        line: u64,
        /// The position that should be there.
        position: Position,
        /// What is wrong.
        broken: Broken,
    },
    /// A head.
    #[error("head {head}: {broken}")]
    Head {
        /// The head's number, from 1.
        head: usize,
        /// What is wrong.
        broken: Broken,
    },
    /// The export ends before a position that was signed: records were cut off, or it is older than the head.
    #[error("position {} was signed, and the export ends at {}", signed.0, last.0)]
    CutShort {
        /// The signed position.
        signed: Position,
        /// The last position there is.
        last: Position,
    },
    /// No head covers a record of the export, so nothing in it is proven. Get a newer head.
    #[error("no signed head covers a record of the export: nothing in it is proven")]
    Unsigned,
}

/// What is wrong with a line or a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It does not have the form of an export's line or of a head.
    #[error("it does not have the form that was written")]
    Form,
    /// The record says another position: one was dropped, put in or moved.
    #[error("the record is of another position")]
    Position,
    /// The chain does not lead to the value given: this record, or one before it, is not what was written.
    #[error("the hash chain is broken")]
    Chain,
    /// A signed head gives another value of the chain for this position.
    #[error("a signed head says otherwise")]
    Signed,
    /// The signature is not by the key.
    #[error("it is not signed by the given key")]
    Signature,
    /// It is of another journal.
    #[error("it is of another journal")]
    Journal,
}

/// Reads heads, one a line, as `heads.log` has them. Does not check signatures.
pub fn read_heads(mut input: impl BufRead) -> Result<Vec<SignedHead>, VerifyError> {
    let mut heads = Vec::new();
    let mut line = Vec::new();
    while next_line(&mut input, &mut line)? {
        let head = SignedHead::from_line(&line).ok_or(VerifyError::Head {
            head: heads.len() + 1,
            broken: Broken::Form,
        })?;
        heads.push(head);
    }
    Ok(heads)
}

/// Goes through an export and holds it against its own heads and those given, all of which `key` must have
/// signed. Heads of positions before the export are checked for their signature only.
pub fn verify(export: impl BufRead, heads: &[SignedHead], key: &PublicKey) -> Result<Report, VerifyError> {
    let mut lines = Lines {
        input: export,
        line: Vec::new(),
        number: 0,
    };
    lines.next()?;
    let mut walk = Walk::start(&lines.line, heads, key)?;
    loop {
        walk.meet_signed(lines.number)?;
        if !lines.next()? {
            break;
        }
        let line = lines.line.as_slice();
        let number = lines.number;
        if let Some(anchor) = embedded(line, ANCHOR_OPENS) {
            walk.anchor(Anchor::from_line(anchor), key, number)?;
        } else if let Some(head) = embedded(line, HEAD_OPENS) {
            walk.head(SignedHead::from_line(head), key, number)?;
        } else {
            walk.record(line, number)?;
        }
    }
    walk.end()
}

/// An export on the way to its end.
struct Walk {
    report: Report,
    /// The chain's value after the last record.
    chain: Chain,
    /// Heads given, of places not reached yet.
    signed: std::iter::Peekable<std::vec::IntoIter<(u64, Chain)>>,
    /// Heads stood in the export: no record follows those.
    closed: bool,
}

impl Walk {
    fn start(line: &[u8], heads: &[SignedHead], key: &PublicKey) -> Result<Self, VerifyError> {
        let broken = |broken| VerifyError::Line {
            line: 1,
            position: Position(0),
            broken,
        };
        let start = Start::from_line(line).ok_or(broken(Broken::Form))?;
        if start.after == 0 && start.chain != Chain::start(&start.journal) {
            return Err(broken(Broken::Chain));
        }
        Ok(Self {
            signed: in_order(heads, &start, key)?.into_iter().peekable(),
            report: Report {
                journal: start.journal,
                after: Position(start.after),
                last: Position(start.after),
                signed: Position(start.after),
                heads: 0,
                anchor: None,
                times: None,
                outcomes: Outcomes::default(),
            },
            chain: start.chain,
            closed: false,
        })
    }

    fn broken(&self, line: u64, broken: Broken) -> VerifyError {
        VerifyError::Line {
            line,
            position: self.report.last,
            broken,
        }
    }

    /// Holds the heads of this place, among those given, against the chain.
    fn meet_signed(&mut self, line: u64) -> Result<(), VerifyError> {
        let here = self.report.last;
        while let Some((_, chain)) = self.signed.next_if(|(position, _)| *position == here.0) {
            self.covered(chain, line)?;
        }
        Ok(())
    }

    fn covered(&mut self, chain: Chain, line: u64) -> Result<(), VerifyError> {
        if chain != self.chain {
            return Err(self.broken(line, Broken::Signed));
        }
        self.report.signed = self.report.last;
        self.report.heads += 1;
        Ok(())
    }

    fn anchor(&mut self, anchor: Option<Anchor>, key: &PublicKey, line: u64) -> Result<(), VerifyError> {
        let anchor = anchor.filter(|_| line == 2);
        let anchor = anchor.ok_or_else(|| self.broken(line, Broken::Form))?;
        let wrong = if !anchor.is_signed_by(key) {
            Some(Broken::Signature)
        } else if anchor.journal != self.report.journal {
            Some(Broken::Journal)
        } else if anchor.position != self.report.after {
            Some(Broken::Position)
        } else if anchor.chain != self.chain {
            Some(Broken::Signed)
        } else {
            None
        };
        self.report.anchor = Some(anchor);
        wrong.map_or(Ok(()), |wrong| Err(self.broken(line, wrong)))
    }

    fn head(&mut self, head: Option<SignedHead>, key: &PublicKey, line: u64) -> Result<(), VerifyError> {
        let head = head.ok_or_else(|| self.broken(line, Broken::Form))?;
        self.closed = true;
        if !head.is_signed_by(key) {
            Err(self.broken(line, Broken::Signature))
        } else if head.journal != self.report.journal {
            Err(self.broken(line, Broken::Journal))
        } else if head.position > self.report.last {
            Err(VerifyError::CutShort {
                signed: head.position,
                last: self.report.last,
            })
        } else if head.position < self.report.last {
            Err(self.broken(line, Broken::Position))
        } else {
            self.covered(head.chain, line)
        }
    }

    fn record(&mut self, line: &[u8], number: u64) -> Result<(), VerifyError> {
        self.report.last.0 += 1;
        let parts = split(line).filter(|_| !self.closed);
        let (given, stored) = parts.ok_or_else(|| self.broken(number, Broken::Form))?;
        if !record::is_at(stored, self.report.last.0) {
            return Err(self.broken(number, Broken::Position));
        }
        self.chain = self.chain.after(stored);
        if given != self.chain {
            return Err(self.broken(number, Broken::Chain));
        }
        self.report.note(stored);
        Ok(())
    }

    fn end(mut self) -> Result<Report, VerifyError> {
        let report = self.report;
        match self.signed.next() {
            Some((position, _)) => Err(VerifyError::CutShort {
                signed: Position(position),
                last: report.last,
            }),
            None if report.heads == 0 => Err(VerifyError::Unsigned),
            None if report.signed == report.after && report.last > report.after => Err(VerifyError::Unsigned),
            None => Ok(report),
        }
    }
}

/// Checks every head's signature and journal, and orders those that fall into the export.
fn in_order(heads: &[SignedHead], start: &Start, key: &PublicKey) -> Result<Vec<(u64, Chain)>, VerifyError> {
    for (index, head) in heads.iter().enumerate() {
        let broken = match head.is_signed_by(key) {
            true if head.journal == start.journal => continue,
            true => Broken::Journal,
            false => Broken::Signature,
        };
        return Err(VerifyError::Head {
            head: index + 1,
            broken,
        });
    }
    let mut signed: Vec<_> = heads.iter().map(|head| (head.position.0, head.chain)).collect();
    signed.retain(|(position, _)| *position >= start.after);
    signed.sort_unstable_by_key(|(position, _)| *position);
    Ok(signed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    journal: JournalId,
    after: u64,
    chain: Chain,
}

impl Start {
    fn from_line(line: &[u8]) -> Option<Self> {
        let start: Self = serde_json::from_slice(line).ok()?;
        let written = export_start(&start.journal, Position(start.after), &start.chain);
        (written.as_bytes() == line).then_some(start)
    }
}

fn split(line: &[u8]) -> Option<(Chain, &[u8])> {
    let (chain, rest) = line.strip_prefix(CHAIN_OPENS)?.split_at_checked(64)?;
    let stored = rest.strip_prefix(RECORD_OPENS)?.strip_suffix(b"}")?;
    Some((Chain::from_hex(std::str::from_utf8(chain).ok()?)?, stored))
}

/// What a line of this kind embeds.
fn embedded<'a>(line: &'a [u8], opens: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(opens)?.strip_suffix(b"}")
}

/// The lines of an export, one at a time.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    /// The number of the line, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<bool> {
        self.number += 1;
        next_line(&mut self.input, &mut self.line)
    }
}

/// Reads a line without its end; `false` at the end. A line past [`MAX_LINE`] is cut, and then has no known
/// form.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    io::Read::take(input, MAX_LINE as u64).read_until(b'\n', line)?;
    let some = !line.is_empty();
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(some)
}
