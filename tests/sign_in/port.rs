//! Who may call with an ID token, and for how long.

use std::sync::Arc;

use serde_json::json;
use support::clock::MovedClock;

use super::*;

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_linked_person_is_their_member_and_no_more() {
    let scene = Scene::new().await;
    scene.link("alice").await;
    let token = scene.token("alice");
    let who = scene.who(&token).await.unwrap();
    assert_eq!((who.actor, who.family.as_str()), (scene.member.clone(), "member"));

    let caller = scene.caller(&token).await;
    let own = caller.set_key(ORG, MEMBER, "sk-test-0123456789abcdef").await;
    assert_eq!(caller.health_of(ORG, &own.id).await.id, own.id);
    let request = proto::CreateOrgRequest {
        name: "other".to_owned(),
        ..Default::default()
    };
    let refused = caller.directory().create_org(request).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_DENIED");
    let refused = caller.resolve("").await.unwrap_err();
    assert_eq!(
        reason(&refused),
        "PERMISSION_DENIED",
        "a person is handed no secret"
    );

    // What they did is in the journal under their own name.
    let records = scene.operator.records().await;
    assert!(
        records.iter().any(|record| record.actor == scene.member),
        "{records:?}"
    );
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_refused_with_what_to_do() {
    let scene = Scene::new().await;
    scene.link("alice").await;
    let now = SystemClock::new().wall().seconds();
    let with = |name: &str, value: Value| {
        let mut claims = scene.claims("alice");
        claims[name] = value;
        scene.key.sign(&claims)
    };
    let good = scene.token("alice");
    let stranger = SigningKey::p256("one");
    for (token, expected) in [
        (with("aud", json!("another-client")), "ID_TOKEN_INVALID"),
        (with("nbf", json!(now + 600)), "ID_TOKEN_INVALID"),
        (with("exp", json!(now - 600)), "ID_TOKEN_EXPIRED"),
        (with("iss", json!("https://evil.example")), "ISSUER_UNKNOWN"),
        (stranger.sign(&scene.claims("alice")), "ID_TOKEN_INVALID"),
        (good.replace('.', ". "), "ID_TOKEN_INVALID"),
        (good.replacen('.', "", 1), "WRONG_CREDENTIAL_FAMILY"),
    ] {
        let refused = scene.who(&token).await.unwrap_err();
        assert_eq!(reason(&refused), expected);
        assert!(!refused.message().contains(&token[..20]), "{}", refused.message());
    }
    scene.who(&good).await.unwrap();
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_on_an_open_connection() {
    let clock = Arc::new(MovedClock::default());
    let options = Options {
        clock: Some(Arc::clone(&clock) as _),
        ..Options::default()
    };
    let scene = Scene::of(&[ORG], options).await;
    scene.link("alice").await;
    let caller = scene.caller(&scene.token("alice")).await;
    let who = || async { caller.access().who_am_i(proto::WhoAmIRequest {}).await };
    who().await.unwrap();
    clock.advance(HOUR + Duration::from_secs(60));
    assert_eq!(reason(&who().await.unwrap_err()), "ID_TOKEN_EXPIRED");
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn without_the_issuer_nothing_is_said_of_a_token() {
    let mut scene = Scene::new().await;
    scene.link("alice").await;
    scene.issuer.stop().await;
    let refused = scene.who(&scene.token("alice")).await.unwrap_err();
    assert_eq!(reason(&refused), "ISSUER_UNAVAILABLE");
    assert_eq!(metadata(&refused, "issuer"), scene.issuer.url);
    assert_eq!(
        support::client::retry_after(&refused),
        Some(Duration::from_secs(10))
    );
}

// req: D2
#[tokio::test(flavor = "multi_thread")]
async fn anybody_may_ask_how_to_sign_in_and_learns_no_more() {
    let scene = Scene::new().await;
    let caller = scene.broker.caller(None).await;
    let request = proto::GetLoginConfigurationRequest {};
    let answer = caller
        .access()
        .get_login_configuration(request)
        .await
        .unwrap()
        .into_inner();
    let method = proto::LoginMethod {
        issuer: scene.issuer.url.clone(),
        client_id: issuer::CLIENT.to_owned(),
        scopes: vec!["openid".to_owned(), "offline_access".to_owned()],
    };
    assert_eq!(answer.methods, [method]);
    assert!(!format!("{answer:?}").contains(ORG));
}

// req: D2 N6
#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_has_no_right_to_a_call_is_in_the_journal_by_name() {
    let scene = Scene::new().await;
    scene.link("alice").await;
    let caller = scene.caller(&scene.token("alice")).await;
    let org = proto::CreateOrgRequest {
        name: "other".to_owned(),
        ..Default::default()
    };
    // By the access table, and by what the call would reach.
    let by_role = caller.directory().create_org(org).await.unwrap_err();
    let task = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: support::broker::PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        agents: vec![format!("agt_{}", "0".repeat(32))],
        ..Default::default()
    };
    let by_reach = caller.tasks().create_task(task).await.unwrap_err();
    for (refused, call) in [
        (by_role, "DirectoryService/CreateOrg"),
        (by_reach, "TaskService/CreateTask"),
    ] {
        assert_eq!(reason(&refused), "PERMISSION_DENIED");
        let call = format!("/credbroker.v1.{call}");
        let records = scene.operator.records().await;
        let refused: Vec<_> = records
            .iter()
            .filter(|record| record.subject.get("call") == Some(&call))
            .collect();
        let [record] = refused[..] else {
            panic!("{call}: one record, not {refused:?}");
        };
        assert_eq!((&*record.action, &*record.outcome), ("request.refuse", "denied"));
        assert_eq!(
            (&*record.reason, &record.actor),
            ("PERMISSION_DENIED", &scene.member)
        );
        assert!(record.org.starts_with("org_"));
    }
}
