//! What a test found: kept with its credential, and told to the journal.

use std::sync::Arc;

use super::{Run, Tested};
use crate::domain::credential::Credential;
use crate::domain::journal::{Outcome, Phase, Position};
use crate::domain::key_test::{Checked, Verdict};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Forced;
use crate::service::Broker;
use crate::service::effect::append_finish;
use crate::store::model::{Mark, Reported};
use crate::store::record::{Changes, Stored};
use crate::store::{Commit, keys};

/// How often what was found is written again when the credential is changed at the same moment.
const ATTEMPTS: usize = 8;

impl Broker {
    /// Writes down what was found.
    pub(super) async fn found(&self, run: Run) -> Result<Tested, Refusal> {
        let Run {
            fresh,
            told,
            begin,
            record,
            refreshed,
            rejected,
        } = run;
        let credential = &fresh.credential;
        let checked = Checked {
            at: self.now(),
            generation: credential.rotation.generation,
            outcome: told.verdict,
            status: told.status,
            message: told.message,
            facts: told.facts,
            facts_at: None,
        };
        let kept = self.keep_checked(credential, &checked, begin).await;
        let outcome = match &kept {
            Ok(()) => Outcome::Allowed,
            Err(refusal) => Outcome::Failed(refusal.reason),
        };
        let mut record = record
            .about("generation", checked.generation)
            .about("host", &told.host)
            .about("found", checked.outcome.name())
            .phase(Phase::Finish(begin))
            .outcome(outcome);
        if checked.status != 0 {
            record = record.about("status", checked.status);
        }
        if let Some(rejected) = &rejected {
            record = record.about("rejected_generation", rejected.generation);
        }
        append_finish(&self.journal, &record).await?;
        self.finished_effects.push(begin);
        kept?;
        Ok(Tested {
            checked,
            retry_after: told.retry_after,
            host: told.host,
            took: told.took,
            refreshed,
            rejected,
            remembered: false,
        })
    }

    /// Keeps what was found with its credential, unless that is gone or has another secret by now.
    async fn keep_checked(
        &self,
        tested: &Credential,
        checked: &Checked,
        begin: Position,
    ) -> Result<(), Refusal> {
        let (org, id) = (tested.org, tested.id);
        for _ in 0..ATTEMPTS {
            let key = keys::credential(org, id);
            let Some(stored) = self.records.get::<Credential>(&key).await? else {
                return Ok(());
            };
            if stored.value.rotation.generation != checked.generation {
                return Ok(());
            }
            let before = self.last_check(tested).await?;
            let changes = Changes::default()
                .at(&key, stored.revision)
                .put(&keys::checked(org, id), &checked.clone().after(before.as_deref()))
                .put(&keys::effect(begin), &Mark { since: checked.at });
            // What neither shows that it works nor that it is rejected takes nothing back.
            let changes = match checked.outcome {
                Verdict::Works => {
                    let changes = changes.delete::<Reported>(&keys::reported(org, id));
                    self.without_failing(changes, tested).await?
                }
                Verdict::Rejected => {
                    let rejected = Reported {
                        generation: checked.generation,
                        at: checked.at,
                        by: None,
                        message: checked.message.clone(),
                    };
                    changes.put(&keys::reported(org, id), &rejected)
                }
                _ => changes,
            };
            if let Commit::Applied(_) = self.records.commit(changes).await? {
                return Ok(());
            }
        }
        Err(Refusal::new(Reason::Conflict, "the credential keeps changing"))
    }

    /// Reports of callers that each token is rejected have been answered by the provider itself.
    async fn without_failing(&self, changes: Changes, tested: &Credential) -> Result<Changes, Refusal> {
        let key = keys::forced(tested.org, tested.id);
        let stored: Option<Stored<Forced>> = self.records.get(&key).await?;
        Ok(match stored.filter(|stored| !stored.value.failing.is_empty()) {
            None => changes,
            Some(stored) => {
                let forced = Forced {
                    failing: Vec::new(),
                    ..Forced::clone(&stored.value)
                };
                changes.at(&key, stored.revision).put(&key, &forced)
            }
        })
    }

    /// What the last test found of the credential's present secret; `None`: it was not tested.
    pub async fn last_check(&self, credential: &Credential) -> Result<Option<Arc<Checked>>, Refusal> {
        let key = keys::checked(credential.org, credential.id);
        let stored = self.records.get::<Checked>(&key).await?;
        let checked = stored.map(|stored| stored.value);
        Ok(checked.filter(|checked| checked.generation == credential.rotation.generation))
    }
}
