//! `credbroker api-key`: the org's keys for control-plane services.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{MintOutput, Minted, pages, print_list, print_minted, print_one};
use crate::cli::client::Session;
use crate::cli::client_certificate::Folder;
use crate::cli::error::Failure;
use crate::cli::render::{Field, ListArgs, Resource, ShowArgs};
use crate::cli::{input, wire_duration};
use crate::domain::directory::Group;
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
        /// A project to confine it to: id or name; may be repeated. Without one it is for the whole org.
        #[arg(long)]
        project: Vec<String>,
        /// What it may be used for: tasks, resolve, enrollment, agents, directory, credentials, approvals,
        /// introspect, watch or secrets; may be repeated. Without one all but approvals, introspect and secrets.
        #[arg(long, value_parser = group)]
        group: Vec<proto::ApiKeyGroup>,
        /// Make a client certificate in this folder, and the key good only together with it.
        #[arg(long, value_name = "DIR")]
        mtls: Option<PathBuf>,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
    /// List the org's API keys, never the keys themselves.
    List(#[command(flatten)] ListArgs),
    /// Replace an API key with a new one, shown this once. The old one stays good for the overlap.
    Rotate {
        /// The API key's id, `key_…`.
        api_key: String,
        /// How long the old one stays good: 0s to 7d; otherwise an hour.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        overlap: Option<Duration>,
        /// How long the new one is good for; otherwise until the old one was to end.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// Make a new client certificate in this folder: needed for a key that has one.
        #[arg(long, value_name = "DIR")]
        mtls: Option<PathBuf>,
        /// How it is shown.
        #[arg(short, long, value_enum, default_value_t)]
        output: MintOutput,
    },
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

const GROUPS: [(Group, proto::ApiKeyGroup); 12] = [
    (Group::Tasks, proto::ApiKeyGroup::Tasks),
    (Group::Resolve, proto::ApiKeyGroup::Resolve),
    (Group::Enrollment, proto::ApiKeyGroup::Enrollment),
    (Group::Agents, proto::ApiKeyGroup::Agents),
    (Group::Directory, proto::ApiKeyGroup::Directory),
    (Group::Credentials, proto::ApiKeyGroup::Credentials),
    (Group::Approvals, proto::ApiKeyGroup::Approvals),
    (Group::Introspect, proto::ApiKeyGroup::Introspect),
    (Group::Watch, proto::ApiKeyGroup::Watch),
    (Group::Secrets, proto::ApiKeyGroup::Secrets),
    (Group::Proxy, proto::ApiKeyGroup::Proxy),
    (Group::Accounts, proto::ApiKeyGroup::Accounts),
];

fn group(text: &str) -> Result<proto::ApiKeyGroup, String> {
    let found = GROUPS.iter().find(|(group, _)| group.name() == text);
    found.map(|(_, wire)| *wire).ok_or_else(|| {
        let names: Vec<_> = GROUPS.iter().map(|(group, _)| group.name()).collect();
        format!("a group is one of {}", names.join(", "))
    })
}

/// The names of groups, as the API has them.
pub(super) fn group_names(groups: &[i32]) -> Vec<String> {
    let name = |number: &i32| {
        let found = GROUPS.iter().find(|(_, wire)| *wire as i32 == *number);
        found.map_or("unknown", |(group, _)| group.name()).to_owned()
    };
    groups.iter().map(name).collect()
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
            project,
            group,
            mtls,
            output,
        } => {
            let folder = mtls.map(Folder::at);
            let request = proto::CreateApiKeyRequest {
                org,
                display_name,
                ttl: ttl.map(wire_duration).transpose()?,
                projects: project,
                groups: group.into_iter().map(i32::from).collect(),
                csr_der: request_in(folder.as_ref())?,
            };
            let answer = access.create_api_key(request).await.map_err(failed)?.into_inner();
            let chain = answer.certificate_chain_der;
            minted(answer.api_key, answer.token, folder, &chain, output)
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
        Action::Rotate {
            api_key,
            overlap,
            ttl,
            mtls,
            output,
        } => {
            let folder = mtls.map(Folder::at);
            let request = proto::RotateApiKeyRequest {
                org,
                api_key,
                overlap: overlap.map(wire_duration).transpose()?,
                ttl: ttl.map(wire_duration).transpose()?,
                csr_der: request_in(folder.as_ref())?,
            };
            let answer = access.rotate_api_key(request).await.map_err(failed)?.into_inner();
            let chain = answer.certificate_chain_der;
            minted(answer.api_key, answer.token, folder, &chain, output)
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

fn request_in(folder: Option<&Folder>) -> Result<Vec<u8>, Failure> {
    folder.map_or(Ok(Vec::new()), Folder::request)
}

/// Puts the certificate in place, where one was asked for, and prints the key. The key is printed even where the
/// certificate cannot be put in place: it is shown once.
fn minted(
    api_key: Option<proto::ApiKey>,
    token: Option<proto::Secret>,
    folder: Option<Folder>,
    chain_der: &[Vec<u8>],
    output: MintOutput,
) -> Result<(), Failure> {
    let installed = folder.as_ref().map(|folder| folder.install(chain_der));
    let resource = api_key.unwrap_or_default();
    let folder = folder.map(|folder| ("certificate".to_owned(), folder.path().display().to_string()));
    print_minted(
        Minted {
            name: "api_key",
            expires: resource.expire_time,
            resource,
            token: token.unwrap_or_default(),
            more: folder.into_iter().collect(),
        },
        output,
    )?;
    installed.unwrap_or(Ok(()))
}

impl Resource for proto::ApiKey {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "display_name",
        "projects",
        "create_time",
        "expire_time",
        "revoke_time",
        "last_used_time",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let whole = || Field::Both("(all)".to_owned(), json!([]));
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("display_name", Field::Text(self.display_name.clone())),
            (
                "projects",
                match self.projects.is_empty() {
                    true => whole(),
                    false => Field::List(self.projects.clone()),
                },
            ),
            ("groups", Field::List(group_names(&self.groups))),
            ("certificate_required", Field::Flag(self.certificate_required)),
            ("create_time", Field::Time(self.create_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("revoke_time", Field::Time(self.revoke_time)),
            ("last_used_time", Field::Time(self.last_used_time)),
            ("previous_expire_time", Field::Time(self.previous_expire_time)),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_its_name_on_the_wire() {
        for known in Group::ALL {
            let wire = group(known.name()).unwrap_or_default();
            assert_eq!(group_names(&[wire as i32]), [known.name()]);
        }
        assert!(group("everything").is_err());
    }
}
