//! What comes after a sign-in: tokens that end and are refreshed, keys that change, and signing out.

use super::*;

/// Short enough to be refreshed before each use.
const SHORT: Duration = Duration::from_secs(25);

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_refreshed_by_one_process_at_a_time() {
    let scene = Scene::linked().await;
    scene.provider.set_id_token_life(SHORT).await;
    scene.sign_in("alice").await.1.good();
    let first = scene.stored("refresh_token");
    // The provider ends the whole session when a used refresh token comes again.
    let calls = (0..6).map(|_| scene.run("whoami"));
    for ended in futures_util::future::join_all(calls).await {
        ended.good();
    }
    assert_ne!(scene.stored("refresh_token"), first);
    scene.run("whoami").await.good();

    // While the provider is down, what is still good is used.
    let Scene {
        provider,
        broker,
        clock,
        admin,
        user,
    } = scene;
    provider.kill().await;
    user.credbroker(&["whoami"]).await.good();
    drop((broker, clock, admin));
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_provider_changes_are_picked_up() {
    let mut scene = Scene::linked().await;
    scene.sign_in("alice").await.1.good();
    let old = scene.stored("id_token");
    scene.provider = scene.provider.restart().await;
    // The broker remembers the old key, and asks for keys again no sooner than after its rest.
    scene.run("whoami").await.good();
    scene.clock.advance(Duration::from_secs(10));
    scene.sign_in("alice").await.1.good();
    assert_ne!(scene.stored("id_token"), old);
    let caller = scene.broker.caller(Some(&old)).await;
    let refused = caller
        .access()
        .who_am_i(credbroker::proto::WhoAmIRequest {})
        .await
        .unwrap_err();
    assert_eq!(
        support::reason(&refused),
        "ISSUER_UNAVAILABLE",
        "not known, and just asked"
    );
    scene.clock.advance(Duration::from_secs(10));
    let refused = caller
        .access()
        .who_am_i(credbroker::proto::WhoAmIRequest {})
        .await
        .unwrap_err();
    assert_eq!(support::reason(&refused), "ID_TOKEN_INVALID");
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_provider_ended_asks_for_a_new_sign_in() {
    let scene = Scene::linked().await;
    scene.provider.set_id_token_life(SHORT).await;
    scene.sign_in("alice").await.1.good();
    assert!(
        scene.provider.takes(&scene.stored("refresh_token")).await,
        "used up behind its back"
    );
    scene
        .run("whoami")
        .await
        .bad(77, &["ended the sign-in", "credbroker login --context corp"]);
    scene.sign_in("alice").await.1.good();
    scene.run("whoami").await.good();
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn signing_out_takes_the_session_back_and_forgets_it() {
    let scene = Scene::linked().await;
    scene.sign_in("alice").await.1.good();
    let refresh_token = scene.stored("refresh_token");
    let told = scene.run("logout").await.good();
    assert!(told.contains("signed out: context corp"), "{told}");
    assert!(!scene.session().exists());
    assert!(!scene.provider.takes(&refresh_token).await);
    scene
        .run("whoami")
        .await
        .bad(77, &["nobody is signed in", "credbroker login"]);
    scene.run("logout").await.good();
    // The context is still there to sign in to; removing it removes the session too.
    scene.sign_in("alice").await.1.good();
    scene.run("context remove corp --yes").await.good();
    assert!(!scene.session().exists());
}
