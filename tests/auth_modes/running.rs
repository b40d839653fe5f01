//! A task under way while policy changes: it finishes on the mode and credential it began with, or not at all.

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, Subscription};

use crate::scene::{Scene, World, denying, pinned, profile, with_profile};
use crate::support::broker::MEMBER;
use crate::support::client::metadata;
use crate::support::reason;

async fn lease(scene: &Scene<'_>, task: &str) -> proto::Lease {
    scene.resolve(task).await.unwrap().lease.unwrap()
}

async fn refused(scene: &Scene<'_>, task: &str) -> String {
    reason(&scene.resolve(task).await.unwrap_err())
}

// req: A10
#[tokio::test]
async fn a_change_of_profile_or_pin_begins_with_the_next_task() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::Byok).await;
    scene.enable(Mode::Metered).await;
    scene.rules(with_profile(&[AuthMode::Byok])).await;
    let task = scene.task("set").await;
    let first = lease(&scene, &task).await;
    assert_eq!(first.mode(), AuthMode::Byok);

    let metered = with_profile(&[AuthMode::Metered]);
    let other_name = proto::OrgRules {
        profiles: vec![profile("other", &[AuthMode::Metered])],
        ..Default::default()
    };
    for (rules, next) in [
        (metered, AuthMode::Metered),
        (
            pinned(AuthMode::Shared, with_profile(&[AuthMode::Byok])),
            AuthMode::Shared,
        ),
    ] {
        scene.rules(rules).await;
        let again = lease(&scene, &task).await;
        assert_eq!(
            (again.id.as_str(), again.mode()),
            (first.id.as_str(), AuthMode::Byok)
        );
        assert_eq!(scene.picks().await.0, next);
    }
    // Whether there still is such a profile does not matter to it either.
    scene.rules(other_name).await;
    assert_eq!(lease(&scene, &task).await.id, first.id);
}

// req: A10 E6
#[tokio::test]
async fn a_denial_of_its_mode_ends_it_and_other_denials_do_not() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::Byok).await;
    scene.enable(Mode::Metered).await;
    let rules = with_profile(&[AuthMode::Byok, AuthMode::Metered]);
    scene.rules(rules.clone()).await;
    let task = scene.task("set").await;
    let first = lease(&scene, &task).await;
    scene
        .rules_and_project(rules.clone(), &[AuthMode::Metered, AuthMode::Oauth])
        .await;
    assert_eq!(lease(&scene, &task).await.id, first.id);

    scene.rules_and_project(rules.clone(), &[AuthMode::Byok]).await;
    let denied = scene.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&denied), "ACCESS_DENIED");
    assert_eq!(metadata(&denied, "scope"), "project");
    assert_eq!(
        scene.picks().await.0,
        AuthMode::Metered,
        "the next task has the rest"
    );
    let denying_org = proto::OrgRules {
        matrix: denying(&[AuthMode::Byok]),
        ..rules.clone()
    };
    scene.rules(denying_org).await;
    assert_eq!(refused(&scene, &task).await, "ACCESS_DENIED");
    scene.rules(rules).await;
    assert_eq!(lease(&scene, &task).await.mode(), AuthMode::Byok);
}

// req: A10 D6
#[tokio::test]
async fn what_is_removed_is_looked_for_again_within_the_mode() {
    let world = World::start().await;
    let mut scene = world.org().await;
    for mode in [Mode::Metered, Mode::HostSession] {
        scene.enable(mode).await;
    }
    let (orgs, members) = (scene.store_key("").await, scene.store_key(MEMBER).await);
    let grant = scene.connect().await;
    let modes = [AuthMode::Oauth, AuthMode::Byok, AuthMode::Metered];
    scene.rules(with_profile(&modes)).await;
    let on_account = scene.task("set").await;
    assert_eq!(lease(&scene, &on_account).await.credential, grant);
    scene.remove(&grant).await;
    assert_eq!(refused(&scene, &on_account).await, "CONNECT_ACCOUNT");

    let on_key = scene.task("set").await;
    assert_eq!(lease(&scene, &on_key).await.credential, members);
    scene.remove(&members).await;
    assert_eq!(lease(&scene, &on_key).await.credential, orgs, "byok still");
    scene.remove(&orgs).await;
    assert_eq!(refused(&scene, &on_key).await, "NO_CREDENTIAL_CONFIGURED");
    assert_eq!(scene.picks().await.0, AuthMode::Metered);

    // What comes back heals each, and neither moves to the other's.
    let again = scene.connect().await;
    assert_eq!(lease(&scene, &on_account).await.credential, again);
    assert_eq!(refused(&scene, &on_key).await, "NO_CREDENTIAL_CONFIGURED");
    let again = scene.store_key("").await;
    assert_eq!(lease(&scene, &on_key).await.credential, again);
}

// req: A10 A5 E9
#[tokio::test]
async fn a_lapse_and_a_full_quota_are_the_next_tasks() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.enable(Mode::Metered).await;
    scene.rules(with_profile(&[AuthMode::Shared])).await;
    let shared = scene.task("set").await;
    let held = lease(&scene, &shared).await;
    scene.shared_per_day(1).await;
    assert_eq!(reason(&scene.refuses().await), "SHARED_QUOTA_EXCEEDED");
    assert_eq!(lease(&scene, &shared).await.id, held.id);

    scene.enable(Mode::Byok).await;
    let grant = scene.connect().await;
    scene.rules(with_profile(&[AuthMode::Byok])).await;
    let on_key = scene.task("set").await;
    let key = lease(&scene, &on_key).await;
    scene.rules(with_profile(&[AuthMode::Oauth])).await;
    let on_account = scene.task("set").await;
    assert_eq!(lease(&scene, &on_account).await.credential, grant);
    scene.subscribe(Subscription::Inactive).await;
    assert_eq!(lease(&scene, &on_key).await.id, key.id);
    assert_eq!(lease(&scene, &on_account).await.credential, grant);
    assert_eq!(reason(&scene.refuses().await), "SUBSCRIPTION_INACTIVE");
}
