//! `credbroker credential test`: whether credentials work at their providers, a line each.
//!
//! Exit code 0: all work. 69: those that do not could not be asked, or not now. 1: at least one is known not to work,
//! or could not be tested. Of `--all`, what nothing can test counts as little as what is not there.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind, plain};
use crate::cli::operator::pages;
use crate::cli::render::{self, Output, enum_name};
use crate::domain::reason::Reason;
use crate::proto;
use proto::CredentialTestOutcome as Outcome;

/// How many are tested at once.
const AT_ONCE: usize = 4;
/// The most credentials of `--all`.
const MAX: u32 = 100_000;
/// How often one is tried again after the broker asked for a pause, and the longest pause taken.
const AGAIN: usize = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many facts people are shown; programs get all.
const SHOWN: usize = 4;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// What is tested.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// The credentials, `crd_…`.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    credential: Vec<String>,
    /// All of the org.
    #[arg(long)]
    all: bool,
    /// Of these only this member's: id or name.
    #[arg(long, requires = "all")]
    member: Option<String>,
    /// How the results are shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A credential and what came of its test.
struct Row {
    id: String,
    /// What it is, as far as that is known.
    what: String,
    told: Result<proto::TestCredentialResponse, Box<Failure>>,
}

/// What a row means for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Works,
    Unknown,
    Broken,
}

/// Runs the command.
pub(super) async fn run(session: &Session, args: TestArgs) -> Result<(), Failure> {
    let org = session.org()?;
    let chosen: Vec<(String, String)> = if args.all {
        listed(session, &org, args.member.as_deref()).await?
    } else {
        args.credential
            .into_iter()
            .map(|id| (id, String::new()))
            .collect()
    };
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let tests = chosen.into_iter().map(|(id, what)| {
        let org = org.clone();
        async move {
            let told = tested(session, &org, &id).await;
            let told = told.map_err(|status| Box::new(session.failure(status)));
            Row { id, what, told }
        }
    });
    let mut rows = Vec::new();
    let mut results = stream::iter(tests).buffered(AT_ONCE);
    while let Some(row) = results.next().await {
        match args.output {
            Output::Table => render::print(&line(&row, colour))?,
            Output::Name if weight(&row, args.all) != Weight::Works => {
                render::print(&format!("{}\n", plain(&row.id)))?;
            }
            Output::Name | Output::Json => {}
        }
        rows.push(row);
    }
    if args.output == Output::Json {
        render::print(&render::json(&rows.iter().map(value).collect()))?;
    }
    verdict(&rows, args.all)
}

async fn listed(
    session: &Session,
    org: &str,
    member: Option<&str>,
) -> Result<Vec<(String, String)>, Failure> {
    let failed = |status| session.failure(status);
    let member = match member {
        None => None,
        Some(member) => {
            let request = proto::GetMemberRequest {
                org: org.to_owned(),
                member: member.to_owned(),
            };
            let answer = session.directory().get_member(request).await.map_err(failed)?;
            Some(answer.into_inner().member.unwrap_or_default().id)
        }
    };
    let all = pages(MAX, |page_size, page_token| {
        let (mut credentials, org) = (session.credentials(), org.to_owned());
        async move {
            let request = proto::ListCredentialsRequest {
                org,
                page_size,
                page_token,
            };
            let page = credentials.list_credentials(request).await?.into_inner();
            Ok((page.credentials, page.next_page_token))
        }
    });
    let of_member = |credential: &proto::Credential| {
        let owner = credential.owner.as_ref().and_then(|owner| owner.owner.as_ref());
        match (&member, owner) {
            (None, _) => true,
            (Some(member), Some(proto::owner::Owner::Member(owner))) => owner == member,
            (Some(_), _) => false,
        }
    };
    let all = all.await.map_err(failed)?;
    Ok(all
        .into_iter()
        .filter(of_member)
        .map(|credential| {
            let kind = enum_name(credential.kind().as_str_name(), "CREDENTIAL_KIND_");
            let what = [
                credential.provider.as_str(),
                kind.as_str(),
                credential.hint.as_str(),
            ];
            let what: Vec<_> = what.into_iter().filter(|part| !part.is_empty()).collect();
            (credential.id.clone(), what.join(" "))
        })
        .collect())
}

/// One test. Where the broker asks for a pause because of many, it is taken.
async fn tested(session: &Session, org: &str, id: &str) -> Result<proto::TestCredentialResponse, Status> {
    let mut tries = 0;
    loop {
        let request = proto::TestCredentialRequest {
            org: org.to_owned(),
            credential: id.to_owned(),
        };
        match session.credentials().test_credential(request).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => match pause(&status).filter(|_| tries < AGAIN) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(status),
            },
        }
        tries += 1;
    }
}

fn pause(status: &Status) -> Option<Duration> {
    let details = status.get_error_details();
    let overloaded = details
        .error_info()
        .is_some_and(|info| info.reason == Reason::Overloaded.code());
    let delay = details.retry_info().and_then(|retry| retry.retry_delay)?;
    (overloaded && delay <= LONGEST_PAUSE).then_some(delay)
}

fn weight(row: &Row, all: bool) -> Weight {
    match &row.told {
        Ok(told) => match told.outcome() {
            Outcome::Works => Weight::Works,
            Outcome::Untestable if all => Weight::Works,
            Outcome::Limited | Outcome::Unreachable => Weight::Unknown,
            _ => Weight::Broken,
        },
        Err(failure) if failure.kind == Kind::Unavailable => Weight::Unknown,
        Err(_) => Weight::Broken,
    }
}

fn found(told: &proto::TestCredentialResponse) -> String {
    enum_name(told.outcome().as_str_name(), "CREDENTIAL_TEST_OUTCOME_")
}

fn line(row: &Row, colour: bool) -> String {
    let (word, shade, rest) = match &row.told {
        Ok(told) => {
            let shade = match told.outcome() {
                Outcome::Works => GREEN,
                Outcome::Rejected | Outcome::NotPermitted | Outcome::Billing => RED,
                _ => YELLOW,
            };
            (found(told), shade, remarks(told))
        }
        Err(failure) => {
            let reason = failure.reason.clone().unwrap_or_default();
            ("failed".to_owned(), RED, vec![failure.what.clone(), reason])
        }
    };
    let word = format!("{word:<13}");
    let word = if colour {
        format!("{shade}{word}{PLAIN}")
    } else {
        word
    };
    let rest = std::iter::once(row.what.clone()).chain(rest);
    let rest: Vec<_> = rest.filter(|part| !part.is_empty()).collect();
    let text = format!("{}  {}", plain(&row.id), plain(&rest.join("; ")));
    format!("{word}{}\n", text.trim_end())
}

fn remarks(told: &proto::TestCredentialResponse) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(rejected) = &told.rejected {
        let became = match rejected.refresh_reason.as_str() {
            "" => format!("rotated to generation {}", told.generation),
            reason => format!("not rotated: {} ({reason})", rejected.refresh_message),
        };
        let generation = rejected.generation;
        out.push(format!(
            "generation {generation} was rejected: {}; {became}",
            rejected.message
        ));
    } else if told.refreshed {
        out.push(format!(
            "refreshed first, as it had expired: generation {}",
            told.generation
        ));
    }
    let message = told
        .rejected
        .as_ref()
        .is_none_or(|rejected| rejected.message != told.message);
    if message {
        out.push(told.message.clone());
    }
    if let Some(after) = &told.retry_after {
        let span = Duration::from_secs(u64::try_from(after.seconds).unwrap_or(0));
        out.push(format!("try again after {}", humantime::format_duration(span)));
    }
    out.extend(
        told.facts
            .iter()
            .take(SHOWN)
            .map(|fact| format!("{} {}", fact.label, fact.value)),
    );
    if told.facts.len() > SHOWN {
        out.push(format!("{} more with -o json", told.facts.len() - SHOWN));
    }
    if !told.host.is_empty() {
        let millis = told.latency.as_ref().map_or(0, |latency| {
            latency.seconds * 1000 + i64::from(latency.nanos) / 1_000_000
        });
        out.push(format!("{} in {millis} ms", told.host));
    }
    out
}

fn value(row: &Row) -> Value {
    match &row.told {
        Ok(told) => {
            let facts: BTreeMap<_, _> = told
                .facts
                .iter()
                .map(|fact| (fact.label.as_str(), fact.value.as_str()))
                .collect();
            let seconds = |span: &prost_types::Duration| {
                let span = Duration::try_from(*span).unwrap_or_default();
                span.as_secs_f64()
            };
            json!({
                "credential": row.id,
                "outcome": found(told),
                "http_status": told.http_status,
                "message": told.message,
                "retry_after_seconds": told.retry_after.as_ref().map(seconds),
                "host": told.host,
                "latency_seconds": told.latency.as_ref().map(seconds),
                "generation": told.generation,
                "refreshed": told.refreshed,
                "facts": facts,
                "check_time": told.check_time.map(|time| time.to_string()),
                "remembered": told.remembered,
                "rejected": told.rejected.as_ref().map(|rejected| json!({
                    "generation": rejected.generation,
                    "http_status": rejected.http_status,
                    "message": rejected.message,
                    "refresh_reason": rejected.refresh_reason,
                    "refresh_message": rejected.refresh_message,
                })),
            })
        }
        Err(failure) => json!({
            "credential": row.id,
            "error": failure.what,
            "reason": failure.reason,
        }),
    }
}

/// No failure where all work.
fn verdict(rows: &[Row], all: bool) -> Result<(), Failure> {
    let weights: Vec<_> = rows.iter().map(|row| weight(row, all)).collect();
    let many = |weight| weights.iter().filter(|other| **other == weight).count();
    let (broken, unknown, of) = (many(Weight::Broken), many(Weight::Unknown), rows.len());
    match (broken, unknown) {
        (0, 0) => Ok(()),
        (0, unknown) => Err(Failure::new(
            Kind::Unavailable,
            format!("{unknown} of {of} could not be tested now"),
        )),
        (broken, _) => {
            let failure = Failure::new(
                Kind::Failed,
                format!("{broken} of {of} do not work or could not be tested"),
            );
            // Of one alone the whole account.
            match rows {
                [Row { told: Err(one), .. }] => Err(Failure::clone(one)),
                _ => Err(failure.remedy(
                    "Store a new key with 'credbroker credential set', or connect the account anew; a permission \
                     or a payment is mended at the provider.",
                )),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(outcome: Outcome) -> Row {
        Row {
            id: "crd_1".to_owned(),
            what: "demo api-key ab12".to_owned(),
            told: Ok(proto::TestCredentialResponse {
                outcome: outcome.into(),
                message: "be\u{1b}gone".to_owned(),
                ..Default::default()
            }),
        }
    }

    fn code(rows: &[Row], all: bool) -> u8 {
        verdict(rows, all).map_or_else(|failure| failure.kind.exit_code(), |()| 0)
    }

    // req: C4
    #[test]
    fn exit_codes_tell_what_works_what_does_not_and_what_is_not_known() {
        use Outcome::{Billing, Limited, NotPermitted, Rejected, Unclear, Unreachable, Untestable, Works};
        for (outcomes, all, expected) in [
            (vec![], true, 0),
            (vec![Works], false, 0),
            (vec![Works, Untestable], true, 0),
            (vec![Works, Untestable], false, 1),
            (vec![Works, Limited], false, 69),
            (vec![Unreachable], true, 69),
            (vec![Unreachable, Rejected], true, 1),
            (vec![NotPermitted], false, 1),
            (vec![Billing], false, 1),
            (vec![Unclear], false, 1),
        ] {
            let rows: Vec<_> = outcomes.iter().map(|outcome| row(*outcome)).collect();
            assert_eq!(code(&rows, all), expected, "{outcomes:?}");
        }
    }

    // req: C4
    #[test]
    fn a_line_has_the_outcome_first_and_nothing_that_drives_a_terminal() {
        let text = line(&row(Outcome::Rejected), false);
        assert_eq!(text, "rejected     crd_1  demo api-key ab12; begone\n");
        let text = line(&row(Outcome::Works), true);
        assert!(text.starts_with("\x1b[32mworks"), "{text:?}");
        assert_eq!(text.matches('\x1b').count(), 2);
    }
}
