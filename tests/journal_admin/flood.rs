//! A flood of refusals: few records, and none uncounted.

use std::collections::BTreeMap;

use credbroker::proto::{self, RecordFilter};
use futures_util::stream::{self, StreamExt as _};

use super::found;
use crate::support::broker::{MEMBER, ORG};
use crate::support::{Caller, NewKey, TestBroker, reason};

/// How many refusals the records of an action tell of, by reason, and how many records they are.
async fn told(operator: &Caller, action: &str) -> BTreeMap<String, (u64, usize)> {
    let filter = RecordFilter {
        action: action.to_owned(),
        outcome: "denied".to_owned(),
        ..Default::default()
    };
    let mut told = BTreeMap::new();
    for record in found(operator, "", filter, 0).await {
        assert_eq!(record.phase, "single");
        let count = record
            .subject
            .get("count")
            .map_or(1, |count| count.parse().unwrap());
        let entry: &mut (u64, usize) = told.entry(record.reason).or_default();
        entry.0 += count;
        entry.1 += 1;
    }
    told
}

async fn whoami(caller: &Caller) -> String {
    let refused = caller
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap_err();
    reason(&refused)
}

// req: N6 D1
#[tokio::test]
async fn a_caller_who_is_not_let_in_is_recorded_before_it_is_told() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    assert_eq!(whoami(&broker.caller(None).await).await, "CREDENTIAL_MISSING");
    let records = operator.records().await;
    let record = records.last().unwrap();
    assert_eq!((&*record.action, &*record.outcome), ("request.refuse", "denied"));
    assert_eq!(
        (&*record.reason, &*record.actor),
        ("CREDENTIAL_MISSING", "anonymous")
    );
    assert_eq!(record.subject["peer"], "127.0.0.1");
    assert_eq!(record.subject["call"], "/credbroker.v1.AccessService/WhoAmI");
    // Of an agent it is known which one, by its certificate, and so is its org.
    broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    agent.resolve(&task).await.unwrap_err();
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(revoke).await.unwrap();
    let refused = reason(&agent.resolve(&task).await.unwrap_err());
    let records = operator.records().await;
    let record = records.last().unwrap();
    assert_eq!((&*record.action, &record.reason), ("request.refuse", &refused));
    assert_eq!(record.subject["agent"], enrolled.agent);
    assert!(record.org.starts_with("org_"));
}

// req: N6 D1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_calls_leaves_few_records_that_add_up() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    let nobody = broker.caller(None).await;
    let nonsense = broker.caller(Some("sk-ant-api03-hello")).await;
    let calls = stream::iter(0..5_000_u32).map(|number| {
        let caller = if number % 5 == 0 { &nonsense } else { &nobody };
        whoami(caller)
    });
    let reasons: Vec<String> = calls.buffer_unordered(64).collect().await;
    assert_eq!(reasons.len(), 5_000);
    let during = told(&operator, "request.refuse").await;
    assert_eq!(
        during["CREDENTIAL_MISSING"],
        (10, 10),
        "the first few, one by one"
    );

    // The window closes with the broker, at the latest.
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    let told = told(&operator, "request.refuse").await;
    assert_eq!(told["CREDENTIAL_MISSING"], (4_000, 11));
    assert_eq!(told["WRONG_CREDENTIAL_FAMILY"], (1_000, 11));
    assert_eq!(told.len(), 2);
    let summed = operator.records().await;
    let summary = summed
        .iter()
        .find(|record| record.subject.contains_key("count"))
        .unwrap();
    assert_eq!(
        (&*summary.actor, &*summary.subject["network"]),
        ("anonymous", "127.0.0.0/24")
    );
    let time = |kind: &str| summary.subject[kind].parse::<i64>().unwrap();
    assert!(time("first") <= time("last"));
}

// req: N6
#[tokio::test]
async fn refusals_of_actors_and_of_tokens_are_summarized_by_who_and_why() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let first = broker.enroll(&operator, &task).await;
    let second = broker.enroll(&operator, &task).await;
    let agents = [broker.agent(&first).await, broker.agent(&second).await];
    let foreign = format!("tsk_{}", "0".repeat(32));
    for number in 0..40 {
        for agent in &agents {
            let task = if number < 25 { &task } else { &foreign };
            agent.resolve(task).await.unwrap_err();
        }
    }
    // An alarm about one token says nothing about the next one.
    for _ in 0..2 {
        let token = operator.enrollment_token(ORG, "").await;
        broker.enroll_with(&token, &NewKey::generate()).await.unwrap();
        for _ in 0..13 {
            broker
                .enroll_with(&token, &NewKey::generate())
                .await
                .err()
                .unwrap();
        }
    }
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    let resolves = told(&operator, "credential.resolve").await;
    assert_eq!(resolves["NO_CREDENTIAL_CONFIGURED"], (50, 22));
    assert_eq!(resolves["NOT_FOUND"], (30, 22));
    let alarms = told(&operator, "enrollment_token.alarm").await;
    assert_eq!(alarms["ENROLLMENT_TOKEN_BOUND"], (26, 22));
    let records = operator.records().await;
    let summaries = records
        .iter()
        .filter(|record| record.subject.contains_key("count"));
    for record in summaries {
        let by_agent = [&first.agent, &second.agent].contains(&&record.actor);
        let by_token = record.subject.contains_key("enrollment_token");
        assert!(by_agent != by_token, "{record:?}");
        assert!(record.org.starts_with("org_"), "all of them were of one org");
    }
}
