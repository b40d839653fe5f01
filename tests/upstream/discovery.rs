//! Endpoints that are found by an issuer's metadata: what is asked for, how often, and what is never sent meanwhile.

use futures_util::future::join_all;

use super::delivery::{Act, Raw, http};
use super::metadata::{FALLBACK, Metadata, Page, STANDARD};
use super::*;

/// An issuer at `/tenant` and a token endpoint that grants.
struct Scene {
    metadata: Metadata,
    tokens: Raw,
    clock: Arc<ManualClock>,
    endpoint: HttpTokenEndpoint,
}

impl Scene {
    async fn start() -> Self {
        let granting = Act::KeepAlive(http("200 OK", "", "{\"access_token\":\"a\"}"));
        let clock = Arc::new(ManualClock::at(Time::from_seconds(NOW)));
        let given: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let patient = HttpOptions {
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(4),
            ..HttpOptions::default()
        };
        Self {
            metadata: Metadata::start().await,
            tokens: Raw::start(granting).await,
            endpoint: HttpTokenEndpoint::new(&patient, given).unwrap(),
            clock,
        }
    }

    /// One that has published its document.
    async fn published(more: serde_json::Value) -> Self {
        let scene = Self::start().await;
        scene.metadata.publish(&scene.tokens.url(), more);
        scene
    }

    fn connector(&self, more: &str) -> Arc<Connector> {
        let issuer = self.metadata.issuer("/tenant");
        let text = format!("[connectors.test]\nissuer = \"{issuer}\"\nclient_id = \"test-client\"\n{more}");
        let connectors = Connectors::load_text("test.toml", &text).unwrap();
        Arc::clone(connectors.get("test").unwrap())
    }

    async fn refresh(&self, connector: &Connector) -> Delivery {
        refresh_with(&self.endpoint, connector, "rt").await
    }

    async fn granted(&self, connector: &Connector) -> Granted {
        granted(meaning(connector, self.refresh(connector).await))
    }

    /// Refreshes in vain; tells why, after a look that no token was sent anywhere.
    async fn not_sent(&self, connector: &Connector) -> String {
        let before = self.tokens.connections();
        let Delivery::NotSent(why) = self.refresh(connector).await else {
            panic!("something was sent");
        };
        assert_eq!(self.tokens.connections(), before);
        why
    }
}

// req: N10
#[tokio::test]
async fn what_is_found_is_kept_for_its_time_and_then_fetched_beside_a_use() {
    let scene = Scene::published(serde_json::json!({})).await;
    let connector = scene.connector("");
    for _ in 0..3 {
        scene.granted(&connector).await;
    }
    assert_eq!(
        scene.metadata.asked(),
        [format!("{STANDARD}/tenant")],
        "asked once"
    );

    // Old, and the issuer fails: what is known is used at once, and asked for beside that.
    scene.clock.advance(Duration::from_secs(3600));
    scene.metadata.page(&format!("{STANDARD}/tenant"), Page::Silence);
    scene.granted(&connector).await;
    scene.metadata.was_asked(2).await;
    scene.granted(&connector).await;
    assert_eq!(scene.metadata.asked().len(), 2, "one is asking already");

    // Too old: nothing is sent before it is known again.
    let scene = Scene::published(serde_json::json!({})).await;
    let connector = scene.connector("");
    scene.granted(&connector).await;
    scene
        .metadata
        .page(&format!("{STANDARD}/tenant"), Page::Says(500, String::new()));
    scene.clock.advance(Duration::from_secs(24 * 3600));
    let why = scene.not_sent(&connector).await;
    assert!(why.contains("status 500"), "{why}");
    assert_eq!(
        scene.metadata.asked().len(),
        2,
        "a failing server is not asked at its other place"
    );
    // For a while nobody asks again.
    scene.metadata.publish(&scene.tokens.url(), serde_json::json!({}));
    scene.not_sent(&connector).await;
    assert_eq!(scene.metadata.asked().len(), 2);
    scene.clock.advance(Duration::from_secs(10));
    scene.granted(&connector).await;
    assert_eq!(scene.metadata.asked().len(), 3);
}

/// The server is asked again before its hour is over, where its token endpoint seems to be gone.
// req: N10
#[tokio::test]
async fn an_endpoint_that_moves_is_found_again() {
    for gone in [
        "302 Found",
        "404 Not Found",
        "405 Method Not Allowed",
        "410 Gone",
        "",
    ] {
        let scene = Scene::published(serde_json::json!({})).await;
        let old = Raw::start(Act::KeepAlive(http(gone, "", ""))).await;
        scene.metadata.publish(&old.url(), serde_json::json!({}));
        if gone.is_empty() {
            // Nobody listens there.
            let nowhere = scene.metadata.issuer("/token").replace("127.0.0.1", "127.0.0.3");
            scene
                .metadata
                .publish(&old.url(), serde_json::json!({ "token_endpoint": nowhere }));
        }
        let connector = scene.connector("hosts = [\"127.0.0.1\", \"127.0.0.3\"]\n");
        // What was found just now is believed.
        for _ in 0..3 {
            scene.refresh(&connector).await;
        }
        assert_eq!(scene.metadata.asked().len(), 1, "{gone}");
        scene.clock.advance(Duration::from_secs(10));
        scene.metadata.publish(&scene.tokens.url(), serde_json::json!({}));
        scene.refresh(&connector).await;
        assert_eq!(scene.tokens.connections(), 0, "{gone}");
        let before = old.connections();
        let all = join_all((0..5).map(|_| scene.granted(&connector))).await;
        assert_eq!((all.len(), old.connections()), (5, before), "{gone}");
        assert_eq!(scene.metadata.asked().len(), 2, "{gone}");
    }
}

// req: N10
#[tokio::test]
async fn an_endpoint_that_answers_or_is_configured_is_not_looked_up_again() {
    for (status, configured) in [
        ("400 Bad Request", false),
        ("401 Unauthorized", false),
        ("429 Too Many", false),
        ("500 Oops", false),
        ("404 Not Found", true),
    ] {
        let scene = Scene::start().await;
        let ill = Raw::start(Act::KeepAlive(http(status, "", "{}"))).await;
        scene.metadata.publish(&ill.url(), serde_json::json!({}));
        let connector = if configured {
            scene.connector(&format!("token_url = \"{}\"\n", ill.url()))
        } else {
            scene.connector("")
        };
        for _ in 0..3 {
            scene.refresh(&connector).await;
            known(&scene, &connector).await;
            scene.clock.advance(Duration::from_secs(10));
        }
        assert_eq!(scene.metadata.asked().len(), 1, "{status}");
    }
}

/// An issuer that is gone too is not asked for each request, and what is known of it is used on.
// req: N10
#[tokio::test]
async fn where_the_issuer_fails_too_what_is_known_is_used_on() {
    let scene = Scene::start().await;
    let gone = Raw::start(Act::KeepAlive(http("404 Not Found", "", ""))).await;
    scene.metadata.publish(&gone.url(), serde_json::json!({}));
    let connector = scene.connector("");
    scene.refresh(&connector).await;
    scene
        .metadata
        .page(&format!("{STANDARD}/tenant"), Page::Says(500, String::new()));
    scene.clock.advance(Duration::from_secs(10));
    for _ in 0..5 {
        scene.refresh(&connector).await;
    }
    assert_eq!((gone.connections(), scene.metadata.asked().len()), (6, 2));
    scene.metadata.publish(&scene.tokens.url(), serde_json::json!({}));
    scene.clock.advance(Duration::from_secs(10));
    scene.granted(&connector).await;
    assert_eq!(scene.metadata.asked().len(), 3);
}

// req: N10
#[tokio::test]
async fn many_who_need_it_at_once_ask_once() {
    let scene = Scene::published(serde_json::json!({})).await;
    let connector = scene.connector("");
    let all = join_all((0..20).map(|_| scene.granted(&connector))).await;
    assert_eq!((all.len(), scene.metadata.asked().len()), (20, 1));
    assert_eq!(scene.tokens.connections(), 20);
}

// req: N10
#[tokio::test]
async fn the_other_place_is_tried_where_the_first_has_no_such_document() {
    for first in [
        None,
        Some(Page::Says(200, "<html>an application</html>".to_owned())),
        Some(Page::Says(200, "{\"issuer\":7}".to_owned())),
        Some(Page::Elsewhere("/login".to_owned())),
    ] {
        let scene = Scene::start().await;
        if let Some(page) = first {
            scene.metadata.page(&format!("{STANDARD}/tenant"), page);
        }
        let document = serde_json::json!({
            "issuer": scene.metadata.issuer("/tenant"), "token_endpoint": scene.metadata.relay(&scene.tokens.url()),
        });
        let fallback = format!("/tenant{FALLBACK}");
        scene
            .metadata
            .page(&fallback, Page::Says(200, document.to_string()));
        let connector = scene.connector("");
        scene.granted(&connector).await;
        // No redirect was followed.
        assert_eq!(
            scene.metadata.asked(),
            [format!("{STANDARD}/tenant"), fallback.clone()]
        );
        let known = scene.endpoint.discovered(&connector);
        assert_eq!(known.place, scene.metadata.issuer(&fallback));
    }
}

// req: N10
#[tokio::test]
async fn a_document_that_cannot_be_taken_sends_nothing() {
    let scene = Scene::start().await;
    let issuer = scene.metadata.issuer("/tenant");
    let document = |issuer: &str, token: &str| {
        let document = serde_json::json!({ "issuer": issuer, "token_endpoint": token });
        Page::Says(200, document.to_string())
    };
    let large = format!("{{\"issuer\":\"{issuer}\",\"x\":\"{}\"}}", "x".repeat(65 * 1024));
    for (page, says) in [
        (
            document("http://127.0.0.1/tenant", &scene.tokens.url()),
            "the document of the issuer",
        ),
        (
            document(&issuer, "https://evil.example/token"),
            "add it to `hosts`",
        ),
        (document(&issuer, "http://evil.example/token"), "use https"),
        (Page::Says(200, large), "more than 65536 bytes"),
        (Page::Says(500, String::new()), "status 500"),
    ] {
        scene.metadata.page(&format!("{STANDARD}/tenant"), page);
        scene.clock.advance(Duration::from_secs(10));
        let connector = scene.connector("");
        let why = scene.not_sent(&connector).await;
        assert!(why.starts_with("connector test: ") && why.contains(says), "{why}");
        let known = scene.endpoint.discovered(&connector);
        assert!(known.metadata.is_none() && known.error.unwrap().to_string().contains(says));
    }
    assert_eq!(scene.tokens.connections(), 0);
}

// req: N10
#[tokio::test]
async fn an_issuer_that_never_answers_is_not_waited_for_without_end() {
    let scene = Scene::start().await;
    scene.metadata.page(&format!("{STANDARD}/tenant"), Page::Silence);
    let began = std::time::Instant::now();
    let why = scene.not_sent(&scene.connector("")).await;
    assert!(why.contains("no metadata within 2s"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

// req: N10
#[tokio::test]
async fn what_is_configured_wins_and_nobody_waits_for_the_rest() {
    let scene = Scene::start().await;
    let wrong = Raw::start(Act::Hang).await;
    scene.metadata.publish(&wrong.url(), serde_json::json!({}));
    let set = scene.connector(&format!("token_url = \"{}\"\n", scene.tokens.url()));
    scene.granted(&set).await;
    scene.metadata.was_asked(1).await;
    known(&scene, &set).await;
    // Now that it is known, as before it was.
    scene.granted(&set).await;
    assert_eq!((scene.tokens.connections(), wrong.connections()), (2, 0));
    assert_eq!(scene.metadata.asked(), [format!("{STANDARD}/tenant")]);

    let scene = Scene::start().await;
    scene.metadata.page(&format!("{STANDARD}/tenant"), Page::Silence);
    let set = scene.connector(&format!("token_url = \"{}\"\n", scene.tokens.url()));
    scene.granted(&set).await;
    assert!(scene.endpoint.discovered(&set).metadata.is_none());
}

/// Waits until the connector's metadata is there.
async fn known(scene: &Scene, connector: &Connector) {
    let waiting = async {
        while scene.endpoint.discovered(connector).metadata.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap();
}

// req: N10
#[tokio::test]
async fn the_way_to_authenticate_is_discovered_with_the_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "s3cret").unwrap();
    let secret = format!("client_secret = {{ file = '{}' }}\n", file.display());
    for (listed, header, body) in [
        (serde_json::json!(["client_secret_post"]), false, true),
        (serde_json::json!(["client_secret_basic"]), true, false),
        (serde_json::Value::Null, true, false),
    ] {
        let methods = serde_json::json!({ "token_endpoint_auth_methods_supported": listed });
        let scene = Scene::published(methods).await;
        scene.granted(&scene.connector(&secret)).await;
        let request = scene.tokens.request();
        assert_eq!(
            request.to_lowercase().contains("\r\nauthorization: basic "),
            header,
            "{listed}"
        );
        assert_eq!(request.contains("client_secret=s3cret"), body, "{listed}");
    }
    let methods = serde_json::json!({ "token_endpoint_auth_methods_supported": ["private_key_jwt"] });
    let scene = Scene::published(methods).await;
    let why = scene.not_sent(&scene.connector(&secret)).await;
    assert!(why.contains("set client_auth"), "{why}");
}
