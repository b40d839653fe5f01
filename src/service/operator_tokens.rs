//! Operator tokens: of members, and of humans who are no org's member. Minted, listed, rotated, revoked.
//!
//! Who may do it: each for their own, org admins for the members of their org, system admins for all. What is not
//! the caller's to touch looks like what does not exist. A token that somebody makes for themselves never ends
//! later than the operator token it was made with; only who is an admin over a token gives it a longer life.

mod first;
mod list;

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::access::{TOKEN_TTL, TOKEN_TTL_MAX, checked_overlap, checked_ttl};
use super::api_keys::previous;
use super::directory::checked_display_name;
use super::effect::{Undone, detached};
use super::live::ended;
use super::scope::parse_id;
use crate::domain::actor::{Actor, Caller, Shown};
use crate::domain::directory::{Member, MemberOf, Operator};
use crate::domain::id::OperatorId;
use crate::domain::journal::Action;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::{Grant, Standing};
use crate::domain::secret::{ActorToken, Secret};
use crate::domain::time::Time;
use crate::domain::token::{OperatorFamily, Token};
use crate::store::keys::{self, Key};
use crate::store::model::{Mark, Seen};
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, Revision};

pub use first::Recovered;
pub use list::ListedOperatorToken;

/// What a new operator token is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewOperatorToken<'a> {
    /// The org of the member; empty: the caller's own.
    pub org: &'a str,
    /// The member; empty: the caller itself.
    pub member: &'a str,
    /// What people call it.
    pub display_name: &'a str,
    /// How long it is good for; `None`: 90 days.
    pub ttl: Option<Duration>,
    /// The roles of a human who is no member: role, org and project as the request has them. None: it is a
    /// member's.
    pub roles: &'a [NamedGrant],
}

/// A role as a request names it.
#[derive(Clone, Debug)]
pub struct NamedGrant {
    /// The role.
    pub role: crate::domain::role::Role,
    /// The org: id or name; empty: the whole broker, or the org at hand.
    pub org: String,
    /// The project: id or name; empty: the whole org.
    pub project: String,
}

/// A new operator token.
pub struct MintedOperatorToken {
    /// What lists show of it.
    pub operator: ListedOperatorToken,
    /// The token, to be shown once.
    pub token: Secret<ActorToken>,
}

/// How the caller stands to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    /// An admin of whoever holds it.
    Admin,
    /// It is the caller's own, and no admin is involved.
    Own,
}

/// How many operator tokens a member has at most, the dead ones that lists still show included.
const MAX_MEMBER_TOKENS: usize = 64;

fn hand(caller: &Caller, member: Option<MemberOf>, token: Option<OperatorId>) -> Option<Hand> {
    let (admin, own) = match member {
        Some(MemberOf { org, member }) => {
            let me = caller.member_of(org);
            let standing = caller.reach().within(org, me);
            let admin = matches!(standing, Standing::Within(within) if within.is_whole());
            (admin, me == Some(member))
        }
        None => {
            let own = matches!(*caller.actor(), Actor::Operator(id) if Some(id) == token);
            (caller.reach().is_everywhere(), own)
        }
    };
    match (admin, own) {
        (true, _) => Some(Hand::Admin),
        (false, true) => Some(Hand::Own),
        (false, false) => None,
    }
}

/// When a token ends that is to live until `wanted`: one of the caller's own not after the operator token it
/// shows. An ID token is fresh proof of who the caller is, and bounds nothing.
fn bounded(caller: &Caller, hand: Hand, wanted: Time) -> Time {
    match (hand, caller.shown(), caller.expires()) {
        (Hand::Own, Shown::OperatorToken(_), Some(end)) => wanted.min(end),
        _ => wanted,
    }
}

impl Broker {
    /// Refuses a caller who shows a token that was rotated away: it is good for calls, for a while, and not for
    /// making tokens.
    async fn refuse_replaced(&self, caller: &Caller) -> Result<(), Refusal> {
        let Shown::OperatorToken(id) = caller.shown() else {
            return Ok(());
        };
        let operator: Stored<Operator> = self.read(&keys::operator(id), "operator token").await?;
        let previous = operator.value.previous.map(|previous| previous.until);
        if caller.expires() != operator.value.expires && caller.expires() == previous {
            let refusal = Refusal::new(Reason::TokenReplaced, "the token shown was rotated away");
            let org = operator.value.member.map(|member| member.org);
            let record = caller.record(Action::RequestRefuse, org);
            return Err(self.denied(record, refusal).await);
        }
        Ok(())
    }

    /// Mints an operator token.
    pub async fn create_operator_token(
        self: &Arc<Self>,
        caller: &Caller,
        new: NewOperatorToken<'_>,
    ) -> Result<MintedOperatorToken, Refusal> {
        self.refuse_replaced(caller).await?;
        let ttl = checked_ttl(new.ttl, TOKEN_TTL, TOKEN_TTL_MAX)?;
        let display_name = checked_display_name(new.display_name)?;
        let mut changes = Changes::default();
        let (member, grants, hand) = if new.roles.is_empty() {
            let member = self.member_to_mint_for(caller, new.org, new.member).await?;
            let (org, id) = (member.value.org, member.value.id);
            let at = MemberOf { org, member: id };
            let hand = hand(caller, Some(at), None).ok_or_else(|| Refusal::not_found("member"))?;
            if hand == Hand::Admin && caller.member_of(org) != Some(id) {
                self.may_give(caller, &member.value.grants(), Action::OperatorCreate, org)
                    .await?;
            }
            // A member who is removed or changed meanwhile gets no token.
            changes = changes.at(&keys::member(org, id), member.revision);
            changes = self.room_for_token(at, changes).await?;
            (Some(at), None, hand)
        } else {
            if !(new.org.is_empty() && new.member.is_empty()) {
                return Err(Refusal::invalid(
                    "roles",
                    "a member's token has the member's roles: name either a member or roles",
                ));
            }
            let grants = self.grants_apart(caller, new.roles).await?;
            (None, Some(grants), Hand::Admin)
        };
        let token = Token::<OperatorFamily>::new(self.new_id()?, self.random()?);
        let now = self.now();
        let operator = Operator {
            id: token.id(),
            token: token.hash(),
            display_name,
            created: now,
            expires: Some(bounded(caller, hand, now + ttl)),
            revoked: None,
            member,
            grants,
            previous: None,
        };
        let at = keys::operator(operator.id);
        // Who is revoked meanwhile makes no token.
        let (maker, revision) = self.still_live(caller).await?;
        let guarded = member.is_some_and(|member| maker == keys::member(member.org, member.member));
        if !guarded {
            changes = changes.at(&maker, revision);
        }
        changes = changes.absent(&at);
        changes = changes.put(&at, &operator);
        if let Some(MemberOf { org, member }) = member {
            let key = keys::member_token(org, member, operator.id);
            changes = changes.put(&key, &Mark { since: now });
        }
        let mut record = caller
            .record(Action::OperatorCreate, member.map(|member| member.org))
            .about("operator", operator.id)
            .about("expires", operator.expires.unwrap_or(now).seconds());
        if let Some(member) = member {
            record = record.about("member", member.member);
        }
        if let Some(grants) = &operator.grants {
            let roles: Vec<_> = grants.iter().map(|grant| told(*grant)).collect();
            record = record.about("roles", roles.join(" "));
        }
        self.effect(record, changes).await?;
        Ok(MintedOperatorToken {
            operator: self.listed_operator(Arc::new(operator)).await?,
            token: token.reveal(),
        })
    }

    /// The member whose token the caller asks for.
    async fn member_to_mint_for(
        &self,
        caller: &Caller,
        org: &str,
        member: &str,
    ) -> Result<Stored<Member>, Refusal> {
        let org = self.place(caller, org).await?.id();
        match (member, caller.member_of(org)) {
            ("", Some(me)) => self.member(org, &me.to_string()).await,
            ("", None) => Err(Refusal::invalid(
                "member",
                "member is required: whose the token is",
            )),
            (member, _) => self.member(org, member).await,
        }
    }

    /// Makes room for one more token of a member: dead ones go first.
    async fn room_for_token(&self, of: MemberOf, mut changes: Changes) -> Result<Changes, Refusal> {
        let prefix = keys::member_tokens(of.org, of.member);
        let marks = self
            .records
            .scan::<Mark>(prefix.as_bytes(), None, MAX_MEMBER_TOKENS)
            .await?;
        if marks.len() < MAX_MEMBER_TOKENS {
            return Ok(changes);
        }
        let mut gone = 0;
        for (key, _) in marks {
            let Some(id) = key.last_id() else { continue };
            let operator: Option<Stored<Operator>> = self.records.get(&keys::operator(id)).await?;
            let dead = operator.is_none_or(|operator| !operator.value.is_live(self.now()));
            if dead && gone < MAX_MEMBER_TOKENS / 4 {
                changes = changes.delete::<Operator>(&keys::operator(id));
                changes = changes.delete::<Mark>(&key);
                changes = changes.delete::<Seen>(&keys::operator_seen(id));
                gone += 1;
            }
        }
        if gone == 0 {
            return Err(Refusal::new(
                Reason::TooManyTokens,
                format!("the member has {MAX_MEMBER_TOKENS} operator tokens that are good"),
            ));
        }
        Ok(changes)
    }

    /// A token that the caller may touch.
    async fn operator_token(&self, caller: &Caller, id: &str) -> Result<(Stored<Operator>, Hand), Refusal> {
        let missing = || Refusal::not_found("operator token");
        let id: OperatorId = parse_id("operator_token", id)?;
        let stored: Stored<Operator> = self.records.get(&keys::operator(id)).await?.ok_or_else(missing)?;
        let hand = hand(caller, stored.value.member, Some(id)).ok_or_else(missing)?;
        Ok((stored, hand))
    }

    /// Replaces an operator token with a new one for the same id; empty: the one the caller shows. The old one stays
    /// good for the overlap.
    pub async fn rotate_operator_token(
        self: &Arc<Self>,
        caller: &Caller,
        id: &str,
        overlap: Option<Duration>,
        ttl: Option<Duration>,
    ) -> Result<MintedOperatorToken, Refusal> {
        self.refuse_replaced(caller).await?;
        let overlap = checked_overlap(overlap)?;
        let shown = match (id, caller.shown()) {
            ("", Shown::OperatorToken(shown)) => shown.to_string(),
            ("", _) => {
                return Err(Refusal::invalid(
                    "operator_token",
                    "operator_token is required: the call shows none",
                ));
            }
            _ => id.to_owned(),
        };
        let (stored, hand) = self.operator_token(caller, &shown).await?;
        let old = &stored.value;
        let now = self.now();
        if old.revoked.is_some() {
            return Err(Refusal::new(
                Reason::TokenRevoked,
                "the operator token was revoked",
            ));
        }
        let expires = match (ttl, old.expires) {
            (None, Some(end)) if now >= end => {
                return Err(Refusal::invalid(
                    "ttl",
                    "the operator token has expired: say how long the new one is good for",
                ));
            }
            (None, Some(end)) => end,
            (ttl, _) => bounded(caller, hand, now + checked_ttl(ttl, TOKEN_TTL, TOKEN_TTL_MAX)?),
        };
        let token = Token::<OperatorFamily>::new(old.id, self.random()?);
        let operator = Operator {
            token: token.hash(),
            expires: Some(expires),
            previous: previous(old.token, overlap, now, old.expires),
            ..Operator::clone(old)
        };
        let at = keys::operator(operator.id);
        let (maker, revision) = self.still_live(caller).await?;
        let mut changes = Changes::default();
        if maker != at {
            changes = changes.at(&maker, revision);
        }
        changes = changes.at(&at, stored.revision);
        changes = changes.put(&at, &operator);
        let record = caller
            .record(Action::OperatorRotate, operator.member.map(|member| member.org))
            .about("operator", operator.id)
            .about("overlap_seconds", overlap.as_secs())
            .about("expires", expires.seconds());
        self.effect(record, changes).await?;
        // Streams opened with the old token do not outlive its overlap: they are opened anew, with either.
        let streams = ended("the operator token was rotated");
        self.streams.end(*operator.id.as_bytes(), &streams);
        Ok(MintedOperatorToken {
            operator: self.listed_operator(Arc::new(operator)).await?,
            token: token.reveal(),
        })
    }

    /// Revokes an operator token. Revoking it again changes nothing; the last usable system admin stays.
    pub async fn revoke_operator_token(
        self: &Arc<Self>,
        caller: &Caller,
        id: &str,
    ) -> Result<ListedOperatorToken, Refusal> {
        let arrived = self.arrived();
        for _ in 0..ATTEMPTS {
            let (stored, _) = self.operator_token(caller, id).await?;
            if stored.value.revoked.is_some() {
                return self.listed_operator(stored.value).await;
            }
            let org = stored.value.member.map(|member| member.org);
            let record = caller
                .record(Action::OperatorRevoke, org)
                .about("operator", stored.value.id);
            let mut changes = Changes::default();
            if stored.value.is_system_admin(self.now()) {
                match self.another_system_admin(stored.value.id).await? {
                    Some((witness, revision)) => changes = changes.at(&witness, revision),
                    None => return Err(self.denied(record, last_admin()).await),
                }
            }
            let operator = Operator {
                revoked: Some(self.now()),
                previous: None,
                ..Operator::clone(&stored.value)
            };
            let at = keys::operator(operator.id);
            changes = changes.at(&at, stored.revision);
            changes = changes.put(&at, &operator);
            let (broker, id) = (Arc::clone(self), operator.id);
            let revoked = detached(async move {
                broker.effect(record, changes).await?;
                broker.denied_from_now(*id.as_bytes(), &ended("the operator token was revoked"), arrived);
                Ok(())
            });
            match revoked.await {
                Ok(()) => {}
                Err(Undone::Conflict) => continue,
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
            return self.listed_operator(Arc::new(operator)).await;
        }
        Err(Undone::Conflict.into())
    }

    /// A system admin other than `but` who can act now, and the revision at which that is so: a commit guarded by
    /// it leaves one, even where two take each other away at the same moment.
    pub(super) async fn another_system_admin(
        &self,
        but: OperatorId,
    ) -> Result<Option<(Key, Revision)>, Refusal> {
        let (now, mut after) = (self.now(), None);
        loop {
            let rows = self
                .records
                .scan::<Operator>(keys::operators().as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            let found = rows
                .iter()
                .find(|(_, row)| row.value.id != but && row.value.is_system_admin(now));
            if let Some((key, row)) = found {
                return Ok(Some((key.clone(), row.revision)));
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(None),
            }
        }
    }
}

/// How often a change is tried again when somebody else changes the same at the same moment.
pub(super) const ATTEMPTS: usize = 4;

pub(super) fn last_admin() -> Refusal {
    Refusal::new(
        Reason::LastSystemAdmin,
        "nobody else could administer the broker any more",
    )
}

/// A grant in the journal: `role`, `role@org` or `role@org/project`.
pub(super) fn told(grant: Grant) -> String {
    use crate::domain::role::Scope;
    let role = grant.role;
    match grant.scope {
        Scope::Broker => role.name().to_owned(),
        Scope::Org(org) => format!("{role}@{org}"),
        Scope::Project(org, project) => format!("{role}@{org}/{project}"),
    }
}
