//! Answers to code exchanges, device flows and revocations, and what they are taken for.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::secret::Exposure;
use crate::upstream::connector::load::Connectors;
use crate::upstream::oauth::{DeviceFault, DeviceGrant};

const WAIT: Option<Duration> = Some(Duration::from_secs(7));

/// A connector with these lines.
fn acme(more: &str) -> Arc<Connector> {
    let text =
        format!("[connectors.acme]\ntoken_url = \"https://id.example/t\"\nclient_id = \"c\"\n{more}\n");
    let connectors = Connectors::load_text("test", &text).unwrap();
    connectors.get("acme").unwrap().clone()
}

/// One with a device flow of its own.
fn own() -> Arc<Connector> {
    acme(
        "device_flow = \"code\"\ndevice_authorization_url = \"https://id.example/d\"\n\
         device_poll_url = \"https://id.example/p\"\ndevice_page_url = \"https://id.example/enter\"\n\
         device_redirect_uri = \"https://id.example/callback\"",
    )
}

fn raw(body: &str) -> Secret<RawAnswer> {
    Secret::from(body.to_owned())
}

fn text<K>(secret: &Secret<K>) -> &str {
    secret.expose_str(Exposure::Inspect).unwrap()
}

fn exchanged(connector: &Connector, status: u16, body: &str) -> String {
    match classify_exchange(connector, status, WAIT, &raw(body)) {
        ExchangeAnswer::Granted(granted) => format!("granted {}", text(&granted.access_token)),
        ExchangeAnswer::RefreshOnly(token) => format!("refresh {}", text(&token)),
        ExchangeAnswer::Refused { code, .. } => format!("refused {code}"),
        ExchangeAnswer::Misconfigured { code, .. } => format!("misconfigured {code}"),
        ExchangeAnswer::NotProcessed { retry_after, .. } => {
            format!("not processed {}", retry_after.unwrap().as_secs())
        }
        ExchangeAnswer::Ambiguous { .. } => "ambiguous".to_owned(),
    }
}

// req: A7
#[test]
fn a_code_is_refused_by_whatever_says_no() {
    // What is permanent for a grant says nothing of a code.
    let acme = acme("permanent_errors = [\"session_over\"]\nunprocessed_errors = [\"busy\"]");
    for (status, body, expected) in [
        (200, r#"{"access_token":"a","refresh_token":"r"}"#, "granted a"),
        (200, r#"{"access_token":"a","authorization_code":5}"#, "granted a"),
        (200, r#"{"refresh_token":"r"}"#, "refresh r"),
        (400, r#"{"error":"invalid_grant"}"#, "refused invalid_grant"),
        (400, r#"{"error":"code_too_old"}"#, "refused code_too_old"),
        (200, r#"{"error":"code_too_old"}"#, "refused code_too_old"),
        (401, "{}", "refused http_401"),
        (404, "<html>", "refused http_404"),
        // Its tokens are not believed.
        (400, r#"{"access_token":"a"}"#, "refused http_400"),
        (
            400,
            r#"{"error":"invalid_client"}"#,
            "misconfigured invalid_client",
        ),
        (
            401,
            r#"{"error":"unauthorized_client"}"#,
            "misconfigured unauthorized_client",
        ),
        (429, "", "not processed 7"),
        (500, r#"{"error":"busy"}"#, "not processed 7"),
        (200, "{}", "ambiguous"),
        (200, "<html>", "ambiguous"),
        (302, "", "ambiguous"),
        (408, "", "ambiguous"),
        (500, r#"{"error":"invalid_grant"}"#, "ambiguous"),
        (503, "<html>", "ambiguous"),
    ] {
        assert_eq!(exchanged(&acme, status, body), expected, "{status} {body}");
    }
}

#[test]
fn what_a_server_says_of_a_code_is_redacted() {
    let body = r#"{"error":"0123456789abcdefghij","error_description":"no code 4/0AbCdEfGhIjKlMnOpQrStUv\u001b[2J"}"#;
    let ExchangeAnswer::Refused { code, message } = classify_exchange(&acme(""), 400, None, &raw(body))
    else {
        panic!("not refused");
    };
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("[redacted]", "no code [redacted] [2J")
    );
}

fn polled(connector: &Connector, status: u16, body: &str) -> String {
    match classify_device(connector, status, WAIT, &raw(body)) {
        DeviceAnswer::Pending => "pending".to_owned(),
        DeviceAnswer::SlowDown => "slow down".to_owned(),
        DeviceAnswer::Granted => "granted".to_owned(),
        DeviceAnswer::Code {
            code,
            verifier,
            redirect_uri,
        } => {
            let verifier = verifier.as_ref().map_or("none", text);
            format!("code {} {verifier} {redirect_uri}", text(&code))
        }
        DeviceAnswer::Denied { message } => format!("denied {message}"),
        DeviceAnswer::Expired => "expired".to_owned(),
        DeviceAnswer::Refused { code, .. } => format!("refused {code}"),
        DeviceAnswer::Misconfigured { code, .. } => format!("misconfigured {code}"),
        DeviceAnswer::NotProcessed { retry_after, .. } => {
            format!("not processed {}", retry_after.unwrap().as_secs())
        }
        DeviceAnswer::Ambiguous { .. } => "ambiguous".to_owned(),
    }
}

// req: A7
#[test]
fn polls_are_read_as_rfc_8628_has_them() {
    let acme = acme("");
    for (status, body, expected) in [
        (400, r#"{"error":"authorization_pending"}"#, "pending"),
        // GitHub's way: an error with status 200.
        (200, r#"{"error":"authorization_pending"}"#, "pending"),
        (400, r#"{"error":"slow_down"}"#, "slow down"),
        (429, r#"{"error":"slow_down"}"#, "slow down"),
        (429, "", "not processed 7"),
        (400, r#"{"error":"expired_token"}"#, "expired"),
        (
            400,
            r#"{"error":"access_denied","error_description":"not mine"}"#,
            "denied not mine",
        ),
        (403, r#"{"error":"access_denied"}"#, "denied access_denied"),
        (400, r#"{"error":"invalid_grant"}"#, "refused invalid_grant"),
        (
            400,
            r#"{"error":"unsupported_grant_type"}"#,
            "misconfigured unsupported_grant_type",
        ),
        (404, "", "refused http_404"),
        (200, r#"{"access_token":"a"}"#, "granted"),
        (200, r#"{"refresh_token":"r"}"#, "granted"),
        (400, r#"{"access_token":"a"}"#, "refused http_400"),
        // No flow of this server's.
        (200, r#"{"authorization_code":"c"}"#, "ambiguous"),
        (200, "<html>", "ambiguous"),
        (502, r#"{"error":"access_denied"}"#, "ambiguous"),
        (408, "", "ambiguous"),
    ] {
        assert_eq!(polled(&acme, status, body), expected, "{status} {body}");
    }
    let strict = self::acme("quirks = []");
    assert_eq!(polled(&strict, 200, r#"{"error":"access_denied"}"#), "ambiguous");
}

// req: A7
#[test]
fn polls_of_a_flow_of_the_servers_own_bring_a_code() {
    let own = own();
    let code = r#"{"authorization_code":"c","code_challenge":"h","code_verifier":"v"}"#;
    let long = format!(r#"{{"authorization_code":"{}"}}"#, "c".repeat(4097));
    for (status, body, expected) in [
        (403, "", "pending"),
        (404, "<html>", "pending"),
        (403, r#"{"error":"access_denied"}"#, "pending"),
        (200, code, "code c v https://id.example/callback"),
        (
            200,
            r#"{"authorization_code":"c"}"#,
            "code c none https://id.example/callback",
        ),
        (403, code, "pending"),
        (200, &long, "ambiguous"),
        (200, r#"{"authorization_code":["c"]}"#, "ambiguous"),
        (200, r#"{"access_token":"a"}"#, "ambiguous"),
        (400, r#"{"error":"bad"}"#, "refused bad"),
        (429, "", "not processed 7"),
        (500, "", "ambiguous"),
    ] {
        assert_eq!(polled(&own, status, body), expected, "{status} {body}");
    }
}

/// The flow, or what is wrong with it.
fn begins(connector: &Connector, status: u16, body: &str) -> Result<DeviceGrant, String> {
    begun(connector, status, WAIT, &raw(body)).map_err(|fault| match fault {
        DeviceFault::Unsupported => "unsupported".to_owned(),
        DeviceFault::Refused { code, .. } => format!("refused {code}"),
        DeviceFault::Unavailable { message, retry_after } => {
            format!(
                "unavailable {message} {}",
                retry_after.unwrap_or_default().as_secs()
            )
        }
    })
}

/// A whole answer of RFC 8628 section 3.2, with `more` laid over it.
fn answer(more: serde_json::Value) -> String {
    let mut answer = serde_json::json!({
        "device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://id.example/device",
        "expires_in": 1800, "interval": 10,
    });
    for (key, value) in more.as_object().unwrap() {
        answer[key] = value.clone();
    }
    answer.to_string()
}

// req: A7
#[test]
fn a_device_flow_begins_with_what_the_server_says_within_bounds() {
    let acme = acme("");
    let grant = |more| begins(&acme, 200, &answer(more)).unwrap();
    let whole =
        grant(serde_json::json!({ "verification_uri_complete": "https://id.example/device#/WDJB?x=1" }));
    assert_eq!(text(&whole.device_code), "d");
    assert_eq!(whole.user_code, "WDJB-MJHT");
    assert_eq!(whole.verification_uri, "https://id.example/device");
    let complete = whole.verification_uri_complete.unwrap();
    assert_eq!(complete, "https://id.example/device#/WDJB?x=1");
    let times = |grant: DeviceGrant| (grant.expires_in.as_secs(), grant.interval.as_secs());
    for (more, expected) in [
        (serde_json::json!({}), (1800, 10)),
        (
            serde_json::json!({ "expires_in": "60", "interval": " 3 " }),
            (60, 3),
        ),
        (
            serde_json::json!({ "expires_in": null, "interval": null }),
            (900, 5),
        ),
        (
            serde_json::json!({ "expires_in": 1e12, "interval": 1e12 }),
            (3600, 300),
        ),
        (serde_json::json!({ "expires_in": -1, "interval": 0 }), (900, 1)),
    ] {
        assert_eq!(times(grant(more.clone())), expected, "{more}");
    }
    // Without it the code is entered by hand.
    let bad = serde_json::json!({ "verification_uri_complete": "javascript:alert(1)" });
    assert_eq!(grant(bad).verification_uri_complete, None);
}

// req: A7
#[test]
fn what_cannot_be_shown_to_anybody_begins_no_flow() {
    let acme = acme("");
    let long = format!("https://id.example/{}", "x".repeat(2048));
    for (key, value) in [
        ("user_code", ""),
        ("user_code", "\u{1b}]0;x\u{7}"),
        ("user_code", "AB\nCD"),
        ("user_code", "\u{202e}ABCD"),
        ("user_code", &"A".repeat(65)),
        ("verification_uri", "http://id.example/device"),
        ("verification_uri", "javascript:alert(1)"),
        ("verification_uri", "id.example/device"),
        ("verification_uri", "https://id.example/\u{1b}[2J"),
        ("verification_uri", "https://id.example/#\u{1b}[2J"),
        ("verification_uri", "https://user@id.example/"),
        ("verification_uri", &long),
    ] {
        let said = begins(&acme, 200, &answer(serde_json::json!({ key: value }))).map(|_| ());
        let said = said.unwrap_err();
        assert!(
            said.starts_with("unavailable the server's answer cannot be used") && said.contains(key),
            "{value:?}: {said}"
        );
        assert!(!said.contains('\u{1b}'), "{said}");
    }
    let local = serde_json::json!({ "verification_uri": "http://127.0.0.1:8080/device" });
    assert!(begins(&acme, 200, &answer(local)).is_ok());
}

#[test]
fn why_a_device_flow_does_not_begin_is_told_apart() {
    let long = answer(serde_json::json!({ "device_code": "d".repeat(4097) }));
    for (status, body, expected) in [
        (400, r#"{"error":"invalid_client"}"#, "refused invalid_client"),
        (400, r#"{"error":"invalid_scope"}"#, "refused invalid_scope"),
        (404, "", "refused http_404"),
        (429, "", "unavailable status 429 with a body"),
        (500, r#"{"error":"invalid_client"}"#, "unavailable status 500"),
        (302, "", "unavailable status 302"),
        (200, "<html>", "unavailable status 200"),
        (200, "{}", "unavailable status 200"),
        (200, &long, "unavailable status 200"),
        (400, &answer(serde_json::json!({})), "refused http_400"),
    ] {
        let said = begins(&acme(""), status, body).map(|_| ()).unwrap_err();
        assert!(said.starts_with(expected), "{status} {body}: {said}");
    }
    let own = own();
    assert_eq!(begins(&own, 404, "").map(|_| ()).unwrap_err(), "unsupported");
    for spelled in ["user_code", "usercode"] {
        let body = format!(r#"{{"device_auth_id":"d","{spelled}":"AB-12","interval":"5"}}"#);
        let grant = begins(&own, 200, &body).unwrap();
        assert_eq!(text(&grant.device_code), "d");
        assert_eq!(
            (grant.user_code.as_str(), grant.verification_uri.as_str()),
            ("AB-12", "https://id.example/enter")
        );
        assert_eq!((grant.expires_in.as_secs(), grant.interval.as_secs()), (900, 5));
    }
}

// req: A12
#[test]
fn a_revocation_is_done_impossible_for_later_or_refused() {
    let acme = acme("revoked_errors = [\"invalid_token\"]");
    let said = |connector: &Connector, status, body: &str| match classify_revocation(
        connector,
        status,
        WAIT,
        &raw(body),
    ) {
        RevocationAnswer::Revoked => "revoked".to_owned(),
        RevocationAnswer::Unsupported { code } => format!("unsupported {code}"),
        RevocationAnswer::NotNow { retry_after, .. } => format!("not now {}", retry_after.unwrap().as_secs()),
        RevocationAnswer::Refused { code, .. } => format!("refused {code}"),
    };
    for (status, body, expected) in [
        (200, "", "revoked"),
        (200, "{}", "revoked"),
        (204, "", "revoked"),
        (200, "<html>", "revoked"),
        (200, r#"{"error":"nope"}"#, "refused nope"),
        (400, r#"{"error":"invalid_token"}"#, "revoked"),
        (500, r#"{"error":"invalid_token"}"#, "not now 7"),
        (
            400,
            r#"{"error":"unsupported_token_type"}"#,
            "unsupported unsupported_token_type",
        ),
        (503, r#"{"error":"unsupported_token_type"}"#, "not now 7"),
        (503, "", "not now 7"),
        (500, "{}", "not now 7"),
        (429, "", "not now 7"),
        (408, "", "not now 7"),
        (401, r#"{"error":"invalid_client"}"#, "not now 7"),
        (400, r#"{"error":"unauthorized_client"}"#, "not now 7"),
        (400, r#"{"error":"invalid_request"}"#, "refused invalid_request"),
        (404, "", "refused http_404"),
        (302, "", "refused http_302"),
    ] {
        assert_eq!(said(&acme, status, body), expected, "{status} {body}");
    }
    // Without the key it is an error as any other; without the quirk a success has none.
    let plain = self::acme("quirks = []");
    assert_eq!(
        said(&plain, 400, r#"{"error":"invalid_token"}"#),
        "refused invalid_token"
    );
    assert_eq!(said(&plain, 200, r#"{"error":"nope"}"#), "revoked");
}
