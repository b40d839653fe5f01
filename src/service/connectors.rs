//! The connectors as callers see them: what is configured, and what their servers say of themselves. No secrets: a
//! connector holds none. They are the broker's and the same for every org.

use std::sync::Arc;

use reqwest::Url;

use super::Broker;
use super::page::{Page, PageRequest, page_of};
use crate::domain::refusal::Refusal;
use crate::upstream::connector::{ClientAuth, Connector};
use crate::upstream::discovery::{Endpoints, Metadata};

// What a connector consists of is told as it is.
pub use crate::upstream::connector::{PasteCode, Redirect, RedirectKind, Sharing};
pub use crate::upstream::discovery::Discovered;

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// RFC 6749 section 3.2.
    Token,
    /// RFC 6749 section 3.1.
    Authorization,
    /// RFC 7009 section 2.
    Revocation,
    /// RFC 8628 section 3.1.
    DeviceAuthorization,
}

/// An endpoint of a connector.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// What it is for.
    pub kind: EndpointKind,
    /// Where it is.
    pub url: Url,
    /// Whether it was discovered; otherwise it is configured.
    pub discovered: bool,
}

/// A connector with what is known of its server.
#[derive(Clone, Debug)]
pub struct ConnectorDetail {
    /// What is configured.
    pub connector: Arc<Connector>,
    /// What its server says of itself, where it is asked.
    pub discovered: Discovered,
    /// Its endpoints, as far as they are known.
    pub endpoints: Vec<EndpointView>,
    /// How its client authenticates; `None`: not known yet.
    pub client_auth: Option<ClientAuth>,
}

type Known = fn(&Metadata) -> &Option<Url>;

impl ConnectorDetail {
    fn new(connector: &Arc<Connector>, discovered: Discovered) -> Self {
        let metadata = discovered.metadata.as_deref();
        let all: [(EndpointKind, &Option<Url>, Known); 4] = [
            (EndpointKind::Token, &connector.token_url, |it| &it.token),
            (EndpointKind::Authorization, &connector.authorize_url, |it| {
                &it.authorize
            }),
            (EndpointKind::Revocation, &connector.revoke_url, |it| &it.revoke),
            (
                EndpointKind::DeviceAuthorization,
                &connector.device_authorization_url,
                |it| &it.device,
            ),
        ];
        let view = |(kind, configured, found): (EndpointKind, &Option<Url>, Known)| {
            let url = configured.clone().or_else(|| found(metadata?).clone())?;
            Some(EndpointView {
                kind,
                url,
                discovered: configured.is_none(),
            })
        };
        let resolved = Endpoints::of(connector, metadata).ok();
        Self {
            endpoints: all.into_iter().filter_map(view).collect(),
            client_auth: resolved
                .as_ref()
                .map(|it| it.client_auth)
                .or(connector.client_auth),
            connector: Arc::clone(connector),
            discovered,
        }
    }
}

impl Broker {
    /// The connectors, by name.
    pub fn list_connectors(&self, page: PageRequest<'_>) -> Result<Page<ConnectorDetail>, Refusal> {
        let names = self.connectors.iter().map(|connector| connector.name.as_str());
        let Page { rows, next } = page_of("connectors", names, page)?;
        let connectors = rows.into_iter().filter_map(|name| self.connectors.get(name));
        Ok(Page {
            rows: connectors
                .map(|connector| self.connector_detail(connector))
                .collect(),
            next,
        })
    }

    /// One connector.
    pub fn get_connector(&self, name: &str) -> Result<ConnectorDetail, Refusal> {
        let connector = self.connectors.get(name);
        let connector = connector.ok_or_else(|| Refusal::not_found("connector"))?;
        Ok(self.connector_detail(connector))
    }

    /// Begins to find out what connectors leave to their servers. Nobody waits for it.
    pub fn prepare_connectors(&self) {
        for connector in self.connectors.iter() {
            self.endpoint.prepare(connector);
        }
    }

    fn connector_detail(&self, connector: &Arc<Connector>) -> ConnectorDetail {
        ConnectorDetail::new(connector, self.endpoint.discovered(connector))
    }
}
