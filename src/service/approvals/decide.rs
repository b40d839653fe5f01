//! Approvals, decided about and taken back.

use std::sync::Arc;
use std::time::Duration;

use super::{ApprovalView, about_record, checked_words};
use crate::domain::actor::Caller;
use crate::domain::approval::{Approval, Party, State, Undecidable};
use crate::domain::id::LeaseId;
use crate::domain::journal::Action;
use crate::domain::lease::Lease;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::watch::{Ended, Notice};
use crate::service::Broker;
use crate::store::record::{Changes, Stored};
use crate::store::{Commit, keys};

/// How an approval is granted: as asked for, or less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grant<'a> {
    /// How many leases it is good for; 0: as many as were asked for.
    pub use_limit: u32,
    /// How long it is good for; `None`: as long as was asked for.
    pub ttl: Option<Duration>,
    /// What the approver says.
    pub message: &'a str,
}

/// An approval that was taken back.
pub struct RevokedApproval {
    /// The approval.
    pub view: ApprovalView,
    /// The leases that ended with it.
    pub ended: Vec<LeaseId>,
}

/// How many leases are ended at once.
const LEASES_AT_ONCE: usize = 64;

/// What an approver is told who is not apart from what they decide about.
pub(super) fn own() -> Refusal {
    Refusal::new(
        Reason::ApprovalOwn,
        "the approver asked for this, or the task runs for them",
    )
}

fn undecidable(why: Undecidable) -> Refusal {
    match why {
        Undecidable::Own => own(),
        Undecidable::Decided(State::Expired) => {
            Refusal::new(Reason::ApprovalExpired, "nobody decided about it in time")
        }
        Undecidable::Decided(_) => Refusal::new(Reason::ApprovalDecided, "it was decided about before"),
        Undecidable::Wider(field) => Refusal::invalid(
            field,
            format!("{field} is at most what was asked for, and not nothing"),
        ),
    }
}

impl Broker {
    /// Grants what somebody else asked for. Granting it again changes nothing.
    pub async fn grant_approval(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        grant: Grant<'_>,
    ) -> Result<ApprovalView, Refusal> {
        let message = checked_words("message", grant.message)?;
        let use_limit = (grant.use_limit != 0).then_some(grant.use_limit);
        let by = Party::from(caller.actor());
        let decide = |asked: &Approval| asked.granted(by, self.now(), grant.ttl, use_limit, &message);
        self.decide(caller, org, id, Action::ApprovalGrant, decide).await
    }

    /// Denies what somebody else asked for. Denying it again changes nothing.
    pub async fn deny_approval(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        message: &str,
    ) -> Result<ApprovalView, Refusal> {
        let message = checked_words("message", message)?;
        let by = Party::from(caller.actor());
        let decide = |asked: &Approval| asked.denied(by, self.now(), &message);
        self.decide(caller, org, id, Action::ApprovalDeny, decide).await
    }

    async fn decide(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
        action: Action,
        decide: impl Fn(&Approval) -> Result<Approval, Undecidable>,
    ) -> Result<ApprovalView, Refusal> {
        let stored = self.visible_approval(caller, org, id).await?;
        let record = about_record(caller, action, &stored.value);
        // A repeat, whose first answer may have been lost.
        let (by, granting) = (Party::from(caller.actor()), action == Action::ApprovalGrant);
        let same = |ruling: &crate::domain::approval::Ruling| ruling.by == by && ruling.granted == granting;
        if stored.value.revoked.is_none() && stored.value.ruling.as_ref().is_some_and(same) {
            return self.approval_view(stored.value).await;
        }
        let decided = match decide(&stored.value) {
            Ok(decided) => decided,
            Err(why) => return Err(self.denied(record, undecidable(why)).await),
        };
        let record = record
            .about("use_limit", decided.use_limit)
            .about("until", decided.expires.seconds());
        let key = keys::approval(decided.org, decided.id);
        let (live, revision) = self.still_live(caller).await?;
        let changes = Changes::default()
            .at(&key, stored.revision)
            .put(&key, &decided)
            .at(&live, revision);
        self.effect(record, changes).await?;
        self.approval_decided(&decided);
        self.approval_view(Arc::new(decided)).await
    }

    /// Tells whoever waits for it that a request was decided about. To be called once the effect is recorded, and
    /// before the approver is answered.
    fn approval_decided(&self, approval: &Approval) {
        let (Some(requester), Some(ruling)) = (approval.requester, &approval.ruling) else {
            return;
        };
        self.publish(Notice::approval(
            approval.org,
            Some(approval.project),
            approval.member,
            requester.id_bytes(),
            approval.id,
            ruling.granted,
        ));
    }

    /// Takes an approval back and ends the leases it was used for. When this returns, nothing is handed out by it
    /// any more: a resolution under way commits guarded by the approval and looks at it once more before it
    /// answers. Revoking it again changes nothing.
    pub async fn revoke_approval(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<RevokedApproval, Refusal> {
        let stored: Stored<Approval> = self.visible_approval(caller, org, id).await?;
        let mut approval = stored.value;
        if approval.revoked.is_none() {
            let revoked = Approval {
                revoked: Some(self.now()),
                ..Approval::clone(&approval)
            };
            let key = keys::approval(approval.org, approval.id);
            let changes = Changes::default().at(&key, stored.revision).put(&key, &revoked);
            let record = about_record(caller, Action::ApprovalRevoke, &revoked);
            self.effect(record, changes).await?;
            approval = Arc::new(revoked);
        }
        let ended = self.end_leases_by(&approval).await?;
        Ok(RevokedApproval {
            view: self.approval_view(approval).await?,
            ended,
        })
    }

    /// Ends the leases that an approval was used for: those that stood by it until now. Their holders are refused
    /// already; this is so that lists say so.
    async fn end_leases_by(&self, approval: &Approval) -> Result<Vec<LeaseId>, Refusal> {
        let uses = self.uses(approval).await?;
        let mut ended = Vec::new();
        for some in uses.chunks(LEASES_AT_ONCE) {
            let ending = some.iter().map(|used| self.end_lease_by(approval, used.lease));
            for over in futures_util::future::try_join_all(ending).await? {
                ended.extend(over);
            }
        }
        Ok(ended)
    }
    /// The lease, where this approval's end is its end. One that changes at the same moment ends otherwise.
    async fn end_lease_by(&self, approval: &Approval, id: LeaseId) -> Result<Option<LeaseId>, Refusal> {
        let key = keys::lease(approval.org, id);
        let Some(lease) = self.records.get::<Lease>(&key).await? else {
            return Ok(None);
        };
        if lease.value.ended.is_some() && lease.value.ended == approval.revoked {
            return Ok(Some(id));
        }
        if !lease.value.stands(self.now()) {
            return Ok(None);
        }
        let over = Lease {
            ended: approval.revoked,
            ..Lease::clone(&lease.value)
        };
        let changes = Changes::default().at(&key, lease.revision).put(&key, &over);
        if self.records.commit(changes).await? == Commit::Conflict {
            return Ok(None);
        }
        self.lease_ended(&over);
        let ended = Ended::Lease(id, over.holder, over.member);
        self.publish(Notice::ended(approval.org, ended, Reason::ApprovalRevoked, false));
        Ok(Some(id))
    }
}
