//! The second look: whether a caller that was let in is still to be served.
//!
//! Authentication looks once, when a call comes in. What takes its time, hands something out or stays open looks
//! again, and ties what it commits to the record that it looked at.

use super::Broker;
use crate::domain::actor::{Actor, Caller, Shown};
use crate::domain::agent::Agent;
use crate::domain::connection::Beginner;
use crate::domain::directory::{ApiKey, Member, Operator};
use crate::domain::id::{MemberId, OperatorId, OrgId};
use crate::domain::oidc::Link;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::store::Revision;
use crate::store::keys::{self, Key};
use crate::store::record::{Record, Stored};

impl Broker {
    /// The record by which the caller can be revoked, and the revision at which it was found live just now. A
    /// commit guarded by it does not outlive the caller.
    pub(super) async fn still_live(&self, caller: &Caller) -> Result<(Key, Revision), Refusal> {
        self.unlocked_actor(caller.actor())?;
        match *caller.actor() {
            Actor::Agent(agent) => {
                let key = keys::agent(agent.org, agent.id);
                self.standing(key, |agent: &Agent| agent.standing().is_ok()).await
            }
            Actor::ApiKey { id, org } => {
                let key = keys::api_key(org, id);
                self.standing(key, |key: &ApiKey| key.revoked.is_none()).await
            }
            Actor::Operator(token) => self.standing_token(token).await,
            Actor::Member { id, org } => {
                let key = keys::member(org, id);
                let linked = |member: &Member| match caller.shown() {
                    Shown::IdToken(link) => member.identities.iter().any(|own| Link::of(org, own) == link),
                    _ => true,
                };
                let stands = |member: &Member| member.removed.is_none() && linked(member);
                let member = self.standing(key, stands).await?;
                match caller.shown() {
                    Shown::OperatorToken(token) => self.standing_token(token).await,
                    _ => Ok(member),
                }
            }
        }
    }

    /// The record of a member for whom something is done, and the revision at which it was found standing and
    /// not locked.
    pub(super) async fn standing_member(
        &self,
        org: OrgId,
        member: MemberId,
    ) -> Result<(Key, Revision), Refusal> {
        self.unlocked(&[*member.as_bytes()])?;
        self.present_member(org, member).await
    }

    /// The record of a member who was not removed, and its revision.
    pub(super) async fn present_member(
        &self,
        org: OrgId,
        member: MemberId,
    ) -> Result<(Key, Revision), Refusal> {
        let key = keys::member(org, member);
        let stored: Option<Stored<Member>> = self.records.get(&key).await?;
        let stored = stored.filter(|stored| stored.value.removed.is_none());
        let stored = stored.ok_or_else(|| Refusal::not_found("member"))?;
        Ok((key, stored.revision))
    }

    /// The record by which whoever began a connection can be revoked, and the revision at which it was found live and
    /// not locked.
    pub(super) async fn standing_beginner(
        &self,
        org: OrgId,
        by: Beginner,
    ) -> Result<(Key, Revision), Refusal> {
        let now = self.now();
        match by {
            Beginner::Member(member) => self.standing_member(org, member).await,
            Beginner::ApiKey(id) => {
                self.unlocked(&[*id.as_bytes()])?;
                let live = |key: &ApiKey| key.revoked.is_none() && now < key.expires;
                self.standing(keys::api_key(org, id), live).await
            }
            Beginner::Token(id) => {
                let key = keys::operator(id);
                let token = self.records.get::<Operator>(&key).await?;
                let of = token.and_then(|token| token.value.member);
                if let Some(of) = of {
                    self.standing_member(of.org, of.member).await?;
                }
                self.unlocked(&[*id.as_bytes()])?;
                let live = |token: &Operator| {
                    token.revoked.is_none() && token.expires.is_none_or(|expires| now < expires)
                };
                self.standing(key, live).await
            }
        }
    }

    async fn standing_token(&self, token: OperatorId) -> Result<(Key, Revision), Refusal> {
        let key = keys::operator(token);
        self.standing(key, |token: &Operator| token.revoked.is_none())
            .await
    }

    async fn standing<T: Record>(
        &self,
        key: Key,
        stands: impl FnOnce(&T) -> bool,
    ) -> Result<(Key, Revision), Refusal> {
        let stored: Option<Stored<T>> = self.records.get(&key).await?;
        let stored = stored.filter(|stored| stands(&stored.value)).ok_or_else(gone)?;
        Ok((key, stored.revision))
    }
}

fn gone() -> Refusal {
    ended("the caller was revoked while it asked")
}

/// What a caller is told whose credential is good no more.
pub(super) fn ended(what: &str) -> Refusal {
    Refusal::new(Reason::CredentialUnknown, what)
}

/// What ends when it expires, as the caller would be told from then on.
pub(super) fn expired(shown: Shown) -> Refusal {
    match shown {
        Shown::RuntimeKey(_) => Refusal::new(
            Reason::ClientCertificateRequired,
            "the client certificate has expired",
        ),
        Shown::OperatorToken(_) | Shown::ApiKey(_) => ended("the token has expired"),
        Shown::IdToken(_) => Refusal::new(Reason::IdTokenExpired, "the ID token has expired"),
    }
}
