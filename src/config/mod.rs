//! The daemon's configuration: a TOML file, overridden by the environment, over built-in defaults.
//!
//! A configuration is read whole or not at all. `raw` is the file as written: every key has a default,
//! unknown keys are refused. [`keys`] has a row for every key: its limits, and whether a running daemon takes
//! a change. [`validated`] is what the rest of the program sees. An error names where the value came from,
//! the key, and what to do; it never quotes a line of the file.
//!
//! Precedence: environment, then file, then default. The variable of `[listen] address` is
//! `CREDBROKER_LISTEN_ADDRESS`, that of `data_dir` is `CREDBROKER_DATA_DIR`; lists are separated by commas.

pub mod keys;
mod local;
mod oidc;
mod platform;
mod raw;
mod refresh;
pub mod registry;
pub mod validated;

use std::path::{Path, PathBuf};

pub use keys::{Apply, KEYS, Key};
pub use platform::{KeyFiles, Proxy};
pub use refresh::Refresh;
pub use validated::{
    Config, Connectors, Drain, Enrollment, Identity, Journal, Leases, Listen, Local, Log, LogFormat,
    Registry, Store,
};

/// Where a value came from, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The built-in default. Only checks across two keys can find fault with one.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Default => f.write_str("the built-in default"),
        }
    }
}

/// Why there is no configuration. Always the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}. Check the path and that this user may read it.", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}, line {line}: not TOML: {problem}. Mend that line.", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// The file has a key that there is not.
    #[error("{}, line {line}: there is no key '{key}'. {remedy}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key, dotted.
        key: String,
        /// What to do.
        remedy: String,
    },
    /// A value does not fit its key.
    #[error("{origin}: {key}: {problem}. {remedy}")]
    Value {
        /// Where the value came from.
        origin: Origin,
        /// The key, dotted.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: String,
    },
}

impl Config {
    /// Reads the file at `path` and the environment, and checks them.
    ///
    /// `env` looks up one variable, normally `|name| std::env::var(name).ok()`.
    ///
    /// # Errors
    /// The first fault found; nothing is taken from a configuration that has one.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Config::parse(&text, path, env)
    }

    /// As [`Config::load`], with the file's text at hand. `path` is what errors call it, and what relative
    /// paths in it are relative to.
    ///
    /// # Errors
    /// The first fault found.
    pub fn parse(
        text: &str,
        path: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let (raw, origins) = raw::read(text, path, env)?;
        validated::check(raw, path, &origins)
    }

    /// What changed from here to `new`, for a reload at SIGHUP.
    pub fn reloadable_diff(&self, new: &Config) -> Reload {
        let (old, new) = (self.raw.to_table(), new.raw.to_table());
        let mut reload = Reload::default();
        for key in KEYS {
            if raw::value_at(&old, key.path) != raw::value_at(&new, key.path) {
                match key.apply {
                    Apply::Reload => reload.changed_reloadable.push(key.path),
                    Apply::Restart => reload.needs_restart.push(key.path),
                }
            }
        }
        reload
    }

    /// Takes from `new` what may change while the daemon runs: the keys marked reload in [`KEYS`].
    pub fn take_reloadable(&mut self, new: &Config) {
        self.refresh.minimum_remaining_default = new.refresh.minimum_remaining_default;
        self.refresh.forced_rotations_per_hour_per_credential =
            new.refresh.forced_rotations_per_hour_per_credential;
        self.refresh.forced_rotations_per_hour_per_agent = new.refresh.forced_rotations_per_hour_per_agent;
        self.refresh.rejections_in_a_row = new.refresh.rejections_in_a_row;
        self.refresh.ahead = new.refresh.ahead;
        self.refresh.ahead_window = new.refresh.ahead_window;
        self.enrollment.renewal_grace = new.enrollment.renewal_grace;
        self.agents = new.agents.clone();
        self.leases = new.leases.clone();
        self.store.reserved_bytes = new.store.reserved_bytes;
        self.log.filter.clone_from(&new.log.filter);
        self.drain = new.drain.clone();
        self.watch = new.watch.clone();
        self.metered = new.metered;
        self.shared = new.shared;
        self.key_files.clone_from(&new.key_files);
        self.proxy = new.proxy.clone();
        self.raw = new.raw.clone();
    }
}

/// The keys that differ between two configurations, dotted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Those that a running daemon takes.
    pub changed_reloadable: Vec<&'static str>,
    /// Those that wait for a restart.
    pub needs_restart: Vec<&'static str>,
}
