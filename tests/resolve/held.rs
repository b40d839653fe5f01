//! Resolutions that wait for a provider while what allowed them ends: they lose, and the grant is kept.

use std::time::Duration;

use credbroker::proto;
use credbroker::proto::lock_target::Target;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::support::broker::{MEMBER, ORG};
use crate::support::scene::Scene;
use crate::support::{Caller, reason};

type Answer = Result<proto::ResolveCredentialResponse, Status>;

/// A resolution on its way to the provider.
async fn held(scene: &Scene, caller: &Caller) -> JoinHandle<Answer> {
    scene.provider.hold();
    let calls = scene.provider.calls();
    let (caller, task) = (caller.clone(), scene.task.clone());
    let waiting = tokio::spawn(async move { caller.resolve(&task).await });
    scene.provider.called(calls + 1).await;
    waiting
}

/// Lets the provider answer; what the resolution came to.
async fn released(scene: &Scene, waiting: JoinHandle<Answer>) -> String {
    scene.provider.release();
    let answer = tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap()
        .unwrap();
    match answer {
        Ok(_) => "handed out".to_owned(),
        Err(status) => reason(&status),
    }
}

/// How many leases the journal says were handed out.
async fn handed_out(scene: &Scene) -> usize {
    let records = scene.operator.records().await;
    let done = |record: &&proto::JournalRecord| {
        record.action == "credential.resolve" && record.phase == "finish" && record.outcome == "allowed"
    };
    records.iter().filter(done).count()
}

/// The exchange was not for nothing: the next caller gets what it brought, without another.
async fn grant_is_kept(scene: &Scene) {
    let calls = scene.provider.calls();
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let next = scene
        .broker
        .agent(&scene.broker.enroll(&scene.operator, &task).await)
        .await;
    let lease = next.resolve("").await.unwrap().lease.unwrap();
    assert_eq!((lease.generation, scene.provider.calls()), (2, calls));
    assert_eq!(scene.provider.replays(), 0);
}

// req: D6 D8 N1
#[tokio::test]
async fn an_agent_that_is_revoked_while_it_waits_gets_nothing() {
    let scene = Scene::imported("", "").await;
    let waiting = held(&scene, &scene.agent).await;
    let who = scene
        .agent
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap();
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: who.into_inner().actor,
        ..Default::default()
    };
    let revoked = scene
        .operator
        .agents()
        .revoke_agent(revoke)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(revoked.outstanding, []);
    assert_eq!(released(&scene, waiting).await, "CREDENTIAL_UNKNOWN");
    assert_eq!(handed_out(&scene).await, 0);
    grant_is_kept(&scene).await;
}

// req: D6 K6 N1
#[tokio::test]
async fn an_api_key_that_is_revoked_while_it_waits_gets_nothing() {
    let scene = Scene::imported("", "").await;
    let (api_key, key) = scene.operator.make_api_key(ORG).await;
    let automation = scene.broker.caller(Some(&key)).await;
    let waiting = held(&scene, &automation).await;
    let revoke = proto::RevokeApiKeyRequest {
        org: ORG.to_owned(),
        api_key,
    };
    scene.operator.access().revoke_api_key(revoke).await.unwrap();
    assert_eq!(released(&scene, waiting).await, "CREDENTIAL_UNKNOWN");
    assert_eq!(handed_out(&scene).await, 0);
    grant_is_kept(&scene).await;
}

// req: D8 N1
#[tokio::test]
async fn a_task_that_is_ended_while_it_is_resolved_gets_nothing() {
    let scene = Scene::imported("", "").await;
    let waiting = held(&scene, &scene.agent).await;
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: scene.task.clone(),
    };
    scene.operator.tasks().end_task(end).await.unwrap();
    assert_eq!(released(&scene, waiting).await, "TASK_ENDED");
    assert_eq!(handed_out(&scene).await, 0);
    grant_is_kept(&scene).await;
}

// req: D8 B6
#[tokio::test]
async fn a_lease_that_stands_does_not_outlive_its_agent_in_a_refresh() {
    let (scene, lease) = Scene::leased("", "").await;
    scene.expire();
    let waiting = held(&scene, &scene.agent).await;
    let who = scene
        .agent
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap();
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: who.into_inner().actor,
        ..Default::default()
    };
    let revoked = scene
        .operator
        .agents()
        .revoke_agent(revoke)
        .await
        .unwrap()
        .into_inner();
    // The token it had has expired, so nothing of it is of any use to it.
    assert_eq!(revoked.outstanding, [], "{}", lease.id);
    assert_eq!(released(&scene, waiting).await, "CREDENTIAL_UNKNOWN");
    assert_eq!(handed_out(&scene).await, 1);
}

// req: B2 A12(core)
#[tokio::test]
async fn a_credential_that_is_removed_while_it_is_refreshed_is_not_handed_out() {
    let scene = Scene::imported("", "").await;
    let waiting = held(&scene, &scene.agent).await;
    let remove = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: scene.credential.clone(),
    };
    scene
        .operator
        .credentials()
        .remove_credential(remove)
        .await
        .unwrap();
    let told = released(&scene, waiting).await;
    assert_ne!(told, "handed out");
    assert_ne!(told, "INTERNAL");
    assert_eq!(handed_out(&scene).await, 0);
    let after = scene.agent.resolve("").await.unwrap_err();
    assert_eq!(reason(&after), "NO_CREDENTIAL_CONFIGURED");
}

// req: D6 N1
#[tokio::test]
async fn what_is_locked_while_it_is_resolved_gets_nothing_until_it_is_unlocked() {
    let scene = Scene::imported("", "").await;
    for target in [
        Target::Member(MEMBER.to_owned()),
        Target::Credential(scene.credential.clone()),
        Target::Org(true),
    ] {
        let waiting = held(&scene, &scene.agent).await;
        let request = proto::CreateLockRequest {
            org: ORG.to_owned(),
            target: Some(proto::LockTarget {
                target: Some(target.clone()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let locked = scene
            .operator
            .locks()
            .create_lock(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(released(&scene, waiting).await, "LOCKED", "{target:?}");
        let request = proto::RemoveLockRequest {
            org: ORG.to_owned(),
            lock: locked.lock.unwrap().id,
        };
        scene.operator.locks().remove_lock(request).await.unwrap();
        // The exchange was not for nothing; the next round needs another.
        let calls = scene.provider.calls();
        scene.resolve().await.unwrap();
        assert_eq!(scene.provider.calls(), calls);
        scene.expire();
    }
    assert_eq!(scene.provider.replays(), 0);
}

// req: D6 N1
#[tokio::test]
async fn nothing_is_resolved_for_a_member_who_is_removed_while_it_waits() {
    let scene = Scene::imported("", "").await;
    let waiting = held(&scene, &scene.agent).await;
    let request = proto::RemoveMemberRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
    };
    scene.operator.directory().remove_member(request).await.unwrap();
    let told = released(&scene, waiting).await;
    assert!(told == "TASK_ENDED" || told == "NOT_FOUND", "{told}");
    assert_eq!(handed_out(&scene).await, 0);
}
