//! What frees a place, and what does not.

use std::time::Duration;

use credbroker::proto;

use crate::scene::{PERSONAL, Scene};
use crate::support::broker::{MEMBER, ORG};
use crate::support::reason;

/// Three that hold a lease, and a fourth that waits.
async fn full() -> (
    Scene,
    Vec<(crate::scene::Worker, proto::Lease)>,
    crate::scene::Worker,
) {
    let scene = Scene::start("", PERSONAL).await;
    let holding = scene.holding(3).await;
    let waiting = scene.worker().await;
    waiting.is_refused().await;
    (scene, holding, waiting)
}

// req: C9 B6
#[tokio::test]
async fn a_released_lease_frees_its_place_at_once() {
    let (scene, holding, waiting) = full().await;
    let (first, lease) = &holding[0];
    first.release(lease).await;
    assert_eq!(scene.standing().await, (2, 3));
    let taken = waiting.resolve().await.unwrap();
    // Who gave it back has to wait like anybody else.
    first.is_refused().await;
    waiting.release(&taken).await;
    let another = first.resolve().await.unwrap();
    assert_ne!(another.id, lease.id);
    assert_eq!(scene.standing().await, (3, 3));
}

// req: C9 B6
#[tokio::test]
async fn an_expired_lease_frees_its_place_at_once() {
    let (scene, holding, waiting) = full().await;
    scene.clock.advance(Duration::from_secs(3_500));
    waiting.is_refused().await;
    scene.clock.advance(Duration::from_secs(100));
    assert_eq!(scene.standing().await, (0, 3));
    waiting.resolve().await.unwrap();
    // The others make new ones, as far as there is room.
    for (worker, lease) in &holding[..2] {
        assert_ne!(worker.resolve().await.unwrap().id, lease.id);
    }
    holding[2].0.is_refused().await;
}

// req: C9 B6
#[tokio::test]
async fn a_revoked_agent_frees_its_place_at_once() {
    let (scene, holding, waiting) = full().await;
    let request = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: holding[1].0.enrolled.agent.clone(),
        ..Default::default()
    };
    scene.operator.agents().revoke_agent(request).await.unwrap();
    assert_eq!(scene.standing().await, (2, 3));
    waiting.resolve().await.unwrap();
}

// req: C9 B6
#[tokio::test]
async fn an_ended_task_frees_the_places_of_its_agents_at_once() {
    let (scene, holding, waiting) = full().await;
    let request = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: holding[2].0.task.clone(),
    };
    scene.operator.tasks().end_task(request).await.unwrap();
    let described = scene.operator.described(ORG, &scene.credential).await;
    assert_eq!(described.credential.unwrap().parallelism.unwrap().standing, 2);
    assert_eq!(described.dependents.len(), 2, "nor does it depend on it any more");
    waiting.resolve().await.unwrap();
}

// req: C9
#[tokio::test]
async fn a_revoked_api_key_frees_its_places_and_counts_until_then() {
    let scene = Scene::start("", PERSONAL).await;
    let (id, key) = scene.operator.make_broad_api_key(ORG).await;
    let automation = scene.broker.caller(Some(&key)).await;
    // Two for tasks, and one directly for the member.
    for _ in 0..2 {
        let task = scene.operator.make_task(ORG, MEMBER).await;
        automation.resolve(&task).await.unwrap();
    }
    let directly = || proto::ResolveCredentialRequest {
        member: MEMBER.to_owned(),
        project: crate::support::broker::PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        automation.broker().resolve_credential(directly()).await.unwrap();
    }
    let waiting = scene.worker().await;
    waiting.is_refused().await;
    let org = ORG.to_owned();
    let request = proto::RevokeApiKeyRequest { org, api_key: id };
    scene.operator.access().revoke_api_key(request).await.unwrap();
    assert_eq!(scene.standing().await, (0, 3));
    waiting.resolve().await.unwrap();
}

// req: C9
#[tokio::test]
async fn an_expired_api_key_frees_its_places_at_once() {
    let scene = Scene::start("", PERSONAL).await;
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        ttl: Some(prost_types::Duration {
            seconds: 600,
            nanos: 0,
        }),
        ..Default::default()
    };
    let made = scene.operator.access().create_api_key(request).await.unwrap();
    let token = made.into_inner().token.unwrap().value.clone();
    let automation = scene.broker.caller(Some(&token)).await;
    let task = scene.operator.make_task(ORG, MEMBER).await;
    automation.resolve(&task).await.unwrap();
    scene.clock.advance(Duration::from_secs(500));
    assert_eq!(scene.standing().await, (1, 3));
    scene.clock.advance(Duration::from_secs(110));
    assert_eq!(scene.standing().await, (0, 3));
    let described = scene.operator.described(ORG, &scene.credential).await;
    assert_eq!(described.dependents.len(), 0);
}

/// A lock is for looking into something: the agent goes on where it was once it is lifted, so its place is kept.
// req: C9
#[tokio::test]
async fn a_locked_agent_keeps_its_place() {
    let (scene, holding, waiting) = full().await;
    let locked = proto::lock_target::Target::Agent(holding[0].0.enrolled.agent.clone());
    let request = proto::CreateLockRequest {
        org: ORG.to_owned(),
        target: Some(proto::LockTarget {
            target: Some(locked),
            ..Default::default()
        }),
        message: "looked into".to_owned(),
        ..Default::default()
    };
    let lock = scene.operator.locks().create_lock(request).await.unwrap();
    waiting.is_refused().await;
    assert_eq!(scene.standing().await, (3, 3));
    let org = ORG.to_owned();
    let lock = lock.into_inner().lock.unwrap().id;
    let lift = proto::RemoveLockRequest { org, lock };
    scene.operator.locks().remove_lock(lift).await.unwrap();
    assert_eq!(holding[0].0.resolve().await.unwrap().id, holding[0].1.id);
}

/// Leases from before there was a cap stand, are served and count.
// req: C9
#[tokio::test]
async fn a_cap_that_comes_later_ends_nothing_and_counts_what_stands() {
    let scene = Scene::start("", "sharing = \"any\"").await;
    let holding = scene.holding(5).await;
    assert!(
        scene
            .operator
            .health_of(ORG, &scene.credential)
            .await
            .parallelism
            .is_none()
    );

    let scene = scene.restart(PERSONAL).await;
    let mut again = Vec::new();
    for (worker, lease) in holding {
        let worker = scene.again(worker).await;
        assert_eq!(worker.resolve().await.unwrap().id, lease.id);
        again.push((worker, lease));
    }
    assert_eq!(scene.standing().await, (5, 3));
    let waiting = scene.worker().await;
    for (worker, lease) in &again[..3] {
        waiting.is_refused().await;
        worker.release(lease).await;
    }
    waiting.resolve().await.unwrap();
    again[0].0.is_refused().await;
}

/// What is removed leaves nothing behind: an account that is connected anew begins with the usual cap.
// req: C9
#[tokio::test]
async fn a_removed_credential_takes_its_cap_with_it() {
    let (mut scene, holding, _) = full().await;
    scene.set(9).await;
    let request = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: scene.credential.clone(),
    };
    let mut credentials = scene.operator.credentials();
    credentials.remove_credential(request).await.unwrap();
    let gone = holding[0].0.resolve().await.unwrap_err();
    assert_ne!(reason(&gone), "PARALLELISM_LIMIT");
    let grant = scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint())
        .await;
    scene.credential = grant.id;
    assert_eq!(scene.standing().await, (0, 3));
    assert_eq!(scene.holding(3).await.len(), 3);
}
