//! Reported usage: each event is counted once and draws from the credit of metered leases only.

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::Clock;
use credbroker::domain::billing::Micros;
use credbroker::domain::cost::Spend;
use credbroker::domain::id::OrgId;
use credbroker::domain::lease::Lease;
use credbroker::domain::mode::AuthMode;
use credbroker::domain::reason::Reason;
use credbroker::domain::time::Time;
use credbroker::proto;
use credbroker::service::{
    CostFilterInput, Dimension, NewCredit, OwnerRef, ReportedUsage, SpendInput, UsageEvent, UsageResult,
};
use credbroker::store::keys;
use credbroker::store::record::Changes;
use futures_util::future::join_all;

use crate::Shop;
use crate::bench::{Bench, ORG as BENCH_ORG, granted, operator};
use crate::support::broker::{ORG, now};
use crate::support::{Caller, Options, reason};

/// A broker with a lease of each of two modes.
struct Till {
    bench: Bench,
    org: OrgId,
    metered: String,
    shared: String,
}

impl Till {
    async fn open() -> Self {
        let bench = Bench::start(granted).await;
        bench.broker.recover(Vec::new()).await.unwrap();
        bench.set_key(OwnerRef::Org, "demo", "the-orgs-own-key-000").await;
        let mut leases = Vec::new();
        for (member, mode) in [("alex", AuthMode::Metered), ("bo", AuthMode::Shared)] {
            let vended = bench.resolve_for(member).await.unwrap().vended;
            let lease = Lease {
                mode,
                ..Lease::clone(&vended.lease)
            };
            let key = keys::lease(lease.org, lease.id);
            let put = Changes::default().put(&key, &lease);
            let _applied = bench.records.commit(put).await.unwrap();
            leases.push(lease);
        }
        let credit = NewCredit {
            amount: Micros(1_000_000),
            request_id: "00000000-0000-4000-8000-000000000001",
            note: "",
        };
        bench
            .broker
            .add_credit(&operator(), BENCH_ORG, credit)
            .await
            .unwrap();
        Self {
            org: leases[0].org,
            metered: leases[0].id.to_string(),
            shared: leases[1].id.to_string(),
            bench,
        }
    }

    fn event<'a>(&'a self, event_id: &'a str, cost: i64) -> UsageEvent<'a> {
        UsageEvent {
            event_id,
            lease: &self.metered,
            cost: Micros(cost),
            input_tokens: 10,
            output_tokens: 20,
            model: "model-1",
            time: Some(self.bench.clock.wall()),
        }
    }

    async fn report(&self, events: &[UsageEvent<'_>]) -> ReportedUsage {
        let reported = self
            .bench
            .broker
            .report_usage(&operator(), BENCH_ORG, events)
            .await;
        reported.unwrap()
    }

    async fn balance(&self) -> i64 {
        let account = self.bench.broker.get_account(&operator(), BENCH_ORG).await;
        account.unwrap().account.balance.0
    }

    /// Micros and events by mode.
    async fn spent(&self) -> Vec<(String, i64, u64)> {
        let input = SpendInput {
            filter: CostFilterInput {
                org: BENCH_ORG,
                ..CostFilterInput::default()
            },
            by: &[Dimension::Mode],
            ..SpendInput::default()
        };
        let sums = self
            .bench
            .broker
            .summarize_spend(&operator(), input)
            .await
            .unwrap();
        let rows = sums.rows.into_iter();
        rows.filter(|row| row.spend.events > 0)
            .map(|row| (row.keys[0].clone(), row.spend.micros.0, row.spend.events))
            .collect()
    }
}

fn outcomes(reported: &ReportedUsage) -> Vec<String> {
    let told = |result: &UsageResult| match result {
        UsageResult::Recorded => "recorded".to_owned(),
        UsageResult::Duplicate => "duplicate".to_owned(),
        UsageResult::Refused(refusal) => refusal.reason.code().to_owned(),
    };
    reported.results.iter().map(told).collect()
}

// req: A2 E12
#[tokio::test(flavor = "multi_thread")]
async fn of_many_reports_at_once_each_event_is_drawn_once() {
    let till = Arc::new(Till::open().await);
    // 100 events of 1 to 100 micros, each in four reports that overlap and begin at different ends.
    let names: Vec<String> = (1..=100).map(|number| format!("call-{number}")).collect();
    let reports = (0..8).map(|report| {
        let (till, names) = (Arc::clone(&till), names.clone());
        tokio::spawn(async move {
            let half = (report % 2) * 50;
            let mut numbers: Vec<usize> = (half..half + 50).collect();
            if report >= 4 {
                numbers.reverse();
            }
            let events: Vec<_> = numbers
                .iter()
                .map(|at| till.event(&names[*at], i64::try_from(at + 1).unwrap()))
                .collect();
            let reported = till.report(&events).await;
            outcomes(&reported)
                .iter()
                .filter(|told| *told == "recorded")
                .count()
        })
    });
    let recorded: Vec<usize> = join_all(reports).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(recorded.iter().sum::<usize>(), 100, "{recorded:?}");
    assert_eq!(till.balance().await, 1_000_000 - 5_050);
    assert_eq!(till.spent().await, [("metered".to_owned(), 5_050, 100)]);
}

// req: A2 E12
#[tokio::test]
async fn each_event_of_a_report_is_told_its_own_end() {
    let till = Till::open().await;
    let unknown = format!("lse_{}", "0".repeat(32));
    let events = [
        till.event("a", 5),
        till.event("a", 5),
        till.event("a", 6),
        UsageEvent {
            lease: &unknown,
            ..till.event("b", 7)
        },
        UsageEvent {
            lease: "nonsense",
            ..till.event("c", 7)
        },
        UsageEvent {
            event_id: "a b",
            ..till.event("", 8)
        },
        UsageEvent {
            cost: Micros(-1),
            ..till.event("d", 0)
        },
        UsageEvent {
            lease: &till.shared,
            ..till.event("e", 9)
        },
        UsageEvent {
            model: "model-2",
            ..till.event("f", 0)
        },
    ];
    let reported = till.report(&events).await;
    let told = [
        "recorded",
        "duplicate",
        "REQUEST_ID_REUSED",
        "NOT_FOUND",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "recorded",
        "recorded",
    ];
    assert_eq!(outcomes(&reported), told);
    assert_eq!(reported.balance, Micros(999_995), "shared usage draws nothing");
    let sums = [("metered".to_owned(), 5, 2), ("shared".to_owned(), 9, 1)];
    assert_eq!(till.spent().await, sums);
    // All of it again: what was refused for good stays so, the rest is known.
    let again = outcomes(&till.report(&events).await);
    assert_eq!(again[0], "duplicate");
    assert_eq!(again[2..7], told[2..7]);
    assert_eq!((again[7].as_str(), again[8].as_str()), ("duplicate", "duplicate"));
    assert_eq!(till.balance().await, 999_995);
    let records = till.bench.journal().await;
    let usage = records
        .iter()
        .find(|record| record.entry.about("usage") == Some("e"))
        .unwrap();
    let about = |kind| usage.entry.about(kind);
    assert_eq!(
        (about("micros"), about("lease")),
        (Some("9"), Some(till.shared.as_str()))
    );
    assert_eq!(
        (about("input_tokens"), about("output_tokens")),
        (Some("10"), Some("20"))
    );
    assert!(about("balance").is_none());
}

// req: A2
#[tokio::test]
async fn credit_that_is_used_up_goes_below_nothing_and_blocks_until_there_is_more() {
    let till = Till::open().await;
    assert_eq!(
        till.report(&[till.event("a", 1_000_001)]).await.balance,
        Micros(-1)
    );
    let key = keys::account(till.org);
    let account = || async {
        let stored = till
            .bench
            .records
            .get::<credbroker::domain::billing::Account>(&key)
            .await;
        stored.unwrap().unwrap().value
    };
    assert_eq!(account().await.metered(true), Err(Reason::CreditsExhausted));
    let more = NewCredit {
        amount: Micros(2),
        request_id: "00000000-0000-4000-8000-000000000002",
        note: "",
    };
    till.bench
        .broker
        .add_credit(&operator(), BENCH_ORG, more)
        .await
        .unwrap();
    assert_eq!(account().await.metered(true), Ok(()));
}

/// A commit that the store had no room for counted nothing: the same report again counts it once.
// req: A2 N1
#[tokio::test]
async fn a_report_that_failed_is_reported_again() {
    let till = Till::open().await;
    till.bench.refuse("taken-day", 1);
    let events: Vec<String> = (0..70).map(|number| format!("e{number}")).collect();
    let events: Vec<_> = events.iter().map(|id| till.event(id, 10)).collect();
    let failed = till
        .bench
        .broker
        .report_usage(&operator(), BENCH_ORG, &events)
        .await;
    assert_eq!(failed.unwrap_err().reason, Reason::Overloaded);
    assert_eq!(till.balance().await, 1_000_000);
    let reported = till.report(&events).await;
    assert!(outcomes(&reported).iter().all(|told| told == "recorded"));
    assert_eq!(till.balance().await, 999_300);
    // Who reports went away amid the commit, and reports again before that is through.
    let event = till.event("late", 1);
    let (is_there, go_on) = till.bench.hold("taken-day");
    let given_up = async {
        let reporter = operator();
        tokio::select! {
            _ = till.bench.broker.report_usage(&reporter, BENCH_ORG, std::slice::from_ref(&event)) => {}
            _ = is_there => {}
        }
    };
    given_up.await;
    let (again, ()) = tokio::join!(till.report(std::slice::from_ref(&event)), async {
        tokio::task::yield_now().await;
        go_on.send(()).unwrap();
    });
    assert_eq!(again.results.len(), 1);
    assert_eq!(till.balance().await, 999_299, "drawn twice, or not at all");
}

// req: A2 N7
#[tokio::test]
async fn events_are_forgotten_after_they_are_too_old_to_come_again() {
    let till = Till::open().await;
    let event = till.event("a", 5);
    let _first = till.report(&[event]).await;
    let day = Duration::from_secs(86_400);
    till.bench.clock.advance(30 * day);
    till.bench.broker.collect().await.unwrap();
    assert_eq!(outcomes(&till.report(&[event]).await), ["duplicate"]);
    till.bench.clock.advance(day);
    assert_eq!(outcomes(&till.report(&[event]).await), ["INVALID_ARGUMENT"]);
    assert!(!taken(&till).await.is_empty());
    till.bench.clock.advance(5 * day);
    till.bench.broker.collect().await.unwrap();
    assert!(
        taken(&till).await.is_empty(),
        "what was taken is forgotten in time"
    );
}

/// Who may report for one org must not keep what the platform's proxy reports out of its account.
// req: A2 E12
#[tokio::test]
async fn the_ids_of_one_reporter_are_not_anothers() {
    let till = Till::open().await;
    let squatted = till.event("call-1", 0);
    let own = &till.bench.resolver;
    let first = till
        .bench
        .broker
        .report_usage(own, "", &[squatted])
        .await
        .unwrap();
    assert_eq!(outcomes(&first), ["recorded"]);
    let real = till.event("call-1", 500);
    assert_eq!(outcomes(&till.report(&[real]).await), ["recorded"]);
    assert_eq!(till.balance().await, 999_500);
    let again = till
        .bench
        .broker
        .report_usage(own, "", &[squatted])
        .await
        .unwrap();
    assert_eq!(outcomes(&again), ["duplicate"]);
}

// req: E12 N7
#[tokio::test]
async fn sums_are_removed_after_400_days() {
    let till = Till::open().await;
    let day = Duration::from_secs(86_400);
    let _first = till.report(&[till.event("a", 5)]).await;
    let sums = || async {
        let list = keys::spends(till.org);
        let rows = till
            .bench
            .records
            .scan::<Spend>(list.as_bytes(), None, 1_000)
            .await;
        rows.unwrap().len()
    };
    assert_eq!(till.spent().await.len(), 1);
    let before = sums().await;
    till.bench.clock.advance(400 * day);
    till.bench.broker.collect().await.unwrap();
    assert_eq!(sums().await, before);
    let _second = till.report(&[till.event("b", 5)]).await;
    assert_eq!(till.spent().await.len(), 1, "of today");
    till.bench.clock.advance(day);
    till.bench.broker.collect().await.unwrap();
    assert_eq!(sums().await, 1, "that of yesterday is all there is");
}

/// The notes of events that were taken.
async fn taken(till: &Till) -> Vec<keys::Key> {
    let first = keys::taken(till.org, &[0; 32]);
    let all = &first.as_bytes()[..first.as_bytes().len() - 32];
    let rows = till
        .bench
        .records
        .scan::<credbroker::store::model::Taken>(all, None, 1_000)
        .await;
    rows.unwrap().into_iter().map(|(key, _)| key).collect()
}

fn usage(lease: &str, event_id: &str, time: Time) -> proto::UsageEvent {
    proto::UsageEvent {
        event_id: event_id.to_owned(),
        lease: lease.to_owned(),
        micros: 40,
        time: Some(prost_types::Timestamp {
            seconds: time.seconds(),
            nanos: 0,
        }),
        ..Default::default()
    }
}

async fn report(
    caller: &Caller,
    events: Vec<proto::UsageEvent>,
) -> Result<proto::ReportUsageResponse, tonic::Status> {
    let org = ORG.to_owned();
    let request = proto::ReportUsageRequest { org, events };
    Ok(caller.billing().report_usage(request).await?.into_inner())
}

// req: A2 E12
#[tokio::test]
async fn usage_over_the_port_is_counted_where_the_task_ran() {
    let shop = Shop::open(Options::default()).await;
    let lease = shop.dispatch(1).await.remove(0);
    let proxy = shop.automation().await;
    let events = vec![usage(&lease.id, "one", now()), usage(&lease.id, "two", now())];
    let answer = report(&proxy, events.clone()).await.unwrap();
    let recorded = proto::UsageOutcome::Recorded as i32;
    assert!(
        answer.results.iter().all(|result| result.outcome == recorded),
        "{answer:?}"
    );
    assert_eq!(
        answer.balance_micros, 0,
        "what the org brought itself costs no credit"
    );
    let again = report(&proxy, events).await.unwrap().results;
    assert!(
        again
            .iter()
            .all(|result| result.outcome() == proto::UsageOutcome::Duplicate)
    );
    let total = crate::total(&shop.operator).await;
    assert_eq!((total.dispatches, total.micros, total.events), (1, 80, 2));

    let many = (0..101).map(|number| usage(&lease.id, &format!("{number}"), now()));
    let refused = report(&proxy, many.collect()).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    let (_, narrow) = shop.operator.make_api_key(ORG).await;
    let narrow = shop.broker.caller(Some(&narrow)).await;
    let refused = report(&narrow, Vec::new()).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_DENIED");
}
