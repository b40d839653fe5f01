//! The few requests that signing in needs: HTTPS to the issuer, a connection each, bounded in size and time. No
//! redirect is followed: a token request that is sent on would carry its secrets along.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::cli::client;
use crate::cli::error::{Failure, Kind};
use crate::domain::oidc;

/// How long one request may take, all told.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer taken, in bytes.
const MAX_ANSWER: usize = 128 * 1024;

/// The way to one issuer.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
}

/// What an endpoint answered.
pub(super) struct Answer {
    pub(super) status: u16,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// The JSON it is; `None` where it is none of this form. The parser's message could quote a token.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl Client {
    /// Trusts the certificates in `ca_file`, or else the system's.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        let certificates = match ca_file {
            Some(path) => client::certificates(path)?,
            // What cannot be read of them only makes fewer.
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(certificates);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Kind::Internal, error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Asks for a document.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, url, Zeroizing::default()).await
    }

    /// Sends a form.
    pub(super) async fn post(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer, Failure> {
        let longest: usize = fields
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
            .sum();
        // As large as it may get, so that growing leaves no copies of secrets behind.
        let form = form_urlencoded::Serializer::new(String::with_capacity(longest))
            .extend_pairs(fields)
            .finish();
        self.send(Method::POST, url, Zeroizing::new(form)).await
    }

    async fn send(&self, method: Method, url: &str, form: Zeroizing<String>) -> Result<Answer, Failure> {
        let exchange = self.exchange(method, url, form);
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(unreachable(url).because(why)),
            Err(_) => Err(unreachable(url).because(format!("no answer within {TIMEOUT:?}"))),
        }
    }

    async fn exchange(&self, method: Method, url: &str, form: Zeroizing<String>) -> Result<Answer, String> {
        let uri: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if !oidc::is_endpoint(url) || host.is_empty() {
            return Err("only https is called, and http on this machine".to_owned());
        }
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder()
            .method(&method)
            .uri(target)
            .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, concat!("credbroker/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        let request = match method {
            Method::POST => request.header(CONTENT_TYPE, "application/x-www-form-urlencoded"),
            _ => request,
        };
        let form = Bytes::from_owner(Wiped(form));
        let request = request.body(Full::new(form)).map_err(|error| error.to_string())?;
        let tcp = TcpStream::connect((host.as_str(), port)).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        if !secure {
            return ask(tcp, request).await;
        }
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await;
        ask(stream.map_err(|error| error.to_string())?, request).await
    }
}

/// A form that is wiped when it has been sent.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let answering = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer {
            status,
            body: Zeroizing::new(body.to_vec()),
        })
    };
    // The connection is driven here and not by a task, so that it ends with the answer.
    tokio::select! {
        answer = answering => answer,
        Err(error) = connection => Err(error.to_string()),
    }
}

fn unreachable(url: &str) -> Failure {
    // What comes after the path can hold what is nobody's business.
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    Failure::new(
        Kind::Unavailable,
        format!("the identity provider cannot be asked at {plain}"),
    )
    .remedy("Check the network, and where its certificate is not the system's to trust, --issuer-ca-file.")
}
