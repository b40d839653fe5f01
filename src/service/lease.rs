//! Leases: found or made, and filled with the material the task needs and nothing more.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::scope::parse_id;
use crate::domain::actor::Actor;
use crate::domain::credential::Credential;
use crate::domain::id::{LeaseId, OrgId};
use crate::domain::journal::{Action, Record};
use crate::domain::lease::{Holder, Lease};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::store::keys;
use crate::store::model::CredentialSecret;
use crate::store::record::{Changes, Stored};

/// What a lease hands out. Holds the stored secret; the way out is `expose` with [`Exposure::Vend`].
///
/// [`Exposure::Vend`]: crate::domain::secret::Exposure::Vend
#[derive(Clone)]
pub struct Material {
    /// The credential, without its secret.
    pub credential: Arc<Credential>,
    /// Its secret, of the same generation.
    pub secret: Arc<CredentialSecret>,
}

impl Material {
    /// The generation of credential and secret.
    pub(super) fn generation(&self) -> u64 {
        self.credential.rotation.generation
    }
}

/// A lease with its material.
#[derive(Clone)]
pub struct Vended {
    /// The lease.
    pub lease: Arc<Lease>,
    /// Its material.
    pub material: Material,
    /// How long the material is promised to work.
    pub minimum_remaining: Duration,
}

/// The holder that an actor is.
pub(super) fn holder(actor: &Actor) -> Holder {
    match actor {
        Actor::Agent(agent) => Holder::Agent(agent.id),
        Actor::ApiKey { id, .. } => Holder::ApiKey(*id),
        Actor::Operator(id) => Holder::Operator(*id),
    }
}

impl Broker {
    /// A lease that the actor holds. Somebody else's looks like none.
    pub(super) async fn own_lease(
        &self,
        actor: &Actor,
        org: OrgId,
        id: &str,
    ) -> Result<Stored<Lease>, Refusal> {
        let id: LeaseId = parse_id("lease", id)?;
        let stored = self.records.get::<Lease>(&keys::lease(org, id)).await?;
        stored
            .filter(|stored| stored.value.holder == holder(actor))
            .ok_or_else(|| Refusal::not_found("lease"))
    }

    /// Gives a lease back. Giving it back again changes nothing.
    pub async fn release_lease(self: &Arc<Self>, actor: &Actor, lease: &str) -> Result<(), Refusal> {
        let org = actor
            .org()
            .ok_or_else(|| Refusal::new(Reason::PermissionDenied, "an operator holds no leases"))?;
        let stored = self.own_lease(actor, org, lease).await?;
        if stored.value.ended.is_some() {
            return Ok(());
        }
        let lease = Lease {
            ended: Some(self.now()),
            ..Lease::clone(&stored.value)
        };
        let key = keys::lease(org, lease.id);
        let mut changes = Changes::default();
        changes = changes.at(&key, stored.revision);
        changes = changes.put(&key, &lease);
        let record = Record::new(Action::LeaseRelease, actor.to_string(), Some(org))
            .about("lease", lease.id)
            .about("credential", lease.credential);
        self.effect(record, changes).await?;
        Ok(())
    }
}
