//! Many schedules at once: threads that take seeds from one counter, each with a runtime of its own a schedule.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use credbroker::service::Planted;

use crate::report::{Tally, Violation};
use crate::schedule;

/// What a run of many schedules came to.
pub struct Voyage {
    pub tally: Tally,
    /// The lowest of the seeds seen to fail, and how.
    pub failed: Option<(u64, Violation)>,
    pub took: Duration,
}

/// A number from the environment.
pub fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` for each number from `first` on, `count` of them, on all processors, until one says that it is enough.
pub fn each(first: u64, count: u64, work: impl Fn(u64) -> bool + Sync) {
    let (next, enough) = (AtomicU64::new(first), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    if !work(number) {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Runs `count` schedules from seed `first` on; stops at the first that fails.
pub fn sail(first: u64, count: u64, planted: Option<Planted>) -> Voyage {
    let started = Instant::now();
    let seen = Mutex::new((Tally::default(), None::<(u64, Violation)>));
    each(first, count, |seed| {
        let ended = schedule::run(seed, planted, false);
        let mut seen = seen.lock().unwrap();
        seen.0.add(&ended.tally);
        let Some(violation) = ended.violation else {
            return true;
        };
        if seen.1.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
            seen.1 = Some((seed, violation));
        }
        false
    });
    let (tally, failed) = seen.into_inner().unwrap();
    Voyage {
        tally,
        failed,
        took: started.elapsed(),
    }
}
