//! An issuer's documents over HTTPS: bounded in size and time, no redirects, no retries.

use std::time::Duration;

use reqwest::{Certificate, Client};
use serde::Deserialize;

use super::error::{FetchError, IssuerSetupError};
use super::keys::{KeySet, MAX_KEYS, RawKeySet};
use crate::domain::oidc::{self, Issuer};
use crate::upstream::redact::clip;
use crate::upstream::web;

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
    let mut builder = web::builder().timeout(TIMEOUT);
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
    let discovery: Discovery = web::document(client, &url, MAX_ANSWER).await?;
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
    let keys: RawKeySet = web::document(client, &discovery.jwks_uri, MAX_ANSWER).await?;
    KeySet::of(keys).ok_or(FetchError::TooManyKeys {
        url: discovery.jwks_uri,
        most: MAX_KEYS,
    })
}
