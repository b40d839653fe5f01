//! The quota of shared dispatches, at the use case that takes its places.

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::Clock;
use credbroker::domain::cost::Spend;
use credbroker::domain::day::Day;
use credbroker::domain::id::{Id, LeaseId, OrgId};
use credbroker::domain::journal::{Action, Phase, Position, Record};
use credbroker::domain::managed::Pool;
use credbroker::domain::mode::AuthMode;
use credbroker::domain::reason::Reason;
use credbroker::domain::refusal::Refusal;
use credbroker::domain::secret::Secret;
use credbroker::service::{AccountChange, Resolved, SetManagedKey};
use credbroker::store::keys::{self, SpendOf};
use credbroker::store::record::Changes;
use futures_util::future::join_all;

use crate::bench::{Bench, ORG, granted, live_operator, operator};

fn org() -> OrgId {
    Id::from_bytes([3; 16])
}

/// What stands in the sums as dispatches of this day.
async fn dispatched(bench: &Bench, mode: AuthMode, provider: &str, dispatches: u64) {
    let of_what = SpendOf {
        day: Day::of(bench.clock.wall()),
        mode,
        project: None,
        member: Id::from_bytes([4; 16]),
        provider: provider.to_owned(),
    };
    let spend = Spend {
        dispatches,
        ..Spend::default()
    };
    let put = Changes::default().put(&keys::spend(org(), &of_what), &spend);
    let _applied = bench.records.commit(put).await.unwrap();
}

// req: E9
#[tokio::test(flavor = "multi_thread")]
async fn of_200_at_once_exactly_the_quota_is_let_through() {
    let bench = Arc::new(Bench::start(granted).await);
    bench.broker.recover(Vec::new()).await.unwrap();
    // Of an earlier run: two providers count together, another mode does not.
    dispatched(&bench, AuthMode::Shared, "demo", 3).await;
    dispatched(&bench, AuthMode::Shared, "second", 2).await;
    dispatched(&bench, AuthMode::Metered, "demo", 100).await;
    let asked = (0..200).map(|number| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let place = bench.broker.reserve_shared(org(), 45).await;
            match place {
                // Every fifth dispatch fails, and its place is free again.
                Ok(place) if number % 5 == 0 => {
                    drop(place);
                    None
                }
                Ok(place) => {
                    place.keep();
                    Some(true)
                }
                Err(refusal) => {
                    assert_eq!(refusal.reason, Reason::SharedQuotaExceeded);
                    Some(false)
                }
            }
        })
    });
    let told: Vec<_> = join_all(asked)
        .await
        .into_iter()
        .filter_map(Result::unwrap)
        .collect();
    assert_eq!(told.iter().filter(|through| **through).count(), 40);
    let refused = bench
        .broker
        .reserve_shared(org(), 45)
        .await
        .map(drop)
        .unwrap_err();
    let midnight = Day::of(bench.clock.wall()).ends();
    assert_eq!(refused.retry_after, Some(midnight.since(bench.clock.wall())));
    let resets = jiff::Timestamp::from_millisecond(midnight.millis())
        .unwrap()
        .to_string();
    let metadata = [
        ("limit", "45".to_owned()),
        ("used", "45".to_owned()),
        ("resets_at", resets),
    ];
    assert_eq!(refused.metadata, metadata);
    // The next day is another.
    bench.clock.advance(Duration::from_secs(86_400));
    bench.broker.reserve_shared(org(), 1).await.unwrap().keep();
    assert!(bench.broker.reserve_shared(org(), 1).await.is_err());
}

/// What is in the journal and not in the sums yet counts too: a count is read after the journal was.
// req: E9 N1
#[tokio::test]
async fn the_first_count_after_a_start_has_all_that_was_recorded() {
    let bench = Bench::start(granted).await;
    bench.broker.recover(Vec::new()).await.unwrap();
    let lease: LeaseId = Id::from_bytes([6; 16]);
    let record = Record::new(Action::Resolve, "key_1", Some(org()))
        .about(
            "member",
            Id::<credbroker::domain::id::Member>::from_bytes([4; 16]),
        )
        .about("mode", "shared")
        .about("provider", "demo")
        .about("lease", lease)
        .about("dispatch", true)
        .phase(Phase::Finish(Position(1)));
    for _ in 0..3 {
        bench.append(&record).await;
    }
    assert!(bench.broker.reserve_shared(org(), 3).await.is_err());
    bench.broker.reserve_shared(org(), 4).await.unwrap().keep();
}

/// What is known not to have come about has no place of the quota.
// req: E9 N1
#[tokio::test]
async fn a_dispatch_that_the_store_refused_gives_its_place_back() {
    let bench = Bench::start(granted).await;
    bench.broker.recover(Vec::new()).await.unwrap();
    let key = SetManagedKey {
        pool: Pool::Shared,
        provider: "demo",
        key: Secret::from("the-platforms-own-key-000".to_owned()),
        force: true,
        overlap: None,
    };
    let platform = live_operator(&bench.broker, "platform").await;
    bench.broker.set_managed_key(&platform, key).await.unwrap();
    let one = AccountChange {
        shared_per_day: Some(Some(1)),
        ..AccountChange::default()
    };
    bench.broker.update_account(&operator(), ORG, one).await.unwrap();
    let refused = |resolved: Result<Resolved, Refusal>| resolved.err().map(|refusal| refusal.reason);
    bench.refuse("lease", 1);
    let crowded = bench.resolve_with("shared-agent", "alex").await;
    assert_eq!(refused(crowded), Some(Reason::Overloaded));
    assert_eq!(bench.refusals_left(), 0);
    // The disk is full: nothing begins.
    bench.reserve(u64::MAX);
    let full = bench.resolve_with("shared-agent", "alex").await;
    assert_eq!(refused(full), Some(Reason::StoreUnavailable));
    bench.reserve(0);
    bench.resolve_with("shared-agent", "alex").await.unwrap();
    let second = bench.resolve_with("shared-agent", "bo").await;
    assert_eq!(refused(second), Some(Reason::SharedQuotaExceeded));
}
