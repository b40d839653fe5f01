//! Contexts: which broker is meant, and whose token goes there.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_added_chosen_and_removed() {
    let scene = Scene::new().await;
    let (address, pin) = (scene.broker.address.to_string(), &scene.broker.pin);
    let ca = scene.broker.data_dir().join("ca.pem").display().to_string();
    scene.user.file("token", scene.broker.operator_token(), 0o600);
    let add = [
        "context",
        "add",
        "second",
        "--address",
        &address,
        "--ca-file",
        &ca,
    ];
    let added = scene
        .user
        .credbroker(&[&add[..], &["--token-file", "token"]].concat())
        .await
        .good();
    assert!(added.contains("context use second"), "{added}");

    let listed = scene.json("context list").await;
    assert_eq!(listed[0]["name"], "second");
    assert_eq!(
        (&listed[1]["name"], &listed[1]["current"]),
        (&"test".into(), &true.into())
    );
    assert!(
        !listed.to_string().contains(scene.broker.operator_token()),
        "{listed}"
    );
    let stored = scene.user.path("config/tokens/test");
    let mode = std::os::unix::fs::PermissionsExt::mode(&stored.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // The second has no org; it has the operator's token all the same, and knows the broker by its root.
    scene.run("context use second").await.good();
    scene.run("whoami").await.good();
    scene
        .run("project list")
        .await
        .bad(64, &["which org", "--org", "(context second)"]);
    scene.run("project list --org acme").await.good();
    scene.run("project list --context test").await.good();

    // Another broker is not sent this one's token.
    let elsewhere = format!("whoami --address {address} --ca-pin {pin}");
    scene.run(&elsewhere).await.bad(78, &["no token", &address]);
    scene.run(&format!("{elsewhere} --token-file token")).await.good();

    scene.run("context remove test --yes").await.good();
    assert!(!stored.exists());
    scene.run("context remove second --yes").await.good();
    assert!(scene.user.path("token").exists(), "the user's own file stays");
    scene
        .run("whoami")
        .await
        .bad(78, &["no broker is chosen", "credbroker context add"]);
    scene
        .run("context use test")
        .await
        .bad(78, &["no context 'test'"]);
}

// req: K2
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_the_pinned_one_gets_no_token() {
    let scene = Scene::new().await;
    let address = scene.broker.address;
    let wrong = format!("sha256:{}", "0".repeat(64));
    scene.user.file("token", scene.broker.operator_token(), 0o600);
    let whoami = format!("whoami --address {address} --ca-pin {wrong} --token-file token");
    scene.run(&whoami).await.bad(
        78,
        &["pinned key", "do not send it a token", &address.to_string()],
    );
    let enroll = format!("enroll --address {address} --ca-pin {wrong} --identity identity");
    scene
        .run_with(&enroll, "cbe_whatever")
        .await
        .bad(78, &["pinned key"]);
}
