//! Approvals and secrets of extensions, by the commands of both sides.

use serde_json::json;

use super::*;

const SCOPE: &str = "--executor demo-agent --provider demo --mode byok";

/// With a key of the org, and an agent with the identity `one` in an environment that demands approvals.
async fn guarded() -> Scene {
    let scene = Scene::new().await;
    scene
        .run_with("credential set --provider demo --org-owned", "key-of-the-org-000")
        .await
        .good();
    let update = format!("environment update {ENVIRONMENT} --project {PROJECT} --approval required");
    let updated = scene.json(&update).await;
    assert_eq!(updated["approval"], json!("required"));
    let line = format!(
        "task create --member {MEMBER} --project {PROJECT} --executor demo-agent --spec-hash sha256:1 -o name"
    );
    let task = scene.run(&line).await.good();
    scene.enroll(task.trim(), "one").await;
    scene
}

// req: D7
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_asked_for_granted_used_and_taken_back() {
    let scene = guarded().await;
    let told = scene.run("resolve --identity one -o value").await;
    told.bad(1, &["APPROVAL_REQUIRED", "credbroker approval request"]);
    let asked = scene
        .json(&format!(
            "approval request --identity one {SCOPE} --uses 2 --reason build"
        ))
        .await;
    let token = text(&asked["token"]).to_owned();
    let id = text(&asked["approval"]["id"]).to_owned();
    assert!(token.starts_with("cba_") && id.starts_with("apr_"), "{asked}");

    let listed = scene.json("approval list --state pending").await;
    assert_eq!(
        (&listed[0]["id"], &listed[0]["reason"]),
        (&json!(id), &json!("build"))
    );
    let shown = scene.run("approval list").await.good();
    assert!(shown.contains(&id) && !shown.contains(&token), "{shown}");
    let granted = scene
        .json(&format!("approval grant {id} --uses 1 --message fine"))
        .await;
    assert_eq!(
        (&granted["state"], &granted["use_limit"]),
        (&json!("granted"), &json!(1))
    );
    scene.user.file("approval", &token, 0o600);
    let resolved = scene
        .run("resolve --identity one --approval-file approval -o value")
        .await;
    assert_eq!(resolved.good().trim(), "key-of-the-org-000");
    let again = scene
        .run_with("resolve --identity one --approval-stdin -o value", &token)
        .await;
    assert_eq!(again.good().trim(), "key-of-the-org-000");
    let seen = scene.json(&format!("approval show {id} --identity one")).await;
    assert_eq!((&seen["state"], &seen["uses"]), (&json!("spent"), &json!(1)));
    let revoked = scene.json(&format!("approval revoke {id} --yes")).await;
    assert_eq!(revoked["state"], json!("revoked"));
    let told = scene.run("resolve --identity one --approval-file approval").await;
    told.bad(1, &["APPROVAL_REVOKED"]);

    let asked = scene
        .json(&format!("approval request --identity one {SCOPE}"))
        .await;
    let id = text(&asked["approval"]["id"]);
    let denied = scene.json(&format!("approval deny {id} --message no")).await;
    assert_eq!(
        (&denied["state"], &denied["message"]),
        (&json!("denied"), &json!("no"))
    );
    let made = scene
        .run(&format!(
            "approval create --environment {ENVIRONMENT} --project {PROJECT} --spec-hash sha256:1 {SCOPE} -o value"
        ))
        .await
        .good();
    scene
        .run_with("resolve --identity one --approval-stdin -o value", made.trim())
        .await
        .good();
}

// req: C2
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_set_granted_read_and_removed() {
    let scene = guarded().await;
    let set = "secret set plugin API_KEY";
    let set = scene.run_with(&format!("{set} -o json"), "s3cret\n").await.json();
    assert_eq!((&set["name"], &set["version"]), (&json!("API_KEY"), &json!(1)));
    let read = "secret read plugin API_KEY --identity one";
    scene.run(read).await.bad(1, &["NOT_FOUND"]);
    let grantee = format!("--environment {ENVIRONMENT} --project {PROJECT}");
    scene.run(&format!("secret grant plugin {grantee}")).await.good();
    assert_eq!(scene.run(read).await.good(), "s3cret\n");
    let listed = scene.run("secret list").await.good();
    assert!(
        listed.contains("API_KEY") && !listed.contains("s3cret"),
        "{listed}"
    );
    let grants = scene.json("secret grants plugin").await;
    assert!(text(&grants[0]["grantee"]).starts_with("env_"), "{grants}");
    scene.run(&format!("secret revoke plugin {grantee}")).await.good();
    scene.run(read).await.bad(1, &["NOT_FOUND"]);
    scene.run("secret remove plugin API_KEY --yes").await.good();
    assert_eq!(scene.json("secret list plugin").await, json!([]));
}
