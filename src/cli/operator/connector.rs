//! `credbroker connector`: how accounts of providers are connected, on what terms, and where requests go.

use clap::Subcommand;
use serde_json::json;

use super::{pages, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::proto;

/// What is done with connectors.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List the connectors: whether they are on, and if not, why.
    List(#[command(flatten)] ListArgs),
    /// Show a connector with its terms, its endpoints and what its server says of itself.
    Show {
        /// The connector's name.
        connector: String,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let failed = |status| session.failure(status);
    match action {
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let mut executors = session.executors();
                async move {
                    let request = proto::ListConnectorsRequest {
                        page_size,
                        page_token,
                    };
                    let page = executors.list_connectors(request).await?.into_inner();
                    Ok((page.connectors, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { connector, show } => {
            let request = proto::GetConnectorRequest { connector };
            let answer = session.executors().get_connector(request).await;
            print_one(answer.map_err(failed)?.into_inner().connector, show)
        }
    }
}

/// A span in whole seconds; `none` where there is no such span.
fn span(duration: Option<prost_types::Duration>, none: &str) -> Field {
    match duration {
        Some(duration) => Field::Both(format!("{} s", duration.seconds), duration.seconds.into()),
        None => Field::Both(none.to_owned(), serde_json::Value::Null),
    }
}

fn endpoints(all: &[proto::ConnectorEndpoint]) -> Field {
    let kind = |one: &proto::ConnectorEndpoint| enum_name(one.kind().as_str_name(), "ENDPOINT_KIND_");
    let told = all.iter().map(|one| {
        let how = if one.discovered { " (discovered)" } else { "" };
        format!("{} {}{how}", kind(one), one.url)
    });
    let object = |one| json!({ "kind": kind(one), "url": one.url, "discovered": one.discovered });
    Field::Both(
        told.collect::<Vec<_>>().join(", "),
        all.iter().map(object).collect::<Vec<_>>().into(),
    )
}

fn redirects(all: &[proto::ConnectorRedirect]) -> Field {
    let kind = |one: &proto::ConnectorRedirect| enum_name(one.kind().as_str_name(), "REDIRECT_KIND_");
    let told = all.iter().map(|one| {
        let mut told = format!("{} {}", kind(one), one.uri);
        if !one.ports.is_empty() {
            let ports: Vec<_> = one.ports.iter().map(ToString::to_string).collect();
            told += &format!(" port {}", ports.join(" or "));
        }
        if one.code_and_state {
            told += " CODE#STATE";
        }
        told + if one.pkce { " (S256)" } else { " (no PKCE)" }
    });
    let object = |one| json!({ "kind": kind(one), "uri": one.uri, "ports": one.ports, "code_and_state": one.code_and_state, "pkce": one.pkce });
    Field::Both(
        told.collect::<Vec<_>>().join(", "),
        all.iter().map(object).collect::<Vec<_>>().into(),
    )
}

/// What is told of an issuer.
const DISCOVERY: [&str; 6] = [
    "issuer",
    "discovery_place",
    "discovery_time",
    "discovery_warnings",
    "discovery_error",
    "discovery_error_time",
];

impl Resource for proto::Connector {
    const COLUMNS: &'static [&'static str] =
        &["name", "provider", "usable", "sharing", "rotates", "off_because"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let sharing = enum_name(self.sharing().as_str_name(), "CONNECTOR_SHARING_");
        let terms = self.terms.clone();
        let accepted = terms.as_ref().map(|terms| terms.accepted);
        let accepted = match accepted {
            Some(accepted) => Field::Flag(accepted),
            None => Field::Both("there are none".to_owned(), serde_json::Value::Null),
        };
        let terms = terms.unwrap_or_default();
        let mut fields = vec![
            ("name", Field::Text(self.name.clone())),
            ("provider", Field::Text(self.provider.clone())),
            ("usable", Field::Flag(self.usable)),
            ("off_because", Field::Text(self.off_because.clone())),
            ("terms", Field::Text(terms.text)),
            ("terms_url", Field::Text(terms.url)),
            ("terms_accepted", accepted),
            ("sharing", Field::Text(sharing)),
            ("rotates", Field::Flag(self.rotates)),
            ("old_access_survives", Field::Flag(self.old_access_survives)),
            ("grace", span(self.grace, "none")),
            ("lead", span(self.lead, "")),
            ("hosts", Field::List(self.hosts.clone())),
            ("endpoints", endpoints(&self.endpoints)),
            ("client_id", Field::Text(self.client_id.clone())),
            ("client_auth", Field::Text(self.client_auth.clone())),
            ("redirects", redirects(&self.redirects)),
            ("scopes", Field::List(self.scopes.clone())),
            ("sources", Field::List(self.sources.clone())),
        ];
        // Every connector has the same keys; without an issuer there is nothing to say at them.
        let found = match self.discovery.clone() {
            Some(discovery) => [
                Field::Text(discovery.issuer),
                Field::Text(discovery.place),
                Field::Time(discovery.fetch_time),
                Field::List(discovery.warnings),
                Field::Text(discovery.error),
                Field::Time(discovery.error_time),
            ],
            None => std::array::from_fn(|_| Field::Both(String::new(), serde_json::Value::Null)),
        };
        fields.extend(DISCOVERY.into_iter().zip(found));
        fields
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
