//! Each quirk alone: the same answer of the same server, read by a connector that names the quirk and by one that does
//! not. How a request differs is for the tests of the client, which see the request.

use std::time::Duration;

use super::answer::{Answer, Expiry, classify};
use super::connector::load::Connectors;
use crate::domain::secret::Secret;
use crate::domain::time::Time;

/// What a connector with these lines makes of an answer, in a word.
fn read(more: &str, status: u16, body: &str) -> String {
    let text = format!(
        "[connectors.acme]\ntoken_url = \"https://id.example/t\"\nclient_id = \"c\"\nquirks = []\n{more}\n"
    );
    // A key that is said twice is said by `more`.
    let text = if more.starts_with("quirks") {
        text.replace("quirks = []\n", "")
    } else {
        text
    };
    let connectors = Connectors::load_text("test", &text).unwrap();
    let answer = classify(
        connectors.get("acme").unwrap(),
        status,
        None,
        &Secret::from(body.to_owned()),
    );
    match answer {
        Answer::Granted(granted) => {
            let expiry = match granted.expiry {
                None => "unknown".to_owned(),
                Some(Expiry::In(life)) => format!("in {}", life.as_secs()),
                Some(Expiry::At(time)) => format!("at {}", time.since(Time::from_seconds(0)).as_secs()),
            };
            let scopes = granted
                .scopes
                .map_or("as asked".to_owned(), |scopes| scopes.join("+"));
            let renewed = granted.refresh_expires_in.unwrap_or(Duration::ZERO).as_secs();
            format!(
                "granted, ends {expiry}, scopes {scopes}, refresh {renewed}, account {:?}",
                granted.account
            )
        }
        Answer::Rotated(_) => "rotated".to_owned(),
        Answer::Refused { code, .. } => format!("refused {code}"),
        Answer::NotProcessed { .. } => "not processed".to_owned(),
        Answer::Misconfigured { code, .. } => format!("misconfigured {code}"),
        Answer::Ambiguous { .. } => "ambiguous".to_owned(),
    }
}

/// `{"exp":1700000000}` and `{"who":"m"}` as unsigned JWTs.
const EXP: &str = "e30.eyJleHAiOjE3MDAwMDAwMDB9.c2ln";
const WHO: &str = "e30.eyJ3aG8iOiJtIn0.c2ln";

// req: N10
#[test]
fn each_quirk_of_answers_does_its_work_alone_and_nothing_without_it() {
    let jwt = format!(r#"{{"access_token":"{EXP}","expires_in":9}}"#);
    let id_token = format!(r#"{{"access_token":"a","id_token":"{WHO}","who":"x"}}"#);
    let plain = "granted, ends unknown, scopes as asked, refresh 0, account []";
    let cases: [(&str, u16, &str, &str, &str); 13] = [
        (
            "quirks = [\"scope-list\"]",
            200,
            r#"{"access_token":"a","scope":["x","y"]}"#,
            "granted, ends unknown, scopes x+y, refresh 0, account []",
            plain,
        ),
        (
            "quirks = [\"text-seconds\"]",
            200,
            r#"{"access_token":"a","expires_in":"60"}"#,
            "granted, ends in 60, scopes as asked, refresh 0, account []",
            plain,
        ),
        (
            "quirks = [\"text-seconds\"]",
            200,
            r#"{"access_token":"a","refresh_token_expires_in":"60"}"#,
            "granted, ends unknown, scopes as asked, refresh 60, account []",
            plain,
        ),
        (
            "quirks = [\"error-in-success\"]",
            200,
            r#"{"error":"invalid_grant"}"#,
            "refused invalid_grant",
            "ambiguous",
        ),
        (
            "quirks = [\"error-in-success\"]",
            200,
            r#"{"error":"invalid_client"}"#,
            "misconfigured invalid_client",
            "ambiguous",
        ),
        (
            "expiry = \"jwt-exp\"",
            200,
            &jwt,
            "granted, ends at 1700000000, scopes as asked, refresh 0, account []",
            "granted, ends in 9, scopes as asked, refresh 0, account []",
        ),
        (
            "error_at = [\"error.code\"]",
            400,
            r#"{"error":{"code":"invalid_grant"}}"#,
            "refused invalid_grant",
            "ambiguous",
        ),
        (
            "error_at = [\"error.type\"]",
            400,
            r#"{"error":{"type":"invalid_grant"}}"#,
            "refused invalid_grant",
            "ambiguous",
        ),
        (
            "error_at = [\"code\"]",
            400,
            r#"{"code":"invalid_grant"}"#,
            "refused invalid_grant",
            "ambiguous",
        ),
        (
            "permanent_statuses = [401]",
            401,
            "{}",
            "refused http_401",
            "ambiguous",
        ),
        (
            "unprocessed_statuses = [503]",
            503,
            "{}",
            "not processed",
            "ambiguous",
        ),
        (
            "account = [{ label = \"l\", from = \"answer\", pointer = \"/who\" }]",
            200,
            &id_token,
            "granted, ends unknown, scopes as asked, refresh 0, account [(\"l\", \"x\")]",
            plain,
        ),
        (
            "account = [{ label = \"l\", from = \"id-token\", pointer = \"/who\" }]",
            200,
            &id_token,
            "granted, ends unknown, scopes as asked, refresh 0, account [(\"l\", \"m\")]",
            plain,
        ),
    ];
    for (quirk, status, body, with, without) in cases {
        assert_eq!(read(quirk, status, body), with, "{quirk} {body}");
        assert_eq!(read("", status, body), without, "without {quirk}: {body}");
    }
}

// req: N10
#[test]
fn an_error_in_a_success_counts_as_unprocessed_only_with_both_keys() {
    let body = r#"{"error":"rate_limit_error"}"#;
    let both = "quirks = [\"error-in-success\"]\nunprocessed_errors = [\"rate_limit_error\"]";
    assert_eq!(read(both, 200, body), "not processed");
    assert_eq!(
        read("unprocessed_errors = [\"rate_limit_error\"]", 200, body),
        "ambiguous"
    );
    assert_eq!(
        read("unprocessed_errors = [\"rate_limit_error\"]", 400, body),
        "not processed"
    );
    // No quirk makes a new refresh token be lost.
    assert_eq!(read("", 200, r#"{"refresh_token":"r"}"#), "rotated");
}
