//! Enrollment and what follows it over the port: repeats, races, renewal, rotation, and the end of a
//! certificate.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "enroll/identity.rs"]
mod identity;

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::ManualClock;
use credbroker::proto;
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT, now};
use support::{Caller, Enrolled, NewKey, Options, TestBroker, reason};
use tokio::task::JoinSet;

/// A broker whose clock the test sets.
async fn with_clock() -> (TestBroker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(now()));
    let options = Options {
        clock: Some(clock.clone()),
        ..Default::default()
    };
    (TestBroker::start_with(options).await, clock)
}

/// Whether the caller is taken for this agent; the reason where it is taken for nobody.
async fn who(caller: &Caller) -> Result<String, String> {
    match caller.access().who_am_i(proto::WhoAmIRequest {}).await {
        Ok(answer) => Ok(answer.into_inner().actor),
        Err(status) => Err(reason(&status)),
    }
}

fn refused<T>(reason: &str) -> Result<T, String> {
    Err(reason.to_owned())
}

async fn pool(operator: &Caller, max_agents: u32) -> (proto::EnrollmentToken, String) {
    let request = proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        max_agents,
        ..Default::default()
    };
    let made = operator.agents().create_enrollment_tokens(request).await.unwrap();
    let made = made.into_inner().tokens.remove(0);
    (made.enrollment_token.unwrap(), made.token.unwrap().value.clone())
}

async fn agents(operator: &Caller) -> Vec<proto::Agent> {
    let request = proto::ListAgentsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator.agents().list_agents(request).await.unwrap();
    // Being seen is no change.
    let unseen = |agent| proto::Agent {
        last_seen_time: None,
        ..agent
    };
    listed.into_inner().agents.into_iter().map(unseen).collect()
}

async fn tokens(operator: &Caller) -> Vec<proto::EnrollmentToken> {
    let request = proto::ListEnrollmentTokensRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator.agents().list_enrollment_tokens(request).await.unwrap();
    listed.into_inner().enrollment_tokens
}

/// Presents the token with each of the keys, all at once.
async fn all_at_once(
    broker: &Arc<TestBroker>,
    token: &str,
    keys: Vec<Arc<NewKey>>,
) -> Vec<Result<Enrolled, String>> {
    let mut presenting = JoinSet::new();
    for key in keys {
        let (broker, token) = (Arc::clone(broker), token.to_owned());
        presenting.spawn(async move {
            let enrolled = broker.enroll_with(&token, &key).await;
            enrolled.map_err(|status| reason(&status))
        });
    }
    presenting.join_all().await
}

// req: N3 K3
#[tokio::test]
async fn a_repeat_after_a_lost_answer_gives_the_same_agent_a_fresh_runtime_key() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    // Nobody sees the first answer.
    let lost = broker.enroll_with(&token, &key).await.unwrap();
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    let again = broker.enroll_with(&token, &key).await.unwrap();
    assert_eq!(again.agent, lost.agent);
    assert_ne!(again.runtime_key, lost.runtime_key);
    assert_eq!(agents(&operator).await.len(), 1);
    assert_eq!(tokens(&operator).await[0].bound_agents, 1);

    let agent = broker.agent(&again).await;
    assert_eq!(who(&agent).await, Ok(again.agent.clone()));
    assert_eq!(
        who(&broker.agent(&lost).await).await,
        refused("CREDENTIAL_UNKNOWN")
    );
    // The first use has closed the window.
    let late = broker.enroll_with(&token, &key).await.err().unwrap();
    assert_eq!(reason(&late), "ENROLLMENT_TOKEN_SPENT");
    assert_eq!(who(&agent).await, Ok(again.agent));
}

// req: N3
#[tokio::test]
async fn the_earlier_runtime_key_works_until_the_new_one_is_used() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    let first = broker.enroll_with(&token, &key).await.unwrap();
    let second = broker.enroll_with(&token, &key).await.unwrap();
    let (by_first, by_second) = (broker.agent(&first).await, broker.agent(&second).await);
    assert_eq!(who(&by_first).await, Ok(first.agent.clone()));
    assert_eq!(who(&by_first).await, Ok(first.agent.clone()));
    let late = broker.enroll_with(&token, &key).await.err().unwrap();
    assert_eq!(reason(&late), "ENROLLMENT_TOKEN_SPENT");
    assert_eq!(who(&by_second).await, Ok(first.agent));
    assert_eq!(who(&by_first).await, refused("CREDENTIAL_UNKNOWN"));
}

// req: N3 D4
#[tokio::test]
async fn a_repeat_after_the_window_is_refused() {
    let (broker, clock) = with_clock().await;
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    let enrolled = broker.enroll_with(&token, &key).await.unwrap();
    clock.advance(Duration::from_secs(599));
    broker.enroll_with(&token, &key).await.unwrap();
    clock.advance(Duration::from_secs(1));
    let late = broker.enroll_with(&token, &key).await.err().unwrap();
    assert_eq!(reason(&late), "ENROLLMENT_TOKEN_SPENT");
    // What was answered in time stays good.
    assert_eq!(who(&broker.agent(&enrolled).await).await, Ok(enrolled.agent));
}

// req: N3 D4
#[tokio::test]
async fn of_many_keys_at_once_one_gets_the_token() {
    let broker = Arc::new(TestBroker::start().await);
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let keys = (0..8).map(|_| Arc::new(NewKey::generate())).collect();
    let answers = all_at_once(&broker, &token, keys).await;
    let enrolled: Vec<_> = answers.iter().flatten().collect();
    assert_eq!(enrolled.len(), 1);
    let others: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert_eq!(others, ["ENROLLMENT_TOKEN_BOUND"; 7]);
    assert_eq!(agents(&operator).await.len(), 1);
    assert_eq!(tokens(&operator).await[0].bound_agents, 1);
    let records = operator.records().await;
    let alarms = records
        .iter()
        .filter(|record| record.action == "enrollment_token.alarm");
    assert_eq!(alarms.count(), 7);
    assert_eq!(
        who(&broker.agent(enrolled[0]).await).await,
        Ok(enrolled[0].agent.clone())
    );
}

// req: N3
#[tokio::test]
async fn one_key_many_times_at_once_is_one_agent() {
    let broker = Arc::new(TestBroker::start().await);
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = Arc::new(NewKey::generate());
    let answers = all_at_once(&broker, &token, vec![key; 8]).await;
    let enrolled: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(enrolled.iter().all(|answer| answer.agent == enrolled[0].agent));
    assert_eq!(agents(&operator).await.len(), 1);
    assert_eq!(tokens(&operator).await[0].bound_agents, 1);
    // Of the runtime keys two are left, the first and the last; the use of one may end the other.
    let mut good = 0;
    for answer in &enrolled {
        good += usize::from(who(&broker.agent(answer).await).await.is_ok());
    }
    assert!((1..=2).contains(&good), "{good} runtime keys were good");
}

// req: D4 N3
#[tokio::test]
async fn a_pool_token_enrolls_as_many_as_it_says() {
    let broker = Arc::new(TestBroker::start().await);
    let operator = broker.prepare().await;
    let (minted, token) = pool(&operator, 3).await;
    let keys: Vec<_> = (0..6).map(|_| Arc::new(NewKey::generate())).collect();
    let answers = all_at_once(&broker, &token, keys.clone()).await;
    let mut enrolled: Vec<_> = answers
        .iter()
        .flatten()
        .map(|answer| answer.agent.clone())
        .collect();
    let others: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert_eq!(others, ["ENROLLMENT_TOKEN_SPENT"; 3]);
    enrolled.sort();
    enrolled.dedup();
    assert_eq!(enrolled.len(), 3);
    assert_eq!(tokens(&operator).await[0].bound_agents, 3);

    // Each slot is recorded by itself, and each stranger too.
    let records = operator.records().await;
    let mut recorded: Vec<_> = records
        .iter()
        .filter(|record| {
            record.action == "agent.enroll" && record.phase == "finish" && record.outcome == "allowed"
        })
        .map(|record| {
            assert_eq!(record.subject["enrollment_token"], minted.id);
            record.subject["agent"].clone()
        })
        .collect();
    recorded.sort();
    assert_eq!(recorded, enrolled);
    let alarms = records
        .iter()
        .filter(|record| record.action == "enrollment_token.alarm");
    assert_eq!(alarms.count(), 3);

    // A bound key of a full pool may still repeat; each slot closes by itself.
    let mut repeated = 0;
    for key in &keys {
        match broker.enroll_with(&token, key).await {
            Ok(again) => {
                assert!(enrolled.contains(&again.agent));
                repeated += 1;
            }
            Err(status) => assert_eq!(reason(&status), "ENROLLMENT_TOKEN_SPENT"),
        }
    }
    assert_eq!(repeated, 3);
}

// req: D4 D8
#[tokio::test]
async fn a_token_bound_to_a_task_assigns_the_agent_and_labels_it() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let request = proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        task: task.clone(),
        labels: [("team".to_owned(), "red".to_owned())].into(),
        ..Default::default()
    };
    let minted = operator
        .agents()
        .create_enrollment_tokens(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(minted.ca_pin, broker.pin);
    let token = minted.tokens[0].token.clone().unwrap();
    let key = NewKey::generate();
    let request = proto::EnrollRequest {
        token: Some(token),
        csr_der: key.csr(),
        attributes: [("host".to_owned(), "sandbox-1".to_owned())].into(),
    };
    let caller = broker.caller(None).await;
    let answer = caller.enrollment().enroll(request).await.unwrap().into_inner();
    assert_eq!(answer.tasks, [task.as_str()]);
    let enrolled = Enrolled::new(answer, &key);
    let listed = agents(&operator).await.remove(0);
    assert_eq!(listed.id, enrolled.agent);
    assert_eq!(listed.labels["team"], "red");
    assert_eq!(listed.attributes["host"], "sandbox-1");
    assert!(listed.key_fingerprint.starts_with("sha256:"));

    let request = proto::GetTaskRequest {
        org: ORG.to_owned(),
        task: task.clone(),
    };
    let shown = operator
        .tasks()
        .get_task(request)
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap();
    assert_eq!(shown.agents, [enrolled.agent.as_str()]);
    let lease = broker
        .agent(&enrolled)
        .await
        .resolve("")
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!(lease.task, task);

    // A task that has ended takes no new tokens.
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: task.clone(),
    };
    operator.tasks().end_task(end).await.unwrap();
    let request = proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        task,
        ..Default::default()
    };
    let status = operator
        .agents()
        .create_enrollment_tokens(request)
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "TASK_ENDED");
}

// req: D6 K7
#[tokio::test]
async fn revoking_a_token_leaves_its_agents_alone() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (minted, token) = pool(&operator, 2).await;
    let (used, unused) = (NewKey::generate(), NewKey::generate());
    let enrolled = broker.enroll_with(&token, &used).await.unwrap();
    let silent = broker.enroll_with(&token, &unused).await.unwrap();
    let agent = broker.agent(&enrolled).await;
    assert_eq!(who(&agent).await, Ok(enrolled.agent.clone()));
    let request = proto::RevokeEnrollmentTokenRequest {
        org: ORG.to_owned(),
        enrollment_token: minted.id,
        ..Default::default()
    };
    let revoked = operator
        .agents()
        .revoke_enrollment_token(request.clone())
        .await
        .unwrap();
    let revoked = revoked.into_inner().enrollment_token.unwrap();
    assert!(revoked.revoke_time.is_some());
    assert_eq!(tokens(&operator).await, std::slice::from_ref(&revoked));
    let again = operator.agents().revoke_enrollment_token(request).await.unwrap();
    assert_eq!(again.into_inner().enrollment_token.unwrap(), revoked);

    assert_eq!(who(&agent).await, Ok(enrolled.agent.clone()));
    assert_eq!(who(&broker.agent(&enrolled).await).await, Ok(enrolled.agent));
    assert_eq!(who(&broker.agent(&silent).await).await, Ok(silent.agent));
    for key in [&used, &unused, &NewKey::generate()] {
        let status = broker.enroll_with(&token, key).await.err().unwrap();
        assert_eq!(reason(&status), "ENROLLMENT_TOKEN_REVOKED");
    }
}

// req: D6 N3
#[tokio::test]
async fn a_revoked_agent_cannot_come_back_by_repeating_its_enrollment() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let token = operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    let enrolled = broker.enroll_with(&token, &key).await.unwrap();
    let request = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(request).await.unwrap();
    let status = broker.enroll_with(&token, &key).await.err().unwrap();
    assert_eq!(reason(&status), "ENROLLMENT_TOKEN_SPENT");
    assert!(broker.is_kept_out(&enrolled).await);
}

// An agent that keeps changing its own record must not be able to hold its revocation off.
// req: D6
#[tokio::test]
async fn a_busy_agent_cannot_hold_its_revocation_off() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    for _ in 0..3 {
        let enrolled = broker.enroll(&operator, "").await;
        let mut busy = JoinSet::new();
        for _ in 0..4 {
            let agent = broker.agent(&enrolled).await;
            busy.spawn(async move {
                let mut enrollment = agent.enrollment();
                loop {
                    let rotated = enrollment
                        .rotate_runtime_key(proto::RotateRuntimeKeyRequest {})
                        .await;
                    match rotated.map_err(|status| reason(&status)) {
                        Err(told) if told == "CREDENTIAL_UNKNOWN" => return,
                        Ok(_) => {}
                        Err(told) => assert_eq!(told, "CONFLICT"),
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let request = proto::RevokeAgentRequest {
            org: ORG.to_owned(),
            agent: enrolled.agent.clone(),
            ..Default::default()
        };
        operator.agents().revoke_agent(request).await.unwrap();
        let over = tokio::time::timeout(Duration::from_secs(20), busy.join_all()).await;
        over.expect("the agent still acts");
    }
}
