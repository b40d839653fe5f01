//! Leave to make a lease: what the agent's environment demands, and the approval that a request carries.
//!
//! The posture is that of the environment an agent enrolled into. API keys are in no environment and none is
//! demanded of them: they act for the control plane, which made the task. Everything looked at here is a guard of
//! the lease's commit, and the use of an approval is part of it: there is no use without its lease and no lease
//! without its use.

use super::subject::Subject;
use crate::domain::actor::{Actor, Caller};
use crate::domain::approval::{Approval, Approved, Clearance, Posture, Sought, State, Unapproved};
use crate::domain::directory::Environment;
use crate::domain::lease::{Backing, Lease};
use crate::domain::mode::PermitEntry;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::lease::holder;
use crate::store::keys::{self, Key};
use crate::store::model::{ApprovalUse, LeasePointer};
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, Revision};

/// Whether a new lease may be made, and what that rests on.
pub(super) struct Cleared {
    posture: Posture,
    leave: Result<Clearance, Refusal>,
    guards: Vec<(Key, Revision)>,
}

impl Cleared {
    /// Whether each lease is to be made with an approval.
    pub(super) fn demands_approval(&self) -> bool {
        self.posture == Posture::Required
    }

    /// Leave to make one lease, or why there is none; with guards that keep it true.
    pub(super) fn leave(self, mut changes: Changes) -> Result<(Clearance, Changes), Refusal> {
        for (key, revision) in &self.guards {
            changes = changes.at(key, *revision);
        }
        Ok((self.leave?, changes))
    }
}

/// The lease filed for a holder, subject and what is behind it, and where it is filed.
pub(super) struct Filed {
    pub(super) file: Key,
    pub(super) pointer: Option<Stored<LeasePointer>>,
    pub(super) lease: Option<Stored<Lease>>,
}

impl Broker {
    /// What the caller's environment demands, and the record that says so.
    async fn posture(&self, caller: &Caller) -> Result<(Posture, Option<(Key, Revision)>), Refusal> {
        let Actor::Agent(agent) = caller.actor() else {
            return Ok((Posture::None, None));
        };
        let key = keys::environment(agent.org, agent.environment);
        let environment = self.records.get::<Environment>(&key).await?;
        let environment = environment.ok_or_else(|| Refusal::not_found("environment"))?;
        Ok((environment.value.posture(), Some((key, environment.revision))))
    }

    /// Looks at what is demanded and at the approval that the request carries. Takes nothing yet.
    ///
    /// To be called before the filed lease is read: a use that is seen here has its lease filed by then.
    pub(super) async fn cleared(
        &self,
        caller: &Caller,
        subject: &Subject,
        entry: &PermitEntry,
    ) -> Result<Cleared, Refusal> {
        let (posture, environment) = self.posture(caller).await?;
        let mut guards: Vec<_> = environment.into_iter().collect();
        let leave = match Clearance::by_posture(posture) {
            Some(clearance) => Ok(clearance),
            None => match self.approved(caller, subject, entry, &mut guards).await? {
                Ok(approved) => Ok(Clearance::by_approval(approved)),
                Err(refusal) => Err(refusal),
            },
        };
        Ok(Cleared {
            posture,
            leave,
            guards,
        })
    }

    /// The inner result is the approval's; the outer one says that it could not be looked at.
    async fn approved(
        &self,
        caller: &Caller,
        subject: &Subject,
        entry: &PermitEntry,
        guards: &mut Vec<(Key, Revision)>,
    ) -> Result<Result<Approved, Refusal>, Refusal> {
        let (Actor::Agent(agent), Some(task)) = (caller.actor(), &subject.task) else {
            return Ok(Err(required("only agents' tasks are approved")));
        };
        let sought = Sought {
            environment: agent.environment,
            member: subject.member,
            spec_hash: &task.value.spec_hash,
            executor: &subject.executor,
            provider: &entry.provider,
            mode: entry.mode,
        };
        let Some(token) = &subject.approval else {
            return Ok(Err(demanded(sought)));
        };
        let key = keys::approval(subject.org, token.id());
        let Some(approval) = self.records.get::<Approval>(&key).await? else {
            return Ok(Err(unapproved(Unapproved::Unknown)));
        };
        let uses = keys::approval_uses(subject.org, token.id());
        let uses = self
            .records
            .scan::<ApprovalUse>(uses.as_bytes(), None, MAX_SCAN)
            .await?;
        let taken: Vec<u16> = uses
            .iter()
            .filter_map(|(key, _)| keys::approval_slot(key))
            .collect();
        guards.push((key, approval.revision));
        let start = u16::from_be_bytes(self.random()?);
        let judged = approval
            .value
            .judge(&token.hash(), sought, self.now(), &taken, start);
        Ok(judged.map_err(unapproved))
    }

    /// The lease filed for this holder, subject and what is behind it.
    pub(super) async fn filed(
        &self,
        caller: &Caller,
        subject: &Subject,
        backing: Backing<'_>,
    ) -> Result<Filed, Refusal> {
        let file = keys::lease_for(subject.org, holder(caller)?, &subject.lease_subject(), backing);
        let pointer = self.records.get::<LeasePointer>(&file).await?;
        let lease = match &pointer {
            Some(pointer) => {
                let key = keys::lease(subject.org, pointer.value.lease);
                self.records.get::<Lease>(&key).await?
            }
            None => None,
        };
        Ok(Filed { file, pointer, lease })
    }

    /// Whether the filed lease may be handed out again, under what was found to be demanded.
    pub(super) async fn keeps(&self, cleared: &Cleared, lease: &Lease) -> Result<bool, Refusal> {
        if !lease.stands(self.now()) {
            return Ok(false);
        }
        Ok(match cleared.posture {
            Posture::None => true,
            Posture::Required => self.approval_of(lease).await?.is_ok(),
        })
    }

    /// Refuses early what would be refused when the lease is made, before anything is asked of a provider.
    pub(super) async fn check_cleared(
        &self,
        caller: &Caller,
        subject: &Subject,
        entry: &PermitEntry,
        backing: Backing<'_>,
    ) -> Result<(), Refusal> {
        let cleared = self.cleared(caller, subject, entry).await?;
        if cleared.leave.is_ok() {
            return Ok(());
        }
        if let Some(lease) = self.filed(caller, subject, backing).await?.lease
            && self.keeps(&cleared, &lease.value).await?
        {
            return Ok(());
        }
        cleared.leave.map(|_| ())
    }

    /// Whether a lease may still be served: where the caller's environment demands approvals, the lease was made
    /// with one that is neither over nor taken back.
    pub(super) async fn still_approved(&self, caller: &Caller, lease: &Lease) -> Result<(), Refusal> {
        match self.posture(caller).await?.0 {
            Posture::None => Ok(()),
            Posture::Required => self.approval_of(lease).await?,
        }
    }

    async fn approval_of(&self, lease: &Lease) -> Result<Result<(), Refusal>, Refusal> {
        let Some(id) = lease.approval else {
            return Ok(Err(
                required("the lease was made without an approval").with("lease", lease.id.to_string())
            ));
        };
        let approval = self
            .records
            .get::<Approval>(&keys::approval(lease.org, id))
            .await?;
        let state = approval.map_or(State::Revoked, |approval| approval.value.state(self.now(), 0));
        Ok(match state {
            State::Granted => Ok(()),
            state => Err(unapproved(Unapproved::Stands(state))),
        })
    }
}

fn required(message: &str) -> Refusal {
    Refusal::new(Reason::ApprovalRequired, message)
}

fn demanded(sought: Sought<'_>) -> Refusal {
    let message = match sought.spec_hash {
        "" => "the environment demands an approval, and a task without a spec hash cannot be approved",
        _ => "the environment demands an approval",
    };
    required(message)
        .with("environment", sought.environment.to_string())
        .with("spec_hash", sought.spec_hash)
        .with("executor", sought.executor)
        .with("provider", sought.provider)
        .with("mode", sought.mode.name())
}

fn unapproved(why: Unapproved) -> Refusal {
    let message = match why {
        Unapproved::Unknown => "there is no such approval",
        Unapproved::Mismatch(_) => "the approval is for something else",
        Unapproved::Stands(State::Pending | State::Granted) => "the approval is not decided yet",
        Unapproved::Stands(State::Denied) => "the approval was denied",
        Unapproved::Stands(State::Expired) => "the approval has expired",
        Unapproved::Stands(State::Spent) => "the approval has no use left",
        Unapproved::Stands(State::Revoked) => "the approval was taken back",
    };
    let refusal = Refusal::new(why.reason(), message);
    match why {
        Unapproved::Mismatch(field) => refusal.with("field", field),
        _ => refusal,
    }
}
