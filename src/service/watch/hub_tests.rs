//! What watchers are given, in which order, and that it is bounded.

#![allow(clippy::unwrap_used)]

use futures_util::FutureExt as _;

use super::*;
use crate::domain::id::Id;

fn at(seconds: i64) -> Time {
    Time::from_seconds(seconds)
}

fn topic(byte: u8) -> Topic {
    Topic::Credential(Id::from_bytes([byte; 16]))
}

fn notice(topics: &[Topic], version: u64) -> Notice {
    Notice {
        event: Event::PolicyChanged { version },
        topics: topics.to_vec(),
    }
}

fn listen(hub: &Arc<Hub>, actor: u8, topics: &[Topic], from: From) -> Listening {
    let interests = topics.iter().copied().map(Interest::always).collect();
    let entered = hub.enter([actor; 16]).unwrap();
    entered.listen(interests, from, None, at(0)).ok().unwrap()
}

/// What waits: the version of an event, `None` for missed ones.
fn drain(listening: &Listening) -> Vec<Option<u64>> {
    let mut told = Vec::new();
    while let Some(next) = listening.next().now_or_never() {
        told.push(match next {
            Next::Missed(_) => None,
            Next::Event(event) => match event.event() {
                Event::PolicyChanged { version } => Some(*version),
                other => panic!("{other:?}"),
            },
        });
    }
    told
}

// req: N4
#[test]
fn an_event_reaches_who_listens_to_it_once() {
    let hub = Arc::<Hub>::default();
    let both = listen(&hub, 1, &[topic(1), topic(2)], From::Now);
    let other = listen(&hub, 2, &[topic(3)], From::Now);
    hub.publish(notice(&[topic(1), topic(2)], 7), at(0));
    hub.publish(notice(&[topic(4)], 8), at(0));
    assert_eq!(drain(&both), [Some(7)]);
    assert_eq!(drain(&other), []);
    drop((both, other));
    let inner = lock(&hub.0);
    assert!(inner.watchers.is_empty() && inner.by_topic.is_empty() && inner.by_actor.is_empty());
}

// req: N4
#[test]
fn a_stream_goes_on_where_the_last_one_stopped() {
    let hub = Arc::<Hub>::default();
    for version in 0..10 {
        hub.publish(
            notice(&[topic(u8::try_from(version % 2).unwrap())], version),
            at(0),
        );
    }
    // Whatever the watcher had dealt with when it went, the next one tells the rest.
    for dealt_with in 0..=5 {
        let (mut told, mut cursor) = (Vec::new(), From::Event(0));
        let before = listen(&hub, 1, &[topic(1)], cursor);
        for _ in 0..dealt_with {
            let Some(Next::Event(event)) = before.next().now_or_never() else {
                panic!("nothing waits")
            };
            cursor = From::Event(event.sequence + 1);
            told.push(Some(event.sequence));
        }
        assert_eq!(
            From::Event(before.position()),
            From::Event([1, 3, 5, 7, 9, 10][dealt_with])
        );
        drop(before);
        told.extend(drain(&listen(&hub, 1, &[topic(1)], cursor)));
        assert_eq!(told, [1, 3, 5, 7, 9].map(Some), "{dealt_with}");
    }
}

// req: N4
#[test]
fn what_cannot_be_told_is_told_as_missed() {
    let hub = Arc::<Hub>::default();
    for version in 0..u64::try_from(RECENT).unwrap() + 10 {
        hub.publish(notice(&[topic(1)], version), at(0));
    }
    let all = u64::try_from(RECENT).unwrap();
    // Just too old; unknown; from a future that was not.
    for from in [From::Event(9), From::Unknown, From::Event(all + 11)] {
        let listening = listen(&hub, 1, &[topic(2)], from);
        assert!(listening.missed());
        assert_eq!(drain(&listening), [None], "{from:?}");
    }
    // The oldest that is kept, and the next that will be.
    for from in [From::Event(10), From::Event(all + 10), From::Now] {
        assert_eq!(drain(&listen(&hub, 1, &[topic(2)], from)), [], "{from:?}");
    }
    // More than a queue holds is not told either; the last of it is.
    let far = listen(&hub, 1, &[topic(1)], From::Event(10));
    let told = drain(&far);
    assert_eq!(told[0], None);
    assert_eq!(*told.last().unwrap(), Some(all + 9));
}

// req: N4
#[test]
fn one_that_does_not_read_is_bounded_and_holds_nobody_up() {
    let hub = Arc::<Hub>::default();
    let slow = listen(&hub, 1, &[topic(1)], From::Now);
    let quick = listen(&hub, 2, &[topic(1)], From::Now);
    for version in 0..10_000 {
        hub.publish(notice(&[topic(1)], version), at(0));
        assert_eq!(drain(&quick), [Some(version)]);
        assert!(lock(&slow.slot.queue).events.len() <= QUEUE);
    }
    let Some(Next::Missed(next)) = slow.next().now_or_never() else {
        panic!("it was not told that it missed something")
    };
    let left = drain(&slow);
    assert_eq!(left[0], Some(next), "the cursor is that of what comes next");
    assert_eq!(*left.last().unwrap(), Some(9_999));
    assert!(
        left.windows(2)
            .all(|pair| pair[1] == pair[0].map(|version| version + 1))
    );
    assert_eq!(
        lock(&slow.slot.queue).events.capacity(),
        0,
        "an idle watcher holds no queue"
    );
    hub.publish(notice(&[topic(1)], 10_000), at(0));
    assert_eq!(drain(&slow), [Some(10_000)]);
}

#[test]
fn what_an_actor_gains_and_loses_counts_from_then_on() {
    let hub = Arc::<Hub>::default();
    let listening = listen(&hub, 1, &[topic(1)], From::Now);
    let lease = |source: u8, of: u8| Interest {
        topic: topic(of),
        source: [source; 16],
        until: Some(at(100)),
    };
    hub.publish(notice(&[topic(2)], 1), at(0));
    hub.gained([1; 16], &[lease(1, 2)], at(0));
    hub.gained([1; 16], &[lease(2, 2)], at(0));
    hub.gained([2; 16], &[lease(3, 3)], at(0));
    hub.publish(notice(&[topic(2)], 2), at(0));
    hub.publish(notice(&[topic(3)], 3), at(0));
    hub.lost([1; 16], [1; 16]);
    hub.publish(notice(&[topic(2)], 4), at(0));
    hub.publish(notice(&[topic(2)], 5), at(100));
    hub.lost([1; 16], [2; 16]);
    hub.publish(notice(&[topic(2)], 6), at(0));
    assert_eq!(
        drain(&listening),
        [Some(2), Some(4)],
        "the second lease keeps it; its end ends it"
    );
    assert!(!lock(&hub.0).by_topic.contains_key(&topic(2)));
}

#[test]
fn what_changes_while_the_store_is_read_is_read_again() {
    let hub = Arc::<Hub>::default();
    let entered = hub.enter([1; 16]).unwrap();
    let changes = entered.changes();
    hub.publish(notice(&[topic(1)], 1), at(0));
    hub.gained([1; 16], &[Interest::always(topic(1))], at(0));
    let entered = entered
        .listen(Vec::new(), From::Now, Some(changes), at(0))
        .err()
        .unwrap();
    let changes = Some(entered.changes());
    let listening = entered.listen(vec![Interest::always(topic(1))], From::Now, changes, at(0));
    assert_eq!(
        drain(&listening.ok().unwrap()),
        [Some(1)],
        "nothing since it entered is lost"
    );
}

// req: N4
#[test]
fn one_actor_does_not_take_all_places() {
    let hub = Arc::<Hub>::default();
    let mut held: Vec<_> = (0..PER_ACTOR).map(|_| hub.enter([1; 16]).unwrap()).collect();
    let refusal = hub.enter([1; 16]).err().unwrap();
    assert_eq!(refusal.reason, Reason::Overloaded);
    assert!(hub.enter([2; 16]).is_ok());
    held.pop();
    assert!(hub.enter([1; 16]).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_watcher_is_woken() {
    let hub = Arc::<Hub>::default();
    let listening = listen(&hub, 1, &[topic(1)], From::Now);
    let waiting = tokio::spawn(async move {
        // One that falls behind is woken too.
        while !matches!(listening.next().await, Next::Event(event) if event.sequence == 999) {}
    });
    for version in 0..1_000 {
        hub.publish(notice(&[topic(1)], version), at(0));
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(std::time::Duration::from_secs(30), waiting)
        .await
        .unwrap()
        .unwrap();
}
