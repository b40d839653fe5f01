//! Room on the disk that is kept back: while less than it is free, only what must not fail is written.
//!
//! A provider's answer that cannot be staged may be a grant lost, and a revocation that cannot be stored leaves
//! the door open. Neither may fail because ordinary work has filled the disk. The reserve is no file but a
//! rule: who would write something that can wait asks first, and is refused while the room is needed. A disk
//! that somebody else fills is only noticed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// How long a measurement holds.
const HOLDS: Duration = Duration::from_secs(1);

/// Bytes free to us on a folder's file system; `None` where the system does not say.
type Probe = fn(&Path) -> Option<u64>;

/// Knows how much room there is.
pub struct Reserve {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    probe: Probe,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// When it was measured, monotonic, and what was free.
    measured: Option<(Duration, u64)>,
    /// Whether there was too little, so that each change is told once.
    short: bool,
}

impl Reserve {
    /// The room on the file system of `folder`.
    pub fn new(folder: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self {
            folder,
            clock,
            probe: free,
            last: Mutex::default(),
        }
    }

    /// Whether more than `reserved` bytes are free, by a measurement at most a second old. Where the system
    /// does not say, there is room: a write that fails says so itself.
    pub fn has_room(&self, reserved: u64) -> bool {
        let now = self.clock.monotonic();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = last.measured.filter(|(at, _)| now.saturating_sub(*at) < HOLDS);
        let (at, free) = measured.unwrap_or_else(|| (now, (self.probe)(&self.folder).unwrap_or(u64::MAX)));
        last.measured = Some((at, free));
        let short = free <= reserved;
        if short != std::mem::replace(&mut last.short, short) {
            if short {
                tracing::error!(
                    free,
                    reserved,
                    "the disk is nearly full: only what must not fail is written"
                );
            } else {
                tracing::info!(free, reserved, "there is room on the disk again");
            }
        }
        !short
    }
}

fn free(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::time::Time;

    #[test]
    fn the_room_is_measured_once_a_second() {
        static FREE: AtomicU64 = AtomicU64::new(100);
        let clock = Arc::new(ManualClock::at(Time::from_seconds(1)));
        let reserve = Reserve {
            probe: |_| Some(FREE.load(Ordering::SeqCst)),
            ..Reserve::new(PathBuf::new(), clock.clone())
        };
        assert!(reserve.has_room(99) && !reserve.has_room(100));
        FREE.store(10, Ordering::SeqCst);
        assert!(reserve.has_room(99), "still the old measurement");
        clock.advance(HOLDS);
        assert!(!reserve.has_room(99) && reserve.has_room(9));
    }

    #[test]
    fn the_system_says_what_is_free() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Time::from_seconds(1)));
        let reserve = Reserve::new(std::env::temp_dir(), Arc::clone(&clock));
        assert!(reserve.has_room(0) && !reserve.has_room(u64::MAX - 1));
        assert!(Reserve::new("/no/such/folder".into(), clock).has_room(u64::MAX - 1));
    }
}
