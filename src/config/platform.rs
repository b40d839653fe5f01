//! What the platform itself brings: the files of its own keys, and the model proxy in front of providers.
//!
//! The keys themselves are in no configuration, so that it can be shown. Whether there is such a provider is checked
//! against the registry, when the broker starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::raw::{self, Origins, Raw};
use super::{ConfigError, Origin};
use crate::domain::managed::Pool;
use crate::domain::oidc::is_endpoint;

/// The files of the platform's own keys for one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The pool.
    pub pool: Pool,
    /// By provider.
    pub files: BTreeMap<String, PathBuf>,
    /// What errors about them name.
    pub origin: Origin,
}

impl KeyFiles {
    /// The configuration's key for a provider's file.
    pub fn key(&self, provider: &str) -> String {
        format!("{}.key_files.{provider}", self.pool.name())
    }
}

/// `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where model calls go; `{provider}` in it stands for the provider's name. Empty: nowhere.
    pub base_url: String,
    /// Where those of a provider go in place of that.
    pub base_urls: BTreeMap<String, String>,
    /// What errors about `base_urls` name.
    pub base_urls_origin: Origin,
    /// How long a proxy grant is good for; never past its lease.
    pub grant_lifetime: Duration,
    /// Whether control-plane services get the platform's keys themselves.
    pub raw_to_control_plane: bool,
    /// Whether agents do.
    pub raw_to_agents: bool,
}

/// The most providers that one table names.
const MAX_ENTRIES: usize = 256;
/// The longest base URL, in bytes.
const MAX_URL: usize = 512;
const CONTROL_PLANE: &str = "control-plane";
const AGENTS: &str = "agents";

/// Both pools' files. Relative paths are relative to `folder`.
pub(super) fn key_files(raw: &Raw, folder: &Path, origins: &Origins) -> Result<Vec<KeyFiles>, ConfigError> {
    let tables = [
        (Pool::Metered, "metered.key_files", &raw.metered.key_files),
        (Pool::Shared, "shared.key_files", &raw.shared.key_files),
    ];
    let read = |(pool, key, files): (Pool, &str, &BTreeMap<String, PathBuf>)| {
        if files.len() > MAX_ENTRIES || files.values().any(|file| file.as_os_str().is_empty()) {
            let problem = format!("more than {MAX_ENTRIES} providers, or an empty path");
            return Err(origins.fault(key, problem, "Name a file for each provider."));
        }
        Ok(KeyFiles {
            pool,
            files: files
                .iter()
                .map(|(name, file)| (name.clone(), folder.join(file)))
                .collect(),
            origin: origin_of(key, files.is_empty(), origins),
        })
    };
    tables.into_iter().map(read).collect()
}

/// The model proxy.
pub(super) fn proxy(raw: &raw::Proxy, origins: &Origins) -> Result<Proxy, ConfigError> {
    const REMEDY: &str = "Write an https URL (http on this machine only), at most 512 bytes; \
                          {provider} in it stands for the provider's name.";
    let fits = |url: &String| url.len() <= MAX_URL && is_base(url);
    if !raw.base_url.is_empty() && !fits(&raw.base_url) {
        return Err(origins.fault("proxy.base_url", "not the URL of a model proxy", REMEDY));
    }
    if raw.base_urls.len() > MAX_ENTRIES {
        let problem = format!("more than {MAX_ENTRIES} providers");
        return Err(origins.fault("proxy.base_urls", problem, "Use proxy.base_url for most of them."));
    }
    if let Some((provider, _)) = raw.base_urls.iter().find(|(_, url)| !fits(url)) {
        let problem = format!("{}: not the URL of a model proxy", provider.escape_debug());
        return Err(origins.fault("proxy.base_urls", problem, REMEDY));
    }
    let unknown = |to: &&String| !matches!(to.as_str(), CONTROL_PLANE | AGENTS);
    if let Some(unknown) = raw.raw_keys_to.iter().find(unknown) {
        return Err(origins.fault(
            "proxy.raw_keys_to",
            format!("'{}' is nobody who could get keys", unknown.escape_debug()),
            "Name \"control-plane\", \"agents\", both, or nobody.",
        ));
    }
    let lists = |who: &str| raw.raw_keys_to.iter().any(|to| to == who);
    Ok(Proxy {
        base_url: raw.base_url.clone(),
        base_urls: raw.base_urls.clone(),
        base_urls_origin: origin_of("proxy.base_urls", raw.base_urls.is_empty(), origins),
        grant_lifetime: raw.grant_lifetime.0,
        raw_to_control_plane: lists(CONTROL_PLANE),
        raw_to_agents: lists(AGENTS),
    })
}

/// What faults of a table's entries name; an empty table has none, wherever it is written.
fn origin_of(key: &str, empty: bool, origins: &Origins) -> Origin {
    if empty { Origin::Default } else { origins.of(key) }
}

/// Whether paths can be added to it: an endpoint without query and fragment, whose braces are those of `{provider}`,
/// after the host.
fn is_base(url: &str) -> bool {
    let filled = url.replace("{provider}", "provider");
    let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
    let fixed_host = host.is_some_and(|host| !host.contains('{'));
    fixed_host && !filled.contains(['?', '#', '{', '}']) && is_endpoint(&filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_takes_paths_and_goes_nowhere_in_clear() {
        for good in [
            "https://proxy.example",
            "https://proxy.example/{provider}",
            "https://proxy.example:8443/v1/{provider}/",
            "http://127.0.0.1:9000/{provider}",
            "http://localhost:9000",
        ] {
            assert!(is_base(good), "{good}");
        }
        for bad in [
            "",
            "proxy.example",
            "http://proxy.example",
            "https://{provider}.example",
            "https://proxy.example/{model}",
            "https://proxy.example/?p={provider}",
            "https://proxy.example/#x",
            "https://user@proxy.example/",
            "ftp://proxy.example",
        ] {
            assert!(!is_base(bad), "{bad}");
        }
    }
}
