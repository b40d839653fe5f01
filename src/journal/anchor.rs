//! `anchor.json`: where the kept part of the journal begins, signed. There once something was pruned, and
//! durable before the first segment goes.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use super::error::{Damage, JournalError, io_error};
use super::head::{Anchor, PublicKey};
use super::segment::{self, damaged, put_whole};
use super::value::JournalId;

const NAME: &str = "anchor.json";

/// Reads the anchor, which `key` must have signed. `None`: nothing was pruned yet.
pub(super) fn read(dir: &Path, key: &PublicKey) -> Result<Option<Anchor>, JournalError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(io_error(&path))?,
    };
    let anchor = bytes.strip_suffix(b"\n").and_then(Anchor::from_line);
    match anchor.filter(|anchor| anchor.is_signed_by(key)) {
        Some(anchor) => Ok(Some(anchor)),
        None => Err(misfit()),
    }
}

/// Writes the anchor, durably, in place of the one before it.
pub(super) fn write(dir: &Path, anchor: &Anchor) -> Result<(), JournalError> {
    let path = dir.join(NAME);
    put_whole(&path, format!("{}\n", anchor.to_line()).as_bytes()).map_err(io_error(&path))
}

/// Tells the segments that the anchor says are gone, and that an interrupted prune left, from those kept.
/// Refuses where the kept part does not begin at the anchor or, without one, at the first record.
pub(super) fn split(
    dir: &Path,
    segments: Vec<u64>,
    anchor: Option<&Anchor>,
    journal: &JournalId,
) -> Result<(Vec<u64>, Vec<u64>), JournalError> {
    let first = anchor.map_or(1, |anchor| anchor.position.0.saturating_add(1));
    let (pruned, kept): (Vec<u64>, Vec<u64>) = segments.into_iter().partition(|segment| *segment < first);
    if kept.first() != Some(&first) {
        return Err(damaged(first, 0, Damage::Beginning));
    }
    if let Some(anchor) = anchor {
        let path = segment::path(dir, first);
        let file = File::open(&path).map_err(io_error(&path))?;
        let (header, _) = segment::read_header(&mut BufReader::new(file), dir, first)?;
        if header.chain != anchor.chain || anchor.journal != *journal {
            return Err(misfit());
        }
    }
    Ok((pruned, kept))
}

fn misfit() -> JournalError {
    JournalError::Damaged {
        file: NAME.to_owned(),
        offset: 0,
        damage: Damage::Anchor,
    }
}
