//! `credbroker managed-key`: the platform's own keys, for metered and shared use. Keys go in, never out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{pages, print_list, print_one};
use crate::cli::client::Session;
use crate::cli::error::Failure;
use crate::cli::render::{self, Field, ListArgs, Resource, ShowArgs, enum_name};
use crate::cli::{input, wire_duration};
use crate::domain::secret::{ApiKey, Exposure, Secret};
use crate::proto;

/// What a key is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Pool {
    /// Paid for from the org's balance.
    Metered,
    /// Free up to a daily quota.
    Shared,
}

impl Pool {
    fn wire(self) -> i32 {
        (match self {
            Pool::Metered => proto::KeyPool::Metered,
            Pool::Shared => proto::KeyPool::Shared,
        }) as i32
    }
}

/// Which key.
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// What it is for.
    #[arg(value_name = "POOL")]
    pool: Pool,
    /// The provider, such as `anthropic`.
    provider: String,
}

/// What is done with the platform's own keys.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Store a key, in place of the one there was: whoever asks next gets the new one.
    ///
    /// The key is read from standard input, or asked for without echo. It goes before one in the broker's environment
    /// or configuration.
    Set {
        #[command(flatten)]
        which: KeyArgs,
        /// The file with the key, `-` for standard input.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// Store it even when it does not look like a key of this provider.
        #[arg(long)]
        force: bool,
        /// How long proxies may go on using the key before it: when to revoke that one at the provider is told by it.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
        overlap: Duration,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// List the keys in use, wherever they come from.
    List(#[command(flatten)] ListArgs),
    /// Remove a stored key. One in the broker's environment or configuration is used from then on.
    Remove {
        #[command(flatten)]
        which: KeyArgs,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
pub async fn run(session: &Session, action: Action) -> Result<(), Failure> {
    let mut platform = session.platform();
    let failed = |status| session.failure(status);
    match action {
        Action::Set {
            which,
            key_file,
            force,
            overlap,
            show,
        } => {
            let key: Secret<ApiKey> = input::secret(key_file.as_deref(), "API key")?;
            let request = proto::SetManagedKeyRequest {
                pool: which.pool.wire(),
                provider: which.provider,
                key: Some(proto::Secret {
                    value: key.expose_str(Exposure::Seal).unwrap_or_default().to_owned(),
                }),
                force,
                overlap: Some(wire_duration(overlap)?),
            };
            let answer = platform.set_managed_key(request).await.map_err(failed)?;
            print_one(answer.into_inner().managed_key, show)
        }
        Action::List(list) => {
            let items = pages(list.limit, |page_size, page_token| {
                let mut platform = session.platform();
                async move {
                    let request = proto::ListManagedKeysRequest {
                        page_size,
                        page_token,
                    };
                    let page = platform.list_managed_keys(request).await?.into_inner();
                    Ok((page.managed_keys, page.next_page_token))
                }
            });
            print_list(&items.await.map_err(failed)?, list)
        }
        Action::Remove { which, yes } => {
            let KeyArgs { pool, provider } = which;
            let name = pool_name(pool.wire());
            let consequence = format!(
                "This removes the stored {name} key for {provider}: without another one, tasks that use it stop."
            );
            input::confirm(&consequence, yes)?;
            let request = proto::RemoveManagedKeyRequest {
                pool: pool.wire(),
                provider: provider.clone(),
            };
            let answer = platform.remove_managed_key(request).await.map_err(failed)?;
            let left = match answer.into_inner().managed_key {
                Some(key) => format!("; in use now: the one from the {}", source_name(key.source)),
                None => "; there is no other".to_owned(),
            };
            render::print(&format!("removed the {name} key for {provider}{left}\n"))
        }
    }
}

fn pool_name(pool: i32) -> String {
    let pool = proto::KeyPool::try_from(pool).unwrap_or_default();
    enum_name(pool.as_str_name(), "KEY_POOL_")
}

fn source_name(source: i32) -> String {
    let source = proto::KeySource::try_from(source).unwrap_or_default();
    enum_name(source.as_str_name(), "KEY_SOURCE_")
}

impl Resource for proto::ManagedKey {
    const COLUMNS: &'static [&'static str] =
        &["pool", "provider", "source", "generation", "update_time", "hint"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let behind = self.behind.iter().map(|source| source_name(*source));
        vec![
            ("pool", Field::Text(pool_name(self.pool))),
            ("provider", Field::Text(self.provider.clone())),
            ("source", Field::Text(source_name(self.source))),
            ("generation", Field::Number(self.generation)),
            ("hint", Field::Text(self.hint.clone())),
            ("update_time", Field::Time(self.update_time)),
            ("previous_expire_time", Field::Time(self.previous_expire_time)),
            ("behind", Field::List(behind.collect())),
        ]
    }

    fn handle(&self) -> String {
        format!("{}/{}", pool_name(self.pool), self.provider)
    }
}
