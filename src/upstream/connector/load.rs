//! From TOML to [`Connector`]: the shipped ones, and what the configuration adds or overrides.
//!
//! A connector is laid over `registry/connectors/generic.toml`, which holds every default, then over the
//! shipped one of its name; the configuration comes last. `generic` has neither a token endpoint nor an issuer, so
//! it is a base only, until the configuration gives it one. Errors name the file, the key and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use toml::{Table, Value};

use super::Connector;
use super::check::validate;
use crate::domain::name::MalformedName;

const BASE: &str = "generic";
const SHIPPED: [(&str, &str); 4] = [
    (BASE, include_str!("../../../registry/connectors/generic.toml")),
    ("claude", include_str!("../../../registry/connectors/claude.toml")),
    ("openai", include_str!("../../../registry/connectors/openai.toml")),
    ("google", include_str!("../../../registry/connectors/google.toml")),
];

/// The longest time a connector may state, in seconds: a day.
pub(super) const MAX_SECONDS: u64 = 86_400;
/// The most entries of a list.
pub(super) const MAX_LIST: usize = 64;

/// What is wrong with a connector, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {}: {fault}", place(connector, key))]
pub struct ConnectorError {
    /// The file that has to be changed.
    pub file: String,
    /// The connector.
    pub connector: String,
    /// The key at fault; empty where it is the whole table.
    pub key: String,
    /// What is wrong, and the remedy.
    pub fault: ConnectorFault,
}

/// What can be wrong with a connector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorFault {
    /// Not TOML, or no tables of connectors.
    #[error("{0}; mend the file")]
    Form(String),
    /// Something else where a connector's table belongs; perhaps a secret, so nothing of it is told.
    #[error("is no table of a connector; write [connectors.NAME] above the connector's keys")]
    NoTable,
    /// A key that connectors do not have.
    #[error("is no key of a connector; correct or remove it (docs/connectors.md has all keys)")]
    UnknownKey,
    /// A value of the wrong type, or none of the words that the key takes.
    #[error("{0}; correct it (docs/connectors.md has the values)")]
    WrongValue(String),
    /// Not a reference to a secret; perhaps the secret itself, so nothing of it is told.
    #[error(
        "expected `env` or `file`: write {{ env = \"NAME\" }} or {{ file = \"/path\" }}, never the secret itself"
    )]
    NoReference,
    /// A key without a default, and without a value.
    #[error("is missing; set it")]
    Missing,
    /// Neither a token endpoint nor a way to find it.
    #[error("is needed; set it, or `issuer` for discovery")]
    NoEndpoint,
    /// No provider that accounts can be connected for.
    #[error("{0:?} is no provider of the registry that takes OAuth grants; correct it, or add the provider")]
    UnknownProvider(String),
    /// In more than one file.
    #[error("is in {0} already; keep one of them")]
    Twice(String),
    /// The name is no name.
    #[error("{0}; rename it")]
    BadName(MalformedName),
    /// Needed for a connector that is on.
    #[error("is needed to use this connector; set it, or set enabled = false")]
    Needed,
    /// A secret reference without a use.
    #[error("is not used with client_auth = \"none\"; remove it, or choose \"basic\" or \"post\"")]
    Unused,
    /// No absolute URL.
    #[error("is no absolute URL; write it as https://host/path")]
    NotAUrl,
    /// Tokens would travel in clear.
    #[error("plain http is for loopback hosts only; use https")]
    PlainHttp,
    /// User information or a fragment (RFC 6749 section 3.2).
    #[error("carries user information or a fragment; remove it")]
    UrlParts,
    /// Not on the allow-list.
    #[error("host {0} is not on this connector's list; add it to `hosts` if it is right")]
    HostNotAllowed(String),
    /// Named by a metadata document, and not where its issuer is.
    #[error("has another scheme than the issuer; set it in the connector if it is right")]
    OtherScheme,
    /// Named by a metadata document, and not where its issuer is.
    #[error(
        "has port {0}, which is neither the issuer's nor the usual one; set it in the connector if it is right"
    )]
    OtherPort(u16),
    /// A part that an issuer does not have (RFC 8414 section 2).
    #[error("has a query; write the issuer as its metadata document does")]
    IssuerQuery,
    /// More or less than a host.
    #[error("{0:?} is no host; write it without scheme, port and path")]
    NotAHost(String),
    /// Not a loopback host.
    #[error("is not localhost or a loopback address; a loopback redirect needs one")]
    NotLoopback,
    /// A path without its slash.
    #[error("has to begin with '/'")]
    NotAPath,
    /// Port 0.
    #[error("0 is no port; leave the list empty where any port may be used")]
    NotAPort,
    /// A code that nothing binds to the sign-in that it is pasted for.
    #[error(
        "is false, and nothing else shows whose code is pasted; set it to true, or code = \"code-and-state\" if the page \
         shows the state too"
    )]
    Unbound,
    /// Relative to nobody knows where.
    #[error("is no absolute path; write it from the root")]
    RelativePath,
    /// A parameter that the broker sets itself.
    #[error("{0} is set by the broker; remove it")]
    Reserved(String),
    /// Nothing to choose from.
    #[error("is empty; name at least one, or leave it out for the default")]
    Empty,
    /// A page of terms without terms.
    #[error("is there without `terms`; say what they are, or remove it")]
    NoTerms,
    /// Empty, too long, or holding characters that no such value has.
    #[error("is empty, too long or has characters that do not belong there; mend it")]
    BadText,
    /// Too many.
    #[error("has more than {MAX_LIST} entries; shorten it")]
    TooMany,
    /// No time at all.
    #[error("is 0, which is no window; set the seconds that the server documents, or remove it")]
    NoTime,
    /// Too long a time.
    #[error("is more than {MAX_SECONDS} seconds; choose less")]
    TooLong,
    /// A status that cannot mean that.
    #[error(
        "{0} cannot be listed here; permanent statuses are 400 to 499 and not also unprocessed, unprocessed ones 400 to 599"
    )]
    BadStatus(u16),
    /// A code that is said to mean two things.
    #[error("{0} is listed as permanent and as unprocessed; choose one")]
    Contradiction(String),
    /// A code of RFC 6749 section 5.2 that says nothing of any grant.
    #[error(
        "{0} blames the client and never the grant; remove it, and mend the client's configuration instead"
    )]
    BlamesClient(String),
    /// A cause of what is no refusal.
    #[error("{0} is not in permanent_errors; add it there, or remove it here")]
    NotPermanent(String),
    /// A part of a device flow of the server's own.
    #[error("is needed with device_flow = \"code\"; set it, or choose \"rfc8628\"")]
    NeededByFlow,
    /// A part of a flow that is not chosen.
    #[error("is not used with device_flow = \"rfc8628\"; remove it, or choose \"code\"")]
    OfOwnFlow,
    /// Terms forbid it.
    #[error("a connector with terms of use has personal grants; set sharing = \"personal\"")]
    SharedUnderTerms,
    /// Shipped with terms.
    #[error("is fixed by the provider's terms and cannot be overridden; remove it")]
    Fixed,
}

/// All connectors, by name.
#[derive(Clone, Debug, Default)]
pub struct Connectors {
    all: BTreeMap<String, Arc<Connector>>,
    /// Those that a file of the operator says something of; the others are as shipped.
    configured: BTreeSet<String>,
}

impl Connectors {
    /// The shipped connectors with the `connectors` tables of the configuration `file` over them. A name
    /// that is not shipped adds a connector.
    pub fn load(file: &str, overrides: &BTreeMap<String, Table>) -> Result<Self, ConnectorError> {
        let mut all = BTreeMap::new();
        let base = shipped(BASE)?.unwrap_or_default();
        for (name, _) in SHIPPED {
            if name != BASE && !overrides.contains_key(name) {
                let table = overlay(base.clone(), shipped(name)?.unwrap_or_default());
                let file = shipped_file(name);
                all.insert(name.to_owned(), Arc::new(validate(&file, name, table)?));
            }
        }
        for (name, over) in overrides {
            let shipped = if name == BASE { None } else { shipped(name)? };
            if let Some(shipped) = &shipped {
                let fixed = |key: &&str| shipped.contains_key("terms") && over.contains_key(*key);
                if let Some(key) = ["terms", "terms_url", "sharing"].iter().find(|key| fixed(key)) {
                    return Err(error(file, name, key, ConnectorFault::Fixed));
                }
            }
            let mut shipped = shipped.unwrap_or_default();
            // A shipped flow that another replaces leaves nothing of itself behind.
            if over.contains_key("device_flow") {
                shipped.retain(|key, _| !key.starts_with("device_"));
            }
            let table = overlay(base.clone(), shipped);
            let connector = validate(file, name, overlay(table, over.clone()))?;
            all.insert(name.clone(), Arc::new(connector));
        }
        Ok(Self {
            all,
            configured: overrides.keys().cloned().collect(),
        })
    }

    /// The shipped connectors alone.
    pub fn shipped() -> Result<Self, ConnectorError> {
        Self::load("", &BTreeMap::new())
    }

    /// As [`Connectors::load`], from the text of a TOML file with tables `[connectors.NAME]` and nothing
    /// else.
    pub fn load_text(file: &str, text: &str) -> Result<Self, ConnectorError> {
        Self::load(file, &tables(file, text)?)
    }

    /// These, with the connectors of one more file. `accepted` names those whose terms the operator has
    /// accepted.
    pub fn with_file(mut self, file: &str, text: &str, accepted: &[String]) -> Result<Self, ConnectorError> {
        let mut tables = tables(file, text)?;
        for (name, table) in &mut tables {
            if accepted.contains(name) {
                table.insert("accept_terms".to_owned(), Value::Boolean(true));
            }
        }
        let loaded = Self::load(file, &tables)?;
        for name in tables.into_keys() {
            let Some(connector) = loaded.all.get(&name) else {
                continue;
            };
            let before = self.all.insert(name.clone(), Arc::clone(connector));
            if let Some(before) = before.filter(|_| self.configured.contains(&name)) {
                let twice = ConnectorFault::Twice(before.file.clone());
                return Err(error(file, &name, "", twice));
            }
            self.configured.insert(name);
        }
        Ok(self)
    }

    /// Checks that each is of a provider that `takes_grants`.
    pub fn check_providers(&self, takes_grants: impl Fn(&str) -> bool) -> Result<(), ConnectorError> {
        let stray = self.iter().find(|each| !takes_grants(&each.provider));
        stray.map_or(Ok(()), |each| {
            let fault = ConnectorFault::UnknownProvider(each.provider.clone());
            Err(error(&each.file, each.name.as_str(), "provider", fault))
        })
    }

    /// The connector of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Connector>> {
        self.all.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.all.values()
    }
}

fn place(connector: &str, key: &str) -> String {
    let parts = ["connectors", connector, key].into_iter();
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(".")
}

pub(super) fn error(file: &str, connector: &str, key: &str, fault: ConnectorFault) -> ConnectorError {
    ConnectorError {
        file: file.to_owned(),
        connector: connector.to_owned(),
        key: key.to_owned(),
        fault,
    }
}

fn shipped_file(name: &str) -> String {
    format!("registry/connectors/{name}.toml")
}

fn shipped(name: &str) -> Result<Option<Table>, ConnectorError> {
    let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) else {
        return Ok(None);
    };
    toml::from_str(text)
        .map(Some)
        .map_err(|e| error(&shipped_file(name), name, "", ConnectorFault::Form(e.to_string())))
}

fn overlay(mut base: Table, over: Table) -> Table {
    base.extend(over);
    base
}

fn tables(file: &str, text: &str) -> Result<BTreeMap<String, Table>, ConnectorError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        // Any value: what is no table is blamed here, where its value is not told.
        connectors: Option<Value>,
    }
    let parsed: Result<File, _> = toml::from_str(text);
    let parsed = parsed.map_err(|fault| error(file, "", "", ConnectorFault::Form(told(text, &fault))))?;
    let connectors = match parsed.connectors {
        None => return Ok(BTreeMap::new()),
        Some(Value::Table(connectors)) => connectors,
        Some(_) => return Err(error(file, "", "", ConnectorFault::NoTable)),
    };
    let table = |(name, value): (String, Value)| match value {
        Value::Table(table) => Ok((name, table)),
        _ => Err(error(file, &name, "", ConnectorFault::NoTable)),
    };
    connectors.into_iter().map(table).collect()
}

/// Where and what, without the line itself, which may hold a secret that should not be there.
fn told(text: &str, fault: &toml::de::Error) -> String {
    let before = fault.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", fault.message())
}

#[cfg(test)]
#[path = "load_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;

#[cfg(test)]
#[path = "value_tests.rs"]
#[allow(clippy::unwrap_used)]
mod value_tests;
