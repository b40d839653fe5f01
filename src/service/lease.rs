//! Leases: found or made, and filled with the material the task needs and nothing more.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::managed_keys::ManagedSecret;
use super::proxy_grants::ProxyGrant;
use super::scope::parse_id;
use crate::domain::actor::{Actor, Caller};
use crate::domain::credential::Credential;
use crate::domain::id::{LeaseId, OrgId};
use crate::domain::journal::Action;
use crate::domain::lease::{Holder, Lease};
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::keys;
use crate::store::model::CredentialSecret;
use crate::store::record::{Changes, Stored};

/// What a lease hands out. Secrets are as stored; the way out is `expose` with [`Exposure::Vend`].
///
/// [`Exposure::Vend`]: crate::domain::secret::Exposure::Vend
#[derive(Clone)]
pub enum Material {
    /// What the task needs of a stored credential.
    Stored {
        /// The credential, without its secret.
        credential: Arc<Credential>,
        /// Its secret, of the same generation.
        secret: Arc<CredentialSecret>,
    },
    /// The platform's own key, of a kind that the provider takes.
    Managed(Arc<ManagedSecret>, CredentialKind),
    /// Access to the platform's model proxy.
    Proxy(Arc<ProxyGrant>),
    /// The session that this program has on the machine.
    HostSession(String),
    /// A model served on the machine, at this address.
    Local(String),
}

impl Material {
    /// The stored credential behind it, where there is one.
    pub fn credential(&self) -> Option<&Arc<Credential>> {
        match self {
            Material::Stored { credential, .. } => Some(credential),
            _ => None,
        }
    }

    /// Which of its secrets it is; 0 for what has none that is counted.
    pub fn generation(&self) -> u64 {
        match self {
            Material::Stored { credential, .. } => credential.rotation.generation,
            Material::Managed(key, _) => key.facts.generation,
            Material::Proxy(_) | Material::HostSession(_) | Material::Local(_) => 0,
        }
    }

    /// When it stops working by itself, where that is known.
    pub fn expires(&self) -> Option<Time> {
        match self {
            Material::Stored { credential, .. } => credential.expires,
            Material::Proxy(grant) => Some(grant.expires),
            Material::Managed(..) | Material::HostSession(_) | Material::Local(_) => None,
        }
    }
}

/// A lease with its material.
#[derive(Clone)]
pub struct Vended {
    /// The lease.
    pub lease: Arc<Lease>,
    /// The model, as the provider names it: that of this answer, whatever the lease was first made for.
    pub model: String,
    /// Its material.
    pub material: Material,
    /// How long the material is promised to work.
    pub minimum_remaining: Duration,
}

/// The holder that a caller is. Humans are handed nothing but what an operator resolves at the scope of the system.
pub(super) fn holder(caller: &Caller) -> Result<Holder, Refusal> {
    match caller.actor() {
        Actor::Agent(agent) => Ok(Holder::Agent(agent.id)),
        Actor::ApiKey { id, .. } => Ok(Holder::ApiKey(*id)),
        Actor::Operator(id) => Ok(Holder::Operator(*id)),
        Actor::Member { .. } => Err(Refusal::new(Reason::PermissionDenied, "a member holds no leases")),
    }
}

impl Broker {
    /// A lease that the caller holds. Somebody else's looks like none.
    pub(super) async fn own_lease(
        &self,
        caller: &Caller,
        org: OrgId,
        id: &str,
    ) -> Result<Stored<Lease>, Refusal> {
        let id: LeaseId = parse_id("lease", id)?;
        let holder = holder(caller)?;
        let stored = self.records.get::<Lease>(&keys::lease(org, id)).await?;
        stored
            .filter(|stored| stored.value.holder == holder)
            .ok_or_else(|| Refusal::not_found("lease"))
    }

    /// Gives a lease back. Giving it back again changes nothing.
    pub async fn release_lease(self: &Arc<Self>, caller: &Caller, lease: &str) -> Result<(), Refusal> {
        let org = caller
            .org()
            .ok_or_else(|| Refusal::new(Reason::PermissionDenied, "an operator holds no leases"))?;
        let stored = self.own_lease(caller, org, lease).await?;
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
        let record = caller
            .record(Action::LeaseRelease, Some(org))
            .about("lease", lease.id)
            .about("mode", lease.mode.name());
        let record = match lease.credential {
            Some(credential) => record.about("credential", credential),
            None => record,
        };
        self.effect(record, changes).await?;
        self.lease_ended(&lease);
        Ok(())
    }
}
