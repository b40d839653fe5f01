//! How many connections there may be, and who sees them.

use credbroker::proto::{self, ConnectionFlow, ConnectionState};
use futures_util::future::join_all;

use crate::scene::Scene;
use crate::support::broker::ORG;
use crate::support::reason;

// req: A7
#[tokio::test]
async fn of_many_at_once_as_many_are_begun_as_may_be() {
    let scene = Scene::start().await;
    let begun = join_all((0..12).map(|_| scene.begin(ConnectionFlow::Loopback))).await;
    let (begun, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
    // Those that only met others at the same moment may come again.
    let limited = refused
        .iter()
        .filter(|refused| reason(refused.as_ref().unwrap_err()) == "CONNECTION_LIMIT");
    assert!(begun.len() <= 5, "{}", begun.len());
    assert!(begun.len() == 5 || limited.count() == 0);
    let mut waiting: Vec<_> = begun.into_iter().map(Result::unwrap).collect();
    while waiting.len() < 5 {
        waiting.push(scene.begin(ConnectionFlow::Loopback).await.unwrap());
    }
    let sixth = scene.begin(ConnectionFlow::Loopback).await.unwrap_err();
    assert_eq!(reason(&sixth), "CONNECTION_LIMIT");
    scene.cancel(&waiting[0]).await.unwrap();
    scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let again = scene.retry(&waiting[0]).await.unwrap_err();
    assert_eq!(
        reason(&again),
        "CONNECTION_LIMIT",
        "beginning anew counts as well"
    );
}

// req: A7
#[tokio::test]
async fn those_that_ended_are_kept_in_bounds() {
    let scene = Scene::start().await;
    let mut all = Vec::new();
    for _ in 0..25 {
        let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
        scene.cancel(&begun).await.unwrap();
        all.push(begun.id);
    }
    let request = proto::ListConnectionsRequest {
        org: ORG.to_owned(),
        page_size: 200,
        ..Default::default()
    };
    let listed = scene
        .operator
        .accounts()
        .list_connections(request)
        .await
        .unwrap()
        .into_inner();
    let ids: Vec<_> = listed.connections.iter().map(|one| one.id.clone()).collect();
    assert_eq!(ids, all[5..], "the newest twenty");
    assert!(
        listed
            .connections
            .iter()
            .all(|one| one.state() == ConnectionState::Cancelled)
    );
    assert!(listed.connections.iter().all(|one| one.url.is_empty()));
}

// req: A7
#[tokio::test]
async fn a_way_that_the_connector_does_not_have_is_named_with_those_it_has() {
    let server = crate::oidc::OidcServer::start().await;
    let plain = format!("authorize_url = \"{}/auth\"", server.issuer());
    let options = crate::support::Options {
        connectors: crate::support::broker::connector(&server.token_url(), "credbroker-cli", &plain),
        ..Default::default()
    };
    let broker = crate::support::TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let scene = Scene {
        server,
        broker,
        operator,
    };
    for flow in [
        ConnectionFlow::Device,
        ConnectionFlow::Paste,
        ConnectionFlow::Unspecified,
    ] {
        let refused = scene.begin(flow).await.unwrap_err();
        assert_eq!(reason(&refused), "FLOW_UNSUPPORTED");
        assert_eq!(crate::support::client::metadata(&refused, "flows"), "loopback");
    }
}

// req: A7
#[tokio::test]
async fn others_who_see_a_connection_are_not_told_where_to_sign_in() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Device).await.unwrap();
    assert!(!begun.url.is_empty() && !begun.user_code.is_empty());
    let (_, key) = scene.operator.make_broad_api_key(ORG).await;
    let other = Scene {
        operator: scene.broker.caller(Some(&key)).await,
        ..scene
    };
    let seen = other.get(&begun).await;
    assert_eq!(seen.state(), ConnectionState::Waiting);
    assert_eq!((seen.url, seen.user_code, seen.url_complete), Default::default());
}
