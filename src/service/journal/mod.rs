//! Reading the journal, page by page; following and pruning it are beside.

mod filter;
mod follow;
mod places;
mod prune;

use std::sync::Arc;

use super::Broker;
use crate::domain::actor::Caller;
use crate::domain::journal::Position;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::journal::{Anchor, Journal, JournalError, MAX_PAGE, PublicKey, SignedHead, StoredRecord};

pub use filter::FilterInput;
pub(super) use filter::Fits;
pub use follow::{FollowInput, Followed};
pub(super) use places::{Followers, Place};
pub use prune::Pruned;

/// A page of the journal.
pub struct JournalPage {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// The position to go on after: the last one looked at.
    pub next: Position,
    /// The last position there was.
    pub tip: Position,
}

const DEFAULT: usize = 100;
const MAX: usize = 1_000;

/// What one look into the journal may cost.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// How many records are found at most.
    records: usize,
    /// After this many stored bytes found no more are looked for.
    bytes: usize,
}

/// How many records are looked at at most, for those that fit.
const LOOKED_AT: usize = 10_000;
/// A page's message has each record twice, stored and taken apart, and clients take 4 MiB by default.
const PAGE_BYTES: usize = 1 << 20;

impl Broker {
    /// Records after a position that fit, oldest first. A page may hold fewer records than asked for, none even,
    /// without being the last.
    pub async fn read_journal(
        &self,
        caller: &Caller,
        filter: FilterInput<'_>,
        after: Position,
        size: i32,
    ) -> Result<JournalPage, Refusal> {
        let filter = self.record_filter(caller, filter).await?;
        self.read_fitting(filter, after, size).await
    }

    /// Records after a position that fit, for who was looked over already.
    pub(super) async fn read_fitting<F: Fits>(
        &self,
        filter: F,
        after: Position,
        size: i32,
    ) -> Result<JournalPage, Refusal> {
        let records = match usize::try_from(size) {
            Ok(0) => DEFAULT,
            Ok(size) => size.min(MAX),
            Err(_) => return Err(Refusal::invalid("page_size", "page_size is not negative")),
        };
        let bounds = Bounds {
            records,
            bytes: PAGE_BYTES,
        };
        look(self.journal.clone(), Arc::new(filter), after, bounds).await
    }

    /// The newest signed head, and the key that signed it.
    pub fn journal_head(&self) -> (SignedHead, PublicKey) {
        (self.journal.head(), self.journal.public_key())
    }

    /// Where the kept part of the journal begins, where older records were pruned.
    pub fn journal_anchor(&self) -> Option<Anchor> {
        self.journal.anchor()
    }
}

/// Looks for records that fit. Files are read on a thread for that.
async fn look<F: Fits>(
    journal: Journal,
    filter: Arc<F>,
    after: Position,
    bounds: Bounds,
) -> Result<JournalPage, Refusal> {
    blocking(move || {
        let mut page = JournalPage {
            records: Vec::new(),
            next: after,
            tip: *journal.tip().borrow(),
        };
        let (mut looked_at, mut bytes) = (0, 0);
        let wanted = if filter.takes_all() {
            bounds.records
        } else {
            MAX_PAGE
        };
        while looked_at < LOOKED_AT {
            let some = journal.read(page.next, wanted.min(LOOKED_AT - looked_at))?;
            if some.is_empty() {
                return Ok(page);
            }
            looked_at += some.len();
            for record in some {
                page.next = record.position;
                if filter.fits(&record) {
                    bytes += record.stored.len();
                    page.records.push(record);
                }
                if page.records.len() >= bounds.records || bytes >= bounds.bytes {
                    return Ok(page);
                }
            }
        }
        Ok(page)
    })
    .await
}

/// Does what reads files.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| Refusal::new(Reason::Internal, "reading the journal ended early"))?;
    Ok(done?)
}
