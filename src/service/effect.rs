//! Effects: begin record, durable; guarded commit; finish record, durable.
//!
//! The commit also writes a mark that the effect has happened. After a crash, a begin without a finish is
//! settled by looking for the mark; see [`super::reconcile`]. Marks of finished effects are removed with the
//! commits of later ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Broker;
use crate::domain::actor::Caller;
use crate::domain::journal::{Action, Outcome, Phase, Position, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::watch::Notice;
use crate::journal::{Journal, JournalError};
use crate::store::record::Changes;
use crate::store::{Commit, Revision, keys, model::Mark};

/// Effects whose marks are no longer needed.
#[derive(Default)]
pub(super) struct Finished(Mutex<Vec<Position>>);

/// How many marks one commit removes at most, so that a commit stays within the store's limit.
const MARKS_PER_COMMIT: usize = 4;

impl Finished {
    pub(super) fn push(&self, position: Position) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(position);
    }

    fn take(&self) -> Vec<Position> {
        let mut positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = positions.len().saturating_sub(MARKS_PER_COMMIT);
        positions.split_off(keep)
    }
}

/// An effect that has happened and is recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// The position of the finish record.
    pub position: Position,
    /// The revision that the changed records have.
    pub revision: Revision,
}

/// Why an effect did not happen.
#[derive(Debug)]
pub(super) enum Undone {
    /// A guard did not hold: somebody else changed something first. Recorded as failed.
    Conflict,
    /// It was refused.
    Refused(Refusal),
}

/// An effect that did not come about, or of which that is not known.
#[derive(Debug)]
pub(super) struct Failed {
    /// What its caller is told.
    pub undone: Undone,
    /// Whether it is known that nothing came about, now or later.
    pub known: bool,
}

impl Failed {
    fn known(undone: impl Into<Undone>) -> Self {
        Self {
            undone: undone.into(),
            known: true,
        }
    }

    fn unknown(refusal: Refusal) -> Self {
        Self {
            undone: Undone::Refused(refusal),
            known: false,
        }
    }
}

impl From<Failed> for Undone {
    fn from(failed: Failed) -> Self {
        failed.undone
    }
}

impl From<Refusal> for Undone {
    fn from(refusal: Refusal) -> Self {
        Undone::Refused(refusal)
    }
}

impl From<Undone> for Refusal {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Conflict => Refusal::new(Reason::Conflict, "it was changed by someone else meanwhile"),
            Undone::Refused(refusal) => refusal,
        }
    }
}

/// Whether an effect of this kind may draw on the reserve of disk space: it takes something away from somebody,
/// or from the disk.
fn must_not_fail(action: Action) -> bool {
    matches!(
        action,
        Action::AgentRevoke
            | Action::AgentClone
            | Action::AgentExpire
            | Action::ApiKeyRevoke
            | Action::EnrollmentTokenRevoke
            | Action::CredentialRemove
            | Action::AccountDisconnect
            | Action::TaskEnd
            | Action::LeaseRelease
            | Action::JournalPrune
            | Action::OperatorRevoke
            | Action::OperatorRecover
            | Action::RoleRevoke
            | Action::ApprovalDeny
            | Action::ApprovalRevoke
            | Action::SecretRemove
            | Action::SecretRevoke
            | Action::LockCreate
            | Action::MemberRemove
            | Action::ManagedKeyRemove
            | Action::ConnectionCancel
            | Action::ConnectionFail
            // What was granted already; its exchange was begun while there was room.
            | Action::AccountConnect
    )
}

/// Why what can wait has to.
pub(super) fn no_room() -> Refusal {
    Refusal::new(
        Reason::StoreUnavailable,
        "the disk is nearly full: only revocations and what is under way are taken",
    )
    .retry_after(NO_ROOM_RETRY)
}

/// When to look again whether there is room.
const NO_ROOM_RETRY: Duration = Duration::from_secs(30);

/// How often, and after which pause each time, a finish is offered to a journal that is overloaded: for half a
/// minute.
const FINISH_ATTEMPTS: usize = 600;
const FINISH_PAUSE: Duration = Duration::from_millis(50);

/// Records the end of an effect. A full queue is waited for: a begin without its finish stays open until the
/// next start, and only so many may.
pub(super) async fn append_finish(journal: &Journal, record: &Record) -> Result<Position, JournalError> {
    for _ in 1..FINISH_ATTEMPTS {
        match journal.append(record).await {
            Err(JournalError::Overloaded) => tokio::time::sleep(FINISH_PAUSE).await,
            ended => return ended,
        }
    }
    journal.append(record).await
}

/// Runs `work` to its end even when the caller goes away: for what must not be left half done, such as what is
/// in the store and not yet in force.
pub(super) async fn detached<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Refusal> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or_else(|_| {
        let message = "the work ended before it was told";
        Err(Refusal::new(Reason::Internal, message).into())
    })
}

impl Broker {
    /// Refuses what can wait while the disk is nearly full. What is refused so is not recorded: records are what
    /// fills the disk.
    pub(super) fn room_for(&self, action: Action) -> Result<(), Refusal> {
        if must_not_fail(action) || self.records.has_room(self.settings().reserved_bytes) {
            Ok(())
        } else {
            Err(no_room())
        }
    }

    /// Makes `changes` happen, recorded as `record`. Runs to its end even when the caller goes away.
    pub(super) async fn effect(self: &Arc<Self>, record: Record, changes: Changes) -> Result<Done, Undone> {
        Ok(self.effect_or_fate(record, changes).await?)
    }

    /// As [`Broker::effect`], and then tells those who watch: whoever waits for it must not wait in vain because the
    /// caller went away in between.
    pub(super) async fn effect_told(
        self: &Arc<Self>,
        record: Record,
        changes: Changes,
        notices: Vec<Notice>,
    ) -> Result<Done, Undone> {
        let broker = Arc::clone(self);
        detached(async move {
            let done = broker.effect(record, changes).await?;
            for notice in notices {
                broker.publish(notice);
            }
            Ok(done)
        })
        .await
    }

    /// As [`Broker::effect`], and only while the caller is live; `false`: something else changed first.
    pub(super) async fn effect_by(
        self: &Arc<Self>,
        caller: &Caller,
        record: Record,
        changes: Changes,
    ) -> Result<bool, Refusal> {
        let (live, revision) = self.still_live(caller).await?;
        match self.effect(record, changes.at(&live, revision)).await {
            Ok(_) => Ok(true),
            Err(Undone::Conflict) => Ok(false),
            Err(Undone::Refused(refusal)) => Err(refusal),
        }
    }

    /// As [`Broker::effect`], for who has to know of a failed one whether it may have come about.
    pub(super) async fn effect_or_fate(
        self: &Arc<Self>,
        record: Record,
        changes: Changes,
    ) -> Result<Done, Failed> {
        self.room_for(record.action).map_err(Failed::known)?;
        let broker = Arc::clone(self);
        tokio::spawn(async move { broker.run_effect(record, changes).await })
            .await
            .unwrap_or_else(|_| {
                Err(Failed::unknown(Refusal::new(
                    Reason::Internal,
                    "the effect ended before it was told",
                )))
            })
    }

    async fn run_effect(&self, record: Record, mut changes: Changes) -> Result<Done, Failed> {
        // Without its begin nothing is committed: even one that is durable after all is settled as failed.
        let begin = self
            .journal
            .append(&record.clone().phase(Phase::Begin))
            .await
            .map_err(|error| Failed::known(Refusal::from(error)))?;
        changes = changes.put(&keys::effect(begin), &Mark { since: self.now() });
        let finished = self.finished_effects.take();
        for position in &finished {
            changes = changes.delete::<Mark>(&keys::effect(*position));
        }

        let outcome = self.records.commit(changes).await;
        let finish = |outcome| record.clone().phase(Phase::Finish(begin)).outcome(outcome);
        let undone = match outcome {
            Ok(Commit::Applied(revision)) => {
                // It came about, even where that could not be recorded yet.
                let position = append_finish(&self.journal, &finish(Outcome::Allowed))
                    .await
                    .map_err(|error| Failed::unknown(error.into()))?;
                self.finished_effects.push(begin);
                return Ok(Done { position, revision });
            }
            Ok(Commit::Conflict) => Undone::Conflict,
            Err(error) if error.changed_nothing() => Undone::Refused(error.into()),
            // Whether it happened is not known; the begin stays open and is settled at the next start.
            Err(error) => return Err(Failed::unknown(error.into())),
        };
        finished
            .into_iter()
            .for_each(|position| self.finished_effects.push(position));
        let reason = match &undone {
            Undone::Conflict => Reason::Conflict,
            Undone::Refused(refusal) => refusal.reason,
        };
        append_finish(&self.journal, &finish(Outcome::Failed(reason)))
            .await
            .map_err(|error| Failed::known(Refusal::from(error)))?;
        Err(Failed::known(undone))
    }
}
