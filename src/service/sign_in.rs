//! Signing in by an ID token: from issuer and subject to a member, and the links that this rests on.
//!
//! A link is an outside identity of a member, `oidc:ISSUER#SUBJECT`. An issuer is looked for in its own orgs
//! only, whatever other orgs have written down. The link, the member and the member's roles are read at every
//! call, so that taking one away ends what it allowed.

use super::Broker;
use crate::domain::actor::{Caller, Shown};
use crate::domain::directory::{Member, MemberOf, Org};
use crate::domain::id::{MemberId, OrgId};
use crate::domain::name::Name;
use crate::domain::oidc::{self, Issuer, Link};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::Rule;
use crate::store::keys;
use crate::upstream::oidc::{IdTokenError, VerifiedIdToken};

/// The most outside identities of a member.
const MAX_IDENTITIES: usize = 32;
/// All of a member's identities together, in bytes: its record has to fit in one value of the store.
const MAX_IDENTITIES_BYTES: usize = 3072;
/// The longest identity of an ordinary system, in bytes. Those of issuers have limits of their own.
const MAX_IDENTITY: usize = 256;

impl Broker {
    /// The configured issuers.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.configured()
    }

    /// The member who has shown an ID token. `org` is the one that the request names, where the subject is
    /// linked in several.
    pub(super) async fn member_by_id_token(
        &self,
        token: &str,
        org: Option<&str>,
        rules: &[Rule],
    ) -> Result<Caller, Refusal> {
        let shown = self.issuers.verify(token).await.map_err(refusal)?;
        let member = self.linked(&shown, org).await?;
        let link = Link::of(member.org, &shown.identity());
        self.member_by(member, Shown::IdToken(link), Some(shown.expires()), rules)
            .await
    }

    async fn linked(&self, shown: &VerifiedIdToken, org: Option<&str>) -> Result<MemberOf, Refusal> {
        let identity = shown.identity();
        let issuer = self.issuers().find(|issuer| issuer.url == shown.issuer());
        let mut found = Vec::new();
        for reference in issuer.iter().flat_map(|issuer| &issuer.orgs) {
            let Some((id, member)) = self.linked_in(reference, &identity).await? else {
                continue;
            };
            let member = MemberOf { org: id, member };
            // An org may stand in the list by name and by id.
            if found.iter().all(|(_, other): &(&str, MemberOf)| other.org != id) {
                found.push((reference.as_str(), member));
            }
        }
        let not_linked = || {
            Refusal::new(
                Reason::IdentityNotLinked,
                "you are signed in at the issuer, and no member of its orgs is linked to you",
            )
            .with("identity", &identity)
        };
        match (found.as_slice(), org) {
            ([], _) => Err(not_linked()),
            // An org that is named is meant: another's admin may have linked the subject too.
            (linked, Some(named)) => {
                let id = self.org_by(named).await?;
                let chosen = linked.iter().find(|(_, member)| Some(member.org) == id);
                chosen.map(|(_, member)| *member).ok_or_else(not_linked)
            }
            ([(_, only)], None) => Ok(*only),
            (several, None) => {
                let orgs: Vec<_> = several.iter().map(|(org, _)| *org).collect();
                let message = "you are a member of several orgs, and the call does not say which is meant";
                Err(Refusal::new(Reason::OrgRequired, message).with("orgs", orgs.join(", ")))
            }
        }
    }

    /// The live member of the org who is linked to the identity.
    async fn linked_in(&self, org: &str, identity: &str) -> Result<Option<(OrgId, MemberId)>, Refusal> {
        let Some(org) = self.org_by(org).await? else {
            return Ok(None);
        };
        let Some(id) = self.pointed(&keys::member_identity(org, identity)).await? else {
            return Ok(None);
        };
        let member = self.records.get::<Member>(&keys::member(org, id)).await?;
        let live = member.filter(|member| member.value.removed.is_none());
        Ok(live.map(|_| (org, id)))
    }

    /// The id of an org, by id or name.
    async fn org_by(&self, text: &str) -> Result<Option<OrgId>, Refusal> {
        match (text.parse(), text.parse::<Name>()) {
            (Ok(id), _) => Ok(Some(id)),
            (_, Ok(name)) => self.pointed(&keys::org_name(name.as_str())).await,
            _ => Ok(None),
        }
    }

    /// Ends what is open by a link that a member had and has no more.
    pub(super) fn end_links(&self, org: OrgId, before: &[String], after: &[String]) {
        for gone in before.iter().filter(|identity| !after.contains(identity)) {
            let why = Refusal::new(Reason::IdentityNotLinked, "the link to the member was taken away");
            self.streams
                .end(*Link::of(org, gone).as_bytes(), &why.with("identity", gone));
        }
    }

    /// The identities as they are stored, if they are well formed. Those beside `known` that mean a subject at
    /// an issuer have to name one that is configured for this org: a link that cannot work now must not begin
    /// to work when somebody configures that issuer for another purpose.
    pub(super) async fn checked_identities(
        &self,
        org: OrgId,
        known: &[String],
        identities: &[String],
    ) -> Result<Vec<String>, Refusal> {
        let bytes: usize = identities.iter().map(String::len).sum();
        if identities.len() > MAX_IDENTITIES
            || bytes > MAX_IDENTITIES_BYTES
            || !identities.iter().all(|identity| is_well_formed(identity))
        {
            return Err(Refusal::invalid(
                "identities",
                "identities are at most 32 of the form system:subject, 256 bytes each and 3 072 in all",
            ));
        }
        for added in identities.iter().filter(|identity| !known.contains(identity)) {
            let parsed = oidc::parse_identity(added);
            let parsed = parsed.map_err(|error| Refusal::invalid("identities", error.to_string()))?;
            if let Some((issuer, _)) = parsed {
                self.check_issuer(org, issuer).await?;
            }
        }
        let mut identities = identities.to_vec();
        identities.sort();
        identities.dedup();
        Ok(identities)
    }

    async fn check_issuer(&self, org: OrgId, url: &str) -> Result<(), Refusal> {
        let stored = self.records.get::<Org>(&keys::org(org)).await?;
        let stored = stored.ok_or_else(|| Refusal::not_found("org"))?.value;
        let (id, name) = (stored.id.to_string(), stored.name.as_str());
        let vouches =
            |issuer: &Issuer| issuer.url == url && issuer.orgs.iter().any(|org| *org == id || org == name);
        if self.issuers().any(vouches) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::IssuerUnknown,
            format!("no issuer '{url}' is configured for this org"),
        ))
    }
}

fn is_well_formed(identity: &str) -> bool {
    let of_issuer = matches!(oidc::parse_identity(identity), Ok(Some(_)) | Err(_));
    (of_issuer || identity.len() <= MAX_IDENTITY)
        && !identity.chars().any(char::is_control)
        && identity
            .split_once(':')
            .is_some_and(|(system, subject)| !system.is_empty() && !subject.is_empty())
}

fn refusal(error: IdTokenError) -> Refusal {
    let message = format!("the ID token is not taken: {error}");
    match error {
        IdTokenError::IssuerUnknown => Refusal::new(Reason::IssuerUnknown, message),
        IdTokenError::Expired => Refusal::new(Reason::IdTokenExpired, message),
        IdTokenError::Fault(_) => Refusal::new(Reason::IdTokenInvalid, message),
        IdTokenError::Unavailable { issuer, retry_after } => Refusal::new(Reason::IssuerUnavailable, message)
            .with("issuer", issuer)
            .retry_after(retry_after),
    }
}
