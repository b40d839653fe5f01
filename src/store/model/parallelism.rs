//! How the places of a personal subscription are stored.

use super::super::record::Record;
use super::super::table::table;
use crate::domain::parallelism::Parallel;

impl Record for Parallel {
    const VERSION: u8 = 1;
}

table!(Parallel { 0 => cap, 1 => leases });
