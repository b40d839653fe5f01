//! Device flows: the broker waits for the provider, also over a restart.

use credbroker::proto::{ConnectionFlow, ConnectionState};

use crate::scene::Scene;
use crate::support::reason;
use crate::web::Browser;

// req: A7 C3
#[tokio::test]
async fn a_code_that_is_entered_elsewhere_connects_the_account() {
    let scene = Scene::start().await;
    // Nothing was asked for, and the server has a device flow.
    let begun = scene.begin(ConnectionFlow::Unspecified).await.unwrap();
    assert_eq!(
        (begun.flow(), begun.state()),
        (ConnectionFlow::Device, ConnectionState::Waiting)
    );
    assert!(!begun.user_code.is_empty() && begun.url.starts_with("http://127.0.0.1"));
    let followed = scene.follow(&begun).await;
    let code = scene.complete(&begun, "anything").await.unwrap_err();
    assert_eq!(reason(&code), "CONNECTION_STATE", "it takes no code");
    Browser::of("maria").run(&begun.url_complete).await;
    let (_, end) = followed.ended().await;
    assert_eq!(end.state(), ConnectionState::Connected, "{end:?}");
    assert!(end.user_code.is_empty());
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
}

// req: A7 C3
#[tokio::test]
async fn it_is_waited_for_after_a_restart() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Device).await.unwrap();
    let scene = scene.restarted().await;
    let followed = scene.follow(&begun).await;
    Browser::of("maria").run(&begun.url_complete).await;
    let (_, end) = followed.ended().await;
    assert_eq!(end.state(), ConnectionState::Connected, "{end:?}");
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
}

// req: C3
#[tokio::test]
async fn what_is_given_up_connects_nothing_even_when_it_is_entered() {
    let scene = Scene::start().await;
    let begun = scene.begin(ConnectionFlow::Device).await.unwrap();
    let followed = scene.follow(&begun).await;
    scene.cancel(&begun).await.unwrap();
    assert_eq!(followed.ended().await.1.state(), ConnectionState::Cancelled);
    Browser::of("maria").run(&begun.url_complete).await;
    // Longer than the pause between two polls.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    assert_eq!(scene.get(&begun).await.state(), ConnectionState::Cancelled);
    assert_eq!(scene.account().await, None);
}

// req: A7
#[tokio::test]
async fn a_revoked_beginner_connects_nothing() {
    let scene = Scene::start().await;
    let (id, key) = scene
        .operator
        .make_broad_api_key(crate::support::broker::ORG)
        .await;
    let by_key = crate::scene::Scene {
        operator: scene.broker.caller(Some(&key)).await,
        ..scene
    };
    let begun = by_key.begin(ConnectionFlow::Device).await.unwrap();
    let operator = by_key.broker.operator().await;
    let request = credbroker::proto::RevokeApiKeyRequest {
        org: crate::support::broker::ORG.to_owned(),
        api_key: id,
    };
    operator.access().revoke_api_key(request).await.unwrap();
    let scene = Scene { operator, ..by_key };
    let followed = scene.follow(&begun).await;
    Browser::of("eve").run(&begun.url_complete).await;
    let (_, end) = followed.ended().await;
    assert_eq!(
        (end.state(), end.reason.as_str()),
        (ConnectionState::Failed, "PERMISSION_DENIED")
    );
    assert_eq!(scene.account().await, None);
}
