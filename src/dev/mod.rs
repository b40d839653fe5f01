//! `credbrokerd dev`: a whole broker on loopback, with something in it to try.
//!
//! Made of the same parts as any broker. What it adds: a demo OAuth server ([`oauth`]) with its connector,
//! provider and executor, a demo org, an operator whose context is ready, and what to paste next.

pub mod oauth;
mod seed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::context;
use crate::config::Config;
use crate::config::registry::{Extra, load as load_registry};
use crate::daemon::process::{say, stop_signal};
use crate::daemon::{App, DaemonError, Inputs, folder};
use crate::telemetry;
use oauth::{DemoOAuth, DemoOptions};

/// A whole broker on loopback.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where its state is kept between runs.
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Keep nothing: a throw-away folder, removed at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Where the broker listens.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// Where the demo OAuth server listens: a loopback address.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7422")]
    oauth_listen: SocketAddr,
    /// What is logged, on standard error.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// The executor, provider and connector of the demo.
const REGISTRY: &str = r#"
[providers.demo]
title = "The demo provider of credbrokerd dev"
kinds = ["oauth-grant", "api-key"]

[executors.demo-agent]
native_provider = "demo"
providers = { demo = ["oauth", "byok"] }
"#;

fn connector(demo: &DemoOAuth) -> String {
    // The demo's tokens live for seconds, so they are refreshed a second ahead.
    format!(
        "[connectors.demo]\nprovider = \"demo\"\ntoken_url = {:?}\nauthorize_url = {:?}\n\
         device_authorization_url = {:?}\nrevoke_url = {:?}\nclient_id = \"credbroker-dev\"\n\
         client_auth = \"none\"\nrotates = true\nlead_seconds = 1\n\
         redirects = [{{ kind = \"paste\", url = {:?}, code = \"code-and-state\" }}, \
         {{ kind = \"loopback\", host = \"127.0.0.1\", ports = [], path = \"/callback\" }}]\n\
         account = [{{ label = \"email\", from = \"answer\", pointer = \"/account/email\" }}, \
         {{ label = \"plan\", from = \"answer\", pointer = \"/account/plan\" }}]\n",
        demo.token_url(),
        demo.url("/authorize"),
        demo.url("/device_authorization"),
        demo.url("/revoke"),
        demo.url("/code"),
    )
}

/// A folder that is removed when it goes out of scope.
struct Throwaway(PathBuf);

impl Drop for Throwaway {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the throw-away folder was not removed");
        }
    }
}

fn throwaway() -> Result<Throwaway, DaemonError> {
    let path = std::env::temp_dir().join(format!("credbroker-dev-{}", std::process::id()));
    match std::fs::create_dir(&path) {
        Ok(()) => Ok(Throwaway(path)),
        Err(source) => Err(DaemonError::File { path, source }),
    }
}

fn default_data_dir() -> Result<PathBuf, DaemonError> {
    use etcetera::BaseStrategy as _;
    let base = etcetera::choose_base_strategy().map_err(|_| DaemonError::System {
        what: "no home folder: name one with --data-dir",
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    Ok(base.data_dir().join("credbroker").join("dev"))
}

/// Runs until it is stopped.
pub async fn run(args: DevArgs) -> Result<(), DaemonError> {
    for (address, flag) in [(args.listen, "--listen"), (args.oauth_listen, "--oauth-listen")] {
        if !address.ip().is_loopback() {
            return Err(DaemonError::DevNotLoopback { address, flag });
        }
    }
    let ephemeral = if args.ephemeral { Some(throwaway()?) } else { None };
    let data_dir = match (&ephemeral, args.data_dir) {
        (Some(folder), _) => folder.0.join("data"),
        (None, Some(data_dir)) => data_dir,
        (None, None) => default_data_dir()?,
    };
    let mut config = Config::parse("", Path::new("dev"), &|_| None)?;
    config.data_dir = std::path::absolute(&data_dir).map_err(|source| DaemonError::File {
        path: data_dir,
        source,
    })?;
    config.listen.address = args.listen;
    config.log.format = crate::config::LogFormat::Pretty;
    config.log.filter = args.log;
    telemetry::init(&config.log)?;

    let demo = DemoOAuth::start(args.oauth_listen, DemoOptions::default())
        .await
        .map_err(|source| DaemonError::DevBind {
            what: "demo OAuth server",
            address: args.oauth_listen,
            flag: "--oauth-listen",
            source,
        })?;
    let mut inputs = Inputs::load(config)?;
    inputs.registry = load_registry(&[Extra {
        file: "dev",
        text: REGISTRY,
    }])?;
    inputs.connectors = inputs.connectors.with_file("dev", &connector(&demo), &[])?;
    if !folder::initialized(&inputs.config.data_dir) {
        folder::initialize(&inputs.config, &inputs.clock).await?;
    }
    let app = App::open(inputs).await?;
    let listener = app.bind().await.map_err(|error| match error {
        DaemonError::Bind { address, source } => DaemonError::DevBind {
            what: "broker",
            address,
            flag: "--listen",
            source,
        },
        other => other,
    })?;
    let address = listener.local_addr().map_err(|source| DaemonError::Bind {
        address: args.listen,
        source,
    })?;
    let seeded = seed::seed(&app).await?;

    let contexts = context::default_folder()?;
    let pin = app.broker().authority().ca_pin().to_owned();
    let ready = context::Context {
        address: address.to_string(),
        ca_pin: Some(pin.clone()),
        org: Some(seed::ORG.to_owned()),
        ..context::Context::default()
    };
    context::write(&contexts, "dev", ready, Some(&seeded.operator_token))?;
    let current = context::read(&contexts)?.current;
    let context = if current.as_deref() == Some("dev") {
        ""
    } else {
        " --context dev"
    };
    let paste = Paste {
        address,
        pin: &pin,
        oauth: demo.addr(),
        context,
        folder: &app.config().data_dir,
    };
    say(&paste.text(&seeded));

    let stopping = stop_signal()?;
    let served = app.serve(listener, stopping).await;
    demo.shutdown().await;
    drop(ephemeral);
    served
}

/// What to paste in another terminal.
struct Paste<'a> {
    address: SocketAddr,
    pin: &'a str,
    oauth: SocketAddr,
    context: &'a str,
    folder: &'a Path,
}

impl Paste<'_> {
    fn text(&self, seeded: &seed::Seeded) -> String {
        let Paste {
            address,
            pin,
            oauth,
            context,
            folder,
        } = self;
        let program = program();
        let (token, identity) = (quoted(&seeded.enrollment_token), quoted(&folder.join("agent")));
        format!(
            "\
credbrokerd dev is ready on {address}; its state is in {}.
The demo OAuth server is on http://{oauth}. Context `dev` is ready for the credbroker command.

Paste these in another terminal:

  # eight agents, one expiry, one refresh; and the same without a broker
  {program} demo --oauth http://{oauth}

  # become an agent, with the enrollment token made for this start
  {program} enroll --address {address} --ca-pin {pin} --token-file {token} --identity {identity} --force

  # store a key for the demo member, then get it as the agent
  echo not-a-real-key-0123456789 | {program} credential set{context} --provider demo --member {}
  {program} resolve --identity {identity}

Stop with Ctrl-C.",
            folder.display(),
            seed::MEMBER,
        )
    }
}

/// The `credbroker` beside this program, as short as it can be typed.
fn program() -> String {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("credbroker")));
    let Some(path) = beside.filter(|path| path.exists()) else {
        return "credbroker".to_owned();
    };
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    quoted(&short.unwrap_or(path))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
