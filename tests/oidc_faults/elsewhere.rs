//! What our own history does not explain: a grant that somebody else has used or withdrawn. No answer was lost,
//! and the refusal is named as what it is.

use std::sync::Arc;

use credbroker::proto::CredentialHealth;
use futures_util::future::join_all;

use crate::faulty_proxy::Fault;
use crate::scene::{ELSEWHERE, LIFE, REFUSED, Scene, hears_of, told_to_sign_in_again};
use crate::support::client::secret;
use crate::support::oidc::OidcServer;

/// The refusal of a token that was never sent before; and a new sign-in.
async fn is_named_and_heals(scene: &Scene, calls: u64, replays: u64, generation: u64) {
    let mut watch = scene.operator.watch().await;
    scene.all_are_told_to_sign_in_again(ELSEWHERE).await;
    let stats = scene.stats().await;
    assert_eq!(
        (stats.alive, stats.calls, stats.refused, stats.replays),
        (false, calls, 1, replays)
    );
    scene.shown(CredentialHealth::Quarantined, REFUSED).await;
    hears_of(&mut watch, &scene.credential, CredentialHealth::Quarantined).await;
    // It is asked once.
    scene.clock.advance(LIFE);
    scene.all_are_told_to_sign_in_again(ELSEWHERE).await;
    assert_eq!(scene.stats().await, stats);
    assert_eq!(scene.journaled().await.last().unwrap(), "REAUTH_REQUIRED");

    scene.reconnect().await;
    hears_of(&mut watch, &scene.credential, CredentialHealth::Ok).await;
    scene.all_get(generation).await;
    scene.provider_saw(1, 0, 0).await;
}

// req: N8
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_copy_that_refreshes_elsewhere_is_named() {
    let server = Arc::new(OidcServer::start().await);
    // The copy is used before the broker's first exchange, or after it.
    let fresh = async {
        let scene = Scene::imported(&server, 4, "", "").await;
        server.refresh(&scene.grant().refresh_token).await.unwrap();
        is_named_and_heals(&scene, 2, 1, 3).await;
    };
    let used = async {
        let scene = Scene::leased(&server, 4, "", "").await;
        server.refresh(&scene.proxy.newest().refresh).await.unwrap();
        scene.expire();
        is_named_and_heals(&scene, 3, 1, 4).await;
    };
    tokio::join!(fresh, used);
}

// req: N8
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_its_owner_withdraws_is_named() {
    let server = Arc::new(OidcServer::start().await);
    let fresh = async {
        let scene = Scene::imported(&server, 4, "", "").await;
        server.revoke(&scene.grant().refresh_token).await;
        is_named_and_heals(&scene, 1, 0, 3).await;
    };
    let used = async {
        let scene = Scene::leased(&server, 4, "", "").await;
        let token = scene.all_get(2).await;
        server.revoke(&scene.proxy.newest().refresh).await;
        assert_eq!(
            server.account_of(&token).await,
            None,
            "its access token went with it"
        );
        scene.expire();
        is_named_and_heals(&scene, 2, 0, 4).await;
    };
    tokio::join!(fresh, used);
}

/// Agents that never got anything, for the grant was dead when they came, only wait on their watches.
// req: N8
#[tokio::test(flavor = "multi_thread")]
async fn a_new_sign_in_is_told_to_agents_that_never_had_a_lease() {
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::imported(&server, 2, "", "").await;
    server.revoke(&scene.grant().refresh_token).await;
    scene.all_are_told_to_sign_in_again(ELSEWHERE).await;
    let mut watch = scene.agents[0].watch().await;
    scene.reconnect().await;
    hears_of(&mut watch, &scene.credential, CredentialHealth::Ok).await;
    scene.all_get(3).await;
}

/// The agents find out before the token expires, and their report is what makes the broker ask.
// req: N8 B4
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_is_found_out_by_the_first_agent_that_reports_it() {
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::leased(&server, 4, "", "").await;
    let lease = scene.resolve().await.remove(0).unwrap();
    server.revoke(&scene.proxy.newest().refresh).await;
    assert_eq!(server.account_of(secret(&lease)).await, None);
    let refused = scene.agents[0]
        .reject(&lease.id, lease.generation)
        .await
        .unwrap_err();
    told_to_sign_in_again(&refused, ELSEWHERE);
    // And nobody gets the dead token any more, though its time is not up.
    scene.all_are_told_to_sign_in_again(ELSEWHERE).await;
    let stats = scene.stats().await;
    assert_eq!((stats.calls, stats.refused, stats.replays), (2, 1, 0));
    scene.shown(CredentialHealth::Quarantined, REFUSED).await;
}

/// Something on the way sends the request twice: the provider sees a replay and ends the family.
// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_duplicated_on_its_way_ends_the_grant_by_the_providers_word_only() {
    let server = Arc::new(OidcServer::start().await);
    // The second answer is the refusal.
    let second = async {
        let scene = Scene::leased(&server, 4, "", "").await;
        scene.expire();
        scene.proxy.next(Fault::TwiceSecond);
        is_named_and_heals(&scene, 3, 1, 4).await;
    };
    // The first brings tokens, which are dead on arrival. Nothing tells the broker before an agent does.
    let first = async {
        let scene = Scene::leased(&server, 4, "", "").await;
        scene.expire();
        scene.proxy.next(Fault::TwiceFirst);
        let answers = scene.resolve().await;
        scene.provider_saw(3, 1, 1).await;
        let reports = answers.iter().zip(&scene.agents).map(async |(answer, agent)| {
            let lease = answer.as_ref().unwrap();
            assert_eq!(lease.generation, 3);
            let refused = agent.reject(&lease.id, lease.generation).await.unwrap_err();
            told_to_sign_in_again(&refused, ELSEWHERE);
        });
        join_all(reports).await;
        let stats = scene.stats().await;
        assert_eq!(
            (stats.calls, stats.refused, stats.replays),
            (4, 2, 1),
            "one more for all"
        );
        assert_eq!(scene.journaled().await, ["", "", "REAUTH_REQUIRED"]);
        scene.shown(CredentialHealth::Quarantined, REFUSED).await;
        scene.reconnect().await;
        scene.all_get(5).await;
    };
    tokio::join!(second, first);
}
