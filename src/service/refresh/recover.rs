//! After a start: every exchange that the last run left under way is settled. A staged answer is adopted; a
//! claim without one becomes ambiguous.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{Claim, Unsettled, Why, rule};
use super::flights::Landing;
use super::told::refresh_record;
use super::{Held, Need, Refresher};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::{Action, Outcome, Record};
use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Event, Fence, Phase, ResendRule, Step};
use crate::journal::Entry;
use crate::store::keys;
use crate::store::model::Mark;

const PAGE: usize = 100;

impl Refresher {
    /// Settles what the last run left under way. Called once, before anything is served. Returns the grants that
    /// may be sent again without harm, for [`Refresher::resume`].
    pub(in crate::service) async fn recover(self: &Arc<Self>) -> Result<Vec<(OrgId, CredentialId)>, Refusal> {
        let (mut after, mut harmless) = (None, Vec::new());
        loop {
            let rows = self
                .parts
                .records
                .scan::<Mark>(keys::exchanges().as_bytes(), after.as_ref(), PAGE)
                .await?;
            for (key, _) in &rows {
                let Some((org, id)) = keys::exchange_of(key) else {
                    continue;
                };
                let recovered = match self.held(org, id).await {
                    Ok(held) => self.recover_one(held).await,
                    Err(refusal) => Err(refusal),
                };
                match recovered {
                    Ok(()) if self.resend(org, id).await.is_some() => harmless.push((org, id)),
                    Ok(()) => {}
                    // Without store or journal nothing can be served at all.
                    Err(refusal) if refusal.reason.class() == Class::Unavailable => return Err(refusal),
                    // One credential must not keep the broker from serving the others. It stays as it is: a
                    // staged answer is adopted at the next need, or at the next start.
                    Err(refusal) => tracing::error!(credential = %id, %refusal, "could not be recovered"),
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(harmless),
            }
        }
    }

    /// Goes on with what may be sent again without harm, though nobody asks: a grace window may be over before
    /// anybody does. Called once what the last run left in the journal is settled.
    pub(in crate::service) fn resume(self: &Arc<Self>, harmless: Vec<(OrgId, CredentialId)>) {
        for (org, id) in harmless {
            let refresher = Arc::clone(self);
            self.tasks.spawn(async move {
                let Ok(held) = refresher.held(org, id).await else {
                    return;
                };
                // Somebody may have asked meanwhile, and there is nothing left to go on with.
                if !matches!(held.credential.value.rotation.phase, Phase::Ambiguous { .. }) {
                    return;
                }
                let need = Need {
                    remaining: Duration::ZERO,
                    newer_than: Some(held.credential.value.rotation.generation),
                };
                if let Landing::Refused(refusal) = refresher.join(org, id, need, Why::Resumed).await {
                    tracing::warn!(credential = %id, %refusal, "an ambiguous grant could not be settled yet");
                }
            });
        }
    }

    /// What became of the exchange that `entry`, its begin record, speaks of. The fence says whether it ever
    /// got its claim, the generation whether it brought new tokens.
    pub(in crate::service) async fn outcome_of(&self, entry: &Entry) -> Result<Outcome, Refusal> {
        let number = |kind| entry.about(kind).and_then(|text| text.parse::<u64>().ok());
        let id = entry.about("credential").and_then(|text| text.parse().ok());
        let (Some(org), Some(id), Some(fence), Some(generation)) =
            (entry.org, id, number("fence"), number("generation"))
        else {
            return Ok(Outcome::Failed(Reason::Internal));
        };
        let key = keys::credential(org, id);
        let Some(stored) = self.parts.records.get::<Credential>(&key).await? else {
            return Ok(Outcome::Failed(Reason::Conflict));
        };
        let rotation = &stored.value.rotation;
        let lineage = self.lineage(&stored.value).await?;
        Ok(match &rotation.phase {
            _ if rotation.fence < Fence(fence) => Outcome::Failed(Reason::Conflict),
            _ if lineage.brought_by(Fence(fence)) => Outcome::Allowed,
            // Another exchange, or somebody who signed in, took its place.
            _ if rotation.generation > generation => Outcome::Failed(Reason::Conflict),
            _ if rotation.fence > Fence(fence) => Outcome::Failed(Reason::RefreshAmbiguous),
            Phase::Live { .. } => Outcome::Failed(Reason::RefreshUnavailable),
            Phase::Quarantined { .. } | Phase::Dead { .. } => Outcome::Failed(Reason::ReauthRequired),
            Phase::Claimed { .. } | Phase::Staged { .. } | Phase::Ambiguous { .. } => {
                Outcome::Failed(Reason::RefreshAmbiguous)
            }
        })
    }

    /// Records that a claim was found whose driver is gone.
    pub(super) async fn abandoned(&self, credential: &Credential) -> Result<(), Refusal> {
        let record = Record {
            action: Action::RefreshRecover,
            ..refresh_record(credential, credential.rotation.fence)
        };
        let outcome = Outcome::Failed(Reason::RefreshAmbiguous);
        let record = record.about("found", "claim without an answer").outcome(outcome);
        self.parts.journal.append(&record).await?;
        Ok(())
    }

    async fn recover_one(&self, held: Held) -> Result<(), Refusal> {
        let credential = &held.credential.value;
        let connector = self.parts.connectors.get(&credential.connector);
        let event = Event::Started {
            by: self.parts.incarnation,
            rule: connector.map_or(ResendRule::CAREFUL, |connector| rule(connector)),
        };
        let Ok((next, step)) = credential.rotation.on(event, Fence(0), self.now()) else {
            return Ok(());
        };
        let (next, step) = self.found(&credential.rotation, next, step);
        let fence = credential.rotation.fence;
        let record = Record {
            action: Action::RefreshRecover,
            ..refresh_record(credential, fence)
        };
        if let Step::Adopt(fence) = step {
            let connector = self.parts.connectors.get(&credential.connector).ok_or_else(|| {
                Refusal::new(
                    Reason::ConnectorUnknown,
                    format!(
                        "a staged answer waits for connector {}, which is not configured",
                        credential.connector
                    ),
                )
            })?;
            self.parts
                .journal
                .append(&record.about("found", "staged answer"))
                .await?;
            let answer = self.staged(credential.org, credential.id).await?;
            let claim = Claim {
                credential: Credential::clone(credential),
                revision: held.credential.revision,
                fence,
                begin: None,
                pass: None,
            };
            return match self.adopt(claim, &held.secret.value, connector, answer).await {
                Ok(Landing::Renewed | Landing::Current) => Ok(()),
                Ok(Landing::Refused(refusal)) => {
                    tracing::warn!(credential = %credential.id, %refusal, "a staged answer was no grant");
                    Ok(())
                }
                Err(Unsettled::Superseded) => Ok(()),
                Err(Unsettled::Refused(refusal)) => Err(refusal),
            };
        }
        if next == credential.rotation {
            return Ok(());
        }
        let ambiguous = matches!(next.phase, Phase::Ambiguous { .. });
        tracing::warn!(credential = %credential.id, ambiguous, "an exchange was cut off by the last stop");
        self.abandoned(credential).await?;
        let credential = Credential {
            rotation: next,
            ..Credential::clone(credential)
        };
        let changes = self.dropped(&credential);
        match self.put(&credential, held.credential.revision, changes).await {
            Ok(_) | Err(Unsettled::Superseded) => Ok(()),
            Err(Unsettled::Refused(refusal)) => Err(refusal),
        }
    }
}
