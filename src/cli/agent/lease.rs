//! `credbroker lease`: reports that the provider rejected what a lease handed out, or gives the lease back.

use clap::{Args, Subcommand};

use super::IdentityArgs;
use super::resolve;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::render::{self, Output, ShowArgs};
use crate::proto;

/// What is done with a lease.
#[derive(Args, Debug)]
pub struct LeaseArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Report that the provider rejected the material, so that it is replaced.
    Reject {
        /// The lease, `lse_…`.
        lease: String,
        /// The generation that was rejected, as the resolution told it.
        #[arg(long)]
        generation: u64,
        /// What the provider said.
        #[arg(long, default_value = "")]
        provider_message: String,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Give the lease back before it expires.
    Release {
        /// The lease, `lse_…`.
        lease: String,
    },
}

/// Runs the command.
pub async fn run(args: LeaseArgs) -> Result<(), Failure> {
    let session = super::open(&args.connection, &args.identity).await?;
    match args.action {
        Action::Reject {
            lease,
            generation,
            provider_message,
            show,
        } => {
            let request = proto::RefreshTokenRequest {
                lease,
                rejected_generation: generation,
                provider_message,
                request_id: String::new(),
            };
            let answer = session
                .broker()
                .refresh_token(request)
                .await
                .map_err(|status| session.failure(status))?
                .into_inner();
            let lease = answer.lease.unwrap_or_default();
            let decision = proto::Decision {
                fallback_reason: answer.fallback_reason,
                ..Default::default()
            };
            render::print(&match show.output {
                Output::Table => resolve::table(&lease, &decision, false, render::now()),
                Output::Json => render::json(&resolve::object(&lease, &decision, false)),
                Output::Name => format!("{}\n", lease.id),
            })
        }
        Action::Release { lease } => {
            session
                .broker()
                .release_lease(proto::ReleaseLeaseRequest { lease: lease.clone() })
                .await
                .map_err(|status| session.failure(status))?;
            render::print(&format!("released {lease}\n"))
        }
    }
}
