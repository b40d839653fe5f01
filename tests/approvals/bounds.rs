//! What waits to be decided is bounded, and does not wait for ever.

use std::time::Duration;

use credbroker::proto::{self, ApprovalState};
use futures_util::future::join_all;

use crate::scene::{Scene, ask, refused};
use crate::support::broker::{ENVIRONMENT, MEMBER, PROJECT};

// req: D7
#[tokio::test]
async fn one_requester_has_only_so_many_waiting() {
    let scene = Scene::start().await;
    let asked = join_all((0..24).map(|_| scene.agent.ask(ask(1)))).await;
    let good: Vec<_> = asked.iter().filter_map(|asked| asked.as_ref().ok()).collect();
    assert!(good.len() <= 16, "{}", good.len());
    for asked in asked.iter().filter_map(|asked| asked.as_ref().err()) {
        let told = crate::support::reason(asked);
        assert!(
            ["APPROVALS_PENDING", "CONFLICT"].contains(&told.as_str()),
            "{told}"
        );
    }
    while scene.agent.listed(ApprovalState::Pending).await.len() < 16 {
        scene.agent.ask(ask(1)).await.unwrap();
    }
    assert_eq!(refused(scene.agent.ask(ask(1)).await), "APPROVALS_PENDING");
    // Others are not kept from asking.
    let other = scene.broker.enroll(&scene.operator, &scene.task).await;
    let other = scene.broker.agent(&other).await;
    other.ask(ask(1)).await.unwrap();
    // One decided makes room for one.
    scene.approver.deny(&good[0].id).await.unwrap();
    scene.agent.ask(ask(1)).await.unwrap();
    assert_eq!(refused(scene.agent.ask(ask(1)).await), "APPROVALS_PENDING");
    // A day later nobody waits for them any more.
    scene.clock.advance(Duration::from_secs(86_400));
    assert_eq!(
        refused(scene.approver.grant(&good[1].id).await),
        "APPROVAL_EXPIRED"
    );
    assert!(scene.approver.listed(ApprovalState::Pending).await.is_empty());
}

// req: D7
#[tokio::test]
async fn what_nobody_decides_about_is_not_heaped_up() {
    let scene = Scene::start().await;
    let member = scene.token_of(MEMBER).await;
    for _ in 0..50 {
        let task = scene.operator.make_task_with(MEMBER, crate::scene::SPEC).await;
        let request = proto::RequestApprovalRequest {
            task,
            project: PROJECT.to_owned(),
            environment: ENVIRONMENT.to_owned(),
            ..ask(1)
        };
        member.ask(request).await.unwrap();
        scene.clock.advance(Duration::from_secs(86_400));
    }
    // As many as one requester has places, and not as many as were asked for.
    let left = scene.approver.listed(ApprovalState::Unspecified).await.len();
    assert!(left <= 16, "{left} are kept");
}

// req: D7
#[tokio::test]
async fn terms_are_bounded() {
    let scene = Scene::start().await;
    let ttl = |seconds: i64| proto::RequestApprovalRequest {
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..ask(1)
    };
    for request in [
        ttl(59),
        ttl(7 * 86_400 + 1),
        ask(1_001),
        proto::RequestApprovalRequest {
            reason: "x".repeat(513),
            ..ask(1)
        },
    ] {
        assert_eq!(refused(scene.agent.ask(request).await), "INVALID_ARGUMENT");
    }
    scene.agent.ask(ttl(7 * 86_400)).await.unwrap();
    scene.agent.ask(ask(1_000)).await.unwrap();
}

// req: D7
#[tokio::test]
async fn what_is_over_for_long_is_removed_with_its_uses() {
    let scene = Scene::start().await;
    let used = scene.granted(2).await;
    scene.agent.resolve_by(&scene.task, &used.token).await.unwrap();
    let waiting = scene.agent.ask(ask(1)).await.unwrap();
    let day = Duration::from_secs(86_400);
    let broker = &scene.broker.broker;
    assert_eq!(broker.sweep().await.unwrap().approvals, 0);
    scene.clock.advance(7 * day);
    assert_eq!(broker.sweep().await.unwrap().approvals, 0);
    scene.approver.approval(&used.id).await.unwrap();
    scene.clock.advance(2 * day);
    assert_eq!(broker.sweep().await.unwrap().approvals, 2);
    for id in [&used.id, &waiting.id] {
        assert_eq!(refused(scene.approver.approval(id).await), "NOT_FOUND");
    }
    assert_eq!(broker.sweep().await.unwrap(), Default::default());
}
