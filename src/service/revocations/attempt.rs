//! One try: each token that is left is presented to the provider, and what it says is written down.
//!
//! The begin record is durable before anything is sent, and each try has its finish, so that the journal has what came of
//! every try; as their number is bounded, a provider that is down does not fill it.

use std::sync::Arc;
use std::time::Duration;

use super::tokens::Tokens;
use super::{Revoker, Subject, added, in_queue};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId, RevocationId};
use crate::domain::journal::{Action, Outcome, Phase, Record};
use crate::domain::lineage::Fingerprint;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::revocation::{Event, Fate, Heard, Revocation};
use crate::domain::secret::Exposure;
use crate::journal::Entry;
use crate::service::effect::append_finish;
use crate::store::model::{
    CredentialSecret, KeptToken, Pointer, RevocationDue, RevocationSecret, StagedAnswer,
};
use crate::store::record::Changes;
use crate::store::{Commit, Revision, StoreError, keys};
use crate::upstream::answer::{MAX_MESSAGE, RevocationAnswer, classify_revocation};
use crate::upstream::connector::Connector;
use crate::upstream::oauth::{GrantToken, RevocationRequest};
use crate::upstream::{Delivery, redact_known};

/// How often, and after which pause each time, what a provider confirmed is offered to a store that is overloaded.
const COMMITS: usize = 100;
const COMMIT_PAUSE: Duration = Duration::from_millis(50);

/// A revocation on its way through a try: as the store has it, and with its tokens.
struct Trying {
    revocation: Revocation,
    revision: Revision,
    secret: RevocationSecret,
}

impl Revoker {
    /// Tries a revocation, unless it has ended.
    pub(super) async fn attempt(&self, org: OrgId, id: RevocationId) -> Result<(), Refusal> {
        let key = keys::revocation(org, id);
        let Some(stored) = self.parts.records.get::<Revocation>(&key).await? else {
            return Ok(());
        };
        if stored.value.ended.is_some() {
            return Ok(());
        }
        let secret = self
            .parts
            .records
            .get::<RevocationSecret>(&keys::revocation_secret(org, id))
            .await?;
        let mut trying = Trying {
            revocation: Revocation::clone(&stored.value),
            revision: stored.revision,
            secret: secret
                .and_then(|secret| Arc::into_inner(secret.value))
                .unwrap_or_default(),
        };
        let connector = match self.connector(&trying.revocation.connector) {
            Ok(connector) => connector,
            Err(message) => return self.not_now(&mut trying, message).await,
        };
        if trying.revocation.with_credential {
            self.gather(&mut trying, connector).await?;
        }
        self.commit(&mut trying, Event::Begun).await?;
        if trying.revocation.ended.is_some() {
            return Ok(());
        }
        if let Some(why) = self.kept_again(&trying).await? {
            return self.commit(&mut trying, Event::Pointless(why)).await;
        }
        match self.parts.oauth.revocation_endpoint(connector).await {
            Ok(Some(_)) => self.ask(&mut trying, connector).await,
            Ok(None) => {
                let why = "the provider has no way to revoke tokens that is known".to_owned();
                self.commit(&mut trying, Event::Pointless(why)).await
            }
            Err(message) => self.not_now(&mut trying, message).await,
        }
    }

    /// The connector, usable; otherwise why it is not. The operator may mend that.
    fn connector(&self, name: &str) -> Result<&Connector, String> {
        let connector = self.parts.connectors.get(name);
        let connector = connector.ok_or_else(|| format!("connector {name} is not configured any more"))?;
        connector
            .usable()
            .map_err(|off| format!("connector {name}: {off}"))?;
        Ok(connector)
    }

    async fn not_now(&self, trying: &mut Trying, message: String) -> Result<(), Refusal> {
        let Some(place) = trying.revocation.next_token() else {
            // It never had any.
            return self.commit(trying, Event::Gathered(Vec::new())).await;
        };
        let retry_after = None;
        let heard = Heard::NotNow { message, retry_after };
        self.commit(trying, Event::Heard(place, heard)).await
    }

    /// Takes the tokens from where the credential left them: out of its secret, and out of an answer that was staged and
    /// not adopted.
    async fn gather(&self, trying: &mut Trying, connector: &Connector) -> Result<(), Refusal> {
        let org = trying.revocation.org;
        let Some(credential) = trying.revocation.credential else {
            return Ok(());
        };
        let records = &self.parts.records;
        let (secret_at, answer_at) = (
            keys::credential_secret(org, credential),
            keys::credential_answer(org, credential),
        );
        let secret = records.get::<CredentialSecret>(&secret_at).await?;
        let staged = records.get::<StagedAnswer>(&answer_at).await?;
        let tokens = match &secret {
            Some(secret) => Tokens::left(
                connector,
                &secret.value,
                staged.as_ref().map(|staged| &*staged.value),
                &trying.revocation.tokens,
            ),
            None => Tokens::default(),
        };
        let (told, kept) = tokens.into_parts();
        trying.secret = kept;
        self.commit(trying, Event::Gathered(told)).await
    }

    /// Why the tokens must not be revoked: somebody signed in again with the very same grant, and it is in use.
    async fn kept_again(&self, trying: &Trying) -> Result<Option<String>, Refusal> {
        let org = trying.revocation.org;
        for token in trying
            .secret
            .tokens
            .iter()
            .filter_map(|token| token.refresh.as_ref())
        {
            let place = keys::grant(org, Fingerprint::of_refresh(org, token));
            let Some(pointer) = self.parts.records.get::<Pointer>(&place).await? else {
                continue;
            };
            let by = CredentialId::from_bytes(*pointer.value.id);
            let key = keys::credential(org, by);
            if self.parts.records.get::<Credential>(&key).await?.is_some() {
                return Ok(Some(format!("the same grant was brought in again, as {by}")));
            }
        }
        Ok(None)
    }

    /// Presents what is left, token by token, until the provider has answered for all or cannot answer now.
    async fn ask(&self, trying: &mut Trying, connector: &Connector) -> Result<(), Refusal> {
        if trying.revocation.next_token().is_none() {
            return Ok(());
        }
        let record = record(&trying.revocation);
        let begin = self
            .parts
            .journal
            .append(&record.clone().phase(Phase::Begin))
            .await?;
        let asked = self.ask_each(trying, connector).await;
        let outcome = match &asked {
            Ok(()) => outcome(&trying.revocation),
            Err(refusal) => Outcome::Failed(refusal.reason),
        };
        let mut finish = record.phase(Phase::Finish(begin)).outcome(outcome);
        for token in &trying.revocation.tokens {
            finish = finish.about(token.kind.name(), token.fate.name());
        }
        append_finish(&self.parts.journal, &finish).await?;
        asked
    }

    async fn ask_each(&self, trying: &mut Trying, connector: &Connector) -> Result<(), Refusal> {
        let attempts = trying.revocation.attempts;
        while let Some(place) = trying.revocation.next_token() {
            let token = trying.secret.tokens.iter().find(|token| is_at(token, place));
            let heard = match token.and_then(presented) {
                Some(token) => self.present(connector, token).await,
                None => Heard::Unsupported {
                    message: "the token is not kept any more".to_owned(),
                },
            };
            self.commit(trying, Event::Heard(place, heard)).await?;
            if trying.revocation.attempts != attempts {
                break;
            }
        }
        Ok(())
    }

    async fn present(&self, connector: &Connector, token: GrantToken<'_>) -> Heard {
        let known = match &token {
            GrantToken::Refresh(token) => token.expose(Exposure::Inspect).to_vec(),
            GrantToken::Access(token) => token.expose(Exposure::Inspect).to_vec(),
        };
        let known = zeroize::Zeroizing::new(known);
        let plain = |message: String| redact_known(&message, &[known.as_slice()], MAX_MESSAGE);
        let not_now = |message, retry_after| Heard::NotNow {
            message: plain(message),
            retry_after,
        };
        let delivery = self
            .parts
            .oauth
            .revoke(RevocationRequest { connector, token })
            .await;
        match delivery {
            Delivery::NotSent(message) | Delivery::Lost(message) => not_now(message, None),
            Delivery::Answered {
                status,
                retry_after,
                body,
            } => match classify_revocation(connector, status, retry_after, &body) {
                RevocationAnswer::Revoked => Heard::Revoked {
                    with_grant: connector.revoke_ends_access,
                },
                RevocationAnswer::Unsupported { code } => Heard::Unsupported { message: plain(code) },
                RevocationAnswer::NotNow { retry_after, message } => not_now(message, retry_after),
                RevocationAnswer::Refused { code, message } => Heard::Refused {
                    message: plain(if message.is_empty() || message == code {
                        code
                    } else {
                        format!("{code}: {message}")
                    }),
                },
            },
        }
    }

    /// Writes down what follows from `event`, and wipes the tokens that were dealt with.
    async fn commit(&self, trying: &mut Trying, event: Event) -> Result<(), Refusal> {
        let before = &trying.revocation;
        let next = before.on(event, self.now(), (self.parts.jitter)());
        if next == *before {
            return Ok(());
        }
        let Revocation { org, id, .. } = next;
        let had = trying.secret.tokens.len();
        let gathered = before.with_credential && !next.with_credential;
        trying.secret.tokens.retain(|token| is_pending(&next, token));
        let secret_changed = gathered || had != trying.secret.tokens.len();
        let (key, secret_at) = (keys::revocation(org, id), keys::revocation_secret(org, id));
        let changes = || {
            let mut changes = Changes::default().at(&key, trying.revision).put(&key, &next);
            if secret_changed && trying.secret.tokens.is_empty() {
                changes = changes.delete::<RevocationSecret>(&secret_at);
            } else if secret_changed {
                changes = changes.put(&secret_at, &trying.secret);
            }
            if let Some(credential) = next.credential.filter(|_| gathered) {
                changes = changes
                    .delete::<CredentialSecret>(&keys::credential_secret(org, credential))
                    .delete::<StagedAnswer>(&keys::credential_answer(org, credential));
            }
            if before.next != next.next {
                if let Some(due) = before.next {
                    changes = changes.delete::<RevocationDue>(&keys::revocation_due(due, org, id));
                }
                changes = in_queue(changes, &next);
            }
            changes
        };
        let revision = self.commit_surely(changes).await?;
        let known = &before.tokens;
        for (place, token) in next.tokens.iter().enumerate() {
            let was = known.get(place).map_or(Fate::Pending, |token| token.fate);
            if was == Fate::Pending && token.fate != Fate::Pending {
                self.parts.metrics.token_revocation(token.fate.name());
            }
        }
        (trying.revision, trying.revocation) = (revision, next);
        self.told.send_modify(|told| *told = told.wrapping_add(1));
        Ok(())
    }

    /// Commits what must not be lost for want of a place in the store's queue.
    pub(super) async fn commit_surely(&self, changes: impl Fn() -> Changes) -> Result<Revision, Refusal> {
        for left in (0..COMMITS).rev() {
            match self.parts.records.commit(changes()).await {
                Ok(Commit::Applied(revision)) => return Ok(revision),
                // One try of a revocation runs at a time, and nobody else changes one.
                Ok(Commit::Conflict) => break,
                Err(StoreError::Overloaded) if left > 0 => tokio::time::sleep(COMMIT_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::new(
            Reason::Conflict,
            "the revocation was changed by someone else meanwhile",
        ))
    }

    /// Has revoked what an exchange brought whose credential was disconnected meanwhile. Only the process that sent it
    /// knows of its answer: a crash before this is committed leaves those tokens to expire.
    pub(in crate::service) async fn orphaned(
        &self,
        credential: &Credential,
        connector: &Connector,
        answer: &StagedAnswer,
    ) -> Result<(), Refusal> {
        let Credential { org, id, owner, .. } = *credential;
        let key = keys::revocation_of(org, id);
        // Removed without, or replaced by another grant: then it is not ours to end.
        if self.parts.records.get::<Pointer>(&key).await?.is_none() {
            return Ok(());
        }
        let tokens = Tokens::of_answer(connector, answer);
        if tokens.is_empty() {
            return Ok(());
        }
        let (told, secret) = tokens.into_parts();
        let subject = Subject {
            org,
            member: owner.member(),
            connector: credential.connector.clone(),
            credential: Some(id),
        };
        let revocation = self.begun(subject, told)?;
        let changes = || added(Changes::default(), &revocation, &secret);
        self.commit_surely(changes).await?;
        tracing::info!(revocation = %revocation.id, credential = %id, "an exchange ended after its credential was disconnected");
        self.wake();
        Ok(())
    }

    /// What became of the try that `entry`, its begin record, speaks of. What was sent and not written down is sent again.
    pub(in crate::service) async fn outcome_of(&self, entry: &Entry) -> Result<Outcome, Refusal> {
        let unknown = Outcome::Failed(Reason::RevocationUnavailable);
        let id = entry.about("revocation").and_then(|text| text.parse().ok());
        let (Some(org), Some(id)) = (entry.org, id) else {
            return Ok(unknown);
        };
        let stored = self
            .parts
            .records
            .get::<Revocation>(&keys::revocation(org, id))
            .await?;
        Ok(stored.map_or(unknown, |stored| outcome(&stored.value)))
    }
}

fn is_at(token: &KeptToken, place: usize) -> bool {
    usize::try_from(token.place) == Ok(place)
}

fn is_pending(revocation: &Revocation, token: &KeptToken) -> bool {
    let mut tokens = revocation.tokens.iter().enumerate();
    tokens.any(|(place, told)| is_at(token, place) && told.fate == Fate::Pending)
}

fn presented(token: &KeptToken) -> Option<GrantToken<'_>> {
    let access = token.access.as_ref().map(GrantToken::Access);
    token.refresh.as_ref().map(GrantToken::Refresh).or(access)
}

fn record(revocation: &Revocation) -> Record {
    let record = Record::new(Action::TokenRevoke, "broker", Some(revocation.org))
        .about("revocation", revocation.id)
        .about("connector", &revocation.connector)
        .about("attempt", u64::from(revocation.attempts) + 1);
    match revocation.credential {
        Some(credential) => record.about("credential", credential),
        None => record,
    }
}

/// How a try ended, as the journal has it.
fn outcome(revocation: &Revocation) -> Outcome {
    let any = |fate| revocation.tokens.iter().any(|token| token.fate == fate);
    if any(Fate::Pending) {
        Outcome::Failed(Reason::RevocationUnavailable)
    } else if any(Fate::GivenUp) {
        Outcome::Failed(Reason::RevocationRefused)
    } else {
        Outcome::Allowed
    }
}
