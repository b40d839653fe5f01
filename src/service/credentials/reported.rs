//! What is wrong with a credential, as people are told: the provider's last message, or what those report who use it.
//!
//! A report is a caller's word, so it changes nothing of the credential. What is kept of it is bounded: of a key the
//! last message, redacted and short, written at most once a minute and forgotten with the key; of a grant, whose own
//! token endpoint tells the broker the truth, only who reported. A test that is rejected is kept in the same place, of
//! keys and grants alike, until one works or the secret changes.

use std::time::Duration;

use crate::domain::credential::Credential;
use crate::domain::lease::Holder;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Phase;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::store::keys;
use crate::store::model::Reported;
use crate::store::record::Changes;

/// How long a report of a key stands before another takes its place: reporting again and again writes no more than
/// this.
const PAUSE: Duration = Duration::from_secs(60);

/// What is not well with a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastError {
    /// In words; empty while all is well.
    pub message: String,
    /// When it was told, where that is known.
    pub at: Option<Time>,
    /// Whether somebody reports it, and the broker itself knows nothing of it.
    pub reported: bool,
}

impl Broker {
    /// Keeps what the provider of a key is reported to have said when it rejected it. `by`: who reports it, `None` where
    /// the broker tried the key itself; `said`: redacted. That it cannot be kept is no reason to fail.
    pub(in crate::service) async fn keep_report(
        &self,
        credential: &Credential,
        by: Option<Holder>,
        said: &str,
    ) {
        if let Err(refusal) = self.try_keep_report(credential, by, said).await {
            tracing::warn!(credential = %credential.id, %refusal, "a report of a rejected key could not be kept");
        }
    }

    async fn try_keep_report(
        &self,
        credential: &Credential,
        by: Option<Holder>,
        said: &str,
    ) -> Result<(), Refusal> {
        let (org, id, now) = (credential.org, credential.id, self.now());
        let generation = credential.rotation.generation;
        let key = keys::reported(org, id);
        let before = self.records.get::<Reported>(&key).await?;
        if before.is_some_and(|before| {
            let (before, at) = (&before.value, before.value.at);
            before.generation == generation
                && before.by.is_some() == by.is_some()
                && at <= now
                && now < at + PAUSE
        }) {
            return Ok(());
        }
        // Guarded: a key that is replaced or removed at this moment takes no report with it.
        let present = self.credential(org, id).await?;
        if present.value.rotation.generation != generation {
            return Ok(());
        }
        let reported = Reported {
            generation,
            at: now,
            by,
            message: said.to_owned(),
        };
        let changes = Changes::default().at(&keys::credential(org, id), present.revision);
        let _last = self.records.commit(changes.put(&key, &reported)).await?;
        Ok(())
    }

    /// What is not well with a credential, as people are told: the provider's last message, or what those report who
    /// use it.
    pub async fn last_error(&self, credential: &Credential) -> Result<LastError, Refusal> {
        let message = credential.rotation.message();
        if !message.is_empty() {
            return Ok(LastError {
                message: message.to_owned(),
                at: match &credential.rotation.phase {
                    Phase::Quarantined { since, .. } | Phase::Dead { since, .. } => Some(*since),
                    _ => None,
                },
                reported: false,
            });
        }
        let reported = match self.reported(credential).await? {
            None if !credential.kind.is_key() => self.reported_of_grant(credential).await?,
            reported => reported,
        };
        Ok(reported.unwrap_or_default())
    }

    /// What the last test or report of the present secret has against it. One that worked since has taken it back.
    async fn reported(&self, credential: &Credential) -> Result<Option<LastError>, Refusal> {
        let key = keys::reported(credential.org, credential.id);
        let stored = self.records.get::<Reported>(&key).await?;
        let current = stored.filter(|stored| stored.value.generation == credential.rotation.generation);
        Ok(current.map(|stored| {
            let Reported { at, by, message, .. } = &*stored.value;
            let told = match by {
                Some(holder) => format!("the provider rejected it, as reported by {holder}"),
                None => "the provider rejected it when it was tested".to_owned(),
            };
            LastError {
                message: if message.is_empty() {
                    told
                } else {
                    format!("{told}: {message}")
                },
                at: Some(*at),
                reported: true,
            }
        }))
    }

    async fn reported_of_grant(&self, credential: &Credential) -> Result<Option<LastError>, Refusal> {
        let forced = self.refresher.forced(credential.org, credential.id).await?;
        let failing: Vec<_> = forced.failing(self.now()).collect();
        let Some(newest) = failing.iter().map(|failing| failing.at).max() else {
            return Ok(None);
        };
        let holders: Vec<_> = failing.iter().map(|failing| failing.holder.to_string()).collect();
        Ok(Some(LastError {
            message: format!(
                "each new token was rejected, as reported by {}",
                holders.join(", ")
            ),
            at: Some(newest),
            reported: true,
        }))
    }
}
