//! Which records are meant, and whether one is.

use super::super::Broker;
use super::super::scope::parse_id;
use crate::domain::actor::Caller;
use crate::domain::id::{Agent, Credential, Id, Kind, Member, MemberId, OrgId, Task};
use crate::domain::journal::Action;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::journal::{StoredRecord, Verdict};

/// A filter as a request has it: what is empty or `None` fits everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilterInput<'a> {
    /// The org: id or name. Empty: the caller's own, or all of them for who may see all.
    pub org: &'a str,
    /// Who asked.
    pub actor: &'a str,
    /// The member: its id, or its name where the org is known.
    pub member: &'a str,
    /// The credential's id.
    pub credential: &'a str,
    /// The task's id.
    pub task: &'a str,
    /// The agent's id: who asked or what it is about.
    pub agent: &'a str,
    /// The reason's code.
    pub reason: &'a str,
    /// The action's name.
    pub action: &'a str,
    /// `allowed`, `denied` or `failed`.
    pub outcome: &'a str,
    /// Written then or later.
    pub since: Option<Time>,
    /// Written before.
    pub until: Option<Time>,
}

/// No actor's id is longer.
const MAX_ACTOR: usize = 64;

/// A checked filter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    org: Option<OrgId>,
    actor: Option<String>,
    member: Option<String>,
    credential: Option<String>,
    task: Option<String>,
    agent: Option<String>,
    reason: Option<&'static str>,
    action: Option<&'static str>,
    verdict: Option<Verdict>,
    since: Option<Time>,
    until: Option<Time>,
}

impl Broker {
    /// Checks a filter, and confines it to what the caller may see.
    pub(super) async fn record_filter(
        &self,
        caller: &Caller,
        input: FilterInput<'_>,
    ) -> Result<Filter, Refusal> {
        let org = match input.org {
            "" if caller.reach().is_everywhere() => None,
            org => Some(self.org_id(caller, org).await?),
        };
        let member = match (input.member, org) {
            ("", _) => None,
            (member, Some(org)) if member.parse::<MemberId>().is_err() => {
                Some(self.member(org, member).await?.value.id.to_string())
            }
            (member, _) => Some(parse_id::<Member>("filter.member", member)?.to_string()),
        };
        if input.actor.len() > MAX_ACTOR {
            return Err(Refusal::invalid(
                "filter.actor",
                "filter.actor is longer than any id",
            ));
        }
        let named = |field, text: &str, found: Option<&'static str>| match (text, found) {
            ("", _) => Ok(None),
            (_, Some(name)) => Ok(Some(name)),
            (_, None) => Err(Refusal::invalid(
                field,
                format!("{field} is not one that there is"),
            )),
        };
        let verdicts = [Verdict::Allowed, Verdict::Denied, Verdict::Failed];
        let verdict = verdicts
            .into_iter()
            .find(|verdict| verdict.name() == input.outcome);
        named("filter.outcome", input.outcome, verdict.map(Verdict::name))?;
        let action = Action::from_name(input.action).map(Action::name);
        let reason = Reason::from_code(input.reason).map(Reason::code);
        Ok(Filter {
            org,
            actor: Some(input.actor.to_owned()).filter(|actor| !actor.is_empty()),
            member,
            credential: id::<Credential>("filter.credential", input.credential)?,
            task: id::<Task>("filter.task", input.task)?,
            agent: id::<Agent>("filter.agent", input.agent)?,
            reason: named("filter.reason", input.reason, reason)?,
            action: named("filter.action", input.action, action)?,
            verdict,
            since: input.since,
            until: input.until,
        })
    }
}

fn id<K: Kind>(field: &'static str, text: &str) -> Result<Option<String>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let id: Id<K> = parse_id(field, text)?;
    Ok(Some(id.to_string()))
}

/// What says which records are meant.
pub(in super::super) trait Fits: Send + Sync + 'static {
    /// Whether every record is.
    fn takes_all(&self) -> bool {
        false
    }

    /// Whether this one is.
    fn fits(&self, record: &StoredRecord) -> bool;
}

impl Fits for Filter {
    fn takes_all(&self) -> bool {
        let Filter {
            org: None,
            actor: None,
            member: None,
            credential: None,
            task: None,
            agent: None,
            reason: None,
            action: None,
            verdict: None,
            since: None,
            until: None,
        } = self
        else {
            return false;
        };
        true
    }

    fn fits(&self, record: &StoredRecord) -> bool {
        let entry = &record.entry;
        let about = |kind: &str, id: &String| entry.about(kind) == Some(id.as_str());
        let agent = |id: &String| {
            let several = entry.about("agents").unwrap_or_default();
            entry.actor == *id || about("agent", id) || several.split([',', ' ']).any(|one| one == id)
        };
        // Its own records have it under the prefix of its kind, those of what it owns as the owner.
        let member = |id: &String| {
            ["member", Member::PREFIX, "owner"]
                .iter()
                .any(|kind| about(kind, id))
        };
        self.org.is_none_or(|org| entry.org == Some(org))
            && self.actor.as_ref().is_none_or(|actor| entry.actor == *actor)
            && self.member.as_ref().is_none_or(member)
            && self.credential.as_ref().is_none_or(|id| about("credential", id))
            && self.task.as_ref().is_none_or(|id| about("task", id))
            && self.agent.as_ref().is_none_or(agent)
            && self.reason.is_none_or(|reason| entry.reason == reason)
            && self.action.is_none_or(|action| entry.action == action)
            && self.verdict.is_none_or(|verdict| entry.verdict == verdict)
            && self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time < until)
    }
}
