//! `credbroker context`: which brokers this user knows, and the one that is meant when none is named.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::cli::context::{self, Context, ContextError};
use crate::cli::error::Failure;
use crate::cli::pin::Pin;
use crate::cli::render::{self, Field, ListArgs, Resource};
use crate::cli::{client, input};
use crate::domain::secret::{ActorToken, Exposure, Secret};

/// What is done with contexts.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Add a context. The first becomes the current one.
    Add(AddArgs),
    /// Make a context the current one.
    Use {
        /// Its name.
        name: String,
    },
    /// List the contexts.
    List(#[command(flatten)] ListArgs),
    /// Forget a context, and the token that is stored with it.
    Remove {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// The new context.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("trust").required(true))]
pub struct AddArgs {
    /// Its name.
    name: String,
    /// The broker's address.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// The hash that the broker's root certificate is recognized by.
    #[arg(long, value_name = "sha256:HEX", group = "trust")]
    ca_pin: Option<Pin>,
    /// The root certificates to trust, PEM.
    #[arg(long, value_name = "FILE", group = "trust")]
    ca_file: Option<PathBuf>,
    /// The org that commands mean when none is named.
    #[arg(long)]
    org: Option<String>,
    /// The file with the token: it is named in the context and stays where it is. Without it the token is read
    /// from standard input, or asked for, and stored with the context.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The folder of the client certificate that an API key has to come with, as 'api-key create --mtls' made it.
    #[arg(long, value_name = "DIR")]
    client_certificate: Option<PathBuf>,
    /// Replace the context of this name.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(action: Action) -> Result<(), Failure> {
    let folder = context::default_folder()?;
    match action {
        Action::Add(args) => add(&folder, args),
        Action::Use { name } => {
            let mut contexts = context::read(&folder)?;
            if !contexts.contexts.contains_key(&name) {
                return Err(ContextError::Unknown(name).into());
            }
            contexts.current = Some(name.clone());
            context::save(&folder, &contexts)?;
            render::print(&format!("{name} is the current context now\n"))
        }
        Action::List(list) => {
            let contexts = context::read(&folder)?;
            let rows: Vec<_> = contexts
                .contexts
                .into_iter()
                .take(list.limit as usize)
                .map(|(name, context)| Row {
                    current: contexts.current.as_ref() == Some(&name),
                    name,
                    context,
                })
                .collect();
            render::print(&render::list(&rows, list.output, render::now()))
        }
        Action::Remove { name, yes } => {
            let consequence = format!("This forgets the context {name} and the token stored with it.");
            input::confirm(&consequence, yes)?;
            context::remove(&folder, &name)?;
            render::print(&format!("removed {name}\n"))
        }
    }
}

fn add(folder: &Path, args: AddArgs) -> Result<(), Failure> {
    if context::read(folder)?.contexts.contains_key(&args.name) && !args.force {
        return Err(
            Failure::usage(format!("there is a context '{}' already", args.name))
                .remedy("Choose another name, or add --force to replace it."),
        );
    }
    let ca_file = args.ca_file.as_deref().map(absolute).transpose()?;
    if let Some(path) = &ca_file {
        client::certificates(path)?;
    }
    let token_file = args.token_file.as_deref().map(absolute).transpose()?;
    let token: Option<Secret<ActorToken>> = match &token_file {
        Some(path) => {
            // Read once, so that a file that cannot be used is told now and not at the first call.
            let _: Secret<ActorToken> = input::secret_in_file(path)?;
            None
        }
        None => Some(input::secret(None, "token")?),
    };
    let context = Context {
        address: args.address,
        ca_pin: args.ca_pin.map(|pin| pin.to_string()),
        ca_file,
        token_file,
        client_certificate: args.client_certificate.as_deref().map(absolute).transpose()?,
        org: args.org,
        login: None,
    };
    let token = token
        .as_ref()
        .and_then(|token| token.expose_str(Exposure::Present));
    context::write(folder, &args.name, context, token)?;
    let current = context::read(folder)?.current;
    let how = match current.as_deref() {
        Some(current) if current == args.name => "it is the current one".to_owned(),
        _ => format!(
            "make it the current one with 'credbroker context use {}'",
            args.name
        ),
    };
    render::print(&format!("added {}: {how}\n", args.name))
}

/// A path that means the same from every folder.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("cannot use the path {}: {error}", path.display())))
}

struct Row {
    current: bool,
    name: String,
    context: Context,
}

impl Resource for Row {
    const COLUMNS: &'static [&'static str] = &["name", "current", "address", "org"];

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let path = |path: &Option<PathBuf>| {
            Field::Text(
                path.as_ref()
                    .map(|path| path.display().to_string())
                    .unwrap_or_default(),
            )
        };
        let text = |text: &Option<String>| Field::Text(text.clone().unwrap_or_default());
        vec![
            ("name", Field::Text(self.name.clone())),
            ("current", Field::Flag(self.current)),
            ("address", Field::Text(self.context.address.clone())),
            ("ca_pin", text(&self.context.ca_pin)),
            ("ca_file", path(&self.context.ca_file)),
            ("token_file", path(&self.context.token_file)),
            ("org", text(&self.context.org)),
        ]
    }

    fn handle(&self) -> String {
        self.name.clone()
    }
}
