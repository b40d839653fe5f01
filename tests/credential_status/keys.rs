//! Keys: those whose time is over, and those that are reported as rejected.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::support::broker::{MEMBER, now};
use crate::support::client::owner;
use crate::support::clock::MovedClock;
use crate::support::{Options, TestBroker, reason};

const KEY: &str = "a-key-that-is-told-nobody-0123456789";
const SAID: &str = "invalid x-api-key";

async fn scene() -> (TestBroker, Arc<MovedClock>, Caller) {
    let clock = Arc::new(MovedClock::default());
    let options = Options {
        clock: Some(Arc::clone(&clock) as _),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    (broker, clock, operator)
}

async fn report(agent: &Caller, lease: &proto::Lease, said: &str) {
    let request = proto::RefreshTokenRequest {
        lease: lease.id.clone(),
        rejected_generation: lease.generation,
        provider_message: said.to_owned(),
        ..Default::default()
    };
    let refused = agent.broker().refresh_token(request).await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
}

// req: N9 C6
#[tokio::test]
async fn a_key_whose_time_is_over_has_expired() {
    let (broker, clock, operator) = scene().await;
    let request = proto::SetCredentialRequest {
        org: ORG.to_owned(),
        owner: Some(owner(MEMBER)),
        provider: "demo".to_owned(),
        key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
            value: KEY.to_owned(),
        })),
        expire_time: Some(prost_types::Timestamp {
            seconds: now().seconds() + 3_600,
            nanos: 0,
        }),
        ..Default::default()
    };
    let stored = operator.credentials().set_credential(request).await.unwrap();
    let stored = stored.into_inner().credential.unwrap();
    assert_eq!(status(&operator, &stored.id).await.next_step, "");
    clock.advance(Duration::from_secs(3_700));
    let expired = status(&operator, &stored.id).await;
    assert_eq!(expired.credential.unwrap().health(), CredentialHealth::Expired);
    assert_eq!(expired.state_since, stored.expire_time);
    assert!(
        expired.next_step.contains("credential set"),
        "{}",
        expired.next_step
    );
    let listed = listed(&operator, "", &[CredentialHealth::Expired]).await.unwrap();
    assert_eq!(listed, [stored.id]);
    broker.broker.count_credentials().await.unwrap();
    let text = broker.broker.metrics_text().await;
    let row = "credbroker_credentials{state=\"expired\",kind=\"api-key\"} 1";
    assert!(text.lines().any(|line| line == row), "{text}");
}

// req: C5 N2
#[tokio::test]
async fn what_the_provider_of_a_key_said_is_kept_with_that_key() {
    let (broker, clock, operator) = scene().await;
    let stored = operator.set_key(ORG, MEMBER, KEY).await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let lease = agent.resolve(&task).await.unwrap().lease.unwrap();
    report(&agent, &lease, &format!("{SAID}: {KEY}\u{1b}[31m")).await;

    let told = status(&operator, &stored.id).await;
    let credential = told.credential.unwrap();
    let expected = format!(
        "the provider rejected it, as reported by {}: {SAID}: [redacted]",
        enrolled.agent
    );
    assert!(
        credential.last_error.starts_with(&expected),
        "{}",
        credential.last_error
    );
    assert!(!credential.last_error.contains('\u{1b}'));
    // A caller's word ends nobody's access.
    assert_eq!(credential.health(), CredentialHealth::Ok);
    assert!(told.next_step.contains("credential test"), "{}", told.next_step);
    let first = told.last_error_time.unwrap();
    assert_eq!(
        operator.health_of(ORG, &stored.id).await.last_error,
        credential.last_error
    );
    assert!(agent.resolve(&task).await.is_ok());

    // Whoever goes on reporting writes once a minute.
    clock.advance(Duration::from_secs(30));
    report(&agent, &lease, "another story").await;
    let again = status(&operator, &stored.id).await;
    assert_eq!(again.last_error_time, Some(first));
    clock.advance(Duration::from_secs(40));
    report(&agent, &lease, "").await;
    let later = status(&operator, &stored.id).await;
    assert!(later.last_error_time.unwrap().seconds >= first.seconds + 60);
    assert!(later.credential.unwrap().last_error.ends_with(&enrolled.agent));

    // It survives a restart, is journaled nowhere, and goes with the key.
    let broker = broker.restart_with(|options| options.clock = None).await;
    let operator = broker.operator().await;
    assert!(!operator.health_of(ORG, &stored.id).await.last_error.is_empty());
    for record in operator.records().await {
        let text = String::from_utf8(record.stored).unwrap();
        assert!(!text.contains(SAID) && !text.contains(KEY), "{text}");
    }
    operator
        .set_key(ORG, MEMBER, "another-key-0123456789abcdef")
        .await;
    let replaced = status(&operator, &stored.id).await;
    assert_eq!(replaced.credential.unwrap().last_error, "");
    assert_eq!(
        (replaced.last_error_time, replaced.next_step.as_str()),
        (None, "")
    );
}
