//! A provider that refuses to refresh a grant: where the profile goes on, to the API key, then to AWS, and no further.

use std::time::Duration;

use credbroker::domain::mode::AuthMode as Mode;
use credbroker::proto::{self, AuthMode, OnRejection, material::Material, set_credential_request::Key};
use tonic::Status;

use crate::scene::{REFUSED, Scene, World, pinned, profile};
use crate::support::client::{metadata, owner};
use crate::support::reason;

const MODEL: &str = "claude-sonnet-4-6";

/// An org whose tasks use `cloud-agent`, by a profile of oauth, byok and metered; metered can be used.
async fn scene(world: &World, on_rejection: OnRejection) -> Scene<'_> {
    let mut scene = world.org().await;
    scene.executor = "cloud-agent";
    scene.model = MODEL.to_owned();
    scene.enable(Mode::Metered).await;
    let mut set = profile("set", &[AuthMode::Oauth, AuthMode::Byok, AuthMode::Metered]);
    set.on_rejection = on_rejection as i32;
    let rules = proto::OrgRules {
        profiles: vec![set],
        ..Default::default()
    };
    scene.rules(rules).await;
    scene.connect().await;
    scene
}

/// A task that runs on the member's account.
async fn begin(scene: &Scene<'_>) -> (String, proto::Lease) {
    let task = scene.task("set").await;
    let lease = scene.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!((lease.mode(), lease.model.as_str()), (AuthMode::Oauth, MODEL));
    (task, lease)
}

/// Reports that the provider rejects what the lease handed out; the provider then answers the refresh so.
async fn reported(
    scene: &Scene<'_>,
    lease: &proto::Lease,
    status: u16,
) -> Result<proto::RefreshTokenResponse, Status> {
    scene.world.provider.answer(status, REFUSED);
    scene.automation.reject(&lease.id, lease.generation).await
}

async fn store_aws(scene: &Scene<'_>) {
    let keys = proto::AwsKeys {
        access_key_id: "AKIAABCDEFGHIJKLMNOP".to_owned(),
        secret_access_key: Some(proto::Secret {
            value: "s".repeat(40),
        }),
        session_token: None,
        region: "eu-central-1".to_owned(),
    };
    let request = proto::SetCredentialRequest {
        org: scene.org.clone(),
        owner: Some(owner("")),
        provider: "bedrock".to_owned(),
        key: Some(Key::AwsKeys(keys)),
        ..Default::default()
    };
    scene
        .world
        .operator
        .credentials()
        .set_credential(request)
        .await
        .unwrap();
}

// req: B4 E4
#[tokio::test]
async fn a_refused_refresh_goes_on_to_the_api_key() {
    let world = World::start().await;
    let scene = scene(&world, OnRejection::Next).await;
    store_aws(&scene).await;
    let key = scene.store_key("").await;
    let (task, lease) = begin(&scene).await;
    let calls = world.provider.calls();
    let next = reported(&scene, &lease, 400).await.unwrap();
    assert_eq!(world.provider.calls(), calls + 1, "the refresh is tried first");
    assert_eq!(next.fallback_reason, "REAUTH_REQUIRED");
    let next = next.lease.unwrap();
    assert_eq!((next.mode(), &next.credential), (AuthMode::Byok, &key));
    assert_eq!(next.model, MODEL);

    // The key's first lease is a dispatch as any other, and the record says what led to it.
    let events = scene.cost_events().await;
    let mut costs: Vec<_> = events.iter().map(|event| (event.mode(), &event.lease)).collect();
    costs.sort_by_key(|(mode, _)| *mode as i32);
    assert_eq!(costs, [(AuthMode::Oauth, &lease.id), (AuthMode::Byok, &next.id)]);
    let records = world.operator.records().await;
    let of_it = |record: &&proto::JournalRecord| record.subject.get("rejected") == Some(&lease.id);
    let record = records.iter().rfind(of_it).unwrap();
    assert_eq!(
        (record.action.as_str(), record.subject["lease"].as_str()),
        ("credential.resolve", next.id.as_str())
    );

    // That is the task's from now on, also once the account is connected again.
    scene.connect().await;
    let again = scene.resolve(&task).await.unwrap();
    assert_eq!(again.fallback_reason, "REAUTH_REQUIRED", "it keeps saying so");
    assert_eq!(again.lease.unwrap().id, next.id);
    assert_eq!(scene.cost_events().await.len(), 2);
    let (other, _) = begin(&scene).await;
    assert_ne!(other, task);
}

// req: B4 B1
#[tokio::test]
async fn without_an_api_key_it_goes_on_to_aws_with_the_model_as_it_is_named_there() {
    let world = World::start().await;
    let scene = scene(&world, OnRejection::Next).await;
    store_aws(&scene).await;
    let (task, lease) = begin(&scene).await;
    let next = reported(&scene, &lease, 400).await.unwrap();
    assert_eq!(next.fallback_reason, "REAUTH_REQUIRED");
    let next = next.lease.unwrap();
    assert_eq!(
        (next.mode(), next.provider.as_str(), next.model.as_str()),
        (AuthMode::Byok, "bedrock", "anthropic.claude-sonnet-4-6")
    );
    let material = next.material.as_ref().unwrap().material.as_ref().unwrap();
    assert!(matches!(material, Material::AwsKeys(_)));
    assert_eq!(scene.resolve(&task).await.unwrap().lease.unwrap().id, next.id);
    // The grant is known to be dead by now: the next task finds it so, without another call.
    let calls = world.provider.calls();
    let resolved = scene.resolve(&scene.task("set").await).await.unwrap();
    assert_eq!(resolved.fallback_reason, "REAUTH_REQUIRED");
    assert_eq!(resolved.lease.unwrap().provider, "bedrock");
    assert_eq!(world.provider.calls(), calls);
}

// req: B4
#[tokio::test]
async fn it_never_goes_on_to_the_platforms_keys() {
    let world = World::start().await;
    let scene = scene(&world, OnRejection::Next).await;
    let (task, lease) = begin(&scene).await;
    let refused = reported(&scene, &lease, 400).await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    for task in [task, scene.task("set").await] {
        let refused = scene.resolve(&task).await.unwrap_err();
        assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    }
    assert_eq!(scene.cost_events().await.len(), 1);
}

// req: B4 A1
#[tokio::test]
async fn where_the_profile_stops_or_a_mode_is_pinned_the_providers_message_is_told() {
    let world = World::start().await;
    for is_pinned in [false, true] {
        let on_rejection = if is_pinned {
            OnRejection::Next
        } else {
            OnRejection::Fail
        };
        let mut scene = scene(&world, on_rejection).await;
        if is_pinned {
            scene.executor = crate::scene::EXECUTOR;
            let set = profile("set", &[AuthMode::Oauth, AuthMode::Byok]);
            let rules = proto::OrgRules {
                profiles: vec![set],
                ..Default::default()
            };
            scene.rules(pinned(AuthMode::Oauth, rules)).await;
        }
        scene.store_key("").await;
        let (_, lease) = begin(&scene).await;
        let refused = reported(&scene, &lease, 400).await.unwrap_err();
        assert_eq!(reason(&refused), "REAUTH_REQUIRED");
        assert!(metadata(&refused, "provider_message").contains("signed out by the user"));
        assert_eq!(reason(&scene.refuses().await), "REAUTH_REQUIRED");
    }
}

// req: B4 N1
#[tokio::test]
async fn a_providers_own_failure_is_no_refusal() {
    let world = World::start().await;
    let scene = scene(&world, OnRejection::Next).await;
    scene.store_key("").await;
    let (task, lease) = begin(&scene).await;
    let failed = reported(&scene, &lease, 502).await.unwrap_err();
    assert_eq!(reason(&failed), "REFRESH_AMBIGUOUS");
    world.clock.advance(Duration::from_secs(5));
    let resolved = scene.resolve(&task).await.unwrap();
    assert_eq!(resolved.fallback_reason, "");
    assert_eq!(resolved.lease.unwrap().mode(), AuthMode::Oauth);
}

// req: B4
#[tokio::test]
async fn a_refusal_that_the_first_resolution_meets_leads_on_as_one_that_is_reported() {
    let world = World::start().await;
    let scene = scene(&world, OnRejection::Next).await;
    let key = scene.store_key("").await;
    world.provider.answer(400, REFUSED);
    let resolved = scene.resolve_unexplained(&scene.task("set").await).await.unwrap();
    assert_eq!(resolved.fallback_reason, "REAUTH_REQUIRED");
    assert_eq!(resolved.lease.unwrap().credential, key);
}
