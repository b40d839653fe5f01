//! A connector as it is written, key by key, so that whatever is wrong is blamed on its key.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::load::{ConnectorError, ConnectorFault};
use super::{
    AccountFact, ClientAuth, Encoding, ErrorAt, ErrorCause, ExpirySource, PasteCode, Quirk, RevokeEncoding,
    RevokeScope, SecretRef, Sharing,
};

/// What makes an error of a key and what is wrong with it.
pub(super) type Fail<'a> = &'a dyn Fn(&str, ConnectorFault) -> ConnectorError;

/// Reads each key out of its table; the list of keys is made of the same names.
macro_rules! raw {
    ($($key:ident: $type:ty = $read:ident),* $(,)?) => {
        /// The keys of a connector.
        pub const KEYS: &[&str] = &[$(stringify!($key)),*];

        /// A connector as it is written.
        pub(super) struct Raw {
            $(pub(super) $key: $type,)*
        }

        impl Raw {
            pub(super) fn read(mut table: Table, fail: Fail<'_>) -> Result<Self, ConnectorError> {
                if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
                    return Err(fail(unknown, ConnectorFault::UnknownKey));
                }
                Ok(Self { $($key: $read(&mut table, stringify!($key), fail)?,)* })
            }
        }
    };
}

raw! {
    provider: String = required,
    enabled: bool = required,
    terms: Option<String> = optional,
    terms_url: Option<String> = optional,
    accept_terms: bool = required,
    issuer: Option<String> = optional,
    token_url: Option<String> = optional,
    authorize_url: Option<String> = optional,
    revoke_url: Option<String> = optional,
    device_authorization_url: Option<String> = optional,
    device_flow: RawDeviceFlow = required,
    device_poll_url: Option<String> = optional,
    device_page_url: Option<String> = optional,
    device_redirect_uri: Option<String> = optional,
    hosts: Vec<String> = required,
    client_id: Option<String> = optional,
    client_secret: Option<SecretRef> = reference,
    client_auth: Option<ClientAuth> = optional,
    scopes: Vec<String> = required,
    scope_on_refresh: bool = required,
    authorize_params: BTreeMap<String, String> = required,
    redirects: Vec<RawRedirect> = required,
    pkce: bool = required,
    exchange_encoding: Encoding = required,
    exchange_state: bool = required,
    refresh_encoding: Encoding = required,
    revoke_encoding: RevokeEncoding = required,
    revoked_errors: Vec<String> = required,
    revoke_ends_access: bool = required,
    revoke_scope: RevokeScope = required,
    expiry: ExpirySource = required,
    error_at: Vec<ErrorAt> = required,
    permanent_errors: Vec<String> = required,
    error_causes: BTreeMap<String, ErrorCause> = required,
    permanent_statuses: Vec<u16> = required,
    unprocessed_errors: Vec<String> = required,
    unprocessed_statuses: Vec<u16> = required,
    quirks: Vec<Quirk> = required,
    rotates: bool = required,
    old_access_survives: bool = required,
    grace_seconds: Option<u64> = optional,
    lead_seconds: u64 = required,
    sharing: Sharing = required,
    test_url: Option<String> = optional,
    account: Vec<AccountFact> = required,
    sources: Vec<String> = required,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum RawRedirect {
    Loopback {
        host: String,
        ports: Vec<u16>,
        path: String,
        pkce: Option<bool>,
    },
    Paste {
        url: String,
        code: PasteCode,
        pkce: Option<bool>,
    },
}

/// Which flow; what else it needs is in keys of its own.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawDeviceFlow {
    Rfc8628,
    Code,
}

fn optional<T: DeserializeOwned>(
    table: &mut Table,
    key: &str,
    fail: Fail<'_>,
) -> Result<Option<T>, ConnectorError> {
    let wrong = |error: toml::de::Error| {
        let said = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        fail(key, ConnectorFault::WrongValue(said))
    };
    table.remove(key).map(Value::try_into).transpose().map_err(wrong)
}

/// As [`optional`], for what some write a secret into: nothing of its value is in the error.
fn reference<T: DeserializeOwned>(
    table: &mut Table,
    key: &str,
    fail: Fail<'_>,
) -> Result<Option<T>, ConnectorError> {
    optional(table, key, &|key, _| fail(key, ConnectorFault::NoReference))
}

/// What has a default in `registry/connectors/generic.toml`.
fn required<T: DeserializeOwned>(table: &mut Table, key: &str, fail: Fail<'_>) -> Result<T, ConnectorError> {
    optional(table, key, fail)?.ok_or_else(|| fail(key, ConnectorFault::Missing))
}
