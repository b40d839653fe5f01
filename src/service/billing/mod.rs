//! Accounts of orgs: read, changed, credited. Reported usage is beside.

use std::sync::Arc;

use super::Broker;
use crate::domain::billing::Account;
use crate::domain::id::OrgId;
use crate::domain::refusal::Refusal;
use crate::store::Revision;
use crate::store::keys;
use crate::store::record::{Changes, Stored};

/// An account as it stands: stored, or of an org of which nothing was said yet.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The account.
    pub account: Arc<Account>,
    /// What it was read at; `None`: it is not stored.
    pub revision: Option<Revision>,
}

impl Standing {
    /// Only if the account is still the one that was read.
    pub(super) fn guard(&self, changes: Changes) -> Changes {
        let key = keys::account(self.account.org);
        match self.revision {
            Some(revision) => changes.at(&key, revision),
            None => changes.absent(&key),
        }
    }
}

impl Broker {
    /// The org's account. Cheap where it is stored: it is read from memory.
    pub(super) async fn account(&self, org: OrgId) -> Result<Standing, Refusal> {
        let stored: Option<Stored<Account>> = self.records.get(&keys::account(org)).await?;
        Ok(match stored {
            Some(Stored { value, revision }) => Standing {
                account: value,
                revision: Some(revision),
            },
            None => Standing {
                account: Arc::new(Account::new(org)),
                revision: None,
            },
        })
    }
}
