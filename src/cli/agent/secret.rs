//! `credbroker secret`: secrets of extensions, kept by admins and read by agents.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::IdentityArgs;
use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::input;
use crate::cli::operator::{pages, print_list, print_one};
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs};
use crate::domain::secret::{Exposure, ExtensionValue, Secret};
use crate::proto;
use crate::proto::{grant_secret_access_request as grant, revoke_secret_access_request as revoke};

/// What is done with secrets of extensions.
#[derive(Args, Debug)]
pub struct SecretArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    action: Action,
}

/// Who reads a namespace.
#[derive(Args, Debug)]
#[group(skip)]
struct GranteeArgs {
    /// An agent, `agt_…`.
    #[arg(long, group = "grantee")]
    agent: Option<String>,
    /// All agents of an environment: id or name.
    #[arg(long, group = "grantee")]
    environment: Option<String>,
    /// The project, where the environment is given by name.
    #[arg(long, default_value = "", requires = "environment")]
    project: String,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Store a secret, in place of the one there was.
    ///
    /// The value is read from standard input, or asked for without echo.
    Set {
        /// The namespace: 1 to 63 of a-z, 0-9 and '-', beginning with a letter.
        namespace: String,
        /// The name: 1 to 128 of A-Z, a-z, 0-9, '_' and '-', beginning with a letter or '_'.
        name: String,
        /// The file with the value, `-` for standard input.
        #[arg(long, value_name = "FILE")]
        value_file: Option<PathBuf>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List secrets, never their values.
    List {
        /// The namespace; otherwise all.
        #[arg(default_value = "")]
        namespace: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove a secret.
    Remove {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Let an agent, or all agents of an environment, read a namespace.
    #[command(group = clap::ArgGroup::new("grantee").required(true))]
    Grant {
        /// The namespace.
        namespace: String,
        #[command(flatten)]
        grantee: GranteeArgs,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Take that back.
    #[command(group = clap::ArgGroup::new("grantee").required(true))]
    Revoke {
        /// The namespace.
        namespace: String,
        #[command(flatten)]
        grantee: GranteeArgs,
    },
    /// List who may read a namespace.
    Grants {
        /// The namespace; otherwise all.
        #[arg(default_value = "")]
        namespace: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Print a secret's value. For agents.
    Read {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
}

/// Runs the command.
pub async fn run(args: SecretArgs) -> Result<(), Failure> {
    let session = super::open(&args.connection, &args.identity).await?;
    let org = session.org_or_own();
    let mut secrets = session.secrets();
    let failed = |status| session.failure(status);
    match args.action {
        Action::Set {
            namespace,
            name,
            value_file,
            show,
        } => {
            let value: Secret<ExtensionValue> = input::secret(value_file.as_deref(), "value")?;
            let request = proto::SetSecretRequest {
                org,
                namespace,
                name,
                value: Some(proto::Secret {
                    value: value.expose_str(Exposure::Seal).unwrap_or_default().to_owned(),
                }),
            };
            let answer = secrets.set_secret(request).await.map_err(failed)?;
            print_one(answer.into_inner().secret, show)
        }
        Action::List { namespace, list } => print_secrets(&session, org, namespace, list).await,
        Action::Remove { namespace, name, yes } => {
            input::confirm(&format!("This removes {name} of {namespace} for good."), yes)?;
            let text = format!("removed {namespace}/{name}\n");
            let request = proto::RemoveSecretRequest { org, namespace, name };
            secrets.remove_secret(request).await.map_err(failed)?;
            render::print(&text)
        }
        Action::Grant {
            namespace,
            grantee,
            show,
        } => {
            let request = proto::GrantSecretAccessRequest {
                org,
                namespace,
                grantee: match (grantee.agent, grantee.environment) {
                    (Some(agent), _) => Some(grant::Grantee::Agent(agent)),
                    (None, environment) => environment.map(grant::Grantee::Environment),
                },
                project: grantee.project,
            };
            let answer = secrets.grant_secret_access(request).await.map_err(failed)?;
            print_one(answer.into_inner().grant, show)
        }
        Action::Revoke { namespace, grantee } => {
            let text = format!("revoked {namespace}\n");
            let request = proto::RevokeSecretAccessRequest {
                org,
                namespace,
                grantee: match (grantee.agent, grantee.environment) {
                    (Some(agent), _) => Some(revoke::Grantee::Agent(agent)),
                    (None, environment) => environment.map(revoke::Grantee::Environment),
                },
                project: grantee.project,
            };
            secrets.revoke_secret_access(request).await.map_err(failed)?;
            render::print(&text)
        }
        Action::Grants { namespace, list } => print_grants(&session, org, namespace, list).await,
        Action::Read { namespace, name } => {
            let request = proto::ReadSecretRequest { namespace, name };
            let answer = secrets.read_secret(request).await.map_err(failed)?.into_inner();
            let value = answer.value.unwrap_or_default();
            render::print(&format!("{}\n", value.value))
        }
    }
}

async fn print_secrets(
    session: &Session,
    org: String,
    namespace: String,
    args: ListArgs,
) -> Result<(), Failure> {
    let items = pages(args.limit, |page_size, page_token| {
        let (mut secrets, org, namespace) = (session.secrets(), org.clone(), namespace.clone());
        async move {
            let request = proto::ListSecretsRequest {
                org,
                namespace,
                page_size,
                page_token,
            };
            let page = secrets.list_secrets(request).await?.into_inner();
            Ok((page.secrets, page.next_page_token))
        }
    });
    print_list(&items.await.map_err(|status| session.failure(status))?, args)
}

async fn print_grants(
    session: &Session,
    org: String,
    namespace: String,
    args: ListArgs,
) -> Result<(), Failure> {
    let items = pages(args.limit, |page_size, page_token| {
        let (mut secrets, org, namespace) = (session.secrets(), org.clone(), namespace.clone());
        async move {
            let request = proto::ListSecretGrantsRequest {
                org,
                namespace,
                page_size,
                page_token,
            };
            let page = secrets.list_secret_grants(request).await?.into_inner();
            Ok((page.grants, page.next_page_token))
        }
    });
    print_list(&items.await.map_err(|status| session.failure(status))?, args)
}

impl Resource for proto::ExtensionSecret {
    const COLUMNS: &'static [&'static str] = &["namespace", "name", "version", "create_time", "update_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        vec![
            ("namespace", Field::Text(self.namespace.clone())),
            ("name", Field::Text(self.name.clone())),
            ("version", Field::Number(self.version)),
            ("create_time", Field::Time(self.create_time)),
            ("update_time", Field::Time(self.update_time)),
        ]
    }

    fn handle(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Resource for proto::SecretGrant {
    const COLUMNS: &'static [&'static str] = &["namespace", "grantee", "create_time"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        use proto::secret_grant::Grantee;
        let grantee = match &self.grantee {
            Some(Grantee::Agent(id) | Grantee::Environment(id)) => id.clone(),
            None => String::new(),
        };
        vec![
            ("namespace", Field::Text(self.namespace.clone())),
            ("grantee", Field::Text(grantee)),
            ("create_time", Field::Time(self.create_time)),
        ]
    }

    fn handle(&self) -> String {
        self.namespace.clone()
    }
}
