//! What the last test of a credential found out.

use crate::domain::key_test::{Checked, Verdict};
use crate::store::record::Record;
use crate::store::table::{choice, table};

impl Record for Checked {
    const VERSION: u8 = 1;
    const CACHE: bool = false;
}

table!(Checked { 0 => at, 1 => generation, 2 => outcome, 3 => status, 4 => message, 5 => facts, 6 => facts_at });
choice!(Verdict {
    0 => Works, 1 => Rejected, 2 => NotPermitted, 3 => Limited, 4 => Billing, 5 => Unreachable, 6 => Unclear,
    7 => Untestable,
});
