//! What shows whether a provider's credentials of one kind work, checked.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;

use super::check::{count, text};
use super::fault::{RegistryError, RegistryFault, error, form};
use crate::domain::key_test::{KeyTest, Meaning, Presentation, REGION, Verdict};
use crate::domain::mode::CredentialKind;
use crate::upstream::base_url::check_request_url;
use crate::upstream::key_test::may_send;

/// What stands for the region while a URL is checked.
const SOME_REGION: &str = "us-east-1";
/// The service that AWS keys are tested at, where nothing else is said.
const STS: &str = "sts";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: String,
    #[serde(default)]
    regional_urls: BTreeMap<String, String>,
    auth: String,
    service: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    answers: Vec<RawMeaning>,
    #[serde(default)]
    facts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMeaning {
    status: u16,
    word: Option<String>,
    means: String,
}

/// The test in `table`, which stands at `key`, for credentials of `kind`.
pub(super) fn key_test(
    file: &str,
    key: &str,
    kind: CredentialKind,
    table: Table,
) -> Result<KeyTest, RegistryError> {
    let at = |part: &str| format!("{key}.{part}");
    let fail = |part: &str, fault| error(file, at(part), fault);
    let raw: Raw = table.try_into().map_err(|e| form(file, key, &e))?;
    url(kind, &raw.url).map_err(|fault| fail("url", fault))?;
    for (begin, regional) in &raw.regional_urls {
        let part = format!("regional_urls.{begin:?}");
        text(file, || at(&part), begin)?;
        url(kind, regional).map_err(|fault| fail(&part, fault))?;
    }
    for (name, value) in &raw.headers {
        if !may_send(name, value) {
            return Err(fail(&format!("headers.{name:?}"), RegistryFault::BadHeader));
        }
    }
    for begin in &raw.facts {
        text(file, || at("facts"), begin)?;
    }
    let lists = [
        ("regional_urls", raw.regional_urls.len()),
        ("headers", raw.headers.len()),
        ("answers", raw.answers.len()),
        ("facts", raw.facts.len()),
    ];
    for (part, entries) in lists {
        // None is as good as no key.
        count(file, || at(part), entries.max(1))?;
    }
    let auth = presentation(kind, &raw).map_err(|fault| fail("auth", fault))?;
    if let Some(service) = &raw.service {
        text(file, || at("service"), service)?;
    }
    let answers = raw.answers.into_iter().map(|raw| {
        let part = "answers";
        if !(100..=599).contains(&raw.status) {
            return Err(fail(part, RegistryFault::BadStatus(raw.status)));
        }
        if let Some(word) = &raw.word {
            text(file, || at("answers.word"), word)?;
        }
        // That nothing was sent is no answer.
        let means = Verdict::from_name(&raw.means).filter(|means| *means != Verdict::Untestable);
        Ok(Meaning {
            status: raw.status,
            word: raw.word,
            means: means.ok_or_else(|| fail(part, RegistryFault::UnknownMeaning(raw.means)))?,
        })
    });
    Ok(KeyTest {
        answers: answers.collect::<Result<_, _>>()?,
        url: raw.url,
        regional: raw.regional_urls.into_iter().collect(),
        auth,
        headers: raw.headers.into_iter().collect(),
        // Names of headers are compared in lower case.
        facts: raw.facts.iter().map(|begin| begin.to_ascii_lowercase()).collect(),
    })
}

fn presentation(kind: CredentialKind, raw: &Raw) -> Result<Presentation, RegistryFault> {
    let aws = kind == CredentialKind::Aws;
    match raw.auth.as_str() {
        "sigv4" if aws => Ok(Presentation::Sigv4 {
            service: raw.service.clone().unwrap_or_else(|| STS.to_owned()),
        }),
        "bearer" if !aws => Ok(Presentation::Bearer),
        "x-api-key" if !aws => Ok(Presentation::Header("x-api-key")),
        "x-goog-api-key" if !aws => Ok(Presentation::Header("x-goog-api-key")),
        auth => Err(RegistryFault::BadPresentation {
            kind,
            auth: auth.to_owned(),
        }),
    }
}

/// Where a secret is sent: over https, or to this machine.
fn url(kind: CredentialKind, text: &str) -> Result<(), RegistryFault> {
    let regional = matches!(kind, CredentialKind::Aws | CredentialKind::BedrockBearer);
    if text.contains(REGION) && !regional {
        return Err(RegistryFault::NoRegion(kind));
    }
    check_request_url(&text.replace(REGION, SOME_REGION)).map_err(RegistryFault::BadUrl)
}
