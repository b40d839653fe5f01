//! What a resolution leaves behind: one cost event a dispatch, on its mode's pool; an explanation leaves nothing.

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::AuthMode;

use crate::scene::{World, wire, with_profile};
use crate::support::reason;

// req: E12
#[tokio::test]
async fn each_dispatch_costs_once_and_on_the_pool_of_its_mode() {
    let world = World::start().await;
    for (mode, pool) in [
        (Mode::OAuth, "oauth_pool_demo"),
        (Mode::Byok, "local"),
        (Mode::Metered, "metered_pool_demo"),
        (Mode::Shared, "shared_pool_demo"),
        (Mode::HostSession, "host_session_pool_demo"),
        (Mode::Local, "local"),
    ] {
        let mut scene = world.org().await;
        scene.model = "m-1".to_owned();
        scene.rules(with_profile(&[wire(mode)])).await;
        if mode != Mode::Shared {
            scene.refuses().await;
        }
        assert!(
            scene.cost_events().await.is_empty(),
            "what is refused costs nothing"
        );
        scene.enable(mode).await;
        let task = scene.task("set").await;
        let lease = scene.resolve(&task).await.unwrap().lease.unwrap();
        for _ in 0..3 {
            assert_eq!(scene.resolve(&task).await.unwrap().lease.unwrap().id, lease.id);
        }
        let events = scene.cost_events().await;
        let [event] = &events[..] else {
            panic!("{mode:?}: {events:?}");
        };
        assert_eq!((event.mode(), event.pool.as_str()), (wire(mode), pool));
        assert_eq!((&event.task, &event.lease), (&task, &lease.id));
        assert_eq!((event.provider.as_str(), event.model.as_str()), ("demo", "m-1"));
        assert!(!event.project.is_empty() && !event.member.is_empty() && !event.holder.is_empty());
        scene.resolve(&scene.task("set").await).await.unwrap();
        assert_eq!(scene.cost_events().await.len(), 2);
    }
}

// req: N5 E12
#[tokio::test]
async fn an_explanation_leaves_no_lease_no_cost_and_no_record() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::OAuth).await;
    scene
        .rules(with_profile(&[AuthMode::Oauth, AuthMode::Shared]))
        .await;
    scene.shared_per_day(1).await;
    let task = scene.task("set").await;
    let records = world.operator.records().await.len();
    for _ in 0..5 {
        assert!(scene.explain(&task).await.decision.unwrap().allowed);
    }
    assert_eq!(world.operator.records().await.len(), records);
    assert!(scene.cost_events().await.is_empty());
    assert_eq!(world.provider.calls(), 0, "nothing is exchanged for it");

    // Nor does it choose for the task, nor take a place of the quota.
    scene.rules(with_profile(&[AuthMode::Shared])).await;
    for _ in 0..5 {
        assert_eq!(
            scene.explain(&task).await.decision.unwrap().mode(),
            AuthMode::Shared
        );
    }
    let resolved = scene.resolve(&task).await.unwrap();
    assert_eq!(resolved.lease.unwrap().mode(), AuthMode::Shared);
    let made = world.operator.records().await;
    let made = made
        .iter()
        .find(|record| record.position == resolved.journal_position)
        .unwrap();
    assert_eq!(made.subject["first"], "true", "the lease is the first");
    // A refusal is explained without a record of a denial.
    let next = scene.task("set").await;
    let records = world.operator.records().await.len();
    let explained = scene.explain(&next).await;
    assert_eq!(explained.decision.unwrap().reason, "SHARED_QUOTA_EXCEEDED");
    assert_eq!(world.operator.records().await.len(), records);
    assert_eq!(
        reason(&scene.resolve(&next).await.unwrap_err()),
        "SHARED_QUOTA_EXCEEDED"
    );
}
