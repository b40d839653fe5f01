//! The refresh engine in a deterministic simulator: the real broker over a store, a journal, a provider and clocks
//! that are played, in one thread, in virtual time. `docs/simulation.md` says what runs, what happens to it, what is
//! checked, and how a failing seed is replayed.
//!
//! # Why not turmoil or madsim
//! turmoil plays sockets between hosts, and crashes hosts between its ticks. What matters here are not packets but
//! commits, appends and exchanges, and crashes before and after each; of those it knows nothing. madsim replaces
//! tokio throughout, by a configuration flag and patched crates; the store and the journal have threads of their own,
//! which it cannot run. What stands in is tokio's own runtime: one thread, paused time, and every effect of the
//! broker behind a seam that there is anyway (`Kv`, `TokenEndpoint`, `Clock`, the journal's queue), each taking its
//! time by the dice of the schedule, which is what makes one schedule differ from the next.
//!
//! # Why crashing at effects is crashing at every await
//! Between two of its effects the process changes nothing that outlives it. Whether it ends at one await or another
//! between them makes no difference to what is durable, what the provider has seen, and what callers were told; so a
//! crash before and after each effect is a crash at every await. Crashes at plain moments of time come on top.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
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
#[path = "simulation/fleet.rs"]
mod fleet;
#[path = "simulation/journal.rs"]
mod journal;
#[path = "simulation/kv.rs"]
mod kv;
#[path = "simulation/lost_answers.rs"]
mod lost_answers;
#[path = "simulation/planted.rs"]
mod planted;
#[path = "simulation/provider.rs"]
mod provider;
#[path = "simulation/report.rs"]
mod report;
#[path = "simulation/rest.rs"]
mod rest;
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

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::Command;

use fleet::{number_of, sail};

/// Schedules, each from its seed: all invariants hold in all of them.
// req: N1 N2 B5
#[test]
fn schedules() {
    let count = number_of("CREDBROKER_SIM_SCHEDULES").unwrap_or(800);
    let first = number_of("CREDBROKER_SIM_FIRST").unwrap_or(0);
    let voyage = sail(first, count, None);
    println!("{} in {:?}", voyage.tally, voyage.took);
    if let Some((seed, violation)) = voyage.failed {
        panic!("{}", report::failure(seed, &violation));
    }
    if count >= 800 {
        voyage.tally.has_everything();
    }
}

/// The same seed is the same run, event for event.
#[test]
fn a_seed_is_a_run() {
    for seed in 0..40 {
        let (first, again) = (schedule::run(seed, None, true), schedule::run(seed, None, true));
        assert!(first.trace.len() > 2, "seed {seed}");
        for (line, same) in first.trace.iter().zip(&again.trace) {
            assert_eq!(line, same, "seed {seed}");
        }
        assert_eq!(first.trace.len(), again.trace.len(), "seed {seed}");
    }
}

/// And in another process: what fails in one can be looked at in any.
#[test]
fn a_seed_is_a_run_everywhere() {
    for seed in ["3", "18", "59"] {
        let run = || {
            let mut replay = Command::new(std::env::current_exe().unwrap());
            replay.args(["replay", "--exact", "--nocapture", "--test-threads=1"]);
            let ran = replay.env("CREDBROKER_SIM_SEED", seed).output().unwrap();
            let told = String::from_utf8(ran.stdout).unwrap();
            let digest = told.lines().find(|line| line.starts_with(DIGEST));
            digest.unwrap_or_else(|| panic!("seed {seed}: {told}")).to_owned()
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// What the last line of a replay begins with.
const DIGEST: &str = "digest of all that happened: ";

/// A seed from the environment, with all that happens.
#[test]
fn replay() {
    let Some(seed) = number_of("CREDBROKER_SIM_SEED") else {
        return;
    };
    let ended = schedule::run(seed, None, true);
    ended.trace.iter().for_each(|line| println!("{line}"));
    let mut digest = DefaultHasher::new();
    ended.trace.hash(&mut digest);
    println!("{DIGEST}{} lines, {:016x}", ended.trace.len(), digest.finish());
    if let Some(violation) = ended.violation {
        panic!("{}", report::failure(seed, &violation));
    }
}
