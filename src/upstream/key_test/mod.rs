//! The small authenticated request that shows whether a credential works, as [`KeyTest`] describes it.
//!
//! One `GET`, sent once: no redirect is followed, no proxy used, nothing kept of the connection. At most
//! [`MAX_ANSWER`] bytes of the answer are read, and all of it takes at most [`TIMEOUT`]. The credential goes in headers
//! marked sensitive and is in nothing that comes back from here.

mod answer;
mod sigv4;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use zeroize::Zeroizing;

use super::http::retry_after;
use super::web;
use crate::clock::Clock;
use crate::domain::key_shape::is_region;
use crate::domain::key_test::{KeyTest, Presentation, Verdict};
use crate::domain::secret::{AccessToken, AwsSecretKey, AwsSessionToken, Exposure, Secret};
use sigv4::Signer;

/// How long a test may take, all told.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Where keys without a region are tested: AWS's global endpoints are there.
const NO_REGION: &str = "us-east-1";
/// Headers that are not for the registry to set: a credential would be in a file, or the broker would claim to be
/// somebody else.
const RESERVED: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "proxy-authorization",
    "transfer-encoding",
    "user-agent",
    "x-amz-security-token",
];

/// Why there is no [`KeyTester`].
#[derive(Debug, thiserror::Error)]
#[error(
    "the client for testing credentials cannot be set up: {0}; install the system's CA certificates (package \
     ca-certificates), or point SSL_CERT_FILE to a bundle"
)]
pub struct TesterSetupError(reqwest::Error);

/// What is presented.
pub enum Presented<'a> {
    /// One text: an API key, a bearer key, an access token.
    Text(&'a Secret<AccessToken>),
    /// AWS keys.
    Aws {
        /// The access key id; not a secret by itself.
        access_key_id: &'a str,
        /// Signs the request, and is not sent.
        secret_access_key: &'a Secret<AwsSecretKey>,
        /// Of temporary keys.
        session_token: Option<&'a Secret<AwsSessionToken>>,
    },
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What was found.
    pub verdict: Verdict,
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// The provider's message, or why there is none; redacted, empty where all is well.
    pub message: String,
    /// How long the provider wants to be left alone (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// What it told beside that, never a secret.
    pub facts: Vec<(String, String)>,
    /// The host that was asked.
    pub host: String,
    /// How long that took.
    pub took: Duration,
}

/// Sends tests.
pub struct KeyTester {
    client: Client,
    clock: Arc<dyn Clock>,
}

/// Why a test cannot be sent. All of it is checked before, when the registry is read and when a key is stored.
struct Unsendable(&'static str);

impl KeyTester {
    /// A tester with a client of its own.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, TesterSetupError> {
        let client = web::builder().pool_max_idle_per_host(0).timeout(TIMEOUT);
        let client = client.build().map_err(TesterSetupError)?;
        Ok(Self { client, clock })
    }

    /// Sends `test` once, with what is presented.
    pub async fn send(&self, test: &KeyTest, presented: &Presented<'_>, region: Option<&str>) -> Told {
        let region = region.unwrap_or(NO_REGION);
        let began = self.clock.monotonic();
        let (mut host, mut retry_after) = (String::new(), None);
        let (status, said) = match self.prepared(test, presented, region) {
            Err(Unsendable(why)) => (0, nothing(Verdict::Untestable, why.to_owned())),
            Ok((url, headers)) => {
                host = url.host_str().unwrap_or_default().to_owned();
                match self.exchange(url, headers).await {
                    Err(error) => (0, nothing(Verdict::Unreachable, web::describe(error))),
                    Ok((status, headers, body)) => {
                        retry_after = retry_after::parse(&headers, self.clock.wall());
                        let said = answer::read(test, status, &headers, &body, &presented.secrets());
                        (status, said)
                    }
                }
            }
        };
        Told {
            verdict: said.verdict,
            status,
            message: said.message,
            facts: said.facts,
            retry_after,
            host,
            took: self.clock.monotonic().saturating_sub(began),
        }
    }

    async fn exchange(
        &self,
        url: Url,
        headers: HeaderMap,
    ) -> Result<(u16, HeaderMap, Zeroizing<Vec<u8>>), reqwest::Error> {
        let mut response = self.client.get(url).headers(headers).send().await?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        // As large as it may get: an answer may quote what was sent, and growing would leave copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
        while let Some(chunk) = response.chunk().await? {
            let room = MAX_ANSWER - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == MAX_ANSWER {
                break;
            }
        }
        Ok((status, headers, body))
    }

    fn prepared(
        &self,
        test: &KeyTest,
        presented: &Presented<'_>,
        region: &str,
    ) -> Result<(Url, HeaderMap), Unsendable> {
        // It becomes part of a host name.
        if !is_region(region) {
            return Err(Unsendable("the credential's region is none"));
        }
        let url = Url::parse(&test.url_in(region)).map_err(|_| Unsendable("the test's URL is none"))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &test.headers {
            let (name, value) = header(name, value).ok_or(Unsendable("a header of the test is none"))?;
            headers.insert(name, value);
        }
        match (&test.auth, presented) {
            (Presentation::Bearer, Presented::Text(key)) => {
                headers.insert(AUTHORIZATION, secret_value(b"Bearer ", key)?);
            }
            (Presentation::Header(name), Presented::Text(key)) => {
                headers.insert(HeaderName::from_static(name), secret_value(b"", key)?);
            }
            (
                Presentation::Sigv4 { service },
                Presented::Aws {
                    access_key_id,
                    secret_access_key,
                    session_token,
                },
            ) => {
                // STS answers XML unless it is asked otherwise.
                headers.remove(ACCEPT);
                let session = session_token.and_then(|token| token.expose_str(Exposure::Upstream));
                let signer = Signer {
                    access_key_id,
                    secret_access_key,
                    session_token: session,
                    region,
                    service,
                };
                let signed = signer.get(&url, self.clock.wall());
                let no_header = |_| Unsendable("the access key id is no text for a header");
                let date = HeaderValue::try_from(signed.date).map_err(no_header)?;
                headers.insert(HeaderName::from_static("x-amz-date"), date);
                let mut signature = HeaderValue::try_from(signed.authorization).map_err(no_header)?;
                signature.set_sensitive(true);
                headers.insert(AUTHORIZATION, signature);
                if let Some(token) = session_token {
                    let name = HeaderName::from_static("x-amz-security-token");
                    headers.insert(name, secret_value(b"", token)?);
                }
            }
            _ => return Err(Unsendable("the test presents another kind of credential")),
        }
        Ok((url, headers))
    }
}

impl Presented<'_> {
    /// All that is secret of it, to be looked for in answers.
    fn secrets(&self) -> Vec<&[u8]> {
        let why = Exposure::Inspect;
        match self {
            Presented::Text(key) => vec![key.expose(why)],
            Presented::Aws {
                secret_access_key,
                session_token,
                ..
            } => {
                let mut secrets = vec![secret_access_key.expose(why)];
                secrets.extend(session_token.map(|token| token.expose(why)));
                secrets
            }
        }
    }
}

fn nothing(verdict: Verdict, message: String) -> answer::Said {
    answer::Said {
        verdict,
        message,
        facts: Vec::new(),
    }
}

fn secret_value<K>(before: &[u8], secret: &Secret<K>) -> Result<HeaderValue, Unsendable> {
    let line = Zeroizing::new([before, secret.expose(Exposure::Upstream)].concat());
    let mut value =
        HeaderValue::from_bytes(&line).map_err(|_| Unsendable("the credential is no text for a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(value).ok()?))
}

/// Whether the registry may have a test send this header.
pub fn may_send(name: &str, value: &str) -> bool {
    header(name, value).is_some_and(|(name, _)| !RESERVED.contains(&name.as_str()))
}
