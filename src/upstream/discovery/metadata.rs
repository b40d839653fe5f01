//! What a server says of itself (RFC 8414 section 2), as far as a connector lets it, and what the two make together.

use std::fmt;

use reqwest::Url;
use serde::Deserialize;

use super::DiscoveryError;
use crate::upstream::connector::load::ConnectorFault;
use crate::upstream::connector::{ClientAuth, Connector, checked_url};
use crate::upstream::redact::clip;

/// The most entries of a list that are looked at. Servers know about ten ways of client authentication.
const MAX_METHODS: usize = 32;

/// A metadata document, as far as it is used.
#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) issuer: String,
    token_endpoint: Option<String>,
    authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
}

/// What is taken of a metadata document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The token endpoint; checked as the configured one is, as all of these are.
    pub token: Option<Url>,
    /// The authorization endpoint.
    pub authorize: Option<Url>,
    /// The revocation endpoint.
    pub revoke: Option<Url>,
    /// The device authorization endpoint.
    pub device: Option<Url>,
    /// The userinfo endpoint (OpenID Connect Discovery section 3).
    pub userinfo: Option<Url>,
    /// `token_endpoint_auth_methods_supported`; `None`: it does not say.
    pub auth_methods: Option<Vec<String>>,
    /// `code_challenge_methods_supported`; `None`: it does not say.
    pub challenge_methods: Option<Vec<String>>,
}

impl Metadata {
    /// What `connector` takes of the document that was found at `place`, and what is odd about it.
    ///
    /// # Errors
    /// It is another issuer's, or its token endpoint is needed and cannot be taken.
    pub(super) fn take(
        document: Document,
        connector: &Connector,
        place: &str,
    ) -> Result<(Self, Vec<Oddity>), DiscoveryError> {
        // RFC 8414 section 3.3: otherwise any server could speak for any other.
        if connector.issuer.as_deref() != Some(document.issuer.as_str()) {
            return Err(DiscoveryError::OtherIssuer {
                place: place.to_owned(),
                found: clip(&document.issuer, 256),
            });
        }
        let token = match (&connector.token_url, &document.token_endpoint) {
            (Some(_), _) => None,
            (None, None) => {
                return Err(DiscoveryError::NoTokenEndpoint {
                    place: place.to_owned(),
                });
            }
            (None, Some(url)) => {
                let checked = discovered_url(url, connector);
                Some(checked.map_err(|fault| DiscoveryError::Endpoint {
                    place: place.to_owned(),
                    url: clip(url, 256),
                    fault: fault.into(),
                })?)
            }
        };
        let mut oddities = Vec::new();
        // Refreshing goes on without these, so that a fault in one of them is told and stops nothing.
        let mut optional = |named: &'static str, set: bool, url: &Option<String>| {
            let url = url.as_deref().filter(|_| !set)?;
            let checked = discovered_url(url, connector);
            checked
                .map_err(|fault| {
                    oddities.push(Oddity::Endpoint {
                        named,
                        url: clip(url, 256),
                        fault: fault.to_string(),
                    });
                })
                .ok()
        };
        let metadata = Self {
            authorize: optional(
                "authorization_endpoint",
                connector.authorize_url.is_some(),
                &document.authorization_endpoint,
            ),
            revoke: optional(
                "revocation_endpoint",
                connector.revoke_url.is_some(),
                &document.revocation_endpoint,
            ),
            device: optional(
                "device_authorization_endpoint",
                connector.device_authorization_url.is_some(),
                &document.device_authorization_endpoint,
            ),
            userinfo: optional(
                "userinfo_endpoint",
                connector.test_url.is_some(),
                &document.userinfo_endpoint,
            ),
            token,
            auth_methods: listed(document.token_endpoint_auth_methods_supported),
            challenge_methods: listed(document.code_challenge_methods_supported),
        };
        metadata.contradictions(connector, &mut oddities);
        Ok((metadata, oddities))
    }

    /// Where the configuration and the server say different things. The configuration wins; the operator is told.
    fn contradictions(&self, connector: &Connector, oddities: &mut Vec<Oddity>) {
        let auth = client_auth(connector, Some(self));
        if let (Some(methods), Ok(auth)) = (&self.auth_methods, auth)
            && !methods.iter().any(|method| method == method_name(auth))
        {
            oddities.push(Oddity::ClientAuth {
                said: auth,
                listed: methods.clone(),
            });
        }
        let mut redirects = connector.redirects.iter();
        if self.lacks_s256() && redirects.any(|redirect| redirect.pkce.unwrap_or(connector.pkce)) {
            oddities.push(Oddity::Pkce {
                listed: self.challenge_methods.clone().unwrap_or_default(),
            });
        }
    }

    /// Whether the server says which challenges it can check, and S256 is not among them. One that says nothing may
    /// still check it, and one that cannot ignores it (RFC 6749 section 3.1).
    fn lacks_s256(&self) -> bool {
        let methods = self.challenge_methods.as_ref();
        methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256"))
    }
}

/// An endpoint that a document names, if the connector may have it without being told so: the list says hosts alone,
/// and on each of them only the server that the operator means should be asked, not whatever else listens there.
fn discovered_url(text: &str, connector: &Connector) -> Result<Url, ConnectorFault> {
    let url = checked_url(text, &connector.hosts)?;
    let issuer = connector
        .issuer
        .as_deref()
        .and_then(|issuer| Url::parse(issuer).ok());
    let Some(issuer) = issuer.filter(|issuer| issuer.scheme() == url.scheme()) else {
        return Err(ConnectorFault::OtherScheme);
    };
    // A URL of this type has no port where it is its scheme's.
    match url.port() {
        Some(port) if issuer.port() != Some(port) => Err(ConnectorFault::OtherPort(port)),
        _ => Ok(url),
    }
}

fn listed(methods: Option<Vec<String>>) -> Option<Vec<String>> {
    let mut methods = methods?;
    methods.truncate(MAX_METHODS);
    Some(methods.into_iter().map(|method| clip(&method, 64)).collect())
}

/// Where a connector's requests go and how its client shows who it is: what is configured, else what was discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The token endpoint (RFC 6749 section 3.2).
    pub token: Url,
    /// The authorization endpoint (RFC 6749 section 3.1).
    pub authorize: Option<Url>,
    /// The revocation endpoint (RFC 7009 section 2).
    pub revoke: Option<Url>,
    /// The device authorization endpoint (RFC 8628 section 3.1).
    pub device: Option<Url>,
    /// How the client authenticates.
    pub client_auth: ClientAuth,
}

impl Endpoints {
    /// Those of `connector`, with what is known of its server.
    ///
    /// # Errors
    /// Something is needed that neither says.
    pub fn of(connector: &Connector, metadata: Option<&Metadata>) -> Result<Self, DiscoveryError> {
        let or_found = |set: &Option<Url>, found: fn(&Metadata) -> &Option<Url>| {
            set.clone().or_else(|| found(metadata?).clone())
        };
        Ok(Self {
            token: or_found(&connector.token_url, |it| &it.token).ok_or(DiscoveryError::Unknown)?,
            authorize: or_found(&connector.authorize_url, |it| &it.authorize),
            revoke: or_found(&connector.revoke_url, |it| &it.revoke),
            device: or_found(&connector.device_authorization_url, |it| &it.device),
            client_auth: client_auth(connector, metadata)?,
        })
    }
}

/// What is configured; else, with a secret, the first of the two ways that the server lists. One that lists nothing
/// takes Basic (RFC 8414 section 2).
fn client_auth(connector: &Connector, metadata: Option<&Metadata>) -> Result<ClientAuth, DiscoveryError> {
    match (connector.client_auth, &connector.client_secret) {
        (Some(said), _) => return Ok(said),
        (None, None) => return Ok(ClientAuth::None),
        (None, Some(_)) => {}
    }
    let metadata = metadata.ok_or(DiscoveryError::Unknown)?;
    let Some(methods) = &metadata.auth_methods else {
        return Ok(ClientAuth::Basic);
    };
    [ClientAuth::Basic, ClientAuth::Post]
        .into_iter()
        .find(|auth| methods.iter().any(|method| method == method_name(*auth)))
        .ok_or_else(|| DiscoveryError::NoMethod {
            listed: methods.join(", "),
        })
}

/// The registered name (IANA, OAuth Token Endpoint Authentication Methods).
fn method_name(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::None => "none",
        ClientAuth::Basic => "client_secret_basic",
        ClientAuth::Post => "client_secret_post",
    }
}

/// Something in a server's metadata that does not fit its connector. Nothing stops for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The client shows who it is in a way that the server does not list.
    ClientAuth {
        /// The way.
        said: ClientAuth,
        /// What it lists.
        listed: Vec<String>,
    },
    /// S256 is used and the server does not list it.
    Pkce {
        /// What it lists.
        listed: Vec<String>,
    },
    /// An endpoint that is not taken.
    Endpoint {
        /// Its name there.
        named: &'static str,
        /// What it is.
        url: String,
        /// What is wrong with it, and the remedy.
        fault: String,
    },
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::ClientAuth { said, listed } => {
                let remedy = match listed.iter().find_map(|method| match method.as_str() {
                    "client_secret_basic" => Some("basic"),
                    "client_secret_post" => Some("post"),
                    "none" => Some("none"),
                    _ => None,
                }) {
                    Some("none") => "set client_auth = \"none\" and remove client_secret".to_owned(),
                    Some(way) => format!("set client_auth = \"{way}\" and a client_secret"),
                    None => "it cannot be used with this server".to_owned(),
                };
                let listed = listed.join(", ");
                write!(
                    f,
                    "client_auth is \"{}\" and the server lists {listed}: {remedy}",
                    said.name()
                )
            }
            Oddity::Pkce { listed } => {
                let listed = match listed.as_slice() {
                    [] => "no method".to_owned(),
                    methods => methods.join(", "),
                };
                write!(
                    f,
                    "S256 is used and the server lists {listed}: ask its operator for S256, or set pkce = false"
                )
            }
            Oddity::Endpoint { named, url, fault } => write!(f, "{named} {url} is not used: {fault}"),
        }
    }
}
