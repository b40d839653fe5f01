//! Figures from runs, and how they are printed.

use std::io::Write as _;
use std::time::Duration;

use credbroker::clock::{Clock, SystemClock};

use super::load::{Run, Shape};

/// One run of each, one after the other.
pub struct Round {
    pub echo: Run,
    pub resolve: Run,
}

/// How long syncing a small append takes, in microseconds.
pub struct Fsync {
    pub median: f64,
    pub p99: f64,
}

/// Syncs small appends on the disk that the broker's data is on.
pub fn fsync() -> Fsync {
    let clock = SystemClock::new();
    let mut file = tempfile::tempfile().unwrap();
    let mut taken: Vec<Duration> = (0..200)
        .map(|_| {
            let start = clock.monotonic();
            file.write_all(&[0x61; 512]).unwrap();
            file.sync_data().unwrap();
            clock.monotonic() - start
        })
        .collect();
    taken.sort_unstable();
    Fsync {
        median: micros(quantile(&taken, 0.5)),
        p99: micros(quantile(&taken, 0.99)),
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn quantile(sorted: &[Duration], at: f64) -> Duration {
    let index = ((sorted.len() - 1) as f64 * at).round() as usize;
    sorted[index]
}

impl Run {
    /// Server CPU a request, in microseconds.
    pub fn cpu(&self) -> f64 {
        micros(self.server_cpu) / self.latencies.len() as f64
    }

    pub fn throughput(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn latency(&self, at: f64) -> f64 {
        micros(quantile(&self.latencies, at))
    }
}

pub fn median(values: Vec<f64>) -> f64 {
    quartiles(values)[1]
}

/// The lower quartile, the median and the upper quartile.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

pub fn print(shape: Shape, rounds: &[Round], fsync: &Fsync) {
    println!(
        "{} connections x {} streams, {} rounds",
        shape.connections,
        shape.streams,
        rounds.len()
    );
    println!("             server CPU    throughput         p50         p99");
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let line = |name: &str, run: fn(&Round) -> &Run| {
        println!(
            "  {name:<8} {:>8.1} us {:>9.0} /s {:>8.0} us {:>8.0} us",
            of(&|round| run(round).cpu()),
            of(&|round| run(round).throughput()),
            of(&|round| run(round).latency(0.5)),
            of(&|round| run(round).latency(0.99)),
        );
    };
    line("echo", |round| &round.echo);
    line("resolve", |round| &round.resolve);
    let ratio = |figure: &dyn Fn(&Run) -> f64| of(&|round| figure(&round.resolve) / figure(&round.echo));
    println!(
        "  ratio    {:>10.2}x {:>10.2}x {:>10.2}x {:>10.2}x",
        ratio(&|run| run.cpu()),
        ratio(&|run| run.throughput()),
        ratio(&|run| run.latency(0.5)),
        ratio(&|run| run.latency(0.99)),
    );
    println!(
        "  p99 over twice the echo's: {:.1} fsyncs\n",
        of(&|round| (round.resolve.latency(0.99) - 2.0 * round.echo.latency(0.99)) / fsync.median)
    );
}
