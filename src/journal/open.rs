//! Opening a journal: what is checked, what a crash left is cut off, and what is refused.
//!
//! Everything is looked at before anything is changed. Only the last segment is gone through; damage in
//! earlier ones shows when they are read or verified.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use super::error::{Damage, JournalError, io_error};
use super::head::{Anchor, SignedHead};
use super::heads::{self, Found, HeadLog};
use super::key::SigningKey;
use super::read::Reader;
use super::segment::{self, Header, Scan};
use super::value::{Chain, JournalId};
use super::writer::{self, Writer};
use super::{OpenEffect, Opened, Options, anchor};
use crate::clock::Clock;
use crate::domain::journal::Position;

/// How often the lock is tried, and the pause between: half a second together.
const LOCK_ATTEMPTS: usize = 25;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What is found in, or was made of, a folder.
struct Ready {
    segments: Vec<u64>,
    scan: Scan,
    file: File,
    heads: HeadLog,
    head: SignedHead,
}

/// Opens the journal in `dir`, or makes it.
pub(super) fn open(
    dir: &Path,
    key: Arc<SigningKey>,
    clock: Arc<dyn Clock>,
    options: Options,
) -> Result<(Writer, Opened), JournalError> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error(dir))?;
    let lock = Arc::new(lock(dir)?);
    let segments = segment::list(dir)?;
    let found = heads::read(dir, &key.public_key())?;
    let anchor = anchor::read(dir, &key.public_key())?;
    let ready = match segments.last() {
        None => create(dir, found, anchor, &key, clock.as_ref(), &options)?,
        Some(_) => recover(dir, segments, found, anchor, &options)?,
    };
    let Ready {
        segments,
        scan,
        file,
        heads,
        head,
    } = ready;
    let segment = segments.last().copied().unwrap_or(1);
    let (tip, tip_seen) = watch::channel(Position(scan.last));
    let reader = Arc::new(Reader::new(
        dir.to_path_buf(),
        segments,
        scan.marks,
        writer::oldest(&scan.open),
        tip_seen,
    ));
    let mut open_effects = Vec::with_capacity(scan.open.len());
    for (position, place) in &scan.open {
        let (position, time, entry) = reader.at(*position, *place)?;
        open_effects.push(OpenEffect {
            position,
            time,
            entry,
        });
    }
    let opened = Opened {
        journal: scan.journal,
        last: Position(scan.last),
        open_effects,
        anchor,
        recovered_tail: (scan.torn > 0).then_some(scan.torn),
    };
    let writer = Writer {
        dir: dir.to_path_buf(),
        options,
        key,
        journal: scan.journal,
        segment,
        file,
        length: scan.end,
        position: scan.last,
        chain: scan.chain,
        last_group: 0,
        open: scan.open,
        heads,
        signed_at: clock.monotonic(),
        clock,
        reader,
        tip,
        head: watch::Sender::new(head),
        failure: watch::Sender::new(None),
        lock,
    };
    Ok((writer, opened))
}

fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("journal.lock");
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(io_error(&path))?;
    // An owner that has just ended may be held up for a moment: a process being started shares its files
    // until it has replaced itself.
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(io_error(&path)(error)),
        }
    }
    Err(JournalError::InUse)
}

/// Makes the heads first and the first segment after: a crash between leaves a head of position 0 and no
/// segment, which is made again under the same id.
fn create(
    dir: &Path,
    found: Option<Found>,
    anchor: Option<Anchor>,
    key: &SigningKey,
    clock: &dyn Clock,
    options: &Options,
) -> Result<Ready, JournalError> {
    let signed = found.as_ref().and_then(|found| found.heads.last()).copied();
    if let Some(anchor) = anchor {
        return Err(JournalError::Truncated {
            signed: signed.map_or(anchor.position, |head| head.position.max(anchor.position)),
            last: Position(0),
        });
    }
    let head = match signed {
        Some(head) if head.position.0 > 0 => {
            return Err(JournalError::Truncated {
                signed: head.position,
                last: Position(0),
            });
        }
        Some(head) => head,
        None => {
            let mut id = [0; 16];
            let filled = SystemRandom::new().fill(&mut id);
            filled.map_err(|_| io_error(dir)(io::Error::other("the system gave no random bytes")))?;
            let journal = JournalId::from_bytes(id);
            key.sign(journal, Position(0), Chain::start(&journal), clock.wall())
        }
    };
    let heads = HeadLog::create(dir, &head, options.heads_kept).map_err(io_error(dir))?;
    let header = Header {
        journal: head.journal,
        first: 1,
        chain: head.chain,
        open: BTreeMap::new(),
    };
    let (file, length) = segment::create(dir, &header).map_err(io_error(dir))?;
    Ok(Ready {
        segments: vec![header.first],
        scan: Scan {
            journal: head.journal,
            last: 0,
            chain: head.chain,
            end: length,
            torn: 0,
            open: header.open,
            marks: Vec::new(),
        },
        file,
        heads,
        head,
    })
}

fn recover(
    dir: &Path,
    segments: Vec<u64>,
    found: Option<Found>,
    anchor: Option<Anchor>,
    options: &Options,
) -> Result<Ready, JournalError> {
    let missing = || heads::damaged(0, Damage::NoHeads);
    let found = found.ok_or_else(missing)?;
    let head = *found.heads.last().ok_or_else(missing)?;
    let signed = found
        .heads
        .iter()
        .map(|head| (head.position.0, head.chain))
        .collect();
    let last = segments.last().copied().unwrap_or(1);
    let scan = segment::scan(dir, last, &signed)?;
    if found.heads.iter().any(|head| head.journal != scan.journal) {
        return Err(heads::damaged(0, Damage::OtherJournal));
    }
    if head.position.0 > scan.last {
        return Err(JournalError::Truncated {
            signed: head.position,
            last: Position(scan.last),
        });
    }
    let (pruned, segments) = anchor::split(dir, segments, anchor.as_ref(), &scan.journal)?;
    // From here on things are changed. What a killed process wrote and did not sync is made durable before
    // it is read, built upon or signed.
    let path = segment::path(dir, last);
    let file = OpenOptions::new()
        .append(true)
        .open(&path)
        .map_err(io_error(&path))?;
    if scan.torn > 0 {
        file.set_len(scan.end).map_err(io_error(&path))?;
    }
    file.sync_all().map_err(io_error(&path))?;
    if !pruned.is_empty() {
        tracing::info!(segments = pruned.len(), "finished a prune that was interrupted");
        segment::remove(dir, &pruned)?;
    }
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error(dir))?;
    let heads = HeadLog::open(dir, &found, options.heads_kept).map_err(io_error(dir))?;
    Ok(Ready {
        segments,
        scan,
        file,
        heads,
        head,
    })
}
