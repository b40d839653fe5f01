//! A reported rejection: the generation that replaces the rejected one.

use std::sync::Arc;
use std::time::Duration;

use super::lease::handed;
use super::{ATTEMPTS, ResolveInput, Whose, checked_request_id, shown};
use crate::domain::actor::Caller;
use crate::domain::conditions::{Condition, reason};
use crate::domain::credential::Credential;
use crate::domain::decision::Decision;
use crate::domain::id::{OrgId, ProjectId, TaskId};
use crate::domain::journal::{Action, Outcome, Position, Record};
use crate::domain::lease::{Handed, Lease};
use crate::domain::managed::Pool;
use crate::domain::mode::CredentialKind;
use crate::domain::profile::OnRejection;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Row;
use crate::domain::task::{Task, TaskClaims};
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::service::lease::{Material, Vended, holder};
use crate::service::refresh::Need;
use crate::store::keys;
use crate::store::model::Pin;
use crate::store::record::Stored;

/// A reported rejection.
#[derive(Clone, Copy, Debug)]
pub struct RefreshInput<'a> {
    /// The lease.
    pub lease: &'a str,
    /// The generation that was rejected.
    pub rejected_generation: u64,
    /// What the provider said.
    pub provider_message: &'a str,
    /// The caller's request id.
    pub request_id: &'a str,
}

/// The replacement.
pub struct Refreshed {
    /// The lease with newer material.
    pub vended: Vended,
    /// Whether this call waited for an exchange.
    pub exchanged: bool,
    /// Why another way than before is used; `None` where it is the same.
    pub fallback: Option<Reason>,
    /// The position of the journal record that says so.
    pub position: Position,
}

/// The longest message taken, in bytes. It is neither journaled nor logged: a caller's text may quote the credential.
/// It is told, redacted, to that caller in that answer; of a key it is kept so too, for whoever has to replace it.
const MAX_MESSAGE: usize = 8_192;
/// How often a replacement is sought that does not change at the same moment, and when to report again after that.
const ROUNDS: usize = 2;
const AGAIN: Duration = Duration::from_secs(1);
/// How many pins of a task are looked through: it has one for each provider that it asked for.
const MAX_PINS: usize = 32;

impl Broker {
    /// Takes a report that the provider rejected a generation, and returns its replacement.
    pub async fn refresh_token(
        self: &Arc<Self>,
        caller: &Caller,
        input: RefreshInput<'_>,
    ) -> Result<Refreshed, Refusal> {
        self.room_for(Action::ForceRotate)?;
        checked_request_id(input.request_id)?;
        if input.provider_message.len() > MAX_MESSAGE {
            return Err(Refusal::invalid(
                "provider_message",
                "provider_message is at most 2 048 characters",
            ));
        }
        let org = caller
            .org()
            .ok_or_else(|| Refusal::new(Reason::PermissionDenied, "an operator holds no leases"))?;
        let record = caller
            .record(Action::ForceRotate, Some(org))
            .request(input.request_id)
            .about("lease", shown(input.lease))
            .about("rejected_generation", input.rejected_generation);
        match self.replace(caller, org, &input, record.clone()).await {
            Ok(refreshed) => Ok(refreshed),
            Err(refusal) => Err(self.denied(record, refusal).await),
        }
    }

    async fn replace(
        self: &Arc<Self>,
        caller: &Caller,
        org: OrgId,
        input: &RefreshInput<'_>,
        record: Record,
    ) -> Result<Refreshed, Refusal> {
        let lease = self.own_lease(caller, org, input.lease).await?;
        if !lease.value.stands(self.now()) {
            return Err(Refusal::new(
                Reason::LeaseEnded,
                format!("{} has ended", lease.value.id),
            ));
        }
        self.still_approved(caller, &lease.value).await?;
        let task = match lease.value.task {
            Some(task) => {
                let stored = self.records.get::<Task>(&keys::task(org, task)).await?;
                Some(stored.ok_or_else(|| Refusal::not_found("task"))?)
            }
            None => None,
        };
        if let Some(task) = &task {
            task.value.live(self.now(), TaskClaims::default())?;
        }
        let whose = Whose {
            org,
            member: lease.value.member,
            credential: lease.value.credential,
        };
        // Before anything is asked of the provider, and once more before the answer.
        self.still_allowed(caller, whose, task.as_ref()).await?;
        let project = task.as_ref().map(|task| task.value.project);
        self.still_permitted(&lease.value, project).await?;
        let Some(id) = lease.value.credential else {
            return self.newer_managed(caller, lease, input, record, project).await;
        };
        let credential = self.credential(org, id).await?.value;
        let rejected = input.rejected_generation;
        let current = credential.rotation.generation;
        if rejected == 0 || rejected > current {
            return Err(Refusal::invalid(
                "rejected_generation",
                format!("the credential has had generations 1 to {current}"),
            ));
        }
        if rejected == current {
            if credential.kind != CredentialKind::OAuthGrant {
                let said = self.said(&credential, input).await?;
                let by = Some(lease.value.holder);
                self.keep_report(&credential, by, said.as_deref().unwrap_or_default())
                    .await;
                let refusal = Refusal::new(
                    Reason::ReauthRequired,
                    "the provider rejects the stored key, and a key cannot be refreshed: store a new one",
                )
                .with("credential", credential.id.to_string());
                return Err(match said {
                    Some(said) => refusal.with("provider_message", said),
                    None => refusal,
                });
            }
            // What the provider's own refusal has settled already forces nothing: that is told, and uses no place up.
            if !self.is_settled(&credential) {
                self.still_bounded(&lease.value, &credential, input).await?;
                self.refresher
                    .count_forced(&credential, lease.value.holder)
                    .await?;
            }
        }
        let need = Need {
            remaining: self.settings().minimum_remaining,
            newer_than: Some(rejected),
        };
        let mut lease = lease;
        for _ in 0..ROUNDS {
            let fresh = match self.refresher.fresh(org, id, need).await {
                Ok(fresh) => fresh,
                Err(refusal) if refusal.reason == Reason::ReauthRequired => {
                    return self.go_on(caller, &lease.value, refusal, input).await;
                }
                Err(refusal) => return Err(refusal),
            };
            let record = record
                .clone()
                .about("credential", credential.id)
                .about("generation", fresh.credential.rotation.generation)
                .outcome(Outcome::Allowed);
            // What somebody else had replaced by then made no call, and shows nothing of what the provider issues.
            let report = (rejected == current).then_some(rejected);
            let handed = self.replaced(caller, lease, &fresh.credential, report).await?;
            let position = self.journal.append(&record).await?;
            self.still_allowed(caller, whose, task.as_ref()).await?;
            self.still_permitted(&handed, project).await?;
            self.still_approved(caller, &handed).await?;
            match self.still_good(&fresh.credential).await? {
                Some(true) => {}
                // It was replaced once more, or may have ended.
                Some(false) => {
                    lease = self.own_lease(caller, org, input.lease).await?;
                    continue;
                }
                None => return Err(Refusal::not_found("credential")),
            }
            let material = Material::Stored {
                credential: fresh.credential,
                secret: fresh.secret,
            };
            let model = handed.model.clone();
            return Ok(Refreshed {
                vended: self.vend(handed, model, material, self.settings().minimum_remaining),
                exchanged: fresh.exchanged,
                fallback: None,
                position,
            });
        }
        Err(Refusal::new(Reason::Conflict, "the credential keeps changing").retry_after(AGAIN))
    }

    /// What the policy denies by now, or the org may not use any more, is not renewed.
    async fn still_permitted(&self, lease: &Lease, project: Option<ProjectId>) -> Result<(), Refusal> {
        self.permitted(lease, lease.project.or(project), &lease.model)?;
        self.entitled(lease).await
    }

    /// The provider itself refuses the grant: where the task's profile goes on, the next credential of the org's or
    /// the member's own along its permit; otherwise `refused`.
    async fn go_on(
        self: &Arc<Self>,
        caller: &Caller,
        lease: &Lease,
        refused: Refusal,
        reported: &RefreshInput<'_>,
    ) -> Result<Refreshed, Refusal> {
        let Some((task, asked)) = self.pinned_to(lease).await? else {
            return Err(refused);
        };
        let task = task.to_string();
        let input = ResolveInput {
            task: &task,
            provider: &asked,
            model: &lease.model,
            ..ResolveInput::default()
        };
        let subject = self.subject(caller, &input).await?;
        let mut decision = Decision::default();
        let policy = self.policy();
        let prepared = self.prepare(&policy, &subject, &input, &mut decision).await?;
        if prepared.permit.on_rejection() == OnRejection::Fail {
            return Err(refused);
        }
        let remaining = self.settings().minimum_remaining;
        // It is a resolution, and where it makes a lease a dispatch, as if the task had asked anew.
        let record = caller
            .record(Action::Resolve, Some(lease.org))
            .request(reported.request_id)
            .about("rejected", lease.id)
            .about("rejected_generation", reported.rejected_generation)
            .about("because", refused.reason);
        let record = match lease.credential {
            Some(credential) => record.about("rejected_credential", credential),
            None => record,
        };
        let record = subject.noted(record);
        let gone = self.resolve_for(caller, &subject, &input, remaining, &record, &mut decision);
        match gone.await {
            Ok((vended, position)) => Ok(Refreshed {
                vended,
                exchanged: false,
                fallback: decision.fallback,
                position,
            }),
            Err(refusal) if refusal.reason == Reason::ReauthRequired => Err(refused),
            Err(refusal) => Err(refusal.decided(decision)),
        }
    }

    /// The task whose choice the lease's credential is or was, and the provider that was asked for.
    async fn pinned_to(&self, lease: &Lease) -> Result<Option<(TaskId, String)>, Refusal> {
        let Some(task) = lease.task else {
            return Ok(None);
        };
        let list = keys::pins(lease.org, task);
        let pins = self.records.scan::<Pin>(list.as_bytes(), None, MAX_PINS).await?;
        // A report that is repeated, because its answer was lost, finds the task moved on by the first.
        let moved = |(key, pin): &&(keys::Key, Stored<Pin>)| {
            pin.value.because() == Some(Reason::ReauthRequired)
                && keys::pin_provider(key).is_some_and(|asked| asked == lease.provider)
        };
        let found = pins
            .iter()
            .find(|(_, pin)| pin.value.credential == lease.credential)
            .or_else(|| pins.iter().find(moved));
        Ok(found.and_then(|(key, _)| Some((task, keys::pin_provider(key)?))))
    }

    /// The platform's own key, where it is a newer one than the rejected. A grant for the model proxy is not
    /// refreshed: resolving again gives another.
    async fn newer_managed(
        self: &Arc<Self>,
        caller: &Caller,
        lease: Stored<Lease>,
        input: &RefreshInput<'_>,
        record: Record,
        project: Option<ProjectId>,
    ) -> Result<Refreshed, Refusal> {
        let mode = lease.value.mode;
        let refused = || {
            let reason = reason(mode, Condition::Rejected).unwrap_or(Reason::Internal);
            let message = format!("the provider rejects what {} handed out", mode.name());
            Refusal::new(reason, message).with("mode", mode.name())
        };
        let pool = Pool::of(mode).ok_or_else(refused)?;
        let key = self
            .managed_key(pool, &lease.value.provider)
            .await?
            .ok_or_else(refused)?;
        if !self.hands_raw(holder(caller)?) || key.facts.generation == input.rejected_generation {
            return Err(refused());
        }
        let generation = key.facts.generation;
        let record = record.about("generation", generation).outcome(Outcome::Allowed);
        let handed = Handed {
            generation,
            expires: None,
            at: Some(self.now()),
        };
        let lease = self.handing_over(caller, lease, handed, None).await?;
        let position = self.journal.append(&record).await?;
        self.still_live(caller).await?;
        self.still_permitted(&lease, project).await?;
        let model = lease.model.clone();
        let wanted = self.settings().minimum_remaining;
        Ok(Refreshed {
            vended: self.vend(lease, model, self.managed_material(&key), wanted),
            exchanged: false,
            fallback: None,
            position,
        })
    }

    /// Keeps the generation that takes the rejected one's place, and the row of rejections that this makes where
    /// the `rejected` was the present one.
    async fn replaced(
        &self,
        caller: &Caller,
        lease: Stored<Lease>,
        credential: &Credential,
        rejected: Option<u64>,
    ) -> Result<Arc<Lease>, Refusal> {
        let report = match rejected {
            Some(rejected) => {
                let forced = self.refresher.forced(credential.org, credential.id).await?;
                Some((rejected, forced.connected))
            }
            None => None,
        };
        let handed = handed(credential, self.now());
        self.handing_over(caller, lease, handed, report).await
    }

    /// Keeps the generation that the lease is about to hand out. Other callers of the same lease may be doing so
    /// at the same moment.
    async fn handing_over(
        &self,
        caller: &Caller,
        mut lease: Stored<Lease>,
        handed: Handed,
        report: Option<(u64, u64)>,
    ) -> Result<Arc<Lease>, Refusal> {
        for _ in 0..ATTEMPTS {
            let (org, id) = (lease.value.org, lease.value.id);
            let model = lease.value.model.clone();
            let rejections = lease.value.rejections;
            let row = match report {
                Some((rejected, connected)) => {
                    let before = lease.value.handed;
                    Some(Row::after(rejections, rejected, before, connected, self.now()))
                }
                None => rejections,
            };
            match self.handing_after(lease, Some(handed), &model, row).await {
                Ok(lease) => return Ok(lease),
                Err(Undone::Conflict) => lease = self.own_lease(caller, org, &id.to_string()).await?,
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
            if !lease.value.stands(self.now()) {
                return Err(Refusal::new(Reason::LeaseEnded, format!("{id} has ended")));
            }
        }
        Err(Undone::Conflict.into())
    }
}
