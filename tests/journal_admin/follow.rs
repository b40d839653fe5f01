//! Following the journal.

use std::sync::Arc;

use credbroker::proto::follow_records_response::Event;
use credbroker::proto::{self, FollowRecordsRequest, RecordFilter};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{PATIENCE, fill};
use crate::support::broker::ORG;
use crate::support::client::retry_after;
use crate::support::clock::MovedClock;
use crate::support::{Caller, Options, TestBroker, reason};

type Stream = Streaming<proto::FollowRecordsResponse>;

async fn follow(caller: &Caller, request: FollowRecordsRequest) -> Stream {
    let stream = caller.journal().follow_records(request).await;
    stream.unwrap().into_inner()
}

async fn next(stream: &mut Stream) -> Result<Event, Status> {
    let message = timeout(PATIENCE, stream.message())
        .await
        .expect("the stream is silent");
    Ok(message?.expect("a stream ends with a reason").event.unwrap())
}

/// The next record; what tells of progress is passed over.
async fn next_record(stream: &mut Stream) -> proto::JournalRecord {
    loop {
        if let Event::Record(record) = next(stream).await.unwrap() {
            return record;
        }
    }
}

fn after(position: u64) -> FollowRecordsRequest {
    FollowRecordsRequest {
        after_position: Some(position),
        ..Default::default()
    }
}

// req: N6
#[tokio::test]
async fn a_follower_is_told_what_there_was_and_what_comes() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let there = operator.records().await;
    let mut all = follow(&operator, after(0)).await;
    let mut new = follow(&operator, FollowRecordsRequest::default()).await;
    let only = RecordFilter {
        action: "member.create".to_owned(),
        ..Default::default()
    };
    let filtered = FollowRecordsRequest {
        org: ORG.to_owned(),
        filter: Some(only),
        ..after(0)
    };
    let mut filtered = follow(&operator, filtered).await;
    // First of all each is told where it is.
    let tip_position = there.len() as u64;
    for (stream, position) in [(&mut all, 0), (&mut new, tip_position), (&mut filtered, 0)] {
        let Event::Progress(progress) = next(stream).await.unwrap() else {
            panic!("a record came first");
        };
        assert_eq!(
            (progress.position, progress.tip_position),
            (position, tip_position)
        );
    }
    for record in &there {
        assert_eq!(next_record(&mut all).await, *record, "what there was, in order");
    }
    operator.make_member(ORG, "kim").await;
    let came = operator.records().await.split_off(there.len());
    assert_eq!(came.len(), 2);
    for record in &came {
        assert_eq!(next_record(&mut all).await, *record);
        assert_eq!(next_record(&mut new).await, *record);
    }
    let created: Vec<_> = operator.records().await;
    for record in created.iter().filter(|record| record.action == "member.create") {
        assert_eq!(next_record(&mut filtered).await, *record);
    }
}

// req: N6
#[tokio::test]
async fn a_silent_stream_says_that_it_lives_and_where_it_is() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let request = FollowRecordsRequest {
        heartbeat: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        filter: Some(RecordFilter {
            outcome: "failed".to_owned(),
            ..Default::default()
        }),
        ..after(0)
    };
    let mut stream = follow(&operator, request.clone()).await;
    next(&mut stream).await.unwrap();
    // Records that do not fit are no sign of life, and move the position all the same.
    let mut reached = 0;
    let writing = async {
        loop {
            fill(&broker, 20).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let listening = async {
        for _ in 0..3 {
            match next(&mut stream).await.unwrap() {
                Event::Progress(progress) => {
                    assert!(progress.position > reached);
                    reached = progress.position;
                }
                Event::Record(record) => panic!("{record:?} does not fit"),
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = listening => {}
    }
    for heartbeat in [0, 301] {
        let request = FollowRecordsRequest {
            heartbeat: Some(prost_types::Duration {
                seconds: heartbeat,
                nanos: 0,
            }),
            ..request.clone()
        };
        let refused = operator.journal().follow_records(request).await.err().unwrap();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    }
}

// req: N6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_does_not_read_holds_up_nobody() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let slow = broker.operator().await;
    let mut stuck = follow(&slow, after(0)).await;
    let mut quick = follow(&operator, after(0)).await;
    // Far more than the windows of a connection hold.
    let fills = (0..8).map(|_| fill(&broker, 750));
    timeout(PATIENCE, futures_util::future::join_all(fills))
        .await
        .unwrap();
    let tip = operator.records().await.len() as u64;
    let mut last = 0;
    while last < tip {
        let record = next_record(&mut quick).await;
        assert_eq!(record.position, last + 1);
        last = record.position;
    }
    operator.make_member(ORG, "kim").await;
    assert_eq!(next_record(&mut quick).await.action, "member.create");
    // When it reads at last, it gets all of them.
    for position in 1..=tip + 2 {
        assert_eq!(next_record(&mut stuck).await.position, position);
    }
}

// req: N6
#[tokio::test]
async fn streams_end_with_a_reason_when_the_broker_stops() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    let mut stream = follow(&operator, FollowRecordsRequest::default()).await;
    next(&mut stream).await.unwrap();
    let ended = async {
        loop {
            if let Err(status) = next(&mut stream).await {
                return status;
            }
        }
    };
    let (status, _) = tokio::join!(ended, broker.stop());
    assert_eq!(reason(&status), "SHUTTING_DOWN");
}

// req: N6
#[tokio::test]
async fn there_are_only_so_many_followers() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    let mut followers = Vec::new();
    let refused = loop {
        match operator.journal().follow_records(after(0)).await {
            Ok(stream) => followers.push(stream),
            Err(status) => break status,
        }
        assert!(followers.len() <= 64);
    };
    assert_eq!((reason(&refused).as_str(), followers.len()), ("OVERLOADED", 64));
    assert!(retry_after(&refused).is_some());
    // One that leaves makes room.
    followers.pop();
    let again = async {
        while operator.journal().follow_records(after(0)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place stays taken");
}

// A follower's token ends, and with it what it follows; a rotated one's streams end at once.
// req: N4 N6 D1
#[tokio::test]
async fn a_follower_is_not_served_past_its_token() {
    let clock = Arc::new(MovedClock::default());
    let options = Options {
        clock: Some(Arc::clone(&clock) as _),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let auditor = proto::RoleGrant {
        role: proto::Role::Auditor as i32,
        ..Default::default()
    };
    let request = proto::CreateOperatorTokenRequest {
        roles: vec![auditor],
        ttl: Some(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        }),
        ..Default::default()
    };
    let mint = async || {
        let made = operator.access().create_operator_token(request.clone()).await;
        let made = made.unwrap().into_inner();
        let caller = broker.caller(Some(&made.token.unwrap().value)).await;
        (made.operator_token.unwrap().id, caller)
    };
    let often = FollowRecordsRequest {
        heartbeat: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..after(0)
    };
    let told = async |stream: &mut Stream| {
        loop {
            if let Err(status) = next(stream).await {
                return reason(&status);
            }
        }
    };
    let (id, rotated) = mint().await;
    let mut stream = follow(&rotated, often.clone()).await;
    next(&mut stream).await.unwrap();
    let rotate = proto::RotateOperatorTokenRequest {
        operator_token: id,
        ..Default::default()
    };
    operator.access().rotate_operator_token(rotate).await.unwrap();
    assert_eq!(told(&mut stream).await, "CREDENTIAL_UNKNOWN");

    let (_, expiring) = mint().await;
    let mut stream = follow(&expiring, often).await;
    next(&mut stream).await.unwrap();
    clock.advance(std::time::Duration::from_secs(3_601));
    assert_eq!(told(&mut stream).await, "CREDENTIAL_UNKNOWN");
}
