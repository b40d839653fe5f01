//! A reported rejection: the generation that replaces the rejected one.

use std::sync::Arc;

use super::{ATTEMPTS, Whose, checked_request_id, shown};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Outcome, Position, Record};
use crate::domain::lease::Lease;
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::{Task, TaskClaims};
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::service::lease::Vended;
use crate::service::refresh::Need;
use crate::store::keys;
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
    /// The position of the journal record that says so.
    pub position: Position,
}

/// The longest message taken, in bytes. It is not kept: a caller's text may quote the credential.
const MAX_MESSAGE: usize = 8_192;

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
        let credential = self.credential(org, lease.value.credential).await?.value;
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
                return Err(Refusal::new(
                    Reason::ReauthRequired,
                    "the provider rejects the stored key, and a key cannot be refreshed: store a new one",
                )
                .with("credential", credential.id.to_string()));
            }
            self.refresher.count_forced(&credential, caller.actor())?;
        }
        let need = Need {
            remaining: self.settings().minimum_remaining,
            newer_than: Some(rejected),
        };
        let (material, exchanged) = self.material(&credential, need).await?;
        let record = record
            .about("credential", credential.id)
            .about("generation", material.credential.rotation.generation)
            .outcome(Outcome::Allowed);
        let lease = self.handing_over(caller, lease, &material.credential).await?;
        let position = self.journal.append(&record).await?;
        self.still_allowed(caller, whose, task.as_ref()).await?;
        self.still_approved(caller, &lease).await?;
        if self.generation(&material).await?.is_none() {
            return Err(Refusal::not_found("credential"));
        }
        let vended = self.vend(lease, material, self.settings().minimum_remaining);
        Ok(Refreshed {
            vended,
            exchanged,
            position,
        })
    }
    /// Keeps the generation that the lease is about to hand out. Other callers of the same lease may be doing so
    /// at the same moment.
    async fn handing_over(
        &self,
        caller: &Caller,
        mut lease: Stored<Lease>,
        credential: &Credential,
    ) -> Result<Arc<Lease>, Refusal> {
        for _ in 0..ATTEMPTS {
            let (org, id) = (lease.value.org, lease.value.id);
            match self.handing(lease, credential).await {
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
