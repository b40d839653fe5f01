//! Verification of an export, offline: pure, with nothing but the lines, the heads and the public key.
//!
//! An export is lines of JSON. The first names the journal and the place before the first record; each other
//! line embeds a record's exact stored bytes beside the chain's value after it. What a signed head covers is
//! proven; records past the newest head are only consistent, and the report says how many those are.

use std::io::{self, BufRead};

use serde::Deserialize;

use super::head::{PublicKey, SignedHead};
use super::record::{self, MAX_RECORD, StoredRecord};
use super::value::{Chain, JournalId};
use crate::domain::journal::Position;

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
}

impl Report {
    /// How many records, the last ones, no head covers yet.
    pub fn unsigned(&self) -> u64 {
        self.last.0 - self.signed.0
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

/// Goes through an export and holds it against heads, all of which `key` must have signed. Heads of positions
/// before the export are checked for their signature only.
pub fn verify(
    mut export: impl BufRead,
    heads: &[SignedHead],
    key: &PublicKey,
) -> Result<Report, VerifyError> {
    let mut line = Vec::new();
    let first = next_line(&mut export, &mut line)?
        .then(|| Start::from_line(&line))
        .flatten();
    let broken_start = |broken| VerifyError::Line {
        line: 1,
        position: Position(0),
        broken,
    };
    let start = first.ok_or(broken_start(Broken::Form))?;
    if start.after == 0 && start.chain != Chain::start(&start.journal) {
        return Err(broken_start(Broken::Chain));
    }
    let mut signed = in_order(heads, &start, key)?.into_iter().peekable();
    let mut report = Report {
        journal: start.journal,
        after: Position(start.after),
        last: Position(start.after),
        signed: Position(start.after),
        heads: 0,
    };
    let mut chain = start.chain;
    let mut number = 1;
    loop {
        let broken = |broken| VerifyError::Line {
            line: number,
            position: report.last,
            broken,
        };
        while let Some((_, signed_chain)) = signed.next_if(|(position, _)| *position == report.last.0) {
            if signed_chain != chain {
                return Err(broken(Broken::Signed));
            }
            report.signed = report.last;
            report.heads += 1;
        }
        if !next_line(&mut export, &mut line)? {
            break;
        }
        number += 1;
        report.last.0 += 1;
        let broken = |broken| VerifyError::Line {
            line: number,
            position: report.last,
            broken,
        };
        let (given, stored) = split(&line).ok_or_else(|| broken(Broken::Form))?;
        if !record::is_at(stored, report.last.0) {
            return Err(broken(Broken::Position));
        }
        chain = chain.after(stored);
        if given != chain {
            return Err(broken(Broken::Chain));
        }
    }
    match signed.next() {
        Some((position, _)) => Err(VerifyError::CutShort {
            signed: Position(position),
            last: report.last,
        }),
        None if report.heads == 0 => Err(VerifyError::Unsigned),
        None if report.signed == report.after && report.last > report.after => Err(VerifyError::Unsigned),
        None => Ok(report),
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
