//! The platform's own keys: who may use them, and until when.

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, Entitlement, KeyPool};
use futures_util::future::join_all;

use crate::scene::{Scene, World, pinned, with_profile};
use crate::support::client::metadata;
use crate::support::reason;

async fn balance(scene: &Scene<'_>) -> i64 {
    let org = scene.org.clone();
    let request = proto::GetAccountRequest { org };
    let answer = scene.world.operator.billing().get_account(request).await;
    answer.unwrap().into_inner().account.unwrap().balance_micros
}

// req: A2 E8
#[tokio::test]
async fn a_new_org_has_metered_use_as_soon_as_it_has_credit_and_keeps_what_it_has() {
    let world = World::start().await;
    let scene = world.org().await;
    let task = scene.task("").await;
    let refused = scene.resolve(&task).await.unwrap_err();
    assert_eq!(
        reason(&refused),
        "CREDITS_EXHAUSTED",
        "shared use does not fill in"
    );
    assert_eq!(metadata(&refused, "mode"), "metered");
    scene.add_credit(500).await;
    let lease = scene.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(lease.mode(), AuthMode::Metered);

    // Other modes leave the balance as it is.
    scene.store_key("").await;
    for mode in [AuthMode::Byok, AuthMode::Shared, AuthMode::Metered] {
        scene.rules(pinned(mode, proto::OrgRules::default())).await;
        let other = scene.resolve(&scene.task("").await).await.unwrap();
        assert_eq!(other.lease.unwrap().mode(), mode);
        assert_eq!(balance(&scene).await, 500);
    }
    // A task under way is blocked with the org's credit, and goes on with it.
    scene.add_credit(-500).await;
    assert_eq!(
        reason(&scene.resolve(&task).await.unwrap_err()),
        "CREDITS_EXHAUSTED"
    );
    scene.add_credit(1).await;
    assert_eq!(scene.resolve(&task).await.unwrap().lease.unwrap().id, lease.id);
}

// req: E8
#[tokio::test]
async fn metered_use_takes_an_entitlement_and_a_key() {
    let world = World::with("[metered]\nallow_all = false\n").await;
    let mut scene = world.org().await;
    scene.enable(Mode::Metered).await;
    let both = with_profile(&[AuthMode::Metered, AuthMode::Shared]);
    let only = pinned(AuthMode::Metered, both.clone());

    scene.rules(only.clone()).await;
    assert_eq!(reason(&scene.refuses().await), "METERED_NOT_ENTITLED");
    scene.rules(both.clone()).await;
    assert_eq!(
        scene.picks().await,
        (AuthMode::Shared, "METERED_NOT_ENTITLED".to_owned())
    );
    scene.entitle(Entitlement::Granted).await;
    assert_eq!(scene.picks().await, (AuthMode::Metered, String::new()));

    world.remove_platform_key(KeyPool::Metered).await;
    assert_eq!(
        scene.picks().await,
        (AuthMode::Shared, "METERED_KEY_UNAVAILABLE".to_owned())
    );
    scene.rules(only.clone()).await;
    let refused = scene.refuses().await;
    assert_eq!(reason(&refused), "METERED_KEY_UNAVAILABLE");
    assert_eq!(metadata(&refused, "provider"), "demo");
    // What the org lacks is told before what the platform lacks.
    scene.entitle(Entitlement::Withdrawn).await;
    assert_eq!(reason(&scene.refuses().await), "METERED_NOT_ENTITLED");
    assert_eq!(scene.cost_events().await.len(), 3);
}

// req: E9 E12 N1
#[tokio::test(flavor = "multi_thread")]
async fn of_100_tasks_at_once_exactly_the_ten_of_the_quota_get_the_shared_key() {
    let world = World::start().await;
    let scene = world.org().await;
    scene.rules(with_profile(&[AuthMode::Shared])).await;
    scene.shared_per_day(10).await;
    let mut tasks = Vec::new();
    for _ in 0..100 {
        tasks.push(scene.task("set").await);
    }
    let storm = join_all(tasks.iter().map(|task| scene.resolve_unexplained(task))).await;
    let given: Vec<_> = storm.iter().flatten().collect();
    assert_eq!(given.len(), 10);
    for refused in storm.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(reason(refused), "SHARED_QUOTA_EXCEEDED");
    }
    let events = scene.cost_events().await;
    assert_eq!(events.len(), 10);
    for event in &events {
        assert_eq!(
            (event.mode(), event.pool.as_str()),
            (AuthMode::Shared, "shared_pool_demo")
        );
    }
    // Who has a place keeps it, and nobody else finds one.
    for (task, answer) in tasks.iter().zip(&storm) {
        let again = scene.resolve(task).await;
        assert_eq!(again.is_ok(), answer.is_ok());
    }
    assert_eq!(scene.cost_events().await.len(), 10);
    // Another org has a quota of its own.
    let other = world.org().await;
    other.rules(with_profile(&[AuthMode::Shared])).await;
    assert_eq!(other.picks().await.0, AuthMode::Shared);

    world.remove_platform_key(KeyPool::Shared).await;
    assert_eq!(reason(&other.refuses().await), "SHARED_KEY_UNAVAILABLE");
}
