//! Mistakes made on purpose: the simulator has to find each, and nothing without them.

use credbroker::service::Planted;

use crate::fleet::sail;
use crate::report::failure;

/// Each mistake with the invariants that may catch it, the likeliest first. What is found first differs from seed
/// to seed: an answer that is dropped shows as a refresh token sent again, or as a grant that dies of it.
const PLANTED: &[(Planted, &[&str])] = &[
    (Planted::SkipReread, &["needed"]),
    (Planted::WakeEarly, &["true-journal"]),
    (Planted::CancelWithCaller, &["never-cancelled"]),
    (Planted::LostIsNotProcessed, &["told-as-lost", "rested"]),
    (Planted::GatewayIsNotProcessed, &["told-as-lost", "rested"]),
    (Planted::FoundClaimIsFree, &["told-as-lost"]),
    (Planted::ClaimAfterSending, &["claimed-first"]),
    (
        Planted::StagedIsDropped,
        &["never-resent", "rested", "told-as-lost"],
    ),
    (
        Planted::Unguarded,
        &["never-back", "one-token-a-generation", "true-tokens", "whole"],
    ),
    (Planted::BlankRefresh, &["never-blanked"]),
    (Planted::Unstaged, &["staged-first"]),
    (Planted::LeaveEarly, &["never-resent", "one-exchange"]),
    (Planted::NoTimeout, &["nothing-waits-for-ever"]),
    (Planted::NoRest, &["rested"]),
    (Planted::FailureKills, &["no-false-death"]),
    (Planted::RetryAfterIgnored, &["rested"]),
    (Planted::RejectedIsServed, &["never-rejected"]),
    (Planted::StaleWaiter, &["one-flight"]),
    (Planted::Unrecorded, &["recorded-first"]),
];

/// How many seeds it may take.
const SEEDS: u64 = 3_000;

// req: N1 N2
#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    for (mistake, names) in PLANTED {
        let voyage = sail(0, SEEDS, Some(*mistake));
        match voyage.failed {
            Some((seed, violation)) if names.contains(&violation.name) => {
                println!(
                    "{mistake:?}: `{}` at seed {seed}: {}",
                    violation.name, violation.message
                );
                let same = sail(seed, 1, None);
                if let Some((seed, violation)) = same.failed {
                    missed.push(failure(seed, &violation));
                }
            }
            Some((seed, violation)) => missed.push(format!("{mistake:?}: {}", failure(seed, &violation))),
            None => missed.push(format!("{mistake:?} was not found in {SEEDS} schedules")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
