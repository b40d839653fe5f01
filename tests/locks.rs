//! Locks: what they stop, at once and for as long as they hold, and what goes on again after them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use credbroker::domain::actor::{Actor, AgentActor, Caller as Who, Shown};
use credbroker::domain::role::Reach;
use credbroker::proto::{self, lock_target::Target};
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use support::client::metadata;
use support::clock::MovedClock;
use support::{Caller, NewKey, Options, TestBroker, reason};
use tonic::Status;

async fn try_lock(
    caller: &Caller,
    target: Target,
    ttl: Option<Duration>,
) -> Result<proto::CreateLockResponse, Status> {
    let request = proto::CreateLockRequest {
        org: ORG.to_owned(),
        target: Some(proto::LockTarget {
            target: Some(target),
            project: PROJECT.to_owned(),
        }),
        message: "call Kim".to_owned(),
        ttl: ttl.map(|ttl| ttl.try_into().unwrap()),
        ..Default::default()
    };
    Ok(caller.locks().create_lock(request).await?.into_inner())
}

async fn lock(caller: &Caller, target: Target) -> proto::Lock {
    try_lock(caller, target, None).await.unwrap().lock.unwrap()
}

async fn unlock(caller: &Caller, lock: &str) -> Result<proto::Lock, Status> {
    let request = proto::RemoveLockRequest {
        org: ORG.to_owned(),
        lock: lock.to_owned(),
    };
    Ok(caller
        .locks()
        .remove_lock(request)
        .await?
        .into_inner()
        .lock
        .unwrap())
}

async fn locks(caller: &Caller) -> Vec<proto::Lock> {
    let request = proto::ListLocksRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    caller
        .locks()
        .list_locks(request)
        .await
        .unwrap()
        .into_inner()
        .locks
}

/// An agent with a task, and automation, in an org with two keys: the member's and the org's.
struct Place {
    broker: TestBroker,
    operator: Caller,
    agent: Caller,
    agent_id: String,
    automation: Caller,
    task: String,
    credential: String,
    member: String,
}

async fn place(options: Options) -> Place {
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let credential = operator.set_key(ORG, MEMBER, "the-members-own-key-0").await.id;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;
    let request = proto::GetMemberRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
    };
    let member = operator
        .directory()
        .get_member(request)
        .await
        .unwrap()
        .into_inner();
    Place {
        broker,
        operator,
        agent,
        agent_id: enrolled.agent,
        automation,
        task,
        credential,
        member: member.member.unwrap().id,
    }
}

impl Place {
    /// What the agent and automation are told when they resolve: `ok`, or the reason.
    async fn told(&self) -> (String, String) {
        let told =
            |answer: Result<_, Status>| answer.map_or_else(|status| reason(&status), |_| "ok".to_owned());
        let agent = told(self.agent.resolve(&self.task).await);
        (agent, told(self.automation.resolve(&self.task).await))
    }
}

fn pair(agent: &str, automation: &str) -> (String, String) {
    (agent.to_owned(), automation.to_owned())
}

// req: D6
#[tokio::test]
async fn a_lock_stops_what_it_says_and_nothing_else_until_it_is_removed() {
    let place = place(Options::default()).await;
    let both = pair("ok", "ok");
    assert_eq!(place.told().await, both);
    let cases = [
        (Target::Agent(place.agent_id.clone()), pair("LOCKED", "ok")),
        (Target::Environment(ENVIRONMENT.to_owned()), pair("LOCKED", "ok")),
        (Target::Member(MEMBER.to_owned()), pair("LOCKED", "LOCKED")),
        // The org has a key too, which is not taken in place of a locked one.
        (
            Target::Credential(place.credential.clone()),
            pair("LOCKED", "LOCKED"),
        ),
        (Target::Org(true), pair("LOCKED", "LOCKED")),
    ];
    for (target, expected) in cases {
        let made = lock(&place.operator, target.clone()).await;
        assert_eq!(place.told().await, expected, "{target:?}");
        let status = place.agent.resolve(&place.task).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains("call Kim"), "{status:?}");
        assert_eq!(metadata(&status, "lock"), made.id);
        assert_eq!(metadata(&status, "subject"), made.subject);
        assert_eq!(locks(&place.operator).await, std::slice::from_ref(&made));
        assert_eq!(unlock(&place.operator, &made.id).await.unwrap(), made);
        assert_eq!(place.told().await, both, "{target:?} removed");
        let again = unlock(&place.operator, &made.id).await.unwrap_err();
        assert_eq!(reason(&again), "NOT_FOUND");
    }
    let records = place.operator.records().await;
    for action in ["lock.create", "lock.remove"] {
        let ours = records.iter().filter(|record| record.action == action);
        assert_eq!(ours.count(), 2 * 5, "begin and finish of each {action}");
    }
}

// req: D6
#[tokio::test]
async fn two_locks_on_one_thing_hold_until_both_are_gone() {
    let place = place(Options::default()).await;
    let first = lock(&place.operator, Target::Agent(place.agent_id.clone())).await;
    let second = lock(&place.operator, Target::Agent(place.agent_id.clone())).await;
    unlock(&place.operator, &first.id).await.unwrap();
    assert_eq!(place.told().await, pair("LOCKED", "ok"));
    unlock(&place.operator, &second.id).await.unwrap();
    assert_eq!(place.told().await, pair("ok", "ok"));
}

// req: D6
#[tokio::test]
async fn a_lock_holds_over_a_restart_and_ends_at_its_time() {
    let clock = Arc::new(MovedClock::default());
    let options = Options {
        clock: Some(clock.clone()),
        ..Default::default()
    };
    let mut place = place(options).await;
    let ttl = Some(Duration::from_secs(600));
    let target = Target::Agent(place.agent_id.clone());
    try_lock(&place.operator, target, ttl).await.unwrap();
    let mut forever = lock(&place.operator, Target::Member(MEMBER.to_owned())).await;
    place.broker = place.broker.restart().await;
    place.operator = place.broker.operator().await;
    assert_eq!(locks(&place.operator).await.len(), 2);

    // Another agent, of the environment that is not locked: it is the member's lock that stops it.
    let enrolled = place.broker.enroll(&place.operator, &place.task).await;
    place.agent = place.broker.agent(&enrolled).await;
    let status = place.agent.resolve(&place.task).await.unwrap_err();
    assert_eq!(metadata(&status, "subject"), place.member);
    unlock(&place.operator, &forever.id).await.unwrap();
    place.agent.resolve(&place.task).await.unwrap();

    forever = lock(&place.operator, Target::Agent(enrolled.agent.clone())).await;
    try_lock(&place.operator, Target::Environment(ENVIRONMENT.to_owned()), ttl)
        .await
        .unwrap();
    unlock(&place.operator, &forever.id).await.unwrap();
    assert_eq!(
        reason(&place.agent.resolve(&place.task).await.unwrap_err()),
        "LOCKED"
    );
    clock.advance(Duration::from_secs(601));
    place.agent.resolve(&place.task).await.unwrap();
    // What has expired is removed in time, and that is recorded.
    place.broker.broker.collect().await.unwrap();
    assert_eq!(locks(&place.operator).await, []);
}

// req: D6
#[tokio::test]
async fn nobody_enrolls_into_what_is_locked_and_the_token_stays_good() {
    let place = place(Options::default()).await;
    let token = place.operator.enrollment_token(ORG, "").await;
    let key = NewKey::generate();
    for target in [Target::Environment(ENVIRONMENT.to_owned()), Target::Org(true)] {
        let made = lock(&place.operator, target).await;
        let refused = place.broker.enroll_with(&token, &key).await.err().unwrap();
        assert_eq!(reason(&refused), "LOCKED");
        // A stranger is told nothing about locks.
        let stranger = place.operator.enrollment_token(ORG, "").await;
        let wrong = format!("{}x", &stranger[..stranger.len() - 1]);
        let refused = place.broker.enroll_with(&wrong, &key).await.err().unwrap();
        assert_ne!(reason(&refused), "LOCKED");
        unlock(&place.operator, &made.id).await.unwrap();
    }
    place.broker.enroll_with(&token, &key).await.unwrap();
}

// req: D6 D3
#[tokio::test]
async fn automation_stops_an_agent_and_nothing_else_and_lets_nothing_go() {
    let place = place(Options::default()).await;
    let made = lock(&place.automation, Target::Agent(place.agent_id.clone())).await;
    assert!(made.actor.starts_with("key_") && !made.by_system);
    assert_eq!(place.told().await, pair("LOCKED", "ok"));
    for target in [
        Target::Member(MEMBER.to_owned()),
        Target::Environment(ENVIRONMENT.to_owned()),
        Target::Org(true),
        Target::Credential(place.credential.clone()),
    ] {
        let refused = try_lock(&place.automation, target, None).await.unwrap_err();
        assert_eq!(reason(&refused), "PERMISSION_DENIED");
    }
    let refused = unlock(&place.automation, &made.id).await.unwrap_err();
    assert_eq!(reason(&refused), "WRONG_CREDENTIAL_FAMILY");
    assert!(lock(&place.operator, Target::Org(true)).await.by_system);
    let refused = try_lock(&place.automation, Target::Agent(place.agent_id.clone()), None).await;
    assert_eq!(reason(&refused.unwrap_err()), "LOCKED");
}

// req: D6
#[tokio::test]
async fn the_broker_itself_locks_an_agent_once() {
    let place = place(Options::default()).await;
    let (org, agent) = (locks_org(&place).await, place.agent_id.parse().unwrap());
    let broker = &place.broker.broker;
    let first = broker.lock_agent(org, agent, "seen twice").await.unwrap();
    let second = broker.lock_agent(org, agent, "seen twice").await.unwrap();
    assert_eq!(first, second);
    assert_eq!(place.told().await, pair("LOCKED", "ok"));
    let listed = locks(&place.operator).await;
    assert_eq!((listed.len(), listed[0].actor.as_str()), (1, "broker"));
    unlock(&place.operator, &listed[0].id).await.unwrap();
    assert_eq!(place.told().await, pair("ok", "ok"));
}

async fn locks_org(place: &Place) -> credbroker::domain::id::OrgId {
    let request = proto::GetOrgRequest { org: ORG.to_owned() };
    let org = place
        .operator
        .directory()
        .get_org(request)
        .await
        .unwrap()
        .into_inner();
    org.org.unwrap().id.parse().unwrap()
}

// req: D6 N4
#[tokio::test]
async fn streams_end_with_the_lock_and_open_again_after_it() {
    let place = place(Options::default()).await;
    let org = locks_org(&place).await;
    let request = proto::GetAgentRequest {
        org: ORG.to_owned(),
        agent: place.agent_id.clone(),
    };
    let agent = place
        .operator
        .agents()
        .get_agent(request)
        .await
        .unwrap()
        .into_inner()
        .agent
        .unwrap();
    let actor = Actor::Agent(AgentActor {
        id: agent.id.parse().unwrap(),
        org,
        environment: agent.environment.parse().unwrap(),
    });
    let who = Who::new(
        actor,
        Shown::RuntimeKey(agent.id.parse().unwrap()),
        None,
        Reach::org(org),
    );
    let broker = &place.broker.broker;
    for target in [
        Target::Agent(agent.id.clone()),
        Target::Environment(agent.environment.clone()),
        Target::Org(true),
    ] {
        let mut stream = broker.open_stream(&who).await.unwrap();
        let made = lock(&place.operator, target).await;
        // It has been told before the lock was answered.
        let told = tokio::time::timeout(Duration::from_secs(5), stream.ended())
            .await
            .unwrap();
        assert_eq!(told.reason.code(), "LOCKED");
        assert!(broker.open_stream(&who).await.is_err());
        unlock(&place.operator, &made.id).await.unwrap();
    }
    broker.open_stream(&who).await.unwrap();
}
