//! The providers' side: token endpoints, spoken to carefully.
//!
//! [`TokenEndpoint`] sends one request and says how far it got; it never retries and never interprets.
//! What an answer means is decided by [`answer`], from the data of a [`connector`]; endpoints that it leaves open are
//! found by [`discovery`]. Model servers are only asked whether they are there, by [`probe`].

pub mod answer;
pub mod base_url;
pub mod connector;
pub mod discovery;
pub mod http;
pub mod key_test;
pub mod oauth;
pub mod oidc;
pub mod probe;
mod redact;
mod web;
pub use redact::{redact, redact_known};
pub use web::DocumentError;

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::secret::{RawAnswer, RefreshToken, Secret};
use connector::Connector;
use discovery::Discovered;

/// One request for new tokens (RFC 6749 section 6).
pub struct RefreshRequest<'a> {
    /// Where and how to send it.
    pub connector: &'a Connector,
    /// The refresh token to present.
    pub refresh_token: &'a Secret<RefreshToken>,
    /// The scopes of the grant; sent only where the connector says so.
    pub scopes: &'a [String],
    /// How long it is of use to wait for the answer, once connected; `None`: as long as the endpoint waits.
    pub answer_within: Option<Duration>,
}

/// How far a request got.
pub enum Delivery {
    /// The endpoint answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` said (RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
        /// The body, at most [`MAX_ANSWER`] bytes, unparsed.
        body: Secret<RawAnswer>,
    },
    /// No byte of the request reached the endpoint: nothing happened there.
    NotSent(String),
    /// The request was sent, wholly or in part, and no whole answer came back: what happened there is not
    /// known.
    Lost(String),
}

/// The longest answer taken, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// A token endpoint.
#[async_trait]
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Finds out what has to be known of a connector's server before anything can be sent, or says why it cannot be.
    /// Nothing is sent to its token endpoint.
    async fn ready(&self, _connector: &Connector) -> Result<(), String> {
        Ok(())
    }

    /// Sends the request once. No redirects, no retries.
    async fn refresh(&self, request: RefreshRequest<'_>) -> Delivery;

    /// What is known of a connector's server by discovery. Nothing is sent for it.
    fn discovered(&self, _connector: &Connector) -> Discovered {
        Discovered::default()
    }

    /// Begins to find out what a connector leaves open, so that the first exchange need not wait for it, and whether its
    /// client secret is there, which is warned of where it is not. Nobody waits for this, and its failure is no fault
    /// of anything yet.
    fn prepare(&self, _connector: &Connector) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod quirk_tests;
