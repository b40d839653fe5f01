//! The answer is lost after the provider has rotated, and the provider has no grace window: the one way for a
//! grant to die. That it is dead is proven by the one resend under guard and by nothing less; it is told as what
//! it is; and a new sign-in heals the same credential, the same leases and whoever only waits.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::CredentialHealth;
use futures_util::future::join_all;

use crate::faulty_proxy::{Counts, Fault};
use crate::scene::{ANSWER_LOST, LIFE, REFUSED, REST, Scene, hears_of, told_to_come_again};
use crate::support::oidc::OidcServer;

/// The whole course of it. `said` is in what is shown while it is not known what became of the exchange.
async fn loses_the_grant_and_heals(scene: &Scene, fault: Fault, said: &str) {
    let mut watch = scene.agents[0].watch().await;
    scene.expire();
    scene.proxy.next(fault);
    scene.all_are_told_ambiguous().await;
    scene.provider_saw(2, 0, 0).await;
    scene.shown(CredentialHealth::Ambiguous, said).await;
    // Nothing is sent again before its time, however many ask.
    scene.all_are_told_ambiguous().await;
    scene.provider_saw(2, 0, 0).await;
    hears_of(&mut watch, &scene.credential, CredentialHealth::Ambiguous).await;

    scene.clock.advance(REST);
    scene.all_are_told_to_sign_in_again(ANSWER_LOST).await;
    scene.provider_saw(3, 1, 1).await;
    scene.shown(CredentialHealth::GrantLost, REFUSED).await;
    hears_of(&mut watch, &scene.credential, CredentialHealth::GrantLost).await;
    // What is proven needs no further proof.
    scene.clock.advance(LIFE);
    scene.all_are_told_to_sign_in_again(ANSWER_LOST).await;
    scene.provider_saw(3, 1, 1).await;
    let ended = ["", "REFRESH_AMBIGUOUS", "REAUTH_REQUIRED"];
    assert_eq!(scene.journaled().await, ended);

    scene.reconnect().await;
    hears_of(&mut watch, &scene.credential, CredentialHealth::Ok).await;
    scene.all_get(4).await;
    scene.provider_saw(1, 0, 0).await;
    scene.shown(CredentialHealth::Ok, "").await;
    assert_eq!(scene.journaled().await, [&ended[..], &[""]].concat());
    let counts = Counts {
        connections: 4,
        requests: 4,
        forwarded: 4,
        ..Counts::default()
    };
    let counted = Counts {
        lost_answers: 0,
        lost_grants: 0,
        ..scene.proxy.counts()
    };
    assert_eq!(counted, counts);
}

// req: N1 N8 N10
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_the_provider_acted_costs_a_sign_in_and_no_lease() {
    let server = Arc::new(OidcServer::start().await);
    let rows = [
        (Fault::DropAnswer, "connection closed"),
        (Fault::Reset, "reset"),
        (Fault::CutHead, "connection closed"),
        (Fault::CutBody, "status 200, then"),
        (Fault::Gateway(502), "status 502"),
        (Fault::Gateway(504), "status 504"),
    ];
    let rows = rows.map(async |(fault, said)| {
        let scene = Scene::leased(&server, 4, "", "").await;
        loses_the_grant_and_heals(&scene, fault, said).await;
    });
    join_all(rows).await;
}

/// The same where the answer comes and comes too late, or would take too long to come.
// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_longer_than_an_exchange_may_is_lost() {
    const CONFIG: &str = "[refresh]\nexchange_timeout = \"3s\"";
    let server = Arc::new(OidcServer::start().await);
    let faults = [
        Fault::Delay(Duration::from_secs(6)),
        Fault::Trickle(Duration::from_millis(20)),
    ];
    let rows = faults.map(async |fault| {
        let scene = Scene::leased(&server, 4, "", CONFIG).await;
        loses_the_grant_and_heals(&scene, fault, "within 3s").await;
    });
    join_all(rows).await;
}

/// Where an access token outlives the rotation, it is handed out for as long as it lasts, and the lost answer is
/// nobody's trouble until then.
// req: N1 B4
#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_survives_is_handed_out_while_the_answer_is_not_known() {
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::leased(&server, 4, "old_access_survives = true", "").await;
    let old = scene.all_get(2).await;
    scene.clock.advance(LIFE / 2);
    scene.proxy.next(Fault::DropAnswer);
    let longer = LIFE * 2 / 3;
    let refused = scene.agents[0]
        .resolve_for(&scene.task, longer)
        .await
        .unwrap_err();
    told_to_come_again(&refused, "REFRESH_AMBIGUOUS");
    scene
        .shown(CredentialHealth::Ambiguous, "connection closed")
        .await;
    assert_eq!(scene.all_get(2).await, old, "and it was tried at the provider");
    scene.provider_saw(2, 0, 0).await;

    scene.clock.advance(LIFE / 2);
    scene.all_are_told_to_sign_in_again(ANSWER_LOST).await;
    scene.provider_saw(3, 1, 1).await;
}
