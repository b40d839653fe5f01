//! The last gate: what is denied is not handed out, but to a system admin at the scope of the system, and then it is
//! on record.

use credbroker::proto::{self, AuthMode, ResolveCredentialRequest};
use tonic::Status;

use crate::scene::{EXECUTOR, Scene, World, denying, pinned, with_profile};
use crate::support::broker::{MEMBER, PROJECT};
use crate::support::client::{metadata, secret};
use crate::support::{Caller, reason};

fn asks(scene: &Scene<'_>, system_scope: bool) -> ResolveCredentialRequest {
    ResolveCredentialRequest {
        org: scene.org.clone(),
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: EXECUTOR.to_owned(),
        system_scope,
        ..Default::default()
    }
}

async fn resolve(
    caller: &Caller,
    asks: ResolveCredentialRequest,
) -> Result<proto::ResolveCredentialResponse, Status> {
    Ok(caller.broker().resolve_credential(asks).await?.into_inner())
}

async fn org_admin(world: &World, scene: &Scene<'_>) -> Caller {
    world.operator.make_member(&scene.org, "ada").await;
    let request = proto::GrantRoleRequest {
        org: scene.org.clone(),
        member: "ada".to_owned(),
        role: Some(proto::RoleGrant {
            role: proto::Role::OrgAdmin as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    world.operator.access().grant_role(request).await.unwrap();
    let request = proto::CreateOperatorTokenRequest {
        org: scene.org.clone(),
        member: "ada".to_owned(),
        ..Default::default()
    };
    let made = world
        .operator
        .access()
        .create_operator_token(request)
        .await
        .unwrap();
    let token = made.into_inner().token.unwrap().value.clone();
    world.broker.caller(Some(&token)).await
}

// req: E6 N6
#[tokio::test]
async fn a_system_admin_passes_the_gate_at_the_scope_of_the_system_and_it_is_on_record() {
    let world = World::start().await;
    let scene = world.org().await;
    let key = scene.store_key("").await;
    // The member's own are nobody's business but the member's.
    scene.store_key(MEMBER).await;
    scene.connect().await;
    world.system(&[AuthMode::Oauth]).await;
    let rules = proto::OrgRules {
        matrix: denying(&[AuthMode::Byok, AuthMode::Metered, AuthMode::Shared]),
        ..pinned(AuthMode::Byok, with_profile(&[AuthMode::Byok]))
    };
    scene.rules(rules).await;
    let refused = scene.refuses().await;
    assert_eq!(reason(&refused), "ACCESS_DENIED");
    assert_eq!(
        (metadata(&refused, "scope"), metadata(&refused, "mode")),
        ("org".to_owned(), "byok".to_owned())
    );

    let resolved = resolve(&world.operator, asks(&scene, true)).await.unwrap();
    let lease = resolved.lease.unwrap();
    assert_eq!((lease.mode(), &lease.credential), (AuthMode::Byok, &key));
    assert_eq!(secret(&lease), format!("the-own-key-of--{}", scene.org));
    assert!(resolved.decision.unwrap().system_scope);
    let records = world.operator.records().await;
    let record = records
        .iter()
        .find(|record| record.position == resolved.journal_position)
        .unwrap();
    assert_eq!(record.subject["scope"], "system");
    assert!(record.actor.starts_with("opr_"), "{record:?}");
    let elsewhere = records.iter().filter(|other| other.subject.contains_key("scope"));
    assert!(elsewhere.count() <= 2, "the intent and the outcome of one effect");

    scene.remove(&key).await;
    let refused = resolve(&world.operator, asks(&scene, true)).await.unwrap_err();
    assert_eq!(
        reason(&refused),
        "NO_CREDENTIAL_CONFIGURED",
        "nobody's personal key"
    );
    scene
        .rules(pinned(AuthMode::Oauth, proto::OrgRules::default()))
        .await;
    let refused = resolve(&world.operator, asks(&scene, true)).await.unwrap_err();
    assert_eq!(reason(&refused), "CONNECT_ACCOUNT", "nobody's personal account");
}

// req: E6
#[tokio::test]
async fn nobody_else_passes_the_gate() {
    let world = World::start().await;
    let scene = world.org().await;
    scene.store_key("").await;
    let admin = org_admin(&world, &scene).await;
    for (caller, system_scope) in [
        (&world.operator, false),
        (&admin, false),
        (&admin, true),
        (&scene.automation, true),
    ] {
        let mut asks = asks(&scene, system_scope);
        if std::ptr::eq(caller, &scene.automation) {
            asks.org.clear();
        }
        let refused = resolve(caller, asks).await.unwrap_err();
        assert_eq!(reason(&refused), "PERMISSION_DENIED");
    }
    let enrolled = world
        .operator
        .enrollment_token(&scene.org, &scene.task("").await)
        .await;
    let enrolled = world
        .broker
        .enroll_with(&enrolled, &crate::support::NewKey::generate())
        .await
        .unwrap();
    let agent = world.broker.agent(&enrolled).await;
    let asks = ResolveCredentialRequest {
        system_scope: true,
        ..Default::default()
    };
    let refused = resolve(&agent, asks).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_DENIED");
    assert!(scene.cost_events().await.is_empty());
}
