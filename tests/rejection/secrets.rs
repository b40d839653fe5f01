//! Secrets planted in every text that a provider and an agent can send, and looked for in everything that comes out.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use tonic::Status;

use crate::command::{Desk, office};
use crate::scene::{lease, report};
use crate::support::client::{details, metadata, secret};
use crate::support::provider::{ACCESS_MARK, REFRESH_MARK, Reply};
use crate::support::reason;
use crate::user::Ended;

/// All that the brokers of this process have logged, of whichever test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_env_filter("credbroker=trace")
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .init();
        log
    })
}

/// What came out, and where.
#[derive(Default)]
struct Out(Vec<(String, String)>);

impl Out {
    fn add(&mut self, at: impl Into<String>, text: impl Into<String>) {
        self.0.push((at.into(), text.into()));
    }

    fn status(&mut self, at: &str, refused: &Status) {
        let bytes = String::from_utf8_lossy(refused.details()).into_owned();
        let details = details(refused);
        self.add(
            at,
            format!("{refused:?}\n{}\n{details:?}\n{bytes}", refused.message()),
        );
    }

    fn ended(&mut self, at: &str, ended: &Ended) {
        self.add(
            format!("{at}: the command"),
            format!("{}\n{}", ended.out, ended.err),
        );
    }
}

/// What a provider that quotes its tokens says. The part of a token is long enough to be told by it.
fn quoting(tokens: &[&str]) -> String {
    let parts = tokens
        .iter()
        .map(|token| &token[token.len() - 11..token.len() - 1]);
    let parts: Vec<_> = parts.collect();
    format!(
        "it expired: {}; ends in {}; (\\u0007{}) Bearer={}",
        tokens.join(" "),
        parts.join(" and "),
        tokens.join("/"),
        tokens.join(",")
    )
}

// req: C5 N2
#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_and_the_agent_say_is_told_without_the_secrets_in_it() {
    let log = log();
    let config = "[refresh]\nrejections_in_a_row = 1\nforced_rotations_per_hour_per_credential = 100\n";
    let office = office(config).await;
    let desk = Desk::set(&office).await;
    let task = office.task(0).await;
    let agent = office.agent(&[&task]).await;
    let mut held = lease(&agent.caller, &task).await;
    let (provider, mut out) = (&office.providers[0], Out::default());

    // What the token endpoint says, and what is shown while that is the last word. The last one ends the grant.
    let cases = [
        (429, "slow_down", "REFRESH_UNAVAILABLE", 69),
        (500, "oops", "REFRESH_AMBIGUOUS", 69),
        (401, "invalid_client", "REFRESH_UNAVAILABLE", 69),
        (0, "", "REAUTH_FAILED", 1),
        (400, "invalid_grant", "REAUTH_REQUIRED", 1),
    ];
    for (status, error, expected, code) in cases {
        let planted = quoting(&[secret(&held), &provider.current()]);
        // As an agent passes it on, with the control character itself.
        let said = planted.replace("\\u0007", "\u{7}");
        if status == 0 {
            // Both have had their one replacement.
            for _ in 0..2 {
                let generation = office.shown(0).await.generation;
                if let Ok(answer) = report(&agent.caller, &held.id, generation, &said).await {
                    held = answer.lease.unwrap();
                }
                let ended = desk.reject(generation, &said.replace('\u{7}', ""), "").await;
                out.ended("a replacement", &ended);
            }
            let now = lease(&agent.caller, &task).await;
            held = now;
        } else {
            let body = format!(r#"{{"error":"{error}","error_description":"{planted}"}}"#);
            provider.next(Reply::Answer {
                status,
                body,
                retry_after: None,
            });
        }
        let said = quoting(&[secret(&held), &provider.current()]).replace("\\u0007", "\u{7}");
        let generation = office.shown(0).await.generation;
        let refused = report(&agent.caller, &held.id, generation, &said)
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), expected, "{refused:?}");
        let told = metadata(&refused, "provider_message");
        assert!(
            told.contains("it expired: [redacted]") && told.contains("ends in [redacted]"),
            "{told}"
        );
        assert!(
            !told.contains('\u{7}') && refused.message().contains("it expired"),
            "{refused:?}"
        );
        out.status(expected, &refused);
        let shown = office.shown(0).await;
        assert_eq!(
            shown.last_error.contains("it expired: [redacted]"),
            status != 0,
            "{}",
            shown.last_error
        );
        out.add(expected, format!("{shown:?}"));
        let ended = desk.reject(generation, &said.replace('\u{7}', ""), "").await;
        assert_eq!(ended.code, Some(code), "{}\n{}", ended.out, ended.err);
        assert!(
            ended.err.contains(expected) && ended.err.contains("it expired: [redacted]"),
            "{}",
            ended.err
        );
        out.ended(expected, &ended);
        for line in ["credential list", "credential show"] {
            let named = if line.ends_with("show") {
                office.grants[0].as_str()
            } else {
                ""
            };
            for format in ["table", "json"] {
                let ended = desk.run(&format!("{line} {named} -o {format}")).await;
                out.add(format!("{expected}: {line}"), ended.good());
            }
        }
        office.minutes(11);
        if status != 400 {
            held = lease(&agent.caller, &task).await;
        }
    }

    for record in office.operator.records().await {
        let stored = String::from_utf8(record.stored.clone()).unwrap();
        assert!(
            !stored.contains("it expired"),
            "what was said is not journaled: {stored}"
        );
        out.add("the journal", stored);
    }
    let export = desk.run("journal export").await.good();
    assert!(export.len() > 1_000);
    out.add("the export", export);
    let lines = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(lines.contains("REAUTH_FAILED") && lines.contains("REAUTH_REQUIRED"));
    let failed: Vec<_> = lines
        .lines()
        .filter(|line| line.contains("REAUTH_FAILED"))
        .collect();
    assert!(
        failed.iter().all(|line| !line.contains("it expired")),
        "{failed:?}"
    );
    out.add("the log", lines);

    for (at, text) in &out.0 {
        for mark in [ACCESS_MARK, REFRESH_MARK] {
            // No part of it either that is as long as the one that was planted.
            for part in mark.as_bytes().windows(8) {
                let part = std::str::from_utf8(part).unwrap();
                assert!(!text.contains(part), "{at} tells {part}:\n{text}");
            }
        }
    }
}
