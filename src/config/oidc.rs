//! `[[oidc.issuers]]`: each issuer checked, before anything is sent to it or taken from it.

use std::path::Path;
use std::time::Duration;

use super::ConfigError;
use super::raw::{self, Origins};
use crate::domain::id::OrgId;
use crate::domain::name::Name;
use crate::domain::oidc::{self, Algorithm, Issuer};

const KEY: &str = "oidc.issuers";
/// The most entries of one list of an issuer.
const MAX_ENTRIES: usize = 32;
/// The longest client id or scope, in bytes.
const MAX_TEXT: usize = 255;
const MAX_SKEW: Duration = Duration::from_secs(300);

type Fault = (String, &'static str);

/// The issuers. A CA file is relative to `folder`.
pub(super) fn issuers(
    written: &[raw::Issuer],
    folder: &Path,
    origins: &Origins,
) -> Result<Vec<Issuer>, ConfigError> {
    let mut issuers: Vec<Issuer> = Vec::with_capacity(written.len());
    for (number, raw) in (1..).zip(written) {
        let checked = issuer(raw, folder).and_then(|issuer| {
            let again = issuers.iter().any(|other| other.url == issuer.url);
            let twice = || (format!("issuer {} stands twice", issuer.url), "Merge the two.");
            if again { Err(twice()) } else { Ok(issuer) }
        });
        let fault =
            |(problem, remedy): Fault| origins.fault(KEY, format!("entry {number}: {problem}"), remedy);
        issuers.push(checked.map_err(fault)?);
    }
    Ok(issuers)
}

fn issuer(raw: &raw::Issuer, folder: &Path) -> Result<Issuer, Fault> {
    if !oidc::is_issuer(&raw.issuer) {
        return Err((
            "issuer is not the URL of an issuer".to_owned(),
            "Write it as its discovery document does: https (http on this machine only), without query and \
             fragment, at most 200 bytes.",
        ));
    }
    if raw.client_id.is_empty() {
        return Err((
            "client_id is empty".to_owned(),
            "Register credbroker at the issuer as a native, public client, and write its id here.",
        ));
    }
    let mut audiences = vec![raw.client_id.clone()];
    audiences.extend(raw.audiences.iter().filter(|id| **id != raw.client_id).cloned());
    texts("client_id and audiences", &audiences)?;
    texts("scopes", &raw.scopes)?;
    if !raw.scopes.iter().any(|scope| scope == "openid") {
        return Err((
            "scopes is without \"openid\"".to_owned(),
            "Add it: without it there is no ID token.",
        ));
    }
    let is_org = |org: &String| org.parse::<OrgId>().is_ok() || org.parse::<Name>().is_ok();
    if raw.orgs.is_empty() || raw.orgs.len() > MAX_ENTRIES || !raw.orgs.iter().all(is_org) {
        return Err((
            format!("orgs is not a list of 1 to {MAX_ENTRIES} orgs"),
            "Name the orgs, by name or id, whose members it may vouch for.",
        ));
    }
    let algorithms: Option<Vec<_>> = raw.algorithms.iter().map(|name| Algorithm::of(name)).collect();
    let algorithms = algorithms.filter(|all| !all.is_empty()).ok_or_else(|| {
        let names = Algorithm::ALL.map(Algorithm::name).join(", ");
        (
            format!("algorithms is not a list of {names}"),
            "Name those that the issuer signs ID tokens with.",
        )
    })?;
    if raw.clock_skew.0 > MAX_SKEW {
        return Err(("clock_skew is more than 5m".to_owned(), "Set the clocks instead."));
    }
    Ok(Issuer {
        url: raw.issuer.clone(),
        audiences,
        client_id: raw.client_id.clone(),
        orgs: raw.orgs.clone(),
        scopes: raw.scopes.clone(),
        algorithms,
        clock_skew: raw.clock_skew.0,
        ca_file: raw.ca_file.as_ref().map(|path| folder.join(path)),
    })
}

fn texts(what: &str, texts: &[String]) -> Result<(), Fault> {
    let fits = |text: &String| {
        (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if texts.len() <= MAX_ENTRIES && texts.iter().all(fits) {
        return Ok(());
    }
    Err((
        format!("{what}: more than {MAX_ENTRIES} entries, or one that is no printable ASCII text"),
        "Write them as the issuer does.",
    ))
}
