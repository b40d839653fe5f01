//! Signing in with a browser on this machine: authorization code with PKCE (RFC 7636), answered to a port of this
//! process on loopback (RFC 8252 section 7.3).
//!
//! Any program of this machine can call that port. Only the answer with the state of this sign-in counts; all
//! else is turned away and changes nothing.

use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::issuer::{Provider, Refused};
use super::session::Tokens;
use crate::cli::error::{Failure, Kind};
use crate::cli::render;

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long one connection of the browser may last, and how many there may be.
const CONNECTION: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 32;
/// How long the browser's last answer is given to get there.
const GOODBYE: Duration = Duration::from_secs(1);
const PATH: &str = "/callback";

/// What the browser brings back.
struct Returned {
    code: Option<String>,
    refused: Option<Refused>,
    issuer: Option<String>,
}

/// Signs in at the provider's authorization `endpoint`. `open` also starts a browser.
pub(super) async fn sign_in(provider: &Provider<'_>, endpoint: &str, open: bool) -> Result<Tokens, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.map_err(no_port)?;
    let port = listener.local_addr().map_err(no_port)?.port();
    let redirect_uri = format!("http://127.0.0.1:{port}{PATH}");
    let (verifier, state, nonce) = (random()?, random()?, random()?);
    let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
    let scope = provider.login.scopes.join(" ");
    let mut fields = vec![
        ("response_type", "code".to_owned()),
        ("client_id", provider.login.client_id.clone()),
        ("redirect_uri", redirect_uri.clone()),
        ("scope", scope),
        ("state", state.clone()),
        ("nonce", nonce.clone()),
        ("code_challenge", URL_SAFE_NO_PAD.encode(challenge)),
        ("code_challenge_method", "S256".to_owned()),
    ];
    if provider
        .login
        .scopes
        .iter()
        .any(|scope| scope == "offline_access")
    {
        // Without it a provider ignores the scope (OpenID Connect Core 1.0 section 11).
        fields.push(("prompt", "consent".to_owned()));
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&fields)
        .finish();
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    let url = format!("{endpoint}{joint}{query}");
    if open && start_browser(&url) {
        render::remark("Sign in with the browser. If none opens, open this address on this machine:");
    } else {
        render::remark("Open this address with a browser on this machine:");
    }
    render::remark(&url);

    let returned = tokio::time::timeout(PATIENCE, answered(listener, state)).await;
    let returned = returned
        .map_err(|_| Failure::usage("nobody signed in in time").remedy("Run the command again."))??;
    // Whose answer it is, where several providers are used (RFC 9207).
    if returned
        .issuer
        .is_some_and(|issuer| issuer != provider.login.issuer)
    {
        return Err(provider.wrong("the answer is another provider's"));
    }
    match (returned.code, returned.refused) {
        (_, refused @ Some(_)) => Err(provider.refused(refused, 200)),
        (Some(code), None) => {
            let now = render::now();
            provider
                .redeem(&code, &redirect_uri, &verifier, &nonce, now)
                .await
        }
        (None, None) => Err(provider.wrong("the browser came back without a code")),
    }
}

/// Waits for the browser to come back with `state`.
async fn answered(listener: TcpListener, state: String) -> Result<Returned, Failure> {
    let state: Arc<str> = state.into();
    let (sender, mut receiver) = mpsc::channel(1);
    let mut connections = JoinSet::new();
    let returned = loop {
        let stream = tokio::select! {
            returned = receiver.recv() => break returned,
            accepted = listener.accept() => accepted.map_err(no_port)?.0,
            Some(_) = connections.join_next() => continue,
        };
        if connections.len() >= CONNECTIONS {
            continue;
        }
        let (state, sender) = (Arc::clone(&state), sender.clone());
        connections.spawn(async move {
            let answer = service_fn(|request| {
                let page = page(&request, &state, &sender);
                async { Ok::<_, Infallible>(page) }
            });
            let serving = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A browser that goes away has nothing to be told.
            let _ = tokio::time::timeout(CONNECTION, serving).await;
        });
    };
    drop(listener);
    let goodbye = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    returned.ok_or_else(|| Failure::new(Kind::Internal, "the browser's answer was lost"))
}

fn page(request: &Request<Incoming>, state: &str, sender: &mpsc::Sender<Returned>) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH || request.method() != hyper::Method::GET {
        return html(StatusCode::NOT_FOUND, "There is nothing here.");
    }
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let field = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query);
        pairs
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let given = field("state").unwrap_or_default();
    if !bool::from(given.as_bytes().ct_eq(state.as_bytes())) {
        return html(
            StatusCode::BAD_REQUEST,
            "This is not the answer to the sign-in that credbroker waits for. Run 'credbroker login' again.",
        );
    }
    let refused = field("error").map(|error| Refused::new(error, field("error_description")));
    let told = match &refused {
        Some(_) => "The sign-in was refused. The terminal has the details; you can close this page.",
        None => "Done here. Go back to the terminal; you can close this page.",
    };
    let returned = Returned {
        code: field("code"),
        refused,
        issuer: field("iss"),
    };
    // A second answer finds the place taken, and is not needed.
    let _ = sender.try_send(returned);
    html(StatusCode::OK, told)
}

/// A page of our own words only: nothing of the request is in it.
fn html(status: StatusCode, told: &str) -> Response<Full<Bytes>> {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>credbroker</title>\
         <body style=\"font-family:sans-serif;margin:4em\"><h1>credbroker</h1><p>{told}</p></body></html>\n"
    );
    let mut response = Response::new(Full::new(page.into()));
    *response.status_mut() = status;
    let headers = [
        ("content-type", "text/html; charset=utf-8"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, hyper::header::HeaderValue::from_static(value));
    }
    response
}

/// 256 random bits as text (RFC 7636 section 4.1 asks for as many).
fn random() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether a browser can be expected to open for this user.
pub(super) fn is_likely() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY"].into_iter().any(set)
}

/// Starts the user's browser; `false`: there is nothing to start it with.
fn start_browser(url: &str) -> bool {
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let mut command = Command::new(opener);
    command.arg(url);
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.spawn().is_ok()
}

fn no_port(error: std::io::Error) -> Failure {
    Failure::new(
        Kind::Unavailable,
        format!("no port on this machine for the browser's answer: {error}"),
    )
    .remedy("Sign in with --device.")
}
