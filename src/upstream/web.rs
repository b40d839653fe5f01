//! What every HTTP client here has in common: an honest name, no redirects, no retries, no proxy but a configured
//! one; and documents that servers publish about themselves, bounded in size.

use std::error::Error as _;

use reqwest::{Client, ClientBuilder, StatusCode, header, redirect, retry};
use serde::de::DeserializeOwned;

use super::redact::clip;

/// Why a document cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The request failed.
    #[error("{url}: {message}")]
    Request {
        /// What was asked for.
        url: String,
        /// What happened.
        message: String,
    },
    /// Another status than 200.
    #[error("{url}: status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// More than is taken.
    #[error("{url}: an answer of more than {most} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The most that is taken.
        most: usize,
    },
    /// No JSON of the right form.
    #[error("{url}: not of the form it should have, at line {line} column {column}")]
    Form {
        /// What was asked for.
        url: String,
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
}

/// A client to be completed with its time-outs and, where it has one, its proxy.
pub(super) fn builder() -> ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Failing means that another thread has just installed one, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::builder()
        .user_agent(concat!("credbroker/", env!("CARGO_PKG_VERSION")))
        // A redirect leads where nobody has configured anything.
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
}

/// The JSON document at `url`, of at most `most` bytes. The time it may take is the client's or the caller's to bound.
pub(super) async fn document<T: DeserializeOwned>(
    client: &Client,
    url: &str,
    most: usize,
) -> Result<T, DocumentError> {
    let failed = |error: reqwest::Error| DocumentError::Request {
        url: url.to_owned(),
        message: describe(error),
    };
    let request = client.get(url).header(header::ACCEPT, "application/json");
    let mut response = request.send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(DocumentError::Status {
            url: url.to_owned(),
            status: response.status().as_u16(),
        });
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > most {
            return Err(DocumentError::TooLarge {
                url: url.to_owned(),
                most,
            });
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| DocumentError::Form {
        url: url.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

/// The error and its causes in one line. Nothing sent or received is in it.
pub(super) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    clip(&text, 512)
}
