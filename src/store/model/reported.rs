//! What is kept of the last report or test that found a credential rejected.

use crate::domain::lease::Holder;
use crate::domain::time::Time;
use crate::store::record::Record;
use crate::store::table::table;

/// The last report that a provider rejects a key, or the last test that found a key or a grant rejected. Of another
/// generation than the credential's it means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The generation that is rejected.
    pub generation: u64,
    /// When it was reported.
    pub at: Time,
    /// Who reported it; `None`: it came out when the broker tested it.
    pub by: Option<Holder>,
    /// What the provider said of it, redacted and short; empty where that was not told.
    pub message: String,
}

impl Record for Reported {
    const VERSION: u8 = 1;
}

table!(Reported { 0 => generation, 1 => at, 2 => by, 3 => message });
