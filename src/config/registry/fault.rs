//! What can be wrong with the registry, told with the file, the key and the remedy.

use crate::domain::matrix::MalformedPattern;
use crate::domain::mode::{AuthMode, CredentialKind};
use crate::domain::name::MalformedName;
use crate::domain::pool::PoolFault;
use crate::upstream::base_url::BadBaseUrl;

/// The most entries of a list or table.
pub(super) const MAX_ENTRIES: usize = 64;
/// The longest title, prefix or model name, in bytes.
pub(super) const MAX_TEXT: usize = 128;

/// What is wrong with the registry, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {key}{}{fault}", if key.is_empty() { "" } else { ": " })]
pub struct RegistryError {
    /// The file that has to be changed.
    pub file: String,
    /// The key at fault, from the root; empty where it is the whole file.
    pub key: String,
    /// What is wrong, and the remedy.
    pub fault: RegistryFault,
}

/// What can be wrong with the registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryFault {
    /// Not TOML, an unknown key, a missing key, or a value of the wrong type.
    #[error("{0}")]
    Form(String),
    /// The name is no name.
    #[error("{0}; rename it")]
    BadName(MalformedName),
    /// No such provider.
    #[error("there is no provider {0}; add [providers.{0}], or mend the name")]
    UnknownProvider(String),
    /// No such mode.
    #[error("there is no mode {0}; the modes are oauth, byok, metered, shared, host-session and local")]
    UnknownMode(String),
    /// No such kind.
    #[error("there is no kind {0}; the kinds are oauth-grant, api-key, aws and bedrock-bearer")]
    UnknownKind(String),
    /// The native provider is not among those it can use.
    #[error("{0} is not among this executor's providers; add it there")]
    NativeNotUsable(String),
    /// Nothing, or too much of it.
    #[error("is empty, or has more than {MAX_ENTRIES} entries; mend it")]
    BadCount,
    /// Empty, too long, or with characters that do not belong there.
    #[error("is empty, longer than {MAX_TEXT} bytes or not printable; mend it")]
    BadText,
    /// No pattern of models.
    #[error("{0:?}: {1}; mend it")]
    BadPattern(String, MalformedPattern),
    /// No base URL.
    #[error("{0}")]
    BadUrl(BadBaseUrl),
    /// Kinds for a provider without credentials.
    #[error(
        "a provider with credential = \"none\" takes no kind; remove them, or set credential = \"required\""
    )]
    KindsWithoutCredential,
    /// No kinds for a provider with credentials.
    #[error("is empty; name what the provider takes, or set credential = \"none\"")]
    NoKinds,
    /// A mode that hands out what the provider does not take.
    #[error("mode {} needs {needs}; add one to the kinds of {provider}, or remove the mode", .mode.name())]
    ModeWithoutKind {
        /// The mode.
        mode: AuthMode,
        /// What the provider would have to take.
        needs: &'static str,
        /// The provider.
        provider: String,
    },
    /// A mode that hands out a credential, for a provider that takes none.
    #[error(
        "{provider} takes no credential, so that only mode local fits; remove {}, or set credential = \"required\" \
         for {provider}",
        .mode.name()
    )]
    ModeWithCredential {
        /// The mode.
        mode: AuthMode,
        /// The provider.
        provider: String,
    },
    /// The program's own session, elsewhere than where the program signs in.
    #[error(
        "host-session is the program's own sign-in, which is at its native provider {native}; remove it here"
    )]
    HostSessionElsewhere {
        /// The native provider.
        native: String,
    },
    /// Another name for a model that nobody has.
    #[error(
        "{0} is among the `models` of no other provider; mend the name, or add it to the models of the provider that \
         calls it so"
    )]
    UnknownModel(String),
    /// A test of what the provider does not take.
    #[error("{} is not among the provider's kinds; add it there, or remove the test", .0.name())]
    TestOfOtherKind(CredentialKind),
    /// A way of presenting that does not go with the kind.
    #[error(
        "{auth:?} does not go with the kind {}; write {}", .kind.name(),
        if *.kind == CredentialKind::Aws { "\"sigv4\"" } else { "\"bearer\", \"x-api-key\" or \"x-goog-api-key\"" }
    )]
    BadPresentation {
        /// The kind.
        kind: CredentialKind,
        /// What was written.
        auth: String,
    },
    /// A region in the address of what has none.
    #[error("a credential of kind {} has no region; write the host without {{region}}", .0.name())]
    NoRegion(CredentialKind),
    /// A header that a test may not send.
    #[error(
        "is no header that a test may send: credentials and what the broker says of itself are not set here; remove it"
    )]
    BadHeader,
    /// No status of HTTP.
    #[error("{0} is no status of HTTP; write 100 to 599")]
    BadStatus(u16),
    /// What no answer can mean.
    #[error(
        "there is no {0:?}; an answer means works, rejected, not-permitted, limited, billing, unreachable or unclear"
    )]
    UnknownMeaning(String),
    /// The defaults of the pools.
    #[error("{0}")]
    Pools(PoolFault),
}

pub(super) fn error(file: &str, key: impl Into<String>, fault: RegistryFault) -> RegistryError {
    RegistryError {
        file: file.to_owned(),
        key: key.into(),
        fault,
    }
}

pub(super) fn form(file: &str, key: impl Into<String>, e: &toml::de::Error) -> RegistryError {
    error(file, key, RegistryFault::Form(e.to_string().trim().to_owned()))
}
