//! One provider's table, checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use super::check::{count, name, text};
use super::fault::{RegistryError, RegistryFault, error, form};
use super::key_test::key_test;
use crate::domain::executor::{Expectation, Provider};
use crate::domain::key_shape::{Alphabet, KeyShape, KeyUse};
use crate::domain::mode::CredentialKind;
use crate::upstream::base_url::checked_provider_url;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    title: String,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    credential: RawExpectation,
    base_url: Option<String>,
    #[serde(default)]
    models: Vec<String>,
    #[serde(default)]
    model_ids: BTreeMap<String, String>,
    #[serde(default)]
    key_shapes: Vec<RawShape>,
    #[serde(default)]
    test: BTreeMap<String, Table>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawExpectation {
    #[default]
    Required,
    None,
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

/// The provider `called` in `table`, and the shapes of its keys. `own` is what `file` itself says of it.
pub(super) fn provider(
    file: &str,
    called: &str,
    table: Table,
    own: Option<&Table>,
) -> Result<(Provider, Vec<KeyShape>), RegistryError> {
    let key = format!("providers.{called}");
    let at = |part: &str| format!("{key}.{part}");
    let name = name(file, &key, called)?;
    let raw: Raw = table.try_into().map_err(|e| form(file, &key, &e))?;
    text(file, || at("title"), &raw.title)?;
    let credential = match raw.credential {
        RawExpectation::Required => Expectation::Required,
        RawExpectation::None => Expectation::None,
    };
    let kinds = kinds(&raw.kinds, credential).map_err(|fault| error(file, at("kinds"), fault))?;
    let base_url = raw.base_url.as_deref().map(checked_provider_url).transpose();
    let base_url = base_url.map_err(|bad| error(file, at("base_url"), RegistryFault::BadUrl(bad)))?;
    if !raw.models.is_empty() {
        count(file, || at("models"), raw.models.len())?;
    }
    let models = raw.models.iter().map(|text| {
        let bad = |fault| RegistryFault::BadPattern(text.clone(), fault);
        text.parse()
            .map_err(|fault| error(file, at("models"), bad(fault)))
    });
    let models = models.collect::<Result<_, _>>()?;
    if !raw.model_ids.is_empty() {
        count(file, || at("model_ids"), raw.model_ids.len())?;
    }
    for (model, id) in &raw.model_ids {
        let place = || format!("{key}.model_ids.{model:?}");
        text(file, place, model)?;
        text(file, place, id)?;
    }
    let mut shapes = Vec::with_capacity(raw.key_shapes.len());
    for shape in raw.key_shapes {
        text(file, || at("key_shapes.prefix"), &shape.prefix)?;
        shapes.push(key_shape(called, shape));
    }
    let own_tests = own.and_then(|own| own.get("test")).and_then(Value::as_table);
    let mut tests = Vec::new();
    for (called, table) in raw.test {
        let place = at(&format!("test.{called}"));
        let own = own_tests.is_some_and(|own| own.contains_key(&called));
        let kind = kind_of(&called).ok_or_else(|| error(file, &place, RegistryFault::UnknownKind(called)))?;
        if kinds.contains(&kind) {
            tests.push((kind, key_test(file, &place, kind, table)?));
        } else if own {
            return Err(error(file, place, RegistryFault::TestOfOtherKind(kind)));
        }
        // A test that the file is laid over goes with its kind: the file could not remove it.
    }
    let provider = Provider {
        name,
        title: raw.title,
        kinds,
        credential,
        base_url,
        models,
        model_ids: raw.model_ids,
        tests,
    };
    Ok((provider, shapes))
}

fn kinds(names: &[String], credential: Expectation) -> Result<Vec<CredentialKind>, RegistryFault> {
    match (credential, names.len()) {
        (Expectation::None, 0) => Ok(Vec::new()),
        (Expectation::None, _) => Err(RegistryFault::KindsWithoutCredential),
        (Expectation::Required, 0) => Err(RegistryFault::NoKinds),
        (Expectation::Required, _) => names
            .iter()
            .map(|kind| kind_of(kind).ok_or_else(|| RegistryFault::UnknownKind(kind.clone())))
            .collect(),
    }
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
