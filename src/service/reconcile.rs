//! Settling what a crash left open: effects that began and were not finished, and exchanges.

use std::sync::Arc;

use super::Broker;
use crate::domain::cost::subject;
use crate::domain::journal::{Action, Outcome, Phase, Position, Record};
use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::Refusal;
use crate::journal::{Entry, OpenEffect};
use crate::store::record::Changes;
use crate::store::{MAX_SCAN, keys, model::Mark};

/// What a cost says stands on the finish record: that of a recovered one has it from the begin.
fn carried(record: Record, begun: &Entry) -> Record {
    let carried = subject::CARRIED
        .iter()
        .filter_map(|kind| begun.about(kind).map(|value| (*kind, value)));
    carried.fold(
        record.about(subject::HOLDER, &begun.actor),
        |record, (kind, value)| record.about(kind, value),
    )
}

impl Broker {
    /// Settles what the last run left open. Called once, before anything is served.
    pub async fn recover(self: &Arc<Self>, open: Vec<OpenEffect>) -> Result<(), Refusal> {
        // Before anything is recorded that they are about.
        self.begin_spend().await?;
        // Exchanges first: what became of one is read off its credential.
        let harmless = self.refresher.recover().await?;
        for begun in &open {
            self.finish_effect(begun).await?;
        }
        self.remove_marks().await?;
        self.load_locks().await?;
        self.load_policy().await?;
        // They are refused already: what cannot be cleared away now waits for the collection.
        if let Err(refusal) = self.finish_removals().await {
            tracing::warn!(%refusal, "removals that the last run left open could not be finished yet");
        }
        self.refresher.resume(harmless);
        self.resume_connections().await?;
        Ok(())
    }

    async fn finish_effect(&self, begun: &OpenEffect) -> Result<(), Refusal> {
        let position = begun.position;
        let Some(action) = begun.entry.action() else {
            tracing::warn!(
                position = position.0,
                action = begun.entry.action,
                "an unknown effect stays open"
            );
            return Ok(());
        };
        let outcome = match self.outcome_of(action, begun).await {
            Ok(outcome) => outcome,
            // Without the store nothing can be served at all.
            Err(refusal) if refusal.reason.class() == Class::Unavailable => return Err(refusal),
            // What cannot be read of one effect must not keep the broker from serving all else.
            Err(refusal) => {
                let action = action.name();
                tracing::error!(position = position.0, action, %refusal, "what became of an effect cannot be read");
                Outcome::Failed(Reason::Internal)
            }
        };
        let happened = outcome == Outcome::Allowed;
        tracing::info!(
            position = position.0,
            happened,
            "settled an effect that the last run left open"
        );
        let mut record = Record::new(action, "broker", begun.entry.org)
            .phase(Phase::Finish(position))
            .about("recovered", happened)
            .outcome(outcome);
        if happened && [Action::Resolve, Action::UsageReport].contains(&action) {
            record = carried(record, &begun.entry);
        } else if let Some(credential) = begun.entry.about("credential") {
            record = record.about("credential", credential);
        }
        self.journal.append(&record).await?;
        Ok(())
    }

    async fn outcome_of(&self, action: Action, begun: &OpenEffect) -> Result<Outcome, Refusal> {
        let mark = keys::effect(begun.position);
        Ok(match action {
            Action::Refresh => self.refresher.outcome_of(&begun.entry).await?,
            Action::JournalPrune => self.prune_outcome(begun),
            Action::TokenRevoke => self.revoker.outcome_of(&begun.entry).await?,
            _ if self.records.get::<Mark>(&mark).await?.is_some() => Outcome::Allowed,
            _ => Outcome::Failed(Reason::Internal),
        })
    }

    /// All effects are finished now, so no mark is needed any more.
    async fn remove_marks(&self) -> Result<(), Refusal> {
        loop {
            let marks = self
                .records
                .scan::<Mark>(keys::effects().as_bytes(), None, 100)
                .await?;
            let more = marks.len() == 100;
            let mut changes = Changes::default();
            for (key, _) in &marks {
                changes = changes.delete::<Mark>(key);
            }
            if !marks.is_empty() {
                let _applied = self.records.commit(changes).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Records that the broker has started or is stopping.
    pub async fn record_lifecycle(&self, action: Action) -> Result<Position, Refusal> {
        let version = env!("CARGO_PKG_VERSION");
        Ok(self
            .journal
            .append(&Record::new(action, "broker", None).about("version", version))
            .await?)
    }

    /// Removes what the store needs no longer: locks that have expired, what was a removed member's, request ids of
    /// the days before yesterday, events of usage and credit that are old enough to be forgotten, sums of spend of
    /// more than 400 days ago, and revocations at providers that ended a week ago.
    pub async fn collect(self: &Arc<Self>) -> Result<(), Refusal> {
        self.collect_locks().await?;
        self.finish_removals().await?;
        let today = super::request::day(self.now());
        let mut after = None;
        loop {
            let orgs = self
                .records
                .scan::<crate::domain::directory::Org>(keys::orgs().as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            for (_, org) in &orgs {
                self.collect_requests(org.value.id, today).await?;
                self.collect_taken(org.value.id).await?;
                self.collect_spend(org.value.id).await?;
                self.collect_connections(org.value.id).await?;
                self.collect_revocations(org.value.id).await?;
            }
            match orgs.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }
}
