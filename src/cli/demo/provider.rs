//! The demo's OAuth server, as `credbrokerd dev` runs it on loopback: it mints grants, rotates refresh tokens,
//! and ends a grant whose used refresh token is presented again (RFC 9700 section 4.14.2).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::error::{Failure, Kind};
use crate::domain::secret::{AccessToken, Exposure, RefreshToken, Secret};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer taken, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// Where the server is. Each request is made over a connection of its own, as separate programs would.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    base: String,
}

/// A grant that was minted.
pub(super) struct Grant {
    pub(super) id: String,
    pub(super) access_token: Secret<AccessToken>,
    pub(super) refresh_token: Secret<RefreshToken>,
    pub(super) expires_in: Duration,
}

/// What the server knows of a grant.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Record {
    pub(super) alive: bool,
    pub(super) refreshes: u32,
    pub(super) replays: u32,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

/// Something that happened to a grant.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Event {
    /// Milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
    /// `refreshed`, `replayed` or `killed`.
    pub(super) kind: String,
}

#[derive(Deserialize)]
struct Minted {
    grant_id: String,
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct Refreshed {
    refresh_token: String,
}

struct Answer {
    success: bool,
    body: Bytes,
}

impl Provider {
    /// The server at this base URL: plain HTTP, and so on this machine only.
    pub(super) fn at(url: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(format!("'{url}' is not the demo's OAuth server"))
                .remedy("Give http:// and a loopback address, such as http://127.0.0.1:7422.")
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        if uri.scheme_str() != Some("http") || !local {
            return Err(wrong());
        }
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
        })
    }

    /// Mints a grant whose access tokens live for `expires_in` and whose refreshes take `delay`.
    pub(super) async fn mint(&self, expires_in: Duration, delay: Duration) -> Result<Grant, Failure> {
        let path = format!(
            "/grants?expires_in={}&delay_ms={}",
            expires_in.as_secs(),
            delay.as_millis()
        );
        let minted: Minted = self.expect(Method::POST, &path).await?;
        Ok(Grant {
            id: minted.grant_id,
            access_token: minted.access_token.into(),
            refresh_token: minted.refresh_token.into(),
            expires_in: Duration::from_secs(minted.expires_in),
        })
    }

    /// What happened to a grant so far.
    pub(super) async fn record(&self, grant: &Grant) -> Result<Record, Failure> {
        self.expect(Method::GET, &format!("/grants/{}", encoded(&grant.id)))
            .await
    }

    /// Refreshes as a program would that holds the refresh token itself (RFC 6749 section 6). The new refresh
    /// token, or `None` where the server refuses.
    pub(super) async fn refresh(
        &self,
        token: &Secret<RefreshToken>,
        caller: &str,
    ) -> Result<Option<Secret<RefreshToken>>, Failure> {
        let token = token.expose_str(Exposure::Upstream).unwrap_or_default();
        let form = format!(
            "grant_type=refresh_token&client_id=demo&refresh_token={}",
            encoded(token)
        );
        let answer = self.send(Method::POST, "/token", Some((form, caller))).await?;
        if !answer.success {
            return Ok(None);
        }
        let refreshed: Refreshed = parsed(&answer.body)?;
        Ok(Some(refreshed.refresh_token.into()))
    }

    async fn expect<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Failure> {
        let answer = self.send(method, path, None).await?;
        if !answer.success {
            return Err(self.failure("it refused the request"));
        }
        parsed(&answer.body)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        form: Option<(String, &str)>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("user-agent", concat!("credbroker/", env!("CARGO_PKG_VERSION")));
        let mut body = Bytes::new();
        if let Some((form, caller)) = form {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .header("x-demo-caller", caller);
            body = form.into();
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.failure(error))?;
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let exchange = async {
            let response = client
                .request(request)
                .await
                .map_err(|error| self.failure(error))?;
            let success = response.status().is_success();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| self.failure(error))?.to_bytes();
            Ok(Answer { success, body })
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(self.failure("it did not answer in time")))
    }

    fn failure(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(
            Kind::Unavailable,
            format!("the demo's OAuth server at {} cannot be used", self.base),
        )
        .because(why)
        .remedy("Run 'credbrokerd dev' in another terminal; give its OAuth address with --oauth where it differs.")
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    // The parser's message could quote a token; its place in the text cannot.
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(
            Kind::Failed,
            "the demo's OAuth server answered in a form that is not understood",
        )
        .because(format!("at line {} column {}", error.line(), error.column()))
        .remedy("Run 'credbroker' and 'credbrokerd' of the same version.")
    })
}

/// Percent-encoded but for the unreserved characters of RFC 3986 section 2.3.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_in_clear_to_this_machine_only() {
        for right in [
            "http://127.0.0.1:7422",
            "http://localhost:1/",
            "http://[::1]:7422",
        ] {
            assert!(Provider::at(right).is_ok(), "{right}");
        }
        for wrong in [
            "http://example.com",
            "https://127.0.0.1:1",
            "127.0.0.1:7422",
            "",
            "http://10.0.0.1",
        ] {
            assert!(Provider::at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_cannot_add_a_parameter() {
        assert_eq!(encoded("a&b=c d+é"), "a%26b%3Dc%20d%2B%C3%A9");
    }
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod server_tests;
