//! The platform's own keys as the environment and the configuration give them, read and checked.
//!
//! A variable `CREDBROKER_METERED_KEY_PROVIDER` or `CREDBROKER_SHARED_KEY_PROVIDER` holds a key itself; the provider
//! is in capitals, with `_` for `-`. It cannot be taken out of the process's environment safely, so it stays there;
//! the process is not dumpable, so only root reads it from outside, and no child inherits it: there is none.

use std::ffi::OsString;

use super::error::DaemonError;
use crate::cli::files;
use crate::config::{Config, Key};
use crate::domain::executor::Registry;
use crate::domain::managed::{GivenKey, KeyProblem, Pool, Source, names};
use crate::domain::secret::Secret;

/// All keys that the environment and the configuration give. The first that will not do is an error, which names
/// where it is given and nothing of the key.
pub(super) fn read(config: &Config, registry: &Registry) -> Result<Vec<GivenKey>, DaemonError> {
    let unknown = |provider: &&String| registry.provider(provider).is_none();
    if let Some(provider) = config.proxy.base_urls.keys().find(unknown) {
        return Err(DaemonError::ProxyProvider {
            origin: config.proxy.base_urls_origin.clone(),
            problem: KeyProblem::UnknownProvider {
                provider: provider.clone(),
                known: names(registry),
            },
        });
    }
    let mut given = from_environment(std::env::vars_os())?;
    given.extend(from_files(config)?);
    for key in &given {
        key.check(registry).map_err(|problem| DaemonError::ManagedKey {
            origin: key.origin.clone(),
            problem,
        })?;
    }
    Ok(given)
}

fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<GivenKey>, DaemonError> {
    let mut given = Vec::new();
    for (name, value) in variables {
        let Some((pool, provider)) = name.to_str().and_then(provider_of) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        let value = value
            .into_string()
            .map_err(|_| DaemonError::ManagedKeyVariable(name.clone()))?;
        given.push(GivenKey {
            provider,
            pool,
            source: Source::Environment,
            origin: format!("environment variable {name}"),
            key: Secret::from(value),
        });
    }
    Ok(given)
}

/// The pool and provider that a variable is the key for; `None` for any other variable, and for those of the
/// configuration's own keys.
fn provider_of(variable: &str) -> Option<(Pool, String)> {
    Pool::ALL.into_iter().find_map(|pool| {
        let prefix = format!("CREDBROKER_{}_KEY_", pool.name().to_uppercase());
        let provider = variable.strip_prefix(&prefix)?;
        let files = Key::find(&format!("{}.key_files", pool.name()))?;
        (files.variable() != variable).then(|| (pool, provider.to_lowercase().replace('_', "-")))
    })
}

fn from_files(config: &Config) -> Result<Vec<GivenKey>, DaemonError> {
    let mut given = Vec::new();
    for files in &config.key_files {
        for (provider, path) in &files.files {
            let origin = format!("{}: {}", files.origin, files.key(provider));
            let content = files::read_private(path).map_err(|source| DaemonError::ManagedKeyFile {
                origin: origin.clone(),
                source,
            })?;
            given.push(GivenKey {
                provider: provider.clone(),
                pool: files.pool,
                source: Source::File,
                origin: format!("{origin} ({})", path.display()),
                key: Secret::new(content.trim_ascii().to_vec()),
            });
        }
    }
    Ok(given)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_pool_and_provider() {
        for (variable, expected) in [
            (
                "CREDBROKER_METERED_KEY_ANTHROPIC",
                Some((Pool::Metered, "anthropic")),
            ),
            (
                "CREDBROKER_SHARED_KEY_MY_GATEWAY",
                Some((Pool::Shared, "my-gateway")),
            ),
            ("CREDBROKER_METERED_KEY_FILES", None),
            ("CREDBROKER_SHARED_KEY_FILES", None),
            ("METERED_KEY_ANTHROPIC", None),
            ("CREDBROKER_LOCAL_KEY_ANTHROPIC", None),
        ] {
            let expected = expected.map(|(pool, provider)| (pool, provider.to_owned()));
            assert_eq!(provider_of(variable), expected, "{variable}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_no_text_is_named() {
        use std::os::unix::ffi::OsStringExt as _;
        let variable = ("CREDBROKER_SHARED_KEY_A".into(), OsString::from_vec(vec![0xff]));
        let error = from_environment([variable].into_iter()).err().unwrap();
        assert!(error.to_string().contains("CREDBROKER_SHARED_KEY_A"), "{error}");
    }
}
