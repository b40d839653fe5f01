//! The same losses where the provider has a grace window, in which it answers a used refresh token again as it
//! did at first: the broker asks again at once, and nobody has to sign in.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::CredentialHealth;
use futures_util::future::join_all;

use crate::faulty_proxy::{Counts, Fault};
use crate::scene::{ANSWER_LOST, Answer, REFUSED, Scene, told_to_come_again};
use crate::support::client::retry_after;
use crate::support::oidc::OidcServer;

const GRACE: &str = "grace_seconds = 120";

// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn within_the_grace_window_no_lost_answer_costs_a_sign_in() {
    let server = Arc::new(OidcServer::start().await);
    let faults = [
        Fault::DropAnswer,
        Fault::Reset,
        Fault::CutHead,
        Fault::CutBody,
        Fault::Gateway(502),
        Fault::Gateway(504),
        Fault::Delay(Duration::from_secs(6)),
        Fault::TwiceFirst,
        Fault::TwiceSecond,
    ];
    let rows = faults.map(async |fault| {
        let slow = "[refresh]\nexchange_timeout = \"3s\"";
        let config = if matches!(fault, Fault::Delay(_)) {
            slow
        } else {
            ""
        };
        let scene = Scene::leased(&server, 8, GRACE, config).await;
        scene.proxy.begin_grace();
        scene.expire();
        scene.proxy.next(fault);
        // One flight asks again by itself, so that nobody hears of it.
        scene.all_get(3).await;
        scene.provider_saw(2, 0, 0).await;
        let counts = scene.proxy.counts();
        assert_eq!((counts.forwarded, counts.repeated), (2, 1), "{fault:?}");
        let twice = matches!(fault, Fault::TwiceFirst | Fault::TwiceSecond);
        let journaled: &[&str] = if twice {
            &["", ""]
        } else {
            &["", "REFRESH_AMBIGUOUS", ""]
        };
        assert_eq!(scene.journaled().await, journaled, "{fault:?}");
        scene.shown(CredentialHealth::Ok, "").await;
        // And the tokens that came in the end are the newest there are.
        scene.expire();
        scene.all_get(4).await;
        scene.provider_saw(3, 0, 0).await;
    });
    join_all(rows).await;
}

/// The answer is lost more often than one flight asks again: its callers are told to come again, and are served.
// req: N1
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_be_lost_again_and_again() {
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::leased(&server, 8, GRACE, "").await;
    scene.proxy.begin_grace();
    scene.expire();
    lose_what_a_flight_asks_for(&scene);
    let mut generation = 0;
    for _ in 0..10 {
        let answers = scene.resolve().await;
        let refused: Vec<_> = answers
            .iter()
            .filter_map(|answer: &Answer| answer.as_ref().err())
            .collect();
        if refused.is_empty() {
            scene.agree(answers, 3);
            generation = 3;
            break;
        }
        refused
            .iter()
            .for_each(|refused| told_to_come_again(refused, "REFRESH_AMBIGUOUS"));
        let wait = refused.into_iter().filter_map(retry_after).max().unwrap();
        assert!(
            wait < Duration::from_secs(10),
            "well inside of the window: {wait:?}"
        );
        scene.clock.advance(wait);
    }
    assert_eq!(generation, 3, "some are never served");
    scene.provider_saw(2, 0, 0).await;
    let expected = Counts {
        connections: 6,
        requests: 6,
        forwarded: 2,
        repeated: 4,
        lost_answers: 4,
        lost_grants: 1,
    };
    assert_eq!(scene.proxy.counts(), expected);
}

fn lose_what_a_flight_asks_for(scene: &Scene) {
    for fault in [
        Fault::Reset,
        Fault::CutBody,
        Fault::Gateway(504),
        Fault::DropAnswer,
    ] {
        scene.proxy.next(fault);
    }
}

/// The window closes before an answer comes through. What is left is the one resend, which proves what was lost.
// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn past_the_grace_window_a_lost_answer_costs_a_sign_in() {
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::leased(&server, 4, GRACE, "").await;
    scene.proxy.begin_grace();
    scene.expire();
    lose_what_a_flight_asks_for(&scene);
    let refused = scene.agents[0].resolve(&scene.task).await.unwrap_err();
    told_to_come_again(&refused, "REFRESH_AMBIGUOUS");
    scene.provider_saw(2, 0, 0).await;
    scene.proxy.end_grace();
    scene.clock.advance(Duration::from_secs(121));
    proves_the_grant_dead_and_heals(&scene).await;
}

/// A connector that promises a window which the provider does not keep: the grant is lost the sooner, and is told
/// as what it is all the same.
// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn a_grace_window_that_the_provider_does_not_keep_saves_nothing() {
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::leased(&server, 4, GRACE, "").await;
    scene.expire();
    scene.proxy.next(Fault::DropAnswer);
    proves_the_grant_dead_and_heals(&scene).await;
    assert_eq!(
        scene.journaled().await,
        ["", "REFRESH_AMBIGUOUS", "REAUTH_REQUIRED", ""]
    );
}

async fn proves_the_grant_dead_and_heals(scene: &Scene) {
    scene.all_are_told_to_sign_in_again(ANSWER_LOST).await;
    scene.provider_saw(3, 1, 1).await;
    scene.shown(CredentialHealth::GrantLost, REFUSED).await;
    scene.reconnect().await;
    scene.all_get(4).await;
    scene.provider_saw(1, 0, 0).await;
}
