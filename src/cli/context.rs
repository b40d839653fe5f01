//! Contexts: which broker is meant, how it is known, and the caller's token for it.
//!
//! `contexts.toml` in the configuration folder lists them; each token is in a file of its own, mode 0600.
//! Flags win over environment variables, these over the context.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use super::files::{self, FileError};
use super::pin::{MalformedPin, Pin};
use crate::domain::name::{MalformedName, Name};

const FILE: &str = "contexts.toml";
const TOKENS: &str = "tokens";

/// How to reach one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `HOST:PORT`.
    pub address: String,
    /// What the broker's root is recognized by: `sha256:` and 64 hex digits. Wins over `ca_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pin: Option<String>,
    /// The roots to trust, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Where the caller's token is; a file that only its owner can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The folder of the client certificate that an API key has to come with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// The org that commands mean when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Where a person signs in, in place of a token: the tokens of that are in a file of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// Where a person signs in, as the broker told it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The identity provider's URL.
    pub issuer: String,
    /// The client that signs in there.
    pub client_id: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// The roots to trust for the identity provider in place of the system's, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ca_file: Option<PathBuf>,
}

/// All contexts of this user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// Why the contexts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// `contexts.toml` is not what it should be.
    #[error("{} is not valid: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The contexts cannot be written as TOML.
    #[error("the contexts cannot be written: {0}")]
    Unwritable(#[from] toml::ser::Error),
    /// The name is no name.
    #[error("'{0}' cannot name a context: {1}")]
    Name(String, MalformedName),
    /// There is no context of this name.
    #[error("there is no context '{0}'")]
    Unknown(String),
    /// There is no broker to call.
    #[error("no broker is chosen")]
    NoAddress,
    /// Nothing says how to know the broker.
    #[error("nothing says how to recognize the broker at {0}")]
    NoTrust(String),
    /// The pin is no pin.
    #[error("the pin of {0}: {1}")]
    Pin(String, MalformedPin),
    /// The machine does not say where configuration belongs.
    #[error("the home folder of this user is not known")]
    NoHome,
}

impl ContextError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ContextError::File(error) => error.remedy(),
            ContextError::Malformed { .. } | ContextError::Unwritable(_) => {
                "Mend the file, or move it away and add the contexts again.".to_owned()
            }
            ContextError::Name(..) => "Choose another name.".to_owned(),
            ContextError::Unknown(_) => {
                "See 'credbroker context list', or make it with 'credbroker context add'.".to_owned()
            }
            ContextError::NoAddress => "Add a context with 'credbroker context add', or give --address and \
                --ca-pin. To try it out, run 'credbrokerd dev': it makes the context 'dev'."
                .to_owned(),
            ContextError::NoTrust(_) | ContextError::Pin(..) => {
                "Give --ca-pin sha256:… as the broker's operator tells it, or --ca-file.".to_owned()
            }
            ContextError::NoHome => "Set CREDBROKER_CONFIG_DIR.".to_owned(),
        }
    }
}

/// The configuration folder: `CREDBROKER_CONFIG_DIR`, otherwise `credbroker` under the XDG one.
pub fn default_folder() -> Result<PathBuf, ContextError> {
    if let Some(folder) = std::env::var_os("CREDBROKER_CONFIG_DIR").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    etcetera::choose_base_strategy()
        .map(|strategy| strategy.config_dir().join("credbroker"))
        .map_err(|_| ContextError::NoHome)
}

/// Reads the contexts in `folder`; none where there is no file.
pub fn read(folder: &Path) -> Result<Contexts, ContextError> {
    let path = folder.join(FILE);
    let text = match files::read_text(&path) {
        Err(error) if error.is_missing() => return Ok(Contexts::default()),
        other => other?,
    };
    toml::from_str(&text).map_err(|error| ContextError::Malformed {
        path,
        message: error.message().to_owned(),
    })
}

/// Replaces the contexts in `folder`.
pub fn save(folder: &Path, contexts: &Contexts) -> Result<(), ContextError> {
    files::private_folder(folder)?;
    let text = toml::to_string(contexts)?;
    Ok(files::write_private(&folder.join(FILE), text.as_bytes())?)
}

/// Where the tokens of a context that was signed in to are.
pub fn session_file(folder: &Path, name: &str) -> PathBuf {
    // No name of a context has a point in it, so this is no context's token.
    folder.join(TOKENS).join(format!("{name}.session"))
}

/// Adds the context `name` to those in `folder`, or replaces it. A `token` is stored in a file of its own,
/// mode 0600, which the context then names. Becomes the current context where there is none.
pub fn write(
    folder: &Path,
    name: &str,
    mut context: Context,
    token: Option<&str>,
) -> Result<(), ContextError> {
    let name: Name = name
        .parse()
        .map_err(|malformed| ContextError::Name(name.to_owned(), malformed))?;
    if let Some(token) = token {
        let tokens = folder.join(TOKENS);
        files::exclusive_folder(&tokens)?;
        let path = tokens.join(name.as_str());
        files::write_private(&path, token.as_bytes())?;
        context.token_file = Some(path);
    }
    if context.login.is_none() {
        files::remove_if_there(&session_file(folder, name.as_str()))?;
    }
    let mut contexts = read(folder)?;
    contexts.contexts.insert(name.to_string(), context);
    if contexts.current.is_none() {
        contexts.current = Some(name.to_string());
    }
    save(folder, &contexts)
}

/// Forgets a context, and its token where that is stored in `folder`.
pub fn remove(folder: &Path, name: &str) -> Result<(), ContextError> {
    let mut contexts = read(folder)?;
    let context = contexts
        .contexts
        .remove(name)
        .ok_or_else(|| ContextError::Unknown(name.to_owned()))?;
    if contexts.current.as_deref() == Some(name) {
        contexts.current = None;
    }
    save(folder, &contexts)?;
    files::remove_if_there(&session_file(folder, name))?;
    match context.token_file {
        // A token that the user keeps elsewhere is the user's.
        Some(path) if path == folder.join(TOKENS).join(name) => Ok(files::remove(&path)?),
        _ => Ok(()),
    }
}

/// Which broker a command talks to, as error messages tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The context, where one was used.
    pub context: Option<String>,
    /// `HOST:PORT`.
    pub address: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)?;
        match &self.context {
            Some(name) => write!(f, " (context {name})"),
            None => Ok(()),
        }
    }
}

/// What every command takes that calls the broker with a token. It stands last in a command's arguments: its heading is
/// above all that follow.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection (a flag wins over the environment, that over the context)")]
pub struct ConnectionArgs {
    /// The context to use, in place of the current one.
    #[arg(long, global = true, env = "CREDBROKER_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The broker's address.
    #[arg(long, global = true, env = "CREDBROKER_ADDRESS", value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// The hash that the broker's root certificate is recognized by.
    #[arg(long, global = true, env = "CREDBROKER_CA_PIN", value_name = "sha256:HEX")]
    pub ca_pin: Option<String>,
    /// The root certificates to trust, PEM.
    #[arg(
        long,
        global = true,
        env = "CREDBROKER_CA_FILE",
        value_name = "FILE",
        conflicts_with = "ca_pin"
    )]
    pub ca_file: Option<PathBuf>,
    /// The file with the operator token or API key; readable by its owner only.
    #[arg(long, global = true, env = "CREDBROKER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The folder of the client certificate that an API key has to come with, as 'api-key create --mtls' made it.
    #[arg(
        long,
        global = true,
        env = "CREDBROKER_CLIENT_CERTIFICATE",
        value_name = "DIR"
    )]
    pub client_certificate: Option<PathBuf>,
    /// The org: id or name.
    #[arg(long, global = true, env = "CREDBROKER_ORG", value_name = "ORG")]
    pub org: Option<String>,
    /// How long to wait for each answer.
    #[arg(long, global = true, env = "CREDBROKER_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// How the broker is recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustSource {
    /// By the hash of its root's public key.
    Pin(Pin),
    /// By the roots in a file.
    File(PathBuf),
}

/// What a command goes by, once flags, environment and context are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which broker.
    pub target: Target,
    /// How it is recognized.
    pub trust: TrustSource,
    /// Where the caller's token is.
    pub token_file: Option<PathBuf>,
    /// Where the caller signed in, if there is no token.
    pub login: Option<Login>,
    /// Where the client certificate is that an API key has to come with.
    pub client_certificate: Option<PathBuf>,
    /// The org that is meant when none is named.
    pub org: Option<String>,
}

impl Settings {
    /// Puts the arguments (which hold the environment already) and the contexts together.
    pub fn resolve(args: &ConnectionArgs, contexts: &Contexts) -> Result<Settings, ContextError> {
        let name = args.context.clone().or_else(|| {
            // An address with its own trust is another broker: the current context's token is not for it,
            // unless that context was asked for. With the address alone, the context's roots vouch for it.
            let elsewhere = args.address.is_some() && (args.ca_pin.is_some() || args.ca_file.is_some());
            contexts.current.clone().filter(|_| !elsewhere)
        });
        let context = match &name {
            Some(name) => contexts
                .contexts
                .get(name)
                .cloned()
                .ok_or_else(|| ContextError::Unknown(name.clone()))?,
            None => Context::default(),
        };
        let address = args.address.clone().unwrap_or(context.address);
        if address.is_empty() {
            return Err(ContextError::NoAddress);
        }
        let pin = |text: &str| {
            text.parse::<Pin>()
                .map(TrustSource::Pin)
                .map_err(|malformed| ContextError::Pin(address.clone(), malformed))
        };
        let trust = match (&args.ca_pin, &args.ca_file, &context.ca_pin, context.ca_file) {
            (Some(text), ..) => pin(text)?,
            (None, Some(file), ..) => TrustSource::File(file.clone()),
            (None, None, Some(text), _) => pin(text)?,
            (None, None, None, Some(file)) => TrustSource::File(file),
            (None, None, None, None) => return Err(ContextError::NoTrust(address)),
        };
        Ok(Settings {
            target: Target {
                context: name,
                address,
            },
            trust,
            token_file: args.token_file.clone().or(context.token_file),
            login: context.login,
            client_certificate: args.client_certificate.clone().or(context.client_certificate),
            org: args.org.clone().or(context.org),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const PIN_A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const PIN_B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn context() -> Context {
        Context {
            address: "broker:7420".into(),
            ca_pin: Some(PIN_A.into()),
            token_file: Some("/t".into()),
            org: Some("acme".into()),
            ..Context::default()
        }
    }

    fn contexts() -> Contexts {
        Contexts {
            current: Some("prod".into()),
            contexts: BTreeMap::from([("prod".to_owned(), context())]),
        }
    }

    #[test]
    fn arguments_win_over_the_context_one_by_one() {
        let args = ConnectionArgs {
            org: Some("other".into()),
            ca_file: Some("/ca.pem".into()),
            ..ConnectionArgs::default()
        };
        let settings = Settings::resolve(&args, &contexts()).unwrap();
        assert_eq!(settings.org.as_deref(), Some("other"));
        assert_eq!(settings.trust, TrustSource::File("/ca.pem".into()));
        assert_eq!(settings.token_file, Some("/t".into()));
        assert_eq!(settings.target.to_string(), "broker:7420 (context prod)");
    }

    #[test]
    fn another_broker_does_not_get_the_current_contexts_token() {
        let args = ConnectionArgs {
            address: Some("elsewhere:1".into()),
            ca_pin: Some(PIN_B.into()),
            ..ConnectionArgs::default()
        };
        let settings = Settings::resolve(&args, &contexts()).unwrap();
        assert_eq!((settings.token_file, settings.target.context), (None, None));
        let bare = ConnectionArgs { ca_pin: None, ..args };
        let settings = Settings::resolve(&bare, &contexts()).unwrap();
        assert_eq!(settings.trust, TrustSource::Pin(PIN_A.parse().unwrap()));
        assert_eq!(settings.token_file, Some("/t".into()));
        assert!(matches!(
            Settings::resolve(&bare, &Contexts::default()),
            Err(ContextError::NoTrust(_))
        ));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        assert!(matches!(
            Settings::resolve(&ConnectionArgs::default(), &Contexts::default()),
            Err(ContextError::NoAddress)
        ));
        let args = ConnectionArgs {
            context: Some("nope".into()),
            ..ConnectionArgs::default()
        };
        assert!(matches!(
            Settings::resolve(&args, &contexts()),
            Err(ContextError::Unknown(_))
        ));
    }

    #[test]
    fn a_written_context_reads_back_and_its_token_is_apart_and_private() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "dev", context(), Some("cbo_secret")).unwrap();
        write(folder.path(), "second", context(), None).unwrap();
        let read_back = read(folder.path()).unwrap();
        assert_eq!(read_back.current.as_deref(), Some("dev"));
        assert_eq!(read_back.contexts.len(), 2);
        let token_file = read_back.contexts["dev"].token_file.clone().unwrap();
        assert_eq!(&**files::read_private(&token_file).unwrap(), b"cbo_secret");
        assert_eq!(std::fs::metadata(&token_file).unwrap().mode() & 0o777, 0o600);
        let listed = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(!listed.contains("cbo_secret"));

        remove(folder.path(), "dev").unwrap();
        assert!(!token_file.exists());
        assert_eq!(read(folder.path()).unwrap().current, None);
        assert!(matches!(
            remove(folder.path(), "dev"),
            Err(ContextError::Unknown(_))
        ));
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            write(folder.path(), "../evil", context(), Some("t")),
            Err(ContextError::Name(..))
        ));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(FILE),
            "[contexts.dev]\naddress = \"a:1\"\nca_pni = \"x\"\n",
        )
        .unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("ca_pni"), "{error}");
    }
}
