//! Outside identities linked to members in bulk. Each link has a result of its own; what is linked already stays so,
//! and no identity goes from one member to another this way: whoever repeats a call changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::actor::Caller;
use crate::domain::directory::Member;
use crate::domain::id::{MemberId, OrgId};
use crate::domain::journal::Action;
use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::service::resolve::checked_request_id;
use crate::store::keys;
use crate::store::model::Pointer;
use crate::store::record::{Changes, Stored};

/// Identities to link.
#[derive(Clone, Copy, Debug)]
pub struct LinkIdentities<'a> {
    /// The org.
    pub org: &'a str,
    /// The links.
    pub links: &'a [IdentityLink<'a>],
    /// The caller's request id.
    pub request_id: &'a str,
    /// Whether to tell only what would be done.
    pub validate_only: bool,
}

/// An identity to link.
#[derive(Clone, Copy, Debug)]
pub struct IdentityLink<'a> {
    /// The member, by id or name.
    pub member: &'a str,
    /// The identity, `system:subject`.
    pub identity: &'a str,
}

/// What became of a link.
#[derive(Clone, Debug)]
pub enum LinkOutcome {
    /// It is there now.
    Linked(MemberId),
    /// It was there.
    Already(MemberId),
    /// It is not there.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Who has the identity, where another member has.
        holder: Option<MemberId>,
    },
}

impl From<Refusal> for LinkOutcome {
    fn from(refusal: Refusal) -> Self {
        LinkOutcome::Refused {
            refusal,
            holder: None,
        }
    }
}

/// The most links of one call.
const MAX_LINKS: usize = 1000;
/// How many links one commit makes: each is at most four operations of it, and one member's record.
const PER_COMMIT: usize = 20;
/// How often a commit is tried again when a member is changed at the same moment.
const ATTEMPTS: usize = 8;

/// What a commit is going to change.
#[derive(Default)]
struct Draft {
    members: BTreeMap<MemberId, Drafted>,
    holders: HashMap<String, MemberId>,
}

struct Drafted {
    stored: Stored<Member>,
    identities: Vec<String>,
}

impl Draft {
    fn changes(&self, org: OrgId) -> Changes {
        let mut changes = Changes::default();
        for (id, drafted) in &self.members {
            if drafted.identities == drafted.stored.value.identities {
                continue;
            }
            let key = keys::member(org, *id);
            let member = Member {
                identities: drafted.identities.clone(),
                ..Member::clone(&drafted.stored.value)
            };
            changes = changes.at(&key, drafted.stored.revision).put(&key, &member);
        }
        for (identity, id) in &self.holders {
            let key = keys::member_identity(org, identity);
            let pointer = Pointer {
                id: (*id.as_bytes()).into(),
            };
            changes = changes.absent(&key).put(&key, &pointer);
        }
        changes
    }
}

impl Broker {
    /// Links identities to members of the org; gives what became of each, in order. Some may be linked when the
    /// call as a whole fails; it is safe to repeat.
    pub async fn link_identities(
        self: &Arc<Self>,
        caller: &Caller,
        input: LinkIdentities<'_>,
    ) -> Result<Vec<LinkOutcome>, Refusal> {
        let org = self.org_id(caller, input.org).await?;
        checked_request_id(input.request_id)?;
        if !(1..=MAX_LINKS).contains(&input.links.len()) {
            let message = format!("links are 1 to {MAX_LINKS}");
            return Err(Refusal::invalid("links", message));
        }
        let mut outcomes = Vec::with_capacity(input.links.len());
        if input.validate_only {
            outcomes.extend(self.judged(org, input.links).await?.0);
            return Ok(outcomes);
        }
        for links in input.links.chunks(PER_COMMIT) {
            outcomes.extend(self.link_some(caller, org, links, input.request_id).await?);
        }
        Ok(outcomes)
    }

    /// Links what fits in one commit.
    async fn link_some(
        self: &Arc<Self>,
        caller: &Caller,
        org: OrgId,
        links: &[IdentityLink<'_>],
        request_id: &str,
    ) -> Result<Vec<LinkOutcome>, Refusal> {
        let mut outcomes = Vec::new();
        for _ in 0..ATTEMPTS {
            let draft;
            (outcomes, draft) = self.judged(org, links).await?;
            if draft.holders.is_empty() {
                return Ok(outcomes);
            }
            let mut members: Vec<_> = draft.holders.values().collect();
            members.sort();
            members.dedup();
            let members: Vec<_> = members.into_iter().map(MemberId::to_string).collect();
            let record = caller
                .record(Action::IdentityLink, Some(org))
                .about("members", members.join(","))
                .about("links", draft.holders.len())
                .request(request_id);
            match self.effect(record, draft.changes(org)).await {
                Ok(_) => return Ok(outcomes),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        for outcome in &mut outcomes {
            if matches!(outcome, LinkOutcome::Linked(_)) {
                *outcome = Refusal::from(Undone::Conflict).into();
            }
        }
        Ok(outcomes)
    }

    /// What would become of the links, one after the other, and what is to be changed for that.
    async fn judged(
        &self,
        org: OrgId,
        links: &[IdentityLink<'_>],
    ) -> Result<(Vec<LinkOutcome>, Draft), Refusal> {
        let (mut outcomes, mut draft) = (Vec::with_capacity(links.len()), Draft::default());
        for link in links {
            outcomes.push(match self.judge(org, *link, &mut draft).await {
                Ok(outcome) => outcome,
                // What is wrong with this link is no matter of the others; what fails them all is.
                Err(refusal) => match refusal.reason.class() {
                    Class::Invalid | Class::NotFound => refusal.into(),
                    _ => return Err(refusal),
                },
            });
        }
        Ok((outcomes, draft))
    }

    async fn judge(
        &self,
        org: OrgId,
        link: IdentityLink<'_>,
        draft: &mut Draft,
    ) -> Result<LinkOutcome, Refusal> {
        let stored = self.member(org, link.member).await?;
        let id = stored.value.id;
        let drafted = draft.members.entry(id).or_insert_with(|| Drafted {
            identities: stored.value.identities.clone(),
            stored,
        });
        let identity = link.identity.to_owned();
        if drafted.identities.contains(&identity) {
            return Ok(LinkOutcome::Already(id));
        }
        let mut wanted = drafted.identities.clone();
        wanted.push(identity.clone());
        let wanted = self.checked_identities(org, &drafted.identities, &wanted).await?;
        let holder = match draft.holders.get(&identity) {
            Some(holder) => Some(*holder),
            None => self.pointed(&keys::member_identity(org, &identity)).await?,
        };
        if holder.is_some() {
            // The call takes the whole org: the caller may see all its members.
            let refusal = Refusal::new(Reason::AlreadyExists, "another member has this identity");
            return Ok(LinkOutcome::Refused { refusal, holder });
        }
        drafted.identities = wanted;
        draft.holders.insert(identity, id);
        Ok(LinkOutcome::Linked(id))
    }
}
