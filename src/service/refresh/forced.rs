//! Limits on rotations that callers force, so that whoever reports every new generation as rejected cannot wear a
//! grant out: an hour's window a credential, of which no holder has more than half, and one an agent or API key. Both
//! are stored beside the credential, in one commit a forced rotation: restarting the broker forgives nothing.
//!
//! What is counted is rotations, not reports: a generation costs the caller that reports it first, and nobody
//! else, however many hold it and find it rejected.

use std::time::Duration;

use super::Refresher;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::lease::Holder;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::{Forced, Limited, Row, Window};
use crate::domain::secret::Exposure;
use crate::store::keys::{self, Key};
use crate::store::model::CredentialSecret;
use crate::store::record::{Changes, Record, Stored};
use crate::store::{Commit, Revision};
use crate::upstream::redact_known;

/// How often a count is tried again when another caller was first. Each of those used a place of a window up.
const ATTEMPTS: usize = 32;
/// How much of what a caller reports is quoted back, in characters.
const MAX_QUOTE: usize = 256;

fn replacing<T: Record>(key: &Key, before: Option<Revision>, after: &T) -> Changes {
    let changes = match before {
        Some(revision) => Changes::default().at(key, revision),
        None => Changes::default().absent(key),
    };
    changes.put(key, after)
}

impl Refresher {
    /// What reports of rejections have done to a credential.
    pub(in crate::service) async fn forced(
        &self,
        org: OrgId,
        credential: CredentialId,
    ) -> Result<Forced, Refusal> {
        let stored = self
            .parts
            .records
            .get::<Forced>(&keys::forced(org, credential))
            .await?;
        Ok(stored.map_or_else(|| Forced::none(self.now()), |stored| Forced::clone(&stored.value)))
    }

    /// Counts a rotation that a holder forces by rejecting the credential's present generation, unless this
    /// generation was counted already, or refuses it.
    pub(in crate::service) async fn count_forced(
        &self,
        credential: &Credential,
        holder: Holder,
    ) -> Result<(), Refusal> {
        let (org, generation) = (credential.org, credential.rotation.generation);
        let (of, by) = (keys::forced(org, credential.id), keys::forced_by(org, holder));
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let before: Option<Stored<Forced>> = self.parts.records.get(&of).await?;
            let forced = before
                .as_ref()
                .map_or_else(|| Forced::none(now), |stored| Forced::clone(&stored.value));
            if forced.generation >= generation {
                return Ok(());
            }
            let mine: Option<Stored<Window>> = self.parts.records.get(&by).await?;
            let own = mine
                .as_ref()
                .map_or_else(|| Window::beginning(now), |stored| *stored.value);
            let settings = self.parts.settings.load();
            let what = match holder {
                Holder::Agent(_) => "agent",
                Holder::ApiKey(_) => "API key",
                Holder::Operator(_) => "operator",
            };
            let limit = settings.forced_rotations_per_credential;
            let forced =
                forced
                    .with_one_more(holder, generation, limit, now)
                    .map_err(|limited| match limited {
                        Limited::Credential(wait) => had(format!("credential has had its {limit}"), wait),
                        Limited::Share(wait) => had(
                            format!(
                                "{what} has had its {} of this credential's {limit}",
                                limit.div_ceil(2)
                            ),
                            wait,
                        ),
                    })?;
            let limit = settings.forced_rotations_per_agent;
            let own = own
                .with_one_more(limit, now)
                .map_err(|wait| had(format!("{what} has had its {limit}"), wait))?;
            let changes = replacing(&of, before.map(|stored| stored.revision), &forced);
            let changes = match mine {
                Some(stored) => changes.at(&by, stored.revision),
                None => changes.absent(&by),
            };
            match self.parts.records.commit(changes.put(&by, &own)).await? {
                Commit::Applied(_) => return Ok(()),
                Commit::Conflict => {}
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the credential keeps being reported",
        ))
    }

    /// Keeps that a holder ended with tokens that are rejected, for whoever looks at the credential. It changes
    /// nothing for others. Written once a row.
    pub(in crate::service) async fn note_failing(
        &self,
        credential: &Credential,
        holder: Holder,
        row: Row,
    ) -> Result<(), Refusal> {
        let key = keys::forced(credential.org, credential.id);
        for _ in 0..ATTEMPTS {
            let before: Option<Stored<Forced>> = self.parts.records.get(&key).await?;
            let forced = before
                .as_ref()
                .map_or_else(|| Forced::none(self.now()), |stored| Forced::clone(&stored.value));
            let Some(forced) = forced.with_failing(holder, row, self.now()) else {
                return Ok(());
            };
            let changes = replacing(&key, before.map(|stored| stored.revision), &forced);
            match self.parts.records.commit(changes).await? {
                Commit::Applied(_) => return Ok(()),
                Commit::Conflict => {}
            }
        }
        Ok(())
    }

    /// What a caller says that the provider said, fit to be told back to it: without anything of the credential's
    /// secrets, which a provider may quote, in one line and short.
    pub(in crate::service) async fn quotable(
        &self,
        org: OrgId,
        id: CredentialId,
        said: &str,
    ) -> Result<String, Refusal> {
        if said.is_empty() {
            return Ok(String::new());
        }
        let held = self.held(org, id).await?;
        Ok(redact_known(said, &known(&held.secret.value), MAX_QUOTE))
    }
}

/// All that is secret of a credential, to be looked for in a text.
pub(super) fn known(secret: &CredentialSecret) -> Vec<&[u8]> {
    let why = Exposure::Inspect;
    let mut known = Vec::new();
    known.extend(secret.access.as_ref().map(|token| token.expose(why)));
    known.extend(secret.refresh.as_ref().map(|token| token.expose(why)));
    if let Some(aws) = &secret.aws {
        known.push(aws.secret_access_key.expose(why));
        known.extend(aws.session_token.as_ref().map(|token| token.expose(why)));
    }
    known
}

fn had(what: String, wait: Duration) -> Refusal {
    let message = format!("this {what} forced rotations of the hour");
    Refusal::new(Reason::RotationLimited, message).retry_after(wait)
}
