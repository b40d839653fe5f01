//! `credbroker demo`: one expired grant and several agents that want it at the same moment, first with the
//! broker between them, then each for itself.
//!
//! Runs against `credbrokerd dev`. Succeeds only where what was counted at the provider is what the broker
//! promises, so that it can stand in a test.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::Barrier;

use super::client::Session;
use super::context::ConnectionArgs;
use super::error::{Failure, Kind};
use super::render;
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Time;
use provider::{Provider, Record};
use timeline::{Bar, Mark, Row, Style, Timeline, What};

mod provider;
mod timeline;
mod with_broker;

/// The context that `credbrokerd dev` writes.
const CONTEXT: &str = "dev";
/// How long the whole thing may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the grant's access tokens live: long enough to enroll, short enough to wait for.
const TOKEN_LIFE: Duration = Duration::from_secs(6);
/// How long the provider takes for a refresh: long enough that callers meet.
const DELAY: Duration = Duration::from_millis(800);

/// See what the broker is for: several agents, one expired grant, one refresh.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// How many agents.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=32))]
    agents: u32,
    /// The demo's OAuth server.
    #[arg(long, default_value = "http://127.0.0.1:7422", value_name = "URL")]
    oauth: String,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    tokio::time::timeout(LIMIT, both(args)).await.unwrap_or_else(|_| {
        let what = format!("the demo was not done within {} seconds", LIMIT.as_secs());
        Err(Failure::new(Kind::Unavailable, what).remedy("See the log of 'credbrokerd dev'."))
    })
}

async fn both(mut args: DemoArgs) -> Result<(), Failure> {
    let provider = Provider::at(&args.oauth)?;
    if args.connection.context.is_none() && args.connection.address.is_none() {
        args.connection.context = Some(CONTEXT.to_owned());
    }
    let session = Session::open(&args.connection).await.map_err(no_dev_broker)?;
    let style = Style::of_stdout(render::width());
    let count = args.agents as usize;

    render::remark(&format!(
        "{count} agents enroll; then their grant's access token is left to expire …"
    ));
    let with = with_broker::run(&session, &provider, count).await?;
    render::print(&format!("{}\n", timeline::draw(&with, style)))?;

    let without = without_broker(&provider, count).await?;
    render::print(&timeline::draw(&without, style))?;
    if with.good && !without.good {
        return Ok(());
    }
    Err(Failure::new(Kind::Failed, "the demo did not show what it should")
        .because(format!("with the broker: {}", with.summary))
        .because(format!("without: {}", without.summary))
        .remedy("See 'credbroker journal list --context dev' and the log of 'credbrokerd dev'.")
        .at(&session.target))
}

/// The same failure, with the likeliest remedy.
fn no_dev_broker(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Config | Kind::Unavailable => failure
            .because("the demo needs a broker that runs in development mode")
            .remedy("Run 'credbrokerd dev' in another terminal, then this again."),
        _ => failure,
    }
}

/// One caller's wait.
#[derive(Clone, Debug)]
struct Wait {
    label: String,
    start: Time,
    end: Time,
    good: bool,
    note: String,
}

/// Runs `calls` side by side, all from the same moment on; gives their results with when each began and ended.
async fn at_once<T, F>(calls: Vec<F>) -> Vec<(T, Time, Time)>
where
    F: Future<Output = T>,
{
    let clock = SystemClock::new();
    let barrier = Arc::new(Barrier::new(calls.len()));
    let timed = calls.into_iter().map(|call| async {
        barrier.wait().await;
        let start = clock.wall();
        let result = call.await;
        (result, start, clock.wall())
    });
    futures_util::future::join_all(timed).await
}

/// The rows of the callers, then that of the provider with those of its events that came after the start.
fn rows(waits: Vec<Wait>, record: &Record) -> Vec<Row> {
    let Some(zero) = waits.iter().map(|wait| wait.start).min() else {
        return Vec::new();
    };
    let since = |time: Time| u64::try_from(time.since(zero).as_millis()).unwrap_or(u64::MAX);
    let mut rows: Vec<_> = waits
        .into_iter()
        .map(|wait| Row {
            label: wait.label,
            bar: Some(Bar {
                start: since(wait.start),
                end: since(wait.end),
                good: wait.good,
            }),
            marks: Vec::new(),
            note: wait.note,
        })
        .collect();
    let marks = record.events.iter().filter_map(|event| {
        let what = match event.kind.as_str() {
            "refreshed" => What::Refreshed,
            "replayed" => What::Replayed,
            "killed" => What::Killed,
            _ => return None,
        };
        let at = Time::from_millis(event.at_ms);
        (at >= zero).then(|| Mark { at: since(at), what })
    });
    rows.push(Row {
        label: "provider".to_owned(),
        marks: marks.collect(),
        ..Row::default()
    });
    rows
}

/// What it is like without: every caller holds the refresh token and uses it for itself.
async fn without_broker(provider: &Provider, count: usize) -> Result<Timeline, Failure> {
    let grant = provider.mint(TOKEN_LIFE, DELAY).await?;
    let names: Vec<_> = (1..=count).map(|i| format!("task {i}")).collect();
    let calls = names
        .iter()
        .map(|name| provider.refresh(&grant.refresh_token, name));
    let outcomes = at_once(calls.collect()).await;
    // What counts is seen at the next refresh: does the one that got through still get anything?
    let mut waits = Vec::new();
    let mut logged_out = 0;
    for (name, (outcome, start, end)) in names.into_iter().zip(outcomes) {
        let got = outcome?;
        let still_in = match &got {
            Some(token) => provider.refresh(token, &name).await?.is_some(),
            None => false,
        };
        logged_out += usize::from(!still_in);
        let note = match (&got, still_in) {
            (None, _) => "logged out",
            (Some(_), false) => "got through, then logged out",
            (Some(_), true) => "got through",
        };
        waits.push(Wait {
            label: name,
            start,
            end,
            good: got.is_some(),
            note: note.to_owned(),
        });
    }
    let record = provider.record(&grant).await?;
    let (summary, good) = verdict_without(count, &record, logged_out);
    Ok(Timeline {
        title: "Without: each refreshes for itself".to_owned(),
        rows: rows(waits, &record),
        summary,
        good,
    })
}

/// How it came out without the broker, and whether that is good: it is bad news unless somebody is still in.
fn verdict_without(count: usize, record: &Record, logged_out: usize) -> (String, bool) {
    let state = if record.alive { "alive" } else { "dead" };
    let summary = format!(
        "{count} callers, {} got through, {}, the grant is {state}: {logged_out} of {count} are logged out",
        record.refreshes,
        counted(record.replays, "replay"),
    );
    let as_told = !record.alive && record.refreshes == 1 && record.replays >= 1 && logged_out == count;
    (summary, !as_told)
}

/// `1 refresh`, `3 refreshes`.
fn counted(number: u32, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ if noun.ends_with("sh") => format!("{number} {noun}es"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(alive: bool, refreshes: u32, replays: u32, events: &[(i64, &str)]) -> Record {
        let events: Vec<_> = events
            .iter()
            .map(|(at, kind)| serde_json::json!({ "at_ms": at, "kind": kind, "caller": "x" }))
            .collect();
        serde_json::from_value(serde_json::json!({
            "alive": alive, "refreshes": refreshes, "replays": replays, "events": events,
        }))
        .unwrap()
    }

    fn wait(start: i64, end: i64) -> Wait {
        Wait {
            label: "agent 1".into(),
            start: Time::from_millis(start),
            end: Time::from_millis(end),
            good: true,
            note: String::new(),
        }
    }

    #[test]
    fn the_axis_begins_with_the_first_caller_and_earlier_events_are_left_out() {
        let record = record(
            true,
            2,
            0,
            &[(900, "refreshed"), (1_500, "refreshed"), (1_600, "other")],
        );
        let rows = rows(vec![wait(1_010, 1_900), wait(1_000, 1_800)], &record);
        let bars: Vec<_> = rows
            .iter()
            .filter_map(|row| row.bar)
            .map(|bar| (bar.start, bar.end))
            .collect();
        assert_eq!(bars, [(10, 900), (0, 800)]);
        assert_eq!(
            rows[2].marks,
            [Mark {
                at: 500,
                what: What::Refreshed
            }]
        );
    }

    #[test]
    fn only_a_dead_grant_and_all_logged_out_is_what_was_told() {
        let (summary, good) = verdict_without(8, &record(false, 1, 7, &[]), 8);
        assert!(!good);
        assert_eq!(
            summary,
            "8 callers, 1 got through, 7 replays, the grant is dead: 8 of 8 are logged out"
        );
        assert!(verdict_without(8, &record(true, 1, 7, &[]), 8).1);
        assert!(verdict_without(8, &record(false, 1, 7, &[]), 7).1);
        assert!(verdict_without(8, &record(false, 2, 6, &[]), 8).1);
    }

    #[tokio::test]
    async fn calls_start_together_and_are_timed() {
        let calls: Vec<_> = (0..3)
            .map(|i| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                i
            })
            .collect();
        let results = at_once(calls).await;
        assert!(results.iter().map(|(i, ..)| *i).eq(0..3));
        let last_start = results.iter().map(|(_, start, _)| *start).max();
        let first_end = results.iter().map(|(.., end)| *end).min();
        assert!(last_start < first_end, "they overlap");
    }
}
