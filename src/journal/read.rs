//! Reading durable records from any position, without going through the journal from its start.
//!
//! For the segments read last, a sparse list of places is kept in memory. It grows while reading, so paging
//! through a segment goes through it once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::{Damage, JournalError, io_error};
use super::frame::{self, PREFIX};
use super::record::{self, MAX_RECORD, StoredRecord};
use super::segment::{self, Mark, Place, damaged};
use super::value::Chain;
use crate::domain::journal::Position;
use crate::domain::time::Time;

/// The most records one read returns.
pub const MAX_PAGE: usize = 1000;
/// A read stops after the record with which it reaches this many stored bytes.
const PAGE_BYTES: usize = 4 << 20;
/// How many segments have their places remembered.
const INDEXED: usize = 64;
/// How much is read from a file at once.
const CHUNK: usize = 64 << 10;

/// Reads records below the durable tip.
pub(super) struct Reader {
    dir: PathBuf,
    tip: watch::Receiver<Position>,
    catalog: Mutex<Catalog>,
}

struct Catalog {
    /// First positions, in order; never empty.
    segments: Vec<u64>,
    /// The oldest begin without a finish.
    oldest_open: Option<Position>,
    /// The places of the segments used last, the last one at the back.
    indexes: VecDeque<(u64, Vec<Mark>)>,
}

/// Where reading goes on.
struct Spot {
    segment: u64,
    /// The last position in the segment, where there is a next one.
    last: Option<u64>,
    mark: Option<Mark>,
}

impl Catalog {
    /// The places remembered of a segment, made if there are none, moved to the back.
    fn index(&mut self, segment: u64) -> &mut Vec<Mark> {
        let found = self.indexes.iter().position(|(first, _)| *first == segment);
        let index = found
            .and_then(|at| self.indexes.remove(at))
            .unwrap_or((segment, Vec::new()));
        if self.indexes.len() >= INDEXED {
            self.indexes.pop_front();
        }
        self.indexes.push_back(index);
        let last = self.indexes.len() - 1;
        &mut self.indexes[last].1
    }

    fn spot(&mut self, position: u64) -> Spot {
        let after = self.segments.partition_point(|first| *first <= position);
        let segment = self.segments[after.saturating_sub(1)];
        let last = self.segments.get(after).map(|next| next - 1);
        let marks = self.index(segment);
        let after = marks.partition_point(|mark| mark.position <= position);
        let mark = after.checked_sub(1).map(|at| marks[at]);
        Spot { segment, last, mark }
    }
}

/// A page being filled.
struct Page {
    /// The next position wanted.
    next: u64,
    limit: usize,
    bytes: usize,
    records: Vec<StoredRecord>,
    /// The chain's value at the end of the segment that was read before this one.
    chain: Option<Chain>,
}

impl Page {
    fn is_full(&self) -> bool {
        self.records.len() >= self.limit || self.bytes >= PAGE_BYTES
    }
}

impl Reader {
    /// `segments` are first positions, in order, at least one; `marks` those known of the last one.
    pub(super) fn new(
        dir: PathBuf,
        segments: Vec<u64>,
        marks: Vec<Mark>,
        oldest_open: Option<Position>,
        tip: watch::Receiver<Position>,
    ) -> Self {
        let indexes = segments.last().map(|last| (*last, marks)).into_iter().collect();
        Self {
            dir,
            tip,
            catalog: Mutex::new(Catalog {
                segments,
                oldest_open,
                indexes,
            }),
        }
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment was begun.
    pub(super) fn add_segment(&self, first: u64) {
        self.catalog().segments.push(first);
    }

    /// A group was written: remembers its place, if it is far enough from the last one, and which effects are
    /// open now.
    pub(super) fn note(&self, segment: u64, mark: Mark, oldest_open: Option<Position>) {
        let mut catalog = self.catalog();
        catalog.oldest_open = oldest_open;
        segment::remember(catalog.index(segment), mark);
    }

    /// The first positions of the segments, in order, and the oldest begin without a finish.
    pub(super) fn segments(&self) -> (Vec<u64>, Option<Position>) {
        let catalog = self.catalog();
        (catalog.segments.clone(), catalog.oldest_open)
    }

    /// Reads no more from the segments before the one that begins at `first`, and hands those out. The last
    /// segment always stays.
    pub(super) fn forget_before(&self, first: u64) -> Vec<u64> {
        let mut catalog = self.catalog();
        let gone = catalog.segments.partition_point(|segment| *segment < first);
        let gone = gone.min(catalog.segments.len() - 1);
        let gone: Vec<u64> = catalog.segments.drain(..gone).collect();
        catalog.indexes.retain(|(segment, _)| !gone.contains(segment));
        gone
    }

    /// The chain's value before a segment's first record, and when that was written; `None`: it has none yet.
    pub(super) fn beginning(&self, segment: u64) -> Result<(Chain, Option<Time>), JournalError> {
        let path = segment::path(&self.dir, segment);
        let io = |error| io_error(&path)(error);
        let mut input = BufReader::new(File::open(&path).map_err(io)?);
        let (header, offset) = segment::read_header(&mut input, &self.dir, segment)?;
        if segment > self.tip.borrow().0 {
            return Ok((header.chain, None));
        }
        let place = Place { segment, offset };
        let (_, time, _) = self.at(segment, place)?;
        Ok((header.chain, Some(time)))
    }

    /// The durable records after a position, in order.
    pub(super) fn read(&self, after: Position, limit: usize) -> Result<Vec<StoredRecord>, JournalError> {
        let tip = self.tip.borrow().0;
        let kept = self.catalog().segments[0];
        let mut page = Page {
            next: after.0.saturating_add(1).max(kept),
            limit: limit.min(MAX_PAGE),
            bytes: 0,
            records: Vec::new(),
            chain: None,
        };
        while page.next <= tip && !page.is_full() {
            let spot = self.catalog().spot(page.next);
            if let Err(error) = self.read_segment(&spot, tip, &mut page) {
                // The segment may have been pruned just now: reading goes on where the kept part begins.
                let kept = self.catalog().segments[0];
                if spot.segment >= kept {
                    return Err(error);
                }
                page.next = page.next.max(kept);
                page.chain = None;
            }
        }
        Ok(page.records)
    }

    fn read_segment(&self, spot: &Spot, tip: u64, page: &mut Page) -> Result<(), JournalError> {
        let path = segment::path(&self.dir, spot.segment);
        let io = |error| io_error(&path)(error);
        let mut input = BufReader::with_capacity(CHUNK, File::open(&path).map_err(io)?);
        let mut at = match spot.mark {
            Some(mark) => {
                input.seek(SeekFrom::Start(mark.offset)).map_err(io)?;
                mark
            }
            None => {
                let (header, offset) = segment::read_header(&mut input, &self.dir, spot.segment)?;
                if page.chain.is_some_and(|chain| chain != header.chain) {
                    return Err(damaged(spot.segment, 0, Damage::Chain));
                }
                Mark {
                    position: spot.segment,
                    offset,
                    chain: header.chain,
                }
            }
        };
        let last = spot.last.unwrap_or(u64::MAX).min(tip);
        let mut passed = Vec::new();
        let mut buffer = Vec::new();
        while at.position <= last && !page.is_full() {
            segment::remember(&mut passed, at);
            if !frame::read(&mut input, &mut buffer, MAX_RECORD).map_err(io)? {
                let ended = input.stream_position().map_err(io)? == at.offset;
                let damage = if ended { Damage::Gap } else { Damage::Frame };
                return Err(damaged(spot.segment, at.offset, damage));
            }
            let stored = &buffer[PREFIX..];
            if !record::is_at(stored, at.position) {
                return Err(damaged(spot.segment, at.offset, Damage::Record));
            }
            let chain = at.chain.after(stored);
            if at.position >= page.next {
                let parsed = record::parse(stored);
                let (position, time, entry) =
                    parsed.ok_or_else(|| damaged(spot.segment, at.offset, Damage::Record))?;
                page.bytes += stored.len();
                page.next = position.0 + 1;
                page.records.push(StoredRecord {
                    position,
                    time,
                    stored: stored.to_vec(),
                    chain,
                    entry,
                });
            }
            at = Mark {
                position: at.position + 1,
                offset: at.offset + buffer.len() as u64,
                chain,
            };
        }
        // The next segment was begun when this one was whole: nothing follows its last record.
        let whole = spot.last.is_some_and(|last| at.position > last);
        if whole && input.read(&mut [0]).map_err(io)? > 0 {
            return Err(damaged(spot.segment, at.offset, Damage::Record));
        }
        page.chain = Some(at.chain);
        let mut catalog = self.catalog();
        let index = catalog.index(spot.segment);
        passed.into_iter().for_each(|mark| segment::remember(index, mark));
        Ok(())
    }

    /// The record at a known place, without its chain value.
    pub(super) fn at(
        &self,
        position: u64,
        place: Place,
    ) -> Result<(Position, Time, record::Entry), JournalError> {
        let path = segment::path(&self.dir, place.segment);
        let io = |error| io_error(&path)(error);
        let mut input = BufReader::new(File::open(&path).map_err(io)?);
        input.seek(SeekFrom::Start(place.offset)).map_err(io)?;
        let mut buffer = Vec::new();
        let sound = frame::read(&mut input, &mut buffer, MAX_RECORD).map_err(io)?;
        let parsed = record::parse(&buffer[PREFIX.min(buffer.len())..]);
        parsed
            .filter(|(found, _, _)| sound && found.0 == position)
            .ok_or_else(|| damaged(place.segment, place.offset, Damage::Record))
    }
}
