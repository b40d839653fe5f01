//! Signing in from a machine without a browser: the device authorization grant (RFC 8628). A person enters a
//! short code on any other machine; this one asks until that is done.

use std::time::Duration;

use serde::Deserialize;

use super::issuer::{Provider, Refused};
use super::session::Tokens;
use crate::cli::error::{Failure, plain};
use crate::cli::render;

/// How often is asked where the provider does not say (section 3.2), and what it adds by `slow_down` (3.5).
const INTERVAL: u64 = 5;
const SLOWER: Duration = Duration::from_secs(5);
/// The longest that is waited, whatever the provider allows.
const LONGEST: u64 = 1800;

/// Section 3.2.
#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Signs in, if the provider offers it at `endpoint`.
pub(super) async fn sign_in(provider: &Provider<'_>, endpoint: &str) -> Result<Tokens, Failure> {
    let scope = provider.login.scopes.join(" ");
    let fields = [
        ("client_id", provider.login.client_id.as_str()),
        ("scope", &scope),
    ];
    let answer = provider.client.post(endpoint, &fields).await?;
    if answer.status != 200 {
        return Err(provider.refused(answer.json(), answer.status));
    }
    let begun: Option<Begun> = answer.json();
    let begun = begun.ok_or_else(|| provider.wrong("its answer cannot be read"))?;
    let (uri, code) = (plain(&begun.verification_uri), plain(&begun.user_code));
    render::remark(&format!("On any machine, open {uri} and enter the code {code}"));
    if let Some(complete) = &begun.verification_uri_complete {
        render::remark(&format!("or open {}", plain(complete)));
    }
    let until = Duration::from_secs(begun.expires_in.min(LONGEST));
    match tokio::time::timeout(until, asking(provider, &begun)).await {
        Ok(tokens) => tokens,
        Err(_) => Err(Failure::usage("nobody entered the code in time").remedy("Run the command again.")),
    }
}

async fn asking(provider: &Provider<'_>, begun: &Begun) -> Result<Tokens, Failure> {
    let mut interval = Duration::from_secs(begun.interval.unwrap_or(INTERVAL).max(1));
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", begun.device_code.as_str()),
    ];
    loop {
        tokio::time::sleep(interval).await;
        // A network that is away for a moment costs a turn and not the sign-in (section 3.5).
        let Ok(answer) = provider.token(&fields).await else {
            interval = (interval * 2).min(Duration::from_secs(60));
            continue;
        };
        if answer.status == 200 {
            return provider.tokens(&answer, None, render::now());
        }
        let refused: Option<Refused> = answer.json();
        match refused.as_ref().map(|refused| refused.error.as_str()) {
            Some("authorization_pending") => {}
            Some("slow_down") => interval += SLOWER,
            _ => return Err(provider.refused(refused, answer.status)),
        }
    }
}
