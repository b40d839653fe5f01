//! Cost events and reported usage, as the journal's records say them, and what they add up to.
//!
//! A dispatch is the first lease of a holder for a task and credential; its cost event is the finish record of
//! that resolution. Asking again, and what is refused, makes none.

use super::billing::Micros;
use super::id::{LeaseId, MemberId, OrgId, ProjectId, TaskId};
use super::journal::{Action, Phase, Position};
use super::mode::AuthMode;
use super::time::Time;

/// The subjects that cost records have beside the usual ones.
pub mod subject {
    /// `true` on the record of a dispatch.
    pub const DISPATCH: &str = "dispatch";
    /// Who asked, where the record's actor is not who did: in a finish that the broker wrote after a crash.
    pub const HOLDER: &str = "holder";
    /// What reported usage cost, in millionths.
    pub const MICROS: &str = "micros";
    /// How many events of usage a record stands for.
    pub const EVENTS: &str = "events";
    /// All that a cost is told from.
    pub const CARRIED: &[&str] = &[
        "member",
        "project",
        "executor",
        "task",
        "mode",
        "provider",
        "model",
        "pool",
        "credential",
        "lease",
        DISPATCH,
        MICROS,
        EVENTS,
    ];
}

/// A durable record, as far as costs need it.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Its place.
    pub position: Position,
    /// When it was written.
    pub time: Time,
    /// The name of what it is about.
    pub action: &'a str,
    /// Which part of an effect it is.
    pub phase: Phase,
    /// Whether it says that something was allowed, and done.
    pub allowed: bool,
    /// Who asked.
    pub actor: &'a str,
    /// The org it concerns.
    pub org: Option<OrgId>,
    /// What it concerns.
    pub subject: &'a [(String, String)],
}

impl<'a> Recorded<'a> {
    fn about(&self, kind: &str) -> Option<&'a str> {
        let found = self.subject.iter().find(|(name, _)| name == kind);
        found.map(|(_, value)| value.as_str())
    }

    fn text(&self, kind: &str) -> String {
        self.about(kind).unwrap_or_default().to_owned()
    }

    /// Whether it says that an effect of this kind has happened.
    fn finished(&self, action: Action) -> bool {
        self.allowed && matches!(self.phase, Phase::Finish(_)) && self.action == action.name()
    }
}

/// Whose and for what something was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spender {
    /// The org.
    pub org: OrgId,
    /// The project; `None` where the record names none.
    pub project: Option<ProjectId>,
    /// The member it works for.
    pub member: MemberId,
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: String,
}

impl Spender {
    fn of(record: &Recorded<'_>) -> Option<Self> {
        Some(Self {
            org: record.org?,
            project: record.about("project").and_then(|id| id.parse().ok()),
            member: record.about("member")?.parse().ok()?,
            mode: AuthMode::from_name(record.about("mode")?)?,
            provider: record.text("provider"),
        })
    }
}

/// A dispatch, as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostEvent {
    /// Its record's place: what streams of events go on after.
    pub position: Position,
    /// When it was recorded.
    pub time: Time,
    /// Whose and for what.
    pub spender: Spender,
    /// The model; empty where none was asked for.
    pub model: String,
    /// The capacity pool.
    pub pool: String,
    /// The task; `None` for a direct resolution.
    pub task: Option<TaskId>,
    /// Who was handed the lease: an agent or another actor.
    pub holder: String,
    /// The lease.
    pub lease: Option<LeaseId>,
}

impl CostEvent {
    /// The cost event that this record is; `None`: it is none.
    pub fn from_record(record: &Recorded<'_>) -> Option<Self> {
        if !record.finished(Action::Resolve) || record.about(subject::DISPATCH) != Some("true") {
            return None;
        }
        Some(Self {
            position: record.position,
            time: record.time,
            spender: Spender::of(record)?,
            model: record.text("model"),
            pool: record.text("pool"),
            task: record.about("task").and_then(|id| id.parse().ok()),
            holder: record.about(subject::HOLDER).unwrap_or(record.actor).to_owned(),
            lease: record.about("lease").and_then(|id| id.parse().ok()),
        })
    }
}

/// What was spent: sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    /// Dispatches.
    pub dispatches: u64,
    /// What reported usage cost.
    pub micros: Micros,
    /// Events of usage that were reported.
    pub events: u64,
}

impl Spend {
    /// Both together. A sum that no longer fits stays at the greatest that does.
    #[must_use]
    pub fn plus(self, other: Spend) -> Spend {
        Spend {
            dispatches: self.dispatches.saturating_add(other.dispatches),
            micros: Micros(self.micros.0.saturating_add(other.micros.0)),
            events: self.events.saturating_add(other.events),
        }
    }
}

/// What a record adds to the sums; `None`: nothing.
pub fn spent(record: &Recorded<'_>) -> Option<(Spender, Spend)> {
    if let Some(event) = CostEvent::from_record(record) {
        let dispatched = Spend {
            dispatches: 1,
            ..Spend::default()
        };
        return Some((event.spender, dispatched));
    }
    if !record.finished(Action::UsageReport) {
        return None;
    }
    let used = Spend {
        dispatches: 0,
        micros: Micros(record.about(subject::MICROS)?.parse().ok()?),
        events: record.about(subject::EVENTS)?.parse().ok()?,
    };
    Some((Spender::of(record)?, used))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn id<K: crate::domain::id::Kind>() -> String {
        Id::<K>::from_bytes([7; 16]).to_string()
    }

    fn subjects(more: &[(&str, &str)]) -> Vec<(String, String)> {
        let usual = [
            ("member", id::<crate::domain::id::Member>()),
            ("project", id::<crate::domain::id::Project>()),
            ("mode", "shared".to_owned()),
            ("provider", "demo".to_owned()),
            ("pool", "shared_pool_demo".to_owned()),
        ];
        let usual = usual.into_iter().map(|(kind, value)| (kind.to_owned(), value));
        let more = more
            .iter()
            .map(|(kind, value)| (kind.to_string(), value.to_string()));
        usual.chain(more).collect()
    }

    fn record(subject: &[(String, String)]) -> Recorded<'_> {
        Recorded {
            position: Position(2),
            time: Time::from_millis(0),
            action: Action::Resolve.name(),
            phase: Phase::Finish(Position(1)),
            allowed: true,
            actor: "agt_1",
            org: Some(Id::from_bytes([1; 16])),
            subject,
        }
    }

    #[test]
    fn only_the_finish_of_an_allowed_dispatch_is_a_cost_event() {
        let dispatch = subjects(&[("dispatch", "true")]);
        let event = CostEvent::from_record(&record(&dispatch)).unwrap();
        assert_eq!(
            (event.holder.as_str(), event.pool.as_str()),
            ("agt_1", "shared_pool_demo")
        );
        assert_eq!(spent(&record(&dispatch)).unwrap().1.dispatches, 1);
        let others = [
            Recorded {
                phase: Phase::Begin,
                ..record(&dispatch)
            },
            Recorded {
                phase: Phase::Single,
                ..record(&dispatch)
            },
            Recorded {
                allowed: false,
                ..record(&dispatch)
            },
            Recorded {
                action: Action::ForceRotate.name(),
                ..record(&dispatch)
            },
        ];
        for other in others {
            assert_eq!(CostEvent::from_record(&other), None, "{other:?}");
            assert_eq!(spent(&other), None);
        }
        assert_eq!(
            CostEvent::from_record(&record(&subjects(&[("first", "true")]))),
            None
        );
    }

    #[test]
    fn what_the_broker_recovered_is_the_holders() {
        let recovered = subjects(&[("dispatch", "true"), ("holder", "agt_2")]);
        let record = Recorded {
            actor: "broker",
            ..record(&recovered)
        };
        assert_eq!(CostEvent::from_record(&record).unwrap().holder, "agt_2");
    }

    #[test]
    fn usage_adds_what_it_cost() {
        let used = subjects(&[("micros", "250"), ("events", "3")]);
        let usage = Recorded {
            action: Action::UsageReport.name(),
            ..record(&used)
        };
        let (spender, spend) = spent(&usage).unwrap();
        assert_eq!(spender.mode, AuthMode::Shared);
        assert_eq!(
            spend,
            Spend {
                dispatches: 0,
                micros: Micros(250),
                events: 3
            }
        );
        assert_eq!(
            spent(&Recorded {
                phase: Phase::Begin,
                ..usage
            }),
            None
        );
        let most = Spend {
            micros: Micros(i64::MAX),
            ..spend
        };
        assert_eq!(most.plus(spend).micros, Micros(i64::MAX));
    }
}
