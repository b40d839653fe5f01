//! Fault switches, for tests: what a full or dying disk does to a write.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shared switches; by default none is set.
#[derive(Clone, Debug)]
pub struct Faults(Arc<AtomicUsize>);

const NONE: usize = usize::MAX;

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(NONE)))
    }
}

impl Faults {
    /// From now on the disk is full: the next write stops after this many bytes, or, where all of it lands,
    /// its sync fails.
    pub fn fill_disk_after(&self, bytes: usize) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    pub(super) fn strike(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            NONE => Ok(()),
            landed => {
                file.write_all(&bytes[..landed.min(bytes.len())])?;
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }
}
