//! `credbroker api-key`: the org's keys for control-plane services.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{MintOutput, pages, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs};
use crate::cli::{input, wire_duration};
use crate::proto;

/// What is done with API keys.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Mint an API key. It is shown this once.
    Create {
        /// What people call it.
        #[arg(long, default_value = "")]
        display_name: String,
        /// How long it is good for; otherwise the broker's default.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
    /// List the org's API keys, never the keys themselves.
    List(#[command(flatten)] ListArgs),
    /// Revoke an API key.
    Revoke {
        /// The API key's id, `key_…`.
        api_key: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut access = session.access();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::Create {
            display_name,
            ttl,
            output,
        } => {
            let request = proto::CreateApiKeyRequest {
                org,
                display_name,
                ttl: ttl.map(wire_duration).transpose()?,
            };
            let answer = access.create_api_key(request).await.map_err(failed)?.into_inner();
            let key = answer.api_key.clone().unwrap_or_default();
            let secret = answer.token.as_ref().map_or("", |secret| secret.value.as_str());
            render::print(&match output {
                MintOutput::Value => format!("{secret}\n"),
                MintOutput::Json => {
                    render::json(&json!({ "api_key": render::object(&key), "token": secret }))
                }
                MintOutput::Table => render::pairs([
                    ("id".to_owned(), key.id),
                    ("token".to_owned(), secret.to_owned()),
                    (
                        "expires".to_owned(),
                        Field::Time(key.expire_time).cell(render::now()),
                    ),
                ]),
            })?;
            if output == MintOutput::Table {
                render::remark("Shown this once.");
            }
            Ok(())
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut access, org) = (session.access(), org.clone());
                async move {
                    let request = proto::ListApiKeysRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = access.list_api_keys(request).await?.into_inner();
                    Ok((page.api_keys, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Revoke { api_key, yes, show } => {
            let consequence = format!("This revokes {api_key} for good: services that use it are refused.");
            input::confirm(&consequence, yes)?;
            let request = proto::RevokeApiKeyRequest { org, api_key };
            let answer = access.revoke_api_key(request).await.map_err(failed)?;
            print_one(answer.into_inner().api_key, show)
        }
    }
}

impl Resource for proto::ApiKey {
    const COLUMNS: &'static [&'static str] =
        &["id", "display_name", "create_time", "expire_time", "revoke_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("revoke_time", Field::Time(self.revoke_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }
}
