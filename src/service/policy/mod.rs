//! The policy: matrices of three scopes, executors held to one mode, profiles.
//!
//! The store has the rows; what is in force is one immutable [`Policy`], compiled from them, that a request takes
//! hold of and keeps: it sees one version from start to end, and reading it waits for nobody. It is loaded
//! before anything is served and replaced after each commit. Commits come one at a time, each guarded by the
//! version that it was made from; what a change would do is found out before, so that none waits for that of
//! another.

mod change;
mod check;
mod impact;
mod load;
mod profiles;
mod rows;
mod told;
mod write;

use std::sync::Arc;

use arc_swap::ArcSwap;

use tokio::sync::{Mutex, Semaphore};

use super::Broker;
use crate::domain::policy::Policy;
use crate::store::Revision;

pub use change::{Changing, PolicyChanged};
pub use check::{NewCell, NewProfile};
pub use impact::Affected;
pub use profiles::PolicyView;
pub use told::Names as PolicyNames;
pub use write::{CellsInput, NewOrgPolicy, NewPolicy, NewRules, ScopeRef};

/// How many changes are looked into at once: each reads thousands of records and compares as many picks.
const PREVIEWS: usize = 4;

/// The policy in force, and who may change it.
pub(super) struct Policies {
    current: ArcSwap<Policy>,
    /// Held over each commit and the change of the snapshot that follows it.
    writer: Mutex<Writer>,
    /// The places of those who look into what a change would do.
    previews: Arc<Semaphore>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            writer: Mutex::default(),
            previews: Arc::new(Semaphore::new(PREVIEWS)),
        }
    }
}

/// What only one who changes the policy looks at.
#[derive(Default)]
struct Writer {
    /// The revision of the stored version; `None`: there is none yet.
    head: Option<Revision>,
    /// Whether the snapshot may be behind the store: a change ended without telling whether it was made.
    behind: bool,
}

impl Broker {
    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policies.current.load_full()
    }
}
