//! Segment files: their names, how they begin, and how the last one is gone through when a journal is opened.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Damage, JournalError, io_error};
use super::frame;
use super::record::{self, MAX_RECORD, OPENING};
use super::value::{Chain, JournalId};
use crate::domain::journal::Phase;

/// The format this program writes, and the newest it reads.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"cbjourn\n";
/// The length of the magic and the format number, which precede the first frame.
const PREAMBLE: usize = MAGIC.len() + 4;
/// The longest header: room for the most begins that may be open, with some to spare.
const MAX_HEADER: usize = 4 << 20;
/// A write is closed when it has reached this many bytes.
pub(super) const GROUP_BYTES: usize = 1 << 20;
/// The longest single write, so the most that a crash can leave torn.
const MAX_WRITE: usize = GROUP_BYTES + frame::PREFIX + MAX_RECORD;
/// The distance in bytes between places of a segment that are remembered.
const MARK_EVERY: u64 = 128 << 10;

/// Where in the files an open begin lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// A place between two records: the next position, where its frame starts, and the chain's value before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: u64,
    pub(super) offset: u64,
    pub(super) chain: Chain,
}

/// Remembers `mark` if it is far enough past the last one remembered.
pub(super) fn remember(marks: &mut Vec<Mark>, mark: Mark) {
    if marks
        .last()
        .is_none_or(|last| mark.offset >= last.offset + MARK_EVERY)
    {
        marks.push(mark);
    }
}

/// What a segment begins with: all that opening the journal needs of the segments before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) journal: JournalId,
    pub(super) first: u64,
    pub(super) chain: Chain,
    pub(super) open: BTreeMap<u64, Place>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHeader {
    journal: JournalId,
    first: u64,
    chain: Chain,
    open: Vec<WireOpen>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOpen {
    position: u64,
    segment: u64,
    offset: u64,
}

impl Header {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let open = self.open.iter().map(|(position, place)| WireOpen {
            position: *position,
            segment: place.segment,
            offset: place.offset,
        });
        let wire = WireHeader {
            journal: self.journal,
            first: self.first,
            chain: self.chain,
            open: open.collect(),
        };
        let mut bytes = [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat();
        let start = frame::start(&mut bytes);
        serde_json::to_writer(&mut bytes, &wire)?;
        frame::finish(&mut bytes, start, 0);
        Ok(bytes)
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let wire: WireHeader = serde_json::from_slice(payload).ok()?;
        let open = wire.open.iter().map(|open| {
            let place = Place {
                segment: open.segment,
                offset: open.offset,
            };
            (open.position, place)
        });
        Some(Self {
            journal: wire.journal,
            first: wire.first,
            chain: wire.chain,
            open: open.collect(),
        })
    }
}

/// The path of the segment whose first position is `first`.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(name(first))
}

fn name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The first positions of the segments in `dir`, in order. Removes what an interrupted creation left.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => fs::remove_file(&path).map_err(io_error(&path))?,
            Some("seg") => {
                let stem = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .unwrap_or_default();
                let first = stem.parse().ok().filter(|first| path.ends_with(name(*first)));
                firsts.push(first.ok_or_else(|| JournalError::Damaged {
                    file: path.display().to_string(),
                    offset: 0,
                    damage: Damage::NotASegment,
                })?);
            }
            _ => {}
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Writes `contents` to `path` so that after a crash it is there whole or not at all.
pub(super) fn put_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a segment, durably, and opens it for appending. Also returns its length.
pub(super) fn create(dir: &Path, header: &Header) -> io::Result<(File, u64)> {
    let path = path(dir, header.first);
    let bytes = header.encode()?;
    put_whole(&path, &bytes)?;
    let file = OpenOptions::new().append(true).open(&path)?;
    Ok((file, bytes.len() as u64))
}

/// Removes segments. Not durable before the folder is synced.
pub(super) fn remove(dir: &Path, firsts: &[u64]) -> Result<(), JournalError> {
    for first in firsts {
        let path = path(dir, *first);
        fs::remove_file(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// An error about a place in a segment.
pub(super) fn damaged(first: u64, offset: u64, damage: Damage) -> JournalError {
    JournalError::Damaged {
        file: name(first),
        offset,
        damage,
    }
}

/// Reads how a segment begins. Also returns where its records start.
pub(super) fn read_header(
    input: &mut impl Read,
    dir: &Path,
    first: u64,
) -> Result<(Header, u64), JournalError> {
    let io = |error| io_error(&path(dir, first))(error);
    let mut preamble = [0; PREAMBLE];
    let mut format = [0; 4];
    match input.read_exact(&mut preamble) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(io(error)),
        _ => format.copy_from_slice(&preamble[MAGIC.len()..]),
    }
    let found = u32::from_le_bytes(format);
    if !preamble.starts_with(MAGIC) || found == 0 {
        return Err(damaged(first, 0, Damage::NotASegment));
    }
    if found > FORMAT {
        return Err(JournalError::TooNew {
            file: name(first),
            found,
            supported: FORMAT,
        });
    }
    let mut buffer = Vec::new();
    let whole = frame::read(input, &mut buffer, MAX_HEADER).map_err(io)?;
    let header = Header::decode(&buffer[frame::PREFIX.min(buffer.len())..]);
    match header.filter(|header| whole && header.first == first) {
        Some(header) => Ok((header, (PREAMBLE + buffer.len()) as u64)),
        None => Err(damaged(first, PREAMBLE as u64, Damage::Header)),
    }
}

/// What going through the last segment found.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) journal: JournalId,
    /// The last position, and the chain's value there.
    pub(super) last: u64,
    pub(super) chain: Chain,
    /// Where the sound records end, and how many bytes follow that a torn write left.
    pub(super) end: u64,
    pub(super) torn: u64,
    pub(super) open: BTreeMap<u64, Place>,
    pub(super) marks: Vec<Mark>,
}

/// Goes through the last segment, and holds it against the signed values of the chain. Changes nothing.
pub(super) fn scan(dir: &Path, first: u64, signed: &BTreeMap<u64, Chain>) -> Result<Scan, JournalError> {
    let path = path(dir, first);
    let bytes = fs::read(&path).map_err(io_error(&path))?;
    let (header, start) = read_header(&mut bytes.as_slice(), dir, first)?;
    let mut scan = Scan {
        journal: header.journal,
        last: first - 1,
        chain: header.chain,
        end: start,
        torn: 0,
        open: header.open,
        marks: Vec::new(),
    };
    let fits = |position: &u64, chain: &Chain| signed.get(position).is_none_or(|signed| signed == chain);
    if !fits(&scan.last, &scan.chain) {
        return Err(damaged(first, PREAMBLE as u64, Damage::Chain));
    }
    // Files are far smaller than the address space.
    let mut offset = usize::try_from(start).unwrap_or(usize::MAX);
    while let Some(frame) = frame::at(&bytes, offset, MAX_RECORD) {
        let position = scan.last + 1;
        let mark = Mark {
            position,
            offset: offset as u64,
            chain: scan.chain,
        };
        remember(&mut scan.marks, mark);
        let entry = record::parse(frame.payload).filter(|_| record::is_at(frame.payload, position));
        let Some((_, _, entry)) = entry else {
            return Err(damaged(first, mark.offset, Damage::Record));
        };
        scan.last = position;
        scan.chain = scan.chain.after(frame.payload);
        if !fits(&position, &scan.chain) {
            return Err(damaged(first, mark.offset, Damage::Chain));
        }
        let place = Place {
            segment: first,
            offset: mark.offset,
        };
        note_effect(&mut scan.open, position, entry.phase, place);
        offset += frame.len();
    }
    scan.end = offset as u64;
    scan.torn = (bytes.len() - offset) as u64;
    if !is_torn_write(&bytes, offset) {
        return Err(damaged(first, scan.end, Damage::Frame));
    }
    Ok(scan)
}

/// Keeps the begins that have no finish yet. A finish of what is not open changes nothing.
pub(super) fn note_effect(open: &mut BTreeMap<u64, Place>, position: u64, phase: Phase, place: Place) {
    match phase {
        Phase::Single => {}
        Phase::Begin => {
            open.insert(position, place);
        }
        Phase::Finish(begin) => {
            open.remove(&begin.0);
        }
    }
}

/// Whether what follows `offset`, where no sound frame starts, can be what is left of one last write.
///
/// It is not where it is longer than a write, or where a sound frame follows that a later write put there:
/// a write starts only after the one before it is durable.
fn is_torn_write(bytes: &[u8], offset: usize) -> bool {
    let tail = &bytes[offset..];
    let later_write = |start: usize| {
        let sound = start
            .checked_sub(frame::PREFIX)
            .and_then(|start| frame::at(tail, start, MAX_RECORD).map(|frame| (start, frame.back)));
        sound.is_some_and(|(start, back)| usize::try_from(back).is_ok_and(|back| start > back))
    };
    let mut openings = tail
        .windows(OPENING.len())
        .enumerate()
        .filter(|(_, window)| *window == OPENING);
    tail.len() <= MAX_WRITE && !openings.any(|(start, _)| later_write(start))
}
