//! The file as written: every key with its default, unknown keys refused, the environment laid over it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::de::DeTable;
use toml::{Table, Value};

use super::keys::{KEYS, Key, in_words};
use super::{ConfigError, Origin};

/// A length of time as people write it: `30s`, `5m`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Span).map_err(|_| {
            serde::de::Error::custom("not a length of time; write it as \"30s\", \"5m\" or \"24h\"")
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&in_words(self.0))
    }
}

/// Declares a section: its keys, their types and their defaults.
macro_rules! section {
    ($name:ident { $($field:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section!(Raw {
    data_dir: PathBuf = "/var/lib/credbroker".into(),
    listen: Listen = Listen::default(),
    identity: Identity = Identity::default(),
    enrollment: Enrollment = Enrollment::default(),
    agents: Agents = Agents::default(),
    refresh: Refresh = Refresh::default(),
    leases: Leases = Leases::default(),
    journal: Journal = Journal::default(),
    store: Store = Store::default(),
    log: Log = Log::default(),
    drain: Drain = Drain::default(),
    registry: Registry = Registry::default(),
    local: Local = Local::default(),
    connectors: Connectors = Connectors::default(),
    oidc: Oidc = Oidc::default(),
    watch: Watch = Watch::default(),
    metrics: Metrics = Metrics::default(),
    metered: Metered = Metered::default(),
    shared: Shared = Shared::default(),
    proxy: Proxy = Proxy::default(),
});

section!(Listen {
    address: String = "127.0.0.1:7420".into(),
    server_names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into(), "::1".into()],
    max_connections: usize = 10_000,
    max_concurrent_handshakes: usize = 64,
    handshake_timeout: Span = Span::seconds(10),
    request_timeout: Span = Span::seconds(60),
    max_message_bytes: usize = 256 * 1024,
    max_concurrent_streams: u32 = 128,
    max_requests_in_flight: usize = 16_384,
});

section!(Identity {
    trust_domain: String = "credbroker.local".into(),
    certificate_lifetime: Span = Span::seconds(24 * 3600),
});

section!(Enrollment {
    retry_window: Span = Span::seconds(600),
    renewal_grace: Span = Span::seconds(30 * 24 * 3600),
});

section!(Agents {
    heartbeat_interval: Span = Span::seconds(300),
    unseen_expiry: Span = Span::seconds(30 * 24 * 3600),
    collect_after: Span = Span::seconds(7 * 24 * 3600),
});

section!(Refresh {
    exchange_timeout: Span = Span::seconds(30),
    max_concurrent_exchanges: usize = 256,
    max_concurrent_exchanges_per_connector: usize = 0,
    max_waiters: usize = 16_384,
    minimum_remaining_default: Span = Span::seconds(60),
    forced_rotations_per_hour_per_credential: u32 = 6,
    forced_rotations_per_hour_per_agent: u32 = 12,
    rejections_in_a_row: u32 = 3,
    ahead: bool = true,
    ahead_window: Span = Span::seconds(30 * 60),
});

section!(Leases {
    lifetime: Span = Span::seconds(3600),
    personal_parallelism: u32 = 3,
});

section!(Journal {
    segment_bytes: u64 = 64 * 1024 * 1024,
    head_interval: Span = Span::seconds(1),
    queue: usize = 16_384,
});

section!(Store {
    queue: usize = 4096,
    reserved_bytes: u64 = 64 * 1024 * 1024,
});

section!(Log {
    format: String = "json".into(),
    filter: String = "info".into(),
});

section!(Drain {
    timeout: Span = Span::seconds(45),
});

section!(Registry {
    files: Vec<PathBuf> = Vec::new(),
});

section!(Local {
    probe_endpoints: Vec<String> = Vec::new(),
});

section!(Watch {
    heartbeat: Span = Span::seconds(15),
});

section!(Metrics {
    listen: String = String::new(),
});

section!(Metered {
    allow_all: bool = true,
    key_files: BTreeMap<String, PathBuf> = BTreeMap::new(),
});

section!(Shared {
    dispatches_per_day: u32 = 200,
    key_files: BTreeMap<String, PathBuf> = BTreeMap::new(),
});

section!(Proxy {
    base_url: String = String::new(),
    base_urls: BTreeMap<String, String> = BTreeMap::new(),
    grant_lifetime: Span = Span::seconds(15 * 60),
    raw_keys_to: Vec<String> = Vec::new(),
});

section!(Connectors {
    accept_terms: Vec<String> = Vec::new(),
    files: Vec<PathBuf> = Vec::new(),
});

section!(Oidc {
    issuers: Vec<Issuer> = Vec::new(),
});

section!(Issuer {
    issuer: String = String::new(),
    client_id: String = String::new(),
    audiences: Vec<String> = Vec::new(),
    orgs: Vec<String> = Vec::new(),
    scopes: Vec<String> = vec!["openid".into(), "offline_access".into()],
    algorithms: Vec<String> = vec!["RS256".into(), "ES256".into(), "EdDSA".into()],
    clock_skew: Span = Span::seconds(60),
    ca_file: Option<PathBuf> = None,
});

impl Raw {
    /// All keys with their values.
    pub(super) fn to_table(&self) -> Table {
        // Every type above is one TOML has, so this cannot fail; an empty table would fail every test.
        Table::try_from(self).unwrap_or_default()
    }
}

/// The value at a dotted path.
pub(super) fn value_at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((section, key)) => table.get(section)?.get(key),
        None => table.get(path),
    }
}

/// Where each key's value came from.
pub(super) struct Origins {
    file: PathBuf,
    keys: HashMap<&'static str, Origin>,
}

impl Origins {
    /// Where the value of `path` came from.
    pub(super) fn of(&self, path: &str) -> Origin {
        self.keys.get(path).cloned().unwrap_or(Origin::Default)
    }

    /// A fault in the value of `key`.
    pub(super) fn fault(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let origin = self.of(key);
        let mut remedy = remedy.into();
        if origin == Origin::Default {
            remedy = format!("{remedy} It is not set: set it in {}.", self.file.display());
        }
        ConfigError::Value {
            origin,
            key: key.to_owned(),
            problem: problem.into(),
            remedy,
        }
    }
}

/// Reads the file's text and lays the environment over it.
pub(super) fn read(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Raw, Origins), ConfigError> {
    let mut table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, &error),
            problem: error.message().replace('\n', ", "),
        })?;
    let mut raw: Raw = toml::from_str(text).map_err(|error| in_file(text, path, &error))?;

    let mut origins = Origins {
        file: path.to_owned(),
        keys: HashMap::new(),
    };
    let defaults = Raw::default().to_table();
    for key in KEYS {
        if value_at(&table, key.path).is_some() {
            origins.keys.insert(key.path, Origin::File(path.to_owned()));
        }
        if let Some(given) = env(&key.variable()) {
            raw = overlay(&mut table, key, &given, &defaults)?;
            origins.keys.insert(key.path, Origin::Environment(key.variable()));
        }
    }
    Ok((raw, origins))
}

/// Puts one variable's value into the table. The default's type says which type is meant.
fn overlay(table: &mut Table, key: &Key, given: &str, defaults: &Table) -> Result<Raw, ConfigError> {
    let fault = |problem: String| ConfigError::Value {
        origin: Origin::Environment(key.variable()),
        key: key.path.to_owned(),
        problem,
        remedy: "Mend or unset the variable.".to_owned(),
    };
    let value = match value_at(defaults, key.path) {
        Some(Value::Integer(_)) => Value::Integer(
            given
                .trim()
                .parse()
                .map_err(|_| fault("not a whole number".into()))?,
        ),
        Some(Value::Boolean(_)) => Value::Boolean(
            given
                .trim()
                .parse()
                .map_err(|_| fault("neither true nor false".into()))?,
        ),
        Some(Value::Array(_)) => Value::Array(
            given
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(|entry| Value::String(entry.to_owned()))
                .collect(),
        ),
        Some(Value::Table(_)) => Value::Table(
            pairs(given).map_err(|()| fault("not a list of NAME=VALUE, separated by commas".into()))?,
        ),
        _ => Value::String(given.to_owned()),
    };
    match key.path.split_once('.') {
        Some((section, name)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(name.to_owned(), value);
            }
        }
        None => {
            table.insert(key.path.to_owned(), value);
        }
    }
    table
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| fault(error.message().to_owned()))
}

/// `NAME=VALUE,NAME=VALUE`.
fn pairs(given: &str) -> Result<Table, ()> {
    let entries = given.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let pair = |entry: &str| {
        let (name, value) = entry.split_once('=').ok_or(())?;
        Ok((name.trim().to_owned(), Value::String(value.trim().to_owned())))
    };
    entries.map(pair).collect()
}

/// An error of serde's about the file, with the key it is about.
fn in_file(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let key = DeTable::parse(text)
        .ok()
        .and_then(|table| key_at(table.get_ref(), offset))
        .unwrap_or_default();
    let line = line_of(text, error);
    if Key::find(&key).is_none() && error.message().starts_with("unknown field") {
        let remedy = match nearest(&key) {
            Some(near) => format!("Did you mean '{near}'?"),
            None => "Remove it; deploy/credbrokerd.toml has every key there is.".to_owned(),
        };
        return ConfigError::UnknownKey {
            path: path.to_owned(),
            line,
            key,
            remedy,
        };
    }
    ConfigError::Value {
        origin: Origin::File(path.to_owned()),
        key,
        problem: error.message().to_owned(),
        remedy: format!("Mend line {line}."),
    }
}

/// The dotted path of the innermost key whose name or value covers `offset`.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let entries = value
            .get_ref()
            .as_array()
            .into_iter()
            .flat_map(|array| array.iter());
        let tables = std::iter::once(value.get_ref()).chain(entries.map(|entry| entry.get_ref()));
        let inner = tables
            .filter_map(|value| value.as_table())
            .find_map(|inner| key_at(inner, offset));
        match inner {
            Some(inner) => Some(format!("{}.{inner}", name.get_ref())),
            None => (name.span().contains(&offset) || value.span().contains(&offset))
                .then(|| name.get_ref().to_string()),
        }
    })
}

/// The line an error is about, from 1.
fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let offset = error.span().map_or(0, |span| span.start);
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The known key that a mistyped one most likely meant: same name elsewhere, or within three edits.
fn nearest(mistyped: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    KEYS.iter()
        .map(|key| {
            let same_name = last(key.path) == last(mistyped);
            (if same_name { 0 } else { edits(key.path, mistyped) }, key.path)
        })
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, path)| path)
}

/// How many letters have to be added, dropped or changed to turn one text into the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_row_in_keys_and_the_reverse() {
        let mut fields = Vec::new();
        for (name, value) in Raw::default().to_table() {
            match value {
                Value::Table(section) => fields.extend(section.keys().map(|key| format!("{name}.{key}"))),
                _ => fields.push(name),
            }
        }
        let mut rows: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        fields.sort();
        rows.sort();
        assert_eq!(fields, rows);
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(
                KEYS[..i].iter().all(|other| other.variable() != key.variable()),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn the_shipped_file_states_every_key_at_its_default() {
        let text = include_str!("../../deploy/credbrokerd.toml");
        let table: Table = text.parse().unwrap();
        for key in KEYS {
            assert!(value_at(&table, key.path).is_some(), "{} is missing", key.path);
        }
        assert_eq!(toml::from_str::<Raw>(text).unwrap(), Raw::default());
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for (written, nanos) in [
            ("0s", 0),
            ("1ns", 1),
            ("1500us", 1_500_000),
            ("90s", 90_000_000_000),
            ("1d", 86_400_000_000_000),
            ("25h", 90_000_000_000_000),
        ] {
            assert_eq!(in_words(Duration::from_nanos(nanos)), written);
            assert_eq!(
                humantime::parse_duration(written),
                Ok(Duration::from_nanos(nanos))
            );
        }
    }

    #[test]
    fn edit_distances() {
        assert_eq!(edits("adress", "address"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("queue", "queue"), 0);
    }
}
