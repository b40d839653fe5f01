//! Pruning the journal: recorded before it happens, with how far it goes, and after.

use std::sync::Arc;

use super::super::Broker;
use super::super::effect::append_finish;
use super::blocking;
use crate::domain::actor::Caller;
use crate::domain::journal::{Action, Outcome, Phase, Position, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::journal::{Anchor, OpenEffect, PrunePlan, PruneTo};

/// What a record of a prune says it goes up to.
const UP_TO: &str = "pruned_position";

/// What was pruned, or would be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pruned {
    /// What goes; `None`: nothing can.
    pub plan: Option<PrunePlan>,
    /// Where the kept part begins now.
    pub anchor: Option<Anchor>,
}

impl Broker {
    /// Removes old records for good, or with `validate_only` says what would go. Runs to its end even when the
    /// caller goes away.
    pub async fn prune_journal(
        self: &Arc<Self>,
        caller: &Caller,
        to: PruneTo,
        validate_only: bool,
    ) -> Result<Pruned, Refusal> {
        let record = caller.record(Action::JournalPrune, caller.org());
        if !caller.reach().is_everywhere() {
            let refusal = Refusal::new(Reason::PermissionDenied, "the journal is the whole broker's");
            return Err(self.denied(record, refusal).await);
        }
        let journal = self.journal.clone();
        let plan = blocking(move || journal.plan_prune(to)).await?;
        let Some(plan) = plan.filter(|_| !validate_only) else {
            let anchor = self.journal.anchor();
            return Ok(Pruned { plan, anchor });
        };
        let record = record
            .about(UP_TO, plan.last.0)
            .about("records", plan.records)
            .about("segments", plan.segments);
        let broker = Arc::clone(self);
        tokio::spawn(async move { broker.run_prune(record, plan).await })
            .await
            .unwrap_or_else(|_| {
                Err(Refusal::new(
                    Reason::Internal,
                    "the prune ended before it was told",
                ))
            })
    }

    async fn run_prune(&self, record: Record, plan: PrunePlan) -> Result<Pruned, Refusal> {
        // What goes has to be in the sums of spend first.
        self.settle_spend_to(plan.last).await?;
        let begin = self.journal.append(&record.clone().phase(Phase::Begin)).await?;
        let journal = self.journal.clone();
        let pruned = blocking(move || journal.prune(&plan)).await;
        // Once the anchor is there it has happened: what is left of the segments goes at the next start.
        let happened = self.is_pruned(plan.last);
        let outcome = match &pruned {
            Err(refusal) if !happened => Outcome::Failed(refusal.reason),
            _ => Outcome::Allowed,
        };
        append_finish(
            &self.journal,
            &record.phase(Phase::Finish(begin)).outcome(outcome),
        )
        .await?;
        match pruned {
            Err(refusal) if !happened => Err(refusal),
            Err(refusal) => {
                tracing::warn!(%refusal, "pruned segments could not all be removed; the next start does");
                Ok(self.pruned(plan))
            }
            Ok(_) => Ok(self.pruned(plan)),
        }
    }

    fn pruned(&self, plan: PrunePlan) -> Pruned {
        Pruned {
            plan: Some(plan),
            anchor: self.journal.anchor(),
        }
    }

    fn is_pruned(&self, last: Position) -> bool {
        self.journal
            .anchor()
            .is_some_and(|anchor| anchor.position >= last)
    }

    /// How a prune ended that the last run began. Opening the journal has finished it, where it had its anchor.
    pub(in super::super) fn prune_outcome(&self, begun: &OpenEffect) -> Outcome {
        let last = begun.entry.about(UP_TO).and_then(|last| last.parse().ok());
        if last.is_some_and(|last| self.is_pruned(Position(last))) {
            Outcome::Allowed
        } else {
            Outcome::Failed(Reason::Internal)
        }
    }
}
