//! What a staged answer says, and the new generation it brings.

use std::sync::Arc;
use std::time::Duration;

use super::flights::Landing;
use super::{Planted, Refresher};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::Outcome;
use crate::domain::lineage::Origin;
use crate::domain::pace::breaker::PAUSE_REJECTED;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Event, Refused};
use crate::domain::secret::{AccessToken, Exposure, RefreshToken, Secret};
use crate::domain::time::Time;
use crate::store::keys;
use crate::store::model::{CredentialSecret, StagedAnswer};
use crate::upstream::answer::{Answer, Granted, MAX_MESSAGE, classify};
use crate::upstream::connector::Connector;
use crate::upstream::redact_known;

use super::exchange::{Claim, Unsettled, rule};
use super::forced::known;
use crate::service::lineage::{descended, linked};

/// The most that is kept of an account, in bytes, so that facts never keep a new generation from being stored.
const MAX_ACCOUNT: usize = 8 * 1024;

/// Leaves out the oldest facts of an account where they are too many to be stored.
pub(in crate::service) fn bounded_account(account: &mut Vec<(String, String)>) {
    let bytes = |account: &[(String, String)]| -> usize {
        account.iter().map(|(fact, value)| fact.len() + value.len()).sum()
    };
    while bytes(account) > MAX_ACCOUNT {
        account.remove(0);
    }
}

impl Refresher {
    /// The staged answer of a credential.
    pub(super) async fn staged(&self, org: OrgId, id: CredentialId) -> Result<StagedAnswer, Refusal> {
        let missing = || Refusal::new(Reason::CredentialUnusable, "a staged answer is missing");
        let key = keys::credential_answer(org, id);
        let stored = self
            .parts
            .records
            .get::<StagedAnswer>(&key)
            .await?
            .ok_or_else(missing)?;
        Arc::into_inner(stored.value).ok_or_else(missing)
    }

    /// Parses a staged answer and commits what it says.
    pub(super) async fn adopt(
        &self,
        mut claim: Claim,
        old: &CredentialSecret,
        connector: &Connector,
        answer: StagedAnswer,
    ) -> Result<Landing, Unsettled> {
        let retry_after = answer.retry_after_ms.map(Duration::from_millis);
        let failures = claim.credential.rotation.failures;
        // What is redacted by its looks is redacted by what we know as well, before anybody is told.
        let plain = |message: String| redact_known(&message, &known(old), MAX_MESSAGE);
        let says = classify(connector, answer.status, retry_after, &answer.body);
        if let Some(pass) = claim.pass.take() {
            pass.answered(&says, answer.status, plain);
        }
        match self.blamed(says, answer.status) {
            Answer::Granted(granted) => self.grant(claim, old, granted, answer.received).await,
            // The very token that was sent, and none to be used: nothing was granted.
            Answer::Rotated(refresh_token) if is_same(old, &refresh_token) => {
                let event = Event::Lost {
                    message: "the provider gave the refresh token back and no access token".to_owned(),
                    rule: rule(connector),
                    retry_after,
                };
                self.settle(claim, event).await
            }
            Answer::Rotated(refresh_token) => {
                // A new refresh token and no access token: kept at once, and refreshed again at the next need.
                let granted = NewSecret {
                    access: None,
                    refresh: Some(refresh_token),
                    expires: Some(answer.received),
                    refresh_expires: None,
                    scopes: None,
                    token_type: None,
                    account: Vec::new(),
                };
                self.replace(claim, old, granted).await
            }
            Answer::Refused { code, told, message } => {
                let message = plain(message);
                tracing::warn!(credential = %claim.credential.id, code, "the provider refused a grant");
                let message = if message.is_empty() {
                    code
                } else {
                    format!("{code}: {message}")
                };
                let lineage = self.lineage(&claim.credential).await?;
                let refused = Refused {
                    message,
                    told,
                    rotates: connector.rotates,
                    expires: lineage.refresh_expires,
                };
                self.settle(claim, Event::Refused(refused)).await
            }
            Answer::NotProcessed { retry_after, message } => {
                let retry_after = retry_after.filter(|_| !self.planted(Planted::RetryAfterIgnored));
                let message = plain(message);
                let not_before = self.now() + self.pause(failures, retry_after);
                self.settle(claim, Event::NotProcessed { not_before, message })
                    .await
            }
            Answer::Misconfigured { code, message } => {
                let message = plain(message);
                tracing::error!(connector = %connector.name, code, why = message, "the provider rejects this client");
                let not_before = self.now() + PAUSE_REJECTED;
                let message = format!("the provider rejects the broker's client: {code}: {message}");
                self.settle(claim, Event::NotProcessed { not_before, message })
                    .await
            }
            Answer::Ambiguous { retry_after, message } => {
                let event = Event::Lost {
                    message: plain(message),
                    rule: rule(connector),
                    retry_after: retry_after.filter(|_| !self.planted(Planted::RetryAfterIgnored)),
                };
                self.settle(claim, event).await
            }
        }
    }

    async fn grant(
        &self,
        claim: Claim,
        old: &CredentialSecret,
        granted: Granted,
        received: Time,
    ) -> Result<Landing, Unsettled> {
        let secret = NewSecret {
            access: Some(granted.access_token),
            refresh: granted.refresh_token,
            expires: granted.expiry.map(|expiry| expiry.at(received)),
            refresh_expires: granted.refresh_expires_in.map(|life| received + life),
            scopes: granted.scopes,
            token_type: Some(granted.token_type),
            account: granted.account,
        };
        self.replace(claim, old, secret).await
    }

    /// Commits a new generation; the claim and the staged answer go in the same batch.
    async fn replace(
        &self,
        claim: Claim,
        old: &CredentialSecret,
        new: NewSecret,
    ) -> Result<Landing, Unsettled> {
        let now = self.now();
        // What is over on arrival is kept, and not replaced by more of the same at once.
        let over = new.access.is_none() || new.expires.is_some_and(|expires| expires <= now);
        let failures = claim.credential.rotation.failures;
        let not_before = over.then(|| now + self.pause(failures, None));
        let (rotation, _) = claim
            .credential
            .rotation
            .on(Event::Granted { not_before }, claim.fence, now)
            .map_err(|_| Unsettled::Superseded)?;
        let mut credential = Credential {
            rotation,
            refreshed: now,
            expires: new.expires,
            ..claim.credential.clone()
        };
        if let Some(scopes) = new.scopes {
            credential.scopes = scopes;
        }
        if let Some(token_type) = new.token_type {
            credential.token_type = token_type;
        }
        for (fact, value) in new.account {
            credential.account.retain(|(known, _)| *known != fact);
            credential.account.push((fact, value));
        }
        bounded_account(&mut credential.account);
        // An answer without a refresh token keeps the old one (RFC 6749 section 6).
        let kept = || {
            old.refresh
                .as_ref()
                .filter(|_| !self.planted(Planted::BlankRefresh))
                .map(|token| Secret::new(token.expose(Exposure::Seal).to_vec()))
        };
        let secret = CredentialSecret {
            generation: credential.rotation.generation,
            access: new.access,
            refresh: new.refresh.or_else(kept),
            aws: None,
        };
        let key = keys::credential_secret(credential.org, credential.id);
        let before = self.lineage(&credential).await?;
        let origin = match claim.begin {
            Some(_) => Origin::Refreshed,
            None => Origin::Recovered,
        };
        let lineage = before.with(
            linked(&credential, &secret, origin, Some(claim.fence)),
            new.refresh_expires,
        );
        let changes = || {
            let changes = self.settled(&credential).put(&key, &secret);
            descended(changes, &credential, &before, &lineage)
        };
        self.put_surely(&credential, claim.revision, changes).await?;
        self.tell(&claim.credential, &credential);
        self.finish(&credential, claim.fence, claim.begin, Outcome::Allowed)
            .await?;
        Ok(Landing::Renewed)
    }
}

fn is_same(old: &CredentialSecret, new: &Secret<RefreshToken>) -> bool {
    let why = Exposure::Inspect;
    old.refresh
        .as_ref()
        .is_some_and(|old| old.expose(why) == new.expose(why))
}

/// What a new generation consists of.
struct NewSecret {
    access: Option<Secret<AccessToken>>,
    refresh: Option<Secret<RefreshToken>>,
    expires: Option<Time>,
    refresh_expires: Option<Time>,
    scopes: Option<Vec<String>>,
    token_type: Option<String>,
    account: Vec<(String, String)>,
}
