//! Keys that expire: what is handed out lasts as long as it says, and what has expired is not handed out.

use std::sync::Arc;
use std::time::Duration;

use support::broker::now;
use support::client::metadata;
use support::clock::MovedClock;
use support::{Options, reason};

use super::*;

/// Half of what a lease lasts by itself.
const LIFE: Duration = Duration::from_secs(1800);

fn in_(span: Duration) -> Option<prost_types::Timestamp> {
    let seconds = (now() + span).seconds();
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

// req: B1 B6
#[tokio::test]
async fn temporary_keys_are_handed_out_for_as_long_as_they_last() {
    let clock = Arc::new(MovedClock::default());
    let broker = TestBroker::start_with(Options {
        clock: Some(Arc::clone(&clock) as _),
        ..Options::default()
    })
    .await;
    let operator = broker.prepare().await;
    let (agent, task) = agent(&broker, &operator).await;
    let over = proto::SetCredentialRequest {
        expire_time: Some(prost_types::Timestamp {
            seconds: now().seconds() - 1,
            nanos: 0,
        }),
        ..request(aws(TEMPORARY, SECRET, "token"))
    };
    let refused = set(&operator, over).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");

    let expire_time = in_(LIFE);
    let lasting = proto::SetCredentialRequest {
        expire_time,
        ..request(aws(TEMPORARY, SECRET, "token"))
    };
    let stored = set(&operator, lasting).await.unwrap();
    assert_eq!(
        (stored.expire_time, stored.health()),
        (expire_time, proto::CredentialHealth::Ok)
    );
    let lease = agent.resolve_for(&task, LIFE / 2).await.unwrap().lease.unwrap();
    assert_eq!(lease.material_expire_time, expire_time);
    // More life than there is left is not promised.
    let short = agent.resolve_for(&task, LIFE * 2).await.unwrap_err();
    assert_eq!(reason(&short), "KEY_EXPIRED");
    assert_eq!(metadata(&short, "credential"), stored.id);

    clock.advance(LIFE);
    let expired = agent.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&expired), "KEY_EXPIRED");
    assert!(expired.message().contains("expired"));
    let shown = operator.health_of(ORG, &stored.id).await;
    assert_eq!(shown.health(), proto::CredentialHealth::Expired);
    let list = proto::ListExecutorsRequest {
        org: s(ORG),
        ..Default::default()
    };
    let listed = operator
        .executors()
        .list_executors(list)
        .await
        .unwrap()
        .into_inner();
    let claude = listed
        .executors
        .iter()
        .find(|each| each.name == "claude-code")
        .unwrap();
    let way = claude
        .ways
        .iter()
        .find(|way| way.credential == stored.id)
        .unwrap();
    assert_eq!(
        (way.readiness(), &*way.reason),
        (proto::Readiness::Fault, "KEY_EXPIRED")
    );
    // Nothing of it works at the provider any more.
    let lock = proto::CreateLockRequest {
        org: s(ORG),
        target: Some(proto::LockTarget {
            target: Some(proto::lock_target::Target::Credential(stored.id.clone())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let locked = operator.locks().create_lock(lock).await.unwrap().into_inner();
    assert_eq!(locked.outstanding, []);
    let lock = proto::RemoveLockRequest {
        org: s(ORG),
        lock: locked.lock.unwrap().id,
    };
    operator.locks().remove_lock(lock).await.unwrap();

    // The next keys serve the same task.
    let next = set(&operator, request(aws(LONG_TERM, SECRET, ""))).await.unwrap();
    assert_eq!(
        (&next.id, next.generation, next.expire_time),
        (&stored.id, 2, None)
    );
    let again = agent.resolve_for(&task, LIFE * 2).await.unwrap().lease.unwrap();
    assert_eq!((again.id, again.generation), (lease.id, 2));
}
