//! A lease: what a resolution hands out, one for each (holder, task, credential).

use super::id::{
    AgentId, ApiKeyId, ApprovalId, CredentialId, LeaseId, MemberId, OperatorId, OrgId, ProjectId, TaskId,
};
use super::mode::AuthMode;
use super::rejection::Row;
use super::time::Time;

/// Who a lease was handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// An agent.
    Agent(AgentId),
    /// A control-plane service.
    ApiKey(ApiKeyId),
    /// An operator.
    Operator(OperatorId),
}

impl Holder {
    /// The 16 bytes of its id, which are unique over all kinds.
    pub fn id_bytes(&self) -> [u8; 16] {
        match self {
            Holder::Agent(id) => *id.as_bytes(),
            Holder::ApiKey(id) => *id.as_bytes(),
            Holder::Operator(id) => *id.as_bytes(),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Agent(id) => id.fmt(f),
            Holder::ApiKey(id) => id.fmt(f),
            Holder::Operator(id) => id.fmt(f),
        }
    }
}

/// A lease, without its material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The org.
    pub org: OrgId,
    /// Who it was handed to.
    pub holder: Holder,
    /// The task; `None` for a direct resolution for a member.
    pub task: Option<TaskId>,
    /// The member it works for.
    pub member: MemberId,
    /// The credential behind it; `None` in the modes that use none of the org's or a member's.
    pub credential: Option<CredentialId>,
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: String,
    /// The model, as the provider names it.
    pub model: String,
    /// Which entry of the permit it is.
    pub permit_position: u32,
    /// When it was first handed out.
    pub created: Time,
    /// When it ends.
    pub expires: Time,
    /// When it was released or revoked.
    pub ended: Option<Time>,
    /// The material last handed out by it. `None` in leases of the first release.
    pub handed: Option<Handed>,
    /// The approval it was made with; `None` where none was demanded.
    pub approval: Option<ApprovalId>,
    /// The project it works in. `None` in leases of earlier releases, whose task tells.
    pub project: Option<ProjectId>,
    /// Fresh generations that were rejected one after the other. `None`: the last report was not one of those.
    pub rejections: Option<Row>,
}

/// Material that left the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Its generation.
    pub generation: u64,
    /// When it stops working by itself, where that is known.
    pub expires: Option<Time>,
    /// When the lease first handed it out. `None` in leases of earlier releases.
    pub at: Option<Time>,
}

/// What tells the leases of one holder and task apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing<'a> {
    /// A credential of the org's or a member's.
    Credential(CredentialId),
    /// None of theirs: a mode with a provider.
    Mode(AuthMode, &'a str),
}

impl Lease {
    /// What is behind it.
    pub fn backing(&self) -> Backing<'_> {
        match self.credential {
            Some(credential) => Backing::Credential(credential),
            None => Backing::Mode(self.mode, &self.provider),
        }
    }

    /// Takes over from an earlier lease for the same what counts beyond one lease: giving back and asking anew
    /// forgives no rejections.
    pub fn follow(&mut self, before: &Lease) {
        self.rejections = before.rejections;
        if let (Some(handed), Some(earlier)) = (&mut self.handed, before.handed)
            && handed.generation == earlier.generation
        {
            handed.at = earlier.at;
        }
    }

    /// Whether it still stands at `now`.
    pub fn stands(&self, now: Time) -> bool {
        self.ended.is_none() && now < self.expires
    }
}
