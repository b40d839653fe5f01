//! Rotation through the proxy, what is slow or odd and harmless, and what never reaches the provider.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::CredentialHealth;
use futures_util::future::join_all;

use crate::faulty_proxy::{Counts, Fault};
use crate::scene::{REST, Scene, told_to_come_again};
use crate::support::oidc::OidcServer;

// req: B5 N1
#[tokio::test(flavor = "multi_thread")]
async fn every_expiry_costs_one_exchange() {
    const EXPIRIES: u64 = 10;
    let server = Arc::new(OidcServer::start().await);
    let scene = Scene::leased(&server, 12, "", "[leases]\nlifetime = \"24h\"").await;
    let mut tokens = BTreeSet::new();
    for round in 1..=EXPIRIES {
        scene.expire();
        assert!(
            tokens.insert(scene.all_get(2 + round).await),
            "round {round} brought a new token"
        );
        scene.provider_saw(1 + round, 0, 0).await;
    }
    let expected = Counts {
        connections: 1 + EXPIRIES,
        requests: 1 + EXPIRIES,
        forwarded: 1 + EXPIRIES,
        ..Counts::default()
    };
    assert_eq!(scene.proxy.counts(), expected);
    assert_eq!(scene.journaled().await, vec![""; 11]);
    scene.shown(CredentialHealth::Ok, "").await;
}

/// An answer that takes its time, comes in pieces, or comes twice is still the answer.
// req: N1 B5
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_slowly_or_twice_is_taken_once() {
    let server = Arc::new(OidcServer::start().await);
    let faults = [
        Fault::Delay(Duration::from_millis(300)),
        Fault::Trickle(Duration::ZERO),
        Fault::AnswerTwice,
    ];
    let rows = faults.map(async |fault| {
        let scene = Scene::leased(&server, 4, "", "").await;
        scene.expire();
        scene.proxy.next(fault);
        scene.all_get(3).await;
        scene.provider_saw(2, 0, 0).await;
        // The refresh token that came is the right one.
        scene.expire();
        scene.all_get(4).await;
        scene.provider_saw(3, 0, 0).await;
        assert_eq!(scene.journaled().await, ["", "", ""]);
    });
    join_all(rows).await;
}

/// The broker cannot know that the provider saw nothing of a request that it has sent. The resend, after a rest,
/// finds the grant as it was.
// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_lost_on_its_way_costs_a_rest_and_no_grant() {
    let server = Arc::new(OidcServer::start().await);
    let rows = [Fault::CloseUnread, Fault::CloseUnforwarded].map(async |fault| {
        let scene = Scene::leased(&server, 4, "", "").await;
        scene.expire();
        scene.proxy.next(fault);
        scene.all_are_told_ambiguous().await;
        scene.provider_saw(1, 0, 0).await;
        assert_eq!(scene.proxy.counts().connections, 2, "{fault:?}: it rests");
        scene.clock.advance(REST);
        scene.all_get(3).await;
        scene.provider_saw(2, 0, 0).await;
        assert_eq!(scene.journaled().await, ["", "REFRESH_AMBIGUOUS", ""]);
        scene.shown(CredentialHealth::Ok, "").await;
    });
    join_all(rows).await;
}

/// Who could not connect has sent nothing, and knows it.
// req: B4 B5
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_no_lost_answer() {
    let server = Arc::new(OidcServer::start().await);
    let mut scene = Scene::leased(&server, 4, "", "").await;
    scene.expire();
    scene.proxy.go_away().await;
    for answer in scene.resolve().await {
        told_to_come_again(&answer.unwrap_err(), "REFRESH_UNAVAILABLE");
    }
    scene.shown(CredentialHealth::Expiring, "refused").await;
    scene.provider_saw(1, 0, 0).await;
    scene.proxy.come_back().await;
    scene.clock.advance(REST);
    scene.all_get(3).await;
    scene.provider_saw(2, 0, 0).await;
    let journaled = scene.journaled().await;
    let (tried, done) = journaled.split_at(journaled.len() - 1);
    assert_eq!(done, [""]);
    assert!(
        tried[1..].iter().all(|end| end == "REFRESH_UNAVAILABLE"),
        "{tried:?}"
    );
    scene.shown(CredentialHealth::Ok, "").await;
}
