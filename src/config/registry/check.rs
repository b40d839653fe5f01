//! From tables to a [`Registry`]: every entry by itself, then what entries demand of each other.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;

use super::Sections;
use super::fault::{MAX_ENTRIES, MAX_TEXT, RegistryError, RegistryFault, error, form};
use super::provider::provider;
use crate::domain::executor::{Executor, Expectation, Provider, Registry};
use crate::domain::key_shape::KeyShapes;
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::name::Name;
use crate::domain::pool::{Pool, Pools};
use crate::domain::task::Capacity;

type Providers = BTreeMap<String, Provider>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExecutor {
    native_provider: String,
    providers: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    title: String,
    capacity: RawCapacity,
    #[serde(default)]
    default: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawCapacity {
    Cloud,
    Local,
}

/// The registry that `sections` make. Faults are blamed on `file`, which has brought `own` of them.
pub(super) fn registry(file: &str, sections: Sections, own: &Sections) -> Result<Registry, RegistryError> {
    let (mut providers, mut shapes) = (Providers::new(), Vec::new());
    for (called, table) in sections.providers {
        let (provider, its_shapes) = provider(file, &called, table, own.providers.get(&called))?;
        shapes.extend(its_shapes);
        providers.insert(called, provider);
    }
    model_ids(file, &providers)?;
    let executors = sections.executors.into_iter();
    let executors: Vec<_> = executors
        .map(|(called, table)| executor(file, &called, table, &providers))
        .collect::<Result<_, _>>()?;
    let pools = pools(file, sections.pools)?;
    Ok(Registry::new(
        executors,
        providers.into_values(),
        KeyShapes::new(shapes),
        pools,
    ))
}

/// A provider has other names only for what another one says is its own: anything else would never be asked for.
fn model_ids(file: &str, providers: &Providers) -> Result<(), RegistryError> {
    for (called, provider) in providers {
        for model in provider.model_ids.keys() {
            let mut others = providers.iter().filter(|(other, _)| *other != called);
            if !others.any(|(_, other)| other.names(model)) {
                let key = format!("providers.{called}.model_ids");
                return Err(error(file, key, RegistryFault::UnknownModel(model.clone())));
            }
        }
    }
    Ok(())
}

fn executor(
    file: &str,
    called: &str,
    table: Table,
    providers: &Providers,
) -> Result<Executor, RegistryError> {
    let key = format!("executors.{called}");
    let name = name(file, &key, called)?;
    let raw: RawExecutor = table.try_into().map_err(|e| form(file, &key, &e))?;
    count(file, || format!("{key}.providers"), raw.providers.len())?;
    if !raw.providers.contains_key(&raw.native_provider) {
        let fault = RegistryFault::NativeNotUsable(raw.native_provider);
        return Err(error(file, format!("{key}.native_provider"), fault));
    }
    let mut usable = BTreeMap::new();
    for (called, modes) in raw.providers {
        let key = format!("{key}.providers.{called}");
        let modes = match providers.get(&called) {
            Some(provider) => modes_of(&modes, provider, &raw.native_provider),
            None => Err(RegistryFault::UnknownProvider(called.clone())),
        };
        usable.insert(called, modes.map_err(|fault| error(file, key, fault))?);
    }
    Ok(Executor {
        name,
        native_provider: raw.native_provider,
        providers: usable,
    })
}

fn modes_of(names: &[String], provider: &Provider, native: &str) -> Result<ModeSet, RegistryFault> {
    let one = |name: &String| {
        let mode = AuthMode::from_name(name).ok_or_else(|| RegistryFault::UnknownMode(name.clone()))?;
        fits(mode, provider, native).map(|()| mode)
    };
    names.iter().map(one).collect()
}

/// Whether the provider takes what the mode hands out.
fn fits(mode: AuthMode, provider: &Provider, native: &str) -> Result<(), RegistryFault> {
    let called = || provider.name.to_string();
    if provider.credential == Expectation::None && mode != AuthMode::Local {
        return Err(RegistryFault::ModeWithCredential {
            mode,
            provider: called(),
        });
    }
    let grants = provider.kinds.contains(&CredentialKind::OAuthGrant);
    let keys = provider
        .kinds
        .iter()
        .any(|kind| *kind != CredentialKind::OAuthGrant);
    let (takes, needs) = match mode {
        AuthMode::OAuth => (grants, "the kind oauth-grant"),
        AuthMode::Byok | AuthMode::Metered | AuthMode::Shared => {
            (keys, "one of the kinds api-key, aws and bedrock-bearer")
        }
        AuthMode::HostSession if provider.name.as_str() != native => {
            return Err(RegistryFault::HostSessionElsewhere {
                native: native.to_owned(),
            });
        }
        AuthMode::HostSession | AuthMode::Local => (true, ""),
    };
    if takes {
        return Ok(());
    }
    Err(RegistryFault::ModeWithoutKind {
        mode,
        needs,
        provider: called(),
    })
}

fn pools(file: &str, tables: BTreeMap<String, Table>) -> Result<Pools, RegistryError> {
    let mut pools = Vec::with_capacity(tables.len());
    for (called, table) in tables {
        let key = format!("pools.{called}");
        let name = name(file, &key, &called)?;
        let raw: RawPool = table.try_into().map_err(|e| form(file, &key, &e))?;
        text(file, || format!("{key}.title"), &raw.title)?;
        let capacity = match raw.capacity {
            RawCapacity::Cloud => Capacity::Cloud,
            RawCapacity::Local => Capacity::Local,
        };
        let pool = Pool {
            name,
            title: raw.title,
            capacity,
        };
        pools.push((pool, raw.default));
    }
    Pools::new(pools).map_err(|fault| error(file, "pools", RegistryFault::Pools(fault)))
}

pub(super) fn name(file: &str, key: &str, text: &str) -> Result<Name, RegistryError> {
    text.parse()
        .map_err(|e| error(file, key, RegistryFault::BadName(e)))
}

/// Lets pass a text that a person or a provider reads.
pub(super) fn text(file: &str, key: impl FnOnce() -> String, text: &str) -> Result<(), RegistryError> {
    if (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(error(file, key(), RegistryFault::BadText))
    }
}

/// Lets pass a list or table with something in it, and not too much.
pub(super) fn count(file: &str, key: impl FnOnce() -> String, entries: usize) -> Result<(), RegistryError> {
    if (1..=MAX_ENTRIES).contains(&entries) {
        Ok(())
    } else {
        Err(error(file, key(), RegistryFault::BadCount))
    }
}
