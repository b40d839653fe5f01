//! Secrets of extensions: kept in namespaces, read by agents that a namespace was granted to.
//!
//! They have a keyspace of their own, built from checked names only; nothing here reads any other key, and no
//! resolution reads these. A secret that is not there and one that is not granted are told alike, by the same
//! reads.

mod read;

use std::sync::Arc;

use super::Broker;
use super::effect::Undone;
use super::page::{Page, PageRequest};
use super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::agent::Agent;
use crate::domain::extension::{
    ExtensionSecret, Grantee, MAX_GRANTS, MAX_NAMESPACES, MAX_SECRETS, MAX_VALUE, Namespace, SecretGrant,
    SecretName, SecretPath,
};
use crate::domain::id::OrgId;
use crate::domain::journal::{Action, Record};
use crate::domain::name::Name;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{Exposure, ExtensionValue, Secret};
use crate::store::keys::{self, Key};
use crate::store::model::ExtensionSecretValue;
use crate::store::record::{Changes, Stored};

pub use read::ReadSecret;

/// A secret, as a request names it.
#[derive(Clone, Copy, Debug)]
pub struct SecretRef<'a> {
    /// The org.
    pub org: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The name in it.
    pub name: &'a str,
}

/// Whom a namespace is granted to, as a request names them.
#[derive(Clone, Copy, Debug)]
pub enum GranteeRef<'a> {
    /// An agent, by id.
    Agent(&'a str),
    /// An environment: its project, where it is given by name, and itself.
    Environment(&'a str, &'a str),
}

/// How often a change is tried again when somebody else changes the namespace at the same moment.
const ATTEMPTS: usize = 16;

fn checked_namespace(text: &str) -> Result<Name, Refusal> {
    text.parse()
        .map_err(|malformed: crate::domain::name::MalformedName| {
            Refusal::invalid("namespace", malformed.to_string())
        })
}

fn checked_path(namespace: &str, name: &str) -> Result<SecretPath, Refusal> {
    Ok(SecretPath {
        namespace: checked_namespace(namespace)?,
        name: name
            .parse::<SecretName>()
            .map_err(|malformed| Refusal::invalid("name", malformed.to_string()))?,
    })
}

fn full(message: &str) -> Refusal {
    Refusal::new(Reason::SecretLimit, message)
}

/// What becomes of a namespace's record.
struct Counted {
    key: Key,
    stored: Option<Stored<Namespace>>,
}

impl Counted {
    fn now(&self) -> Namespace {
        self.stored
            .as_ref()
            .map(|stored| *stored.value)
            .unwrap_or_default()
    }

    /// Writes the new count, guarded by the one that was read.
    fn becomes(&self, changes: Changes, count: Namespace) -> Changes {
        let changes = match &self.stored {
            Some(stored) => changes.at(&self.key, stored.revision),
            None => changes.absent(&self.key),
        };
        if count.is_empty() {
            changes.delete::<Namespace>(&self.key)
        } else {
            changes.put(&self.key, &count)
        }
    }
}

impl Broker {
    async fn counted(&self, org: OrgId, namespace: &Name) -> Result<Counted, Refusal> {
        let key = keys::extension_namespace(org, namespace);
        let stored = self.records.get::<Namespace>(&key).await?;
        if stored.is_none() {
            let all = keys::extension_namespaces(org);
            let namespaces = self
                .records
                .scan::<Namespace>(all.as_bytes(), None, MAX_NAMESPACES);
            if namespaces.await?.len() >= MAX_NAMESPACES {
                return Err(full("the org has as many namespaces as it may"));
            }
        }
        Ok(Counted { key, stored })
    }

    /// Stores a secret, in place of the one there was.
    pub async fn set_secret(
        self: &Arc<Self>,
        caller: &Caller,
        at: SecretRef<'_>,
        value: Secret<ExtensionValue>,
    ) -> Result<ExtensionSecret, Refusal> {
        let org = self.org_id(caller, at.org).await?;
        let path = checked_path(at.namespace, at.name)?;
        if value.is_empty() || value.expose(Exposure::Inspect).len() > MAX_VALUE {
            return Err(Refusal::invalid("value", "value is 1 byte to 64 KiB"));
        }
        let mut stored = ExtensionSecretValue { version: 0, value };
        let key = keys::extension_secret(org, &path);
        for _ in 0..ATTEMPTS {
            let before = self.records.get::<ExtensionSecret>(&key).await?;
            let now = self.now();
            let old = before.as_ref().map(|before| &before.value);
            let secret = ExtensionSecret {
                namespace: path.namespace.to_string(),
                name: path.name.as_str().to_owned(),
                version: old.map_or(1, |old| old.version + 1),
                created: old.map_or(now, |old| old.created),
                updated: now,
            };
            stored.version = secret.version;
            let mut changes = Changes::default();
            match &before {
                Some(before) => changes = changes.at(&key, before.revision),
                None => {
                    let counted = self.counted(org, &path.namespace).await?;
                    let mut count = counted.now();
                    if count.secrets >= MAX_SECRETS {
                        return Err(full("the namespace has as many secrets as it may"));
                    }
                    count.secrets += 1;
                    changes = counted.becomes(changes.absent(&key), count);
                }
            }
            changes = changes
                .put(&key, &secret)
                .put(&keys::extension_value(org, &path), &stored);
            let record =
                secret_record(caller, Action::SecretSet, org, &path).about("version", secret.version);
            if self.effect_by(caller, record, changes).await? {
                return Ok(secret);
            }
        }
        Err(Undone::Conflict.into())
    }

    /// The secrets of a namespace, or of all, without values.
    pub async fn list_secrets(
        &self,
        caller: &Caller,
        org: &str,
        namespace: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<ExtensionSecret>>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let namespace = optional(namespace)?;
        self.page(&keys::extension_secrets(org, namespace.as_ref()), page)
            .await
    }

    /// Removes a secret and its value.
    pub async fn remove_secret(self: &Arc<Self>, caller: &Caller, at: SecretRef<'_>) -> Result<(), Refusal> {
        let org = self.org_id(caller, at.org).await?;
        let path = checked_path(at.namespace, at.name)?;
        let key = keys::extension_secret(org, &path);
        for _ in 0..ATTEMPTS {
            let before = self.records.get::<ExtensionSecret>(&key).await?;
            let before = before.ok_or_else(no_secret)?;
            let counted = self.counted(org, &path.namespace).await?;
            let mut count = counted.now();
            count.secrets = count.secrets.saturating_sub(1);
            let changes = counted
                .becomes(Changes::default().at(&key, before.revision), count)
                .delete::<ExtensionSecret>(&key)
                .delete::<ExtensionSecretValue>(&keys::extension_value(org, &path));
            let record = secret_record(caller, Action::SecretRemove, org, &path);
            if self.effect_by(caller, record, changes).await? {
                return Ok(());
            }
        }
        Err(Undone::Conflict.into())
    }

    async fn grantee(&self, org: OrgId, grantee: GranteeRef<'_>, live: bool) -> Result<Grantee, Refusal> {
        match grantee {
            GranteeRef::Agent(agent) => {
                let id = parse_id("agent", agent)?;
                let agent = self.records.get::<Agent>(&keys::agent(org, id)).await?;
                // What was granted to an agent that is gone can be taken back.
                if live && agent.is_none_or(|agent| agent.value.ended().is_some()) {
                    return Err(Refusal::not_found("agent"));
                }
                Ok(Grantee::Agent(id))
            }
            GranteeRef::Environment(project, environment) => {
                let environment = self.environment(org, project, environment).await?;
                Ok(Grantee::Environment(environment.value.id))
            }
        }
    }

    /// Lets somebody read a namespace. Granting it again changes nothing.
    pub async fn grant_secret_access(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        namespace: &str,
        grantee: GranteeRef<'_>,
    ) -> Result<SecretGrant, Refusal> {
        let org = self.org_id(caller, org).await?;
        let namespace = checked_namespace(namespace)?;
        let grantee = self.grantee(org, grantee, true).await?;
        let key = keys::extension_grant(org, &namespace, grantee);
        for _ in 0..ATTEMPTS {
            if let Some(granted) = self.records.get::<SecretGrant>(&key).await? {
                return Ok(SecretGrant::clone(&granted.value));
            }
            let counted = self.counted(org, &namespace).await?;
            let mut count = counted.now();
            if count.grants >= MAX_GRANTS {
                return Err(full("the namespace has as many grants as it may"));
            }
            count.grants += 1;
            let grant = SecretGrant {
                namespace: namespace.to_string(),
                grantee,
                created: self.now(),
            };
            let changes = counted
                .becomes(Changes::default().absent(&key), count)
                .put(&key, &grant);
            let record = caller
                .record(Action::SecretGrant, Some(org))
                .about("namespace", &namespace)
                .about("grantee", grantee);
            if self.effect_by(caller, record, changes).await? {
                return Ok(grant);
            }
        }
        Err(Undone::Conflict.into())
    }

    /// Takes a grant back. When this returns, no read that rests on it is answered any more. Taking back what was
    /// not granted changes nothing.
    pub async fn revoke_secret_access(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        namespace: &str,
        grantee: GranteeRef<'_>,
    ) -> Result<(), Refusal> {
        let org = self.org_id(caller, org).await?;
        let namespace = checked_namespace(namespace)?;
        let grantee = self.grantee(org, grantee, false).await?;
        let key = keys::extension_grant(org, &namespace, grantee);
        for _ in 0..ATTEMPTS {
            let Some(granted) = self.records.get::<SecretGrant>(&key).await? else {
                // Taking back what was not given changes nothing, where there is somebody to take it from.
                return match grantee {
                    Grantee::Agent(id) => self.agent_record(org, id).await.map(|_| ()),
                    Grantee::Environment(_) => Ok(()),
                };
            };
            let counted = self.counted(org, &namespace).await?;
            let mut count = counted.now();
            count.grants = count.grants.saturating_sub(1);
            let changes = counted
                .becomes(Changes::default().at(&key, granted.revision), count)
                .delete::<SecretGrant>(&key);
            let record = caller
                .record(Action::SecretRevoke, Some(org))
                .about("namespace", &namespace)
                .about("grantee", grantee);
            if self.effect_by(caller, record, changes).await? {
                return Ok(());
            }
        }
        Err(Undone::Conflict.into())
    }

    /// Who may read a namespace, or any.
    pub async fn list_secret_grants(
        &self,
        caller: &Caller,
        org: &str,
        namespace: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<SecretGrant>>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let namespace = optional(namespace)?;
        self.page(&keys::extension_grants(org, namespace.as_ref()), page)
            .await
    }
}

fn optional(namespace: &str) -> Result<Option<Name>, Refusal> {
    match namespace {
        "" => Ok(None),
        namespace => checked_namespace(namespace).map(Some),
    }
}

fn no_secret() -> Refusal {
    Refusal::not_found("secret")
}

fn secret_record(caller: &Caller, action: Action, org: OrgId, path: &SecretPath) -> Record {
    caller
        .record(action, Some(org))
        .about("namespace", &path.namespace)
        .about("secret", path.name.as_str())
}
