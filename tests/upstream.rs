//! The token endpoint client against servers that answer, refuse, hang up and lie: how far each request got
//! is told right, and a real OAuth server and the demo server agree with what the answers are taken for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs
)]

#[path = "upstream/delivery.rs"]
mod delivery;
#[path = "upstream/discovery.rs"]
mod discovery;
#[path = "support/metadata.rs"]
mod metadata;
#[path = "support/oidc.rs"]
mod oidc;
#[path = "upstream/peers.rs"]
mod peers;
#[path = "upstream/requests.rs"]
mod requests;
#[path = "upstream/signing_in.rs"]
mod signing_in;
#[path = "support/web.rs"]
mod web;

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::{Clock, ManualClock};
use credbroker::domain::secret::{Exposure, RefreshToken, Secret};
use credbroker::domain::time::Time;
use credbroker::upstream::answer::{Answer, Granted, classify};
use credbroker::upstream::connector::Connector;
use credbroker::upstream::connector::load::Connectors;
use credbroker::upstream::http::{HttpOptions, HttpTokenEndpoint};
use credbroker::upstream::{Delivery, RefreshRequest, TokenEndpoint as _};

/// Seconds since the epoch of the clock that the endpoint has: 06 Nov 1994 08:49:07 GMT.
const NOW: i64 = 784_111_747;

fn options() -> HttpOptions {
    HttpOptions {
        connect_timeout: Duration::from_millis(600),
        answer_timeout: Duration::from_millis(600),
        ..HttpOptions::default()
    }
}

fn endpoint(options: &HttpOptions) -> HttpTokenEndpoint {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Time::from_seconds(NOW)));
    HttpTokenEndpoint::new(options, clock).unwrap()
}

/// A connector for `token_url`, with more lines of configuration.
fn connector(token_url: &str, more: &str) -> Arc<Connector> {
    let client = if more.contains("client_id") {
        ""
    } else {
        "client_id = \"test-client\"\n"
    };
    let text = format!("[connectors.test]\ntoken_url = \"{token_url}\"\n{client}{more}");
    let connectors = Connectors::load_text("test.toml", &text).unwrap();
    connectors.get("test").unwrap().clone()
}

async fn refresh_with(endpoint: &HttpTokenEndpoint, connector: &Connector, token: &str) -> Delivery {
    let refresh_token: Secret<RefreshToken> = Secret::from(token.to_owned());
    let request = RefreshRequest {
        answer_within: None,
        connector,
        refresh_token: &refresh_token,
        scopes: &["one".to_owned(), "two".to_owned()],
    };
    endpoint.refresh(request).await
}

async fn refresh(connector: &Connector, token: &str) -> Delivery {
    refresh_with(&endpoint(&options()), connector, token).await
}

fn meaning(connector: &Connector, delivery: Delivery) -> Answer {
    match delivery {
        Delivery::Answered {
            status,
            retry_after,
            body,
        } => classify(connector, status, retry_after, &body),
        Delivery::NotSent(why) => panic!("not sent: {why}"),
        Delivery::Lost(why) => panic!("lost: {why}"),
    }
}

fn granted(answer: Answer) -> Granted {
    match answer {
        Answer::Granted(granted) => granted,
        Answer::Refused { code, message, .. } => panic!("refused {code}: {message}"),
        Answer::Misconfigured { code, message } => panic!("misconfigured {code}: {message}"),
        Answer::NotProcessed { message, .. } | Answer::Ambiguous { message, .. } => panic!("{message}"),
        Answer::Rotated(_) => panic!("no access token"),
    }
}

fn text<K>(secret: &Secret<K>) -> String {
    secret.expose_str(Exposure::Inspect).unwrap().to_owned()
}
