//! `credbroker enroll`: turns a one-time enrollment token into the identity of this sandbox.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::renew::{self, Life};
use crate::cli::client::{self, Bearer, DEFAULT_TIMEOUT, Session, Trust};
use crate::cli::context::{ConnectionArgs, Target};
use crate::cli::error::Failure;
use crate::cli::identity::{About, Enrolled, Folder, certificate_request};
use crate::cli::pin::Pin;
use crate::cli::{input, key_value, render};
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::proto;

/// Enroll this sandbox as an agent.
///
/// An enrollment that breaks off is taken up again with the same key. An identity that is there is kept, and its
/// certificate renewed where that is due; one whose certificate has ended is replaced.
#[derive(Args, Debug)]
pub struct EnrollArgs {
    /// The broker's address.
    #[arg(long, env = "CREDBROKER_ADDRESS", value_name = "HOST:PORT")]
    address: String,
    /// The hash that the broker's root certificate is recognized by; told with the token.
    #[arg(long, env = "CREDBROKER_CA_PIN", value_name = "sha256:HEX")]
    ca_pin: Pin,
    /// The folder for the identity; otherwise one in the user's data folder.
    #[arg(long, env = "CREDBROKER_IDENTITY", value_name = "DIR")]
    identity: Option<PathBuf>,
    /// The file with the enrollment token, `-` for standard input. Without it the token is read from standard
    /// input, or asked for on a terminal.
    #[arg(long, env = "CREDBROKER_ENROLLMENT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What the agent says of itself; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    attribute: Vec<(String, String)>,
    /// Replace the identity that is there.
    #[arg(long)]
    force: bool,
    /// How long to wait for the answer.
    #[arg(long, env = "CREDBROKER_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Runs the command.
pub async fn run(args: EnrollArgs) -> Result<(), Failure> {
    let folder = Folder::or_default(args.identity.as_deref())?;
    let timeout = args.timeout.unwrap_or(DEFAULT_TIMEOUT);
    if !args.force && keep(&folder, timeout).await? {
        return Ok(());
    }
    let token: Secret<ActorToken> = input::secret(args.token_file.as_deref(), "enrollment token")?;
    let key = folder.key_for_enrollment()?;
    let csr_der = certificate_request(&key)?;
    let target = Target {
        context: None,
        address: args.address,
    };
    let enrolled = enroll(&target, args.ca_pin, &token, csr_der, args.attribute, timeout).await?;
    folder.install(&enrolled)?;
    render::print(&format!(
        "enrolled as {} ({})\n",
        enrolled.about.agent,
        folder.path().display()
    ))
}

/// Keeps the identity that is there, where there is one that still serves.
async fn keep(folder: &Folder, timeout: Duration) -> Result<bool, Failure> {
    let Some(about) = folder.about()? else {
        return Ok(false);
    };
    match renew::life(folder, &folder.load()?, render::now())? {
        Life::Fresh => {}
        Life::Due => {
            let connection = ConnectionArgs {
                timeout: Some(timeout),
                ..ConnectionArgs::default()
            };
            // The renewal can wait where the broker cannot be reached.
            if let Err(failure) = super::open_as(&connection, folder).await {
                render::remark(&format!("the certificate was not renewed: {}", failure.what));
            }
        }
        Life::Ended(_) => {
            render::remark(&format!(
                "the certificate of {} has ended: enrolling anew",
                about.agent
            ));
            return Ok(false);
        }
    }
    render::print(&format!(
        "enrolled already as {} at {} ({})\n",
        about.agent,
        about.address,
        folder.path().display()
    ))?;
    Ok(true)
}

/// Sends the enrollment, to a broker with the pinned root only.
pub(in crate::cli) async fn enroll(
    target: &Target,
    pin: Pin,
    token: &Secret<ActorToken>,
    csr_der: Vec<u8>,
    attributes: impl IntoIterator<Item = (String, String)>,
    timeout: Duration,
) -> Result<Enrolled, Failure> {
    let channel = client::connect(&target.address, Trust::Pin(pin), None)
        .await
        .map_err(|error| error.into_failure(target))?;
    let session = Session::new(channel, Bearer::new(None, timeout)?, target.clone(), None);
    let request = proto::EnrollRequest {
        token: Some(proto::Secret {
            value: token.expose_str(Exposure::Present).unwrap_or_default().to_owned(),
        }),
        csr_der,
        attributes: attributes.into_iter().collect::<HashMap<_, _>>(),
    };
    let mut answer = session
        .enrollment()
        .enroll(request)
        .await
        .map_err(|status| session.failure(status))?
        .into_inner();
    let runtime_key = answer
        .runtime_key
        .as_mut()
        .map(|secret| std::mem::take(&mut secret.value))
        .unwrap_or_default();
    Ok(Enrolled {
        about: About {
            agent: answer.agent,
            org: answer.org,
            environment: answer.environment,
            address: target.address.clone(),
            certificate_expire_time: answer.certificate_expire_time.map(|time| time.to_string()),
        },
        runtime_key: Secret::from(runtime_key),
        chain_der: answer.certificate_chain_der,
        roots_der: answer.trust_bundle_der,
    })
}
