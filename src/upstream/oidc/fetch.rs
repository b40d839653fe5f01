//! An issuer's documents over HTTPS: bounded in size and time, no redirects, no retries.

use std::error::Error as _;
use std::time::Duration;

use reqwest::{Certificate, Client, redirect, retry};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{FetchError, IssuerSetupError};
use super::keys::{KeySet, MAX_KEYS, RawKeySet};
use crate::domain::oidc::{self, Issuer};
use crate::upstream::redact::clip;

/// How long one request may take, all told.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest document, in bytes.
const MAX_ANSWER: usize = 128 * 1024;

/// What is needed of the discovery document (OpenID Connect Discovery 1.0 section 3).
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// The client for one issuer.
pub(super) fn client(issuer: &Issuer) -> Result<Client, IssuerSetupError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Failing means that another thread has just installed one, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut builder = Client::builder()
        .user_agent(concat!("credbroker/", env!("CARGO_PKG_VERSION")))
        // A redirect leads where nobody has configured anything.
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .timeout(TIMEOUT);
    if let Some(path) = &issuer.ca_file {
        let fault = |message: String| IssuerSetupError::CaFile {
            issuer: issuer.url.clone(),
            path: path.display().to_string(),
            message,
        };
        let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
        let roots = Certificate::from_pem_bundle(&pem).map_err(|error| fault(error.to_string()))?;
        if roots.is_empty() {
            return Err(fault("it holds no certificate in PEM form".to_owned()));
        }
        builder = builder.tls_certs_only(roots);
    }
    builder.build().map_err(|error| IssuerSetupError::Client {
        issuer: issuer.url.clone(),
        message: error.to_string(),
    })
}

/// The issuer's keys, by way of its discovery document.
pub(super) async fn keys(client: &Client, issuer: &str) -> Result<KeySet, FetchError> {
    let url = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let discovery: Discovery = get(client, &url).await?;
    // Section 4.3: otherwise any issuer could speak for any other.
    if discovery.issuer != issuer {
        return Err(FetchError::OtherIssuer {
            url,
            found: clip(&discovery.issuer, oidc::MAX_ISSUER),
        });
    }
    if !oidc::is_endpoint(&discovery.jwks_uri) {
        return Err(FetchError::Endpoint { url });
    }
    let keys: RawKeySet = get(client, &discovery.jwks_uri).await?;
    KeySet::of(keys).ok_or(FetchError::TooManyKeys {
        url: discovery.jwks_uri,
        most: MAX_KEYS,
    })
}

async fn get<T: DeserializeOwned>(client: &Client, url: &str) -> Result<T, FetchError> {
    let failed = |error: reqwest::Error| {
        let error = error.without_url();
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        FetchError::Request {
            url: url.to_owned(),
            message: clip(&message, 512),
        }
    };
    let request = client
        .get(url)
        .header(reqwest::header::ACCEPT, "application/json");
    let mut response = request.send().await.map_err(failed)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status {
            url: url.to_owned(),
            status: response.status().as_u16(),
        });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(FetchError::TooLarge {
                url: url.to_owned(),
                most: MAX_ANSWER,
            });
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| FetchError::Form {
        url: url.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}
