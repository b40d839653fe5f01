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
    ///
    /// Shows the generation that takes its place. Otherwise the failure says what to do, with the provider's last
    /// message. Exit codes: 69 where waiting helps (the provider cannot be reached, or too many rotations were forced);
    /// 1 where somebody has to sign in again, a lease has ended, or somebody changed the same thing meanwhile
    /// (`CONFLICT`: run it again); 77 where the agent may not.
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
            let replaces = (generation, answer.exchanged);
            let decision = proto::Decision {
                fallback_reason: answer.fallback_reason,
                ..Default::default()
            };
            render::print(&match show.output {
                Output::Table => replacement(&lease, &decision, replaces),
                Output::Json => {
                    let mut object = resolve::object(&lease, &decision, false);
                    object["rejected_generation"] = generation.into();
                    object["exchanged"] = answer.exchanged.into();
                    render::json(&object)
                }
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

/// What happened, in a line, and the lease as it is now.
fn replacement(
    lease: &proto::Lease,
    decision: &proto::Decision,
    (rejected, exchanged): (u64, bool),
) -> String {
    let new = lease.generation;
    let happened = match (decision.fallback_reason.as_str(), exchanged) {
        ("", true) => format!("generation {new} replaces {rejected}: the provider issued it now"),
        ("", false) => format!("generation {new} replaces {rejected}: it was there already"),
        (reason, _) => format!(
            "generation {rejected} is not replaced ({reason}): use generation {new} of {} from now on",
            lease.credential
        ),
    };
    let rows = resolve::table(lease, decision, false, render::now());
    format!("{happened}\n{rows}")
}
