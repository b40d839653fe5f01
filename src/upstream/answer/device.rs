//! What the answers of a device flow mean (RFC 8628 sections 3.2 and 3.5), and those of a flow of a server's own.
//!
//! What is shown to people comes from a server, and ends on a terminal: it is printable ASCII of bounded length, and a
//! page is https, or on this machine.

use std::time::Duration;

use reqwest::Url;

use super::{Body, Said};
use crate::domain::secret::{AuthorizationCode, CodeVerifier, RawAnswer, Secret};
use crate::upstream::connector::{Connector, DeviceFlow, checked_url};
use crate::upstream::oauth::{DeviceFault, DeviceGrant};

/// The longest device code, authorization code or verifier taken, in bytes.
const MAX_CODE: usize = 4096;
/// The longest user code taken, in bytes.
const MAX_USER_CODE: usize = 64;
/// How long a flow lives where the server does not tell. As long as the Codex CLI waits, whose server never tells.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// The longest life of a flow believed.
const MAX_LIFE: Duration = Duration::from_secs(60 * 60);
/// How long to wait between polls where the server does not tell (RFC 8628 section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The bounds of what it may tell.
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// What the answer to a poll means.
pub enum DeviceAnswer {
    /// The member has not entered the code yet; poll again after the interval.
    Pending,
    /// As [`DeviceAnswer::Pending`], and the interval is five seconds longer from now on.
    SlowDown,
    /// The tokens are in this answer: read it with [`classify_exchange`](super::classify_exchange).
    Granted,
    /// A code to be exchanged, of a flow of the server's own.
    Code {
        /// The code.
        code: Secret<AuthorizationCode>,
        /// Its verifier.
        verifier: Option<Secret<CodeVerifier>>,
        /// The redirect URI to exchange it with.
        redirect_uri: String,
    },
    /// The member said no.
    Denied {
        /// The provider's words: redacted, at most [`MAX_MESSAGE`](super::MAX_MESSAGE) characters.
        message: String,
    },
    /// Nobody entered the code in time.
    Expired,
    /// The server refuses the device code. Only a new flow helps.
    Refused {
        /// The provider's code, or `http_STATUS` where it has none.
        code: String,
        /// The provider's words: redacted and bounded.
        message: String,
    },
    /// The server rejects this client or this sort of request (RFC 6749 section 5.2); the connector's configuration has
    /// to be mended.
    Misconfigured {
        /// The provider's code.
        code: String,
        /// The provider's words: redacted and bounded.
        message: String,
    },
    /// Nothing happened; poll again, later.
    NotProcessed {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// The provider's words: redacted and bounded.
        message: String,
    },
    /// It cannot be told what happened. Poll again, later: what was granted, and lost on the way, is refused then.
    Ambiguous {
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// What was seen: redacted and bounded.
        message: String,
    },
}

/// What an answer of `status` with this `body` to a poll means.
pub fn classify_device(
    connector: &Connector,
    status: u16,
    retry_after: Option<Duration>,
    body: &Secret<RawAnswer>,
) -> DeviceAnswer {
    let success = (200..300).contains(&status);
    let said = match (Body::parse(body), &connector.device_flow) {
        (Some(body), DeviceFlow::Rfc8628) if success && body.has_tokens() => return DeviceAnswer::Granted,
        (Some(mut body), DeviceFlow::Code { redirect_uri, .. }) if success => {
            if let Some(code) = body.take("authorization_code", MAX_CODE) {
                return DeviceAnswer::Code {
                    code,
                    verifier: body.take("code_verifier", MAX_CODE),
                    redirect_uri: redirect_uri.clone(),
                };
            }
            Said::of(connector, status, &body)
        }
        // Whatever it says with them, the code was not entered yet.
        (_, DeviceFlow::Code { .. }) if matches!(status, 403 | 404) => return DeviceAnswer::Pending,
        (Some(body), _) => Said::of(connector, status, &body),
        (None, _) => Said::nothing(status),
    };
    if said.decided {
        if said.says("slow_down") {
            return DeviceAnswer::SlowDown;
        }
        if said.says("authorization_pending") {
            return DeviceAnswer::Pending;
        }
        if said.says("expired_token") {
            return DeviceAnswer::Expired;
        }
        if said.says("access_denied") {
            let message = said.message;
            return DeviceAnswer::Denied { message };
        }
    }
    if said.unprocessed(connector) {
        let message = said.message;
        return DeviceAnswer::NotProcessed { retry_after, message };
    }
    if let Some(code) = said.client_fault().filter(|_| said.decided) {
        let message = said.message;
        return DeviceAnswer::Misconfigured { code, message };
    }
    if said.refuses() {
        let (code, message) = (said.code(), said.message);
        return DeviceAnswer::Refused { code, message };
    }
    DeviceAnswer::Ambiguous {
        retry_after,
        message: said.with_status(),
    }
}

/// The flow that an answer of `status` with this `body` has begun.
pub(in crate::upstream) fn begun(
    connector: &Connector,
    status: u16,
    retry_after: Option<Duration>,
    body: &Secret<RawAnswer>,
) -> Result<DeviceGrant, DeviceFault> {
    let own = matches!(connector.device_flow, DeviceFlow::Code { .. });
    let success = (200..300).contains(&status);
    let said = match Body::parse(body) {
        None => Said::nothing(status),
        Some(mut body) => {
            let name = if own { "device_auth_id" } else { "device_code" };
            if success && let Some(device_code) = body.take(name, MAX_CODE) {
                return grant(connector, &body, device_code).map_err(|what| DeviceFault::Unavailable {
                    message: format!("the server's answer cannot be used: {what}"),
                    retry_after: None,
                });
            }
            Said::of(connector, status, &body)
        }
    };
    if said.unprocessed(connector) {
        let message = said.message;
        return Err(DeviceFault::Unavailable { message, retry_after });
    }
    // A server that knows the flow, and does not offer it.
    if own && status == 404 {
        return Err(DeviceFault::Unsupported);
    }
    if said.refuses() {
        let (code, message) = (said.code(), said.message);
        return Err(DeviceFault::Refused { code, message });
    }
    Err(DeviceFault::Unavailable {
        message: said.with_status(),
        retry_after,
    })
}

/// What is needed of the answer, or what is wrong with it.
fn grant(
    connector: &Connector,
    body: &Body,
    device_code: Secret<crate::domain::secret::DeviceCode>,
) -> Result<DeviceGrant, &'static str> {
    // One server writes it as one word in some of its versions (Codex CLI source).
    let user_code = body.text("user_code").or_else(|| body.text("usercode"));
    let user_code = user_code.map(str::trim).unwrap_or_default();
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if user_code.is_empty() || user_code.len() > MAX_USER_CODE || !user_code.bytes().all(printable) {
        return Err("it has no user_code, or one that cannot be shown");
    }
    let (verification_uri, verification_uri_complete) = match &connector.device_flow {
        DeviceFlow::Code { page_url, .. } => (page_url.to_string(), None),
        DeviceFlow::Rfc8628 => (
            body.text("verification_uri")
                .and_then(page)
                .ok_or("it has no verification_uri that is https, or http on this machine")?,
            // For convenience only: without it the code is entered by hand.
            body.text("verification_uri_complete").and_then(page),
        ),
    };
    let seconds = |key| body.seconds(key, &connector.quirks);
    let [least, most] = INTERVALS;
    Ok(DeviceGrant {
        device_code,
        user_code: user_code.to_owned(),
        verification_uri,
        verification_uri_complete,
        expires_in: seconds("expires_in").map_or(LIFE, |life| life.min(MAX_LIFE)),
        interval: seconds("interval").map_or(INTERVAL, |interval| interval.clamp(least, most)),
    })
}

/// The page at `text`, if people can be sent there.
fn page(text: &str) -> Option<String> {
    let (bare, fragment) = text.split_once('#').unwrap_or((text, ""));
    // A page may have a fragment, where an endpoint has none.
    checked_url(bare, &[]).ok()?;
    let fits = text.len() <= 2048 && fragment.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Url::parse(text).ok()).flatten().map(String::from)
}
