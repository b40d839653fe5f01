//! Many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::scene::{PERSONAL, Scene};
use crate::support::reason;

// req: C9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_agents_at_once_exactly_three_are_served() {
    let scene = Scene::start("", PERSONAL).await;
    let crowd = scene.crowd(100).await;
    let answers = join_all(crowd.iter().map(|worker| worker.resolve())).await;
    let mut served = BTreeSet::new();
    for (at, answer) in answers.iter().enumerate() {
        match answer {
            Ok(lease) => assert!(served.insert((at, lease.id.clone()))),
            Err(refused) => assert_eq!(reason(refused), "PARALLELISM_LIMIT", "{refused:?}"),
        }
    }
    assert_eq!(served.len(), 3);
    assert_eq!(scene.standing().await, (3, 3));

    // A restart forgets no place, and who has one keeps it.
    let scene = scene.restart(PERSONAL).await;
    let crowd = join_all(crowd.into_iter().map(|worker| scene.again(worker))).await;
    let answers = join_all(crowd.iter().map(|worker| worker.resolve())).await;
    let again: BTreeSet<_> = answers
        .into_iter()
        .enumerate()
        .filter_map(|(at, answer)| Some((at, answer.ok()?.id)))
        .collect();
    assert_eq!(again, served);
}

// req: C9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_who_all_may_nobody_is_turned_away() {
    let scene = Scene::start("", PERSONAL).await;
    scene.set(100).await;
    let crowd = scene.crowd(101).await;
    let answers = join_all(crowd[..100].iter().map(|worker| worker.resolve())).await;
    let served: BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().id).collect();
    assert_eq!(served.len(), 100);
    crowd[100].is_refused().await;
    assert_eq!(scene.standing().await, (100, 100));
}

/// Places change hands all the time; never are more in use than there are, and everybody gets their turn.
// req: C9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_places_change_hands_no_more_are_in_use_than_there_are() {
    const TIMES: usize = 4;
    let scene = Scene::start("", PERSONAL).await;
    let in_use = Arc::new(AtomicUsize::new(0));
    let mut working = JoinSet::new();
    for worker in scene.crowd(12).await {
        let in_use = Arc::clone(&in_use);
        working.spawn(async move {
            let mut turned_away = 0;
            for _ in 0..TIMES {
                let lease = loop {
                    match worker.resolve().await {
                        Ok(lease) => break lease,
                        Err(refused) => assert_eq!(reason(&refused), "PARALLELISM_LIMIT", "{refused:?}"),
                    }
                    turned_away += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                };
                assert!(in_use.fetch_add(1, Ordering::SeqCst) < 3, "a fourth is in use");
                tokio::time::sleep(Duration::from_millis(3)).await;
                in_use.fetch_sub(1, Ordering::SeqCst);
                worker.release(&lease).await;
            }
            turned_away
        });
    }
    let finished = tokio::time::timeout(Duration::from_secs(120), working.join_all());
    let turned_away: usize = finished.await.unwrap().into_iter().sum();
    assert!(turned_away > 0, "nobody ever had to wait: the test shows nothing");
    assert_eq!(scene.standing().await, (0, 3));
}

/// However often and from however many connections one agent asks: one lease, one place.
// req: B6 C9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_that_asks_fifty_times_at_once_takes_one_place() {
    let scene = Scene::start("[leases]\npersonal_parallelism = 2\n", PERSONAL).await;
    let (first, other) = (scene.worker().await, scene.worker().await);
    let answers = join_all((0..50).map(|_| first.resolve())).await;
    let ids: BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().id).collect();
    assert_eq!(ids.len(), 1);
    other.resolve().await.unwrap();
    assert_eq!(scene.standing().await, (2, 2));
    let scene = scene.restart(PERSONAL).await;
    let first = scene.again(first).await;
    for answer in join_all((0..50).map(|_| first.resolve())).await {
        assert!(ids.contains(&answer.unwrap().id));
    }
    assert_eq!(scene.standing().await, (2, 2));
    let records = scene.operator.records().await;
    let of_first = records.iter().filter(|record| {
        record.subject.get("lease") == ids.first()
            && record.subject.contains_key("dispatch")
            && (record.outcome.as_str(), record.phase.as_str()) == ("allowed", "finish")
    });
    assert_eq!(of_first.count(), 1, "one cost event");
}
