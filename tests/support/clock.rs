//! A clock that runs like the machine's and can be moved forward, as if everybody had slept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use credbroker::clock::{Clock, SystemClock};
use credbroker::domain::time::Time;

/// The machine's clock and a lead on it. Clients keep the machine's own: a certificate that the broker
/// makes after a move is not yet valid for them, so enroll first.
#[derive(Default)]
pub struct MovedClock {
    machine: SystemClock,
    ahead_millis: AtomicU64,
}

impl MovedClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.ahead_millis.fetch_add(by, Ordering::SeqCst);
    }

    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead_millis.load(Ordering::SeqCst))
    }
}

impl Clock for MovedClock {
    fn wall(&self) -> Time {
        self.machine.wall() + self.ahead()
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic() + self.ahead()
    }
}
