//! The checks that stand between a TOML table and a [`Connector`].

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use toml::Table;

use super::load::{ConnectorError, ConnectorFault, MAX_LIST, MAX_SECONDS, error};
use super::{
    AccountFact, ClientAuth, Connector, Encoding, ErrorAt, ErrorCause, ExpirySource, PasteCode, Redirect,
    RedirectKind, SecretRef, Sharing, Terms,
};
use crate::domain::name::Name;

/// Held by every [`Connector`]; made here only, after all checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validated(());

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    provider: String,
    enabled: bool,
    terms: Option<String>,
    terms_url: Option<String>,
    accept_terms: bool,
    token_url: String,
    authorize_url: Option<String>,
    revoke_url: Option<String>,
    device_authorization_url: Option<String>,
    hosts: Vec<String>,
    client_id: Option<String>,
    client_secret: Option<SecretRef>,
    client_auth: ClientAuth,
    scopes: Vec<String>,
    scope_on_refresh: bool,
    authorize_params: BTreeMap<String, String>,
    redirects: Vec<RawRedirect>,
    pkce: bool,
    exchange_encoding: Encoding,
    refresh_encoding: Encoding,
    expiry: ExpirySource,
    error_at: Vec<ErrorAt>,
    permanent_errors: Vec<String>,
    error_causes: BTreeMap<String, ErrorCause>,
    permanent_statuses: Vec<u16>,
    unprocessed_errors: Vec<String>,
    unprocessed_statuses: Vec<u16>,
    rotates: bool,
    old_access_survives: bool,
    grace_seconds: Option<u64>,
    lead_seconds: u64,
    sharing: Sharing,
    account: Vec<AccountFact>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum RawRedirect {
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

/// The connector in `table`, checked whole. Problems are blamed on `file`.
pub(super) fn validate(file: &str, connector: &str, table: Table) -> Result<Connector, ConnectorError> {
    let fail = |key: &str, fault| error(file, connector, key, fault);
    let name: Name = connector
        .parse()
        .map_err(|e| fail("", ConnectorFault::BadName(e)))?;
    let raw: Raw = table
        .try_into()
        .map_err(|e: toml::de::Error| fail("", ConnectorFault::Form(e.to_string().trim().to_owned())))?;
    Checker {
        fail: &fail,
        hosts: &raw.hosts,
    }
    .connector(name, &raw)
}

struct Checker<'a> {
    fail: &'a dyn Fn(&str, ConnectorFault) -> ConnectorError,
    hosts: &'a [String],
}

impl Checker<'_> {
    fn connector(&self, name: Name, raw: &Raw) -> Result<Connector, ConnectorError> {
        self.texts(raw)?;
        self.statuses(raw)?;
        let token_url = self.url("token_url", &raw.token_url)?;
        let mut hosts = raw.hosts.clone();
        if hosts.is_empty() {
            hosts.extend(token_url.host_str().map(str::to_owned));
        }
        let terms = match &raw.terms {
            Some(text) => Some(Terms {
                text: text.clone(),
                url: self.page("terms_url", raw.terms_url.as_deref())?,
                accepted: raw.accept_terms,
            }),
            None => None,
        };
        if terms.is_some() && raw.sharing != Sharing::Personal {
            return Err((self.fail)("sharing", ConnectorFault::SharedUnderTerms));
        }
        // Every URL is checked against the same list, the token endpoint's host where none is given.
        let checker = Checker {
            fail: self.fail,
            hosts: &hosts,
        };
        checker.url("token_url", &raw.token_url)?;
        let connector = Connector {
            name,
            provider: raw.provider.clone(),
            enabled: raw.enabled,
            terms,
            token_url,
            authorize_url: checker.optional("authorize_url", raw.authorize_url.as_deref())?,
            revoke_url: checker.optional("revoke_url", raw.revoke_url.as_deref())?,
            device_authorization_url: checker.optional(
                "device_authorization_url",
                raw.device_authorization_url.as_deref(),
            )?,
            client_id: raw.client_id.clone(),
            client_secret: raw.client_secret.clone(),
            client_auth: raw.client_auth,
            scopes: raw.scopes.clone(),
            scope_on_refresh: raw.scope_on_refresh,
            authorize_params: raw.authorize_params.clone(),
            redirects: checker.redirects(raw)?,
            pkce: raw.pkce,
            exchange_encoding: raw.exchange_encoding,
            refresh_encoding: raw.refresh_encoding,
            expiry: raw.expiry,
            error_at: raw.error_at.clone(),
            permanent_errors: raw.permanent_errors.clone(),
            error_causes: raw.error_causes.clone(),
            permanent_statuses: raw.permanent_statuses.clone(),
            unprocessed_errors: raw.unprocessed_errors.clone(),
            unprocessed_statuses: raw.unprocessed_statuses.clone(),
            rotates: raw.rotates,
            old_access_survives: raw.old_access_survives,
            grace: raw
                .grace_seconds
                .map(|s| self.seconds("grace_seconds", s))
                .transpose()?,
            lead: self.seconds("lead_seconds", raw.lead_seconds)?,
            sharing: raw.sharing,
            account: raw.account.clone(),
            hosts,
            _validated: Validated(()),
        };
        self.client(&connector)?;
        Ok(connector)
    }

    /// A connector that is off may lack what only the operator can bring.
    fn client(&self, connector: &Connector) -> Result<(), ConnectorError> {
        let secret = connector.client_secret.is_some();
        if connector.client_auth == ClientAuth::None && secret {
            return Err((self.fail)("client_secret", ConnectorFault::Unused));
        }
        if connector.usable().is_err() {
            return Ok(());
        }
        if connector.client_id.is_none() {
            return Err((self.fail)("client_id", ConnectorFault::Needed));
        }
        if connector.client_auth != ClientAuth::None && !secret {
            return Err((self.fail)("client_secret", ConnectorFault::Needed));
        }
        Ok(())
    }

    fn texts(&self, raw: &Raw) -> Result<(), ConnectorError> {
        let one = |key: &str, text: &str, max: usize, blank: bool| {
            let fits = !text.is_empty()
                && text.len() <= max
                && text
                    .chars()
                    .all(|c| !c.is_control() && (blank || !c.is_whitespace()));
            fits.then_some(())
                .ok_or_else(|| (self.fail)(key, ConnectorFault::BadText))
        };
        let list = |key: &str, texts: &[String], max: usize| {
            if texts.len() > MAX_LIST {
                return Err((self.fail)(key, ConnectorFault::TooMany));
            }
            texts.iter().try_for_each(|text| one(key, text, max, false))
        };
        if raw.provider.parse::<Name>().is_err() {
            return Err((self.fail)("provider", ConnectorFault::BadText));
        }
        for (key, text) in [("client_id", &raw.client_id), ("terms", &raw.terms)] {
            if let Some(text) = text {
                one(key, text, 2048, key == "terms")?;
            }
        }
        list("hosts", &raw.hosts, 253)?;
        list("scopes", &raw.scopes, 256)?;
        list("permanent_errors", &raw.permanent_errors, 64)?;
        list("unprocessed_errors", &raw.unprocessed_errors, 64)?;
        if raw.account.len() > MAX_LIST {
            return Err((self.fail)("account", ConnectorFault::TooMany));
        }
        for fact in &raw.account {
            one("account.label", &fact.label, 64, false)?;
            one("account.pointer", &fact.pointer, 256, false)?;
            if !fact.pointer.starts_with('/') {
                return Err((self.fail)("account.pointer", ConnectorFault::NotAPath));
            }
        }
        Ok(())
    }

    fn statuses(&self, raw: &Raw) -> Result<(), ConnectorError> {
        let bad = |key: &str, status| (self.fail)(key, ConnectorFault::BadStatus(status));
        for &status in &raw.permanent_statuses {
            if !(400..=499).contains(&status) || raw.unprocessed_statuses.contains(&status) {
                return Err(bad("permanent_statuses", status));
            }
        }
        for &status in &raw.unprocessed_statuses {
            if !(400..=599).contains(&status) {
                return Err(bad("unprocessed_statuses", status));
            }
        }
        let mut caused = raw.error_causes.keys();
        if let Some(code) = caused.find(|code| !raw.permanent_errors.contains(code)) {
            return Err((self.fail)(
                "error_causes",
                ConnectorFault::NotPermanent(code.clone()),
            ));
        }
        match raw
            .permanent_errors
            .iter()
            .find(|code| raw.unprocessed_errors.contains(code))
        {
            Some(code) => Err((self.fail)(
                "permanent_errors",
                ConnectorFault::Contradiction(code.clone()),
            )),
            None => Ok(()),
        }
    }

    fn redirects(&self, raw: &Raw) -> Result<Vec<Redirect>, ConnectorError> {
        let redirect = |raw_redirect: &RawRedirect| match raw_redirect {
            RawRedirect::Loopback {
                host,
                ports,
                path,
                pkce,
            } => {
                if !is_loopback(host) {
                    return Err((self.fail)("redirects.host", ConnectorFault::NotLoopback));
                }
                if !path.starts_with('/') {
                    return Err((self.fail)("redirects.path", ConnectorFault::NotAPath));
                }
                let kind = RedirectKind::Loopback {
                    host: host.clone(),
                    ports: ports.clone(),
                    path: path.clone(),
                };
                Ok(Redirect {
                    kind,
                    pkce: pkce.unwrap_or(raw.pkce),
                })
            }
            RawRedirect::Paste { url, code, pkce } => {
                let kind = RedirectKind::Paste {
                    url: self.url("redirects.url", url)?,
                    code: *code,
                };
                Ok(Redirect {
                    kind,
                    pkce: pkce.unwrap_or(raw.pkce),
                })
            }
        };
        if raw.redirects.len() > MAX_LIST {
            return Err((self.fail)("redirects", ConnectorFault::TooMany));
        }
        raw.redirects.iter().map(redirect).collect()
    }

    fn seconds(&self, key: &str, seconds: u64) -> Result<Duration, ConnectorError> {
        if seconds > MAX_SECONDS {
            return Err((self.fail)(key, ConnectorFault::TooLong));
        }
        Ok(Duration::from_secs(seconds))
    }

    fn optional(&self, key: &str, text: Option<&str>) -> Result<Option<Url>, ConnectorError> {
        text.map(|text| self.url(key, text)).transpose()
    }

    /// A page for people to read; the broker does not fetch it, so it is not on the list.
    fn page(&self, key: &str, text: Option<&str>) -> Result<Option<Url>, ConnectorError> {
        Checker {
            fail: self.fail,
            hosts: &[],
        }
        .optional(key, text)
    }

    fn url(&self, key: &str, text: &str) -> Result<Url, ConnectorError> {
        let not_a_url = || (self.fail)(key, ConnectorFault::NotAUrl);
        let url = Url::parse(text).map_err(|_| not_a_url())?;
        let host = url.host_str().ok_or_else(not_a_url)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err((self.fail)(key, ConnectorFault::PlainHttp)),
            _ => return Err(not_a_url()),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err((self.fail)(key, ConnectorFault::UrlParts));
        }
        if !self.hosts.is_empty()
            && !self
                .hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host))
        {
            return Err((self.fail)(key, ConnectorFault::HostNotAllowed(host.to_owned())));
        }
        Ok(url)
    }
}

/// `localhost` (RFC 6761 section 6.3) or an address that never leaves the machine.
pub(in crate::upstream) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
