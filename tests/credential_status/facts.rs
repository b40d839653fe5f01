//! What the provider tells of an account.

use super::*;
use crate::support::broker::MEMBER;
use crate::support::scene::Scene;

const FACTS: &str = r#"account = [
    { label = "subscription", from = "answer", pointer = "/organization/organization_type" },
    { label = "tier", from = "answer", pointer = "/organization/rate_limit_tier" },
]
"#;

// req: C6
#[tokio::test(flavor = "multi_thread")]
async fn the_plan_is_told_where_the_provider_tells_it() {
    let scene = Scene::imported(FACTS, "").await;
    let before = status(&scene.operator, &scene.credential).await;
    assert_eq!((before.subscription.as_str(), before.tier.as_str()), ("", ""));
    let body = serde_json::json!({
        "access_token": "an-access-token-of-some-length",
        "refresh_token": scene.provider.current(),
        "token_type": "Bearer",
        "expires_in": 600,
        "organization": { "organization_type": "claude_max", "rate_limit_tier": "default_claude_max_20x" },
    });
    scene.provider.answer(200, &body.to_string());
    scene.resolve().await.unwrap();
    let told = status(&scene.operator, &scene.credential).await;
    assert_eq!(
        (told.subscription.as_str(), told.tier.as_str()),
        ("claude_max", "default_claude_max_20x")
    );
    assert_eq!((told.consumption.len(), told.consumption_time), (0, None));

    // Of a key nothing is known.
    let key = scene
        .operator
        .set_key(ORG, MEMBER, "a-key-0123456789abcdef")
        .await;
    let told = status(&scene.operator, &key.id).await;
    assert_eq!((told.subscription.as_str(), told.dependents), ("", 0));
}

/// The shipped connectors tell the plan under the labels that statuses read.
// req: C6
#[test]
fn the_shipped_connectors_have_the_labels() {
    for (connector, labels) in [
        (
            include_str!("../../registry/connectors/claude.toml"),
            &["subscription", "tier"][..],
        ),
        (
            include_str!("../../registry/connectors/openai.toml"),
            &["subscription"],
        ),
    ] {
        for label in labels {
            assert!(connector.contains(&format!("label = {label:?}")), "{label}");
        }
    }
}
