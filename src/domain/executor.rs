//! The registry: which agent programs there are, which providers, and which modes a pair of them supports.
//!
//! Data, loaded once by `config::registry` and read without locks. A pair that is not listed is not
//! supported.

use std::collections::BTreeMap;

use super::key_shape::{AwsKeyText, AwsPart, KeyShapes, ShapeMismatch};
use super::mode::{CredentialKind, ModeSet};
use super::name::Name;

/// An agent program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executor {
    /// Its name.
    pub name: Name,
    /// The provider it is made for. A pinned mode holds it to that provider's models.
    pub native_provider: String,
    /// What it can do with each provider it can use.
    pub providers: BTreeMap<String, ModeSet>,
}

impl Executor {
    /// The modes it supports with `provider`; empty where it cannot use it.
    pub fn modes(&self, provider: &str) -> ModeSet {
        self.providers.get(provider).copied().unwrap_or_default()
    }
}

/// Who answers model calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: Name,
    /// What people call it.
    pub title: String,
    /// The kinds of credential it takes, the preferred one first.
    pub kinds: Vec<CredentialKind>,
}

/// All executors and providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    executors: BTreeMap<String, Executor>,
    providers: BTreeMap<String, Provider>,
    shapes: KeyShapes,
}

impl Registry {
    /// A registry of these. Later entries of one name replace earlier ones.
    pub fn new(
        executors: impl IntoIterator<Item = Executor>,
        providers: impl IntoIterator<Item = Provider>,
        shapes: KeyShapes,
    ) -> Self {
        Self {
            executors: executors
                .into_iter()
                .map(|e| (e.name.as_str().to_owned(), e))
                .collect(),
            providers: providers
                .into_iter()
                .map(|p| (p.name.as_str().to_owned(), p))
                .collect(),
            shapes,
        }
    }

    /// The executor of this name.
    pub fn executor(&self, name: &str) -> Option<&Executor> {
        self.executors.get(name)
    }

    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.get(name)
    }

    /// The kinds of credential that `provider` takes; none where it is unknown.
    pub fn kinds(&self, provider: &str) -> &[CredentialKind] {
        self.provider(provider).map_or(&[], |provider| &provider.kinds)
    }

    /// The modes `executor` supports with `provider`; empty where either is unknown.
    pub fn modes(&self, executor: &str, provider: &str) -> ModeSet {
        self.executor(executor)
            .map_or(ModeSet::EMPTY, |executor| executor.modes(provider))
    }

    /// Whether `key` may be stored as a key of `provider`.
    pub fn check_key(&self, provider: &str, key: &str) -> Result<(), ShapeMismatch> {
        self.shapes.check(provider, key)
    }

    /// Whether `keys` may be stored as AWS keys of `provider`.
    pub fn check_aws_keys(
        &self,
        provider: &str,
        keys: AwsKeyText<'_>,
    ) -> Result<(), (AwsPart, ShapeMismatch)> {
        self.shapes.check_aws(provider, keys)
    }

    /// All executors, in the order of their names.
    pub fn executors(&self) -> impl Iterator<Item = &Executor> {
        self.executors.values()
    }

    /// All providers, in the order of their names.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values()
    }
}
