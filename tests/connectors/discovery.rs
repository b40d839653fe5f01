//! A connector that names its issuer alone.

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto::{CredentialHealth, EndpointKind};
use serde_json::json;

use super::connector;
use crate::metadata::{Metadata, Page, STANDARD};
use crate::support::broker::{MEMBER, ORG};
use crate::support::client::secret;
use crate::support::clock::MovedClock;
use crate::support::oidc::{OidcServer, PUBLIC_CLIENT};
use crate::support::provider::Provider;
use crate::support::{Caller, Options, TestBroker, reason};

/// A broker with the connector `demo` for an issuer, a grant of it, and an agent with a task.
struct Scene {
    broker: TestBroker,
    clock: Arc<MovedClock>,
    operator: Caller,
    agent: Caller,
    task: String,
    credential: String,
}

impl Scene {
    async fn start(issuer: &str, client: &str, refresh_token: &str) -> Self {
        let clock = Arc::new(MovedClock::default());
        let connectors = format!(
            "[connectors.demo]\nprovider = \"demo\"\nissuer = {issuer:?}\nclient_id = {client:?}\nlead_seconds = 1\n"
        );
        let options = Options {
            connectors,
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let imported = operator.import_grant(ORG, MEMBER, refresh_token).await;
        let task = operator.make_task(ORG, MEMBER).await;
        let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
        Self {
            broker,
            clock,
            operator,
            agent,
            task,
            credential: imported.id,
        }
    }
}

// req: N10 N1
#[tokio::test]
async fn a_grant_of_a_real_server_is_refreshed_knowing_its_issuer_alone() {
    let server = OidcServer::start().await;
    let grant = server.mint(Duration::from_secs(60)).await;
    let scene = Scene::start(&server.issuer(), PUBLIC_CLIENT, &grant.refresh_token).await;
    let lease = scene.agent.resolve(&scene.task).await.unwrap().lease.unwrap();
    assert_eq!(lease.generation, 2);
    assert!(!secret(&lease).is_empty());
    scene.clock.advance(Duration::from_secs(60));
    let lease = scene.agent.resolve(&scene.task).await.unwrap().lease.unwrap();
    assert_eq!(lease.generation, 3);
    let stats = server.stats(&grant).await;
    assert!(stats.alive);
    assert_eq!((stats.calls, stats.successes, stats.replays), (2, 2, 0));

    let shown = connector(&scene.operator, "demo").await.unwrap();
    let discovery = shown.discovery.unwrap();
    assert_eq!(discovery.issuer, server.issuer());
    assert!(
        discovery.place.starts_with(&server.issuer()),
        "{}",
        discovery.place
    );
    assert!(discovery.fetch_time.is_some() && discovery.error.is_empty());
    assert_eq!(discovery.warnings, [""; 0]);
    let endpoint = |kind: EndpointKind| {
        let found = shown.endpoints.iter().find(|one| one.kind() == kind).unwrap();
        assert!(found.discovered, "{kind:?}");
        found.url.clone()
    };
    assert_eq!(endpoint(EndpointKind::Token), server.token_url());
    for kind in [
        EndpointKind::Authorization,
        EndpointKind::Revocation,
        EndpointKind::DeviceAuthorization,
    ] {
        assert!(endpoint(kind).starts_with(&server.issuer()), "{kind:?}");
    }
    assert_eq!(shown.client_auth, "none");
}

// req: N10 N1
#[tokio::test]
async fn an_issuer_that_is_down_keeps_no_broker_from_starting_and_costs_no_grant() {
    let metadata = Metadata::start().await;
    let provider = Provider::start(Duration::from_secs(600)).await;
    let page = format!("{STANDARD}/tenant");
    metadata.page(&page, Page::Says(503, String::new()));
    let scene = Scene::start(&metadata.issuer("/tenant"), "tests", &provider.mint()).await;
    let refused = scene.agent.resolve(&scene.task).await.unwrap_err();
    assert_eq!(reason(&refused), "REFRESH_UNAVAILABLE");
    assert!(refused.message().contains("status 503"), "{refused:?}");
    let credential = scene.operator.health_of(ORG, &scene.credential).await;
    assert_eq!(credential.generation, 1);
    assert_ne!(credential.health(), CredentialHealth::Ambiguous);
    assert_ne!(credential.health(), CredentialHealth::ReauthRequired);
    assert_eq!(provider.calls(), 0);
    let shown = connector(&scene.operator, "demo").await.unwrap();
    assert!(shown.usable && shown.endpoints.is_empty());
    let discovery = shown.discovery.unwrap();
    assert!(discovery.error.contains("status 503"), "{}", discovery.error);
    assert!(discovery.error_time.is_some() && discovery.fetch_time.is_none());

    // Another's document is no better than none.
    let other = json!({ "issuer": "http://127.0.0.1/other" });
    metadata.publish(&provider.token_url(), other);
    scene.clock.advance(Duration::from_secs(600));
    let refused = scene.agent.resolve(&scene.task).await.unwrap_err();
    assert!(
        refused.message().contains("http://127.0.0.1/other"),
        "{refused:?}"
    );
    assert_eq!(provider.calls(), 0);

    // The same grant, once the issuer is back.
    metadata.publish(&provider.token_url(), json!({}));
    scene.clock.advance(Duration::from_secs(600));
    let lease = scene.agent.resolve(&scene.task).await.unwrap().lease.unwrap();
    assert_eq!((lease.generation, provider.calls()), (2, 1));
    assert!(
        connector(&scene.operator, "demo")
            .await
            .unwrap()
            .discovery
            .unwrap()
            .error
            .is_empty()
    );
}

// req: N10
#[tokio::test]
async fn what_contradicts_the_configuration_is_told_with_its_key() {
    let metadata = Metadata::start().await;
    let provider = Provider::start(Duration::from_secs(600)).await;
    let more = json!({
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "authorization_endpoint": "https://evil.example/authorize",
    });
    metadata.publish(&provider.token_url(), more);
    let scene = Scene::start(&metadata.issuer("/tenant"), "tests", &provider.mint()).await;
    // It goes on as configured.
    let lease = scene.agent.resolve(&scene.task).await.unwrap().lease.unwrap();
    assert_eq!((lease.generation, provider.calls()), (2, 1));
    let shown = connector(&scene.operator, "demo").await.unwrap();
    let warnings = shown.discovery.unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("authorization_endpoint https://evil.example/authorize is not used"));
    assert!(
        warnings[1].contains("set client_auth = \"post\" and a client_secret"),
        "{warnings:?}"
    );
    let kinds: Vec<_> = shown.endpoints.iter().map(|one| one.kind()).collect();
    assert_eq!(kinds, [EndpointKind::Token]);
    drop(scene.broker);
}
