//! The real `credbrokerd`: its commands, its signals, its log.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use support::process::Installation;

#[tokio::test]
async fn it_starts() {
    let made = Installation::make("", "").await;
    let mut daemon = made.start().await;
    daemon.operator().await.make_org("acme").await;
    daemon.kill().await;
    let daemon = made.start().await;
    let _ = daemon.operator().await;
}
