//! Org API keys: minted, listed, rotated, revoked; with a client certificate where one is asked for.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::access::{TOKEN_TTL, TOKEN_TTL_MAX, checked_overlap, checked_ttl};
use super::directory::checked_display_name;
use super::enroll::checked_csr;
use super::live::ended;
use super::page::{Page, PageRequest};
use super::presence::Present;
use super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::directory::{ApiKey, Group, PreviousToken};
use crate::domain::id::{ApiKeyId, OrgId, ProjectId};
use crate::domain::journal::Action;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::time::Time;
use crate::domain::token::{ApiKeyFamily, Token};

use crate::pki::authority::CaError;
use crate::pki::csr::CheckedCsr;
use crate::pki::spiffe::ApiKeySubject;
use crate::store::keys;
use crate::store::model::Home;
use crate::store::record::{Changes, Stored};

/// What a new API key is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewApiKey<'a> {
    /// What people call it.
    pub display_name: &'a str,
    /// How long it is good for; `None`: 90 days.
    pub ttl: Option<Duration>,
    /// The projects it is confined to, ids or names; none: the whole org.
    pub projects: &'a [String],
    /// What it may be used for; none: [`Group::USUAL`].
    pub groups: &'a [Group],
    /// A certificate request; empty: the key needs no certificate.
    pub csr_der: &'a [u8],
}

/// How an API key is rotated.
#[derive(Clone, Copy, Debug)]
pub struct RotateApiKey<'a> {
    /// How long the old one stays good; `None`: an hour.
    pub overlap: Option<Duration>,
    /// How long the new one is good for; `None`: until the old one was to end.
    pub ttl: Option<Duration>,
    /// A certificate request; empty: none.
    pub csr_der: &'a [u8],
}

/// A new API key, with its token.
pub struct MintedApiKey {
    /// What lists show of it.
    pub key: ListedApiKey,
    /// The token, to be shown once.
    pub token: Secret<ActorToken>,
    /// The client certificate and its issuer, DER; empty where none was asked for.
    pub chain_der: Vec<Vec<u8>>,
}

/// An API key, as lists show it.
#[derive(Clone, Debug)]
pub struct ListedApiKey {
    /// The key.
    pub key: Arc<ApiKey>,
    /// When it was last used.
    pub last_used: Option<Time>,
}

const MAX_PROJECTS: usize = 32;

impl Broker {
    /// The client certificate that an API key has to come with. It ends with the key.
    fn issue_for_key(
        &self,
        csr: &CheckedCsr,
        org: OrgId,
        api_key: ApiKeyId,
        expires: Time,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let now = self.now();
        let subject = ApiKeySubject { org, api_key };
        let issued = self
            .authority
            .issue_api_key(csr, subject, now, expires.since(now))
            .map_err(|error: CaError| {
                tracing::error!(%error, "a certificate could not be issued");
                Refusal::new(Reason::Internal, "the certificate could not be issued")
            })?;
        Ok(issued.chain_der)
    }

    async fn projects(&self, org: OrgId, names: &[String]) -> Result<Option<Vec<ProjectId>>, Refusal> {
        if names.len() > MAX_PROJECTS {
            return Err(Refusal::invalid("projects", "projects are at most 32"));
        }
        let mut projects = Vec::with_capacity(names.len());
        for name in names {
            let project = self.project(org, name).await?.value.id;
            if !projects.contains(&project) {
                projects.push(project);
            }
        }
        Ok((!projects.is_empty()).then_some(projects))
    }

    /// Mints an API key.
    pub async fn create_api_key(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        new: NewApiKey<'_>,
    ) -> Result<MintedApiKey, Refusal> {
        let org = self.org_id(caller, org).await?;
        let ttl = checked_ttl(new.ttl, TOKEN_TTL, TOKEN_TTL_MAX)?;
        let csr = optional_csr(new.csr_der)?;
        let mut groups = new.groups.to_vec();
        groups.sort_unstable();
        groups.dedup();
        if groups.is_empty() {
            groups.extend(Group::USUAL);
        }
        let token = Token::<ApiKeyFamily>::new(self.new_id()?, self.random()?);
        let now = self.now();
        let key = ApiKey {
            id: token.id(),
            org,
            token: token.hash(),
            display_name: checked_display_name(new.display_name)?,
            created: now,
            expires: now + ttl,
            revoked: None,
            projects: self.projects(org, new.projects).await?,
            groups: Some(groups),
            certificate: csr.as_ref().map(CheckedCsr::key_fingerprint),
            previous: None,
            previous_certificate: None,
        };
        let chain_der = match &csr {
            Some(csr) => self.issue_for_key(csr, org, key.id, key.expires)?,
            None => Vec::new(),
        };
        let (at, home) = (keys::api_key(org, key.id), keys::api_key_home(key.id));
        // Who is revoked meanwhile makes no key.
        let (maker, revision) = self.still_live(caller).await?;
        let mut changes = Changes::default();
        changes = changes.at(&maker, revision);
        changes = changes.absent(&at);
        changes = changes.put(&at, &key);
        changes = changes.put(&home, &Home { org });
        let record = caller
            .record(Action::ApiKeyCreate, Some(org))
            .about("api_key", key.id)
            .about("expires", key.expires.seconds())
            .about("certificate", key.certificate.is_some());
        self.effect(record, changes).await?;
        Ok(MintedApiKey {
            key: ListedApiKey {
                key: Arc::new(key),
                last_used: None,
            },
            token: token.reveal(),
            chain_der,
        })
    }

    pub(super) async fn listed_api_key(&self, key: Arc<ApiKey>) -> Result<ListedApiKey, Refusal> {
        let seen = self.last(Present::ApiKey(key.org, key.id)).await?;
        let last_used = seen.map(|seen| seen.at);
        Ok(ListedApiKey { key, last_used })
    }

    /// The org's API keys.
    pub async fn list_api_keys(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<ListedApiKey>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let page = self.page::<ApiKey>(&keys::api_keys(org), page).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            rows.push(self.listed_api_key(row.value).await?);
        }
        Ok(Page {
            rows,
            next: page.next,
        })
    }

    pub(super) async fn api_key(&self, org: OrgId, id: &str) -> Result<Stored<ApiKey>, Refusal> {
        self.read(&keys::api_key(org, parse_id("api_key", id)?), "API key")
            .await
    }

    /// Replaces an API key with a new one for the same id. The old one stays good for the overlap, with the
    /// certificate that it had.
    pub async fn rotate_api_key(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        rotate: RotateApiKey<'_>,
    ) -> Result<MintedApiKey, Refusal> {
        let org = self.org_id(caller, org).await?;
        let overlap = checked_overlap(rotate.overlap)?;
        let csr = optional_csr(rotate.csr_der)?;
        let stored = self.api_key(org, id).await?;
        let old = &stored.value;
        let now = self.now();
        if old.revoked.is_some() {
            return Err(Refusal::new(Reason::TokenRevoked, "the API key was revoked"));
        }
        if csr.is_none() && old.certificate.is_some() {
            return Err(Refusal::invalid(
                "csr_der",
                "this API key comes with a client certificate: send a request for the new one",
            ));
        }
        let expires = match rotate.ttl {
            Some(ttl) => now + checked_ttl(Some(ttl), TOKEN_TTL, TOKEN_TTL_MAX)?,
            None if now >= old.expires => {
                return Err(Refusal::invalid(
                    "ttl",
                    "the API key has expired: say how long the new one is good for",
                ));
            }
            None => old.expires,
        };
        let chain_der = match &csr {
            Some(csr) => self.issue_for_key(csr, org, old.id, expires)?,
            None => Vec::new(),
        };
        let token = Token::<ApiKeyFamily>::new(old.id, self.random()?);
        let key = ApiKey {
            token: token.hash(),
            expires,
            certificate: csr.as_ref().map(CheckedCsr::key_fingerprint),
            previous: previous(old.token, overlap, now, Some(old.expires)),
            previous_certificate: old.certificate,
            ..ApiKey::clone(old)
        };
        let at = keys::api_key(org, key.id);
        let mut changes = Changes::default();
        changes = changes.at(&at, stored.revision);
        changes = changes.put(&at, &key);
        let record = caller
            .record(Action::ApiKeyRotate, Some(org))
            .about("api_key", key.id)
            .about("overlap_seconds", overlap.as_secs())
            .about("expires", key.expires.seconds())
            .about("certificate", key.certificate.is_some());
        self.effect(record, changes).await?;
        // Streams opened with the old token do not outlive its overlap: they are opened anew, with either.
        let streams = ended("the API key was rotated");
        self.streams.end(*key.id.as_bytes(), &streams);
        Ok(MintedApiKey {
            key: self.listed_api_key(Arc::new(key)).await?,
            token: token.reveal(),
            chain_der,
        })
    }
}

/// The token before a rotation, where it stays good at all: for `overlap`, and not past its own end.
pub(super) fn previous(
    token: crate::domain::token::TokenHash,
    overlap: Duration,
    now: Time,
    end: Option<Time>,
) -> Option<PreviousToken> {
    let until = end.map_or(now + overlap, |end| end.min(now + overlap));
    (now < until).then_some(PreviousToken { token, until })
}

fn optional_csr(der: &[u8]) -> Result<Option<CheckedCsr>, Refusal> {
    (!der.is_empty()).then(|| checked_csr(der)).transpose()
}
