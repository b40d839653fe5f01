//! `[local]`: the model servers that the broker may ask, checked.

use super::ConfigError;
use super::raw::Origins;
use crate::upstream::base_url::checked_base_url;

/// The base URLs, in their one form.
pub(super) fn probe_endpoints(written: &[String], origins: &Origins) -> Result<Vec<String>, ConfigError> {
    let checked = written.iter().map(|endpoint| {
        checked_base_url(endpoint).map_err(|fault| {
            origins.fault(
                "local.probe_endpoints",
                format!("'{}' {fault}", endpoint.escape_debug()),
                "Name servers as \"http://10.0.0.5:11434\".",
            )
        })
    });
    checked.collect()
}
