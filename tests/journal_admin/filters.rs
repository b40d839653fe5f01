//! Finding records.

use credbroker::proto::{self, RecordFilter};
use prost_types::Timestamp;

use super::{PATIENCE, fill, found};
use crate::support::broker::{MEMBER, ORG};
use crate::support::client::details;
use crate::support::{TestBroker, reason};

fn positions(records: &[proto::JournalRecord]) -> Vec<u64> {
    records.iter().map(|record| record.position).collect()
}

// req: N6
#[tokio::test]
async fn every_filter_finds_what_it_names_and_nothing_else() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let member = operator.make_member(ORG, "kim").await;
    let key = operator.set_key(ORG, "kim", "the-members-key-0000").await;
    let task = operator.make_task(ORG, "kim").await;
    let other_task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    agent.resolve(&task).await.unwrap();
    agent.resolve(&other_task).await.unwrap_err();
    let assign = proto::AssignTaskRequest {
        org: ORG.to_owned(),
        task: other_task.clone(),
        agents: vec![enrolled.agent.clone()],
    };
    operator.tasks().assign_task(assign).await.unwrap();
    operator.make_org("other").await;

    let all = operator.records().await;
    let about = |kind: &'static str, id: &str| {
        let id = id.to_owned();
        move |record: &proto::JournalRecord| record.subject.get(kind) == Some(&id)
    };
    let middle = all[all.len() / 2].time.unwrap();
    let (member_id, agent_id) = (member.id.clone(), enrolled.agent.clone());
    let at = |record: &proto::JournalRecord| record.time.map(|time| (time.seconds, time.nanos)).unwrap();
    type Fits = Box<dyn Fn(&proto::JournalRecord) -> bool>;
    let filter = RecordFilter::default;
    let cases: Vec<(&str, RecordFilter, Fits)> = vec![
        ("nothing", filter(), Box::new(|_| true)),
        (
            "actor",
            RecordFilter {
                actor: agent_id.clone(),
                ..filter()
            },
            Box::new({
                let id = agent_id.clone();
                move |record| record.actor == id
            }),
        ),
        (
            "member",
            RecordFilter {
                member: member.id.clone(),
                ..filter()
            },
            Box::new(move |record| {
                ["member", "mbr", "owner"]
                    .iter()
                    .any(|kind| record.subject.get(*kind) == Some(&member_id))
            }),
        ),
        (
            "credential",
            RecordFilter {
                credential: key.id.clone(),
                ..filter()
            },
            Box::new(about("credential", &key.id)),
        ),
        (
            "task",
            RecordFilter {
                task: task.clone(),
                ..filter()
            },
            Box::new(about("task", &task)),
        ),
        (
            "agent",
            RecordFilter {
                agent: agent_id.clone(),
                ..filter()
            },
            Box::new(move |record| {
                record.actor == agent_id
                    || ["agent", "agents"]
                        .iter()
                        .any(|kind| record.subject.get(*kind) == Some(&agent_id))
            }),
        ),
        (
            "reason",
            RecordFilter {
                reason: "NOT_FOUND".to_owned(),
                ..filter()
            },
            Box::new(|record| record.reason == "NOT_FOUND"),
        ),
        (
            "action",
            RecordFilter {
                action: "task.create".to_owned(),
                ..filter()
            },
            Box::new(|record| record.action == "task.create"),
        ),
        (
            "outcome",
            RecordFilter {
                outcome: "denied".to_owned(),
                ..filter()
            },
            Box::new(|record| record.outcome == "denied"),
        ),
        (
            "since",
            RecordFilter {
                since: Some(middle),
                ..filter()
            },
            Box::new(move |record| at(record) >= (middle.seconds, middle.nanos)),
        ),
        (
            "until",
            RecordFilter {
                until: Some(middle),
                ..filter()
            },
            Box::new(move |record| at(record) < (middle.seconds, middle.nanos)),
        ),
        (
            "two at once",
            RecordFilter {
                action: "credential.resolve".to_owned(),
                outcome: "allowed".to_owned(),
                ..filter()
            },
            Box::new(|record| record.action == "credential.resolve" && record.outcome == "allowed"),
        ),
    ];
    for (name, filter, fits) in cases {
        let expected: Vec<u64> = all
            .iter()
            .filter(|record| fits(record))
            .map(|record| record.position)
            .collect();
        assert!(
            !expected.is_empty() && (name == "nothing" || expected.len() < all.len()),
            "{name}"
        );
        for size in [0, 2] {
            assert_eq!(
                positions(&found(&operator, "", filter.clone(), size).await),
                expected,
                "{name}"
            );
        }
        let own: Vec<u64> = found(&operator, ORG, filter, 0)
            .await
            .iter()
            .map(|record| record.position)
            .collect();
        assert!(
            own.iter().all(|position| expected.contains(position)),
            "{name}, of one org"
        );
    }
    // Where the org is known a member may be named.
    let by_name = RecordFilter {
        member: "kim".to_owned(),
        ..filter()
    };
    let by_id = RecordFilter {
        member: member.id,
        ..filter()
    };
    assert_eq!(
        positions(&found(&operator, ORG, by_name.clone(), 0).await),
        positions(&found(&operator, ORG, by_id, 0).await)
    );
    let request = proto::ListRecordsRequest {
        filter: Some(by_name),
        ..Default::default()
    };
    let refused = operator.journal().list_records(request).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
}

// req: N6 B9(core)
#[tokio::test]
async fn a_filter_that_names_nothing_is_refused() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    let far = Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    };
    let filter = RecordFilter::default;
    for (field, filter) in [
        (
            "filter.actor",
            RecordFilter {
                actor: "x".repeat(65),
                ..filter()
            },
        ),
        (
            "filter.member",
            RecordFilter {
                member: "kim".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.credential",
            RecordFilter {
                credential: "tsk_1".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.task",
            RecordFilter {
                task: "*".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.agent",
            RecordFilter {
                agent: "agt_".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.reason",
            RecordFilter {
                reason: "NOT_A_REASON".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.action",
            RecordFilter {
                action: "credential.".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.outcome",
            RecordFilter {
                outcome: "ALLOWED".to_owned(),
                ..filter()
            },
        ),
        (
            "filter.since",
            RecordFilter {
                since: Some(far),
                ..filter()
            },
        ),
        (
            "filter.until",
            RecordFilter {
                until: Some(far),
                ..filter()
            },
        ),
    ] {
        let list = proto::ListRecordsRequest {
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let follow = proto::FollowRecordsRequest {
            filter: Some(filter),
            ..Default::default()
        };
        for status in [
            operator.journal().list_records(list).await.unwrap_err(),
            operator.journal().follow_records(follow).await.err().unwrap(),
        ] {
            assert_eq!(reason(&status), "INVALID_ARGUMENT");
            let details = details(&status);
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
        }
    }
}

/// One call looks at so many records and no more; the position says where to go on.
// req: N6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_finds_nothing_ends_and_goes_on() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    let fills = (0..8).map(|_| fill(&broker, 1_300));
    tokio::time::timeout(PATIENCE, futures_util::future::join_all(fills))
        .await
        .unwrap();
    let request = proto::ListRecordsRequest {
        filter: Some(RecordFilter {
            outcome: "failed".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let page = operator
        .journal()
        .list_records(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.records.len(), page.position), (0, 10_000));
    assert!(page.tip_position > 10_000);
    let request = proto::ListRecordsRequest {
        page_token: page.next_page_token,
        ..request
    };
    let page = operator
        .journal()
        .list_records(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.records.len(), page.position), (0, page.tip_position));
}
