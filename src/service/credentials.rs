//! Stored credentials: keys that are set, grants that are taken over.

mod dependents;
mod describe;
mod import;
mod reported;
mod set;
mod status;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::lineage::forgotten;
use super::page::{Page, PageRequest};
use super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::credential::{Credential, Health};
use crate::domain::id::{CredentialId, OrgId};
use crate::domain::journal::{Action, Record};
use crate::domain::key_test::Checked;
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;
use crate::domain::parallelism::Parallel;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Forced;
use crate::domain::rotation::{Event, Fence, Rotation};
use crate::domain::secret::{AccessToken, RefreshToken, Secret};
use crate::domain::time::Time;
use crate::domain::watch::{Ended, Notice};
use crate::store::keys;
use crate::store::model::{AwsSecret, CredentialSecret, Mark, Pointer, Reported, StagedAnswer};
use crate::store::record::{Changes, Stored};
use crate::upstream::connector::Connector;
pub(super) use dependents::Counted;
pub use describe::{Dependent, Described};
pub use import::ImportGrant;
pub use reported::LastError;
pub use set::{KeyInput, SetKey};
pub use status::{CredentialStatus, StatusFilter};

/// Whose a credential is, as a request says it.
#[derive(Clone, Copy, Debug)]
pub enum OwnerRef<'a> {
    /// A member, by id or name.
    Member(&'a str),
    /// The org.
    Org,
}

/// A credential on its way into the store, but for what the store knows of its slot.
pub(super) struct Incoming {
    pub(super) org: OrgId,
    pub(super) owner: Owner,
    pub(super) provider: String,
    pub(super) kind: CredentialKind,
    pub(super) connector: String,
    pub(super) expires: Option<Time>,
    pub(super) hint: String,
    pub(super) scopes: Vec<String>,
    pub(super) account: Vec<(String, String)>,
    pub(super) access: Option<Secret<AccessToken>>,
    pub(super) refresh: Option<Secret<RefreshToken>>,
    pub(super) aws: Option<AwsSecret>,
    pub(super) executor: Option<String>,
    pub(super) region: Option<String>,
    /// How the access token is presented (RFC 6749 section 7.1).
    pub(super) token_type: String,
    /// When the refresh token ends by itself, where the provider told.
    pub(super) refresh_expires: Option<Time>,
}

/// How access tokens are presented where nothing else was said (RFC 6750).
pub(super) const BEARER: &str = "Bearer";

/// What is stored beside a credential, in the same commit.
pub(super) type Beside<'a> = &'a (dyn Fn(Changes, &Credential) -> Changes + Send + Sync);

impl Broker {
    async fn owner(&self, org: OrgId, owner: OwnerRef<'_>) -> Result<Owner, Refusal> {
        Ok(match owner {
            OwnerRef::Org => Owner::Org,
            OwnerRef::Member(member) => Owner::Member(self.member(org, member).await?.value.id),
        })
    }

    /// The connector of this name, usable.
    pub(super) fn connector(&self, name: &str) -> Result<&Connector, Refusal> {
        let unknown = || Refusal {
            field: Some("connector"),
            ..Refusal::new(
                Reason::ConnectorUnknown,
                format!("there is no connector {name:?}"),
            )
            .with(
                "known",
                self.connectors
                    .iter()
                    .map(|known| known.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            )
        };
        let connector = self.connectors.get(name).ok_or_else(unknown)?;
        connector.usable().map_err(|off| {
            Refusal::new(Reason::ConnectorDisabled, format!("connector {name}: {off}"))
                .with("connector", name)
        })?;
        Ok(connector)
    }

    async fn store(
        self: &Arc<Self>,
        caller: &Caller,
        action: Action,
        incoming: Incoming,
    ) -> Result<Arc<Credential>, Refusal> {
        let record = caller.record(action, Some(incoming.org));
        self.store_with(record, incoming, &|changes, _| changes).await
    }

    /// Stores a credential, recorded as `record`, with something beside it.
    pub(super) async fn store_with(
        self: &Arc<Self>,
        record: Record,
        incoming: Incoming,
        beside: Beside<'_>,
    ) -> Result<Arc<Credential>, Refusal> {
        let Incoming { org, owner, kind, .. } = incoming;
        let slot = keys::credential_slot(org, owner, &incoming.provider, kind, incoming.executor.as_deref());
        let mut changes = Changes::default();
        if let Some(member) = owner.member() {
            // Nothing is stored for a member who is being removed.
            let (key, revision) = self.present_member(org, member).await?;
            changes = changes.at(&key, revision);
        }
        let pointer = self.records.get::<Pointer>(&slot).await?;
        let now = self.now();
        let mut before = None;
        let (id, rotation, created) = match pointer {
            Some(pointer) => {
                let id = CredentialId::from_bytes(*pointer.value.id);
                let old = self.credential(org, id).await?;
                changes = changes.at(&keys::credential(org, id), old.revision);
                let (rotation, _) = old
                    .value
                    .rotation
                    .on(Event::Replaced, Fence(0), now)
                    .map_err(|lost| Refusal::new(Reason::Conflict, lost.to_string()))?;
                let created = old.value.created;
                before = Some(old.value);
                (id, rotation, created)
            }
            None => {
                let id = self.new_id()?;
                changes = changes.absent(&slot);
                changes = changes.put(
                    &slot,
                    &Pointer {
                        id: (*id.as_bytes()).into(),
                    },
                );
                changes = changes.absent(&keys::credential(org, id));
                (id, Rotation::new(), now)
            }
        };
        let credential = Credential {
            id,
            org,
            owner,
            provider: incoming.provider,
            kind,
            connector: incoming.connector,
            rotation,
            expires: incoming.expires,
            created,
            refreshed: now,
            hint: incoming.hint,
            scopes: incoming.scopes,
            token_type: incoming.token_type,
            account: incoming.account,
            executor: incoming.executor,
            region: incoming.region,
        };
        let secret = CredentialSecret {
            generation: credential.rotation.generation,
            access: incoming.access,
            refresh: incoming.refresh,
            aws: incoming.aws,
        };
        changes = changes.put(&keys::credential(org, id), &credential);
        changes = changes.put(&keys::credential_secret(org, id), &secret);
        if kind == CredentialKind::OAuthGrant {
            changes = self
                .brought(
                    changes,
                    before.as_deref(),
                    &credential,
                    &secret,
                    incoming.refresh_expires,
                )
                .await?;
        }
        // An exchange of what was there before has lost its claim; its answer is of no use.
        if before.is_some() {
            changes = changes.delete::<StagedAnswer>(&keys::credential_answer(org, id));
        }
        changes = changes.delete::<Mark>(&keys::exchange(org, id));
        changes = changes.delete::<Reported>(&keys::reported(org, id));
        // What was found out about the secret before.
        changes = changes.delete::<Checked>(&keys::checked(org, id));
        if before.is_some() && kind == CredentialKind::OAuthGrant {
            let forced = Forced::connected(credential.rotation.generation, now);
            changes = changes.put(&keys::forced(org, id), &forced);
        }
        changes = beside(changes, &credential);
        let mut record = record
            .about("credential", id)
            .about("owner", owner)
            .about("provider", &credential.provider)
            .about("kind", kind.name())
            .about("generation", credential.rotation.generation);
        if let Some(executor) = &credential.executor {
            record = record.about("executor", executor);
        }
        let notices = Notice::credential(before.as_deref(), &credential);
        self.effect_told(record, changes, notices).await?;
        Ok(Arc::new(credential))
    }

    pub(super) async fn credential(
        &self,
        org: OrgId,
        id: CredentialId,
    ) -> Result<Stored<Credential>, Refusal> {
        let stored = self.records.get(&keys::credential(org, id)).await?;
        stored.ok_or_else(|| Refusal::not_found("credential"))
    }

    /// A credential, without its secret.
    pub async fn get_credential(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<Credential>, Refusal> {
        let place = self.place(caller, org).await?;
        let stored = self.credential(place.id(), parse_id("credential", id)?).await?;
        place.admit("credential", None, stored.value.owner.member())?;
        Ok(stored.value)
    }

    /// The org's credentials, without their secrets.
    pub async fn list_credentials(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Arc<Credential>>, Refusal> {
        let place = self.place(caller, org).await?;
        let mut page = self
            .page::<Credential>(&keys::credentials(place.id()), page)
            .await?
            .map(|stored| stored.value);
        page.rows
            .retain(|credential| place.within.admits(None, credential.owner.member()));
        Ok(page)
    }

    /// Removes a credential and its secret.
    pub async fn remove_credential(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<(), Refusal> {
        let place = self.place(caller, org).await?;
        let (org, id) = (place.id(), parse_id("credential", id)?);
        let stored = self.credential(org, id).await?;
        place.admit("credential", None, stored.value.owner.member())?;
        let Credential {
            owner, ref provider, ..
        } = *stored.value;
        let changes = self.removing(&stored).await?;
        let record = caller
            .record(Action::CredentialRemove, Some(org))
            .about("credential", id)
            .about("owner", owner)
            .about("provider", provider);
        let ended = Ended::Credential(id, owner);
        let notice = Notice::ended(org, ended, Reason::CredentialUnusable, false);
        self.effect_told(record, changes, vec![notice]).await?;
        Ok(())
    }

    /// That a credential goes as it was read, with all that is kept of it.
    pub(super) async fn removing(&self, stored: &Stored<Credential>) -> Result<Changes, Refusal> {
        let Credential { id, org, .. } = *stored.value;
        Ok(self
            .leaving_its_secret(stored)
            .await?
            .delete::<CredentialSecret>(&keys::credential_secret(org, id))
            .delete::<StagedAnswer>(&keys::credential_answer(org, id)))
    }

    /// As [`Broker::removing`], but for its secret and any staged answer, which stay where they are: whoever takes those
    /// on removes them.
    pub(super) async fn leaving_its_secret(&self, stored: &Stored<Credential>) -> Result<Changes, Refusal> {
        let Credential {
            id,
            org,
            owner,
            kind,
            ref provider,
            ref executor,
            ..
        } = *stored.value;
        let slot = keys::credential_slot(org, owner, provider, kind, executor.as_deref());
        let changes = Changes::default()
            .at(&keys::credential(org, id), stored.revision)
            .delete::<Credential>(&keys::credential(org, id))
            .delete::<Mark>(&keys::exchange(org, id))
            .delete::<Forced>(&keys::forced(org, id))
            .delete::<Parallel>(&keys::parallel(org, id))
            .delete::<Reported>(&keys::reported(org, id))
            .delete::<Checked>(&keys::checked(org, id))
            .delete::<Pointer>(&slot);
        Ok(forgotten(&self.records, changes, &stored.value).await?)
    }

    /// The credential's health now.
    pub fn health(&self, credential: &Credential) -> Health {
        credential.health(self.now(), self.lead(credential))
    }

    /// How long before its expiry a credential is refreshed.
    fn lead(&self, credential: &Credential) -> Duration {
        let connector = self.connectors.get(&credential.connector);
        connector.map_or(Duration::ZERO, |connector| connector.lead)
    }
}
