//! A client that shares no code with the broker: Python's grpcio, which learns the API by reflection.
//!
//! What it is handed is compared with what the provider issued, and how often the provider was asked.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/python.rs"]
mod python;
mod support;

use credbroker::dev::oauth::{DemoOAuth, DemoOptions};
use credbroker::proto;
use serde_json::{Value, json};
use support::broker::{MEMBER, ORG, connector};
use support::client::owner;
use support::{Options, TestBroker};

const CALLERS: usize = 8;

/// The provider, and what it says of a grant and of an access token.
struct Provider {
    server: DemoOAuth,
    client: reqwest::Client,
}

impl Provider {
    async fn start() -> Self {
        let server = DemoOAuth::start(([127, 0, 0, 1], 0).into(), DemoOptions::default());
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            server: server.await.unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addr())
    }

    /// A grant whose answers take long enough for callers to meet.
    async fn mint(&self) -> Value {
        let minted = self.client.post(self.url("/grants?delay_ms=300")).send();
        minted.await.unwrap().json().await.unwrap()
    }

    /// How often a grant was refreshed, and whether it is alive.
    async fn history(&self, grant: &Value) -> (u64, bool) {
        let asked = self
            .client
            .get(self.url(&format!("/grants/{}", text(grant))))
            .send();
        let history: Value = asked.await.unwrap().json().await.unwrap();
        (
            history["refreshes"].as_u64().unwrap(),
            history["alive"].as_bool().unwrap(),
        )
    }

    /// The grant that an access token is the current one of.
    async fn grant_of(&self, token: &Value) -> Value {
        let answer = self.client.get(self.url("/whoami")).bearer_auth(text(token));
        let answer: Value = answer.send().await.unwrap().json().await.unwrap();
        answer["grant_id"].clone()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

// req: K1 K2 K3 B5 B7 D1 D5 D8 N4
#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_another_language_gets_what_the_provider_issued() {
    let provider = Provider::start().await;
    let broker = TestBroker::start_with(Options {
        connectors: connector(&provider.server.token_url(), "python", ""),
        ..Options::default()
    });
    let broker = broker.await;
    let operator = broker.prepare().await;

    // One member's grant comes with an access token that is good for long, the other's without any.
    let good = provider.mint().await;
    let secret = |value: &Value| {
        Some(proto::Secret {
            value: text(value).to_owned(),
        })
    };
    let import = proto::ImportGrantRequest {
        org: ORG.to_owned(),
        owner: Some(owner(MEMBER)),
        connector: "demo".to_owned(),
        refresh_token: secret(&good["refresh_token"]),
        access_token: secret(&good["access_token"]),
        access_token_expire_time: Some(prost_types::Timestamp {
            seconds: support::broker::now().seconds() + 3_600,
            nanos: 0,
        }),
        ..Default::default()
    };
    operator.credentials().import_grant(import).await.unwrap();
    operator.make_member(ORG, "kim").await;
    let expired = provider.mint().await;
    operator
        .import_grant(ORG, "kim", text(&expired["refresh_token"]))
        .await;

    let task = operator.make_task(ORG, MEMBER).await;
    let expired_task = operator.make_task(ORG, "kim").await;
    let foreign_task = operator.make_task(ORG, MEMBER).await;
    let enrollment_token = operator.enrollment_token(ORG, &task).await;
    let mut more_enrollment_tokens = Vec::new();
    for _ in 0..CALLERS {
        more_enrollment_tokens.push(operator.enrollment_token(ORG, &expired_task).await);
    }
    let stranger = broker.enroll(&operator, &foreign_task).await;

    let job = json!({
        "address": format!("localhost:{}", broker.address.port()),
        "ca_file": broker.data_dir().join("ca.pem"),
        "pin": broker.pin,
        "enrollment_token": enrollment_token,
        "more_enrollment_tokens": more_enrollment_tokens,
        "task": task,
        "foreign_task": foreign_task,
        "stranger_key": stranger.runtime_key,
        "callers": CALLERS,
    });
    let seen = python::run("agent.py", &job).await;

    let [first, second] = [&good, &expired].map(|grant| grant["grant_id"].clone());
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(seen["tls"][host], json!(["TLSv1.3", "h2"]), "{host}");
    }
    assert_eq!(seen["health"], 1, "SERVING");
    assert_eq!(
        seen["bundle"],
        json!({ "pin": broker.pin, "roots": [broker.pin] })
    );
    for service in ["BrokerService", "EnrollmentService", "TaskService"] {
        let name = json!(format!("credbroker.v1.{service}"));
        let services = seen["services"].as_array().unwrap();
        assert!(services.contains(&name), "{name} is not in {services:?}");
    }
    assert_eq!(seen["tasks"], json!([task]));
    let spiffe = text(&seen["spiffe"][0]);
    assert!(spiffe.ends_with(text(&seen["agent"])), "{spiffe}");

    // What was imported is handed out as it is; each report of its rejection gets the one replacement.
    assert_eq!(seen["resolved"]["token"], good["access_token"]);
    assert_eq!(
        (&seen["resolved"]["generation"], &seen["resolved"]["type"]),
        (&json!(1), &json!("Bearer"))
    );
    let renewed = seen["renewed"].as_array().unwrap();
    assert_eq!(renewed.len(), CALLERS);
    assert!(renewed.iter().all(|answer| *answer == renewed[0]), "{renewed:#?}");
    assert_eq!(renewed[0]["generation"], 2);
    assert_eq!(renewed[0]["lease"], seen["resolved"]["lease"]);
    assert_eq!(provider.grant_of(&renewed[0]["token"]).await, first);
    assert_eq!(provider.history(&first).await, (1, true));
    assert_eq!(
        seen["late"]["exchanged"], false,
        "a stale report costs no exchange"
    );
    assert_eq!(seen["late"]["token"], renewed[0]["token"]);

    assert_eq!(seen["watch"]["first"], "heartbeat");
    assert_eq!(seen["watch"]["rotated"], json!([true, 2]));
    assert_eq!(seen["watch"]["resolved"], renewed[0]);

    // Many agents without a token that works: one refresh, and all get it.
    let answers = seen["expired"].as_array().unwrap();
    assert_eq!(answers.len(), CALLERS);
    assert!(
        answers
            .iter()
            .all(|answer| answer["token"] == answers[0]["token"]),
        "{answers:#?}"
    );
    assert_eq!(provider.grant_of(&answers[0]["token"]).await, second);
    assert_eq!(provider.history(&second).await, (1, true));

    for (case, code, reason) in [
        ("another agent's key", "UNAUTHENTICATED", "CERTIFICATE_MISMATCH"),
        ("a replaced key", "UNAUTHENTICATED", "CREDENTIAL_UNKNOWN"),
        ("a mistyped key", "UNAUTHENTICATED", "CREDENTIAL_MALFORMED"),
        ("another family", "UNAUTHENTICATED", "WRONG_CREDENTIAL_FAMILY"),
        ("no certificate", "UNAUTHENTICATED", "CLIENT_CERTIFICATE_REQUIRED"),
        ("no key", "UNAUTHENTICATED", "CREDENTIAL_MISSING"),
        ("a task not its own", "NOT_FOUND", "NOT_FOUND"),
    ] {
        let told = json!({ "code": code, "domain": "credbroker", "reason": reason });
        assert_eq!(seen["refused"][case], told, "{case}");
    }
}
