//! The registry of executors, providers and capacity pools: shipped defaults, and what the configuration adds.
//!
//! The shipped files are `registry/executors.toml`, `registry/providers.toml` and `registry/pools.toml`. An extra file
//! has the same three tables, `executors`, `providers` and `pools`; its entries are laid over the shipped ones key by
//! key, so that `[executors.claude-code.providers] mine = ["byok"]` adds one provider to one executor. A registry is
//! checked whole after each file, so that a fault is told of the file that brought it. `docs/registry.md` has every key.

mod check;
mod fault;
mod key_test;
mod provider;

use std::collections::{BTreeMap, btree_map};

use serde::Deserialize;
use toml::{Table, Value};

use crate::domain::executor::Registry;

pub use fault::{RegistryError, RegistryFault};

const SHIPPED: [(&str, &str); 3] = [
    (
        "registry/providers.toml",
        include_str!("../../registry/providers.toml"),
    ),
    (
        "registry/executors.toml",
        include_str!("../../registry/executors.toml"),
    ),
    ("registry/pools.toml", include_str!("../../registry/pools.toml")),
];

/// A file with more executors, providers and pools.
#[derive(Clone, Copy, Debug)]
pub struct Extra<'a> {
    /// Its name, for errors.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// The shipped registry, with `extras` over it in their order.
pub fn load(extras: &[Extra<'_>]) -> Result<Registry, RegistryError> {
    let mut tables = Sections::default();
    for (file, text) in SHIPPED {
        merge(&mut tables, parse(file, text)?);
    }
    let mut registry = check::registry("registry", tables.clone(), &tables)?;
    for extra in extras {
        let own = parse(extra.file, extra.text)?;
        merge(&mut tables, own.clone());
        registry = check::registry(extra.file, tables.clone(), &own)?;
    }
    Ok(registry)
}

/// The tables of a file, or of several laid over each other.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    #[serde(default)]
    executors: BTreeMap<String, Table>,
    #[serde(default)]
    providers: BTreeMap<String, Table>,
    #[serde(default)]
    pools: BTreeMap<String, Table>,
}

fn parse(file: &str, text: &str) -> Result<Sections, RegistryError> {
    toml::from_str(text).map_err(|e| fault::form(file, "", &e))
}

fn merge(base: &mut Sections, over: Sections) {
    for (into, from) in [
        (&mut base.executors, over.executors),
        (&mut base.providers, over.providers),
        (&mut base.pools, over.pools),
    ] {
        for (name, table) in from {
            match into.entry(name) {
                btree_map::Entry::Vacant(slot) => {
                    slot.insert(table);
                }
                btree_map::Entry::Occupied(mut slot) => overlay(slot.get_mut(), table),
            }
        }
    }
}

/// Tables are laid over each other key by key; everything else is replaced.
fn overlay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
