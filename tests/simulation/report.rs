//! What is told of schedules: what they exercised, and what was violated.

use std::collections::BTreeMap;
use std::fmt;

use crate::world::Point;

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    pub name: &'static str,
    pub message: String,
}

pub fn broken<T>(name: &'static str, message: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        name,
        message: message.into(),
    })
}

/// Counts of what happened, to see that a run was about something.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub schedules: u64,
    pub calls: u64,
    pub vended: u64,
    pub refused: u64,
    pub hung_up: u64,
    pub sendings: u64,
    pub resent: u64,
    pub lost: u64,
    pub echoes: u64,
    pub grants_ended: u64,
    pub reconnected: u64,
    pub reports: u64,
    pub store_full: u64,
    pub journal_full: u64,
    pub clock_moves: u64,
    pub restarts: u64,
    pub longest_call_ms: u64,
    pub longest_settling_ms: u64,
    crashes: BTreeMap<String, u64>,
}

impl Tally {
    pub fn crash(&mut self, at: Point) {
        *self.crashes.entry(format!("{at:?}")).or_default() += 1;
    }

    pub fn crashed(&self) -> u64 {
        self.crashes.values().sum()
    }

    /// Panics where something that is to be tried never happened.
    pub fn has_everything(&self) {
        for (what, count) in [
            ("vended", self.vended),
            ("refused", self.refused),
            ("hung up", self.hung_up),
            ("resent", self.resent),
            ("lost", self.lost),
            ("doubled", self.echoes),
            ("grants ended", self.grants_ended),
            ("reconnected", self.reconnected),
            ("reported", self.reports),
            ("full stores", self.store_full),
            ("full journals", self.journal_full),
            ("clock moves", self.clock_moves),
            ("restarts", self.restarts),
        ] {
            assert!(count > 0, "nothing was {what}: {self}");
        }
        // Commits of three parts of an account, and others; appends; three of an exchange; any time.
        let points = [
            "Commit",
            "Append",
            "Sending",
            "Provider",
            "AfterAnswer",
            "AnyTime",
        ];
        for point in points {
            let struck = self.crashes.keys().any(|at| at.contains(point));
            assert!(struck, "no crash at {point}: {self}");
        }
    }

    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in [
            (&mut self.schedules, other.schedules),
            (&mut self.calls, other.calls),
            (&mut self.vended, other.vended),
            (&mut self.refused, other.refused),
            (&mut self.hung_up, other.hung_up),
            (&mut self.sendings, other.sendings),
            (&mut self.resent, other.resent),
            (&mut self.lost, other.lost),
            (&mut self.echoes, other.echoes),
            (&mut self.grants_ended, other.grants_ended),
            (&mut self.reconnected, other.reconnected),
            (&mut self.reports, other.reports),
            (&mut self.store_full, other.store_full),
            (&mut self.journal_full, other.journal_full),
            (&mut self.clock_moves, other.clock_moves),
            (&mut self.restarts, other.restarts),
        ] {
            *mine += theirs;
        }
        self.longest_call_ms = self.longest_call_ms.max(other.longest_call_ms);
        self.longest_settling_ms = self.longest_settling_ms.max(other.longest_settling_ms);
        for (at, count) in &other.crashes {
            *self.crashes.entry(at.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} schedules: {} calls ({} vended, {} refused, {} hung up, {} reports of rejections), {} exchanges \
             ({} of a token sent before, {} outcomes unknown, {} requests doubled or late), {} grants ended by replay, \
             {} reconnected, {} crashes at {} points, {} restarts, {} clock moves, queues full {} and {} times; \
             longest call {} ms, longest settling {} ms",
            self.schedules,
            self.calls,
            self.vended,
            self.refused,
            self.hung_up,
            self.reports,
            self.sendings,
            self.resent,
            self.lost,
            self.echoes,
            self.grants_ended,
            self.reconnected,
            self.crashed(),
            self.crashes.len(),
            self.restarts,
            self.clock_moves,
            self.store_full,
            self.journal_full,
            self.longest_call_ms,
            self.longest_settling_ms,
        )
    }
}

/// What is said of a seed that failed: what, and how to see it happen again.
pub fn failure(seed: u64, violation: &Violation) -> String {
    let Violation { name, message } = violation;
    format!(
        "seed {seed} violates `{name}`: {message}\n\
         replay: CREDBROKER_SIM_SEED={seed} cargo test --test simulation replay -- --nocapture"
    )
}
