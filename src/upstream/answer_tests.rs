//! Answers of every sort, and what they are taken for.

use super::*;
use crate::domain::secret::Exposure;
use crate::upstream::connector::load::Connectors;
use std::sync::Arc;

fn connector(name: &str) -> Arc<Connector> {
    let text = "[connectors.plain]\ntoken_url = \"https://id.example/t\"\nclient_id = \"c\"\n";
    Connectors::load_text("test", text)
        .unwrap()
        .get(name)
        .unwrap()
        .clone()
}

fn ask(name: &str, status: u16, body: &str) -> Answer {
    let wait = Some(Duration::from_secs(7));
    classify(&connector(name), status, wait, &Secret::from(body.to_owned()))
}

fn granted(answer: Answer) -> Granted {
    match answer {
        Answer::Granted(granted) => granted,
        other => panic!("not granted: {}", tell(&other)),
    }
}

/// The kind of answer and its code.
fn tell(answer: &Answer) -> String {
    match answer {
        Answer::Granted(_) => "granted".to_owned(),
        Answer::Rotated(_) => "rotated".to_owned(),
        Answer::Refused { code, .. } => format!("refused {code}"),
        Answer::NotProcessed { retry_after, .. } => {
            format!("not processed {}", retry_after.unwrap_or_default().as_secs())
        }
        Answer::Misconfigured { code, .. } => format!("misconfigured {code}"),
        Answer::Ambiguous { .. } => "ambiguous".to_owned(),
    }
}

fn message(answer: Answer) -> String {
    match answer {
        Answer::Refused { message, .. }
        | Answer::NotProcessed { message, .. }
        | Answer::Misconfigured { message, .. }
        | Answer::Ambiguous { message, .. } => message,
        Answer::Granted(_) | Answer::Rotated(_) => panic!("tokens have no message"),
    }
}

fn text<K>(secret: &Secret<K>) -> &str {
    secret.expose_str(Exposure::Inspect).unwrap()
}

/// A JWT with these claims and no real signature.
fn jwt(claims: &str) -> String {
    use base64::Engine as _;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{\"alg\":\"none\"}"), part(claims), part("sig"))
}

#[test]
fn a_whole_answer_is_taken_whole() {
    let body = r#"{"access_token":"a","refresh_token":"r","expires_in":3600,"scope":"x y","token_type":"bearer",
        "refresh_token_expires_in":86400}"#;
    let granted = granted(ask("plain", 200, body));
    assert_eq!(text(&granted.access_token), "a");
    assert_eq!(text(&granted.refresh_token.unwrap()), "r");
    assert_eq!(granted.expiry, Some(Expiry::In(Duration::from_secs(3600))));
    assert_eq!(granted.refresh_expires_in, Some(Duration::from_secs(86_400)));
    assert_eq!(granted.scopes.unwrap(), ["x", "y"]);
    assert_eq!(granted.token_type, "bearer");
}

#[test]
fn what_is_left_out_stays_unknown_and_the_old_refresh_token_stays() {
    for body in [
        r#"{"access_token":"a"}"#,
        r#"{"access_token":"a","refresh_token":null}"#,
        r#"{"access_token":"a","refresh_token":""}"#,
    ] {
        let granted = granted(ask("plain", 200, body));
        assert!(granted.refresh_token.is_none(), "{body}");
        assert_eq!(granted.expiry, None);
        assert_eq!(granted.scopes, None);
        assert_eq!(granted.token_type, "Bearer");
    }
}

#[test]
fn odd_numbers_never_panic_or_lose_the_tokens() {
    for (value, expected) in [
        ("\"3600\"", Some(3600)),
        ("3600.9", Some(3600)),
        ("0", Some(0)),
        ("-1", None),
        ("1e300", None),
        ("\"soon\"", None),
        ("[]", None),
        ("99999999999", Some(MAX_LIFE.as_secs())),
    ] {
        let body = format!(r#"{{"access_token":"a","refresh_token":"r","expires_in":{value}}}"#);
        let granted = granted(ask("plain", 200, &body));
        assert_eq!(
            granted.expiry,
            expected.map(|s| Expiry::In(Duration::from_secs(s))),
            "{value}"
        );
        assert!(granted.refresh_token.is_some());
    }
}

#[test]
fn a_jwt_tells_its_own_expiry_where_the_connector_says_so() {
    let body = format!(
        r#"{{"access_token":"{}","expires_in":1}}"#,
        jwt(r#"{"exp":1700000000}"#)
    );
    let expiry = granted(ask("openai", 200, &body)).expiry;
    assert_eq!(expiry, Some(Expiry::At(Time::from_seconds(1_700_000_000))));
    assert_eq!(
        granted(ask("plain", 200, &body)).expiry,
        Some(Expiry::In(Duration::from_secs(1)))
    );
    for token in [
        "opaque",
        "a.b.c",
        &jwt("{}"),
        &jwt(r#"{"exp":-5}"#),
        &jwt(r#"{"exp":1e18}"#),
    ] {
        let body = format!(r#"{{"access_token":"{token}","expires_in":9}}"#);
        let expiry = granted(ask("openai", 200, &body)).expiry;
        assert_eq!(expiry, Some(Expiry::In(Duration::from_secs(9))), "{token}");
    }
}

#[test]
fn the_account_is_read_from_where_the_connector_says() {
    let claims = r#"{"email":"m@example","https://api.openai.com/auth":{"chatgpt_account_id":"acc"}}"#;
    let body = format!(r#"{{"access_token":"a","id_token":"{}"}}"#, jwt(claims));
    let account = granted(ask("openai", 200, &body)).account;
    assert!(
        account.contains(&("account".to_owned(), "acc".to_owned())),
        "{account:?}"
    );
    assert!(account.contains(&("email".to_owned(), "m@example".to_owned())));

    let body = r#"{"access_token":"a","organization":{"uuid":"o\u001b[0m"},"account":{"uuid":5}}"#;
    let account = granted(ask("claude", 200, body)).account;
    assert_eq!(
        account,
        [
            ("account".to_owned(), "5".to_owned()),
            ("organization".to_owned(), "o [0m".to_owned())
        ]
    );
}

#[test]
fn error_codes_are_found_where_each_connector_has_them() {
    for (name, status, body, expected) in [
        (
            "plain",
            400,
            r#"{"error":"invalid_grant"}"#,
            "refused invalid_grant",
        ),
        // Some servers answer 200 with an error.
        (
            "plain",
            200,
            r#"{"error":"invalid_grant"}"#,
            "refused invalid_grant",
        ),
        // Elsewhere in the body it is not this connector's error code.
        ("plain", 400, r#"{"code":"invalid_grant"}"#, "ambiguous"),
        (
            "openai",
            400,
            r#"{"error":{"code":"refresh_token_reused"}}"#,
            "refused refresh_token_reused",
        ),
        (
            "openai",
            400,
            r#"{"error":"refresh_token_expired"}"#,
            "refused refresh_token_expired",
        ),
        (
            "openai",
            400,
            r#"{"code":"refresh_token_invalidated"}"#,
            "refused refresh_token_invalidated",
        ),
        ("openai", 401, "{}", "refused http_401"),
        ("openai", 401, "<html>", "refused http_401"),
        ("openai", 401, r#"{"error":"odd"}"#, "refused odd"),
        (
            "claude",
            400,
            r#"{"error":{"type":"invalid_grant"}}"#,
            "refused invalid_grant",
        ),
        ("claude", 401, "{}", "ambiguous"),
    ] {
        assert_eq!(tell(&ask(name, status, body)), expected, "{name} {status} {body}");
    }
}

#[test]
fn some_codes_say_why_a_grant_is_refused() {
    for (name, body, expected) in [
        ("plain", r#"{"error":"invalid_grant"}"#, Told::Nothing),
        ("openai", r#"{"error":"invalid_grant"}"#, Told::Nothing),
        ("openai", r#"{"error":"refresh_token_expired"}"#, Told::Expired),
        (
            "openai",
            r#"{"error":{"code":"refresh_token_reused"}}"#,
            Told::Reused,
        ),
        (
            "openai",
            r#"{"code":"refresh_token_invalidated"}"#,
            Told::Withdrawn,
        ),
        // The one that says something counts, wherever it stands.
        (
            "openai",
            r#"{"error":"invalid_grant","code":"refresh_token_expired"}"#,
            Told::Expired,
        ),
        ("openai", "<html>", Told::Nothing),
    ] {
        match ask(name, 401, body) {
            Answer::Refused { told, .. } => assert_eq!(told, expected, "{name} {body}"),
            other => panic!("{}", tell(&other)),
        }
    }
}

#[test]
fn unprocessed_is_only_what_the_connector_documents() {
    for (name, status, body, expected) in [
        ("plain", 429, "", "not processed 7"),
        ("plain", 429, r#"{"error":"slow"}"#, "not processed 7"),
        // A rate limiter in front does not know the grant, whatever its body says.
        ("plain", 429, r#"{"error":"invalid_grant"}"#, "not processed 7"),
        (
            "claude",
            200,
            r#"{"type":"error","error":{"type":"rate_limit_error"}}"#,
            "not processed 7",
        ),
        (
            "plain",
            200,
            r#"{"type":"error","error":{"type":"rate_limit_error"}}"#,
            "ambiguous",
        ),
        ("plain", 503, "", "ambiguous"),
        ("plain", 500, "{}", "ambiguous"),
    ] {
        assert_eq!(tell(&ask(name, status, body)), expected, "{name} {status} {body}");
    }
}

// req: B4
#[test]
fn a_configuration_fault_is_never_a_dead_grant() {
    for code in CLIENT_FAULTS {
        // 401 is final at openai, and still this one is not about the grant.
        for (name, status) in [("plain", 400), ("plain", 401), ("openai", 401), ("claude", 400)] {
            let body = format!(r#"{{"error":"{code}"}}"#);
            assert_eq!(
                tell(&ask(name, status, &body)),
                format!("misconfigured {code}"),
                "{name} {status}"
            );
        }
    }
}

#[test]
fn a_permanent_code_beside_a_fault_of_the_client_is_about_the_grant() {
    for body in [
        r#"{"error":"invalid_request","code":"refresh_token_reused"}"#,
        r#"{"error":{"code":"invalid_request"},"code":"refresh_token_reused"}"#,
        r#"{"error":"refresh_token_reused","code":"invalid_client"}"#,
    ] {
        assert_eq!(
            tell(&ask("openai", 400, body)),
            "refused refresh_token_reused",
            "{body}"
        );
    }
}

// req: B4
#[test]
fn a_failing_server_proves_nothing() {
    for body in [
        r#"{"error":"invalid_grant"}"#,
        r#"{"error":"invalid_client"}"#,
        "{}",
        "<html>",
        "",
    ] {
        for status in [500, 502, 503, 504] {
            assert_eq!(tell(&ask("plain", status, body)), "ambiguous", "{status} {body}");
        }
    }
    let nested = "[".repeat(100_000);
    for (status, body) in [
        (200, "{}"),
        (200, "null"),
        (200, nested.as_str()),
        (302, "{}"),
        (404, "{}"),
        (403, ""),
    ] {
        assert_eq!(tell(&ask("plain", status, body)), "ambiguous", "{status}");
    }
}

#[test]
fn new_tokens_are_taken_whatever_else_the_answer_says() {
    let body = r#"{"error":"rate_limit_error","access_token":"a","refresh_token":"r"}"#;
    assert!(granted(ask("claude", 201, body)).refresh_token.is_some());
    assert_eq!(tell(&ask("plain", 200, r#"{"refresh_token":"r"}"#)), "rotated");
    for (name, body) in [
        ("openai", r#"{"refresh_token":"r2","code":"ok"}"#),
        ("plain", r#"{"refresh_token":"r2","error":"invalid_client"}"#),
        ("plain", r#"{"refresh_token":"r2","error":"invalid_grant"}"#),
        (
            "claude",
            r#"{"refresh_token":"r2","error":{"type":"rate_limit_error"}}"#,
        ),
    ] {
        let Answer::Rotated(token) = ask(name, 200, body) else {
            panic!("the new refresh token is lost: {name} {body}");
        };
        assert_eq!(text(&token), "r2");
    }
    // An error status is no grant, even with tokens in it.
    assert_eq!(tell(&ask("plain", 500, r#"{"access_token":"a"}"#)), "ambiguous");
}

// req: C5
#[test]
fn the_providers_words_are_kept_without_secrets() {
    let body =
        r#"{"error":"invalid_grant","error_description":"token sk-ant-ort01-abcdefgh was used\nagain"}"#;
    assert_eq!(
        message(ask("plain", 400, body)),
        "token [redacted] was used again"
    );
    let body = r#"{"error":{"code":"refresh_token_reused","message":"Sign in again."}}"#;
    assert_eq!(message(ask("openai", 400, body)), "Sign in again.");
    assert_eq!(
        message(ask("plain", 400, r#"{"error":"invalid_grant"}"#)),
        "invalid_grant"
    );

    let long = format!(
        r#"{{"error":"odd","error_description":"{}"}}"#,
        "word ".repeat(1000)
    );
    assert_eq!(message(ask("plain", 400, &long)).chars().count(), MAX_MESSAGE);
    let secret_code = r#"{"error":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"}"#;
    assert_eq!(tell(&ask("openai", 401, secret_code)), "refused [redacted]");
}
