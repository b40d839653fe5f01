//! What agents do in their sandbox. Where there is no identity, the same commands act with the token of the
//! context.

use std::path::PathBuf;

use clap::Args;

use super::client::{self, Bearer, DEFAULT_TIMEOUT, Session, Trust};
use super::context::{ConnectionArgs, Target};
use super::error::Failure;
use super::identity::Folder;
use super::render;
use renew::Life;

pub mod approval;
pub mod enroll;
pub mod explain;
pub mod follow;
pub mod lease;
mod renew;
pub mod resolve;
pub mod secret;
pub mod sought;
pub mod watch;

/// Which identity a command acts as.
#[derive(Args, Clone, Debug, Default)]
pub struct IdentityArgs {
    /// Act as the agent whose identity is in this folder. Without it, and without a context, address or token
    /// file named, the identity in the user's data folder is used where there is one.
    #[arg(long, global = true, env = "CREDBROKER_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,
}

/// Connects as the agent where there is an identity, otherwise with the token of the context.
pub async fn open(connection: &ConnectionArgs, identity: &IdentityArgs) -> Result<Session, Failure> {
    match chosen(connection, identity)? {
        Some(folder) => open_as(connection, &folder).await,
        None => Session::open(connection).await,
    }
}

/// The identity that is meant; `None`: the context's token is.
fn chosen(connection: &ConnectionArgs, identity: &IdentityArgs) -> Result<Option<Folder>, Failure> {
    if let Some(path) = &identity.identity {
        return Ok(Some(Folder::at(path)));
    }
    if connection.context.is_some() || connection.address.is_some() || connection.token_file.is_some() {
        return Ok(None);
    }
    let folder = Folder::or_default(None)?;
    Ok(folder.about()?.map(|_| folder))
}

async fn open_as(connection: &ConnectionArgs, folder: &Folder) -> Result<Session, Failure> {
    let mut identity = folder.load()?;
    let life = renew::life(folder, &identity, render::now())?;
    if let Life::Ended(end) = life {
        identity = renew::renew_ended(connection, folder, end).await?;
    }
    let presented = identity.client.chain_der.first().cloned();
    let target = Target {
        context: None,
        address: connection.address.clone().unwrap_or(identity.about.address),
    };
    let bearer = Bearer::new(
        Some(&identity.runtime_key),
        connection.timeout.unwrap_or(DEFAULT_TIMEOUT),
    )?;
    let channel = client::connect(
        &target.address,
        Trust::Roots(identity.roots),
        Some(identity.client),
    )
    .await
    .map_err(|error| error.into_failure(&target))?;
    let session = Session::new(channel, bearer, target, None).of_agent();
    if let (Life::Due, Some(presented)) = (life, presented) {
        renew::renew(&session, folder, &presented).await;
    }
    Ok(session)
}
