//! One flight: claim, exchange, stage, adopt; each step durable before the next.

use std::time::Duration;

use super::breaker::{Pass, Said};
use super::flights::Landing;
use super::leave::is_harmless;
use super::places::Place;
use super::told::{refresh_record, stopped, waiting};
use super::{Held, Need, Planted, Refresher};
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::{Outcome, Phase as JournalPhase, Position};
use crate::domain::pace::back_off;
use crate::domain::pace::breaker::Heard;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Event, Fence, Phase, ResendRule, Rotation, Step};
use crate::domain::time::Time;
use crate::service::effect::no_room;
use crate::store::model::{Mark, StagedAnswer};
use crate::store::record::{Changes, Stored};
use crate::store::{Revision, keys};
use crate::upstream::connector::Connector;
use crate::upstream::{Delivery, RefreshRequest};

/// How often a flight begins again when the credential changes under it, or sends again.
const ATTEMPTS: usize = 8;
/// How often one flight sends again what may be sent again without harm, and after which rest at most.
const RESENDS: usize = 3;
const RESEND_REST: Duration = Duration::from_secs(1);
/// A credential on its way through an exchange: what the store has, and at which revision.
pub(super) struct Claim {
    pub(super) credential: Credential,
    pub(super) revision: Revision,
    pub(super) fence: Fence,
    /// The begin record, where this run of the broker wrote one.
    pub(super) begin: Option<Position>,
    /// The leave of the connector's breaker, until it was told what came of it.
    pub(super) pass: Option<Pass>,
}

/// Why a flight was begun.
pub(super) enum Why {
    /// Somebody needs a newer generation now.
    Asked,
    /// Nobody asked: the last run left it ambiguous, and sending again is harmless.
    Resumed,
    /// Nobody does yet. It came with its place, and keeps it to its end.
    Ahead {
        /// Held, not looked at.
        _place: Place,
    },
}

/// What a flight carries from one attempt to the next.
pub(super) struct Leg {
    pub(super) why: Why,
    /// The place that it has, from its first sending to its end.
    pub(super) place: Option<Place>,
    /// Whether it may send only what does no harm, because what anybody needs was tried already.
    pub(super) harmless_only: bool,
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
    pub(super) async fn fly(&self, org: OrgId, id: CredentialId, need: Need, why: Why) -> Landing {
        let mut leg = Leg {
            harmless_only: matches!(why, Why::Resumed),
            why,
            place: None,
        };
        let mut resends = 0;
        for _ in 0..ATTEMPTS {
            match self.attempt(org, id, need, &mut leg).await {
                Ok(landing @ Landing::Refused(_)) if resends < RESENDS => match self.resend(org, id).await {
                    Some(rest) => {
                        resends += 1;
                        leg.harmless_only = true;
                        tokio::time::sleep(rest).await;
                    }
                    None => return landing,
                },
                Ok(landing) => return landing,
                Err(Unsettled::Superseded) => {}
                Err(Unsettled::Refused(refusal)) => return Landing::refused(refusal),
            }
        }
        Landing::refused(Refusal::new(Reason::Conflict, "the credential keeps changing"))
    }

    /// After which rest the flight itself sends an ambiguous grant once more: where that is harmless. A grace
    /// window may be over before anybody asks again.
    pub(super) async fn resend(&self, org: OrgId, id: CredentialId) -> Option<Duration> {
        let held = self.held(org, id).await.ok()?;
        let credential = &held.credential.value;
        let connector = self.parts.connectors.get(&credential.connector)?;
        let Phase::Ambiguous { sent, not_before, .. } = &credential.rotation.phase else {
            return None;
        };
        let rest = not_before.since(self.now());
        (rule(connector).harmless(*sent, *not_before) && rest <= RESEND_REST).then_some(rest)
    }

    async fn attempt(
        &self,
        org: OrgId,
        id: CredentialId,
        need: Need,
        leg: &mut Leg,
    ) -> Result<Landing, Unsettled> {
        let held = self.held(org, id).await?;
        let met = need.met_by(&held, self.now(), self.rules(&held.credential.value));
        if met && !self.planted(Planted::SkipReread) {
            return Ok(Landing::Current);
        }
        let connector = self.usable_connector(&held.credential.value)?;
        // Only what is to be sent needs a place and leave to send. Both come before the claim, so that a claim is never
        // old before it is used.
        let mut leave = None;
        if let Some((_, Step::Exchange(_))) = self.needed(&held, connector, self.now()) {
            self.ready(&held.credential.value, connector).await?;
            leave = Some(self.leave(&held.credential.value, connector, leg).await?);
        }
        let now = self.now();
        let Some((next, step)) = self.needed(&held, connector, now) else {
            return Err(Unsettled::Superseded);
        };
        match step {
            // The window has closed while a place was waited for: whoever needs the grant decides.
            Step::Exchange(_)
                if leg.harmless_only && !is_harmless(&held.credential.value, connector, now) =>
            {
                Ok(Landing::refused(waiting(&held.credential.value, now, now)))
            }
            Step::Exchange(fence) => {
                // A pause has ended this very moment: once more, with a place.
                let Some(pass) = leave else {
                    return Err(Unsettled::Superseded);
                };
                let claim = self.claim(&held, next, fence, &leg.why).await?;
                let claim = Claim {
                    pass: Some(pass),
                    ..claim
                };
                let begin = claim.begin;
                let landing = self.exchange(claim, &held, connector).await;
                let known = match &landing {
                    Err(Unsettled::Superseded) => Some(Reason::Conflict),
                    // Nothing was written, so what became of it is known: nothing but that it was sent.
                    Err(Unsettled::Refused(refusal)) if refusal.reason == Reason::Overloaded => {
                        Some(Reason::Overloaded)
                    }
                    _ => None,
                };
                if let Some(reason) = known {
                    let outcome = Outcome::Failed(reason);
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
                    pass: None,
                };
                self.adopt(claim, &held.secret.value, connector, answer).await
            }
            Step::Wait(until) => {
                if next != held.credential.value.rotation {
                    self.abandoned(&held.credential.value).await?;
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

    /// What follows from a need at `now`; `None` where the state says that something else happened.
    fn needed(&self, held: &Held, connector: &Connector, now: Time) -> Option<(Rotation, Step)> {
        let event = Event::Needed {
            by: self.parts.incarnation,
            deadline: now + self.parts.settings.load().exchange_timeout,
            rule: rule(connector),
        };
        let rotation = self.impatient(&held.credential.value.rotation);
        rotation.on(event, Fence(0), now).ok()
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
    async fn claim(
        &self,
        held: &Held,
        rotation: Rotation,
        fence: Fence,
        why: &Why,
    ) -> Result<Claim, Unsettled> {
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
        let mut record = refresh_record(&credential, fence).phase(JournalPhase::Begin);
        if let Why::Ahead { .. } = why {
            record = record.about("because", "ahead");
        }
        let begin = self.parts.journal.append(&record).await?;
        let mark = Mark { since: self.now() };
        let changes = Changes::default().put(&keys::exchange(credential.org, credential.id), &mark);
        match self.put(&credential, held.credential.revision, changes).await {
            Ok(revision) => Ok(Claim {
                credential,
                revision,
                fence,
                begin: Some(begin),
                pass: None,
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

    async fn exchange(
        &self,
        mut claim: Claim,
        held: &Held,
        connector: &Connector,
    ) -> Result<Landing, Unsettled> {
        let Some(refresh_token) = &held.secret.value.refresh else {
            let event = Event::Lost {
                message: "the credential has no refresh token".to_owned(),
                rule: rule(connector),
                retry_after: None,
            };
            return self.settle(claim, event).await;
        };
        // An answer that is waited for past the grace window cannot be asked for again.
        let answer_within = match (&claim.credential.rotation.phase, connector.grace) {
            (Phase::Claimed { sent, .. }, Some(grace)) if connector.rotates && sent.unanswered == 0 => {
                Some(grace / 2)
            }
            _ => None,
        };
        let request = RefreshRequest {
            connector,
            refresh_token,
            scopes: &claim.credential.scopes,
            answer_within,
        };
        let sent = self.parts.endpoint.refresh(request);
        // The endpoint keeps its own time; this holds even if it does not.
        let limit = self.parts.settings.load().exchange_timeout + Duration::from_secs(5);
        let delivery = tokio::time::timeout(self.patience(limit), sent)
            .await
            .unwrap_or_else(|_| Delivery::Lost("no answer in time".to_owned()));
        match self.misread(delivery) {
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
                let claimed = claim.credential.clone();
                let claim = match self.stage(claim, &answer).await {
                    Err(Unsettled::Superseded) => {
                        // Somebody disconnected the account meanwhile: what the answer brings is theirs to revoke.
                        self.parts.revoker.orphaned(&claimed, connector, &answer).await?;
                        return Err(Unsettled::Superseded);
                    }
                    staged => staged?,
                };
                self.adopt(claim, &held.secret.value, connector, answer).await
            }
            Delivery::NotSent(message) => {
                claim.heard(Heard::Failed { retry_after: None }, &message);
                let not_before = self.now() + self.pause(claim.credential.rotation.failures, None);
                self.settle(claim, Event::NotProcessed { not_before, message })
                    .await
            }
            Delivery::Lost(message) => {
                claim.heard(Heard::Failed { retry_after: None }, &message);
                let event = Event::Lost {
                    message,
                    rule: rule(connector),
                    retry_after: None,
                };
                self.settle(claim, event).await
            }
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
        if self.planted(Planted::Unstaged) {
            return Ok(Claim { credential, ..claim });
        }
        let key = keys::credential_answer(credential.org, credential.id);
        let changes = || Changes::default().put(&key, answer);
        let revision = self.put_surely(&credential, claim.revision, changes).await?;
        Ok(Claim {
            credential,
            revision,
            ..claim
        })
    }

    /// How long the credential pauses after an exchange that was not processed.
    pub(super) fn pause(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        back_off(failures, (self.parts.jitter)(), retry_after)
    }
}

impl Claim {
    /// Tells the connector's breaker what the connection showed.
    fn heard(&mut self, heard: Heard, said: &str) {
        if let Some(pass) = self.pass.take() {
            pass.tell(heard, said, Said::Broker);
        }
    }
}

/// What a connector says about sending a refresh token twice.
pub(super) fn rule(connector: &Connector) -> ResendRule {
    ResendRule {
        rotates: connector.rotates,
        grace: connector.grace,
    }
}
