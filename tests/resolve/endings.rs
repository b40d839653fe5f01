//! What ends, ends: tasks, leases, credentials and callers; and who is resolving at that moment loses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use credbroker::clock::ManualClock;
use credbroker::proto;
use tokio::task::JoinSet;

use crate::support::broker::{MEMBER, ORG, now};
use crate::support::client::secret;
use crate::support::{Caller, Options, TestBroker, reason};
use crate::{resolutions, task_with};

async fn end(operator: &Caller, task: &str) {
    let request = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: task.to_owned(),
    };
    operator.tasks().end_task(request).await.unwrap();
}

fn rejected(lease: &str) -> proto::RefreshTokenRequest {
    proto::RefreshTokenRequest {
        lease: lease.to_owned(),
        rejected_generation: 1,
        ..Default::default()
    }
}

// req: D8 K6
#[tokio::test]
async fn an_ended_or_expired_task_gets_nothing_more() {
    let clock = Arc::new(ManualClock::at(now()));
    let options = Options {
        clock: Some(clock.clone()),
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;

    let ended = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &ended).await).await;
    let lease = agent.resolve(&ended).await.unwrap().lease.unwrap();
    automation.resolve(&ended).await.unwrap();
    let before = resolutions(&operator).await;
    end(&operator, &ended).await;
    for caller in [&agent, &automation] {
        let status = caller.resolve(&ended).await.unwrap_err();
        assert_eq!(reason(&status), "TASK_ENDED");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    }
    let status = agent
        .broker()
        .refresh_token(rejected(&lease.id))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "TASK_ENDED");
    // Nor does it count when the agent names none.
    assert_eq!(reason(&agent.resolve("").await.unwrap_err()), "TASK_REQUIRED");

    let minute = Some(prost_types::Duration {
        seconds: 60,
        nanos: 0,
    });
    let expiring = task_with(&operator, |task| task.ttl = minute).await;
    let agent = broker.agent(&broker.enroll(&operator, &expiring).await).await;
    // A lease never outlives its task.
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    let task = proto::GetTaskRequest {
        org: ORG.to_owned(),
        task: expiring.clone(),
    };
    let task = operator
        .tasks()
        .get_task(task)
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap();
    assert_eq!(lease.expire_time, task.expire_time);
    clock.advance(Duration::from_secs(60));
    for caller in [&agent, &automation] {
        assert_eq!(
            reason(&caller.resolve(&expiring).await.unwrap_err()),
            "TASK_EXPIRED"
        );
    }
    let after = resolutions(&operator).await;
    assert_eq!((after.0, after.1), (before.0 + 1, before.1 + 1));
}

// req: B6 D8
#[tokio::test]
async fn a_lease_that_was_given_back_or_ran_out_is_followed_by_another() {
    let clock = Arc::new(ManualClock::at(now()));
    let options = Options {
        clock: Some(clock.clone()),
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let first = agent.resolve("").await.unwrap().lease.unwrap();
    let release = proto::ReleaseLeaseRequest {
        lease: first.id.clone(),
    };
    for _ in 0..2 {
        agent.broker().release_lease(release.clone()).await.unwrap();
    }
    let status = agent
        .broker()
        .refresh_token(rejected(&first.id))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "LEASE_ENDED");
    let second = agent.resolve("").await.unwrap().lease.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.credential, first.credential);
    // The configured life of a lease is an hour.
    clock.advance(Duration::from_secs(3_600));
    let status = agent
        .broker()
        .refresh_token(rejected(&second.id))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "LEASE_ENDED");
    let third = agent.resolve("").await.unwrap().lease.unwrap();
    assert!(third.id != second.id && third.id != first.id);
    let records = operator.records().await;
    let released = records
        .iter()
        .filter(|record| record.action == "lease.release" && record.phase == "finish");
    assert_eq!(released.count(), 1, "giving it back again is nothing new");
}

// req: A10(core) B2
#[tokio::test]
async fn a_removed_credential_ends_a_pin() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let own = operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(secret(&lease), "the-members-key-0000");
    let remove = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: own.id,
    };
    operator.credentials().remove_credential(remove).await.unwrap();
    let status = agent
        .broker()
        .refresh_token(rejected(&lease.id))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
    let next = agent.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(secret(&next), "the-orgs-own-key-000");
    assert_ne!(next.id, lease.id);
    // The pin has moved for good: a new key of the member's is for new tasks.
    operator.set_key(ORG, MEMBER, "the-members-next-key").await;
    assert_eq!(agent.resolve("").await.unwrap().lease.unwrap(), next);
}

/// Callers that resolve as fast as they can until they are refused. Gives the leases handed out and whether
/// any call that began after `over` was set got something.
fn resolving(
    agents: Vec<Caller>,
    tasks: Vec<String>,
    over: &Arc<AtomicBool>,
) -> JoinSet<(Vec<String>, bool)> {
    let mut all = JoinSet::new();
    for (n, agent) in agents.into_iter().enumerate() {
        let (tasks, over) = (tasks.clone(), Arc::clone(over));
        all.spawn(async move {
            let (mut leases, mut late) = (Vec::new(), false);
            for task in tasks.iter().cycle().skip(n) {
                let began_late = over.load(Ordering::SeqCst);
                match agent.resolve(task).await {
                    Ok(answer) => {
                        leases.push(answer.lease.unwrap().id);
                        late |= began_late;
                    }
                    Err(status) if reason(&status) == "CREDENTIAL_UNKNOWN" => break,
                    // The lease was ended, or the record changed, in between.
                    Err(status) => assert_eq!(reason(&status), "CONFLICT"),
                }
                if late {
                    break;
                }
            }
            (leases, late)
        });
    }
    all
}

async fn joined(all: JoinSet<(Vec<String>, bool)>) -> Vec<String> {
    let joined = tokio::time::timeout(Duration::from_secs(30), all.join_all()).await;
    let mut leases = Vec::new();
    for (handed_out, late) in joined.expect("somebody still resolves") {
        assert!(
            !late,
            "a resolution that began after the revocation had been answered got something"
        );
        leases.extend(handed_out);
    }
    leases.sort();
    leases.dedup();
    leases
}

// req: D6 D8 N4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolution_that_races_its_agents_revocation_loses() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        tasks.push(operator.make_task(ORG, MEMBER).await);
    }
    for round in 0..6 {
        let enrolled = broker.enroll(&operator, "").await;
        for task in &tasks {
            let assign = proto::AssignTaskRequest {
                org: ORG.to_owned(),
                task: task.clone(),
                agents: vec![enrolled.agent.clone()],
            };
            operator.tasks().assign_task(assign).await.unwrap();
        }
        let agent = broker.agent(&enrolled).await;
        agent.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let all = resolving(vec![agent; 16], tasks.clone(), &over);
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        let revoke = proto::RevokeAgentRequest {
            org: ORG.to_owned(),
            agent: enrolled.agent,
            ..Default::default()
        };
        let revoked = operator.agents().revoke_agent(revoke).await.unwrap().into_inner();
        over.store(true, Ordering::SeqCst);
        let leases = joined(all).await;
        let mut outstanding: Vec<_> = revoked.outstanding.into_iter().map(|held| held.lease).collect();
        outstanding.sort();
        for lease in &leases {
            assert!(
                outstanding.contains(lease),
                "{lease} was handed out and is not listed"
            );
        }
    }
}

// req: D6 K6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolution_that_races_its_api_keys_revocation_loses() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        tasks.push(operator.make_task(ORG, MEMBER).await);
    }
    for round in 0..4 {
        let (api_key, key) = operator.make_api_key(ORG).await;
        let automation = broker.caller(Some(&key)).await;
        let over = Arc::new(AtomicBool::new(false));
        let all = resolving(vec![automation; 16], tasks.clone(), &over);
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        let revoke = proto::RevokeApiKeyRequest {
            org: ORG.to_owned(),
            api_key,
        };
        operator.access().revoke_api_key(revoke).await.unwrap();
        over.store(true, Ordering::SeqCst);
        joined(all).await;
    }
}
