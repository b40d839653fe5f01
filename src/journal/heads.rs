//! `heads.log`: the signed heads, one line each, newest last, bounded.
//!
//! There from the journal's first moment, with a head of position 0, so that a missing file shows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::{Damage, JournalError, io_error};
use super::head::{PublicKey, SignedHead};
use super::segment::put_whole;

const NAME: &str = "heads.log";

/// The file of heads, open for appending.
pub(super) struct HeadLog {
    path: PathBuf,
    file: File,
    lines: usize,
    keep: usize,
}

/// What the file says.
pub(super) struct Found {
    /// In the order they were signed.
    pub(super) heads: Vec<SignedHead>,
    /// The length of the whole lines; what follows is half a line that a crash left.
    sound: u64,
    length: u64,
}

/// Reads the heads, oldest first. `None` where there is no file. Checks the newest one's signature.
pub(super) fn read(dir: &Path, key: &PublicKey) -> Result<Option<Found>, JournalError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(io_error(&path))?,
    };
    let mut found = Found {
        heads: Vec::new(),
        sound: 0,
        length: bytes.len() as u64,
    };
    let mut torn = false;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let head = line.strip_suffix(b"\n").and_then(SignedHead::from_line);
        match head {
            // A line is written after the one before it is durable: only the last can be torn.
            Some(_) if torn => return Err(damaged(found.sound, Damage::Head)),
            Some(head) => {
                found.heads.push(head);
                found.sound += line.len() as u64;
            }
            None => torn = true,
        }
    }
    match found.heads.last() {
        Some(newest) if !newest.is_signed_by(key) => Err(JournalError::WrongKey),
        _ => Ok(Some(found)),
    }
}

/// An error about a place in the file of heads.
pub(super) fn damaged(offset: u64, damage: Damage) -> JournalError {
    JournalError::Damaged {
        file: NAME.to_owned(),
        offset,
        damage,
    }
}

impl HeadLog {
    /// Makes the file with its first head, durably.
    pub(super) fn create(dir: &Path, first: &SignedHead, keep: usize) -> io::Result<Self> {
        let path = dir.join(NAME);
        put_whole(&path, format!("{}\n", first.to_line()).as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(Self {
            path,
            file,
            lines: 1,
            keep: keep.max(2),
        })
    }

    /// Opens the file that [`read`] has read, and cuts half a line off.
    pub(super) fn open(dir: &Path, found: &Found, keep: usize) -> io::Result<Self> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().append(true).open(&path)?;
        if found.sound < found.length {
            file.set_len(found.sound)?;
            file.sync_all()?;
        }
        Ok(Self {
            path,
            file,
            lines: found.heads.len(),
            keep: keep.max(2),
        })
    }

    /// Adds a head, durably. Drops the older half when there are as many as are kept.
    pub(super) fn append(&mut self, head: &SignedHead) -> io::Result<()> {
        if self.lines >= self.keep {
            let text = fs::read_to_string(&self.path)?;
            let kept = self.keep / 2;
            let mut newest: Vec<&str> = text.split_inclusive('\n').rev().take(kept).collect();
            newest.reverse();
            put_whole(&self.path, newest.concat().as_bytes())?;
            self.file = OpenOptions::new().append(true).open(&self.path)?;
            self.lines = kept;
        }
        self.file.write_all(format!("{}\n", head.to_line()).as_bytes())?;
        self.file.sync_data()?;
        self.lines += 1;
        Ok(())
    }
}
