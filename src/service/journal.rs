//! Reading the journal.

use super::Broker;
use crate::domain::actor::Caller;
use crate::domain::journal::Position;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::journal::{PublicKey, SignedHead, StoredRecord};

/// A page of the journal.
pub struct JournalPage {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// The position to go on after.
    pub next: Position,
}

const DEFAULT: usize = 100;
const MAX: usize = 1_000;
/// How many records one call looks at for those of one org.
const LOOKED_AT: usize = 10_000;

impl Broker {
    /// Records after a position, oldest first. Of one org, where `org` names one: then a page may hold fewer
    /// records than asked for, none even, without being the last.
    pub async fn read_journal(
        &self,
        caller: &Caller,
        org: &str,
        after: Position,
        size: i32,
    ) -> Result<JournalPage, Refusal> {
        let size = match usize::try_from(size) {
            Ok(0) => DEFAULT,
            Ok(size) => size.min(MAX),
            Err(_) => return Err(Refusal::invalid("page_size", "page_size is not negative")),
        };
        let only = match org {
            "" if caller.reach().is_everywhere() => None,
            org => Some(self.org_id(caller, org).await?),
        };
        let (mut records, mut next, mut looked_at) = (Vec::new(), after, 0);
        while records.len() < size && looked_at < LOOKED_AT {
            let wanted = if only.is_some() { MAX } else { size };
            let journal = self.journal.clone();
            let some = tokio::task::spawn_blocking(move || journal.read(next, wanted))
                .await
                .map_err(|_| Refusal::new(Reason::Internal, "reading the journal ended early"))??;
            let end = some.is_empty();
            looked_at += some.len();
            for record in some {
                if records.len() == size {
                    break;
                }
                next = record.position;
                if only.is_none_or(|org| record.entry.org == Some(org)) {
                    records.push(record);
                }
            }
            if end {
                break;
            }
        }
        Ok(JournalPage { records, next })
    }

    /// The newest signed head, and the key that signed it.
    pub fn journal_head(&self) -> (SignedHead, PublicKey) {
        (self.journal.head(), self.journal.public_key())
    }
}
