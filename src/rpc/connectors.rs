//! Connectors as messages. `ExecutorService` answers with them.

use super::convert::{proto_duration, timestamp};
use crate::proto;
use crate::service::{
    ConnectorDetail, Discovered, EndpointKind, EndpointView, PasteCode, Redirect, RedirectKind, Sharing,
};

fn endpoint(view: &EndpointView) -> proto::ConnectorEndpoint {
    let kind = match view.kind {
        EndpointKind::Token => proto::EndpointKind::Token,
        EndpointKind::Authorization => proto::EndpointKind::Authorization,
        EndpointKind::Revocation => proto::EndpointKind::Revocation,
        EndpointKind::DeviceAuthorization => proto::EndpointKind::DeviceAuthorization,
    };
    proto::ConnectorEndpoint {
        kind: kind.into(),
        url: view.url.to_string(),
        discovered: view.discovered,
    }
}

fn redirect(redirect: &Redirect, pkce: bool) -> proto::ConnectorRedirect {
    let (kind, uri, ports, code_and_state) = match &redirect.kind {
        RedirectKind::Loopback { host, ports, path } => {
            let host = if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            let uri = format!("http://{host}{path}");
            (proto::RedirectKind::Loopback, uri, ports.clone(), false)
        }
        RedirectKind::Paste { url, code } => {
            let with_state = *code == PasteCode::CodeAndState;
            (
                proto::RedirectKind::Paste,
                url.to_string(),
                Vec::new(),
                with_state,
            )
        }
    };
    proto::ConnectorRedirect {
        kind: kind.into(),
        uri,
        ports: ports.into_iter().map(u32::from).collect(),
        code_and_state,
        pkce: redirect.pkce.unwrap_or(pkce),
    }
}

fn discovery(issuer: &str, discovered: &Discovered) -> proto::ConnectorDiscovery {
    let oddities = discovered.oddities.iter();
    proto::ConnectorDiscovery {
        issuer: issuer.to_owned(),
        place: discovered.place.clone(),
        fetch_time: discovered.at.map(timestamp),
        warnings: oddities.map(ToString::to_string).collect(),
        error: discovered
            .error
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        error_time: discovered.failed_at.map(timestamp),
    }
}

pub(super) fn connector(view: &ConnectorDetail) -> proto::Connector {
    let connector = &*view.connector;
    let sharing = match connector.sharing {
        Sharing::Personal => proto::ConnectorSharing::Personal,
        Sharing::Any => proto::ConnectorSharing::Any,
    };
    let usable = connector.usable();
    let terms = connector.terms.as_ref().map(|terms| proto::ConnectorTerms {
        text: terms.text.clone(),
        url: terms.url.as_ref().map(ToString::to_string).unwrap_or_default(),
        accepted: terms.accepted,
    });
    let redirects = connector.redirects.iter();
    let issuer = connector.issuer.as_deref();
    proto::Connector {
        name: connector.name.to_string(),
        provider: connector.provider.clone(),
        usable: usable.is_ok(),
        off_because: usable.err().map(|off| off.to_string()).unwrap_or_default(),
        terms,
        sharing: sharing.into(),
        rotates: connector.rotates,
        old_access_survives: connector.old_access_survives,
        grace: connector.grace.map(proto_duration),
        lead: Some(proto_duration(connector.lead)),
        hosts: connector.hosts.clone(),
        endpoints: view.endpoints.iter().map(endpoint).collect(),
        discovery: issuer.map(|issuer| discovery(issuer, &view.discovered)),
        client_id: connector.client_id.clone().unwrap_or_default(),
        client_auth: view
            .client_auth
            .map(|auth| auth.name().to_owned())
            .unwrap_or_default(),
        redirects: redirects.map(|it| redirect(it, connector.pkce)).collect(),
        scopes: connector.scopes.clone(),
        sources: connector.sources.clone(),
    }
}
