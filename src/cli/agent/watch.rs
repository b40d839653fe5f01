//! `credbroker watch`: events as they happen, a line each.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::IdentityArgs;
use super::follow::{Follower, Seen};
use crate::cli::context::ConnectionArgs;
use crate::cli::error::{Failure, plain};
use crate::cli::render;
use crate::proto;
use crate::proto::watch_event::Event;

/// How events are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchOutput {
    /// For people.
    #[default]
    Table,
    /// For programs: an object a line.
    Json,
}

/// Follow the events that you may see: rotations, revocations, changes of policy, decided approvals.
///
/// An agent sees what concerns itself; everybody else what their roles or the API key reach. A stream that breaks is
/// opened again by itself, without missing anything. Where something may have been missed, and at the beginning,
/// the event `watching` or `events_missed` says that earlier answers are to be asked anew.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Go on after this cursor, from the JSON of an earlier event.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    cursor: String,
    /// End after so many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How events are shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: WatchOutput,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: WatchArgs) -> Result<(), Failure> {
    let mut follower = Follower::new(args.connection, args.identity, args.cursor);
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let event = match follower.next().await? {
            Seen::Event(event) => {
                left -= 1;
                event
            }
            Seen::Anew(event) => event,
            Seen::Broken(failure, pause) => {
                let pause = humantime::format_duration(std::time::Duration::from_millis(
                    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                ));
                render::remark(&format!("{failure}; trying again in {pause}"));
                continue;
            }
        };
        render::print(&match args.output {
            WatchOutput::Table => row(&event),
            WatchOutput::Json => format!("{}\n", object(&event)),
        })?;
    }
    Ok(())
}

/// What an event is called, what it is about, and what there is to say.
fn told(event: &proto::WatchEvent) -> (&'static str, &str, Vec<(&'static str, Value)>) {
    match &event.event {
        Some(Event::CredentialRotated(rotated)) => (
            "credential_rotated",
            &rotated.credential,
            vec![("generation", rotated.generation.into())],
        ),
        Some(Event::CredentialHealthChanged(changed)) => {
            let health = render::enum_name(changed.health().as_str_name(), "CREDENTIAL_HEALTH_");
            (
                "credential_health_changed",
                &changed.credential,
                vec![("health", health.into())],
            )
        }
        Some(Event::AccessEnded(ended)) => (
            "access_ended",
            &ended.subject,
            vec![
                ("reason", ended.reason.as_str().into()),
                ("reversible", ended.reversible.into()),
            ],
        ),
        Some(Event::PolicyChanged(changed)) => (
            "policy_changed",
            "",
            vec![("policy_version", changed.policy_version.into())],
        ),
        Some(Event::ApprovalDecided(decided)) => (
            "approval_decided",
            &decided.approval,
            vec![("granted", decided.granted.into())],
        ),
        Some(Event::EventsMissed(_)) => ("events_missed", "", Vec::new()),
        Some(Event::Heartbeat(_)) | None => ("watching", "", Vec::new()),
    }
}

fn row(event: &proto::WatchEvent) -> String {
    let (name, subject, more) = told(event);
    let time = event.time.map(|time| time.to_string()).unwrap_or_default();
    let more = more.into_iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    let more: Vec<_> = more.collect();
    let line = format!("{time:<24}  {name:<26} {subject:<36} {}", more.join(" "));
    format!("{}\n", plain(line.trim_end()))
}

fn object(event: &proto::WatchEvent) -> Value {
    let (name, subject, more) = told(event);
    let mut object = Map::new();
    object.insert("event".to_owned(), name.into());
    object.insert("time".to_owned(), json!(event.time.map(|time| time.to_string())));
    if !subject.is_empty() {
        object.insert("subject".to_owned(), subject.into());
    }
    object.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    object.insert("cursor".to_owned(), event.cursor.as_str().into());
    object.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WatchArgs,
    }

    #[test]
    fn a_cursor_may_begin_with_a_hyphen() {
        let line = Line::try_parse_from(["watch", "--cursor", "-Yti5", "--limit", "1"]).unwrap();
        assert_eq!((line.args.cursor.as_str(), line.args.limit), ("-Yti5", Some(1)));
    }

    #[test]
    fn an_event_is_a_line() {
        let event = proto::WatchEvent {
            cursor: "c1".to_owned(),
            time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            event: Some(Event::AccessEnded(proto::AccessEnded {
                subject: "agt_\u{1b}1".to_owned(),
                reason: "CREDENTIAL_UNKNOWN".to_owned(),
                reversible: false,
            })),
        };
        assert_eq!(
            object(&event).to_string(),
            "{\"event\":\"access_ended\",\"time\":\"1970-01-01T00:00:00Z\",\"subject\":\"agt_\\u001b1\",\
             \"reason\":\"CREDENTIAL_UNKNOWN\",\"reversible\":false,\"cursor\":\"c1\"}"
        );
        let row = row(&event);
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "1970-01-01T00:00:00Z",
                "access_ended",
                "agt_1",
                "reason=CREDENTIAL_UNKNOWN",
                "reversible=false"
            ]
        );
    }
}
