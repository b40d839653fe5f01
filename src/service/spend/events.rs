//! Cost events, read from the journal: page by page, or as they come.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt as _};

use super::recorded;
use crate::domain::actor::Caller;
use crate::domain::cost::{CostEvent, Spender};
use crate::domain::id::{MemberId, OrgId, ProjectId};
use crate::domain::journal::{Action, Position};
use crate::domain::mode::AuthMode;
use crate::domain::refusal::Refusal;
use crate::domain::role::Within;
use crate::domain::time::Time;
use crate::journal::{Journal, StoredRecord};
use crate::service::Broker;
use crate::service::journal::{Fits, Followed};

/// Which costs, as a request has it: what is empty or `None` takes all.
#[derive(Clone, Copy, Debug, Default)]
pub struct CostFilterInput<'a> {
    /// The org: id or name; empty for an API key's own.
    pub org: &'a str,
    /// The project: id or name.
    pub project: &'a str,
    /// The mode.
    pub mode: Option<AuthMode>,
    /// The provider.
    pub provider: &'a str,
    /// The member: id or name, also of one who was removed.
    pub member: &'a str,
}

/// Which cost events.
#[derive(Clone, Copy, Debug)]
pub struct CostInput<'a> {
    /// Of what.
    pub filter: CostFilterInput<'a>,
    /// Recorded then or later.
    pub since: Option<Time>,
    /// Recorded before.
    pub until: Option<Time>,
    /// After which position.
    pub after: Position,
    /// How many at most; 0 for the default.
    pub size: i32,
}

/// A page of cost events.
#[derive(Clone, Debug)]
pub struct CostEvents {
    /// The events.
    pub events: Vec<CostEvent>,
    /// All up to here was looked at.
    pub next: Position,
    /// Whether the journal goes on after it.
    pub more: bool,
    /// The first position the journal still has.
    pub first: Position,
}

/// What is streamed.
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowCosts<'a> {
    /// Of what.
    pub filter: CostFilterInput<'a>,
    /// After which position; `None`: from now on.
    pub after: Option<Position>,
    /// How long the stream may be silent.
    pub heartbeat: Option<Duration>,
}

/// What a stream tells.
#[derive(Clone, Debug)]
pub enum FollowedCost {
    /// A cost event.
    Event(Box<CostEvent>),
    /// All up to `position` was told or is not meant.
    Progress {
        /// Where to go on.
        position: Position,
        /// The first position the journal still has.
        first: Position,
    },
}

/// A checked filter, with how far its caller reaches.
#[derive(Debug)]
pub(super) struct CostFilter {
    pub(super) org: OrgId,
    within: Within,
    project: Option<ProjectId>,
    mode: Option<AuthMode>,
    provider: String,
    member: Option<MemberId>,
    since: Option<Time>,
    until: Option<Time>,
}

impl CostFilter {
    /// Whether what was spent by them is meant, and the caller's to see.
    pub(super) fn takes(&self, spender: &Spender) -> bool {
        spender.org == self.org
            && self.within.admits(spender.project, Some(spender.member))
            && self
                .project
                .is_none_or(|project| spender.project == Some(project))
            && self.mode.is_none_or(|mode| spender.mode == mode)
            && (self.provider.is_empty() || spender.provider == self.provider)
            && self.member.is_none_or(|member| spender.member == member)
    }
}

impl Fits for CostFilter {
    fn fits(&self, record: &StoredRecord) -> bool {
        record.entry.action == Action::Resolve.name()
            && record.entry.org == Some(self.org)
            && self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
            && CostEvent::from_record(&recorded(record)).is_some_and(|event| self.takes(&event.spender))
    }
}

fn first_kept(journal: &Journal) -> Position {
    Position(journal.anchor().map_or(1, |anchor| anchor.position.0 + 1))
}

impl Broker {
    /// Checks a filter, and confines it to what the caller may see.
    pub(super) async fn cost_filter(
        &self,
        caller: &Caller,
        input: CostFilterInput<'_>,
    ) -> Result<CostFilter, Refusal> {
        let place = self.place(caller, input.org).await?;
        let org = place.id();
        let project = match input.project {
            "" => None,
            project => {
                let project = self.project(org, project).await?.value.id;
                place.sees(project, "project")?;
                Some(project)
            }
        };
        let member = match input.member {
            "" => None,
            member => Some(self.member_ever(org, member).await?),
        };
        Ok(CostFilter {
            org,
            within: place.within,
            project,
            mode: input.mode,
            provider: input.provider.to_owned(),
            member,
            since: None,
            until: None,
        })
    }

    /// Cost events after a position, oldest first.
    pub async fn list_cost_events(
        &self,
        caller: &Caller,
        input: CostInput<'_>,
    ) -> Result<CostEvents, Refusal> {
        let filter = CostFilter {
            since: input.since,
            until: input.until,
            ..self.cost_filter(caller, input.filter).await?
        };
        let page = self.read_fitting(filter, input.after, input.size).await?;
        let events = page.records.iter().map(recorded);
        Ok(CostEvents {
            events: events
                .filter_map(|record| CostEvent::from_record(&record))
                .collect(),
            next: page.next,
            more: page.next < page.tip,
            first: first_kept(&self.journal),
        })
    }

    /// Streams cost events. `ended` is what ends it from outside.
    pub async fn follow_cost_events(
        &self,
        caller: &Caller,
        input: FollowCosts<'_>,
        ended: BoxFuture<'static, Refusal>,
    ) -> Result<impl Stream<Item = Result<FollowedCost, Refusal>> + Send + use<>, Refusal> {
        let filter = self.cost_filter(caller, input.filter).await?;
        let place = self.followers.of_costs(caller.actor())?;
        let following = self.follow(caller, (filter, place), input.after, input.heartbeat, ended)?;
        let journal = self.journal.clone();
        Ok(following.filter_map(move |told| {
            let told = match told {
                // Every record that fits is one.
                Ok(Followed::Record(record)) => CostEvent::from_record(&recorded(&record))
                    .map(|event| Ok(FollowedCost::Event(Box::new(event)))),
                Ok(Followed::Progress { position, .. }) => Some(Ok(FollowedCost::Progress {
                    position,
                    first: first_kept(&journal),
                })),
                Err(refusal) => Some(Err(refusal)),
            };
            std::future::ready(told)
        }))
    }
}
