//! Authorization codes: brought by the browser's address or pasted, bound to their sign-in, good once.

use credbroker::proto::{ConnectionFlow, ConnectionState};

use crate::scene::{Scene, parts};
use crate::support::broker::ORG;
use crate::support::reason;

// req: A7 C3
#[tokio::test]
async fn a_member_signs_in_with_the_browser_and_agents_have_the_account() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    assert_eq!(begun.state(), ConnectionState::Waiting);
    assert_eq!(begun.redirect_uri, "http://127.0.0.1:5555/callback");
    assert!(begun.url.contains("code_challenge_method=S256"), "{}", begun.url);
    let followed = scene.follow(&begun).await;

    let address = scene.sign_in(&begun, "maria").await;
    let done = scene.complete(&begun, &address).await.unwrap();
    assert_eq!(done.state(), ConnectionState::Connected);
    assert!(done.url.is_empty(), "the address is of no use any more");
    let (states, end) = followed.ended().await;
    assert_eq!(states[0], ConnectionState::Waiting);
    assert!(
        states[1..]
            .iter()
            .all(|state| *state == ConnectionState::Exchanging),
        "{states:?}"
    );
    assert_eq!(
        (end.state(), &end.credential),
        (ConnectionState::Connected, &done.credential)
    );

    assert_eq!(scene.account().await.as_deref(), Some("maria"));
    let credential = scene.operator.health_of(ORG, &done.credential).await;
    assert_eq!(credential.connector, "demo");
    let described = scene.operator.described(ORG, &done.credential).await;
    assert_eq!(described.generations[0].origin, "brought");
    let records = scene.operator.records().await;
    let connected = records.iter().filter(|record| record.action == "account.connect");
    assert!(connected.count() >= 1);
    let everything = format!("{records:?}");
    let (code, state) = parts(&address);
    assert!(
        !everything.contains(&code) && !everything.contains(&state),
        "the journal has no secret"
    );
}

// req: A7
#[tokio::test]
async fn what_a_page_shows_is_pasted_with_its_state() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Paste).await.unwrap();
    assert!(begun.code_and_state);
    let (code, state) = parts(&scene.sign_in(&begun, "maria").await);

    let alone = scene.complete(&begun, &code).await.unwrap_err();
    assert_eq!(reason(&alone), "CONNECTION_MISMATCH");
    let other = scene.begin(ConnectionFlow::Paste).await.unwrap();
    let (_, other_state) = parts(&scene.sign_in(&other, "eve").await);
    let swapped = scene
        .complete(&begun, &format!("{code}#{other_state}"))
        .await
        .unwrap_err();
    assert_eq!(reason(&swapped), "CONNECTION_MISMATCH");
    assert_eq!(
        scene.get(&begun).await.state(),
        ConnectionState::Waiting,
        "it may be pasted again"
    );

    let done = scene
        .complete(&begun, &format!("  {code}#{state}\n"))
        .await
        .unwrap();
    assert_eq!(done.state(), ConnectionState::Connected);
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
    let again = scene
        .complete(&begun, &format!("{code}#{state}"))
        .await
        .unwrap_err();
    assert_eq!(reason(&again), "CONNECTION_STATE");
}

// req: A7 C5
#[tokio::test]
async fn a_code_that_the_server_refuses_ends_the_sign_in_with_its_words() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Paste).await.unwrap();
    let (_, state) = parts(&scene.sign_in(&begun, "maria").await);
    let refused = scene
        .complete(&begun, &format!("not-the-code#{state}"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "CONNECTION_REFUSED");
    let shown = scene.get(&begun).await;
    assert_eq!(
        (shown.state(), shown.reason.as_str()),
        (ConnectionState::Failed, "CONNECTION_REFUSED")
    );
    assert!(shown.message.contains("invalid_grant"), "{}", shown.message);
    assert_eq!(scene.account().await, None);
}

// req: A7 C3
#[tokio::test]
async fn a_member_who_says_no_ends_only_their_own_sign_in() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let (_, state) = parts(&scene.sign_in(&begun, "maria").await);
    let said_no = |state: &str| {
        format!("http://127.0.0.1:5555/callback?error=access_denied&error_description=no&state={state}")
    };
    let forged = scene.complete(&begun, &said_no("another")).await.unwrap_err();
    assert_eq!(reason(&forged), "CONNECTION_MISMATCH");
    assert_eq!(scene.get(&begun).await.state(), ConnectionState::Waiting);
    let refused = scene.complete(&begun, &said_no(&state)).await.unwrap_err();
    assert_eq!(reason(&refused), "CONNECTION_REFUSED");
    let shown = scene.get(&begun).await;
    assert_eq!(
        (shown.state(), shown.message.as_str()),
        (ConnectionState::Failed, "access_denied: no")
    );
}

// req: C3
#[tokio::test]
async fn what_is_given_up_is_over_and_can_be_begun_anew() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let followed = scene.follow(&begun).await;
    let old = scene.sign_in(&begun, "eve").await;
    let early = scene.retry(&begun).await.unwrap_err();
    assert_eq!(reason(&early), "CONNECTION_STATE", "it still waits");
    assert_eq!(
        scene.cancel(&begun).await.unwrap().state(),
        ConnectionState::Cancelled
    );
    assert_eq!(
        scene.cancel(&begun).await.unwrap().state(),
        ConnectionState::Cancelled,
        "again"
    );
    assert_eq!(followed.ended().await.1.state(), ConnectionState::Cancelled);
    let late = scene.complete(&begun, &old).await.unwrap_err();
    assert_eq!(reason(&late), "CONNECTION_STATE");

    let again = scene.retry(&begun).await.unwrap();
    assert_eq!((again.id.as_str(), again.attempt), (begun.id.as_str(), 2));
    let stale = scene.complete(&again, &old).await.unwrap_err();
    assert_eq!(reason(&stale), "CONNECTION_MISMATCH", "the state is another");
    let address = scene.sign_in(&again, "maria").await;
    scene.complete(&again, &address).await.unwrap();
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
    let over = scene.retry(&again).await.unwrap_err();
    assert_eq!(reason(&over), "CONNECTION_STATE", "it is connected");
}

// req: A7 A12
#[tokio::test]
async fn connecting_again_replaces_the_account() {
    let scene = Scene::start().await;
    let mut credentials = Vec::new();
    for person in ["maria", "joao"] {
        let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
        let address = scene.sign_in(&begun, person).await;
        credentials.push(scene.complete(&begun, &address).await.unwrap().credential);
        assert_eq!(scene.account().await.as_deref(), Some(person));
    }
    assert_eq!(credentials[0], credentials[1], "in its place");
}

// req: C3
#[tokio::test]
async fn a_sign_in_lasts_over_a_restart() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    let scene = scene.restarted().await;
    scene.complete(&begun, &address).await.unwrap();
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
}

// req: A7
#[tokio::test]
async fn the_answer_of_another_server_is_not_taken() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    let issuer = scene.server.issuer();
    let encoded: String = form_urlencoded::byte_serialize(issuer.as_bytes()).collect();
    assert!(
        address.contains(&format!("iss={encoded}")),
        "the server says who it is: {address}"
    );
    let other = address.replace(&encoded, "http%3A%2F%2Fevil.test");
    let refused = scene.complete(&begun, &other).await.unwrap_err();
    assert_eq!(reason(&refused), "CONNECTION_MISMATCH");
    scene.complete(&begun, &address).await.unwrap();
}
