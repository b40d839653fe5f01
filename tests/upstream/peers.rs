//! Whole servers on the other side: a real one, and the demo server.

use credbroker::dev::oauth::{DemoOAuth, DemoOptions};
use credbroker::upstream::answer::Expiry;
use serde_json::Value;

use super::oidc::{BASIC_CLIENT, CLIENT_SECRET, OidcServer, POST_CLIENT, PUBLIC_CLIENT};
use super::*;

/// Generous: these servers share two cores with the rest of the tests.
fn patient() -> HttpTokenEndpoint {
    endpoint(&HttpOptions::default())
}

fn refused(answer: Answer) -> (String, String) {
    match answer {
        Answer::Refused { code, message, .. } => (code, message),
        other => panic!("not refused: {}", text(&granted(other).access_token)),
    }
}

#[tokio::test]
async fn a_real_server_rotates_and_revokes_the_family_on_replay() {
    let server = OidcServer::start().await;
    let endpoint = patient();
    let connector = connector(&server.token_url(), &format!("client_id = \"{PUBLIC_CLIENT}\"\n"));
    let ask = async |token: &str| meaning(&connector, refresh_with(&endpoint, &connector, token).await);
    let grant = server.mint(Duration::from_secs(77)).await;

    let first = granted(ask(&grant.refresh_token).await);
    assert_eq!(first.expiry, Some(Expiry::In(Duration::from_secs(77))));
    assert_eq!(first.token_type, "Bearer");
    assert_eq!(first.scopes.unwrap(), ["openid", "offline_access"]);
    let rotated = text(&first.refresh_token.unwrap());
    assert_ne!(rotated, grant.refresh_token);

    let second = granted(ask(&rotated).await);
    assert_ne!(text(&second.access_token), text(&first.access_token));
    let newest = text(&second.refresh_token.unwrap());
    assert!(server.stats(&grant).await.alive);

    assert_eq!(refused(ask(&rotated).await).0, "invalid_grant");
    assert_eq!(
        refused(ask(&newest).await).0,
        "invalid_grant",
        "the replay took the family along"
    );
    let stats = server.stats(&grant).await;
    assert!(!stats.alive);
    assert_eq!(
        (stats.calls, stats.successes, stats.refused, stats.replays),
        (4, 2, 2, 1)
    );
}

#[tokio::test]
async fn a_real_server_takes_both_ways_of_client_authentication() {
    let server = OidcServer::start().await;
    let endpoint = patient();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    for (client, auth, secret, accepted) in [
        (BASIC_CLIENT, "basic", CLIENT_SECRET, true),
        (POST_CLIENT, "post", CLIENT_SECRET, true),
        (BASIC_CLIENT, "basic", "wrong", false),
        (POST_CLIENT, "post", "wrong", false),
    ] {
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        let more = format!(
            "client_id = \"{client}\"\nclient_auth = \"{auth}\"\nclient_secret = {{ file = '{}' }}\n",
            file.display()
        );
        let connector = connector(&server.token_url(), &more);
        let grant = server.mint_for(client, Duration::from_secs(60)).await;
        let answer = meaning(
            &connector,
            refresh_with(&endpoint, &connector, &grant.refresh_token).await,
        );
        if accepted {
            granted(answer);
        } else {
            assert!(matches!(&answer, Answer::Misconfigured { code, .. } if code == "invalid_client"));
        }
        // A wrong secret is the operator's mistake; the grant is untouched by it.
        assert!(server.stats(&grant).await.alive);
    }
}

/// The demo server, and a plain client for its other endpoints.
struct Demo {
    server: DemoOAuth,
    client: reqwest::Client,
    connector: Arc<Connector>,
    endpoint: HttpTokenEndpoint,
}

impl Demo {
    async fn start(options: DemoOptions) -> Self {
        let server = DemoOAuth::start("127.0.0.1:0".parse().unwrap(), options)
            .await
            .unwrap();
        Self {
            connector: connector(&server.token_url(), ""),
            endpoint: patient(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            server,
        }
    }

    async fn mint(&self, query: &str) -> Value {
        let url = format!("http://{}/grants?{query}", self.server.addr());
        self.client.post(url).send().await.unwrap().json().await.unwrap()
    }

    async fn history(&self, grant: &Value) -> Value {
        let id = grant["grant_id"].as_str().unwrap();
        let url = format!("http://{}/grants/{id}", self.server.addr());
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }

    async fn whoami(&self, access_token: &str) -> u16 {
        let url = format!("http://{}/whoami", self.server.addr());
        self.client
            .get(url)
            .bearer_auth(access_token)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    async fn refresh(&self, token: &str) -> Answer {
        meaning(
            &self.connector,
            refresh_with(&self.endpoint, &self.connector, token).await,
        )
    }
}

#[tokio::test]
async fn the_demo_server_kills_a_grant_that_two_refresh_at_once() {
    let demo = Demo::start(DemoOptions::default()).await;
    let grant = demo.mint("expires_in=60&delay_ms=50").await;
    let token = grant["refresh_token"].as_str().unwrap();
    assert_eq!(demo.whoami(grant["access_token"].as_str().unwrap()).await, 200);

    let (one, two) = tokio::join!(demo.refresh(token), demo.refresh(token));
    let (won, lost) = if matches!(one, Answer::Granted(_)) {
        (one, two)
    } else {
        (two, one)
    };
    assert_eq!(refused(lost).0, "invalid_grant");
    let won = granted(won);
    assert_eq!(
        demo.whoami(&text(&won.access_token)).await,
        401,
        "the winner's tokens died too"
    );
    assert_eq!(
        refused(demo.refresh(&text(&won.refresh_token.unwrap())).await).0,
        "invalid_grant"
    );

    let history = demo.history(&grant).await;
    assert_eq!(history["alive"], false);
    assert_eq!(
        (history["refreshes"].as_u64(), history["replays"].as_u64()),
        (Some(1), Some(1))
    );
    let kinds: Vec<_> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["kind"].clone())
        .collect();
    assert_eq!(kinds, ["refreshed", "replayed", "killed"]);
}

#[tokio::test]
async fn the_demo_server_rotates_before_it_delays_so_that_a_lost_answer_is_lost() {
    let demo = Demo::start(DemoOptions {
        grace: Some(Duration::from_secs(60)),
        ..DemoOptions::default()
    })
    .await;
    let grant = demo.mint("delay_ms=900").await;
    let token = grant["refresh_token"].as_str().unwrap();
    let hasty = HttpOptions {
        connect_timeout: Duration::from_millis(100),
        answer_timeout: Duration::from_millis(100),
        ..HttpOptions::default()
    };
    let delivery = refresh_with(&endpoint(&hasty), &demo.connector, token).await;
    assert!(matches!(delivery, Delivery::Lost(_)));
    assert_eq!(demo.history(&grant).await["refreshes"], 1);

    // Within the grace window the same request has the answer that was lost.
    let again = granted(demo.refresh(token).await);
    assert_eq!(demo.whoami(&text(&again.access_token)).await, 200);
    assert_eq!(demo.history(&grant).await["refreshes"], 1);
    assert_eq!(demo.history(&grant).await["alive"], true);
}

#[tokio::test]
async fn the_demo_server_names_callers_ends_tokens_and_stops() {
    let demo = Demo::start(DemoOptions::default()).await;
    let grant = demo.mint("expires_in=0").await;
    assert_eq!(
        demo.whoami(grant["access_token"].as_str().unwrap()).await,
        401,
        "expired"
    );
    assert_eq!(demo.whoami("demo-at.guess.guess").await, 401);
    let form = format!(
        "grant_type=refresh_token&refresh_token={}",
        grant["refresh_token"].as_str().unwrap()
    );
    let sent = demo
        .client
        .post(demo.server.token_url())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-demo-caller", "naive-agent-1")
        .body(form)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    assert_eq!(demo.history(&grant).await["events"][0]["caller"], "naive-agent-1");

    let addr = demo.server.addr();
    demo.server.shutdown().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    let everywhere = DemoOAuth::start("0.0.0.0:0".parse().unwrap(), DemoOptions::default()).await;
    assert!(everywhere.is_err(), "not a server for others to reach");
}
