//! The registry as callers see it: the providers with who can use them and how accounts are connected, and the pools.
//! It is the broker's and the same for every org.

use super::Broker;
use super::page::{Page, PageRequest, page_of};
use crate::domain::executor::Provider;
use crate::domain::mode::ModeSet;
use crate::domain::pool::Pool;
use crate::domain::refusal::Refusal;

/// A provider, and what can be done with it.
#[derive(Clone, Debug)]
pub struct ProviderView {
    /// The provider.
    pub provider: Provider,
    /// The executors that can use it, by name, and in which modes.
    pub executors: Vec<(String, ModeSet)>,
    /// How accounts of it are connected, by name.
    pub connectors: Vec<ConnectorView>,
}

/// A connector, as far as it concerns those who choose a provider.
#[derive(Clone, Debug)]
pub struct ConnectorView {
    /// Its name.
    pub name: String,
    /// Whether it is switched on and its terms, where it has any, are accepted.
    pub usable: bool,
    /// What its terms say, in short; empty where it has none.
    pub terms: String,
    /// Where the terms are; empty where nothing says.
    pub terms_url: String,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// The pool.
    pub pool: Pool,
    /// Whether it is the pool of the tasks of its capacity that name none.
    pub default: bool,
}

impl Broker {
    /// The providers, by name.
    pub fn list_providers(&self, page: PageRequest<'_>) -> Result<Page<ProviderView>, Refusal> {
        let names = self.registry.providers().map(|provider| provider.name.as_str());
        let Page { rows, next } = page_of("providers", names, page)?;
        let providers = rows.into_iter().filter_map(|name| self.registry.provider(name));
        Ok(Page {
            rows: providers.map(|provider| self.provider_view(provider)).collect(),
            next,
        })
    }

    /// One provider.
    pub fn get_provider(&self, name: &str) -> Result<ProviderView, Refusal> {
        let provider = self.registry.provider(name);
        let provider = provider.ok_or_else(|| Refusal::not_found("provider"))?;
        Ok(self.provider_view(provider))
    }

    /// The pools, by name.
    pub fn list_pools(&self, page: PageRequest<'_>) -> Result<Page<PoolView>, Refusal> {
        let names = self.registry.pools().map(|pool| pool.name.as_str());
        let Page { rows, next } = page_of("pools", names, page)?;
        let pools = rows.into_iter().filter_map(|name| self.registry.pool(name));
        let view = |pool: &Pool| PoolView {
            pool: pool.clone(),
            default: self.registry.default_pool(pool.capacity) == pool,
        };
        Ok(Page {
            rows: pools.map(view).collect(),
            next,
        })
    }

    fn provider_view(&self, provider: &Provider) -> ProviderView {
        let name = provider.name.as_str();
        let users = self.registry.users(name);
        let of_it = self.connectors.iter().filter(|each| each.provider == name);
        let connectors = of_it.map(|connector| {
            let terms = connector.terms.as_ref();
            let url = terms.and_then(|terms| terms.url.as_ref());
            ConnectorView {
                name: connector.name.to_string(),
                usable: connector.usable().is_ok(),
                terms: terms.map(|terms| terms.text.clone()).unwrap_or_default(),
                terms_url: url.map(ToString::to_string).unwrap_or_default(),
            }
        });
        ProviderView {
            provider: provider.clone(),
            executors: users
                .map(|(executor, modes)| (executor.name.to_string(), modes))
                .collect(),
            connectors: connectors.collect(),
        }
    }
}
