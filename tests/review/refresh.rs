//! Refreshes between full queues, full disks, panics, replacements and restarts.

use std::sync::Arc;
use std::time::Duration;

use crate::bench::{self, Bench, answered, granted, operator};
use crate::support::broker::{MEMBER, ORG, connector};
use crate::support::provider::Provider;
use crate::support::{Options, TestBroker, reason};
use credbroker::domain::reason::Reason;
use credbroker::domain::rotation::Phase;
use credbroker::journal::Faults;

/// A flight that panics ends that one flight. The next finds a claim without its driver, rests, and goes on.
// req: B5 N1
#[tokio::test]
async fn a_refresh_that_panics_is_not_the_last() {
    let bench = Bench::start(|call| match call {
        1 => panic!("a fault of the endpoint, on purpose"),
        call => granted(call),
    })
    .await;
    bench.import().await;
    assert_eq!(bench.resolve().await.err().unwrap().reason, Reason::Internal);
    assert_eq!(
        bench.resolve().await.err().unwrap().reason,
        Reason::RefreshAmbiguous
    );
    bench.clock.advance(Duration::from_secs(5));
    assert!(bench.resolve().await.is_ok());
    assert_eq!(bench.calls(), 2);
}

/// A flight that still waits for its place when the broker drains sends nothing and is not waited for.
// req: B5
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn draining_does_not_begin_the_exchanges_that_wait_for_a_place() {
    let (gate, held) = (
        Arc::new(std::sync::Barrier::new(2)),
        Arc::new(std::sync::Barrier::new(2)),
    );
    let (entered, leave) = (Arc::clone(&gate), Arc::clone(&held));
    let bench = Bench::start(move |call| {
        if call == 1 {
            entered.wait();
            leave.wait();
        }
        granted(call)
    })
    .await;
    let bench = Arc::new(bench);
    bench.import_for("alex").await;
    bench.import_for("bo").await;
    let resolving = |member: &'static str| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.resolve_for(member).await.map(|_| ()) })
    };
    let first = resolving("alex");
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    let second = resolving("bo");
    // Its flight is under way once it is counted; giving it time can only make the test weaker, never fail.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let draining = tokio::spawn({
        let broker = Arc::clone(&bench.broker);
        async move { broker.refresher().drain().await }
    });
    let refused = tokio::time::timeout(Duration::from_secs(30), second).await;
    // The first is let go before anything may fail, for a runtime does not end while a thread of it waits.
    let released = tokio::task::spawn_blocking(move || held.wait()).await;
    released.unwrap();
    let refused = refused.expect("it is not waited for").unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ShuttingDown);
    draining.await.unwrap();
    assert!(first.await.unwrap().is_ok());
    assert_eq!(bench.calls(), 1);
}

/// An answer is staged and adopted however long the store's queue is full meanwhile.
// req: N1
#[tokio::test]
async fn an_answer_waits_for_a_place_in_the_stores_queue() {
    let bench = Bench::start(granted).await;
    for part in ["credential-answer/", "credential-secret/"] {
        bench.import().await;
        bench.refuse(part, 5);
        assert!(bench.resolve().await.is_ok(), "{part}");
        assert_eq!(bench.refusals_left(), 0, "{part}");
    }
    assert_eq!(bench.calls(), 2);
    assert!(bench.open().await.is_empty());
}

/// A grant that is imported anew while the old one is exchanged: the new one counts, and the record of the
/// exchange says that it came to nothing.
// req: N1 N6
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exchange_that_was_superseded_is_finished() {
    let (gate, held) = (
        Arc::new(std::sync::Barrier::new(2)),
        Arc::new(std::sync::Barrier::new(2)),
    );
    let (entered, leave) = (Arc::clone(&gate), Arc::clone(&held));
    let bench = Bench::start(move |call| {
        if call == 1 {
            entered.wait();
            leave.wait();
        }
        granted(call)
    })
    .await;
    let bench = Arc::new(bench);
    let (org, id) = bench.import().await;
    let resolving = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.resolve().await.map(|resolved| resolved.vended.material) }
    });
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    assert_eq!(bench.import().await, (org, id));
    tokio::task::spawn_blocking(move || held.wait()).await.unwrap();
    let material = resolving.await.unwrap().ok().unwrap();
    // Generation 2 was imported; the answer for generation 1 is gone, and 3 is the second exchange's.
    assert_eq!(material.credential().unwrap().rotation.generation, 3);
    assert_eq!(bench.calls(), 2);
    assert!(bench.open().await.is_empty(), "{:?}", bench.open().await);
}

/// The journal fails after the claim, so the new generation is stored and its finish record is not. The next
/// start reads off the credential what became of the exchange.
// req: N1 N6
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_was_done_and_not_recorded_is_recorded_as_done() {
    let provider = Provider::start(Duration::from_secs(600)).await;
    let faults = Faults::default();
    let options = Options {
        connectors: connector(&provider.token_url(), "tests", ""),
        journal_faults: faults.clone(),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.import_grant(ORG, MEMBER, &provider.mint()).await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    // The runtime key's first use, so that the exchange is all that is under way when the disk fills up.
    let first_use = agent.access().who_am_i(credbroker::proto::WhoAmIRequest {}).await;
    first_use.unwrap();

    provider.hold();
    let resolving = tokio::spawn(async move { agent.resolve("").await.map(|_| ()) });
    provider.called(1).await;
    faults.fill_disk_after(0);
    provider.release();
    let refused = resolving.await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "JOURNAL_UNAVAILABLE");

    let broker = broker
        .restart_with(|options| options.journal_faults = Faults::default())
        .await;
    let refreshes: Vec<_> = broker.operator().await.records().await;
    let refreshes: Vec<_> = refreshes
        .iter()
        .filter(|record| record.action == "credential.refresh")
        .map(|record| (record.phase.as_str(), record.outcome.as_str()))
        .collect();
    assert_eq!(refreshes, [("begin", "allowed"), ("finish", "allowed")]);
    let lease = broker
        .agent(&enrolled)
        .await
        .resolve("")
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!((lease.generation, provider.calls()), (2, 1));
}

/// A staged answer of a connector that was taken out of the configuration waits for it to come back. The other
/// credentials, and the broker, do not.
// req: N1
#[tokio::test]
async fn one_credential_that_cannot_be_recovered_does_not_stop_the_rest() {
    let bench = Bench::start(granted).await;
    let (gone, good) = (bench.import_for("alex").await, bench.import_for("bo").await);
    bench.stage(gone, "no-longer-configured").await;
    bench.stage(good, "demo").await;
    bench.broker.recover(Vec::new()).await.unwrap();

    assert_eq!(bench.credential(good).await.rotation.generation, 2);
    let left = bench.credential(gone).await;
    assert_eq!(left.rotation.generation, 1);
    assert!(matches!(left.rotation.phase, Phase::Staged { .. }));
    assert_eq!(
        bench.resolve_for("alex").await.err().unwrap().reason,
        Reason::ConnectorUnknown
    );
    assert!(bench.resolve_for("bo").await.is_ok());
    assert_eq!(bench.calls(), 0, "no refresh token is sent again");
}

/// A grant with as many scopes and as long messages as are kept is stored, claimed and adopted like any other:
/// an answer that could be staged and not adopted would be a grant lost.
// req: N1
#[tokio::test]
async fn a_grant_with_all_the_scopes_there_may_be_is_refreshed() {
    let scopes: Vec<String> = (0..64).map(|number| format!("{number:0>256}")).collect();
    let (imported, scope) = (scopes.clone(), scopes.join(" "));
    let bench = Bench::start(move |call| match call {
        1 => {
            let words = "\u{1d11e}".repeat(600);
            answered(500, &format!(r#"{{"error_description":"{words}"}}"#))
        }
        call => {
            let access = "a".repeat(32 * 1024);
            let refresh = format!("fake-rt-{call}");
            answered(200, &format!(
                r#"{{"access_token":"{access}","refresh_token":"{refresh}","expires_in":600,"scope":"{scope}"}}"#
            ))
        }
    })
    .await;
    let at = bench.import_scoped("alex", imported).await.unwrap();
    assert_eq!(
        bench.resolve().await.err().unwrap().reason,
        Reason::RefreshAmbiguous
    );
    for generation in 2..4 {
        bench.clock.advance(Duration::from_secs(600));
        bench.resolve().await.map(|_| ()).unwrap();
        let credential = bench.credential(at).await;
        assert_eq!(
            (credential.rotation.generation, &credential.scopes),
            (generation, &scopes)
        );
    }
    let removed = bench
        .broker
        .remove_credential(&operator(), bench::ORG, &at.1.to_string())
        .await;
    removed.unwrap();
}

/// With the disk nearly full, an answer under way is staged and adopted, and what takes something away is done.
/// Nothing else is, and its refusals are not recorded.
// req: N1 D6 K5
#[tokio::test]
async fn the_last_of_the_disk_is_for_answers_and_revocations() {
    let bench = Arc::new(Bench::start(granted).await);
    let at = bench.import().await;
    let (is_there, go_on) = bench.hold("credential-answer/");
    let resolving = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.resolve().await.map(|_| ()) }
    });
    is_there.await.unwrap();
    bench.reserve(u64::MAX - 1);
    go_on.send(()).unwrap();
    assert_eq!(
        resolving.await.unwrap().unwrap_err().reason,
        Reason::StoreUnavailable
    );
    assert_eq!(bench.credential(at).await.rotation.generation, 2);

    let recorded = bench.journal().await.len();
    assert_eq!(
        bench.resolve().await.err().unwrap().reason,
        Reason::StoreUnavailable
    );
    let imported = bench.import_scoped("bo", Vec::new()).await;
    assert_eq!(imported.unwrap_err().reason, Reason::StoreUnavailable);
    assert_eq!(bench.journal().await.len(), recorded);
    assert_eq!(bench.calls(), 1);

    let removed = bench
        .broker
        .remove_credential(&operator(), bench::ORG, &at.1.to_string())
        .await;
    removed.unwrap();
    assert!(bench.open().await.is_empty());
    bench.reserve(0);
    bench.import().await;
    assert!(bench.resolve().await.is_ok());
}
