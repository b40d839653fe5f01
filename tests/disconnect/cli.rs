//! `credbroker account disconnect` and `revocations`, as people and scripts run them.

use std::time::Duration;

use crate::scene::Account;
use crate::support::broker::{MEMBER, ORG};
use crate::support::provider::{ACCESS_MARK, REFRESH_MARK};
use crate::user::User;

// req: A12
#[tokio::test]
async fn people_are_asked_first_and_told_what_the_provider_confirmed() {
    let account = Account::connected("").await;
    let scene = &account.scene;
    let user = User::new();
    let (address, pin) = (scene.broker.address.to_string(), &scene.broker.pin);
    user.connect(&address, pin, ORG, scene.broker.operator_token())
        .await;
    let line = [
        "account",
        "disconnect",
        "demo",
        "--member",
        MEMBER,
        "--wait",
        "30s",
    ];
    // Nobody is at a terminal to say yes.
    user.credbroker(&line)
        .await
        .bad(64, &["gone from the broker", "--yes"]);
    scene.resolve().await.unwrap();
    // Whoever runs the broker is no member, and has no account of their own.
    let own = user.credbroker(&["account", "disconnect", "demo", "--yes"]).await;
    own.bad(64, &["--member"]);
    let unknown = ["account", "disconnect", "claude", "--member", MEMBER, "--yes"];
    user.credbroker(&unknown).await.bad(1, &["NOT_FOUND", "claude"]);

    account
        .revocations
        .answers(&[(200, "", None), (503, "{}", Some(7_200))]);
    let told = user
        .credbroker(&[&line[..5], &["--yes", "--wait", "1s"]].concat())
        .await;
    let told = told.good();
    for part in [
        scene.credential.as_str(),
        "refresh token: revoked, as the provider confirmed",
        "access token: not confirmed by the provider yet",
        "leases ended: 1",
        "'credbroker account revocations'",
    ] {
        assert!(told.contains(part), "{part:?} not in\n{told}");
    }
    let listed = user
        .credbroker(&["account", "revocations", "-o", "json"])
        .await
        .json();
    assert_eq!(listed[0]["tokens"][1]["fate"], "pending", "{listed}");
    assert_eq!(listed[0]["credential"], scene.credential.as_str());

    // By its id, for a script, once it can be done.
    scene.clock.advance(Duration::from_secs(7_300));
    let json = ["account", "disconnect", &scene.credential, "--yes", "-o", "json"];
    let done = user
        .credbroker(&[&json[..], &["--wait", "30s"]].concat())
        .await
        .json();
    assert_eq!(done["tokens"][0]["fate"], "revoked");
    assert_eq!(done["tokens"][1]["fate"], "expires", "{done}");
    assert_eq!(done["revocation"], "");
    let table = user.credbroker(&["account", "revocations"]).await.good();
    for mark in [REFRESH_MARK, ACCESS_MARK] {
        assert!(!format!("{told}{listed}{done}{table}").contains(mark));
    }
}
