//! An executor's policy that pins one mode: that one, with the native provider's models, and nothing beside it.

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, set_credential_request::Key};

use crate::scene::{Scene, World, pinned, with_profile};
use crate::support::broker::MEMBER;
use crate::support::client::{metadata, owner};
use crate::support::reason;

// req: A1 A6 B4
#[tokio::test]
async fn with_oauth_pinned_an_unconnected_member_is_asked_to_connect_and_nothing_else_is_tried() {
    let world = World::start().await;
    let mut scene = world.org().await;
    for mode in [Mode::Byok, Mode::Metered, Mode::HostSession, Mode::Local] {
        scene.enable(mode).await;
    }
    scene.store_key(MEMBER).await;
    let all = with_profile(&[AuthMode::Oauth, AuthMode::Byok, AuthMode::Metered]);
    scene.rules(pinned(AuthMode::Oauth, all.clone())).await;
    let task = scene.task("set").await;
    let refused = scene.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&refused), "CONNECT_ACCOUNT");
    assert_eq!(metadata(&refused, "provider"), "demo");
    let explained = scene.explain(&task).await;
    assert!(explained.remedy.contains("connect"), "{}", explained.remedy);
    let decision = explained.decision.unwrap();
    assert_eq!(decision.permit.len(), 1);
    let tried = decision.candidates.iter().map(proto::Candidate::mode);
    assert_eq!(
        tried.collect::<Vec<_>>(),
        [AuthMode::Oauth; 2],
        "the member's, the org's"
    );

    // An account that is not connected is no rejection: a set goes on.
    scene.rules(all).await;
    assert_eq!(
        scene.picks().await,
        (AuthMode::Byok, "CONNECT_ACCOUNT".to_owned())
    );
}

/// Resolves with `claude-code`, which is pinned to byok, for this model and provider.
async fn asks_claude(scene: &Scene<'_>, model: &str, provider: &str) -> Result<String, String> {
    let request = proto::ResolveCredentialRequest {
        provider: provider.to_owned(),
        model: model.to_owned(),
        ..scene.asks(&scene.task("").await)
    };
    let resolved = scene.automation.broker().resolve_credential(request).await;
    match resolved {
        Ok(resolved) => Ok(resolved.into_inner().lease.unwrap().model.clone()),
        Err(refused) => Err(reason(&refused)),
    }
}

// req: A4
#[tokio::test]
async fn pinned_byok_is_held_to_the_models_of_the_native_provider() {
    let world = World::start().await;
    let mut scene = world.org().await;
    scene.executor = "claude-code";
    let request = proto::SetCredentialRequest {
        org: scene.org.clone(),
        owner: Some(owner("")),
        provider: "anthropic".to_owned(),
        key: Some(Key::ApiKey(proto::Secret {
            value: format!("sk-ant-api03-{}", "x".repeat(80)),
        })),
        ..Default::default()
    };
    world
        .operator
        .credentials()
        .set_credential(request)
        .await
        .unwrap();
    let request = proto::PinExecutorRequest {
        org: scene.org.clone(),
        executor: scene.executor.to_owned(),
        mode: AuthMode::Byok as i32,
        ..Default::default()
    };
    world.operator.policies().pin_executor(request).await.unwrap();

    let foreign = Err("MODEL_NOT_AVAILABLE".to_owned());
    assert_eq!(asks_claude(&scene, "gpt-5.1", "").await, foreign);
    assert_eq!(asks_claude(&scene, "claude-sonnet-4-6", "bedrock").await, foreign);
    for model in ["claude-sonnet-4-6", ""] {
        assert_eq!(asks_claude(&scene, model, "").await, Ok(model.to_owned()));
    }
}

// req: A11
#[tokio::test]
async fn from_oauth_to_byok_and_back_neither_uses_the_others_credential() {
    let world = World::start().await;
    let scene = world.org().await;
    let used = async || {
        let resolved = scene.resolve_unexplained(&scene.task("").await).await;
        resolved
            .map(|resolved| resolved.lease.unwrap().credential)
            .map_err(|refused| reason(&refused))
    };
    let key = scene.store_key(MEMBER).await;
    scene
        .rules(pinned(AuthMode::Oauth, proto::OrgRules::default()))
        .await;
    assert_eq!(used().await, Err("CONNECT_ACCOUNT".to_owned()));
    let grant = scene.connect().await;
    assert_eq!(used().await, Ok(grant.clone()));
    scene
        .rules(pinned(AuthMode::Byok, proto::OrgRules::default()))
        .await;
    assert_eq!(used().await, Ok(key.clone()));
    scene.remove(&key).await;
    assert_eq!(used().await, Err("NO_CREDENTIAL_CONFIGURED".to_owned()));
    scene
        .rules(pinned(AuthMode::Oauth, proto::OrgRules::default()))
        .await;
    assert_eq!(used().await, Ok(grant));
}
