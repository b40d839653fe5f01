//! The caller itself, org API keys, and the first operator.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::directory::checked_display_name;
use super::live::ended;
use super::page::{Page, PageRequest};
use super::scope::parse_id;
use crate::domain::actor::{Actor, Caller};
use crate::domain::directory::{ApiKey, Group, Operator};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::{Grant, Role, Scope};
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::token::{ApiKeyFamily, OperatorFamily, Token};
use crate::domain::watch::{Ended, Notice};
use crate::store::keys;
use crate::store::model::Home;
use crate::store::record::{Changes, Stored};

/// Who the broker takes the caller for.
#[derive(Clone, Debug)]
pub struct WhoAmI {
    /// The actor.
    pub actor: Actor,
    /// The broker's trust domain.
    pub trust_domain: String,
}

/// A new API key, with its token.
pub struct MintedApiKey {
    /// What lists show of it.
    pub key: Arc<ApiKey>,
    /// The token, to be shown once.
    pub token: Secret<ActorToken>,
}

const API_KEY_TTL: Duration = Duration::from_secs(90 * 86_400);
const API_KEY_TTL_MAX: Duration = Duration::from_secs(365 * 86_400);
const TTL_MIN: Duration = Duration::from_secs(60);

/// A time to live within bounds; `None` for the default.
pub(super) fn checked_ttl(
    ttl: Option<Duration>,
    default: Duration,
    max: Duration,
) -> Result<Duration, Refusal> {
    let ttl = ttl.unwrap_or(default);
    if ttl < TTL_MIN || ttl > max {
        let max = max.as_secs() / 86_400;
        return Err(Refusal::invalid("ttl", format!("ttl is 1 minute to {max} days")));
    }
    Ok(ttl)
}

impl Broker {
    /// Who the caller is.
    pub fn who_am_i(&self, caller: &Caller) -> WhoAmI {
        WhoAmI {
            actor: *caller.actor(),
            trust_domain: self.authority.trust_domain().to_string(),
        }
    }

    /// Makes an operator of the whole broker and returns its token, to be shown once. Called on the broker's
    /// own machine only; no RPC leads here.
    pub async fn create_operator(
        self: &Arc<Self>,
        display_name: &str,
    ) -> Result<Secret<ActorToken>, Refusal> {
        let token = Token::<OperatorFamily>::new(self.new_id()?, self.random()?);
        let operator = Operator {
            id: token.id(),
            token: token.hash(),
            display_name: display_name.to_owned(),
            created: self.now(),
            expires: None,
            revoked: None,
            member: None,
            grants: Some(vec![Grant {
                role: Role::SystemAdmin,
                scope: Scope::Broker,
            }]),
            previous: None,
        };
        let key = keys::operator(operator.id);
        let mut changes = Changes::default();
        changes = changes.absent(&key);
        changes = changes.put(&key, &operator);
        let record = Record::new(Action::OperatorCreate, "broker", None).about("operator", operator.id);
        self.effect(record, changes).await?;
        Ok(token.reveal())
    }

    /// Whether there is any operator yet.
    pub async fn has_operator(&self) -> Result<bool, Refusal> {
        Ok(!self
            .records
            .scan::<Operator>(keys::operators().as_bytes(), None, 1)
            .await?
            .is_empty())
    }

    /// Mints an API key.
    pub async fn create_api_key(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        display_name: &str,
        ttl: Option<Duration>,
    ) -> Result<MintedApiKey, Refusal> {
        let org = self.org_id(caller, org).await?;
        let ttl = checked_ttl(ttl, API_KEY_TTL, API_KEY_TTL_MAX)?;
        let token = Token::<ApiKeyFamily>::new(self.new_id()?, self.random()?);
        let now = self.now();
        let key = ApiKey {
            id: token.id(),
            org,
            token: token.hash(),
            display_name: checked_display_name(display_name)?,
            created: now,
            expires: now + ttl,
            revoked: None,
            projects: None,
            groups: Some(Group::USUAL.to_vec()),
            certificate: None,
            previous: None,
        };
        let (at, home) = (keys::api_key(org, key.id), keys::api_key_home(key.id));
        let mut changes = Changes::default();
        changes = changes.absent(&at);
        changes = changes.put(&at, &key);
        changes = changes.put(&home, &Home { org });
        let record = caller
            .record(Action::ApiKeyCreate, Some(org))
            .about("api_key", key.id);
        self.effect(record, changes).await?;
        Ok(MintedApiKey {
            key: Arc::new(key),
            token: token.reveal(),
        })
    }

    /// The org's API keys.
    pub async fn list_api_keys(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<ApiKey>>, Refusal> {
        let org = self.org_id(caller, org).await?;
        self.page(&keys::api_keys(org), page).await
    }

    /// Revokes an API key. Revoking it again changes nothing.
    pub async fn revoke_api_key(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<ApiKey>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let at = keys::api_key(org, parse_id("api_key", id)?);
        let stored: Stored<ApiKey> = self
            .records
            .get(&at)
            .await?
            .ok_or_else(|| Refusal::not_found("API key"))?;
        if stored.value.revoked.is_some() {
            return Ok(stored.value);
        }
        let key = ApiKey {
            revoked: Some(self.now()),
            ..ApiKey::clone(&stored.value)
        };
        let mut changes = Changes::default();
        changes = changes.at(&at, stored.revision);
        changes = changes.put(&at, &key);
        let record = caller
            .record(Action::ApiKeyRevoke, Some(org))
            .about("api_key", key.id);
        self.effect(record, changes).await?;
        let gone = Ended::ApiKey(key.id);
        self.publish(Notice::ended(org, gone, Reason::CredentialUnknown, false));
        self.streams
            .end(*key.id.as_bytes(), &ended("the API key was revoked"));
        Ok(Arc::new(key))
    }
}
