//! Sums of spend: they are there at once, survive restarts and prunes, and count each record once.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::prune_records_request::Before;
use credbroker::proto::{self, PruneRecordsRequest, SpendDimension, SummarizeSpendRequest};
use futures_util::future::join_all;

use crate::support::broker::{MEMBER, ORG, now};
use crate::support::clock::MovedClock;
use crate::support::{Options, reason};
use crate::{Shop, by, cost_events, total, try_spend};

// req: E12
#[tokio::test]
async fn spend_is_summed_by_what_is_asked_for() {
    let clock = Arc::new(MovedClock::default());
    let options = Options {
        clock: Some(Arc::clone(&clock) as _),
        ..Options::default()
    };
    let shop = Shop::open(options).await;
    shop.dispatch(2).await;
    shop.operator.make_member(ORG, "kim").await;
    clock.advance(Duration::from_secs(86_400));
    let automation = shop.automation().await;
    let task = shop.operator.make_task(ORG, "kim").await;
    automation.resolve(&task).await.unwrap();

    let sums = try_spend(&shop.operator, by(&[SpendDimension::Day, SpendDimension::Mode]))
        .await
        .unwrap();
    let rows: Vec<_> = sums
        .rows
        .iter()
        .map(|row| (row.keys.clone(), row.dispatches))
        .collect();
    let (today, yesterday) = (sums.to_day.clone(), rows[0].0[0].clone());
    assert_eq!(
        rows,
        [
            (vec![yesterday.clone(), "byok".to_owned()], 2),
            (vec![today.clone(), "byok".to_owned()], 1)
        ]
    );
    assert!(yesterday < today && !sums.truncated && sums.total.unwrap().dispatches == 3);
    let members = try_spend(&shop.operator, by(&[SpendDimension::Member]))
        .await
        .unwrap()
        .rows;
    let mut counts: Vec<_> = members.iter().map(|row| row.dispatches).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
    let one_day = SummarizeSpendRequest {
        from_day: yesterday.clone(),
        to_day: yesterday.clone(),
        filter: Some(proto::CostFilter {
            member: MEMBER.to_owned(),
            ..Default::default()
        }),
        ..by(&[SpendDimension::Project, SpendDimension::Provider])
    };
    let rows = try_spend(&shop.operator, one_day).await.unwrap().rows;
    assert_eq!(
        (rows.len(), rows[0].keys[1].as_str(), rows[0].dispatches),
        (1, "demo", 2)
    );

    for wrong in [
        by(&[SpendDimension::Day, SpendDimension::Day]),
        by(&[SpendDimension::Unspecified]),
        SummarizeSpendRequest {
            from_day: "2025-1-1".to_owned(),
            ..Default::default()
        },
        SummarizeSpendRequest {
            from_day: today,
            to_day: yesterday,
            ..Default::default()
        },
        SummarizeSpendRequest {
            from_day: "2024-01-01".to_owned(),
            to_day: "2025-01-01".to_owned(),
            ..Default::default()
        },
    ] {
        let refused = try_spend(&shop.operator, wrong.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{wrong:?}");
    }
    let leap = SummarizeSpendRequest {
        from_day: "2024-01-01".to_owned(),
        to_day: "2024-12-31".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        try_spend(&shop.operator, leap)
            .await
            .unwrap()
            .total
            .unwrap()
            .dispatches,
        0
    );
}

// req: E12
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_in_the_sums_at_once() {
    let shop = Shop::open(Options::default()).await;
    let automation = shop.automation().await;
    for round in 1..=10_u64 {
        let tasks = join_all((0..4).map(|_| shop.operator.make_task(ORG, MEMBER))).await;
        let dispatched = join_all(tasks.iter().map(|task| automation.resolve(task))).await;
        assert!(dispatched.iter().all(Result::is_ok));
        // Many ask at once: the journal is read by one of them, and counted once.
        let asked = join_all((0..4).map(|_| total(&shop.operator))).await;
        let counts: Vec<_> = asked.iter().map(|total| total.dispatches).collect();
        assert_eq!(counts, [round * 4; 4]);
    }
}

// req: E12 N1 N6
#[tokio::test]
async fn sums_survive_restarts_and_prunes() {
    let options = Options {
        journal_segment_bytes: Some(4_096),
        ..Options::default()
    };
    let shop = Shop::open(options).await;
    shop.dispatch(12).await;
    // Not summed by anybody yet but perhaps the background: the prune has to.
    let position = shop.operator.records().await.last().unwrap().position;
    let request = PruneRecordsRequest {
        before: Some(Before::BeforePosition(position)),
        validate_only: false,
    };
    let pruned = shop
        .operator
        .journal()
        .prune_records(request)
        .await
        .unwrap()
        .into_inner();
    assert!(pruned.pruned_position > 20, "{pruned:?}");
    let kept = cost_events(&shop.operator, None).await.len();
    assert!(kept < 12, "nothing of interest was pruned");
    assert_eq!(total(&shop.operator).await.dispatches, 12);
    let shop = shop.restart().await;
    assert_eq!(total(&shop.operator).await.dispatches, 12);
    shop.dispatch(1).await;
    let shop = shop.restart().await.restart().await;
    assert_eq!(total(&shop.operator).await.dispatches, 13);
    let request = proto::ListCostEventsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let page = shop
        .operator
        .billing()
        .list_cost_events(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.first_position, pruned.pruned_position + 1);
    let until = Some(prost_types::Timestamp {
        seconds: now().seconds() - 3_600,
        nanos: 0,
    });
    let request = proto::ListCostEventsRequest {
        org: ORG.to_owned(),
        until,
        ..Default::default()
    };
    let page = shop
        .operator
        .billing()
        .list_cost_events(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.events.len(), page.next_page_token.as_str()), (0, ""));
}
