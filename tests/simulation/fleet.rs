//! Many schedules at once: threads that take seeds from one counter, each with a runtime of its own a schedule.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use credbroker::service::Planted;

use crate::report::{Tally, Violation};
use crate::schedule;

/// How long one schedule may take, by the machine's own time: some thousand times what it takes.
const PATIENCE: Duration = Duration::from_secs(180);

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
    let busy: Vec<Busy> = (0..threads()).map(|_| Busy::default()).collect();
    let (working, at_work) = channel::<()>();
    let (next, enough, work) = (&next, &enough, &work);
    thread::scope(|scope| {
        for busy in &busy {
            let working = working.clone();
            scope.spawn(move || {
                let _working = working;
                while !enough.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    *busy.lock().unwrap() = Some((number, Instant::now()));
                    if !work(number) {
                        enough.store(true, Ordering::Relaxed);
                    }
                    *busy.lock().unwrap() = None;
                }
            });
        }
        drop(working);
        watch(&busy, &at_work);
    });
}

/// The seed that a thread is at, and since when.
type Busy = Mutex<Option<(u64, Instant)>>;

/// Ends the tests with the seed of a schedule that hangs where virtual time cannot notice; otherwise returns when all
/// work is done.
fn watch(busy: &[Busy], at_work: &Receiver<()>) {
    while at_work.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        for busy in busy {
            let Some((seed, since)) = *busy.lock().unwrap() else {
                continue;
            };
            if since.elapsed() > PATIENCE {
                // Not by a macro: what those print is kept back until a test ends, and this one does not.
                let hangs = format!(
                    "seed {seed} hangs\nreplay: CREDBROKER_SIM_SEED={seed} cargo test --test simulation replay -- \
                     --nocapture\n"
                );
                let _whether = std::io::stderr().write_all(hangs.as_bytes());
                std::process::exit(1);
            }
        }
    }
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
