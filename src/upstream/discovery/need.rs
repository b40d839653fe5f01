//! Which endpoint a request goes to, so that it is not sent before that is known, nor waits for another.

use reqwest::Url;

use super::Endpoints;
use crate::upstream::connector::Connector;

/// An endpoint that is configured or discovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Need {
    /// The token endpoint.
    Token,
    /// The authorization endpoint.
    Authorize,
    /// The revocation endpoint.
    Revoke,
    /// The device authorization endpoint.
    Device,
}

impl Need {
    /// Whether `connector` leaves it to the server.
    pub(in crate::upstream) fn is_open(self, connector: &Connector) -> bool {
        let configured = match self {
            Need::Token => &connector.token_url,
            Need::Authorize => &connector.authorize_url,
            Need::Revoke => &connector.revoke_url,
            Need::Device => &connector.device_authorization_url,
        };
        configured.is_none() && connector.issuer.is_some()
    }

    /// What it is called.
    pub(in crate::upstream) fn named(self) -> &'static str {
        match self {
            Need::Token => "token endpoint",
            Need::Authorize => "authorization endpoint",
            Need::Revoke => "revocation endpoint",
            Need::Device => "device authorization endpoint",
        }
    }
}

impl Endpoints {
    /// The one that is needed; `None`: the server has none.
    pub(in crate::upstream) fn get(&self, need: Need) -> Option<&Url> {
        match need {
            Need::Token => Some(&self.token),
            Need::Authorize => self.authorize.as_ref(),
            Need::Revoke => self.revoke.as_ref(),
            Need::Device => self.device.as_ref(),
        }
    }
}
