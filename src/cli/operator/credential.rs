//! `credbroker credential`: what the broker keeps for members and orgs. Secrets go in, never out.

mod describe;
mod key;
pub mod status;
mod test;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{pages, print_named, print_named_list};
use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::cli::{input, key_value, owner_field, owner_reference};
use crate::domain::parallelism::MOST;
use crate::domain::secret::{AccessToken, Exposure, RefreshToken, Secret};
use crate::proto;

/// Whose a credential is.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct OwnerArgs {
    /// It is this member's own: id or name.
    #[arg(long)]
    member: Option<String>,
    /// It is the org's, for all members who have none of their own.
    #[arg(long)]
    org_owned: bool,
}

impl OwnerArgs {
    fn into_wire(self) -> proto::Owner {
        proto::Owner {
            owner: Some(match self.member {
                Some(member) => proto::owner::Owner::Member(member),
                None => proto::owner::Owner::Org(true),
            }),
        }
    }
}

/// What is done with credentials.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Store a key, in place of the one there was.
    ///
    /// The key is read from standard input, or asked for without echo.
    Set(key::SetArgs),
    /// Take over an OAuth grant: from then on only the broker may refresh it.
    ///
    /// The refresh token is read from standard input, or asked for without echo.
    Import(ImportArgs),
    /// List the org's credentials.
    List(#[command(flatten)] ListArgs),
    /// Show a credential, the generations it has had, and who depends on it.
    Show {
        /// The credential, `crd_…`.
        credential: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Say how many leases may stand at once on the grant of a personal subscription.
    ///
    /// Ends none of those that do: where they are more, the next is made once enough of them have ended.
    SetParallelism {
        /// The credential, `crd_…`.
        credential: String,
        /// As many as may stand, 1 to 200; `default`: as many as the configuration says.
        #[arg(value_parser = parallelism)]
        parallelism: u32,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Show how credentials stand, the worst first; with --watch, live.
    Status(status::StatusArgs),
    /// Test credentials with a small authenticated request to their providers.
    ///
    /// Exit code 0: all work; 1: at least one does not; 69: what does not could not be asked now.
    Test(test::TestArgs),
    /// Remove a credential and its secret, from the broker only.
    ///
    /// Nothing is told to the provider: a key goes on working there, and so do the tokens of a grant until they expire.
    /// 'credbroker account disconnect' has those revoked as well.
    Remove {
        /// The credential, `crd_…`.
        credential: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The grant that is taken over.
#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// The connector that keeps it alive.
    #[arg(long)]
    connector: String,
    /// The file with the refresh token, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    refresh_token_file: Option<PathBuf>,
    /// The file with the current access token; without it the broker refreshes at the first use.
    #[arg(long, value_name = "FILE")]
    access_token_file: Option<PathBuf>,
    /// How long the access token is still good for.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "access_token_file")]
    expires_in: Option<Duration>,
    /// A scope that was granted; may be repeated.
    #[arg(long)]
    scope: Vec<String>,
    /// A fact about the account, no secret, that the official programs want to see; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    account: Vec<(String, String)>,
    #[command(flatten)]
    show: ShowArgs,
}

/// Runs the command.
pub async fn run(connection: &ConnectionArgs, session: &Session, action: Action) -> Result<(), Failure> {
    let mut credentials = session.credentials();
    let failed = |status| session.failure(status);
    let org = session.org()?;
    match action {
        Action::Set(args) => {
            let show = args.show;
            let request = key::request(org, args)?;
            let answer = credentials.set_credential(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().credential, show).await
        }
        Action::Import(args) => {
            let show = args.show;
            let request = import_request(org, args)?;
            let answer = credentials.import_grant(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().credential, show).await
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let (mut credentials, org) = (session.credentials(), org.clone());
                async move {
                    let request = proto::ListCredentialsRequest {
                        org,
                        page_size,
                        page_token,
                    };
                    let page = credentials.list_credentials(request).await?.into_inner();
                    Ok((page.credentials, page.next_page_token))
                }
            });
            print_named_list(session, items.await.map_err(failed)?, list).await
        }
        Action::Show { credential, show } => {
            let request = proto::DescribeCredentialRequest { org, credential };
            let answer = credentials.describe_credential(request).await.map_err(failed)?;
            print_named(session, Some(answer.into_inner()), show).await
        }
        Action::SetParallelism {
            credential,
            parallelism,
            show,
        } => {
            let request = proto::SetParallelismRequest {
                org,
                credential,
                parallelism,
            };
            let answer = credentials.set_parallelism(request).await.map_err(failed)?;
            print_named(session, answer.into_inner().credential, show).await
        }
        Action::Status(args) => status::run(connection, session, org, args).await,
        Action::Test(args) => test::run(session, args).await,
        Action::Remove { credential, yes } => {
            let consequence = format!(
                "This removes {credential} and its secret from the broker: tasks that use it stop working. Nothing is \
                 revoked at the provider; of a connected account, 'credbroker account disconnect' does that too."
            );
            input::confirm(&consequence, yes)?;
            let request = proto::RemoveCredentialRequest {
                org,
                credential: credential.clone(),
            };
            credentials.remove_credential(request).await.map_err(failed)?;
            render::print(&format!("removed {credential}\n"))
        }
    }
}

/// As many as may stand; 0 where the configuration is to say it.
fn parallelism(text: &str) -> Result<u32, String> {
    match text {
        "default" => Ok(0),
        text => match text.parse() {
            Ok(number) if (1..=MOST).contains(&number) => Ok(number),
            _ => Err(format!("1 to {MOST}, or default")),
        },
    }
}

/// How many leases stand, of how many that may; empty where nothing is capped.
fn parallelism_field(parallelism: Option<&proto::Parallelism>) -> Field {
    let Some(parallelism) = parallelism else {
        return Field::Both(String::new(), Value::Null);
    };
    let text = format!("{} of {}", parallelism.standing, parallelism.cap);
    let value = json!({
        "standing": parallelism.standing,
        "cap": parallelism.cap,
        "set": parallelism.set,
    });
    Field::Both(text, value)
}

fn import_request(org: String, args: ImportArgs) -> Result<proto::ImportGrantRequest, Failure> {
    let access_token: Option<Secret<AccessToken>> = args
        .access_token_file
        .as_deref()
        .map(input::secret_in_file)
        .transpose()?;
    let refresh_token: Secret<RefreshToken> =
        input::secret(args.refresh_token_file.as_deref(), "refresh token")?;
    let expire_time = args.expires_in.map(after);
    Ok(proto::ImportGrantRequest {
        org,
        owner: Some(args.owner.into_wire()),
        connector: args.connector,
        refresh_token: Some(to_wire(&refresh_token)),
        access_token: access_token.as_ref().map(to_wire),
        access_token_expire_time: expire_time,
        scopes: args.scope,
        account: args.account.into_iter().collect(),
    })
}

/// This long from now.
fn after(span: Duration) -> prost_types::Timestamp {
    let at = render::now() + span;
    prost_types::Timestamp {
        seconds: at.seconds(),
        nanos: 0,
    }
}

fn to_wire<K>(secret: &Secret<K>) -> proto::Secret {
    proto::Secret {
        value: secret.expose_str(Exposure::Seal).unwrap_or_default().to_owned(),
    }
}

impl Resource for proto::Credential {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "provider",
        "kind",
        "executor",
        "region",
        "owner",
        "health",
        "generation",
        "expire_time",
        "hint",
    ];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let kind = enum_name(self.kind().as_str_name(), "CREDENTIAL_KIND_");
        let health = enum_name(self.health().as_str_name(), "CREDENTIAL_HEALTH_");
        vec![
            ("id", Field::Text(self.id.clone())),
            ("org", Field::Text(self.org.clone())),
            ("owner", owner_field(self.owner.as_ref())),
            ("provider", Field::Text(self.provider.clone())),
            ("kind", Field::Text(kind)),
            ("executor", Field::Text(self.executor.clone())),
            ("region", Field::Text(self.region.clone())),
            ("connector", Field::Text(self.connector.clone())),
            ("health", Field::Text(health)),
            ("last_error", Field::Text(self.last_error.clone())),
            ("generation", Field::Number(self.generation)),
            ("hint", Field::Text(self.hint.clone())),
            ("scopes", Field::List(self.scopes.clone())),
            ("create_time", Field::Time(self.create_time)),
            ("refresh_time", Field::Time(self.refresh_time)),
            ("expire_time", Field::Time(self.expire_time)),
            ("parallelism", parallelism_field(self.parallelism.as_ref())),
        ]
    }

    fn handle(&self) -> String {
        self.id.clone()
    }

    fn references(&mut self) -> Vec<&mut String> {
        owner_reference(&mut self.owner)
    }
}
