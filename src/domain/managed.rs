//! The platform's own keys, which tasks use in the modes metered and shared: one for each provider and pool.
//!
//! A key is stored through the API, or given by the environment or a file that the configuration names. Where there
//! are several for one provider and pool, they go in that order; the others wait in case it is taken away.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::executor::Registry;
use super::key_shape::{ShapeMismatch, hint};
use super::mode::{AuthMode, CredentialKind};
use super::secret::{ApiKey, Exposure, Secret};
use super::time::Time;

/// What a key of the platform's is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    /// Paid for from the org's balance.
    Metered,
    /// Free up to a daily quota.
    Shared,
}

impl Pool {
    /// Both.
    pub const ALL: [Pool; 2] = [Pool::Metered, Pool::Shared];

    /// The name in commands, configuration and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Pool::Metered => "metered",
            Pool::Shared => "shared",
        }
    }

    /// The mode in which its keys are used.
    pub const fn mode(self) -> AuthMode {
        match self {
            Pool::Metered => AuthMode::Metered,
            Pool::Shared => AuthMode::Shared,
        }
    }

    /// The pool whose keys a mode uses; `None` for modes that use none of the platform's.
    pub fn of(mode: AuthMode) -> Option<Pool> {
        Pool::ALL.into_iter().find(|pool| pool.mode() == mode)
    }

    /// The pool of this name.
    pub fn from_name(name: &str) -> Option<Pool> {
        Pool::ALL.into_iter().find(|pool| pool.name() == name)
    }
}

/// Where a key comes from. In this order they go before one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Stored through the API.
    Stored,
    /// An environment variable of the broker's process.
    Environment,
    /// A file that the configuration names.
    File,
}

impl Source {
    /// The name in commands and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Stored => "stored",
            Source::Environment => "environment",
            Source::File => "file",
        }
    }
}

/// What may be told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedKey {
    /// Whose key it is.
    pub provider: String,
    /// What it is for.
    pub pool: Pool,
    /// Where it comes from.
    pub source: Source,
    /// Counts the keys there were from this source: a stored one's for good, others' since the broker's start.
    pub generation: u64,
    /// Its last characters, where it is long enough that they give nothing away.
    pub hint: String,
    /// Since when it is this one. Of a key that was not stored: since when the broker has it.
    pub updated: Time,
    /// Until when the key before it may be in use by proxies that keep what they were told.
    pub previous_until: Option<Time>,
}

/// A key as the environment or the configuration gives it.
pub struct GivenKey {
    /// The provider, as written.
    pub provider: String,
    /// What it is for.
    pub pool: Pool,
    /// Where it comes from.
    pub source: Source,
    /// What people have to change if it will not do: the variable, or the configuration's key.
    pub origin: String,
    /// The key.
    pub key: Secret<ApiKey>,
}

/// Why a key will not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// No such provider.
    #[error("there is no provider {provider:?}; name one of {known}, or add it to the registry")]
    UnknownProvider {
        /// What was named.
        provider: String,
        /// Those there are.
        known: String,
    },
    /// The provider takes no keys that are one text.
    #[error("{provider} takes no API key or bearer key, so the platform can have none for it")]
    TakesNone {
        /// The provider.
        provider: String,
    },
    /// It looks like something else.
    #[error("{0}")]
    Shape(#[from] ShapeMismatch),
}

/// Whether a key may be one of the platform's for `provider`. With `force`, a likely mix-up passes.
pub fn check(registry: &Registry, provider: &str, key: &str, force: bool) -> Result<(), KeyProblem> {
    let known = registry
        .provider(provider)
        .ok_or_else(|| KeyProblem::UnknownProvider {
            provider: provider.to_owned(),
            known: names(registry),
        })?;
    let takes =
        |kind: &CredentialKind| matches!(kind, CredentialKind::ApiKey | CredentialKind::BedrockBearer);
    if !known.kinds.iter().any(takes) {
        return Err(KeyProblem::TakesNone {
            provider: provider.to_owned(),
        });
    }
    match registry.check_key(provider, key) {
        Err(mismatch) if !(force && mismatch.forceable()) => Err(mismatch.into()),
        _ => Ok(()),
    }
}

/// The providers there are, for people.
pub fn names(registry: &Registry) -> String {
    let names: Vec<_> = registry.providers().map(|known| known.name.as_str()).collect();
    names.join(", ")
}

impl GivenKey {
    /// Whether it will do; nobody is there to force it.
    pub fn check(&self, registry: &Registry) -> Result<(), KeyProblem> {
        let text = self.key.expose_str(Exposure::Inspect);
        let text = text.ok_or(ShapeMismatch::Unprintable)?;
        check(registry, &self.provider, text, false)
    }
}

/// A key that the environment or the configuration gives, in force or in waiting.
pub struct ConfiguredKey {
    /// What may be told of it.
    pub facts: ManagedKey,
    /// The key.
    pub key: Secret<ApiKey>,
}

/// All keys that the environment and the configuration give.
#[derive(Default)]
pub struct ConfiguredKeys(BTreeMap<(Pool, String), Vec<Arc<ConfiguredKey>>>);

impl ConfiguredKeys {
    /// These keys, which were checked, in place of `before`. Generations go on where a key differs from the one
    /// before it.
    pub fn replacing(before: &ConfiguredKeys, given: Vec<GivenKey>, now: Time) -> Self {
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for given in given {
            let place = (given.pool, given.provider.clone());
            let mut earlier = before.0.get(&place).into_iter().flatten();
            let earlier = earlier.find(|key| key.facts.source == given.source);
            let same = earlier
                .filter(|key| key.key.expose(Exposure::Inspect) == given.key.expose(Exposure::Inspect));
            let key = same.cloned().unwrap_or_else(|| {
                let text = given.key.expose_str(Exposure::Inspect).unwrap_or_default();
                Arc::new(ConfiguredKey {
                    facts: ManagedKey {
                        provider: given.provider,
                        pool: given.pool,
                        source: given.source,
                        generation: earlier.map_or(1, |key| key.facts.generation + 1),
                        hint: hint(text),
                        updated: now,
                        previous_until: None,
                    },
                    key: given.key,
                })
            });
            keys.entry(place).or_default().push(key);
        }
        keys.values_mut()
            .for_each(|keys| keys.sort_by_key(|key| key.facts.source));
        Self(keys)
    }

    /// Those for a provider and pool, the one that goes first first.
    pub fn of(&self, pool: Pool, provider: &str) -> &[Arc<ConfiguredKey>] {
        self.0
            .get(&(pool, provider.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// The providers and pools that there are keys for.
    pub fn places(&self) -> impl Iterator<Item = &(Pool, String)> {
        self.0.keys()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::executor::{Expectation, Provider};
    use crate::domain::key_shape::KeyShapes;
    use crate::domain::pool::Pools;

    fn given(provider: &str, source: Source, key: &str) -> GivenKey {
        GivenKey {
            provider: provider.to_owned(),
            pool: Pool::Metered,
            source,
            origin: String::new(),
            key: Secret::from(key.to_owned()),
        }
    }

    #[test]
    fn the_environment_goes_before_a_file_whatever_the_order() {
        let keys = ConfiguredKeys::replacing(
            &ConfiguredKeys::default(),
            vec![
                given("a", Source::File, "one"),
                given("a", Source::Environment, "two"),
            ],
            Time::from_millis(1),
        );
        let sources: Vec<_> = keys
            .of(Pool::Metered, "a")
            .iter()
            .map(|key| key.facts.source)
            .collect();
        assert_eq!(sources, [Source::Environment, Source::File]);
        assert!(keys.of(Pool::Shared, "a").is_empty() && keys.of(Pool::Metered, "b").is_empty());
    }

    #[test]
    fn a_generation_is_a_change() {
        let load = |before: &ConfiguredKeys, key: &str, at| {
            let given = vec![given("a", Source::File, key)];
            ConfiguredKeys::replacing(before, given, Time::from_millis(at))
        };
        let facts = |keys: &ConfiguredKeys| {
            let facts = &keys.of(Pool::Metered, "a")[0].facts;
            (facts.generation, facts.updated.millis())
        };
        let first = load(&ConfiguredKeys::default(), "one", 1);
        let same = load(&first, "one", 2);
        let other = load(&same, "two", 3);
        assert_eq!(
            [facts(&first), facts(&same), facts(&other)],
            [(1, 1), (1, 1), (2, 3)]
        );
    }

    #[test]
    fn only_providers_that_take_a_key_have_one() {
        let provider = |name: &str, kinds: &[CredentialKind]| Provider {
            name: name.parse().unwrap(),
            title: String::new(),
            kinds: kinds.to_vec(),
            credential: Expectation::Required,
            base_url: None,
            models: Vec::new(),
            model_ids: BTreeMap::new(),
            tests: Vec::new(),
        };
        let providers = [
            provider("keyed", &[CredentialKind::OAuthGrant, CredentialKind::ApiKey]),
            provider("bedrock", &[CredentialKind::Aws, CredentialKind::BedrockBearer]),
            provider("signed", &[CredentialKind::Aws]),
        ];
        let registry = Registry::new([], providers, KeyShapes::default(), Pools::sample());
        let check = |provider| given(provider, Source::File, "a-key").check(&registry);
        assert_eq!((check("keyed"), check("bedrock")), (Ok(()), Ok(())));
        assert!(matches!(check("signed"), Err(KeyProblem::TakesNone { .. })));
        let unknown = check("nobody").unwrap_err().to_string();
        assert!(unknown.contains("bedrock, keyed, signed"), "{unknown}");
        let empty = given("keyed", Source::File, "").check(&registry);
        assert_eq!(empty, Err(KeyProblem::Shape(ShapeMismatch::Empty)));
    }
}
