//! How watches end, and how many there may be.

use std::time::Duration;

use credbroker::proto;
use credbroker::proto::lock_target::Target;
use credbroker::proto::watch_event::Event;
use tonic::Code;

use crate::support::broker::{MEMBER, ORG};
use crate::support::client::{Caller, retry_after};
use crate::support::clock::MovedClock;
use crate::support::{Options, TestBroker, reason};

// req: D6 N4
#[tokio::test]
async fn a_revoked_agents_watch_ends_with_the_reason_and_is_not_opened_again() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let (agent, bystander) = (
        broker.agent(&enrolled).await,
        broker.agent(&broker.enroll(&operator, &task).await).await,
    );
    let (mut watch, mut other, mut admin) = (
        agent.watch().await,
        bystander.watch().await,
        operator.watch().await,
    );
    let request = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(request).await.unwrap();
    let end = loop {
        // That it was revoked may still come as an event.
        match watch.event().await {
            Ok(Event::AccessEnded(ended)) => assert_eq!(ended.subject, enrolled.agent),
            Ok(other) => panic!("{other:?}"),
            Err(end) => break end,
        }
    };
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unauthenticated, "CREDENTIAL_UNKNOWN")
    );
    assert!(end.message().contains("revoked"), "{end:?}");
    // On the connection it has, where that is still open, and on a new one, where it gets one at all.
    let address = broker.address.to_string();
    let key = Some(enrolled.runtime_key.as_str());
    let again = Caller::try_connect(&address, broker.trust(), Some(enrolled.identity()), key).await;
    for caller in [Some(agent), again.ok()].into_iter().flatten() {
        let refused = caller.watch_from(&watch.cursor).await.err().unwrap();
        let closed = std::error::Error::source(&refused).is_some();
        assert!(closed || reason(&refused) == "CREDENTIAL_UNKNOWN", "{refused:?}");
    }
    let ended = (enrolled.agent.clone(), "CREDENTIAL_UNKNOWN".to_owned());
    assert_eq!(admin.ended().await, ended);
    broker.broker.policy_changed(None, 1);
    assert_eq!(other.policy().await, 1, "nobody else's affair");
}

// req: D6 N4 K6
#[tokio::test]
async fn a_revoked_api_keys_watch_ends() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (id, key) = operator.make_api_key(ORG).await;
    let (_, other) = operator.make_api_key(ORG).await;
    let mut watch = broker.caller(Some(&key)).await.watch().await;
    let mut other = broker.caller(Some(&other)).await.watch().await;
    let request = proto::RevokeApiKeyRequest {
        org: ORG.to_owned(),
        api_key: id.clone(),
    };
    operator.access().revoke_api_key(request).await.unwrap();
    let end = loop {
        if let Err(end) = watch.event().await {
            break end;
        }
    };
    assert_eq!(reason(&end), "CREDENTIAL_UNKNOWN");
    assert_eq!(other.ended().await, (id, "CREDENTIAL_UNKNOWN".to_owned()));
}

// req: D4 D6
#[tokio::test]
async fn a_watch_does_not_outlive_what_its_caller_showed() {
    let clock = std::sync::Arc::new(MovedClock::default());
    let broker = TestBroker::start_with(Options {
        config: "[watch]\nheartbeat = \"1s\"\n[identity]\ncertificate_lifetime = \"5m\"".to_owned(),
        clock: Some(std::sync::Arc::clone(&clock) as _),
        ..Options::default()
    });
    let broker = broker.await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        ttl: Some(Duration::from_secs(60).try_into().unwrap()),
        ..Default::default()
    };
    let made = operator
        .access()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let key = broker.caller(Some(&made.token.as_ref().unwrap().value)).await;
    let (mut of_agent, mut of_key, mut of_operator) =
        (agent.watch().await, key.watch().await, operator.watch().await);
    clock.advance(Duration::from_secs(360));
    assert_eq!(reason(&of_key.end().await), "CREDENTIAL_UNKNOWN");
    assert_eq!(reason(&of_agent.end().await), "CLIENT_CERTIFICATE_REQUIRED");
    broker.broker.policy_changed(None, 1);
    assert_eq!(of_operator.policy().await, 1);
}

// req: N4 N9
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_watches_at_once_and_does_not_wait_for_them() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let mut watch = operator.watch().await;
    // Nobody reads this one.
    let _unread = operator.watch().await;
    let stopped = tokio::time::timeout(Duration::from_secs(20), broker.stop());
    let (end, stopped) = tokio::join!(watch.end(), stopped);
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    assert!(retry_after(&end).is_some());
    // The time to drain is 45 seconds by default.
    assert!(stopped.is_ok(), "the stop waited for watches");
}

// req: N4
#[tokio::test]
async fn one_actor_has_so_many_watches_and_others_have_theirs() {
    const LIMIT: usize = 32;
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (_, key) = operator.make_api_key(ORG).await;
    let caller = broker.caller(Some(&key)).await;
    let mut open = Vec::new();
    for _ in 0..LIMIT {
        open.push(caller.watch().await);
    }
    let refused = caller.watch_from("").await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "OVERLOADED")
    );
    assert!(retry_after(&refused).is_some());
    operator.watch().await;
    open.pop();
    let mut tries = 0;
    // The broker learns in its own time that a stream was given up.
    while caller.watch_from("").await.is_err() {
        tries += 1;
        assert!(tries < 500, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// req: D6 N4
#[tokio::test]
async fn a_lock_is_told_to_those_who_depend_on_it_and_ends_the_watch_of_what_is_locked() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let credential = operator.set_key(ORG, MEMBER, "alexs-own-key-00000").await.id;
    operator.make_member(ORG, "kim").await;
    let (task, other) = (
        operator.make_task(ORG, MEMBER).await,
        operator.make_task(ORG, "kim").await,
    );
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let bystander = broker.agent(&broker.enroll(&operator, &other).await).await;
    agent.resolve("").await.unwrap();
    let (mut watch, mut untouched) = (agent.watch().await, bystander.watch().await);
    let lock = async |target: Target| {
        let request = proto::CreateLockRequest {
            org: ORG.to_owned(),
            target: Some(proto::LockTarget {
                target: Some(target),
                ..Default::default()
            }),
            ..Default::default()
        };
        operator.locks().create_lock(request).await.unwrap();
    };
    lock(Target::Credential(credential.clone())).await;
    lock(Target::Member(MEMBER.to_owned())).await;
    for kind in ["crd_", "mbr_"] {
        let Event::AccessEnded(ended) = watch.event().await.unwrap() else {
            panic!("another event")
        };
        assert!(ended.subject.starts_with(kind) && ended.reversible, "{ended:?}");
        assert_eq!(ended.reason, "LOCKED");
    }
    lock(Target::Agent(enrolled.agent)).await;
    assert_eq!(reason(&watch.end().await), "LOCKED");
    assert_eq!(reason(&agent.watch_from("").await.err().unwrap()), "LOCKED");
    broker.broker.policy_changed(None, 1);
    assert_eq!(untouched.policy().await, 1);
}
