//! The demo without the broker, against an OAuth server of the test's own making.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::cli::demo::without_broker;

const FIRST: &str = "rt&1=é";

#[derive(Default)]
struct State {
    used: HashSet<String>,
    events: Vec<Value>,
    alive: bool,
}

impl State {
    fn note(&mut self, kind: &str, caller: &str) {
        let at_ms = crate::cli::render::now().millis();
        self.events
            .push(json!({ "at_ms": at_ms, "kind": kind, "caller": caller }));
    }

    fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|event| event["kind"] == kind).count()
    }

    /// Rotation; where `strict`, a used token ends the grant.
    fn refresh(&mut self, token: &str, caller: &str, strict: bool) -> (StatusCode, Value) {
        if !self.used.insert(token.to_owned()) && strict {
            self.note("replayed", caller);
            if std::mem::take(&mut self.alive) {
                self.note("killed", caller);
            }
        }
        if !self.alive {
            return (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }));
        }
        self.note("refreshed", caller);
        let next = format!("rt{}", self.used.len() + 1);
        (
            StatusCode::OK,
            json!({ "access_token": "at", "refresh_token": next }),
        )
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    strict: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut state = state.lock().unwrap();
    let (status, value) = match (parts.method.as_str(), parts.uri.path()) {
        ("POST", "/grants") => {
            assert_eq!(parts.uri.query(), Some("expires_in=6&delay_ms=800"));
            state.alive = true;
            let grant =
                json!({ "grant_id": "g1", "access_token": "at", "refresh_token": FIRST, "expires_in": 6 });
            (StatusCode::OK, grant)
        }
        ("GET", "/grants/g1") => {
            let record = json!({
                "alive": state.alive,
                "refreshes": state.count("refreshed"),
                "replays": state.count("replayed"),
                "events": state.events,
            });
            (StatusCode::OK, record)
        }
        ("POST", "/token") => {
            let caller = parts.headers["x-demo-caller"].to_str().unwrap();
            let form = String::from_utf8(body.to_vec()).unwrap();
            assert!(form.starts_with("grant_type=refresh_token&"));
            let token = form.rsplit_once("refresh_token=").unwrap().1;
            state.refresh(token, caller, strict)
        }
        _ => (StatusCode::NOT_FOUND, Value::Null),
    };
    let body = Full::new(Bytes::from(value.to_string()));
    Ok(Response::builder().status(status).body(body).unwrap())
}

async fn server(strict: bool) -> (Provider, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State::default()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shared = state.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let state = shared.clone();
            let service = service_fn(move |request| answer(request, state.clone(), strict));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
        }
    });
    (Provider::at(&url).unwrap(), state)
}

#[tokio::test]
async fn each_for_itself_ends_the_grant_for_all() {
    let (provider, state) = server(true).await;
    let timeline = without_broker(&provider, 4).await.unwrap();
    assert!(!timeline.good, "bad news, as told");
    assert_eq!(
        timeline.summary,
        "4 callers, 1 got through, 3 replays, the grant is dead: 4 of 4 are logged out"
    );
    assert_eq!(timeline.rows.len(), 5);
    let sent = state.lock().unwrap().used.clone();
    assert!(sent.contains("rt%261%3D%C3%A9"), "the token is encoded: {sent:?}");
}

#[tokio::test]
async fn a_lenient_server_does_not_pass_for_what_was_told() {
    let (provider, _) = server(false).await;
    let timeline = without_broker(&provider, 4).await.unwrap();
    assert!(timeline.good, "{}", timeline.summary);
}

#[tokio::test]
async fn no_server_is_told_with_what_to_do() {
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let refused = Provider::at(&url)
        .unwrap()
        .mint(Duration::from_secs(6), Duration::ZERO)
        .await;
    let failure = refused.err().unwrap();
    assert_eq!(failure.kind, Kind::Unavailable);
    assert!(failure.account().contains("credbrokerd dev"));
}
