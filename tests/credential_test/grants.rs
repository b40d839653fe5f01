//! Grants: a token that was revoked and still looks good here, at a real OAuth server; and what a test may force.

use support::broker::{MEMBER, connector};
use support::client::{metadata, owner, reason};
use support::provider::Provider;

use super::fake::reply;
use super::oidc::{OidcServer, PUBLIC_CLIENT};
use super::*;

const LIFE: Duration = Duration::from_secs(600);

/// A connector of a real server, found by its issuer.
fn discovered(oidc: &OidcServer) -> String {
    format!(
        "[connectors.demo]\nprovider = \"demo\"\nissuer = {:?}\nclient_id = {PUBLIC_CLIENT:?}\nlead_seconds = 1\n",
        oidc.issuer()
    )
}

/// What a server gives for a refresh token, past the broker: access and refresh token.
async fn exchanged(oidc: &OidcServer, refresh_token: &str) -> (String, String) {
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("client_id", PUBLIC_CLIENT),
    ];
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let told = client.post(oidc.token_url()).form(&form).send().await.unwrap();
    let told: serde_json::Value = told.json().await.unwrap();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn import(operator: &Caller, access: &str, refresh: &str, scopes: &[&str]) -> String {
    let secret = |text: &str| {
        Some(proto::Secret {
            value: text.to_owned(),
        })
    };
    let request = proto::ImportGrantRequest {
        org: ORG.to_owned(),
        owner: Some(owner(MEMBER)),
        connector: "demo".to_owned(),
        refresh_token: secret(refresh),
        access_token: secret(access),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..Default::default()
    };
    let imported = operator.credentials().import_grant(request).await.unwrap();
    imported.into_inner().credential.unwrap().id
}

// req: C4 C5
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_that_still_looks_good_is_caught_at_a_real_server() {
    let oidc = OidcServer::start().await;
    let scene = Scene::with(Options {
        connectors: discovered(&oidc),
        ..Options::default()
    })
    .await;
    let grant = oidc.mint(LIFE).await;
    let (access, refresh) = exchanged(&oidc, &grant.refresh_token).await;
    let id = import(&scene.operator, &access, &refresh, &[]).await;
    let calls = oidc.stats(&grant).await.calls;

    // What works is not rotated for a test.
    let told = scene.test(&id).await;
    assert_eq!(told.outcome(), Outcome::Works, "{}", told.message);
    assert_eq!((told.generation, told.refreshed), (1, false));
    assert!(told.rejected.is_none());
    assert_eq!(oidc.stats(&grant).await.calls, calls);

    oidc.revoke(&refresh).await;
    let looks = scene.operator.health_of(ORG, &id).await;
    assert_eq!(looks.health(), proto::CredentialHealth::Ok);
    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.http_status), (Outcome::Rejected, 401));
    let rejected = told.rejected.unwrap();
    assert_eq!((rejected.generation, rejected.http_status), (1, 401));
    assert_eq!(rejected.refresh_reason, "REAUTH_REQUIRED");
    let now = scene.operator.health_of(ORG, &id).await;
    assert_ne!(now.health(), proto::CredentialHealth::Ok);
    assert_eq!(oidc.stats(&grant).await.replays, 0);

    // From here on there is nothing to test with.
    scene.clock.advance(Duration::from_secs(6));
    let refused = test_as(&scene.operator, &id).await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    assert!(!metadata(&refused, "provider_message").is_empty());
    oidc.kill().await;
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_of_a_grant_that_lives_is_replaced_and_the_new_one_tested() {
    let oidc = OidcServer::start().await;
    let scene = Scene::with(Options {
        connectors: discovered(&oidc),
        ..Options::default()
    })
    .await;
    // The token of one that was revoked, with the refresh token of one that was not: as where a provider takes back
    // single tokens.
    let revoked = oidc.mint(LIFE).await;
    let (access, refresh) = exchanged(&oidc, &revoked.refresh_token).await;
    oidc.revoke(&refresh).await;
    let grant = oidc.mint(LIFE).await;
    let id = import(&scene.operator, &access, &grant.refresh_token, &["openid"]).await;
    let looks = scene.operator.health_of(ORG, &id).await;
    assert_eq!(looks.health(), proto::CredentialHealth::Ok);

    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.generation), (Outcome::Works, 2), "{told:?}");
    let rejected = told.rejected.unwrap();
    assert_eq!((rejected.generation, rejected.refresh_reason.as_str()), (1, ""));
    assert!(!rejected.message.is_empty() && told.refreshed);
    let stats = oidc.stats(&grant).await;
    assert_eq!((stats.calls, stats.replays, stats.alive), (1, 0, true));
    // Of one that is new there is no access token yet, so that it is refreshed first.
    let another = oidc.mint(LIFE).await.refresh_token;
    let id = scene.operator.import_grant(ORG, MEMBER, &another).await.id;
    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.refreshed), (Outcome::Works, true));
    assert!(told.rejected.is_none());
    oidc.kill().await;
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn without_openid_there_is_nothing_to_test_with_unless_the_connector_says() {
    let oidc = OidcServer::start().await;
    let scene = Scene::with(Options {
        connectors: discovered(&oidc),
        ..Options::default()
    })
    .await;
    let grant = oidc.mint(LIFE).await;
    let (access, refresh) = exchanged(&oidc, &grant.refresh_token).await;
    let id = import(&scene.operator, &access, &refresh, &["offline_access"]).await;
    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.host.as_str()), (Outcome::Untestable, ""));
    assert!(told.message.contains("test_url"), "{}", told.message);
    assert!(tests_in(&scene.operator.records().await).is_empty());

    let Scene { broker, fake, .. } = scene;
    let url = fake.url("/whoami");
    let broker = broker
        .restart_with(|options| options.connectors.push_str(&format!("test_url = {url:?}\n")))
        .await;
    let operator = broker.operator().await;
    let told = test_as(&operator, &id).await.unwrap();
    assert_eq!(told.outcome(), Outcome::Works);
    let asked = fake.last();
    assert_eq!(asked.line, "GET /whoami HTTP/1.1");
    assert_eq!(
        asked.header("authorization"),
        Some(format!("Bearer {access}").as_str())
    );

    // What is switched off is not used, for a test neither.
    let broker = broker
        .restart_with(|options| options.connectors.push_str("enabled = false\n"))
        .await;
    let refused = test_as(&broker.operator().await, &id).await.unwrap_err();
    assert_eq!(reason(&refused), "CONNECTOR_DISABLED");
    assert_eq!(fake.asked().len(), 1);
    oidc.kill().await;
}

/// A grant of a scripted provider, tested at the fake.
async fn scripted(config: &str) -> (Scene, Provider, String) {
    let provider = Provider::start(LIFE).await;
    let token_url = provider.token_url();
    let fake = Fake::start().await;
    let test_url = format!("test_url = {:?}", fake.url("/me"));
    let mut scene = Scene::with(Options {
        connectors: connector(&token_url, "tests", &test_url),
        config: config.to_owned(),
        ..Options::default()
    })
    .await;
    scene.fake = fake;
    let imported = scene.operator.import_grant(ORG, MEMBER, &provider.mint()).await;
    (scene, provider, imported.id)
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refreshed_first_and_a_good_one_never() {
    let (scene, provider, id) = scripted("").await;
    let told = scene.test(&id).await;
    assert_eq!(
        (told.outcome(), told.refreshed, provider.calls()),
        (Outcome::Works, true, 1)
    );
    let told = scene.test(&id).await;
    assert_eq!(
        (told.outcome(), told.refreshed, provider.calls()),
        (Outcome::Works, false, 1)
    );
    scene.clock.advance(LIFE);
    let told = scene.test(&id).await;
    assert_eq!(
        (told.outcome(), told.refreshed, provider.calls()),
        (Outcome::Works, true, 2)
    );
    assert_eq!(scene.fake.asked().len(), 3);
    // Limits and failures of the API are no reason to rotate.
    for status in [403, 429, 500] {
        scene.fake.answers(reply(status, "{}"));
        assert_ne!(scene.test(&id).await.outcome(), Outcome::Works);
    }
    assert_eq!((provider.calls(), provider.replays()), (2, 0));
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_always_rejected_is_rotated_within_the_limits_of_forced_rotations() {
    let (scene, provider, id) = scripted("[refresh]\nforced_rotations_per_hour_per_credential = 2\n").await;
    scene.fake.answers(reply(401, r#"{"error":{"message":"gone"}}"#));
    let told = scene.test(&id).await;
    assert_eq!(
        (told.outcome(), told.generation, provider.calls()),
        (Outcome::Rejected, 3, 2)
    );
    let rejected = told.rejected.unwrap();
    assert_eq!((rejected.generation, rejected.refresh_reason.as_str()), (2, ""));
    assert_eq!(scene.fake.asked().len(), 2);
    // Half of the limit is anybody's.
    let told = scene.test(&id).await;
    assert_eq!(
        (told.outcome(), told.generation, provider.calls()),
        (Outcome::Rejected, 3, 2)
    );
    assert_eq!(told.rejected.unwrap().refresh_reason, "ROTATION_LIMITED");
    let kept = scene.last_check(&id).await.unwrap();
    assert_eq!((kept.generation, kept.message.as_str()), (3, "gone"));
    // Its own token endpoint has nothing against it, and still it does not look well.
    let shown = scene.operator.health_of(ORG, &id).await;
    assert_eq!(shown.health(), proto::CredentialHealth::Ok);
    let rejected = "the provider rejected it when it was tested: gone";
    assert_eq!(shown.last_error, rejected);
    scene.fake.answers(reply(500, "{}"));
    scene.test(&id).await;
    assert_eq!(scene.operator.health_of(ORG, &id).await.last_error, rejected);
    scene.fake.answers(reply(200, "{}"));
    scene.test(&id).await;
    assert_eq!(scene.operator.health_of(ORG, &id).await.last_error, "");
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_be_asked_is_no_verdict() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let connectors = format!(
        "[connectors.demo]\nprovider = \"demo\"\nissuer = {issuer:?}\nclient_id = {PUBLIC_CLIENT:?}\n"
    );
    let scene = Scene::with(Options {
        connectors,
        ..Options::default()
    })
    .await;
    let id = import(
        &scene.operator,
        "an-access-token-0123456789",
        "a-refresh-token-0123456789",
        &[],
    )
    .await;
    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.host.as_str()), (Outcome::Unreachable, ""));
    assert!(!told.message.is_empty());
}

// req: C4 C6
#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_works_clears_what_callers_reported() {
    let (scene, _provider, id) = scripted("[refresh]\nrejections_in_a_row = 1\n").await;
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let agent = scene.broker.enroll(&scene.operator, &task).await;
    let agent = scene.broker.agent(&agent).await;
    let lease = agent.resolve(&task).await.unwrap().lease.unwrap();
    let lease = agent
        .reject(&lease.id, lease.generation)
        .await
        .unwrap()
        .lease
        .unwrap();
    let failed = agent.reject(&lease.id, lease.generation).await.unwrap_err();
    assert_eq!(reason(&failed), "REAUTH_FAILED");
    assert_ne!(scene.operator.health_of(ORG, &id).await.last_error, "");
    assert_eq!(scene.test(&id).await.outcome(), Outcome::Works);
    assert_eq!(scene.operator.health_of(ORG, &id).await.last_error, "");
}
