//! Streams that go on where the last one stopped, and readers that do not keep up.

use std::time::Duration;

use credbroker::proto::watch_event::Event;

use crate::support::broker::{MEMBER, ORG};
use crate::support::{TestBroker, details, reason};

// req: N4
#[tokio::test]
async fn no_event_is_lost_or_told_twice_between_two_streams() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, MEMBER, "alexs-own-key-00000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    agent.resolve("").await.unwrap();
    let mut watch = agent.watch().await;
    let (mut generations, mut last) = (Vec::new(), 1);
    // Each stream reads another number of the events that are there; some are published while there is none.
    for round in 0..12_u64 {
        for _ in 0..3 {
            last += 1;
            operator
                .set_key(ORG, MEMBER, &format!("alexs-own-key-{last:05}"))
                .await;
            broker.broker.policy_changed(None, last);
        }
        for _ in 0..round % 5 {
            if let Event::CredentialRotated(rotated) = watch.event().await.unwrap() {
                generations.push(rotated.generation);
            }
        }
        let cursor = watch.cursor.clone();
        drop(watch);
        watch = agent.watch_from(&cursor).await.unwrap();
        assert!(matches!(watch.message().await.unwrap(), Event::Heartbeat(_)));
        if round % 2 == 0 {
            // The cursor of a first heartbeat skips nothing that was not told.
            let cursor = watch.cursor.clone();
            watch = agent.watch_from(&cursor).await.unwrap();
            watch.message().await.unwrap();
        }
    }
    while generations.last() != Some(&last) {
        if let Event::CredentialRotated(rotated) = watch.event().await.unwrap() {
            generations.push(rotated.generation);
        }
    }
    assert_eq!(generations, (2..=last).collect::<Vec<_>>());
}

// req: N4 N9
#[tokio::test]
async fn cursors_of_another_run_begin_anew_and_those_of_nobody_are_refused() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let (enrolled, other) = (
        broker.enroll(&operator, &task).await,
        broker.enroll(&operator, &task).await,
    );
    let (agent, other) = (broker.agent(&enrolled).await, broker.agent(&other).await);
    let cursor = agent.watch().await.cursor;
    for (caller, cursor) in [(&other, cursor.as_str()), (&agent, "x"), (&agent, &cursor[1..])] {
        let refused = caller.watch_from(cursor).await.err().unwrap();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
        let fields = details(&refused).bad_request().unwrap().field_violations.clone();
        assert_eq!(fields[0].field, "cursor");
    }

    let broker = broker.restart().await;
    let agent = broker.agent(&enrolled).await;
    let mut watch = agent.watch_from(&cursor).await.unwrap();
    assert!(matches!(watch.message().await.unwrap(), Event::EventsMissed(_)));
    broker.broker.policy_changed(None, 1);
    assert_eq!(watch.policy().await, 1);
    // Told once: its cursor is one of this run.
    let mut again = agent.watch_from(&watch.cursor).await.unwrap();
    assert!(matches!(again.message().await.unwrap(), Event::Heartbeat(_)));
}

// req: N4
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_holds_nobody_up_and_is_told() {
    const EVENTS: u64 = 10_000;
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let slow = broker.agent(&broker.enroll(&operator, &task).await).await;
    // The connection itself holds some 5 MB for its streams: a few of them fill that.
    let mut unread = Vec::new();
    for _ in 0..16 {
        unread.push(slow.watch().await);
    }
    let (progress, mut seen) = tokio::sync::mpsc::channel(64);
    let mut quick = Vec::new();
    for _ in 0..3 {
        let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
        let (mut watch, progress) = (agent.watch().await, progress.clone());
        quick.push(tokio::spawn(async move {
            for version in 1..=EVENTS {
                assert_eq!(watch.policy().await, version);
                if version % 50 == 0 {
                    progress.send(version).await.unwrap();
                }
            }
        }));
    }
    for version in 1..=EVENTS {
        broker.broker.policy_changed(None, version);
        // No faster than those who read.
        if version % 50 == 0 {
            for _ in &quick {
                assert_eq!(seen.recv().await, Some(version));
            }
        }
    }
    for reader in quick {
        reader.await.unwrap();
    }
    let mut slow = unread.remove(0);
    drop(unread);
    // What was on its way comes, then that there was more, then the last of it.
    let (mut told, mut missed) = (Vec::new(), 0);
    while told.last() != Some(&EVENTS) {
        match slow.event().await.unwrap() {
            Event::PolicyChanged(changed) => told.push(changed.policy_version),
            Event::EventsMissed(_) => missed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(
        missed > 0 && told.len() < 5_000,
        "{missed} times, {} told",
        told.len()
    );
    broker.broker.policy_changed(None, EVENTS + 1);
    assert_eq!(slow.policy().await, EVENTS + 1);
}

// req: N4
#[tokio::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let broker = TestBroker::start_with(crate::support::Options {
        config: "[watch]\nheartbeat = \"1s\"".to_owned(),
        ..Default::default()
    });
    let broker = broker.await;
    let operator = broker.operator().await;
    let mut watch = operator.watch().await;
    for _ in 0..2 {
        let Event::Heartbeat(beat) = watch.message().await.unwrap() else {
            panic!("no heartbeat")
        };
        assert_eq!(
            Duration::try_from(beat.interval.unwrap()),
            Ok(Duration::from_secs(1))
        );
    }
}
