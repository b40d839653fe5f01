//! A development tool: a small OAuth server on a loopback address, for `credbrokerd dev`, for
//! `credbroker demo` and for crash tests. Never part of a deployment; anybody who reaches it can mint grants.
//!
//! It is as strict as the strictest providers: each refresh rotates both tokens, and a used refresh token
//! that comes again kills the whole grant (RFC 9700 section 4.14.2). With it, two programs that refresh the
//! same grant lose it, as they would at a real provider, and the grant's history shows who did.
//!
//! - `POST /token`: RFC 6749 section 6, form-encoded. The rotation is done when the request is read; only
//!   the answer is delayed, so that a client that gives up has lost it. Authorization codes and device codes as well.
//! - `/authorize` and `/device`: where a person signs in, with a button; `/code` shows a code to be pasted.
//! - `POST /device_authorization` (RFC 8628) and `POST /revoke` (RFC 7009).
//! - `POST /grants?expires_in=SECONDS&delay_ms=MILLISECONDS` mints a grant.
//! - `GET /grants/ID` tells what became of it. Requests say who they are with the header `x-demo-caller`.
//! - `GET /whoami` with a bearer token: 200 while it is valid, else 401.

mod grants;
mod pages;
mod signin;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Url;
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use grants::{Grants, Limits, Redeemed, Tokens};
use signin::SignIns;

/// The largest request body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// The most connections at a time; more wait.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest delay of an answer.
const MAX_DELAY: Duration = Duration::from_secs(300);
/// The longest life of an access token.
const MAX_LIFE: Duration = Duration::from_secs(86_400);

/// How the demo server behaves.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// How long the refresh token used last is taken again, and answered with the same tokens. `None`: a
    /// second use kills the grant at once.
    pub grace: Option<Duration>,
    /// The life of access tokens where `POST /grants` does not say.
    pub access_life: Duration,
    /// The most grants kept; the oldest is dropped for a new one.
    pub max_grants: usize,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            grace: None,
            access_life: Duration::from_secs(3600),
            max_grants: 1024,
        }
    }
}

/// A running demo server. Dropping it stops it as well.
#[derive(Debug)]
pub struct DemoOAuth {
    addr: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl DemoOAuth {
    /// Starts a server on `listen`, which has to be a loopback address; port 0 takes any.
    pub async fn start(listen: SocketAddr, options: DemoOptions) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the demo OAuth server gives grants to anybody; let it listen on a loopback address only",
            ));
        }
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let limits = Limits {
            grants: options.max_grants.max(1),
            grace: options.grace,
        };
        let server = Arc::new(Server {
            addr,
            grants: Mutex::new(Grants::new(limits)),
            sign_ins: Mutex::default(),
            access_life: options.access_life.min(MAX_LIFE),
            clock: SystemClock::new(),
            random: SystemRandom::new(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, server, stop.clone()));
        Ok(Self { addr, stop, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of one of its paths.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Its token endpoint, for a connector's `token_url`.
    pub fn token_url(&self) -> String {
        self.url("/token")
    }

    /// Stops it; connections end at once, answers on their way are lost.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        // It can only have ended or panicked, and either way it is gone.
        let _ = (&mut self.task).await;
    }
}

impl Drop for DemoOAuth {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a request is answered with.
type Answered = Response<Full<Bytes>>;

struct Server {
    addr: SocketAddr,
    grants: Mutex<Grants>,
    sign_ins: Mutex<SignIns>,
    access_life: Duration,
    clock: SystemClock,
    random: SystemRandom,
}

async fn accept(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, mostly: waiting lets others be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve(stream, server) => {}
            }
            drop(slot);
        });
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "demo OAuth connection ended early");
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Answered {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::POST, "/token") => self.token(request).await,
            (&Method::POST, "/grants") => self.mint(request.uri().query().unwrap_or_default()),
            (&Method::GET, "/whoami") => self.whoami(request.headers()),
            (&Method::GET, "/authorize") => self.authorize(request.uri().query().unwrap_or_default()),
            (&Method::POST, "/authorize") => self.authorized(request).await,
            (&Method::GET, "/code") => Self::show_code(request.uri().query().unwrap_or_default()),
            (&Method::POST, "/device_authorization") => self.begin_device(request).await,
            (&Method::GET, "/device") => Self::device(request.uri().query().unwrap_or_default()),
            (&Method::POST, "/device") => self.entered(request).await,
            (&Method::POST, "/revoke") => self.revoke(request).await,
            (&Method::GET, path) => match path.strip_prefix("/grants/") {
                Some(id) => self.history(id),
                None => failure(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
            },
            _ => failure(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
        }
    }

    async fn token(&self, request: Request<Incoming>) -> Answered {
        let caller = caller(request.headers());
        let form = match Form::read(request).await {
            Ok(form) => form,
            Err(refused) => return refused,
        };
        match form.get("grant_type") {
            Some("refresh_token") => self.refresh(&form, caller).await,
            Some("authorization_code") => self.exchange(&form),
            Some("urn:ietf:params:oauth:grant-type:device_code") => self.poll(&form),
            _ => {
                let words = "refresh tokens, authorization codes and device codes are served";
                failure(StatusCode::BAD_REQUEST, "unsupported_grant_type", words)
            }
        }
    }

    async fn refresh(&self, form: &Form, caller: Option<String>) -> Answered {
        let Some(presented) = form.get("refresh_token") else {
            return failure(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "refresh_token is missing",
            );
        };
        let Some(fresh) = self.secrets() else {
            return no_random();
        };
        let now = self.clock.wall();
        let redeemed = self.locked(|grants| grants.redeem(presented, caller, fresh, now));
        let (response, delay) = match redeemed {
            Redeemed::Granted { tokens, delay } => (reply(StatusCode::OK, &oauth_answer(&tokens)), delay),
            Redeemed::Refused { why, delay } => {
                (failure(StatusCode::BAD_REQUEST, "invalid_grant", why), delay)
            }
        };
        tokio::time::sleep(delay).await;
        response
    }

    fn mint(&self, query: &str) -> Answered {
        let mut life = self.access_life;
        let mut delay = Duration::ZERO;
        for (key, value) in pairs(query) {
            let Ok(number) = value.parse() else {
                return failure(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    "expires_in and delay_ms are numbers",
                );
            };
            match key.as_str() {
                "expires_in" => life = Duration::from_secs(number).min(MAX_LIFE),
                "delay_ms" => delay = Duration::from_millis(number).min(MAX_DELAY),
                _ => return failure(StatusCode::BAD_REQUEST, "invalid_request", "unknown parameter"),
            }
        }
        let (Some(id), Some(fresh)) = (self.random_text(), self.secrets()) else {
            return no_random();
        };
        let now = self.clock.wall();
        let tokens = self.locked(|grants| grants.mint(id.clone(), life, delay, fresh, now));
        let mut answer = oauth_answer(&tokens);
        answer["grant_id"] = Value::from(id);
        reply(StatusCode::CREATED, &answer)
    }

    fn history(&self, id: &str) -> Answered {
        match self.locked(|grants| grants.history(id)) {
            Some(history) => reply(StatusCode::OK, &history),
            None => failure(
                StatusCode::NOT_FOUND,
                "not_found",
                "no such grant, or dropped for newer ones",
            ),
        }
    }

    fn whoami(&self, headers: &HeaderMap) -> Answered {
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let now = self.clock.wall();
        match bearer.and_then(|token| self.locked(|grants| grants.owner(token, now))) {
            Some(id) => reply(StatusCode::OK, &json!({ "grant_id": id })),
            None => failure(
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                "unknown, expired or replaced",
            ),
        }
    }

    /// A panic elsewhere leaves the table whole: it is changed in single steps.
    fn locked<T>(&self, work: impl FnOnce(&mut Grants) -> T) -> T {
        work(&mut self.grants.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sign_ins<T>(&self, work: impl FnOnce(&mut SignIns) -> T) -> T {
        work(&mut self.sign_ins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The random parts of an access token and a refresh token.
    fn secrets(&self) -> Option<[String; 2]> {
        Some([self.random_text()?, self.random_text()?])
    }

    fn random_text(&self) -> Option<String> {
        use base64::Engine as _;
        let random = ring::rand::generate::<[u8; 18]>(&self.random).ok()?.expose();
        Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
    }
}

fn oauth_answer(tokens: &Tokens) -> Value {
    json!({
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in.as_secs(),
        "refresh_token": tokens.refresh,
    })
}

fn reply(status: StatusCode, body: &Value) -> Answered {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    // RFC 6749 section 5.1.
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

fn failure(status: StatusCode, code: &str, words: &str) -> Answered {
    reply(status, &json!({ "error": code, "error_description": words }))
}

fn no_random() -> Answered {
    failure(
        StatusCode::INTERNAL_SERVER_ERROR,
        "server_error",
        "no random numbers",
    )
}

/// The fields of a form or a query.
struct Form(Vec<(String, String)>);

impl Form {
    fn of(text: &str) -> Self {
        Self(pairs(text))
    }

    /// The form that a request brings.
    async fn read(request: Request<Incoming>) -> Result<Self, Answered> {
        let bad = |words| failure(StatusCode::BAD_REQUEST, "invalid_request", words);
        let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
        let body = body
            .map_err(|_| bad("the body is too long or cut off"))?
            .to_bytes();
        let text = std::str::from_utf8(&body).map_err(|_| bad("the body is no form"))?;
        Ok(Self::of(text))
    }

    fn get(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(key, _)| key == name);
        field.map(|(_, value)| value.as_str())
    }
}

/// The pairs of a form or a query.
fn pairs(text: &str) -> Vec<(String, String)> {
    let Ok(mut url) = Url::parse("http://localhost/") else {
        return Vec::new();
    };
    url.set_query(Some(text));
    url.query_pairs()
        .into_owned()
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

fn caller(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-demo-caller")?.to_str().ok()?;
    Some(text.chars().take(64).collect())
}
