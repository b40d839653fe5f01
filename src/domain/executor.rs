//! The registry: which agent programs there are, which providers, which modes a pair of them supports, and the
//! capacity pools.
//!
//! Data, loaded once by `config::registry` and read without locks. A pair that is not listed is not
//! supported.

use std::collections::BTreeMap;

use super::key_shape::{AwsKeyText, AwsPart, KeyShapes, ShapeMismatch};
use super::key_test::KeyTest;
use super::matrix::{Cascade, Judged, Pattern};
use super::mode::{CredentialKind, ModeSet};
use super::name::Name;
use super::pool::{Pool, Pools};
use super::task::Capacity;

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

    /// The providers it can use, the native one first, the others by name.
    pub fn usable(&self) -> impl Iterator<Item = (&str, ModeSet)> {
        let native = self.native_provider.as_str();
        let others = self.providers.iter().filter(move |(name, _)| *name != native);
        std::iter::once((native, self.modes(native)))
            .chain(others.map(|(name, modes)| (name.as_str(), *modes)))
    }
}

/// Whether calls to a provider are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// Each call carries a credential of one of the provider's kinds.
    #[default]
    Required,
    /// Calls carry none: a server on one's own machine, used in mode local only.
    None,
}

impl Expectation {
    /// The name in the registry's files.
    pub const fn name(self) -> &'static str {
        match self {
            Expectation::Required => "required",
            Expectation::None => "none",
        }
    }
}

/// Who answers model calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: Name,
    /// What people call it.
    pub title: String,
    /// The kinds of credential it takes, the preferred one first; none where it takes none.
    pub kinds: Vec<CredentialKind>,
    /// Whether it takes any.
    pub credential: Expectation,
    /// The root of its API, without a `/` at its end; of a local one the address it has by default. `None`: it has no
    /// single one.
    pub base_url: Option<String>,
    /// Patterns of the models that are its own; none where it serves whatever it is asked for.
    pub models: Vec<Pattern>,
    /// What it calls models that another provider calls otherwise: that name, and its own.
    pub model_ids: BTreeMap<String, String>,
    /// What shows whether its credentials work, by kind.
    pub tests: Vec<(CredentialKind, KeyTest)>,
}

impl Provider {
    /// Whether it says which models are its own, and `model` is one of them.
    pub fn names(&self, model: &str) -> bool {
        self.models.iter().any(|pattern| pattern.matches(model))
    }

    /// Whether `model` may be asked of it: one of its own, one it has another name for, or any where it does not
    /// say which are its own.
    pub fn serves(&self, model: &str) -> bool {
        self.models.is_empty() || self.names(model) || self.model_ids.contains_key(model)
    }

    /// The other names that `model` has here: what this provider calls it, and what others call what this provider
    /// calls so. A prefix that ends in a dot, as those of Bedrock's inference profiles do, makes it no other model.
    pub fn aliases<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.model_id(model);
        let is_own = move |id: &str| {
            own.strip_suffix(id)
                .is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let named = self.model_ids.iter().filter(move |(_, id)| is_own(id));
        let named = named.flat_map(|(name, id)| [name.as_str(), id.as_str()]);
        std::iter::once(own)
            .chain(named)
            .filter(move |name| *name != model)
    }

    /// What shows whether a credential of this kind works; `None`: nothing is known that does.
    pub fn test(&self, kind: CredentialKind) -> Option<&KeyTest> {
        let test = self.tests.iter().find(|(of, _)| *of == kind);
        test.map(|(_, test)| test)
    }

    /// What it calls `model`: the same, unless it has another name for it.
    pub fn model_id<'a>(&'a self, model: &'a str) -> &'a str {
        self.model_ids.get(model).map_or(model, String::as_str)
    }
}

/// All executors, providers and pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    executors: BTreeMap<String, Executor>,
    providers: BTreeMap<String, Provider>,
    shapes: KeyShapes,
    pools: Pools,
}

impl Registry {
    /// A registry of these. Later entries of one name replace earlier ones.
    pub fn new(
        executors: impl IntoIterator<Item = Executor>,
        providers: impl IntoIterator<Item = Provider>,
        shapes: KeyShapes,
        pools: Pools,
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
            pools,
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

    /// What the scopes of a cascade say for a provider and a model: whoever denies a model means it by any of its
    /// names.
    pub fn judge(&self, cascade: Cascade<'_>, provider: &str, model: &str) -> Judged {
        let judged = cascade.judge(provider, model);
        match self.provider(provider) {
            Some(known) if !model.is_empty() => known
                .aliases(model)
                .fold(judged, |judged, name| judged.and(cascade.judge(provider, name))),
            _ => judged,
        }
    }

    /// All executors, in the order of their names.
    pub fn executors(&self) -> impl Iterator<Item = &Executor> {
        self.executors.values()
    }

    /// All providers, in the order of their names.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values()
    }

    /// The executors that can use `provider`, in the order of their names, and in which modes.
    pub fn users(&self, provider: &str) -> impl Iterator<Item = (&Executor, ModeSet)> {
        self.executors()
            .map(move |executor| (executor, executor.modes(provider)))
            .filter(|(_, modes)| !modes.is_empty())
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// The pool of a task that names none.
    pub fn default_pool(&self, capacity: Capacity) -> &Pool {
        self.pools.default_for(capacity)
    }

    /// All pools, in the order of their names.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn provider(models: &[&str]) -> Provider {
        Provider {
            name: "p".parse().unwrap(),
            title: "P".to_owned(),
            kinds: vec![CredentialKind::ApiKey],
            credential: Expectation::Required,
            base_url: None,
            models: models.iter().map(|model| model.parse().unwrap()).collect(),
            model_ids: BTreeMap::from([("claude-x".to_owned(), "vendor.claude-x-v1:0".to_owned())]),
            tests: Vec::new(),
        }
    }

    // req: A4
    #[test]
    fn a_provider_serves_its_own_models_those_it_has_a_name_for_and_any_where_it_does_not_say() {
        let own = provider(&["gpt-*", "o3"]);
        for (model, serves) in [
            ("gpt-5", true),
            ("gpt-", true),
            ("o3", true),
            ("o3-mini", false),
            ("my-gpt-5", false),
            ("claude-x", true),
            ("claude-y", false),
            ("", false),
        ] {
            assert_eq!(own.serves(model), serves, "{model}");
        }
        assert!(provider(&[]).serves("anything"));
        assert!(!provider(&[]).names("anything"));
    }

    // req: A4
    #[test]
    fn a_model_goes_by_the_providers_own_name() {
        assert_eq!(provider(&[]).model_id("claude-x"), "vendor.claude-x-v1:0");
        assert_eq!(provider(&[]).model_id("claude-y"), "claude-y");
    }

    #[test]
    fn the_native_provider_comes_first() {
        let modes = ModeSet::EMPTY;
        let names = ["a", "m", "z"].map(|name| (name.to_owned(), modes));
        let executor = Executor {
            name: "e".parse().unwrap(),
            native_provider: "m".to_owned(),
            providers: BTreeMap::from(names),
        };
        let order: Vec<_> = executor.usable().map(|(name, _)| name).collect();
        assert_eq!(order, ["m", "a", "z"]);
    }
}
