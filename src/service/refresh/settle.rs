//! The end of an exchange: what is committed, and what the journal is told.

use std::time::Duration;

use super::exchange::{Claim, Unsettled};
use super::flights::Landing;
use super::told::{refresh_record, stopped, waiting};
use super::{Planted, Refresher};
use crate::domain::credential::Credential;
use crate::domain::journal::{Action, Outcome, Phase as JournalPhase, Position, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Event, Fence, Phase, Step};
use crate::service::effect::append_finish;
use crate::store::model::{Mark, StagedAnswer};
use crate::store::record::Changes;
use crate::store::{Commit, Revision, keys};

/// How often, and after which pause each time, an outcome is offered to a store that is overloaded: for half a
/// minute.
const PUT_ATTEMPTS: usize = 600;
const PUT_PAUSE: Duration = Duration::from_millis(50);

impl Refresher {
    /// Commits an outcome that brings no new generation.
    pub(super) async fn settle(&self, claim: Claim, event: Event) -> Result<Landing, Unsettled> {
        let now = self.now();
        let (rotation, step) = claim
            .credential
            .rotation
            .on(event, claim.fence, now)
            .map_err(|_| Unsettled::Superseded)?;
        let credential = Credential {
            rotation,
            ..claim.credential.clone()
        };
        let changes = || {
            let changes = self.settled(&credential);
            match credential.rotation.phase {
                Phase::Ambiguous { .. } => changes.put(
                    &keys::exchange(credential.org, credential.id),
                    &Mark { since: now },
                ),
                _ => changes,
            }
        };
        self.put_surely(&credential, claim.revision, changes).await?;
        self.tell(&claim.credential, &credential);
        let refusal = match step {
            Step::Wait(until) => waiting(&credential, until, now),
            _ => stopped(&credential),
        };
        self.finish(
            &credential,
            claim.fence,
            claim.begin,
            Outcome::Failed(refusal.reason),
        )
        .await?;
        Ok(Landing::refused(refusal))
    }

    /// What goes with the end of an exchange: its mark and its staged answer.
    pub(super) fn settled(&self, credential: &Credential) -> Changes {
        let mut changes = Changes::default();
        changes = changes.delete::<StagedAnswer>(&keys::credential_answer(credential.org, credential.id));
        if !matches!(credential.rotation.phase, Phase::Ambiguous { .. }) {
            changes = changes.delete::<Mark>(&keys::exchange(credential.org, credential.id));
        }
        changes
    }

    /// Commits a credential that stood at `revision`.
    pub(super) async fn put(
        &self,
        credential: &Credential,
        revision: Revision,
        mut changes: Changes,
    ) -> Result<Revision, Unsettled> {
        let key = keys::credential(credential.org, credential.id);
        if !self.planted(Planted::Unguarded) {
            changes = changes.at(&key, revision);
        }
        changes = changes.put(&key, credential);
        if self.unawaited(&credential.rotation.phase) {
            self.commit_later(changes);
            return Ok(revision);
        }
        match self.parts.records.commit(changes).await? {
            Commit::Applied(revision) => Ok(revision),
            Commit::Conflict => Err(Unsettled::Superseded),
        }
    }

    /// As [`Refresher::put`], for what must not be lost for want of a place in the store's queue: an answer
    /// that is dropped before it is staged may have held the only refresh token there is.
    pub(super) async fn put_surely(
        &self,
        credential: &Credential,
        revision: Revision,
        changes: impl Fn() -> Changes,
    ) -> Result<Revision, Unsettled> {
        for _ in 1..PUT_ATTEMPTS {
            match self.put(credential, revision, changes()).await {
                Err(Unsettled::Refused(refusal)) if refusal.reason == Reason::Overloaded => {
                    tokio::time::sleep(PUT_PAUSE).await;
                }
                ended => return ended,
            }
        }
        self.put(credential, revision, changes()).await
    }

    pub(super) async fn finish(
        &self,
        credential: &Credential,
        fence: Fence,
        begin: Option<Position>,
        outcome: Outcome,
    ) -> Result<(), Refusal> {
        self.parts.metrics.refresh(outcome);
        // Without a begin of this run it is what an earlier one began, and that one's begin gets its own finish.
        let (action, phase) = match begin {
            Some(begin) => (Action::Refresh, JournalPhase::Finish(begin)),
            None => (Action::RefreshRecover, JournalPhase::Single),
        };
        let mut record = Record {
            action,
            ..refresh_record(credential, fence)
        };
        record = record.phase(phase).outcome(outcome);
        if begin.is_none() {
            record = record.about("settled", "staged answer");
        }
        if let Some(cause) = credential.rotation.phase.cause() {
            record = record.about("cause", cause);
        }
        append_finish(&self.parts.journal, &record).await?;
        Ok(())
    }
}
