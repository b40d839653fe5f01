//! Time: the runtime's virtual time is what really passes; the broker sees it through clocks that jump.

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::Clock;
use credbroker::domain::time::Time;
use tokio::time::Instant;

use crate::world::World;

pub const START: Time = Time::from_seconds(1_800_000_000);

/// Real time, in milliseconds since the schedule began, and how far off the broker's clocks are.
#[derive(Default)]
pub struct Clocks {
    /// Before the runtime that runs now.
    before: u64,
    /// When that began.
    began: Option<Instant>,
    /// The wall clock, off by so many milliseconds.
    wall: i64,
    /// How long the machine has slept. Both clocks count it.
    slept: u64,
    /// When a clock was moved last.
    moved: Option<u64>,
}

impl Clocks {
    pub fn run(&mut self) {
        self.began = Some(Instant::now());
    }

    /// The runtime ends; nothing runs for this long.
    pub fn stop(&mut self, down: u64) {
        self.before = self.now() + down;
        self.began = None;
    }

    pub fn now(&self) -> u64 {
        let passed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        self.before + passed.as_millis() as u64
    }

    pub fn wall(&self) -> Time {
        let millis = (self.now() + self.slept) as i64 + self.wall;
        Time::from_millis(START.millis() + millis)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now() + self.slept)
    }

    pub fn jump(&mut self, by: i64) {
        self.wall += by;
        self.moved = Some(self.now());
    }

    pub fn suspend(&mut self, by: u64) {
        self.slept += by;
        self.moved = Some(self.now());
    }

    /// Whether the broker's clocks have run evenly since then.
    pub fn even_since(&self, then: u64) -> bool {
        self.moved.is_none_or(|moved| moved < then)
    }
}

/// The broker's clock.
pub struct SimClock(pub Arc<World>);

impl Clock for SimClock {
    fn wall(&self) -> Time {
        self.0.with(|state| state.clocks.wall())
    }

    fn monotonic(&self) -> Duration {
        self.0.with(|state| state.clocks.monotonic())
    }
}
