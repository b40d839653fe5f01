//! What is lost on the way to the server and back, and what comes too late.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::{self, ConnectionFlow, ConnectionState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::faulty_proxy::{Fault, FaultyProxy};
use crate::oidc::OidcServer;
use crate::scene::{PATIENCE, Scene};
use crate::support::broker::ORG;
use crate::support::clock::MovedClock;
use crate::support::reason;

async fn behind_a_proxy() -> (Scene, FaultyProxy) {
    let server = OidcServer::start().await;
    let proxy = FaultyProxy::start(server.port()).await;
    let token_url = proxy.token_url();
    (Scene::with(server, &token_url).await, proxy)
}

// req: A7
#[tokio::test]
async fn what_was_not_sent_is_handed_over_again() {
    let (scene, mut proxy) = behind_a_proxy().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    proxy.go_away().await;
    let unsent = scene.complete(&begun, &address).await.unwrap_err();
    assert_eq!(reason(&unsent), "CONNECTION_UNAVAILABLE");
    assert_eq!(scene.get(&begun).await.state(), ConnectionState::Waiting);
    proxy.come_back().await;
    scene.complete(&begun, &address).await.unwrap();
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
}

// req: A7
#[tokio::test]
async fn a_lost_answer_ends_the_sign_in_and_the_code_is_not_sent_again() {
    let (scene, proxy) = behind_a_proxy().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    proxy.next(Fault::DropAnswer);
    let lost = scene.complete(&begun, &address).await.unwrap_err();
    assert_eq!(reason(&lost), "CONNECTION_LOST");
    let calls = proxy.counts().requests;
    let again = scene.complete(&begun, &address).await.unwrap_err();
    assert_eq!(reason(&again), "CONNECTION_STATE");
    assert_eq!(proxy.counts().requests, calls, "a code is sent once");
    let begun = scene.retry(&begun).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    scene.complete(&begun, &address).await.unwrap();
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
}

// req: C3 A12
#[tokio::test]
async fn what_is_granted_after_it_was_given_up_is_revoked() {
    let (scene, proxy) = behind_a_proxy().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    proxy.next(Fault::Hold);
    let (completed, ()) = tokio::join!(scene.complete(&begun, &address), async {
        proxy.holds(1).await;
        assert_eq!(
            scene.cancel(&begun).await.unwrap().state(),
            ConnectionState::Cancelled
        );
        proxy.release(Duration::ZERO);
    });
    assert_eq!(reason(&completed.unwrap_err()), "CONNECTION_STATE");
    assert_eq!(scene.account().await, None);
    let issued = proxy.newest();
    let revoked = async {
        loop {
            let request = proto::ListRevocationsRequest {
                org: ORG.to_owned(),
                ..Default::default()
            };
            let listed = scene.operator.accounts().list_revocations(request).await.unwrap();
            let all = listed.into_inner().revocations;
            if let [one] = all.as_slice()
                && one.end_time.is_some()
            {
                return one.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let revoked = tokio::time::timeout(PATIENCE, revoked)
        .await
        .expect("it was not revoked");
    assert_eq!(revoked.credential, "", "no credential was made of it");
    assert!(
        !scene.server.takes(&issued.refresh).await,
        "the grant is gone there"
    );
}

// req: A7
#[tokio::test]
async fn an_exchange_goes_on_when_its_caller_hangs_up() {
    let (scene, proxy) = behind_a_proxy().await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    // The provider acts; the answer waits until the broker is gone.
    proxy.next(Fault::Hold);
    let completing = {
        let accounts = scene.operator.accounts();
        let request = proto::CompleteConnectionRequest {
            org: ORG.to_owned(),
            connection: begun.id.clone(),
            code: Some(proto::Secret { value: address }),
            ..Default::default()
        };
        tokio::spawn(async move {
            let mut accounts = accounts;
            accounts.complete_connection(request).await
        })
    };
    proxy.holds(1).await;
    let exchanging = scene.get(&begun).await;
    assert_eq!(exchanging.state(), ConnectionState::Exchanging);
    completing.abort();
    proxy.release(Duration::ZERO);
    let end = async {
        loop {
            let now = scene.get(&begun).await;
            if now.state() == ConnectionState::Connected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Whoever asked went away; the code is used up, so the account is connected all the same.
    tokio::time::timeout(PATIENCE, end)
        .await
        .expect("it was not connected");
    assert_eq!(scene.account().await.as_deref(), Some("maria"));
}

// req: A7 C3
#[tokio::test]
async fn what_is_told_after_the_time_is_over_ends_it_and_leaves_no_place_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", listener.local_addr().unwrap());
    let clock = Arc::new(MovedClock::default());
    let server = OidcServer::start().await;
    let scene = Scene::at(server, &token_url, Some(Arc::clone(&clock))).await;
    let begun = scene.begin(ConnectionFlow::Loopback).await.unwrap();
    let address = scene.sign_in(&begun, "maria").await;
    // Not processed, says the provider, when nobody may hand the code over any more.
    let (completed, ()) = tokio::join!(scene.complete(&begun, &address), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        clock.advance(Duration::from_secs(11 * 60));
        let busy = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(busy).await.unwrap();
    });
    assert_eq!(reason(&completed.unwrap_err()), "CONNECTION_UNAVAILABLE");
    assert_eq!(scene.get(&begun).await.state(), ConnectionState::Expired);
    assert_eq!(
        scene.retry(&begun).await.unwrap().state(),
        ConnectionState::Waiting
    );
}
