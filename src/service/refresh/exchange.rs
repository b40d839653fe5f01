//! One flight: claim, exchange, stage, adopt; each step durable before the next.

use std::sync::Arc;
use std::time::Duration;

use super::flights::Landing;
use super::{Held, Need, Planted, Refresher};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::{Action, Outcome, Phase as JournalPhase, Position, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{AMBIGUOUS_REST_MAX, Death, Event, Fence, Phase, ResendRule, Rotation, Step};
use crate::domain::time::Time;
use crate::service::effect::{append_finish, no_room};
use crate::store::model::{Mark, StagedAnswer};
use crate::store::record::{Changes, Stored};
use crate::store::{Commit, Revision, keys};
use crate::upstream::connector::Connector;
use crate::upstream::{Delivery, RefreshRequest};

/// How often a flight begins again when the credential changes under it.
const ATTEMPTS: usize = 8;
/// The first pause after an exchange that was not processed; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause, also for what the provider asks with `Retry-After`.
const PAUSE_MAX: Duration = AMBIGUOUS_REST_MAX;

/// How often, and after which pause each time, an outcome is offered to a store that is overloaded: for half a
/// minute.
const PUT_ATTEMPTS: usize = 600;
const PUT_PAUSE: Duration = Duration::from_millis(50);

/// A credential on its way through an exchange: what the store has, and at which revision.
pub(super) struct Claim {
    pub(super) credential: Credential,
    pub(super) revision: Revision,
    pub(super) fence: Fence,
    /// The begin record, where this run of the broker wrote one.
    pub(super) begin: Option<Position>,
}

/// The claim was lost: somebody replaced or removed the credential meanwhile. Nothing was changed.
pub(super) enum Unsettled {
    Superseded,
    Refused(Refusal),
}

impl<E: Into<Refusal>> From<E> for Unsettled {
    fn from(error: E) -> Self {
        Unsettled::Refused(error.into())
    }
}

impl Refresher {
    pub(super) async fn fly(&self, org: OrgId, id: CredentialId, need: Need) -> Landing {
        for _ in 0..ATTEMPTS {
            match self.attempt(org, id, need).await {
                Ok(landing) => return landing,
                Err(Unsettled::Superseded) => {}
                Err(Unsettled::Refused(refusal)) => return Landing::refused(refusal),
            }
        }
        Landing::refused(Refusal::new(Reason::Conflict, "the credential keeps changing"))
    }

    async fn attempt(&self, org: OrgId, id: CredentialId, need: Need) -> Result<Landing, Unsettled> {
        let held = self.held(org, id).await?;
        let met = need.met_by(&held, self.now(), self.rules(&held.credential.value));
        if met && !self.planted(Planted::SkipReread) {
            return Ok(Landing::Current);
        }
        let connector = self.usable_connector(&held.credential.value)?;
        // Waiting for a place comes before the claim, so that a claim is never old before it is used.
        let _place =
            self.exchanges.acquire().await.map_err(|_| {
                Unsettled::Refused(Refusal::new(Reason::ShuttingDown, "the broker is stopping"))
            })?;
        let now = self.now();
        let event = Event::Needed {
            by: self.parts.incarnation,
            deadline: now + self.parts.settings.load().exchange_timeout,
            rule: ResendRule {
                rotates: connector.rotates && !self.planted(Planted::NoRest),
                grace: connector.grace,
            },
        };
        let Ok((next, step)) = held.credential.value.rotation.on(event, Fence(0), now) else {
            return Err(Unsettled::Superseded);
        };
        match step {
            Step::Exchange(fence) => {
                let claim = self.claim(&held, next, fence).await?;
                let begin = claim.begin;
                let landing = self.exchange(claim, &held, connector).await;
                if let Err(Unsettled::Superseded) = landing {
                    let outcome = Outcome::Failed(Reason::Conflict);
                    self.finish(&held.credential.value, fence, begin, outcome).await?;
                }
                landing
            }
            Step::Adopt(fence) => {
                let answer = self.staged(org, id).await?;
                let Stored {
                    value: credential,
                    revision,
                } = held.credential;
                let credential = Credential::clone(&credential);
                let claim = Claim {
                    credential,
                    revision,
                    fence,
                    begin: None,
                };
                self.adopt(claim, &held.secret.value, connector, answer).await
            }
            Step::Wait(until) => {
                if next != held.credential.value.rotation {
                    let credential = Credential {
                        rotation: next,
                        ..Credential::clone(&held.credential.value)
                    };
                    self.put(&credential, held.credential.revision, Changes::default())
                        .await?;
                    self.tell(&held.credential.value, &credential);
                    return Ok(Landing::refused(waiting(&credential, until, now)));
                }
                Ok(Landing::refused(waiting(&held.credential.value, until, now)))
            }
            Step::Rest | Step::Stop => Ok(Landing::refused(stopped(&held.credential.value))),
        }
    }

    fn usable_connector(&self, credential: &Credential) -> Result<&Connector, Refusal> {
        let name = &credential.connector;
        let connector = self.parts.connectors.get(name).ok_or_else(|| {
            Refusal::new(
                Reason::ConnectorUnknown,
                format!("connector {name} is no longer configured"),
            )
        })?;
        connector
            .usable()
            .map_err(|off| Refusal::new(Reason::ConnectorDisabled, format!("connector {name}: {off}")))?;
        Ok(connector)
    }

    /// The begin record, then the claim: both durable before anything is sent.
    async fn claim(&self, held: &Held, rotation: Rotation, fence: Fence) -> Result<Claim, Unsettled> {
        let credential = Credential {
            rotation,
            ..Credential::clone(&held.credential.value)
        };
        // An exchange is begun only with room for its answer.
        if !self
            .parts
            .records
            .has_room(self.parts.settings.load().reserved_bytes)
        {
            return Err(Unsettled::Refused(no_room()));
        }
        let record = refresh_record(&credential, fence).phase(JournalPhase::Begin);
        let begin = self.parts.journal.append(&record).await?;
        let mark = Mark { since: self.now() };
        let changes = Changes::default().put(&keys::exchange(credential.org, credential.id), &mark);
        match self.put(&credential, held.credential.revision, changes).await {
            Ok(revision) => Ok(Claim {
                credential,
                revision,
                fence,
                begin: Some(begin),
            }),
            Err(unsettled) => {
                let reason = match &unsettled {
                    Unsettled::Superseded => Reason::Conflict,
                    Unsettled::Refused(refusal) => refusal.reason,
                };
                self.finish(&credential, fence, Some(begin), Outcome::Failed(reason))
                    .await?;
                Err(unsettled)
            }
        }
    }

    async fn exchange(&self, claim: Claim, held: &Held, connector: &Connector) -> Result<Landing, Unsettled> {
        let Some(refresh_token) = &held.secret.value.refresh else {
            let event = Event::Lost {
                message: "the credential has no refresh token".to_owned(),
            };
            return self.settle(claim, event).await;
        };
        let request = RefreshRequest {
            connector,
            refresh_token,
            scopes: &claim.credential.scopes,
        };
        let sent = self.parts.endpoint.refresh(request);
        // The endpoint keeps its own time; this holds even if it does not.
        let mut limit = self.parts.settings.load().exchange_timeout + Duration::from_secs(5);
        if self.planted(Planted::NoTimeout) {
            limit *= 1_000_000;
        }
        let delivery = tokio::time::timeout(limit, sent)
            .await
            .unwrap_or_else(|_| Delivery::Lost("no answer in time".to_owned()));
        match delivery {
            Delivery::Answered {
                status,
                retry_after,
                body,
            } => {
                let answer = StagedAnswer {
                    fence: claim.fence.0,
                    status,
                    retry_after_ms: retry_after
                        .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
                    body,
                    received: self.now(),
                };
                let claim = if self.planted(Planted::Unstaged) {
                    unstaged(claim)
                } else {
                    self.stage(claim, &answer).await?
                };
                self.adopt(claim, &held.secret.value, connector, answer).await
            }
            Delivery::Lost(message) if self.planted(Planted::LostIsNotProcessed) => {
                let not_before = self.now();
                self.settle(claim, Event::NotProcessed { not_before, message })
                    .await
            }
            Delivery::NotSent(message) => {
                let not_before = self.now() + self.pause(claim.credential.rotation.failures, None);
                self.settle(claim, Event::NotProcessed { not_before, message })
                    .await
            }
            Delivery::Lost(message) => self.settle(claim, Event::Lost { message }).await,
        }
    }

    /// Stores the answer, sealed and unparsed. From here on no crash loses it.
    async fn stage(&self, claim: Claim, answer: &StagedAnswer) -> Result<Claim, Unsettled> {
        let (rotation, _) = claim
            .credential
            .rotation
            .on(Event::Answered, claim.fence, self.now())
            .map_err(|_| Unsettled::Superseded)?;
        let credential = Credential {
            rotation,
            ..claim.credential
        };
        let key = keys::credential_answer(credential.org, credential.id);
        let changes = || Changes::default().put(&key, answer);
        let revision = self.put_surely(&credential, claim.revision, changes).await?;
        Ok(Claim {
            credential,
            revision,
            ..claim
        })
    }

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
        let unwaited = match credential.rotation.phase {
            Phase::Live { .. } => self.planted(Planted::WakeEarly),
            Phase::Claimed { .. } => self.planted(Planted::ClaimAfterSending),
            _ => false,
        };
        if unwaited {
            let records = Arc::clone(&self.parts.records);
            tokio::spawn(async move { records.commit(changes).await });
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
        let phase = begin.map_or(JournalPhase::Single, JournalPhase::Finish);
        let record = refresh_record(credential, fence).phase(phase).outcome(outcome);
        append_finish(&self.parts.journal, &record).await?;
        Ok(())
    }

    /// How long to pause after an exchange that was not processed: what the provider asks for, or an
    /// exponential pause with full jitter.
    pub(super) fn pause(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        if let Some(after) = retry_after {
            return after.min(PAUSE_MAX);
        }
        let ceiling = PAUSE.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
        let mut random = [0; 4];
        // Without randomness the pause is the longest of those that jitter chooses from.
        let part = self
            .random
            .fill(&mut random)
            .map_or(u32::MAX, |()| u32::from_be_bytes(random));
        ceiling.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

pub(super) fn refresh_record(credential: &Credential, fence: Fence) -> Record {
    Record::new(Action::Refresh, "broker", Some(credential.org))
        .about("credential", credential.id)
        .about("provider", &credential.provider)
        .about("connector", &credential.connector)
        .about("generation", credential.rotation.generation)
        .about("fence", fence.0)
}

/// The claim as if its answer had been staged.
fn unstaged(mut claim: Claim) -> Claim {
    if let Phase::Claimed { sent, .. } = claim.credential.rotation.phase {
        claim.credential.rotation.phase = Phase::Staged { sent };
    }
    claim
}

/// Why a caller has to wait.
fn waiting(credential: &Credential, until: Time, now: Time) -> Refusal {
    let (reason, what) = match credential.rotation.phase {
        Phase::Live { .. } => (
            Reason::RefreshUnavailable,
            "the provider did not process the refresh",
        ),
        _ => (
            Reason::RefreshAmbiguous,
            "a refresh was sent and its answer is not known",
        ),
    };
    let message = credential.rotation.message();
    Refusal::new(
        reason,
        if message.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {message}")
        },
    )
    .retry_after(until.since(now).max(Duration::from_millis(100)))
    .with("credential", credential.id.to_string())
    .with("provider_message", message)
}

/// Why a caller need not wait.
pub(in crate::service) fn stopped(credential: &Credential) -> Refusal {
    let message = credential.rotation.message();
    let what = match &credential.rotation.phase {
        Phase::Dead {
            cause: Death::AnswerLost,
            ..
        } => "the answer to a refresh was lost, and the provider no longer accepts the grant",
        _ => "the provider no longer accepts the grant",
    };
    Refusal::new(Reason::ReauthRequired, format!("{what}: {message}"))
        .with("credential", credential.id.to_string())
        .with("provider_message", message)
}
