//! What an answer to a test says: a verdict, a message fit to be shown, and facts.

use reqwest::header::{HeaderMap, HeaderName, WWW_AUTHENTICATE};
use serde_json::Value;

use super::MAX_ANSWER;
use crate::domain::key_test::{KeyTest, MAX_FACT, MAX_FACTS, MAX_MESSAGE, Presentation, Verdict};
use crate::upstream::redact::{clip, redact_known};

/// How many texts of an answer are looked at for a word, and how deep they may be.
const MAX_TEXTS: usize = 512;
const MAX_DEPTH: usize = 16;
/// Where AWS says what went wrong, of answers whose body may not (Smithy's AWS protocols): the code, and sometimes more
/// after a colon.
const AWS_ERROR: HeaderName = HeaderName::from_static("x-amzn-errortype");
/// Where answers have their message: OpenAI, Anthropic and Gemini, AWS, RFC 6749 section 5.2.
const MESSAGES: [&str; 6] = [
    "/error/message",
    "/message",
    "/Message",
    "/error_description",
    "/error",
    "/detail",
];

/// What an answer says.
pub(super) struct Said {
    pub(super) verdict: Verdict,
    pub(super) message: String,
    pub(super) facts: Vec<(String, String)>,
}

/// What an answer of this status says. `secrets` are in nothing of it; a body of [`MAX_ANSWER`] bytes was cut there.
pub(super) fn read(test: &KeyTest, status: u16, headers: &HeaderMap, body: &[u8], secrets: &[&[u8]]) -> Said {
    let form = Form::of(body);
    let verdict = match test.judge(status, form.texts(headers).iter().map(String::as_str)) {
        // Whoever answers every request with a page of its own is not the provider.
        Verdict::Works if !form.is_an_answer(test, body) => {
            return Said {
                verdict: Verdict::Unclear,
                message: format!("status {status}, with something else than this request is answered with"),
                facts: Vec::new(),
            };
        }
        verdict => verdict,
    };
    let message = match verdict {
        Verdict::Works => String::new(),
        _ => message(status, &form, headers, secrets),
    };
    Said {
        verdict,
        message,
        facts: facts(test, verdict, headers, &form, secrets),
    }
}

/// A body, as far as it is understood.
enum Form<'a> {
    Json(Value),
    Markup(&'a str),
}

impl<'a> Form<'a> {
    fn of(body: &'a [u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(value) => Form::Json(value),
            Err(_) => Form::Markup(std::str::from_utf8(body).unwrap_or_default()),
        }
    }

    /// Whether it may be what a request that worked is answered with: JSON, or of AWS's older services XML.
    fn is_an_answer(&self, test: &KeyTest, body: &[u8]) -> bool {
        match (self, &test.auth) {
            (Form::Json(value), _) => value.is_object() || value.is_array(),
            (Form::Markup(text), Presentation::Sigv4 { .. }) => element(text, "Arn").is_some(),
            // A long list may have been cut.
            (Form::Markup(text), _) => body.len() >= MAX_ANSWER && text.trim_start().starts_with(['{', '[']),
        }
    }

    /// All texts in it, and the error code of AWS's header.
    fn texts(&self, headers: &HeaderMap) -> Vec<String> {
        let code = headers.get(&AWS_ERROR).and_then(|value| value.to_str().ok());
        let code = code.and_then(|code| code.split(':').next());
        let mut found: Vec<String> = code.into_iter().map(str::to_owned).collect();
        match self {
            Form::Json(value) => collect(value, MAX_DEPTH, &mut found),
            Form::Markup(text) => found.extend(
                text.split('>')
                    .skip(1)
                    .filter_map(|rest| rest.split('<').next())
                    .map(|text| text.trim().to_owned())
                    .filter(|text| !text.is_empty())
                    .take(MAX_TEXTS),
            ),
        }
        found
    }

    fn message(&self) -> Option<&str> {
        match self {
            Form::Json(value) => {
                // Some of Gemini's errors come in a list of one.
                let value = value.get(0).unwrap_or(value);
                MESSAGES
                    .iter()
                    .find_map(|place| value.pointer(place).and_then(Value::as_str))
            }
            Form::Markup(text) => element(text, "Message"),
        }
    }
}

fn collect(value: &Value, depth: usize, found: &mut Vec<String>) {
    if depth == 0 || found.len() >= MAX_TEXTS {
        return;
    }
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, depth - 1, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, depth - 1, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What stands in the first element of this name, where that is text alone.
fn element<'a>(markup: &'a str, name: &str) -> Option<&'a str> {
    let after = markup.split_once(&format!("<{name}>"))?.1;
    let text = after.split_once('<')?.0.trim();
    (!text.is_empty()).then_some(text)
}

fn message(status: u16, form: &Form<'_>, headers: &HeaderMap, secrets: &[&[u8]]) -> String {
    let challenge = || {
        headers
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
    };
    match form.message().or_else(challenge) {
        Some(said) => redact_known(said, secrets, MAX_MESSAGE),
        None => format!("status {status}"),
    }
}

fn facts(
    test: &KeyTest,
    verdict: Verdict,
    headers: &HeaderMap,
    form: &Form<'_>,
    secrets: &[&[u8]],
) -> Vec<(String, String)> {
    let whose = match (&test.auth, form) {
        (Presentation::Sigv4 { .. }, Form::Markup(text)) if verdict == Verdict::Works => {
            ["Account", "Arn"].map(|name| Some((name.to_ascii_lowercase(), element(text, name)?)))
        }
        _ => [None, None],
    };
    let limits = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        let label = test
            .facts
            .iter()
            .find_map(|begin| name.strip_prefix(begin.as_str()))
            .filter(|label| !label.is_empty())?;
        Some((label.to_owned(), value.to_str().ok()?))
    });
    let harmless = |(label, value): (String, &str)| {
        let quoted = [label.as_str(), value].iter().any(|text| quotes(text, secrets));
        (!quoted).then(|| (clip(&label, MAX_FACT), clip(value, MAX_FACT)))
    };
    let all = whose.into_iter().flatten().chain(limits);
    let mut room = MAX_FACTS;
    all.filter_map(harmless)
        .take_while(|(label, value)| {
            let left = room.checked_sub(label.len() + value.len());
            room = left.unwrap_or(0);
            left.is_some()
        })
        .collect()
}

/// Whether a text has eight bytes in a row of a secret in it. Limits and names are not redacted by their looks: an ARN
/// looks like anything.
fn quotes(text: &str, secrets: &[&[u8]]) -> bool {
    secrets.iter().any(|secret| {
        let part = 8.min(secret.len()).max(1);
        secret
            .windows(part)
            .any(|window| text.as_bytes().windows(part).any(|here| here == window))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::key_test::Meaning;

    fn test(auth: Presentation) -> KeyTest {
        KeyTest {
            auth,
            answers: vec![Meaning {
                status: 400,
                word: Some("API_KEY_INVALID".to_owned()),
                means: Verdict::Rejected,
            }],
            facts: vec!["x-ratelimit-".to_owned()],
            ..KeyTest::bearer("https://h.example/".to_owned())
        }
    }

    fn bearer(status: u16, body: &str) -> Said {
        read(
            &test(Presentation::Bearer),
            status,
            &HeaderMap::new(),
            body.as_bytes(),
            &[b"hush-hush-secret"],
        )
    }

    // req: C4
    #[test]
    fn messages_are_found_where_providers_put_them_and_redacted() {
        for (body, message) in [
            (r#"{"error":{"message":"bad key"}}"#, "bad key"),
            (r#"[{"error":{"message":"bad key"}}]"#, "bad key"),
            (r#"{"Message":"bad key"}"#, "bad key"),
            (
                r#"{"error":"invalid_token","error_description":"bad key"}"#,
                "bad key",
            ),
            (r#"{"error":"invalid_token"}"#, "invalid_token"),
            (
                "<ErrorResponse><Error><Message>bad key</Message></Error></ErrorResponse>",
                "bad key",
            ),
            (
                r#"{"message":"not hush-hush-secret please"}"#,
                "not [redacted] please",
            ),
            ("<html>oops", "status 401"),
            ("", "status 401"),
        ] {
            let said = bearer(401, body);
            assert_eq!(
                (said.verdict, said.message.as_str()),
                (Verdict::Rejected, message)
            );
        }
    }

    // req: C4
    #[test]
    fn a_word_is_found_however_deep_and_a_page_of_somebody_elses_is_no_success() {
        let deep = r#"{"error":{"details":[{"reason":"API_KEY_INVALID"}],"message":"no"}}"#;
        assert_eq!(bearer(400, deep).verdict, Verdict::Rejected);
        assert_eq!(bearer(400, r#"{"error":{}}"#).verdict, Verdict::Unclear);
        assert_eq!(bearer(200, r#"{"data":[]}"#).verdict, Verdict::Works);
        for page in ["<html>sign in to the hotel</html>", "", "42", "\"ok\""] {
            let said = bearer(200, page);
            assert_eq!(said.verdict, Verdict::Unclear, "{page}");
            assert!(!said.message.is_empty());
        }
        let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(bearer(200, &nested).verdict, Verdict::Works);
    }

    // req: C4 C6
    #[test]
    fn facts_are_the_headers_that_are_asked_for_and_whose_aws_keys_are() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-remaining", "7".parse().unwrap());
        headers.insert("x-ratelimit-echo", "hush-hush-secret".parse().unwrap());
        headers.insert("x-ratelimit-", "nameless".parse().unwrap());
        headers.insert("x-request-id", "1".parse().unwrap());
        let body = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/a</Arn>\
                    <UserId>AIDA</UserId><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
        let auth = Presentation::Sigv4 {
            service: "sts".to_owned(),
        };
        let secrets: [&[u8]; 1] = [b"hush-hush-secret"];
        let said = read(&test(auth), 200, &headers, body.as_bytes(), &secrets);
        let facts: Vec<_> = said
            .facts
            .iter()
            .map(|(label, value)| (label.as_str(), value.as_str()))
            .collect();
        assert_eq!(said.verdict, Verdict::Works);
        assert_eq!(
            facts,
            [
                ("account", "1"),
                ("arn", "arn:aws:iam::1:user/a"),
                ("remaining", "7")
            ]
        );
    }
}
