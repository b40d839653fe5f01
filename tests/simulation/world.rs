//! What there is beside the broker, and outlives its crashes: what is durable, the provider, time, chance, and
//! the truth that the broker is checked against.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use credbroker::store::record::Records;
use credbroker::store::seal::Sealer;
use tokio::sync::Notify;

use crate::agents::Agent;
use crate::clock::Clocks;
use crate::dice::Dice;
use crate::journal::Pages;
use crate::kv::{Disk, Glance};
use crate::provider::Provider;
use crate::report::{Tally, Violation};
use crate::schedule::Weather;
use crate::truth::{Account, Part, Sending};

/// Where a crash may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    BeforeCommit(Option<Part>),
    AfterCommit(Option<Part>),
    BeforeAppend,
    AfterAppend,
    BeforeSending,
    AfterProvider,
    AfterAnswer,
    /// At a moment of time, wherever everybody is.
    AnyTime,
}

pub struct World {
    pub disk: Arc<Mutex<Disk>>,
    /// Reads what is durable, for who checks.
    pub glance: Records,
    state: Mutex<State>,
    /// Rung when the broker's process ends.
    pub bell: Arc<Notify>,
}

pub struct State {
    pub dice: Dice,
    pub weather: Weather,
    pub clocks: Clocks,
    pub pages: Pages,
    pub provider: Provider,
    pub accounts: Vec<Account>,
    pub sendings: Vec<Sending>,
    pub agents: Vec<Agent>,
    pub bell: Arc<Notify>,
    /// The process is gone: whoever still runs is a ghost, and waits for ever.
    pub down: bool,
    /// The process was told to stop.
    pub draining: bool,
    /// Nothing fails any more.
    pub calm: bool,
    /// Crash points left until the next crash.
    pub fuse: Option<u32>,
    pub crashes_left: u32,
    pub store_full_until: u64,
    pub journal_full_until: u64,
    /// A crash that is aimed at one point, the first time it comes by.
    pub aim: Option<Point>,
    pub trace: Option<Vec<String>>,
    pub violation: Option<Violation>,
    pub tally: Tally,
}

impl World {
    pub fn new(disk: Disk, sealer: Arc<Sealer>, state: State) -> Arc<Self> {
        let disk = Arc::new(Mutex::new(disk));
        let glance = Records::new(Arc::new(Glance(Arc::clone(&disk))), sealer, 0);
        Arc::new(Self {
            disk,
            glance,
            bell: Arc::clone(&state.bell),
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A violation may have unwound through here.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.lock())
    }

    /// Waits for ever where the process is gone.
    pub async fn alive(&self) {
        if self.with(|state| state.down) {
            std::future::pending::<()>().await;
        }
    }

    /// Takes its time: nothing, a turn of the others, or up to `most` milliseconds.
    pub async fn lag(&self, most: u64) {
        match self.with(|state| state.lag(most)) {
            0 => {}
            1 => tokio::task::yield_now().await,
            millis => tokio::time::sleep(Duration::from_millis(millis - 1)).await,
        }
        self.alive().await;
    }

    /// A place where the process may end.
    pub async fn point(&self, at: Point) {
        if self.with(|state| state.strikes(at)) {
            self.end(|state| {
                state.tally.crash(at);
                state.note(|| format!("CRASH {at:?}"));
            });
        }
        self.alive().await;
    }

    /// Ends the process.
    pub fn end(&self, why: impl FnOnce(&mut State)) {
        self.with(|state| {
            if !state.down {
                why(state);
                state.down = true;
                state.bell.notify_one();
            }
        });
    }

    /// The broker did what it must not.
    pub fn violate(&self, name: &'static str, message: String) {
        self.with(|state| state.violate(name, message));
    }

    /// Reports a violation found with the state in hand.
    pub fn check(&self, found: Result<(), Violation>) {
        if let Err(Violation { name, message }) = found {
            self.violate(name, message);
        }
    }
}

impl State {
    fn lag(&mut self, most: u64) -> u64 {
        if self.down {
            return 0;
        }
        match self.dice.below(8) {
            0..4 => 0,
            4..6 => 1,
            _ => 2 + self.dice.below(most),
        }
    }

    fn strikes(&mut self, at: Point) -> bool {
        if self.down {
            return false;
        }
        if self.aim == Some(at) {
            self.aim = None;
            return true;
        }
        if self.calm {
            return false;
        }
        match &mut self.fuse {
            Some(0) => {
                self.fuse = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub fn store_is_full(&mut self) -> bool {
        let now = self.now();
        if !self.calm && self.dice.permille(self.weather.full) {
            self.store_full_until = now + self.dice.between(1, 4_000);
            self.note(|| "the store is full".to_owned());
        }
        let full = !self.calm && now < self.store_full_until;
        self.tally.store_full += u64::from(full);
        full
    }

    pub fn journal_is_full(&mut self) -> bool {
        let now = self.now();
        if !self.calm && self.dice.permille(self.weather.full) {
            self.journal_full_until = now + self.dice.between(1, 4_000);
            self.note(|| "the journal is full".to_owned());
        }
        let full = !self.calm && now < self.journal_full_until;
        self.tally.journal_full += u64::from(full);
        full
    }

    /// Milliseconds since the schedule began.
    pub fn now(&self) -> u64 {
        self.clocks.now()
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let now = self.clocks.now();
            trace.push(format!("{:>9.3} s  {}", now as f64 / 1000.0, line()));
        }
    }

    pub fn violate(&mut self, name: &'static str, message: String) {
        self.note(|| format!("VIOLATION of {name}: {message}"));
        self.violation.get_or_insert(Violation { name, message });
        if !self.down {
            self.down = true;
            self.bell.notify_one();
        }
    }
}
