//! `credbrokerd`: init, serve, check, recover-operator, dev, version.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::SignalKind;

use super::error::DaemonError;
use super::folder::{initialize, initialized};
use super::process::{harden, on, say, stop_signal};
use super::{App, Inputs, managed_keys, settings};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::dev;
use crate::domain::secret::Exposure;
use crate::telemetry::{self, TelemetryHandle};

/// The credential broker.
#[derive(Debug, Parser)]
#[command(name = "credbrokerd", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a broker: its keys, its CA, its first operator. Prints the operator's token once.
    Init(InitArgs),
    /// Serve, in the foreground. SIGTERM drains and stops, SIGHUP reloads.
    Serve(ConfigArgs),
    /// Read a configuration and the files it names, and start nothing.
    Check(ConfigArgs),
    /// Make a new system admin where the operator tokens are lost or have leaked, while the broker is stopped. Prints
    /// the new token once.
    RecoverOperator(RecoverArgs),
    /// A whole broker on loopback to try things with: demo org, demo OAuth server, ready context.
    Dev(dev::DevArgs),
    /// Show the version.
    Version,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file. Without it the defaults hold.
    #[arg(long, value_name = "FILE", env = "CREDBROKER_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// The data folder; over what the configuration says.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct RecoverArgs {
    /// The data folder; over what the configuration says.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Also revoke the tokens of all other operators who are no members of an org: where one has leaked.
    #[arg(long)]
    revoke_others: bool,
    /// How long the new token is good for: 1 minute to 365 days.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "90d")]
    ttl: Duration,
    #[command(flatten)]
    config: ConfigArgs,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, DaemonError> {
        let env = |name: &str| std::env::var(name).ok();
        Ok(match &self.config {
            Some(path) => Config::load(path, &env)?,
            None => Config::parse("", &PathBuf::from("credbrokerd.toml"), &env)?,
        })
    }
}

/// Runs `credbrokerd` with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            return fail(&DaemonError::System {
                what: "the runtime does not start",
                source,
            });
        }
    };
    if let Err(source) = harden() {
        return fail(&DaemonError::System {
            what: "core dumps cannot be switched off",
            source,
        });
    }
    let done = runtime.block_on(async {
        match cli.command {
            Command::Init(args) => init(args).await,
            Command::Serve(args) => serve(args).await,
            Command::Check(args) => check(&args),
            Command::RecoverOperator(args) => recover_operator(args).await,
            Command::Dev(args) => dev::run(args).await,
            Command::Version => {
                say(concat!("credbrokerd ", env!("CARGO_PKG_VERSION")));
                Ok(())
            }
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a person has to see why it did not start, with or without a log"
)]
fn fail(error: &DaemonError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn init(args: InitArgs) -> Result<(), DaemonError> {
    let mut config = args.config.load()?;
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let folder = config.data_dir.clone();
    // An init that was cut off before it could show the operator's token is taken up again.
    let begun = initialized(&folder);
    if !begun {
        initialize(&config, &clock).await?;
    }
    let app = App::open(Inputs::load(config)?).await?;
    if begun && app.broker().has_operator().await? {
        app.close().await;
        return Err(DaemonError::AlreadyInitialized(folder));
    }
    let token = app.broker().create_operator("first operator").await?;
    let pin = app.broker().authority().ca_pin().to_owned();
    app.close().await;
    say(&format!("Made a broker in {}.", folder.display()));
    say(&format!("Clients pin its CA:  --ca-pin {pin}"));
    say("The first operator's token, good for 365 days, shown this once:");
    say(token.expose_str(Exposure::ShowOnce).unwrap_or_default());
    say("Keep master.key apart from the backups of the rest: together they are everything.");
    Ok(())
}

async fn recover_operator(args: RecoverArgs) -> Result<(), DaemonError> {
    let mut config = args.config.load()?;
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    let app = App::open(Inputs::load(config)?).await?;
    let recovered = app
        .broker()
        .recover_operator(Some(args.ttl), args.revoke_others)
        .await;
    app.close().await;
    let recovered = recovered?;
    say(&format!("Made the system admin {}.", recovered.id));
    if args.revoke_others {
        say(&format!(
            "Revoked the tokens of {} other operators. Those of org members are as they were.",
            recovered.revoked.len()
        ));
    }
    say("Its token, shown this once:");
    say(recovered.token.expose_str(Exposure::ShowOnce).unwrap_or_default());
    Ok(())
}

fn check(args: &ConfigArgs) -> Result<(), DaemonError> {
    let inputs = Inputs::load(args.load()?)?;
    managed_keys::read(&inputs.config, &inputs.registry)?;
    say(&format!(
        "The configuration is good. The broker would listen on {}.",
        inputs.config.listen.address
    ));
    Ok(())
}

async fn serve(args: ConfigArgs) -> Result<(), DaemonError> {
    let config = args.load()?;
    let telemetry = telemetry::init(&config.log)?;
    let app = App::open(Inputs::load(config)?).await?;
    let listener = app.bind().await?;
    // The port that was taken, where the configuration left the choice to the system.
    let address = listener.local_addr().unwrap_or(app.config().listen.address);
    let stopping = stop_signal()?;
    reload_signal(&app, args, telemetry)?;
    tracing::info!(
        %address,
        data_dir = %app.config().data_dir.display(),
        ca_pin = app.broker().authority().ca_pin(),
        "serving"
    );
    app.serve(listener, stopping).await
}

/// At SIGHUP, takes what may change while the broker runs, and says what has to wait for a restart.
fn reload_signal(app: &App, args: ConfigArgs, telemetry: TelemetryHandle) -> Result<(), DaemonError> {
    let mut hangup = on(SignalKind::hangup())?;
    let (broker, mut in_force) = (Arc::clone(app.broker()), app.config().clone());
    let drain = app.drain_limit();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let new = match args.load() {
                Ok(new) => new,
                Err(error) => {
                    tracing::error!(%error, "the configuration was not reloaded");
                    continue;
                }
            };
            let difference = in_force.reloadable_diff(&new);
            // Files are read again also where only what is in them has changed.
            let given = match managed_keys::read(&new, broker.registry()) {
                Ok(given) => given,
                Err(error) => {
                    tracing::error!(%error, "the configuration was not reloaded");
                    continue;
                }
            };
            if let Err(error) = telemetry.set_filter(&new.log.filter) {
                tracing::error!(%error, "the log filter was not reloaded");
            }
            // What waits for a restart stays as it is in force.
            in_force.take_reloadable(&new);
            broker.configure_keys(given);
            broker.reload(settings(&in_force));
            drain.send_replace(in_force.drain.timeout);
            tracing::info!(
                reloaded = ?difference.changed_reloadable,
                needs_restart = ?difference.needs_restart,
                "reloaded the configuration"
            );
        }
    });
    Ok(())
}
