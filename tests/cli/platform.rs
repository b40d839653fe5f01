//! The platform's own keys, by the command.

use serde_json::json;

use super::*;

const KEY: &str = "the-platforms-own-key-0001";

// req: E8 E9
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_platforms_is_set_listed_replaced_and_removed() {
    let scene = Scene::new().await;
    let set = scene
        .run_with("managed-key set metered demo -o json", KEY)
        .await
        .good();
    assert!(!set.contains(KEY));
    let set: Value = serde_json::from_str(&set).unwrap();
    assert_eq!(
        (&set["pool"], &set["source"], &set["generation"], &set["hint"]),
        (&json!("metered"), &json!("stored"), &json!(1), &json!("0001"))
    );
    scene.user.file("key", "the-platforms-own-key-0002", 0o600);
    scene
        .run("managed-key set metered demo --key-file key --overlap 1h")
        .await
        .good();
    let listed = scene.json("managed-key list").await;
    assert_eq!(listed[0]["generation"], json!(2));
    assert!(is_time(&listed[0]["previous_expire_time"]), "{listed}");
    let shown = scene.run("managed-key list").await.good();
    assert!(
        shown.contains("metered") && shown.contains("demo") && !shown.contains("own-key"),
        "{shown}"
    );

    scene
        .run_with("managed-key set shared anthropic", "sk-proj-1234567890")
        .await
        .bad(64, &["KEY_SHAPE_MISMATCH", "--force"]);
    scene
        .run("managed-key remove metered demo")
        .await
        .bad(64, &["--yes"]);
    let removed = scene.run("managed-key remove metered demo --yes").await.good();
    assert!(
        removed.contains("removed the metered key for demo; there is no other"),
        "{removed}"
    );
    assert_eq!(scene.json("managed-key list").await, json!([]));
}
