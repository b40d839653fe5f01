//! `credbroker provider`: who answers model calls, with which credentials, for which models and which programs.

use clap::Subcommand;
use serde_json::{Map, json};

use super::{pages, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::proto;

/// What is done with providers.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// List the providers with what they take, and what programs can use them.
    List(#[command(flatten)] ListArgs),
    /// Show a provider, with its models, and the terms of connecting accounts.
    Show {
        /// The provider's name.
        provider: String,
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
                    let request = proto::ListProvidersRequest {
                        page_size,
                        page_token,
                    };
                    let page = executors.list_providers(request).await?.into_inner();
                    Ok((page.providers, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Show { provider, show } => {
            let request = proto::GetProviderRequest { provider };
            let answer = session.executors().get_provider(request).await;
            print_one(answer.map_err(failed)?.into_inner().provider, show)
        }
    }
}

/// The modes by their names.
pub(super) fn modes(supported: &proto::SupportedModes) -> Vec<String> {
    supported
        .modes()
        .map(|mode| enum_name(mode.as_str_name(), "AUTH_MODE_"))
        .collect()
}

/// What executors and providers can do with each other, by the name that `of` picks.
pub(super) fn supported(
    all: &[proto::SupportedModes],
    of: impl Fn(&proto::SupportedModes) -> &String,
) -> Field {
    let told: Vec<_> = all
        .iter()
        .map(|one| format!("{} ({})", of(one), modes(one).join(", ")))
        .collect();
    let value: Map<_, _> = all
        .iter()
        .map(|one| (of(one).clone(), modes(one).into()))
        .collect();
    Field::Both(told.join(", "), value.into())
}

/// The connectors: on or off, and on what terms.
fn connectors(all: &[proto::ProviderConnector]) -> Field {
    let told = |one: &proto::ProviderConnector| {
        let state = if one.usable { "on" } else { "off" };
        let told = format!("{} ({state}) {} {}", one.name, one.terms, one.terms_url);
        told.trim_end().to_owned()
    };
    let object = |one: &proto::ProviderConnector| json!({ "name": one.name, "usable": one.usable, "terms": one.terms, "terms_url": one.terms_url });
    let texts: Vec<_> = all.iter().map(told).collect();
    Field::Both(
        texts.join(", "),
        all.iter().map(object).collect::<Vec<_>>().into(),
    )
}

impl Resource for proto::Provider {
    const COLUMNS: &'static [&'static str] =
        &["name", "title", "credential", "kinds", "base_url", "executors"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let kinds = self
            .kinds()
            .map(|kind| enum_name(kind.as_str_name(), "CREDENTIAL_KIND_"));
        let credential = enum_name(self.credential().as_str_name(), "CREDENTIAL_EXPECTATION_");
        vec![
            ("name", Field::Text(self.name.clone())),
            ("title", Field::Text(self.title.clone())),
            ("credential", Field::Text(credential)),
            ("kinds", Field::List(kinds.collect())),
            ("base_url", Field::Text(self.base_url.clone())),
            ("models", Field::List(self.models.clone())),
            ("model_ids", Field::Pairs(self.model_ids.clone())),
            ("executors", supported(&self.executors, |one| &one.executor)),
            ("connectors", connectors(&self.connectors)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
