//! The platform's own keys: stored, listed, removed, and looked up by what hands them out.
//!
//! A stored key is one sealed record; setting another replaces it in one step, so whoever asks next gets the new one
//! and nobody gets none. What the environment and the configuration give is held in memory only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::effect::Undone;
use super::page::{Page, PageRequest, page_of};
use crate::domain::actor::Caller;
use crate::domain::journal::{Action, Record};
use crate::domain::key_shape::hint;
use crate::domain::managed::{
    self, ConfiguredKey, ConfiguredKeys, GivenKey, KeyProblem, ManagedKey, Pool, Source,
};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ApiKey, Exposure, Secret};
use crate::store::model::StoredManagedKey;
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, keys};

/// A key to store.
pub struct SetManagedKey<'a> {
    /// The pool.
    pub pool: Pool,
    /// The provider.
    pub provider: &'a str,
    /// The key.
    pub key: Secret<ApiKey>,
    /// Whether to store it even when it looks like another provider's.
    pub force: bool,
    /// How long the key before it may be in use yet; `None`: 10 minutes.
    pub overlap: Option<Duration>,
}

/// A key, and who waits behind it.
#[derive(Clone, Debug)]
pub struct ManagedKeyView {
    /// The key that is handed out.
    pub key: ManagedKey,
    /// What else has a key for the same provider and pool, in the order in which they would follow.
    pub behind: Vec<Source>,
}

/// One of the platform's own keys, as it stands now.
pub struct ManagedSecret {
    /// What may be told of it.
    pub facts: ManagedKey,
    held: Held,
}

enum Held {
    Stored(Arc<StoredManagedKey>),
    Configured(Arc<ConfiguredKey>),
}

impl ManagedSecret {
    /// The key.
    pub fn key(&self) -> &Secret<ApiKey> {
        match &self.held {
            Held::Stored(stored) => &stored.key,
            Held::Configured(configured) => &configured.key,
        }
    }
}

impl From<&Arc<ConfiguredKey>> for ManagedSecret {
    fn from(key: &Arc<ConfiguredKey>) -> Self {
        Self {
            facts: key.facts.clone(),
            held: Held::Configured(Arc::clone(key)),
        }
    }
}

/// How long the key before the current one may be in use yet, where nothing else was said.
const OVERLAP: Duration = Duration::from_secs(600);
const MAX_OVERLAP: Duration = Duration::from_secs(7 * 86_400);
/// How often a change is tried again when somebody else changes the key at the same moment.
const ATTEMPTS: usize = 8;

impl From<KeyProblem> for Refusal {
    fn from(problem: KeyProblem) -> Self {
        let (reason, field) = match &problem {
            KeyProblem::UnknownProvider { .. } => (Reason::ProviderUnknown, "provider"),
            KeyProblem::TakesNone { .. } => (Reason::InvalidArgument, "provider"),
            KeyProblem::Shape(_) => (Reason::KeyShapeMismatch, "key"),
        };
        Refusal {
            field: Some(field),
            ..Refusal::new(reason, problem.to_string())
        }
    }
}

impl Broker {
    /// Takes what the environment and the configuration give, which was checked, in place of what they gave before.
    pub fn configure_keys(&self, given: Vec<GivenKey>) {
        let before = self.configured_keys.load();
        let keys = ConfiguredKeys::replacing(&before, given, self.now());
        self.configured_keys.store(Arc::new(keys));
    }

    /// The platform's own key for a provider, as it stands now; `None`: there is none. Cheap: what is stored comes
    /// from the cache of records.
    pub async fn managed_key(
        &self,
        pool: Pool,
        provider: &str,
    ) -> Result<Option<Arc<ManagedSecret>>, Refusal> {
        if let Some(stored) = self.stored_managed_key(pool, provider).await? {
            let secret = ManagedSecret {
                facts: facts(pool, &stored.value),
                held: Held::Stored(stored.value),
            };
            return Ok(Some(Arc::new(secret)));
        }
        let configured = self.configured_keys.load();
        Ok(configured
            .of(pool, provider)
            .first()
            .map(|key| Arc::new(key.into())))
    }

    async fn stored_managed_key(
        &self,
        pool: Pool,
        provider: &str,
    ) -> Result<Option<Stored<StoredManagedKey>>, Refusal> {
        let key = keys::managed_key(pool, provider);
        let stored = self.records.get::<StoredManagedKey>(&key).await?;
        Ok(stored.filter(|stored| !stored.value.removed))
    }

    /// Stores a key, in place of the one there was.
    pub async fn set_managed_key(
        self: &Arc<Self>,
        caller: &Caller,
        set: SetManagedKey<'_>,
    ) -> Result<ManagedKeyView, Refusal> {
        let overlap = set.overlap.unwrap_or(OVERLAP);
        if overlap > MAX_OVERLAP {
            return Err(Refusal::invalid("overlap", "overlap is at most 7 days"));
        }
        let text = set.key.expose_str(Exposure::Inspect);
        let text = text.ok_or_else(|| Refusal::invalid("key", "the key is not text"))?;
        managed::check(&self.registry, set.provider, text, set.force)?;
        let mut new = StoredManagedKey {
            provider: set.provider.to_owned(),
            generation: 1,
            hint: hint(text),
            key: set.key,
            updated: self.now(),
            previous_until: None,
            removed: false,
        };
        let key = keys::managed_key(set.pool, set.provider);
        for _ in 0..ATTEMPTS {
            let before = self.records.get::<StoredManagedKey>(&key).await?;
            new.updated = self.now();
            let mut changes = Changes::default();
            if let Some(before) = &before {
                new.generation = before.value.generation + 1;
                new.previous_until = (!before.value.removed).then(|| new.updated + overlap);
                changes = changes.at(&key, before.revision);
            } else {
                changes = changes.absent(&key);
            }
            let record = managed_record(caller, Action::ManagedKeySet, set.pool, set.provider)
                .about("generation", new.generation);
            if self.effect_by(caller, record, changes.put(&key, &new)).await? {
                return Ok(ManagedKeyView {
                    key: facts(set.pool, &new),
                    behind: self.configured_sources(set.pool, set.provider),
                });
            }
        }
        Err(Undone::Conflict.into())
    }

    /// Removes a stored key. What the environment or the configuration has for the same use is in force then, and
    /// told.
    pub async fn remove_managed_key(
        self: &Arc<Self>,
        caller: &Caller,
        pool: Pool,
        provider: &str,
    ) -> Result<Option<ManagedKeyView>, Refusal> {
        let key = keys::managed_key(pool, provider);
        for _ in 0..ATTEMPTS {
            let before = self.stored_managed_key(pool, provider).await?;
            let before = before.ok_or_else(|| Refusal::not_found("managed key"))?;
            let left = StoredManagedKey {
                provider: provider.to_owned(),
                generation: before.value.generation,
                key: Secret::new(Vec::new()),
                hint: String::new(),
                updated: self.now(),
                previous_until: None,
                removed: true,
            };
            let changes = Changes::default().at(&key, before.revision).put(&key, &left);
            let record = managed_record(caller, Action::ManagedKeyRemove, pool, provider)
                .about("generation", before.value.generation);
            if self.effect_by(caller, record, changes).await? {
                return self.managed_key_view(pool, provider).await;
            }
        }
        Err(Undone::Conflict.into())
    }

    /// The keys that are handed out, in the order of pool and provider.
    pub async fn list_managed_keys(&self, page: PageRequest<'_>) -> Result<Page<ManagedKeyView>, Refusal> {
        let list = keys::managed_keys();
        let mut names: BTreeSet<(Pool, String)> = self.configured_keys.load().places().cloned().collect();
        let mut after = None;
        loop {
            let rows = self
                .records
                .scan::<StoredManagedKey>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            names.extend(rows.iter().filter_map(|(key, stored)| {
                let pool = keys::managed_key_pool(key)?;
                (!stored.value.removed).then(|| (pool, stored.value.provider.clone()))
            }));
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        let names: Vec<_> = names
            .into_iter()
            .map(|(pool, provider)| format!("{}/{provider}", pool.name()))
            .collect();
        let Page { rows, next } = page_of("managed-keys", names.iter().map(String::as_str), page)?;
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            let place = row.split_once('/');
            let Some((pool, provider)) = place.and_then(|(pool, rest)| Some((Pool::from_name(pool)?, rest)))
            else {
                continue;
            };
            // What was removed meanwhile is left out.
            views.extend(self.managed_key_view(pool, provider).await?);
        }
        Ok(Page { rows: views, next })
    }

    async fn managed_key_view(&self, pool: Pool, provider: &str) -> Result<Option<ManagedKeyView>, Refusal> {
        let Some(secret) = self.managed_key(pool, provider).await? else {
            return Ok(None);
        };
        let mut behind = self.configured_sources(pool, provider);
        behind.retain(|source| *source > secret.facts.source);
        Ok(Some(ManagedKeyView {
            key: secret.facts.clone(),
            behind,
        }))
    }

    fn configured_sources(&self, pool: Pool, provider: &str) -> Vec<Source> {
        let configured = self.configured_keys.load();
        let keys = configured.of(pool, provider).iter();
        keys.map(|key| key.facts.source).collect()
    }
}

fn facts(pool: Pool, stored: &StoredManagedKey) -> ManagedKey {
    ManagedKey {
        provider: stored.provider.clone(),
        pool,
        source: Source::Stored,
        generation: stored.generation,
        hint: stored.hint.clone(),
        updated: stored.updated,
        previous_until: stored.previous_until,
    }
}

fn managed_record(caller: &Caller, action: Action, pool: Pool, provider: &str) -> Record {
    caller
        .record(action, None)
        .about("pool", pool.name())
        .about("provider", provider)
}
