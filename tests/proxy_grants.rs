//! Proxy grants, with this test in the place of the model proxy: what it is told of a grant, and from when on nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "proxy_grants/endings.rs"]
mod endings;
#[path = "proxy_grants/scene.rs"]
mod scene;
mod support;

use std::time::Duration;

use credbroker::domain::grant_token::{GrantClaims, GrantKey, KEY_LENGTH};
use credbroker::domain::lease::Holder;
use credbroker::domain::secret::{Exposure, Secret};
use credbroker::proto::{self, KeyPool};
use scene::{KEY, Scene};
use support::broker::{MEMBER, ORG, PROJECT};
use support::{Caller, Options, TestBroker, reason};

/// What is told of a grant that is not good, to those who are told why.
fn inactive(reason: &str) -> proto::IntrospectGrantResponse {
    proto::IntrospectGrantResponse {
        inactive_reason: reason.to_owned(),
        ..Default::default()
    }
}

fn key_of(answer: &proto::IntrospectGrantResponse) -> Option<&str> {
    answer.key.as_ref().map(|key| key.value.as_str())
}

// req: E8 E9
#[tokio::test]
async fn a_model_proxy_learns_what_a_grant_is_for_and_gets_the_key() {
    let scene = Scene::start(&[]).await;
    let used = &scene.used[0];
    let (lease, grant) = (&used.lease, &used.grant);
    assert!(grant.starts_with("cbg_") && grant.len() == 120);
    assert_eq!(used.url, "https://proxy.example/demo/v1");
    assert_eq!(
        (lease.mode(), lease.credential.as_str()),
        (proto::AuthMode::Metered, "")
    );

    let answer = scene.proxy.introspect_grant(grant).await;
    assert!(answer.active && answer.inactive_reason.is_empty(), "{answer:?}");
    assert_eq!((&answer.task, &answer.holder), (&used.task, &used.agent.agent));
    assert_eq!(answer.lease, lease.id);
    assert!(answer.org.starts_with("org_") && answer.member.starts_with("mbr_"));
    assert_eq!(
        (answer.mode(), answer.provider.as_str()),
        (proto::AuthMode::Metered, "demo")
    );
    assert!(answer.project.starts_with("prj_"));
    assert_eq!((key_of(&answer), answer.key_generation), (Some(KEY), 1));
    let left = answer.expire_time.unwrap().seconds - scene.now().seconds();
    assert!((890..=900).contains(&left), "{left}");

    // It is asked for every model call: nothing is written for any.
    for _ in 0..20 {
        assert!(scene.proxy.introspect_grant(grant).await.active);
    }
    let records = scene.operator.records().await;
    let about_proxy = records
        .iter()
        .filter(|record| record.action.starts_with("proxy_grant"));
    assert_eq!(about_proxy.count(), 0);
    // It is told the key, and nobody else sees it or the grant.
    let seen = format!("{records:?}");
    assert!(!seen.contains(KEY) && !seen.contains(&grant[4..40]));
}

// req: E8
#[tokio::test]
async fn what_is_forged_altered_or_over_is_not_active() {
    let scene = Scene::start(&[]).await;
    let used = &scene.used[0];
    let grant = used.grant.clone();
    let answer = scene.proxy.introspect_grant(&grant).await;
    assert!(answer.active);

    let foreign = GrantClaims {
        org: answer.org.parse().unwrap(),
        lease: answer.lease.parse().unwrap(),
        expires: scene.now() + Duration::from_secs(60),
    };
    let foreign = foreign.mint(&GrantKey::new(&Secret::new(vec![7; KEY_LENGTH])), [0; 8]);
    let foreign = foreign.expose_str(Exposure::Inspect).unwrap();
    let last = if grant.ends_with('0') { "1" } else { "0" };
    let altered = format!("{}{last}", &grant[..119]);
    for token in [
        foreign,
        &altered,
        &grant[..119],
        "cbg_",
        "nonsense",
        &used.agent.runtime_key,
    ] {
        assert_eq!(
            scene.proxy.introspect_grant(token).await,
            inactive("GRANT_INVALID"),
            "{token}"
        );
    }
    let none = proto::IntrospectGrantRequest::default();
    let refused = scene.proxy.platform().introspect_grant(none).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");

    // It is no credential of a caller of the broker's.
    let bearer = scene.broker.caller(Some(&grant)).await;
    let refused = bearer
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "WRONG_CREDENTIAL_FAMILY");

    // Its own time, and never past the lease's.
    scene.clock.advance(Duration::from_secs(14 * 60));
    assert!(scene.proxy.introspect_grant(&grant).await.active);
    scene.clock.advance(Duration::from_secs(60));
    assert_eq!(
        scene.proxy.introspect_grant(&grant).await,
        inactive("GRANT_EXPIRED")
    );
    scene.clock.advance(Duration::from_secs(40 * 60));
    let (lease, late, _) = scene.again(&used.agent, &used.task).await;
    assert_eq!(lease.id, used.lease.id);
    let answer = scene.proxy.introspect_grant(&late).await;
    assert_eq!(answer.expire_time, used.lease.expire_time);
    assert_eq!(lease.material_expire_time, answer.expire_time);
    scene.clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(
        scene.proxy.introspect_grant(&late).await,
        inactive("GRANT_EXPIRED")
    );

    // Of what is not good there is a record, of the first few of a kind.
    let records = scene.operator.records().await;
    let of_grants = records
        .iter()
        .filter(|record| record.action == "proxy_grant.introspect");
    let reasons: Vec<_> = of_grants.map(|record| record.reason.as_str()).collect();
    assert_eq!(
        reasons
            .iter()
            .filter(|reason| **reason == "GRANT_EXPIRED")
            .count(),
        2
    );
    assert_eq!(
        reasons
            .iter()
            .filter(|reason| **reason == "GRANT_INVALID")
            .count(),
        6
    );
    assert!(!format!("{records:?}").contains(&grant[4..40]));
}

// req: E8
#[tokio::test]
async fn another_key_shows_at_once_and_so_does_there_being_none() {
    let scene = Scene::start(&[]).await;
    let grant = scene.used[0].grant.clone();
    assert_eq!(key_of(&scene.proxy.introspect_grant(&grant).await), Some(KEY));
    let other = "the-platforms-other-key-0002";
    scene
        .operator
        .set_managed_key(KeyPool::Metered, "demo", other)
        .await
        .unwrap();
    let answer = scene.proxy.introspect_grant(&grant).await;
    assert_eq!((key_of(&answer), answer.key_generation), (Some(other), 2));
    // The other pool's key and another provider's are none of its business.
    for (pool, provider) in [(KeyPool::Shared, "demo"), (KeyPool::Metered, "second")] {
        let key = "the-platforms-wrong-key-0003";
        scene.operator.set_managed_key(pool, provider, key).await.unwrap();
    }
    assert_eq!(key_of(&scene.proxy.introspect_grant(&grant).await), Some(other));
    let request = proto::RemoveManagedKeyRequest {
        pool: KeyPool::Metered as i32,
        provider: "demo".to_owned(),
    };
    scene
        .operator
        .platform()
        .remove_managed_key(request)
        .await
        .unwrap();
    let answer = scene.proxy.introspect_grant(&grant).await;
    assert_eq!(answer, inactive("METERED_KEY_UNAVAILABLE"));
}

async fn proxy_key(scene: &Scene, org: &str, projects: &[&str]) -> Caller {
    let request = proto::CreateApiKeyRequest {
        org: org.to_owned(),
        groups: vec![proto::ApiKeyGroup::Proxy as i32],
        projects: projects.iter().map(|project| (*project).to_owned()).collect(),
        ..Default::default()
    };
    let made = scene.operator.access().create_api_key(request).await.unwrap();
    scene
        .broker
        .caller(Some(&made.into_inner().token.unwrap().value))
        .await
}

// req: E8 D3
#[tokio::test]
async fn an_orgs_own_proxy_sees_its_org_and_gets_the_key_where_the_control_plane_does() {
    let mut scene = Scene::start(&[]).await;
    let grant = scene.used[0].grant.clone();
    scene.operator.make_org("other").await;
    let request = proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: "elsewhere".to_owned(),
        ..Default::default()
    };
    scene.operator.directory().create_project(request).await.unwrap();

    let own = proxy_key(&scene, ORG, &[]).await;
    let answer = own.introspect_grant(&grant).await;
    assert!(answer.active);
    assert_eq!(key_of(&answer), Some(KEY));
    let confined = proxy_key(&scene, ORG, &["web"]).await;
    assert!(confined.introspect_grant(&grant).await.active);

    // What it does not reach looks like what is forged, and nothing says why.
    for stranger in [
        proxy_key(&scene, "other", &[]).await,
        proxy_key(&scene, ORG, &["elsewhere"]).await,
    ] {
        assert_eq!(stranger.introspect_grant(&grant).await, inactive(""));
        assert_eq!(stranger.introspect_grant("cbg_nonsense").await, inactive(""));
    }
    // Who runs the broker may look, and has no use for the key.
    let answer = scene.operator.introspect_grant(&grant).await;
    assert_eq!(
        (answer.active, key_of(&answer), answer.key_generation),
        (true, None, 0)
    );

    scene = scene.restart("raw_keys_to = []").await;
    let own = proxy_key(&scene, ORG, &[]).await;
    let answer = own.introspect_grant(&grant).await;
    assert_eq!((answer.active, key_of(&answer)), (true, None));
    assert_eq!(key_of(&scene.proxy.introspect_grant(&grant).await), Some(KEY));
}

/// The admins of an org make its API keys: with the default, that must not give the org the platform's keys.
// req: E8 E9
#[tokio::test]
async fn by_default_no_org_gets_the_platforms_keys() {
    let mut scene = Scene::start(&[]).await;
    scene = scene.restart("# raw_keys_to is not set").await;
    let (_, broad) = scene.operator.make_broad_api_key(ORG).await;
    let broad = scene.broker.caller(Some(&broad)).await;
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: support::broker::PROJECT.to_owned(),
        executor: "metered-agent".to_owned(),
        ..Default::default()
    };
    let made = scene.operator.tasks().create_task(request).await.unwrap();
    let task = made.into_inner().task.unwrap().id;
    let lease = broad.resolve(&task).await.unwrap().lease.unwrap();
    let Some(proto::material::Material::ProxyGrant(grant)) =
        lease.material.and_then(|material| material.material)
    else {
        panic!("the key itself");
    };
    let grant = grant.token.unwrap().value.clone();
    let answer = broad.introspect_grant(&grant).await;
    assert_eq!((answer.active, key_of(&answer)), (true, None));
    assert_eq!(key_of(&scene.proxy.introspect_grant(&grant).await), Some(KEY));
}

// req: E8 E9
#[tokio::test]
async fn who_gets_the_key_itself_is_configured() {
    let agent = Holder::Agent(credbroker::domain::id::Id::from_bytes([1; 16]));
    let control = Holder::ApiKey(credbroker::domain::id::Id::from_bytes([2; 16]));
    let operator = Holder::Operator(credbroker::domain::id::Id::from_bytes([3; 16]));
    let mut broker = TestBroker::start().await;
    for (listed, expected) in [
        (None, [false, false]),
        (Some("[\"control-plane\"]"), [false, true]),
        (Some("[]"), [false, false]),
        (Some("[\"agents\"]"), [true, false]),
        (Some("[\"agents\", \"control-plane\"]"), [true, true]),
    ] {
        let config = match listed {
            None => "# raw_keys_to is not set".to_owned(),
            Some(listed) => format!("[proxy]\nraw_keys_to = {listed}"),
        };
        broker = broker
            .restart_with(|options: &mut Options| options.config = config)
            .await;
        let handed = [agent, control].map(|holder| broker.broker.hands_raw(holder));
        assert_eq!(handed, expected, "{listed:?}");
        assert!(!broker.broker.hands_raw(operator));
    }
}

// req: E8 E9
#[tokio::test]
async fn where_calls_go_is_configured_by_provider_and_without_it_there_are_no_grants() {
    let mut scene = Scene::start(&[]).await;
    scene = scene
        .restart("base_urls = { demo = \"https://demo-proxy.example\" }\ngrant_lifetime = \"1m\"")
        .await;
    let (agent, task) = (&scene.used[0].agent, &scene.used[0].task);
    let (_, grant, url) = scene.again(agent, task).await;
    assert_eq!(url, "https://demo-proxy.example");
    let answer = scene.proxy.introspect_grant(&grant).await;
    let left = answer.expire_time.unwrap().seconds - scene.now().seconds();
    assert!((50..=60).contains(&left), "{left}");

    // Nowhere to go, and no key of its own; then the key itself.
    let (agent, task) = (agent.with_key(&agent.runtime_key), task.clone());
    let broker = scene.broker.restart_with(|options| options.config.clear()).await;
    let refused = broker.agent(&agent).await.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&refused), "PROXY_NOT_CONFIGURED");
    // What cannot be handed out does not show as ready, and is no dispatch.
    let operator = broker.operator().await;
    let request = proto::ListExecutorsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator
        .executors()
        .list_executors(request)
        .await
        .unwrap()
        .into_inner();
    let ways = listed.executors.iter().flat_map(|executor| &executor.ways);
    let metered: Vec<_> = ways
        .filter(|way| way.provider == "demo" && way.mode() == proto::AuthMode::Metered)
        .map(|way| way.reason.as_str())
        .collect();
    assert!(!metered.is_empty());
    assert!(
        metered.iter().all(|reason| *reason == "PROXY_NOT_CONFIGURED"),
        "{metered:?}"
    );
    let events = async |operator: &Caller| {
        let request = proto::ListCostEventsRequest {
            org: ORG.to_owned(),
            page_size: 200,
            ..Default::default()
        };
        let listed = operator
            .billing()
            .list_cost_events(request)
            .await
            .unwrap()
            .into_inner();
        listed.events.len()
    };
    let before = events(&operator).await;
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: "metered-agent".to_owned(),
        ..Default::default()
    };
    let made = operator.tasks().create_task(request).await.unwrap().into_inner();
    let fresh = made.task.unwrap().id;
    let newcomer = broker.agent(&broker.enroll(&operator, &fresh).await).await;
    let refused = newcomer.resolve(&fresh).await.unwrap_err();
    assert_eq!(reason(&refused), "PROXY_NOT_CONFIGURED");
    assert_eq!(events(&operator).await, before);
    let broker = broker
        .restart_with(|options| options.config = "[proxy]\nraw_keys_to = [\"agents\"]".to_owned())
        .await;
    let resolved = broker.agent(&agent).await.resolve(&task).await.unwrap();
    assert_eq!(support::client::secret(&resolved.lease.unwrap()), KEY);
}

// req: E9
#[tokio::test]
async fn shared_use_is_handed_out_as_metered_use_is() {
    let scene = Scene::start(&[]).await;
    let key = "the-platforms-shared-key-0001";
    scene
        .operator
        .set_managed_key(KeyPool::Shared, "demo", key)
        .await
        .unwrap();
    let used = scene.resolved(MEMBER, "shared-agent").await;
    assert_eq!(used.url, "https://proxy.example/demo/v1");
    let answer = scene.proxy.introspect_grant(&used.grant).await;
    assert_eq!(
        (answer.mode(), key_of(&answer)),
        (proto::AuthMode::Shared, Some(key))
    );
    // Credit is none of its business.
    scene.add_credit(-1_000_000).await;
    assert!(scene.proxy.introspect_grant(&used.grant).await.active);
    let request = proto::RemoveManagedKeyRequest {
        pool: KeyPool::Shared as i32,
        provider: "demo".to_owned(),
    };
    scene
        .operator
        .platform()
        .remove_managed_key(request)
        .await
        .unwrap();
    let answer = scene.proxy.introspect_grant(&used.grant).await;
    assert_eq!(answer, inactive("SHARED_KEY_UNAVAILABLE"));
}
