//! Sums of spend: a projection of the journal, each record counted exactly once.
//!
//! A row is the sum for an org, day, mode, project, member and provider. The rows that a stretch of the journal
//! changes are written in one commit with the position up to which it was read, so that no crash counts a record
//! twice or passes one over. Who asks for sums first reads the journal on to its end: an answer has everything
//! that was acknowledged before the question. In between it is read on every few seconds, and before a prune goes
//! past it, so that what is pruned stays counted.

mod events;
mod sums;

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use super::Broker;
use super::journal::blocking;
use crate::domain::cost::{Recorded, Spend, spent};
use crate::domain::day::Day;
use crate::domain::journal::Position;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::journal::{MAX_PAGE, StoredRecord, Verdict};
use crate::store::keys::{self, Key, SpendOf};
use crate::store::model::SpendCheckpoint;
use crate::store::record::Changes;
use crate::store::{Commit, Revision};

pub use events::{CostEvents, CostFilterInput, CostInput, FollowCosts, FollowedCost};
pub use sums::{Dimension, SpendInput, SpendRow, SpendSums};

/// How many rows one commit changes at most: a guard and a write each, within the store's limit.
const ROWS: usize = 48;
/// After how many records without a cost the position is written all the same: a start reads no more than these
/// again.
const UNWRITTEN: u64 = 10_000;
/// How often a stretch is read again because somebody else wrote its rows.
const ATTEMPTS: usize = 4;

/// How far the journal was read.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// All up to here is in the sums.
    position: Position,
    /// What is stored.
    written: Position,
    revision: Revision,
}

/// The projection. `None`: not read from the store yet.
#[derive(Default)]
pub(super) struct Projection(Mutex<Option<Progress>>);

/// A stored record, as costs are read from it.
pub(super) fn recorded(record: &StoredRecord) -> Recorded<'_> {
    let entry = &record.entry;
    Recorded {
        position: record.position,
        time: record.time,
        action: &entry.action,
        phase: entry.phase,
        allowed: entry.verdict == Verdict::Allowed,
        actor: &entry.actor,
        org: entry.org,
        subject: &entry.subject,
    }
}

/// What a stretch of the journal adds.
#[derive(Default)]
struct Stretch {
    rows: BTreeMap<Key, Spend>,
    last: Option<Position>,
}

impl Stretch {
    /// Takes as many records as one commit has room for.
    fn of(records: &[StoredRecord]) -> Self {
        let mut stretch = Self::default();
        for record in records {
            if let Some((spender, spend)) = spent(&recorded(record)) {
                let of_what = SpendOf {
                    day: Day::of(record.time),
                    mode: spender.mode,
                    project: spender.project,
                    member: spender.member,
                    provider: spender.provider,
                };
                let key = keys::spend(spender.org, &of_what);
                if stretch.rows.len() == ROWS && !stretch.rows.contains_key(&key) {
                    break;
                }
                let row = stretch.rows.entry(key).or_default();
                *row = row.plus(spend);
            }
            stretch.last = Some(record.position);
        }
        stretch
    }
}

impl Broker {
    /// Reads how far the sums are. A store that has none yet, made or last used before there were costs, begins at
    /// the journal's end: what is before has none.
    pub(super) async fn begin_spend(&self) -> Result<(), Refusal> {
        let key = keys::spend_checkpoint();
        if self.records.get::<SpendCheckpoint>(&key).await?.is_none() {
            let begin = SpendCheckpoint {
                position: self.journal.tip().borrow().0,
            };
            let changes = Changes::default().absent(&key).put(&key, &begin);
            let _there = self.records.commit(changes).await?;
        }
        Ok(())
    }

    /// Reads the journal on to its end as it is now.
    pub async fn catch_up_spend(&self) -> Result<(), Refusal> {
        let tip = *self.journal.tip().borrow();
        self.read_spend_to(tip, false).await
    }

    /// As [`Broker::catch_up_spend`], and writes down how far that is: before what was read may go.
    pub async fn settle_spend(&self) -> Result<(), Refusal> {
        let tip = *self.journal.tip().borrow();
        self.read_spend_to(tip, true).await
    }

    /// As [`Broker::catch_up_spend`], as far as this record, and writes down how far it was read.
    pub(super) async fn settle_spend_to(&self, target: Position) -> Result<(), Refusal> {
        self.read_spend_to(target, true).await
    }

    async fn read_spend_to(&self, target: Position, write: bool) -> Result<(), Refusal> {
        let mut held = self.spend.0.lock().await;
        for _ in 0..ATTEMPTS {
            // Whoever goes away amid a commit leaves nothing here: the next one asks the store.
            let mut progress = match held.take() {
                Some(progress) => progress,
                None => self.read_progress().await?,
            };
            if self.read_on(&mut progress, target, write).await? {
                *held = Some(progress);
                return Ok(());
            }
        }
        Err(Refusal::new(Reason::Conflict, "the sums of spend keep changing"))
    }

    async fn read_progress(&self) -> Result<Progress, Refusal> {
        let stored = self
            .records
            .get::<SpendCheckpoint>(&keys::spend_checkpoint())
            .await?;
        let stored =
            stored.ok_or_else(|| Refusal::new(Reason::Internal, "the sums of spend have no beginning"))?;
        let position = Position(stored.value.position);
        Ok(Progress {
            position,
            written: position,
            revision: stored.revision,
        })
    }

    /// `false`: somebody else wrote first.
    async fn read_on(&self, progress: &mut Progress, target: Position, write: bool) -> Result<bool, Refusal> {
        while progress.position < target {
            let after = progress.position;
            let journal = self.journal.clone();
            let page = blocking(move || journal.read(after, MAX_PAGE)).await?;
            if let Some(first) = page.first()
                && first.position.0 > after.0 + 1
            {
                tracing::warn!(
                    read_to = after.0,
                    first = first.position.0,
                    "the journal was pruned before its costs were summed; the sums go on without them"
                );
            }
            let stretch = Stretch::of(&page);
            let Some(last) = stretch.last else {
                return Err(Refusal::new(Reason::Internal, "the journal ends before its tip"));
            };
            let due = last.0 - progress.written.0 >= UNWRITTEN;
            if stretch.rows.is_empty() && !due {
                progress.position = last;
            } else if !self.write_spend(stretch.rows, last, progress).await? {
                return Ok(false);
            }
        }
        if write && progress.written < progress.position {
            return self
                .write_spend(BTreeMap::new(), progress.position, progress)
                .await;
        }
        Ok(true)
    }

    async fn write_spend(
        &self,
        rows: BTreeMap<Key, Spend>,
        position: Position,
        progress: &mut Progress,
    ) -> Result<bool, Refusal> {
        let checkpoint = keys::spend_checkpoint();
        let written = SpendCheckpoint { position: position.0 };
        let mut changes = Changes::default()
            .at(&checkpoint, progress.revision)
            .put(&checkpoint, &written);
        for (key, spend) in rows {
            let before = self.records.get::<Spend>(&key).await?;
            changes = match &before {
                Some(row) => changes.at(&key, row.revision),
                None => changes.absent(&key),
            };
            let sum = before.map_or(spend, |row| row.value.plus(spend));
            changes = changes.put(&key, &sum);
        }
        let Commit::Applied(revision) = self.records.commit(changes).await? else {
            return Ok(false);
        };
        *progress = Progress {
            position,
            written: position,
            revision,
        };
        Ok(true)
    }
}
