//! Pruning: whole old segments go, and a signed anchor stays in their place.
//!
//! The order is the promise. What is kept is first held against a signed head, so that no anchor is signed for
//! a chain that somebody else made; then the anchor is made durable; then segments go, the oldest first. A
//! crash at any moment leaves either the journal as it was, or one whose opening removes the rest.

use std::fs::File;
use std::sync::PoisonError;

use super::error::{Damage, JournalError, io_error};
use super::head::Anchor;
use super::segment::{self, damaged};
use super::value::Chain;
use super::{Journal, MAX_PAGE, anchor, heads};
use crate::domain::journal::Position;
use crate::domain::time::Time;

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneTo {
    /// Records written before this time, as the first record of the following segment tells it.
    BeforeTime(Time),
    /// Records before this position.
    BeforePosition(Position),
}

/// What would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrunePlan {
    /// The last record that goes: the end of a segment.
    pub last: Position,
    /// How many records go.
    pub records: u64,
    /// How many segments go.
    pub segments: usize,
}

impl Journal {
    /// What can go of what may: whole segments, never the last one, none with or after a begin whose effect is
    /// open, none past the newest signed head. `None`: nothing. Reads files: not for an async task.
    pub fn plan_prune(&self, to: PruneTo) -> Result<Option<PrunePlan>, JournalError> {
        let (segments, oldest_open) = self.0.reader.segments();
        let before = match to {
            PruneTo::BeforePosition(position) => position.0,
            PruneTo::BeforeTime(_) => u64::MAX,
        };
        let limit = [
            before,
            self.head().position.0.saturating_add(1),
            oldest_open.map_or(u64::MAX, |open| open.0),
        ];
        let limit = limit.into_iter().min().unwrap_or(0);
        let mut plan = None;
        // The place where a segment begins is where the kept part could.
        for (gone, kept) in (1..).zip(&segments[1..]) {
            if *kept > limit {
                break;
            }
            if let PruneTo::BeforeTime(time) = to {
                let (_, written) = self.0.reader.beginning(*kept)?;
                if written.is_none_or(|written| written > time) {
                    break;
                }
            }
            plan = Some(PrunePlan {
                last: Position(*kept - 1),
                records: *kept - segments[0],
                segments: gone,
            });
        }
        Ok(plan)
    }

    /// Does what was planned. What was pruned further meanwhile stays so. Reads what is kept up to a signed
    /// head, and files: not for an async task.
    pub fn prune(&self, plan: &PrunePlan) -> Result<Anchor, JournalError> {
        let shared = &self.0;
        // The folder stays ours until this is over, even when the journal is closed meanwhile.
        let _folder = shared.lock.upgrade().ok_or(JournalError::Closed)?;
        let _alone = shared.pruning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(further) = self.anchor().filter(|anchor| anchor.position >= plan.last) {
            return Ok(further);
        }
        let first = plan.last.0 + 1;
        let chain = self.proven_chain(first)?;
        let head = self.head();
        let signed = shared
            .key
            .sign_anchor(head.journal, plan.last, chain, shared.clock.wall());
        anchor::write(&shared.dir, &signed)?;
        shared.anchor.send_replace(Some(signed));
        let gone = shared.reader.forget_before(first);
        segment::remove(&shared.dir, &gone)?;
        let sync = File::open(&shared.dir).and_then(|dir| dir.sync_all());
        sync.map_err(io_error(&shared.dir))?;
        Ok(signed)
    }

    /// The chain's value before the segment that begins at `first`, proven by the oldest kept head that covers
    /// it: everything from there to the head is gone through.
    fn proven_chain(&self, first: u64) -> Result<Chain, JournalError> {
        let (chain, _) = self.0.reader.beginning(first)?;
        let broken = || damaged(first, 0, Damage::Chain);
        let key = self.public_key();
        let found = heads::read(&self.0.dir, &key)?;
        let covering = found.iter().flat_map(|found| &found.heads);
        let head = covering
            .filter(|head| head.position.0 >= first - 1 && head.is_signed_by(&key))
            .min_by_key(|head| head.position);
        let head = *head.ok_or_else(broken)?;
        let mut at = (first - 1, chain);
        while at.0 < head.position.0 {
            let records = self.read(Position(at.0), MAX_PAGE)?;
            let covered = records
                .iter()
                .take_while(|record| record.position <= head.position);
            let last = covered.last().ok_or_else(broken)?;
            at = (last.position.0, last.chain);
        }
        if at.1 == head.chain {
            Ok(chain)
        } else {
            Err(broken())
        }
    }
}
