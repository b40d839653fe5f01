//! Operator tokens, roles and API keys, by the command.

use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use super::*;

// req: D1 D2 K6
#[tokio::test(flavor = "multi_thread")]
async fn operator_tokens_are_minted_shown_rotated_and_revoked() {
    let scene = Scene::new().await;
    let minted = scene.json("operator-token create --member alex --ttl 30d").await;
    let token = text(&minted["token"]).to_owned();
    let id = text(&minted["operator_token"]["id"]).to_owned();
    assert!(token.starts_with("cbo_") && id.starts_with("opr_"), "{minted}");
    let (address, pin) = (scene.broker.address, &scene.broker.pin);
    let add = format!("context add alex --address {address} --ca-pin {pin} --org {ORG}");
    scene.run_with(&add, &token).await.good();

    let who = scene.json("whoami --context alex").await;
    assert_eq!(
        (&who["family"], &who["shown"]),
        (&json!("member"), &json!("operator-token"))
    );
    assert_eq!((&who["shown_id"], &who["member"]), (&json!(id), &who["actor"]));
    assert!(is_time(&who["expire_time"]), "{who}");
    assert!(text(&who["roles"][0]).starts_with("member@org_"), "{who}");

    let listed = scene.json("operator-token list --context alex").await;
    assert_eq!(listed[0]["id"], json!(id));
    assert!(is_time(&listed[0]["last_used_time"]), "{listed}");
    assert_eq!(listed[0]["prefix"], "cbo_…");
    let shown = scene.run("operator-token list --member alex").await.good();
    assert!(shown.contains(&id) && !shown.contains(&token), "{shown}");

    let rotated = scene
        .run("operator-token rotate --context alex --overlap 0s -o value")
        .await
        .good();
    scene
        .run("whoami --context alex")
        .await
        .bad(77, &["CREDENTIAL_UNKNOWN"]);
    scene.run_with(&format!("{add} --force"), &rotated).await.good();
    scene.run("whoami --context alex").await.good();
    let revoked = scene.json(&format!("operator-token revoke {id} --yes")).await;
    assert!(is_time(&revoked["revoke_time"]), "{revoked}");
    scene
        .run("whoami --context alex")
        .await
        .bad(77, &["CREDENTIAL_UNKNOWN"]);

    // Of somebody who is no member, with roles of their own.
    let apart = scene
        .json("operator-token create --role auditor --role org-admin@acme --display-name helper")
        .await;
    let roles = apart["operator_token"]["roles"].as_array().unwrap();
    assert_eq!(roles[0], "auditor");
    assert!(text(&roles[1]).starts_with("org-admin@org_"), "{apart}");
    let me = scene.json("whoami").await;
    let revoke = format!("operator-token revoke {} --yes", text(&me["actor"]));
    scene
        .run(&revoke)
        .await
        .bad(1, &["LAST_SYSTEM_ADMIN", "--role system-admin"]);
}

// req: D2 K6
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_given_taken_and_listed() {
    let scene = Scene::new().await;
    let holder = scene
        .json(&format!("role grant auditor@{ORG}/{PROJECT} --member alex"))
        .await;
    let roles = holder["roles"].as_array().unwrap();
    assert!(
        text(&roles[0]).starts_with("member@org_") && text(&roles[1]).contains("/prj_"),
        "{holder}"
    );
    scene.run("role grant approver --member alex").await.good();
    let rows = scene.run("role list").await.good();
    assert!(rows.contains("alex") && rows.contains("approver@org_"), "{rows}");
    let holder = scene.json("role revoke approver --member alex").await;
    assert_eq!(holder["roles"].as_array().unwrap().len(), 2);
    let system = scene.run("role grant system-admin --member alex").await;
    system.bad(64, &["INVALID_ARGUMENT"]);

    let me = scene.json("whoami").await;
    let holder = format!("role grant auditor --operator {}", text(&me["actor"]));
    assert_eq!(
        scene.json(&holder).await["roles"],
        json!(["system-admin", "auditor"])
    );
}

// req: D3 K6
#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_over_mtls_is_made_used_and_rotated() {
    let scene = Scene::new().await;
    let create = "api-key create --project web --group directory --group tasks --mtls certificate";
    let minted = scene.json(create).await;
    let key = &minted["api_key"];
    assert_eq!(key["groups"], json!(["tasks", "directory"]));
    assert_eq!(key["certificate_required"], true);
    let id = text(&key["id"]).to_owned();
    for name in ["key.pem", "cert.pem"] {
        let path = scene.user.path("certificate").join(name);
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o600, "{name}");
    }

    let (address, pin) = (scene.broker.address, &scene.broker.pin);
    let add = format!("context add service --address {address} --ca-pin {pin}");
    let bare = format!("{add} --force");
    let with = format!("{add} --force --client-certificate certificate");
    let token = text(&minted["token"]).to_owned();
    scene.run_with(&bare, &token).await.good();
    let without = scene.run("project list --context service --org acme").await;
    without.bad(77, &["CLIENT_CERTIFICATE_REQUIRED"]);
    scene.run_with(&with, &token).await.good();
    let who = scene.json("whoami --context service").await;
    assert_eq!(
        (&who["actor"], &who["groups"]),
        (&json!(id), &json!(["tasks", "directory"]))
    );
    scene
        .run("project list --context service --org acme")
        .await
        .good();

    let rotate = format!("api-key rotate {id}");
    scene
        .run(&rotate)
        .await
        .bad(64, &["INVALID_ARGUMENT", "client certificate"]);
    let rotated = scene
        .run(&format!("{rotate} --mtls certificate -o value"))
        .await
        .good();
    // The old key's certificate was replaced, so it is good no more from here.
    scene
        .run("whoami --context service")
        .await
        .bad(77, &["CERTIFICATE_MISMATCH"]);
    scene.run_with(&with, &rotated).await.good();
    scene.run("whoami --context service").await.good();
    let rows = scene.run("api-key list").await.good();
    assert!(rows.contains(&id) && !rows.contains(rotated.trim()), "{rows}");
}
