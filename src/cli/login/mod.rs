//! `credbroker login` and `logout`: a person signs in at an identity provider that the broker trusts, and the
//! context keeps what came of it.

mod browser;
mod device;
mod http;
mod issuer;
pub mod session;

use std::path::{Path, PathBuf};

use clap::Args;

use super::client::{self, Bearer, DEFAULT_TIMEOUT, Session, Trust};
use super::context::{self, ConnectionArgs, Context, ContextError, Contexts, Login, Settings, TrustSource};
use super::error::{Failure, Kind};
use super::{loopback, render};
use crate::proto;
use issuer::Provider;
use session::{Store, Tokens};

/// Sign in at the identity provider that the broker trusts, with the browser or on another device.
///
/// The context is made where there is none: give --address and --ca-pin, and --context to name it.
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// The identity provider, where the broker trusts several.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// CA certificates to trust for the identity provider in place of the system's, PEM.
    #[arg(long, value_name = "FILE")]
    issuer_ca_file: Option<PathBuf>,
    /// Sign in on another device: show an address and a code to enter there.
    #[arg(long, conflicts_with = "no_browser")]
    device: bool,
    /// Show the address and open no browser.
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Sign out: take the session back at the identity provider, and forget it here.
#[derive(Args, Debug)]
pub struct LogoutArgs {
    /// The context, in place of the current one.
    #[arg(long, env = "CREDBROKER_CONTEXT", value_name = "NAME")]
    context: Option<String>,
}

/// The context that is made where none is named.
const DEFAULT_CONTEXT: &str = "default";

/// Runs `credbroker login`.
pub async fn login(args: LoginArgs) -> Result<(), Failure> {
    let folder = context::default_folder()?;
    let contexts = context::read(&folder)?;
    let (name, mut context) = chosen(&args.connection, &contexts)?;
    // What is wrong with the broker's address is told before anybody signs in anywhere.
    let settings = settings_of(&name, &context)?;
    let trust = match &settings.trust {
        TrustSource::Pin(pin) => Trust::Pin(*pin),
        TrustSource::File(path) => Trust::Roots(client::certificates(path)?),
    };
    let channel = client::connect(&settings.target.address, trust, None)
        .await
        .map_err(|error| error.into_failure(&settings.target))?;
    let timeout = args.connection.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let session = |bearer: Bearer| {
        Session::new(
            channel.clone(),
            bearer,
            settings.target.clone(),
            settings.org.clone(),
        )
    };
    let login = method(&session(Bearer::new(None, timeout)?), &args).await?;

    let provider = Provider::discover(&login).await?;
    let tokens = sign_in(&provider, &args).await?;
    drop(provider);
    context.login = Some(login);
    let store = Store::of(&folder, &name);
    let lock = store.lock().await?;
    context::write(&folder, &name, context, None)?;
    store.write(&tokens)?;
    drop(lock);

    let bearer = Bearer::new(Some(&tokens.id_token), timeout)?.naming(settings.org.as_deref())?;
    let session = session(bearer);
    let who = session.access().who_am_i(proto::WhoAmIRequest {}).await;
    let who = who.map_err(|status| session.failure(status))?.into_inner();
    render::print(&format!(
        "signed in as {} of {}: context {name}\n",
        who.actor, who.org
    ))
}

/// Which context is signed in to, and what is known of it.
fn chosen(args: &ConnectionArgs, contexts: &Contexts) -> Result<(String, Context), Failure> {
    let trusts = args.ca_pin.is_some() || args.ca_file.is_some();
    let elsewhere = args.address.is_some() && trusts;
    let name = match (&args.context, &contexts.current) {
        (Some(name), _) => name.clone(),
        (None, Some(current)) if !elsewhere => current.clone(),
        _ => DEFAULT_CONTEXT.to_owned(),
    };
    let known = contexts.contexts.get(&name);
    let mut context = known.cloned().unwrap_or_default();
    let in_the_way = if context.token_file.is_some() {
        Some("has a token")
    } else if known.is_some() && args.context.is_none() && elsewhere {
        Some("is there already")
    } else {
        None
    };
    if let Some(why) = in_the_way {
        return Err(Failure::usage(format!("the context {name} {why}"))
            .remedy("Name another with --context, together with --address and --ca-pin."));
    }
    if let Some(address) = &args.address {
        context.address.clone_from(address);
    }
    if trusts {
        context.ca_pin.clone_from(&args.ca_pin);
        context.ca_file = args.ca_file.as_deref().map(absolute).transpose()?;
    }
    if args.org.is_some() {
        context.org.clone_from(&args.org);
    }
    Ok((name, context))
}

fn settings_of(name: &str, context: &Context) -> Result<Settings, ContextError> {
    let contexts = Contexts {
        current: Some(name.to_owned()),
        contexts: [(name.to_owned(), context.clone())].into(),
    };
    Settings::resolve(&ConnectionArgs::default(), &contexts)
}

/// How the broker says that people sign in.
async fn method(session: &Session, args: &LoginArgs) -> Result<Login, Failure> {
    let request = proto::GetLoginConfigurationRequest {};
    let answer = session.access().get_login_configuration(request).await;
    let methods = answer
        .map_err(|status| session.failure(status))?
        .into_inner()
        .methods;
    let wanted = |method: &proto::LoginMethod| args.issuer.as_ref().is_none_or(|url| *url == method.issuer);
    let known: Vec<_> = methods.iter().map(|method| method.issuer.clone()).collect();
    let mut fitting = methods.into_iter().filter(wanted);
    let method = match (fitting.next(), fitting.next()) {
        (Some(method), None) => method,
        (Some(_), Some(_)) => {
            return Err(Failure::usage("the broker trusts several identity providers")
                .because(known.join(", "))
                .remedy("Say which with --issuer.")
                .at(&session.target));
        }
        (None, _) if known.is_empty() => {
            return Err(Failure::new(Kind::Failed, "nobody signs in to this broker by an identity provider")
                .remedy("Its operator configures one under oidc.issuers; or use an operator token: 'credbroker context add'.")
                .at(&session.target));
        }
        (None, _) => {
            return Err(Failure::usage("the broker does not trust this identity provider")
                .because(format!("it trusts {}", known.join(", ")))
                .at(&session.target));
        }
    };
    Ok(Login {
        issuer: method.issuer,
        client_id: method.client_id,
        scopes: method.scopes,
        issuer_ca_file: args.issuer_ca_file.as_deref().map(absolute).transpose()?,
    })
}

/// The way that fits this machine, unless one is asked for.
async fn sign_in(provider: &Provider<'_>, args: &LoginArgs) -> Result<Tokens, Failure> {
    let browser = provider.endpoints.authorization_endpoint.as_deref();
    let device = provider.endpoints.device_authorization_endpoint.as_deref();
    let prefers_device = args.device || (!args.no_browser && !loopback::is_likely());
    match (device, browser) {
        (Some(endpoint), _) if prefers_device => device::sign_in(provider, endpoint).await,
        (_, Some(endpoint)) if !args.device => {
            let open = !args.no_browser && loopback::is_likely();
            browser::sign_in(provider, endpoint, open).await
        }
        _ => Err(Failure::usage(format!(
            "the identity provider {} does not offer this way to sign in",
            provider.login.issuer
        ))
        .remedy("Try with or without --device.")),
    }
}

/// Runs `credbroker logout`.
pub async fn logout(args: LogoutArgs) -> Result<(), Failure> {
    let folder = context::default_folder()?;
    let contexts = context::read(&folder)?;
    let name = args.context.or(contexts.current).ok_or(ContextError::NoAddress)?;
    let context = contexts.contexts.get(&name);
    let context = context.ok_or_else(|| ContextError::Unknown(name.clone()))?;
    let store = Store::of(&folder, &name);
    let _lock = store.lock().await?;
    let (Some(login), Some(tokens)) = (&context.login, store.read()?) else {
        return render::print(&format!("nobody is signed in: context {name}\n"));
    };
    store.remove()?;
    match revoke(login, &tokens).await {
        Ok(true) => {}
        Ok(false) => {
            render::remark("the identity provider keeps the session: it offers no way to take it back")
        }
        Err(failure) => render::remark(&format!("the session could not be taken back: {failure}")),
    }
    render::print(&format!("signed out: context {name}\n"))
}

/// Whether there was anything to take back, and it was.
async fn revoke(login: &Login, tokens: &Tokens) -> Result<bool, Failure> {
    match &tokens.refresh_token {
        Some(token) => Provider::discover(login).await?.revoke(token).await,
        None => Ok(true),
    }
}

/// A path that means the same from every folder.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("cannot use the path {}: {error}", path.display())))
}
