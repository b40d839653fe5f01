//! Removing a member: what was theirs ends.
//!
//! The first commit decides: the member's record says so, their outside identities are free, and a mark says that
//! there is more to do. From then on their tokens, tasks and credentials are refused, because every call and
//! every resolution looks at that record. What follows only clears away: operator tokens are revoked, tasks,
//! undecided approvals and leases end, credentials go with their secrets, and grants are revoked at their providers. A removal that a crash cut short is
//! finished at the next start, or by repeating it. The member's name stays taken: it stands in the journal.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::effect::{Undone, detached};
use super::live::ended;
use super::outstanding::Outstanding;
use crate::domain::actor::Caller;
use crate::domain::approval::{Approval, Party, State};
use crate::domain::credential::Credential;
use crate::domain::directory::{Member, MemberOf, Operator};
use crate::domain::id::{CredentialId, MemberId, OrgId, RevocationId};
use crate::domain::journal::{Action, Record};
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::task::Task;
use crate::domain::watch::{Ended, Notice};
use crate::store::keys::Key;
use crate::store::model::{Mark, Pointer};
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, keys};

/// A credential that was removed with its owner.
#[derive(Clone, Debug)]
pub struct RemovedCredential {
    /// Its id.
    pub credential: CredentialId,
    /// The provider.
    pub provider: String,
    /// What it was.
    pub kind: CredentialKind,
    /// Of a grant: its revocation at the provider, which goes on by itself.
    pub revocation: Option<RevocationId>,
}

impl RemovedCredential {
    /// What there is to do at the provider, in words.
    pub fn advice(&self) -> String {
        match (self.kind, self.revocation) {
            (CredentialKind::OAuthGrant, Some(revocation)) => format!(
                "nothing now: its tokens are being revoked at the provider; 'credbroker account revocations' tells how \
                 that ended ({revocation})"
            ),
            (CredentialKind::OAuthGrant, None) => {
                "the grant is not revoked at the provider: the member, or an admin there, ends this session"
                    .to_owned()
            }
            (CredentialKind::ApiKey | CredentialKind::Aws | CredentialKind::BedrockBearer, _) => {
                "the key still works at the provider: delete it there".to_owned()
            }
        }
    }
}

/// What the removal of a member ended.
#[derive(Clone, Debug)]
pub struct RemovedMember {
    /// The member as it stands now.
    pub member: Stored<Member>,
    /// How many operator tokens were revoked.
    pub operator_tokens: usize,
    /// How many tasks were ended.
    pub tasks: usize,
    /// How many leases were ended.
    pub leases: usize,
    /// The credentials that were removed. What they were lives on at the providers.
    pub credentials: Vec<RemovedCredential>,
    /// What was handed out for the member and may still work at the providers.
    pub outstanding: Outstanding,
}

/// How many records are ended in one commit.
const PER_COMMIT: usize = 50;
/// How often the removal is tried again when the member, or a credential, is changed at the same moment.
const ATTEMPTS: usize = 16;

impl Broker {
    /// Removes a member for good, and ends what was theirs. When this returns, no later call of theirs succeeds
    /// and nothing is resolved for them. Removing again finishes what a crash cut short.
    pub async fn remove_member(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        member: &str,
    ) -> Result<RemovedMember, Refusal> {
        let arrived = self.arrived();
        let org = self.org_id(caller, org).await?;
        let id = self.member_ever(org, member).await?;
        let record = caller.record(Action::MemberRemove, Some(org)).about("member", id);
        let broker = Arc::clone(self);
        detached(async move {
            let member = broker.mark_removed(org, id, &record, arrived).await?;
            broker.clear_away(member, &record).await
        })
        .await
    }

    /// Sets the member's record, in a commit of its own that decides.
    async fn mark_removed(
        self: &Arc<Self>,
        org: OrgId,
        id: MemberId,
        record: &Record,
        arrived: Duration,
    ) -> Result<Stored<Member>, Refusal> {
        let key = keys::member(org, id);
        for _ in 0..ATTEMPTS {
            let stored: Stored<Member> = self.read(&key, "member").await?;
            if stored.value.removed.is_some() {
                return Ok(stored);
            }
            let now = self.now();
            let member = Member {
                removed: Some(now),
                identities: Vec::new(),
                ..Member::clone(&stored.value)
            };
            let mut changes = Changes::default();
            // Guarded, for the identities that are freed.
            changes = changes.at(&key, stored.revision);
            changes = changes.put(&key, &member);
            for identity in &stored.value.identities {
                changes = changes.delete::<Pointer>(&keys::member_identity(org, identity));
            }
            changes = changes.put(&keys::leaving(org, id), &Mark { since: now });
            match self.effect(record.clone(), changes).await {
                Ok(done) => {
                    self.denied_from_now(*id.as_bytes(), &ended("the member was removed"), arrived);
                    let gone = Ended::Member(id);
                    self.publish(Notice::ended(org, gone, Reason::CredentialUnknown, false));
                    return Ok(Stored {
                        value: Arc::new(member),
                        revision: done.revision,
                    });
                }
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }

    /// Ends what was a removed member's. Safe to repeat.
    async fn clear_away(
        self: &Arc<Self>,
        member: Stored<Member>,
        record: &Record,
    ) -> Result<RemovedMember, Refusal> {
        let Member { id, org, .. } = *member.value;
        let operator_tokens = self
            .revoke_tokens_of(MemberOf { org, member: id }, record)
            .await?;
        let tasks = self.end_tasks_of(org, id, record).await?;
        self.drop_approvals_of(org, id, record).await?;
        // Before the credentials go, so that none comes after them.
        self.forget_connections(org, id).await?;
        // Before the credentials go: what is still out there is read off them.
        let (leases, outstanding) = self.end_member_leases(org, id).await?;
        let credentials = self.remove_credentials_of(org, id, record).await?;
        let changes = Changes::default().delete::<Mark>(&keys::leaving(org, id));
        let _applied = self.records.commit(changes).await?;
        Ok(RemovedMember {
            member,
            operator_tokens,
            tasks,
            leases,
            credentials,
            outstanding,
        })
    }

    /// Finishes removals that a crash cut short.
    pub(super) async fn finish_removals(self: &Arc<Self>) -> Result<(), Refusal> {
        let list = keys::all_leaving();
        let rows = self.records.scan::<Mark>(list.as_bytes(), None, MAX_SCAN).await?;
        for (org, id) in rows.iter().filter_map(|(key, _)| keys::leaving_of(key)) {
            let member: Stored<Member> = self.read(&keys::member(org, id), "member").await?;
            let record = Record::new(Action::MemberRemove, "broker", Some(org)).about("member", id);
            self.clear_away(member, &record).await?;
        }
        Ok(())
    }

    async fn revoke_tokens_of(self: &Arc<Self>, whose: MemberOf, record: &Record) -> Result<usize, Refusal> {
        let (mut revoked, mut after) = (0, None);
        loop {
            let list = keys::member_tokens(whose.org, whose.member);
            let rows = self
                .records
                .scan::<Mark>(list.as_bytes(), after.as_ref(), PER_COMMIT)
                .await?;
            let mut theirs = Vec::with_capacity(rows.len());
            for id in rows.iter().filter_map(|(key, _)| key.last_id()) {
                let token = self.records.get::<Operator>(&keys::operator(id)).await?;
                theirs.extend(
                    token
                        .map(|token| token.value)
                        .filter(|token| token.revoked.is_none()),
                );
            }
            if !theirs.is_empty() {
                let mut changes = Changes::default();
                for token in &theirs {
                    let gone = Operator {
                        revoked: Some(self.now()),
                        previous: None,
                        ..Operator::clone(token)
                    };
                    changes = changes.put(&keys::operator(token.id), &gone);
                }
                let ids: Vec<_> = theirs.iter().map(|token| token.id.to_string()).collect();
                let about = record.clone().about("operator_tokens", ids.join(","));
                self.effect(about, changes).await?;
                for token in &theirs {
                    self.streams
                        .end(*token.id.as_bytes(), &ended("the member was removed"));
                }
                revoked += theirs.len();
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(revoked),
            }
        }
    }

    async fn end_tasks_of(
        self: &Arc<Self>,
        org: OrgId,
        member: MemberId,
        record: &Record,
    ) -> Result<usize, Refusal> {
        let (mut count, mut after) = (0, None);
        loop {
            let list = keys::tasks(org);
            let rows = self
                .records
                .scan::<Task>(list.as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            let theirs = rows.iter().map(|(_, task)| &task.value);
            let theirs: Vec<_> = theirs
                .filter(|task| task.member == member && task.ended.is_none())
                .collect();
            for some in theirs.chunks(PER_COMMIT) {
                let mut changes = Changes::default();
                for task in some {
                    let over = Task {
                        ended: Some(self.now()),
                        ..Task::clone(task)
                    };
                    changes = changes.put(&keys::task(org, task.id), &over);
                }
                let ids: Vec<_> = some.iter().map(|task| task.id.to_string()).collect();
                self.effect(record.clone().about("tasks", ids.join(",")), changes)
                    .await?;
                for task in some {
                    let agents = self.task_view(org, task.id).await?.agents;
                    self.task_ended(task, &agents);
                }
                count += some.len();
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(count),
            }
        }
    }

    /// Takes back what the member asked for, or what was asked for a task of theirs, and nobody has decided.
    async fn drop_approvals_of(
        self: &Arc<Self>,
        org: OrgId,
        member: MemberId,
        record: &Record,
    ) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let list = keys::approvals(org);
            let rows = self
                .records
                .scan::<Approval>(list.as_bytes(), after.as_ref(), MAX_SCAN);
            let rows = rows.await?;
            let asked = |approval: &Approval| {
                approval.member == Some(member) || approval.requester == Some(Party::Member(member))
            };
            let waiting = |approval: &Approval| approval.state(self.now(), 0) == State::Pending;
            for (key, stored) in &rows {
                if !asked(&stored.value) || !waiting(&stored.value) {
                    continue;
                }
                let dropped = Approval {
                    revoked: Some(self.now()),
                    ..Approval::clone(&stored.value)
                };
                let changes = Changes::default().at(key, stored.revision).put(key, &dropped);
                match self
                    .effect(record.clone().about("approval", dropped.id), changes)
                    .await
                {
                    // Decided at the same moment: it is for a task that has ended.
                    Ok(_) | Err(Undone::Conflict) => {}
                    Err(Undone::Refused(refusal)) => return Err(refusal),
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// What a member has: as many at most as there are providers, kinds and executors.
    async fn slots_of(&self, org: OrgId, member: MemberId) -> Result<Vec<(Key, Stored<Pointer>)>, Refusal> {
        let list = keys::credential_slots(org, Owner::Member(member));
        let mut slots: Vec<(Key, Stored<Pointer>)> = Vec::new();
        loop {
            let after = slots.last().map(|(key, _)| key);
            let rows = self.records.scan(list.as_bytes(), after, MAX_SCAN).await?;
            let more = rows.len() == MAX_SCAN;
            slots.extend(rows);
            if !more {
                return Ok(slots);
            }
        }
    }

    async fn remove_credentials_of(
        self: &Arc<Self>,
        org: OrgId,
        member: MemberId,
        record: &Record,
    ) -> Result<Vec<RemovedCredential>, Refusal> {
        let mut removed = Vec::new();
        for (slot, pointer) in self.slots_of(org, member).await? {
            let id = CredentialId::from_bytes(*pointer.value.id);
            let Some((credential, revocation)) = self.remove_one(org, id, record).await? else {
                let _applied = self
                    .records
                    .commit(Changes::default().delete::<Pointer>(&slot))
                    .await?;
                continue;
            };
            let gone = Ended::Credential(id, credential.owner);
            self.publish(Notice::ended(org, gone, Reason::CredentialUnusable, false));
            removed.push(RemovedCredential {
                credential: id,
                provider: credential.provider.clone(),
                kind: credential.kind,
                revocation,
            });
        }
        self.revoker.wake();
        Ok(removed)
    }

    /// Removes a credential as it is by then: an exchange under way may change it at the same moment, and nothing of
    /// what that brings may stay behind. What a grant had is to be revoked at the provider. `None` where there is none.
    async fn remove_one(
        self: &Arc<Self>,
        org: OrgId,
        id: CredentialId,
        record: &Record,
    ) -> Result<Option<(Arc<Credential>, Option<RevocationId>)>, Refusal> {
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.records.get::<Credential>(&keys::credential(org, id)).await? else {
                return Ok(None);
            };
            let mut about = record
                .clone()
                .about("credential", id)
                .about("provider", &stored.value.provider);
            let (changes, revocation) = match stored.value.kind {
                CredentialKind::OAuthGrant => {
                    let (changes, revocation) = self.disconnecting(&stored).await?;
                    about = about.about("revocation", revocation.id);
                    (changes, Some(revocation.id))
                }
                _ => (self.removing(&stored).await?, None),
            };
            match self.effect(about, changes).await {
                Ok(_) => return Ok(Some((stored.value, revocation))),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Undone::Conflict.into())
    }
}
