//! Usage that the model proxy reports: each event counted once, and drawn from the credit where it was metered.
//!
//! The note that an event was taken, the new balance and the journal's mark are one commit. So an event that is
//! reported again, after whatever went wrong, is either known or was not counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, PLATFORM, Standing, reused};
use crate::domain::actor::{Actor, Caller};
use crate::domain::billing::{Account, Micros};
use crate::domain::cost::subject;
use crate::domain::id::{LeaseId, OrgId, ProjectId};
use crate::domain::journal::{Action, Record};
use crate::domain::lease::Lease;
use crate::domain::mode::AuthMode;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::Task;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::store::keys;
use crate::store::record::Changes;

/// What one model call came to, as a request has it.
#[derive(Clone, Copy, Debug)]
pub struct UsageEvent<'a> {
    /// Its id, unique among those of its reporter: the platform, or the API key that reports.
    pub event_id: &'a str,
    /// The lease it was made with.
    pub lease: &'a str,
    /// What it cost.
    pub cost: Micros,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// The model.
    pub model: &'a str,
    /// When it was made.
    pub time: Option<Time>,
}

/// What became of an event.
#[derive(Clone, Debug)]
pub enum UsageResult {
    /// It is counted now.
    Recorded,
    /// It was counted before.
    Duplicate,
    /// It was not counted.
    Refused(Refusal),
}

/// What became of the events of a report.
#[derive(Clone, Debug)]
pub struct ReportedUsage {
    /// One for each event, in their order.
    pub results: Vec<UsageResult>,
    /// The org's credit after them.
    pub balance: Micros,
}

const MAX_EVENTS: usize = 100;
const MAX_ID: usize = 64;
const MAX_MODEL: usize = 128;
/// The most that one call may have cost: a million units. More is a fault of whoever counts.
const MAX_COST: i64 = 1_000_000_000_000;
/// For how long the usage of a call is taken; leases are kept longer. Together with how long events are known, this is what makes them count once: an event that is taken is
/// refused as too old before it is forgotten.
pub(in crate::service) const USAGE_TAKEN_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How far ahead the reporter's clock may be.
const AHEAD: Duration = Duration::from_secs(600);
/// How many events one commit takes: three operations each, within the store's limit.
const AT_ONCE: usize = 30;

/// An event that is to be counted.
struct Fresh<'a> {
    /// Its place in the report.
    at: usize,
    event: Event,
    usage: UsageEvent<'a>,
}

/// A lease that usage was reported of.
struct Used {
    lease: Arc<Lease>,
    project: Option<ProjectId>,
}

fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(plain)
}

impl UsageEvent<'_> {
    fn check(&self, now: Time) -> Result<Time, Refusal> {
        let wrong = |field, message: &str| Err(Refusal::invalid(field, message));
        if !is_id(self.event_id) {
            return wrong(
                "event_id",
                "event_id is 1 to 64 of A-Z, a-z, 0-9, '-', '_', '.' and ':'",
            );
        }
        if !(0..=MAX_COST).contains(&self.cost.0) {
            return wrong("micros", "micros is 0 to 10^12");
        }
        if self.model.chars().count() > MAX_MODEL || self.model.chars().any(char::is_control) {
            return wrong("model", "model is at most 128 printable characters");
        }
        match self.time {
            None => wrong("time", "time is required"),
            Some(time) if time + USAGE_TAKEN_FOR < now => wrong("time", "the event is older than 30 days"),
            Some(time) if time > now + AHEAD => wrong("time", "the event is in the future"),
            Some(time) => Ok(time),
        }
    }

    fn event(&self, reporter: &Actor, time: Time) -> Event {
        let content: [&[u8]; 6] = [
            self.lease.as_bytes(),
            &self.cost.0.to_be_bytes(),
            &self.input_tokens.to_be_bytes(),
            &self.output_tokens.to_be_bytes(),
            self.model.as_bytes(),
            &time.millis().to_be_bytes(),
        ];
        let whose = match reporter {
            Actor::ApiKey { id, .. } => id.as_bytes(),
            Actor::Operator(_) | Actor::Agent(_) | Actor::Member { .. } => PLATFORM,
        };
        Event::new("usage", whose, self.event_id, &content)
    }
}

impl Broker {
    /// Counts what was used. Where it fails, some of the events may have been counted: reporting all of them again
    /// counts the rest.
    pub async fn report_usage(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        events: &[UsageEvent<'_>],
    ) -> Result<ReportedUsage, Refusal> {
        let org = self.org_id(caller, org).await?;
        if events.len() > MAX_EVENTS {
            return Err(Refusal::invalid("events", "a report has at most 100 events"));
        }
        self.room_for(Action::UsageReport)?;
        let _turn = self.turns.take(org).await;
        let mut results = vec![UsageResult::Recorded; events.len()];
        let mut seen: HashMap<[u8; 32], [u8; 32]> = HashMap::new();
        let mut leases: HashMap<&str, Option<Used>> = HashMap::new();
        let mut groups: Vec<((&str, &str), Vec<Fresh<'_>>)> = Vec::new();
        for (at, usage) in events.iter().enumerate() {
            let event = match usage.check(self.now()) {
                Ok(time) => usage.event(caller.actor(), time),
                Err(refusal) => {
                    results[at] = UsageResult::Refused(refusal);
                    continue;
                }
            };
            let known = match seen.get(&event.hash) {
                Some(content) => Some(*content == event.content),
                None => self.taken(org, event).await?,
            };
            if let Some(same) = known {
                results[at] = if same {
                    UsageResult::Duplicate
                } else {
                    UsageResult::Refused(other_content())
                };
                continue;
            }
            if !leases.contains_key(usage.lease) {
                leases.insert(usage.lease, self.used(org, usage.lease).await?);
            }
            if leases.get(usage.lease).is_none_or(Option::is_none) {
                results[at] = UsageResult::Refused(Refusal::not_found("lease"));
                continue;
            }
            seen.insert(event.hash, event.content);
            let fresh = Fresh {
                at,
                event,
                usage: *usage,
            };
            let of_what = (usage.lease, usage.model);
            match groups.iter_mut().find(|(other, _)| *other == of_what) {
                Some((_, group)) => group.push(fresh),
                None => groups.push((of_what, vec![fresh])),
            }
        }
        for ((lease, _), group) in &groups {
            let Some(Some(used)) = leases.get(lease) else {
                continue;
            };
            for some in group.chunks(AT_ONCE) {
                self.count_usage(caller, org, used, some, &mut results).await?;
            }
        }
        let balance = self.account(org).await?.account.balance;
        Ok(ReportedUsage { results, balance })
    }

    /// The lease, with the project it works in; `None`: there is none, or it was collected.
    async fn used(&self, org: OrgId, lease: &str) -> Result<Option<Used>, Refusal> {
        let Ok(id) = lease.parse::<LeaseId>() else {
            return Ok(None);
        };
        let Some(lease) = self.records.get::<Lease>(&keys::lease(org, id)).await? else {
            return Ok(None);
        };
        let task = match lease.value.task {
            Some(task) => self.records.get::<Task>(&keys::task(org, task)).await?,
            None => None,
        };
        let project = lease.value.project.or(task.map(|task| task.value.project));
        Ok(Some(Used {
            lease: lease.value,
            project,
        }))
    }

    /// Counts some events of one lease and model in one commit.
    async fn count_usage(
        self: &Arc<Self>,
        caller: &Caller,
        org: OrgId,
        used: &Used,
        events: &[Fresh<'_>],
        results: &mut [UsageResult],
    ) -> Result<(), Refusal> {
        for _ in 0..super::ATTEMPTS {
            let mut fresh = Vec::with_capacity(events.len());
            for one in events {
                // Who went away amid the same report may have counted it meanwhile.
                match self.taken(org, one.event).await? {
                    None => fresh.push(one),
                    Some(true) => results[one.at] = UsageResult::Duplicate,
                    Some(false) => results[one.at] = UsageResult::Refused(other_content()),
                }
            }
            if fresh.is_empty() {
                return Ok(());
            }
            let standing = self.account(org).await?;
            let changes = fresh.iter().fold(Changes::default(), |changes, one| {
                self.mark_taken(changes, org, one.event)
            });
            let record = usage_record(caller, used, &fresh);
            let done = if used.lease.mode == AuthMode::Metered {
                let account = drawn(&standing, cost(&fresh))?;
                let record = record.about("balance", account.balance.0);
                self.change_account(&standing, account, record, changes)
                    .await
                    .map(drop)
            } else {
                self.effect(record, changes).await.map(drop)
            };
            match done {
                Ok(()) => return Ok(()),
                Err(Undone::Conflict) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(Undone::Conflict.into())
    }
}

fn other_content() -> Refusal {
    reused("event_id", "an event of this id had other content")
}

/// No report has more events than fit: the sum is far within what an amount can be.
fn cost(events: &[&Fresh<'_>]) -> Micros {
    Micros(events.iter().map(|one| one.usage.cost.0).sum())
}

fn drawn(standing: &Standing, cost: Micros) -> Result<Account, Refusal> {
    let balance = standing.account.balance.minus(cost);
    let message = "the credit would be past what an account can hold";
    Ok(Account {
        balance: balance.ok_or_else(|| Refusal::new(Reason::InvalidArgument, message))?,
        ..Account::clone(&standing.account)
    })
}

/// What the sums of spend read, and an auditor: which events, of whom, for how much.
fn usage_record(caller: &Caller, used: &Used, events: &[&Fresh<'_>]) -> Record {
    let lease = &used.lease;
    let tokens = |of: fn(&UsageEvent<'_>) -> u64| {
        let counts = events.iter().map(|one| of(&one.usage));
        counts.fold(0_u64, u64::saturating_add)
    };
    let ids: Vec<&str> = events.iter().map(|one| one.usage.event_id).collect();
    let mut record = caller
        .record(Action::UsageReport, Some(lease.org))
        .about("member", lease.member);
    if let Some(project) = used.project {
        record = record.about("project", project);
    }
    if let Some(task) = lease.task {
        record = record.about("task", task);
    }
    record
        .about("mode", lease.mode.name())
        .about("provider", &lease.provider)
        .about("model", events.first().map_or("", |one| one.usage.model))
        .about("lease", lease.id)
        .about(subject::MICROS, cost(events).0)
        .about(subject::EVENTS, events.len())
        .about("input_tokens", tokens(|usage| usage.input_tokens))
        .about("output_tokens", tokens(|usage| usage.output_tokens))
        .about("usage", ids.join(","))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    const NOW: Time = Time::from_seconds(1_800_000_000);
    const OPERATOR: Actor = Actor::Operator(Id::from_bytes([1; 16]));

    fn usage() -> UsageEvent<'static> {
        UsageEvent {
            event_id: "a-1",
            lease: "lse_1",
            cost: Micros(1),
            input_tokens: 2,
            output_tokens: 3,
            model: "m",
            time: Some(NOW),
        }
    }

    #[test]
    fn every_field_is_content() {
        let event = |usage: UsageEvent<'_>| usage.event(&OPERATOR, usage.time.unwrap()).content;
        let others = [
            UsageEvent {
                lease: "lse_2",
                ..usage()
            },
            UsageEvent {
                cost: Micros(2),
                ..usage()
            },
            UsageEvent {
                input_tokens: 3,
                ..usage()
            },
            UsageEvent {
                output_tokens: 2,
                ..usage()
            },
            UsageEvent {
                model: "n",
                ..usage()
            },
            UsageEvent {
                time: Some(NOW + Duration::from_millis(1)),
                ..usage()
            },
        ];
        for other in others {
            assert_ne!(event(other), event(usage()), "{other:?}");
        }
    }

    #[test]
    fn an_id_is_its_reporters_own() {
        let key = |id| Actor::ApiKey {
            id: Id::from_bytes([id; 16]),
            org: Id::from_bytes([9; 16]),
        };
        let hash = |reporter| usage().event(&reporter, NOW).hash;
        assert_eq!(hash(OPERATOR), hash(Actor::Operator(Id::from_bytes([2; 16]))));
        assert_eq!(hash(key(1)), hash(key(1)));
        assert_ne!(hash(key(1)), hash(key(2)));
        assert_ne!(hash(key(1)), hash(OPERATOR));
    }

    #[test]
    fn an_event_is_too_old_before_it_is_forgotten() {
        let taken_at = NOW;
        let latest = UsageEvent {
            time: Some(taken_at + AHEAD),
            ..usage()
        };
        assert!(latest.check(taken_at).is_ok());
        let known_until = taken_at + Duration::from_secs(u64::from(super::super::KNOWN_DAYS - 1) * 86_400);
        assert_eq!(latest.check(known_until).unwrap_err().field, Some("time"));
        for (field, wrong) in [
            (
                "event_id",
                UsageEvent {
                    event_id: "",
                    ..usage()
                },
            ),
            (
                "event_id",
                UsageEvent {
                    event_id: "a,b",
                    ..usage()
                },
            ),
            (
                "micros",
                UsageEvent {
                    cost: Micros(-1),
                    ..usage()
                },
            ),
            (
                "micros",
                UsageEvent {
                    cost: Micros(MAX_COST + 1),
                    ..usage()
                },
            ),
            (
                "model",
                UsageEvent {
                    model: "a\nb",
                    ..usage()
                },
            ),
            (
                "time",
                UsageEvent {
                    time: None,
                    ..usage()
                },
            ),
            (
                "time",
                UsageEvent {
                    time: Some(NOW + AHEAD + AHEAD),
                    ..usage()
                },
            ),
        ] {
            assert_eq!(wrong.check(NOW).unwrap_err().field, Some(field));
        }
    }
}
