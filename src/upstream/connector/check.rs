//! The checks that stand between a TOML table and a [`Connector`].

use std::time::Duration;

use reqwest::Url;
use toml::Table;

use super::load::{ConnectorError, ConnectorFault, MAX_LIST, MAX_SECONDS, error};
use super::raw::{Fail, Raw, RawDeviceFlow, RawRedirect};
use super::{
    CLIENT_FAULTS, ClientAuth, Connector, DeviceFlow, PasteCode, Redirect, RedirectKind, SecretRef, Sharing,
    Terms,
};
use crate::domain::name::Name;

/// Held by every [`Connector`]; made here only, after all checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validated(());

/// The longest URL, in bytes.
const MAX_URL: usize = 2048;

/// Parameters of an authorization request that the broker sets itself (RFC 6749 section 4.1.1, RFC 7636 section 4.3).
/// `request` and `request_uri` would replace all of them (RFC 9101 section 5).
pub(in crate::upstream) const OURS: [&str; 9] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

/// The connector in `table`, checked whole. Problems are blamed on `file`.
pub(super) fn validate(file: &str, connector: &str, table: Table) -> Result<Connector, ConnectorError> {
    let fail = |key: &str, fault| error(file, connector, key, fault);
    let name: Name = connector
        .parse()
        .map_err(|e| fail("", ConnectorFault::BadName(e)))?;
    let raw = Raw::read(table, &fail)?;
    Checker {
        fail: &fail,
        hosts: &raw.hosts,
    }
    .connector(name, file, &raw)
}

struct Checker<'a> {
    fail: Fail<'a>,
    hosts: &'a [String],
}

impl Checker<'_> {
    fn connector(&self, name: Name, file: &str, raw: &Raw) -> Result<Connector, ConnectorError> {
        self.texts(raw)?;
        self.statuses(raw)?;
        let token_url = self.optional("token_url", raw.token_url.as_deref())?;
        let issuer = self.optional("issuer", raw.issuer.as_deref())?;
        if token_url.is_none() && issuer.is_none() {
            return Err((self.fail)("token_url", ConnectorFault::NoEndpoint));
        }
        if issuer.as_ref().is_some_and(|issuer| issuer.query().is_some()) {
            return Err((self.fail)("issuer", ConnectorFault::IssuerQuery));
        }
        let mut hosts = raw.hosts.clone();
        if hosts.is_empty() {
            let known = [&token_url, &issuer].into_iter().flatten();
            hosts.extend(known.filter_map(Url::host_str).map(str::to_owned));
            hosts.dedup();
        }
        let terms_url = self.page("terms_url", raw.terms_url.as_deref())?;
        if terms_url.is_some() && raw.terms.is_none() {
            return Err((self.fail)("terms_url", ConnectorFault::NoTerms));
        }
        let terms = raw.terms.as_ref().map(|text| Terms {
            text: text.clone(),
            url: terms_url,
            accepted: raw.accept_terms,
        });
        if terms.is_some() && raw.sharing != Sharing::Personal {
            return Err((self.fail)("sharing", ConnectorFault::SharedUnderTerms));
        }
        // Every URL is checked against the same list, the hosts of token endpoint and issuer where none is given.
        let checker = Checker {
            fail: self.fail,
            hosts: &hosts,
        };
        let connector = Connector {
            name,
            provider: raw.provider.clone(),
            enabled: raw.enabled,
            terms,
            file: file.to_owned(),
            issuer: raw.issuer.clone(),
            token_url,
            authorize_url: checker.optional("authorize_url", raw.authorize_url.as_deref())?,
            revoke_url: checker.optional("revoke_url", raw.revoke_url.as_deref())?,
            device_authorization_url: checker.optional(
                "device_authorization_url",
                raw.device_authorization_url.as_deref(),
            )?,
            device_flow: checker.device_flow(raw)?,
            client_id: raw.client_id.clone(),
            client_secret: raw.client_secret.clone(),
            client_auth: raw.client_auth,
            scopes: raw.scopes.clone(),
            scope_on_refresh: raw.scope_on_refresh,
            authorize_params: raw.authorize_params.clone(),
            redirects: checker.redirects(raw)?,
            pkce: raw.pkce,
            exchange_encoding: raw.exchange_encoding,
            exchange_state: raw.exchange_state,
            refresh_encoding: raw.refresh_encoding,
            revoke_encoding: raw.revoke_encoding,
            revoked_errors: raw.revoked_errors.clone(),
            revoke_ends_access: raw.revoke_ends_access,
            revoke_scope: raw.revoke_scope,
            expiry: raw.expiry,
            error_at: raw.error_at.clone(),
            permanent_errors: raw.permanent_errors.clone(),
            error_causes: raw.error_causes.clone(),
            permanent_statuses: raw.permanent_statuses.clone(),
            unprocessed_errors: raw.unprocessed_errors.clone(),
            unprocessed_statuses: raw.unprocessed_statuses.clone(),
            quirks: raw.quirks.clone(),
            rotates: raw.rotates,
            old_access_survives: raw.old_access_survives,
            grace: raw
                .grace_seconds
                .map(|s| match s {
                    0 => Err((self.fail)("grace_seconds", ConnectorFault::NoTime)),
                    s => self.seconds("grace_seconds", s),
                })
                .transpose()?,
            lead: self.seconds("lead_seconds", raw.lead_seconds)?,
            sharing: raw.sharing,
            test_url: checker.optional("test_url", raw.test_url.as_deref())?,
            account: raw.account.clone(),
            sources: raw.sources.clone(),
            hosts,
            _validated: Validated(()),
        };
        self.client(&connector)?;
        Ok(connector)
    }

    /// A connector that is off may lack what only the operator can bring.
    fn client(&self, connector: &Connector) -> Result<(), ConnectorError> {
        let secret = connector.client_secret.is_some();
        // What is left open is the server's to say, where it is asked.
        let asked = connector.client_auth.is_none() && connector.issuer.is_some();
        let auth = connector.client_auth.unwrap_or(ClientAuth::None);
        if auth == ClientAuth::None && secret && !asked {
            return Err((self.fail)("client_secret", ConnectorFault::Unused));
        }
        match &connector.client_secret {
            Some(SecretRef::File(path)) if !path.is_absolute() => {
                return Err((self.fail)("client_secret", ConnectorFault::RelativePath));
            }
            Some(SecretRef::Env(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                return Err((self.fail)("client_secret", ConnectorFault::BadText));
            }
            _ => {}
        }
        if connector.usable().is_err() {
            return Ok(());
        }
        if connector.client_id.is_none() {
            return Err((self.fail)("client_id", ConnectorFault::Needed));
        }
        if auth != ClientAuth::None && !secret {
            return Err((self.fail)("client_secret", ConnectorFault::Needed));
        }
        Ok(())
    }

    fn text(&self, key: &str, text: &str, max: usize, blank: bool) -> Result<(), ConnectorError> {
        let fits = !text.is_empty()
            && text.len() <= max
            && text
                .chars()
                .all(|c| !c.is_control() && (blank || !c.is_whitespace()));
        fits.then_some(())
            .ok_or_else(|| (self.fail)(key, ConnectorFault::BadText))
    }

    fn bounded(&self, key: &str, entries: usize) -> Result<(), ConnectorError> {
        (entries <= MAX_LIST)
            .then_some(())
            .ok_or_else(|| (self.fail)(key, ConnectorFault::TooMany))
    }

    fn list(&self, key: &str, texts: &[String], max: usize, blank: bool) -> Result<(), ConnectorError> {
        self.bounded(key, texts.len())?;
        texts.iter().try_for_each(|text| self.text(key, text, max, blank))
    }

    fn texts(&self, raw: &Raw) -> Result<(), ConnectorError> {
        if raw.provider.parse::<Name>().is_err() {
            return Err((self.fail)("provider", ConnectorFault::BadText));
        }
        for (key, text) in [("client_id", &raw.client_id), ("terms", &raw.terms)] {
            if let Some(text) = text {
                self.text(key, text, 2048, key == "terms")?;
            }
        }
        self.list("hosts", &raw.hosts, 253, false)?;
        if let Some(host) = raw.hosts.iter().find(|host| !is_host(host)) {
            return Err((self.fail)("hosts", ConnectorFault::NotAHost(host.clone())));
        }
        self.list("scopes", &raw.scopes, 256, false)?;
        self.list("permanent_errors", &raw.permanent_errors, 64, false)?;
        self.list("revoked_errors", &raw.revoked_errors, 64, false)?;
        self.list("unprocessed_errors", &raw.unprocessed_errors, 64, false)?;
        self.list("sources", &raw.sources, 512, true)?;
        self.bounded("quirks", raw.quirks.len())?;
        self.bounded("error_at", raw.error_at.len())?;
        if raw.error_at.is_empty() {
            return Err((self.fail)("error_at", ConnectorFault::Empty));
        }
        self.bounded("authorize_params", raw.authorize_params.len())?;
        for (name, value) in &raw.authorize_params {
            self.text("authorize_params", name, 64, false)?;
            self.text("authorize_params", value, 1024, true)?;
            if OURS.contains(&name.as_str()) {
                return Err((self.fail)(
                    "authorize_params",
                    ConnectorFault::Reserved(name.clone()),
                ));
            }
        }
        self.bounded("account", raw.account.len())?;
        for fact in &raw.account {
            self.text("account.label", &fact.label, 64, false)?;
            self.text("account.pointer", &fact.pointer, 256, false)?;
            if !fact.pointer.starts_with('/') {
                return Err((self.fail)("account.pointer", ConnectorFault::NotAPath));
            }
        }
        Ok(())
    }

    fn statuses(&self, raw: &Raw) -> Result<(), ConnectorError> {
        let bad = |key: &str, status| (self.fail)(key, ConnectorFault::BadStatus(status));
        self.bounded("permanent_statuses", raw.permanent_statuses.len())?;
        self.bounded("unprocessed_statuses", raw.unprocessed_statuses.len())?;
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
        let mut permanent = raw.permanent_errors.iter();
        if let Some(code) = permanent.find(|code| CLIENT_FAULTS.contains(&code.as_str())) {
            let fault = ConnectorFault::BlamesClient(code.clone());
            return Err((self.fail)("permanent_errors", fault));
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
        self.bounded("redirects", raw.redirects.len())?;
        let all = raw.redirects.iter();
        all.map(|redirect| self.redirect(redirect, raw.pkce)).collect()
    }

    /// `always`: whether S256 is used where the redirect does not say.
    fn redirect(&self, raw: &RawRedirect, always: bool) -> Result<Redirect, ConnectorError> {
        match raw {
            RawRedirect::Loopback {
                host,
                ports,
                path,
                pkce,
            } => {
                if !is_loopback(host) {
                    return Err((self.fail)("redirects.host", ConnectorFault::NotLoopback));
                }
                self.bounded("redirects.ports", ports.len())?;
                if ports.contains(&0) {
                    return Err((self.fail)("redirects.ports", ConnectorFault::NotAPort));
                }
                self.text("redirects.path", path, 256, false)?;
                if !path.starts_with('/') {
                    return Err((self.fail)("redirects.path", ConnectorFault::NotAPath));
                }
                Ok(Redirect {
                    kind: RedirectKind::Loopback {
                        host: host.clone(),
                        ports: ports.clone(),
                        path: path.clone(),
                    },
                    pkce: *pkce,
                })
            }
            RawRedirect::Paste { url, code, pkce } => {
                // Anybody's code could be pasted, and the account of whoever sent it connected: neither state nor
                // challenge would tell (RFC 9700 section 4.7).
                if *code == PasteCode::Code && !pkce.unwrap_or(always) {
                    return Err((self.fail)("redirects.pkce", ConnectorFault::Unbound));
                }
                Ok(Redirect {
                    kind: RedirectKind::Paste {
                        url: self.url("redirects.url", url)?,
                        code: *code,
                    },
                    pkce: *pkce,
                })
            }
        }
    }

    fn device_flow(&self, raw: &Raw) -> Result<DeviceFlow, ConnectorError> {
        let own = [
            ("device_poll_url", raw.device_poll_url.as_deref()),
            ("device_page_url", raw.device_page_url.as_deref()),
            ("device_redirect_uri", raw.device_redirect_uri.as_deref()),
        ];
        match raw.device_flow {
            RawDeviceFlow::Rfc8628 => match own.iter().find(|(_, text)| text.is_some()) {
                Some((key, _)) => Err((self.fail)(key, ConnectorFault::OfOwnFlow)),
                None => Ok(DeviceFlow::Rfc8628),
            },
            RawDeviceFlow::Code => {
                let needed = |key: &'static str, text: Option<&str>| {
                    self.optional(key, text)?
                        .ok_or_else(|| (self.fail)(key, ConnectorFault::NeededByFlow))
                };
                // Nothing that a server publishes is an endpoint of its own flow.
                needed(
                    "device_authorization_url",
                    raw.device_authorization_url.as_deref(),
                )?;
                let [poll, page, redirect] = own.map(|(key, text)| needed(key, text));
                Ok(DeviceFlow::Code {
                    poll_url: poll?,
                    page_url: page?,
                    // As it is written: servers compare it character for character.
                    redirect_uri: redirect.map(|_| raw.device_redirect_uri.clone().unwrap_or_default())?,
                })
            }
        }
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
        checked_url(text, self.hosts).map_err(|fault| (self.fail)(key, fault))
    }
}

/// The URL in `text`, if the broker may contact it: https, or http to this machine, and on a host of the list; an
/// empty list is none.
pub(in crate::upstream) fn checked_url(text: &str, hosts: &[String]) -> Result<Url, ConnectorFault> {
    // The parser drops tabs and newlines and trims blanks: what it was given would not be what it was taken for.
    if text.len() > MAX_URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConnectorFault::NotAUrl);
    }
    let url = Url::parse(text).map_err(|_| ConnectorFault::NotAUrl)?;
    let host = url.host_str().ok_or(ConnectorFault::NotAUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => return Err(ConnectorFault::PlainHttp),
        _ => return Err(ConnectorFault::NotAUrl),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(ConnectorFault::UrlParts);
    }
    if !hosts.is_empty() && !hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
        return Err(ConnectorFault::HostNotAllowed(host.to_owned()));
    }
    Ok(url)
}

/// Whether it is what URLs have between scheme and port.
fn is_host(text: &str) -> bool {
    let url = Url::parse(&format!("https://{text}/"));
    url.is_ok_and(|url| url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(text)))
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
