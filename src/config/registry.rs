//! The registry of executors and providers: shipped defaults, and what the configuration adds.
//!
//! The shipped files are `registry/executors.toml` and `registry/providers.toml`. An extra file has the same
//! two tables, `executors` and `providers`; its entries are laid over the shipped ones key by key, so that
//! `[executors.claude-code.providers] mine = ["byok"]` adds one provider to one executor.

use std::collections::{BTreeMap, btree_map};

use serde::Deserialize;
use toml::{Table, Value};

use crate::domain::executor::{Executor, Provider, Registry};
use crate::domain::key_shape::{Alphabet, KeyShape, KeyShapes, KeyUse};
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::name::{MalformedName, Name};

const EXECUTORS: (&str, &str) = (
    "registry/executors.toml",
    include_str!("../../registry/executors.toml"),
);
const PROVIDERS: (&str, &str) = (
    "registry/providers.toml",
    include_str!("../../registry/providers.toml"),
);

/// The longest prefix, title or list.
const MAX: usize = 64;

/// A file with more executors and providers.
#[derive(Clone, Copy, Debug)]
pub struct Extra<'a> {
    /// Its name, for errors.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
}

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
    /// Empty, or too long.
    #[error("is empty, or longer than {MAX}; mend it")]
    BadLength,
}

/// The shipped registry, with `extras` over it in their order.
pub fn load(extras: &[Extra<'_>]) -> Result<Registry, RegistryError> {
    let mut tables = parse(PROVIDERS.0, PROVIDERS.1)?;
    merge(&mut tables, parse(EXECUTORS.0, EXECUTORS.1)?);
    let mut registry = build("registry", tables.clone())?;
    for extra in extras {
        merge(&mut tables, parse(extra.file, extra.text)?);
        registry = build(extra.file, tables.clone())?;
    }
    Ok(registry)
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    #[serde(default)]
    executors: BTreeMap<String, Table>,
    #[serde(default)]
    providers: BTreeMap<String, Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExecutor {
    native_provider: String,
    providers: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    title: String,
    kinds: Vec<String>,
    #[serde(default)]
    key_shapes: Vec<RawShape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShape {
    prefix: String,
    following: Option<usize>,
    #[serde(default = "printable")]
    alphabet: RawAlphabet,
    #[serde(default = "call")]
    usage: RawUse,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawAlphabet {
    Printable,
    Base64url,
    Base32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawUse {
    Call,
    Admin,
    OauthToken,
    AwsKeyId,
    AwsTemporaryKeyId,
}

fn printable() -> RawAlphabet {
    RawAlphabet::Printable
}

fn call() -> RawUse {
    RawUse::Call
}

fn error(file: &str, key: impl Into<String>, fault: RegistryFault) -> RegistryError {
    RegistryError {
        file: file.to_owned(),
        key: key.into(),
        fault,
    }
}

fn form(file: &str, key: impl Into<String>, e: &toml::de::Error) -> RegistryError {
    error(file, key, RegistryFault::Form(e.to_string().trim().to_owned()))
}

fn parse(file: &str, text: &str) -> Result<Sections, RegistryError> {
    toml::from_str(text).map_err(|e| form(file, "", &e))
}

fn merge(base: &mut Sections, over: Sections) {
    for (into, from) in [
        (&mut base.executors, over.executors),
        (&mut base.providers, over.providers),
    ] {
        for (name, table) in from {
            match into.entry(name) {
                btree_map::Entry::Vacant(slot) => {
                    slot.insert(table);
                }
                btree_map::Entry::Occupied(mut slot) => overlay(slot.get_mut(), table),
            }
        }
    }
}

/// Tables are laid over each other key by key; everything else is replaced.
fn overlay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn build(file: &str, sections: Sections) -> Result<Registry, RegistryError> {
    let (mut providers, mut shapes) = (BTreeMap::new(), Vec::new());
    for (text, table) in sections.providers {
        let key = format!("providers.{text}");
        let name = name(file, &key, &text)?;
        let raw: RawProvider = table.try_into().map_err(|e| form(file, &key, &e))?;
        within(file, format!("{key}.title"), raw.title.len())?;
        within(file, format!("{key}.kinds"), raw.kinds.len())?;
        for shape in raw.key_shapes {
            within(file, format!("{key}.key_shapes.prefix"), shape.prefix.len())?;
            shapes.push(key_shape(&text, shape));
        }
        let kinds = raw
            .kinds
            .into_iter()
            .map(|kind| {
                kind_of(&kind).ok_or_else(|| (format!("{key}.kinds"), RegistryFault::UnknownKind(kind)))
            })
            .collect::<Result<_, _>>()
            .map_err(|(key, fault)| error(file, key, fault))?;
        providers.insert(
            text,
            Provider {
                name,
                title: raw.title,
                kinds,
            },
        );
    }
    let mut executors = Vec::new();
    for (text, table) in sections.executors {
        let key = format!("executors.{text}");
        let name = name(file, &key, &text)?;
        let raw: RawExecutor = table.try_into().map_err(|e| form(file, &key, &e))?;
        let mut supported = BTreeMap::new();
        for (provider, modes) in raw.providers {
            let key = format!("{key}.providers.{provider}");
            if !providers.contains_key(&provider) {
                return Err(error(file, key, RegistryFault::UnknownProvider(provider)));
            }
            supported.insert(
                provider,
                modes_of(&modes).map_err(|fault| error(file, key, fault))?,
            );
        }
        if !supported.contains_key(&raw.native_provider) {
            let fault = RegistryFault::NativeNotUsable(raw.native_provider);
            return Err(error(file, format!("{key}.native_provider"), fault));
        }
        executors.push(Executor {
            name,
            native_provider: raw.native_provider,
            providers: supported,
        });
    }
    Ok(Registry::new(
        executors,
        providers.into_values(),
        KeyShapes::new(shapes),
    ))
}

fn name(file: &str, key: &str, text: &str) -> Result<Name, RegistryError> {
    text.parse()
        .map_err(|e| error(file, key, RegistryFault::BadName(e)))
}

fn within(file: &str, key: String, length: usize) -> Result<(), RegistryError> {
    if (1..=MAX).contains(&length) {
        Ok(())
    } else {
        Err(error(file, key, RegistryFault::BadLength))
    }
}

fn modes_of(names: &[String]) -> Result<ModeSet, RegistryFault> {
    names
        .iter()
        .map(|name| AuthMode::from_name(name).ok_or_else(|| RegistryFault::UnknownMode(name.clone())))
        .collect()
}

fn kind_of(name: &str) -> Option<CredentialKind> {
    use CredentialKind as Kind;
    [Kind::OAuthGrant, Kind::ApiKey, Kind::Aws, Kind::BedrockBearer]
        .into_iter()
        .find(|kind| kind.name() == name)
}

fn key_shape(provider: &str, raw: RawShape) -> KeyShape {
    KeyShape {
        provider: provider.to_owned(),
        prefix: raw.prefix,
        following: raw.following,
        alphabet: match raw.alphabet {
            RawAlphabet::Printable => Alphabet::Printable,
            RawAlphabet::Base64url => Alphabet::Base64Url,
            RawAlphabet::Base32 => Alphabet::Base32,
        },
        usage: match raw.usage {
            RawUse::Call => KeyUse::Call,
            RawUse::Admin => KeyUse::Admin,
            RawUse::OauthToken => KeyUse::OAuthToken,
            RawUse::AwsKeyId => KeyUse::AwsKeyId,
            RawUse::AwsTemporaryKeyId => KeyUse::AwsTemporaryKeyId,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::key_shape::ShapeMismatch;

    fn extra(text: &str) -> Result<Registry, RegistryError> {
        load(&[Extra {
            file: "extra.toml",
            text,
        }])
    }

    // req: A3
    #[test]
    fn the_shipped_registry_has_the_promised_modes() {
        let registry = load(&[]).unwrap();
        for executor in ["claude-code", "codex", "gemini-cli"] {
            let native = &registry.executor(executor).unwrap().native_provider;
            let modes = registry.modes(executor, native);
            for mode in [AuthMode::OAuth, AuthMode::Byok, AuthMode::Metered] {
                assert!(modes.contains(mode), "{executor} {}", mode.name());
            }
        }
        assert!(!registry.modes("claude-code", "bedrock").contains(AuthMode::OAuth));
        assert!(registry.modes("codex", "anthropic").is_empty());
        assert!(registry.modes("unknown", "anthropic").is_empty());
    }

    // req: B9
    #[test]
    fn the_shipped_shapes_tell_the_providers_apart() {
        let registry = load(&[]).unwrap();
        let gemini = format!("AIza{}", "a-_".repeat(12).get(..35).unwrap());
        let keys = [
            ("anthropic", "sk-ant-api03-abc"),
            ("openai", "sk-abc"),
            ("openai", "sk-proj-abc"),
            ("openai", "sk-svcacct-abc"),
            ("google", &gemini),
            ("bedrock", "ABSKabcdef"),
            ("bedrock", "bedrock-api-key-abc"),
        ];
        for (provider, key) in keys {
            for stored_for in ["anthropic", "openai", "google", "bedrock"] {
                let checked = registry.check_key(stored_for, key);
                if stored_for == provider {
                    assert_eq!(checked, Ok(()), "{key}");
                } else {
                    assert_eq!(
                        checked.unwrap_err().looks_like(),
                        Some(provider),
                        "{key} for {stored_for}"
                    );
                }
            }
        }
        for id in ["AKIAABCDEFGHIJKLMNOP", "ASIAABCDEFGHIJKLMNOP"] {
            for stored_for in ["anthropic", "openai", "bedrock", "generic"] {
                let refused = registry.check_key(stored_for, id).unwrap_err();
                assert!(matches!(refused, ShapeMismatch::AwsKeyId { .. }), "{stored_for}");
            }
        }
        for token in ["sk-ant-oat01-abc", "sk-ant-ort01-abc"] {
            let refused = registry.check_key("anthropic", token).unwrap_err();
            assert!(matches!(refused, ShapeMismatch::OAuthToken { .. }));
        }
    }

    #[test]
    fn an_extra_file_extends_and_overrides_key_by_key() {
        let registry = extra(
            "[providers.mine]\ntitle = \"Mine\"\nkinds = [\"api-key\"]\n\
             [executors.claude-code.providers]\nmine = [\"byok\"]\nbedrock = []\n\
             [executors.own]\nnative_provider = \"mine\"\nproviders = { mine = [\"local\", \"byok\"] }\n",
        )
        .unwrap();
        assert!(registry.modes("claude-code", "mine").contains(AuthMode::Byok));
        assert!(registry.modes("claude-code", "bedrock").is_empty());
        assert!(
            registry
                .modes("claude-code", "anthropic")
                .contains(AuthMode::OAuth)
        );
        assert!(registry.modes("own", "mine").contains(AuthMode::Local));
    }

    #[test]
    fn errors_name_the_file_and_the_key() {
        let cases = [
            ("x", "extra.toml: "),
            (
                "[executors.e]\nnative_provider = \"anthropic\"\n",
                "executors.e: ",
            ),
            (
                "[executors.codex.providers]\nnobody = [\"byok\"]\n",
                "executors.codex.providers.nobody: there is no provider nobody",
            ),
            (
                "[executors.codex.providers]\nopenai = [\"free\"]\n",
                "executors.codex.providers.openai: there is no mode free",
            ),
            (
                "[executors.codex]\nnative_provider = \"google\"\n",
                "executors.codex.native_provider: ",
            ),
            (
                "[providers.openai]\nkinds = [\"paper\"]\n",
                "providers.openai.kinds: there is no kind paper",
            ),
            ("[providers.openai]\ntitel = \"x\"\n", "unknown field `titel`"),
            (
                "[providers.Mine]\ntitle = \"x\"\nkinds = [\"aws\"]\n",
                "providers.Mine: a name is",
            ),
            ("[other]\n", "unknown field `other`"),
        ];
        for (text, expected) in cases {
            let message = extra(text).unwrap_err().to_string();
            assert!(message.starts_with("extra.toml: "), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}
