//! The refresh engine in a deterministic simulator. See `docs/simulation.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "simulation/agents.rs"]
mod agents;
#[path = "simulation/clock.rs"]
mod clock;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/endpoint.rs"]
mod endpoint;
#[path = "simulation/journal.rs"]
mod journal;
#[path = "simulation/kv.rs"]
mod kv;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/report.rs"]
mod report;
#[path = "simulation/schedule.rs"]
mod schedule;
mod support;
#[path = "simulation/template.rs"]
mod template;
#[path = "simulation/truth.rs"]
mod truth;
#[path = "simulation/upheaval.rs"]
mod upheaval;
#[path = "simulation/world.rs"]
mod world;

fn seed_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// A seed from the environment, with all that happens.
#[test]
fn replay() {
    let Some(seed) = seed_of("CREDBROKER_SIM_SEED") else {
        return;
    };
    let ended = schedule::run(seed, None, true);
    ended.trace.iter().for_each(|line| println!("{line}"));
    if let Some(violation) = ended.violation {
        panic!("{}", report::failure(seed, &violation));
    }
}

/// The same seed is the same run.
#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let (first, again) = (schedule::run(seed, None, true), schedule::run(seed, None, true));
        assert_eq!(first.trace, again.trace, "seed {seed}");
    }
}

#[test]
fn schedules() {
    let started = std::time::Instant::now();
    let count = seed_of("CREDBROKER_SIM_SCHEDULES").unwrap_or(1000);
    let first = seed_of("CREDBROKER_SIM_FIRST").unwrap_or(0);
    let mut tally = report::Tally::default();
    let mut failed = 0;
    for seed in first..first + count {
        let at = std::time::Instant::now();
        if std::env::var("SIMV").is_ok() {
            println!("seed {seed}");
        }
        let ended = schedule::run(seed, None, false);
        if at.elapsed().as_millis() > 300 {
            println!("seed {seed} took {:?}", at.elapsed());
        }
        tally.add(&ended.tally);
        if let Some(violation) = ended.violation {
            println!("{}", report::failure(seed, &violation));
            failed += 1;
            if failed > 20 {
                break;
            }
        }
    }
    println!("{tally:#?} in {:?}", started.elapsed());
    assert_eq!(failed, 0);
}
