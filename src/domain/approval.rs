//! Approvals: what was asked for, who decided, and the check that one allows what is asked now.
//!
//! An approval binds environment, spec hash and capability, all compared exactly. [`Approval::judge`] is the only
//! maker of [`Approved`], and a [`Clearance`] is had only with one or from an environment that demands none; a new
//! lease takes a clearance. An `Approved` is neither copied nor cloned, so it makes one lease and no more.

use std::time::Duration;

use super::actor::Actor;
use super::id::{
    AgentId, ApiKeyId, ApprovalId, EnvironmentId, MemberId, OperatorId, OrgId, ProjectId, TaskId,
};
use super::mode::AuthMode;
use super::reason::Reason;
use super::time::Time;
use super::token::TokenHash;

mod capability;
#[cfg(test)]
mod tests;

pub use capability::{ANY, BadList, Capability, Listed, MAX_LISTED};

/// What an environment demands of resolutions by its agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Posture {
    /// No approval.
    #[default]
    None,
    /// An approval for every lease.
    Required,
}

impl Posture {
    /// The name in commands and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Posture::None => "none",
            Posture::Required => "required",
        }
    }
}

/// Somebody who asks or decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// An agent.
    Agent(AgentId),
    /// An org API key.
    ApiKey(ApiKeyId),
    /// A member, whichever of their tokens they show.
    Member(MemberId),
    /// An operator.
    Operator(OperatorId),
}

impl From<&Actor> for Party {
    fn from(actor: &Actor) -> Self {
        match actor {
            Actor::Agent(agent) => Party::Agent(agent.id),
            Actor::ApiKey { id, .. } => Party::ApiKey(*id),
            Actor::Member { id, .. } => Party::Member(*id),
            Actor::Operator(id) => Party::Operator(*id),
        }
    }
}

impl Party {
    /// Its id's bytes.
    pub fn id_bytes(self) -> [u8; 16] {
        match self {
            Party::Agent(id) => *id.as_bytes(),
            Party::ApiKey(id) => *id.as_bytes(),
            Party::Member(id) => *id.as_bytes(),
            Party::Operator(id) => *id.as_bytes(),
        }
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Party::Agent(id) => id.fmt(f),
            Party::ApiKey(id) => id.fmt(f),
            Party::Member(id) => id.fmt(f),
            Party::Operator(id) => id.fmt(f),
        }
    }
}

/// How a request was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// By whom.
    pub by: Party,
    /// When.
    pub at: Time,
    /// Whether it was granted.
    pub granted: bool,
    /// What they said.
    pub message: String,
}

/// An approval, asked for or made. Its uses are recorded apart from it, one a slot.
#[derive(Clone, Debug)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The org.
    pub org: OrgId,
    /// The environment's project.
    pub project: ProjectId,
    /// The environment whose agents may use it.
    pub environment: EnvironmentId,
    /// The task it was asked for, where one was named.
    pub task: Option<TaskId>,
    /// The member of that task.
    pub member: Option<MemberId>,
    /// The spec hash of the tasks it serves; never empty.
    pub spec_hash: String,
    /// What it allows.
    pub capability: Capability,
    /// The hash of its token.
    pub token: TokenHash,
    /// Who asked; `None` where an approver made it unasked.
    pub requester: Option<Party>,
    /// Why, in the requester's words.
    pub reason: String,
    /// How long it is good for once granted, in milliseconds.
    pub ttl_ms: u64,
    /// How many leases it is good for.
    pub use_limit: u32,
    /// When it was asked for or made.
    pub created: Time,
    /// When it ends; until it is decided: when it is no longer waited for.
    pub expires: Time,
    /// How it was decided; `None`: not yet.
    pub ruling: Option<Ruling>,
    /// When it was taken back.
    pub revoked: Option<Time>,
}

/// How an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for and not decided.
    Pending,
    /// Good for what it allows.
    Granted,
    /// Denied.
    Denied,
    /// Its time is over, or nobody decided in time.
    Expired,
    /// Used as often as it may be.
    Spent,
    /// Taken back.
    Revoked,
}

/// What a resolution wants an approval for.
#[derive(Clone, Copy, Debug)]
pub struct Sought<'a> {
    /// The agent's environment.
    pub environment: EnvironmentId,
    /// The task's member.
    pub member: MemberId,
    /// The task's spec hash.
    pub spec_hash: &'a str,
    /// The agent program.
    pub executor: &'a str,
    /// The provider.
    pub provider: &'a str,
    /// The mode.
    pub mode: AuthMode,
}

/// Why an approval does not allow what is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unapproved {
    /// The token is not this approval's.
    Unknown,
    /// How it stands does not let it.
    Stands(State),
    /// It is for something else; the field says what.
    Mismatch(&'static str),
}

impl Unapproved {
    /// The reason that callers are given.
    pub fn reason(self) -> Reason {
        match self {
            Unapproved::Unknown => Reason::ApprovalUnknown,
            Unapproved::Mismatch(_) => Reason::ApprovalMismatch,
            Unapproved::Stands(State::Pending | State::Granted) => Reason::ApprovalPending,
            Unapproved::Stands(State::Denied) => Reason::ApprovalDenied,
            Unapproved::Stands(State::Expired) => Reason::ApprovalExpired,
            Unapproved::Stands(State::Spent) => Reason::ApprovalSpent,
            Unapproved::Stands(State::Revoked) => Reason::ApprovalRevoked,
        }
    }
}

/// Why a request is not decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecidable {
    /// The approver asked for it, or the task is theirs.
    Own,
    /// It was decided before, or taken back.
    Decided(State),
    /// More was granted than asked for; the field says of what.
    Wider(&'static str),
}

/// Proof that an approval allows what was sought, with the slot that the use is to be recorded in.
#[derive(Debug, PartialEq, Eq)]
pub struct Approved {
    approval: ApprovalId,
    slot: u16,
    expires: Time,
}

impl Approved {
    /// The approval.
    pub fn approval(&self) -> ApprovalId {
        self.approval
    }

    /// Which of the approval's uses this is, from 0. Taken by whoever records it first.
    pub fn slot(&self) -> u16 {
        self.slot
    }
}

/// Leave to make a lease: the environment demands nothing, or an approval is used.
#[derive(Debug)]
pub struct Clearance(Option<Approved>);

impl Clearance {
    /// Leave by the posture alone; `None` where it demands an approval.
    pub fn by_posture(posture: Posture) -> Option<Self> {
        match posture {
            Posture::None => Some(Self(None)),
            Posture::Required => None,
        }
    }

    /// Leave by an approval.
    pub fn by_approval(approved: Approved) -> Self {
        Self(Some(approved))
    }

    /// The use of an approval that goes with it.
    pub fn approved(&self) -> Option<&Approved> {
        self.0.as_ref()
    }

    /// When a lease made with it ends, that would otherwise end at `end`: nothing is handed out by an approval
    /// that is over.
    pub fn bound(&self, end: Time) -> Time {
        self.0.as_ref().map_or(end, |approved| approved.expires.min(end))
    }
}

/// The shortest and the longest time an approval is good for, and the usual one.
pub const TTL_MIN: Duration = Duration::from_secs(60);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// See [`TTL_MIN`].
pub const TTL_USUAL: Duration = Duration::from_secs(3_600);
/// How many leases one approval may be good for.
pub const MAX_USES: u32 = 1_000;
/// How long a request waits for somebody to decide.
pub const PENDING_FOR: Duration = Duration::from_secs(86_400);

impl Approval {
    /// How it stands after `uses` uses.
    pub fn state(&self, now: Time, uses: usize) -> State {
        let over = now >= self.expires;
        match &self.ruling {
            _ if self.revoked.is_some() => State::Revoked,
            Some(ruling) if !ruling.granted => State::Denied,
            _ if over => State::Expired,
            None => State::Pending,
            Some(_) if u32::try_from(uses).is_ok_and(|uses| uses < self.use_limit) => State::Granted,
            Some(_) => State::Spent,
        }
    }

    /// Whether a lease that was made with it may go on being handed out.
    pub fn holds(&self, now: Time) -> bool {
        self.state(now, 0) == State::Granted
    }

    /// Whether this, presented with a token of hash `presented`, allows what is sought. `taken` are the slots
    /// used already; `start` is where the search for a free one begins, so that many callers at once seldom want
    /// the same.
    pub fn judge(
        &self,
        presented: &TokenHash,
        sought: Sought<'_>,
        now: Time,
        taken: &[u16],
        start: u16,
    ) -> Result<Approved, Unapproved> {
        if !self.token.matches(presented) {
            return Err(Unapproved::Unknown);
        }
        let state = self.state(now, taken.len());
        let ruling = match &self.ruling {
            Some(ruling) if matches!(state, State::Granted | State::Spent) => ruling,
            _ => return Err(Unapproved::Stands(state)),
        };
        // Nobody's word lets work go on in their own name.
        let own = ruling.by == Party::Member(sought.member);
        let mismatch = if self.environment != sought.environment {
            Some("environment")
        } else if self.spec_hash.is_empty() || self.spec_hash != sought.spec_hash {
            Some("spec_hash")
        } else if own {
            Some("member")
        } else {
            self.capability
                .lacks(sought.executor, sought.provider, sought.mode)
        };
        if let Some(field) = mismatch {
            return Err(Unapproved::Mismatch(field));
        }
        let slots = u16::try_from(self.use_limit).unwrap_or(u16::MAX);
        let free = |slot: &u16| !taken.contains(slot);
        let start = start.checked_rem(slots).unwrap_or(0);
        let slot = (start..slots).chain(0..start).find(free);
        match slot {
            Some(slot) if state == State::Granted => Ok(Approved {
                approval: self.id,
                slot,
                expires: self.expires,
            }),
            _ => Err(Unapproved::Stands(State::Spent)),
        }
    }

    /// The approval as granted by `by`, for as long and as often as was asked for, or less.
    pub fn granted(
        &self,
        by: Party,
        now: Time,
        ttl: Option<Duration>,
        use_limit: Option<u32>,
        message: &str,
    ) -> Result<Approval, Undecidable> {
        let asked = Duration::from_millis(self.ttl_ms);
        let ttl = ttl.unwrap_or(asked);
        if ttl > asked || ttl < TTL_MIN {
            return Err(Undecidable::Wider("ttl"));
        }
        let use_limit = use_limit.unwrap_or(self.use_limit);
        if use_limit > self.use_limit || use_limit == 0 {
            return Err(Undecidable::Wider("use_limit"));
        }
        Ok(Approval {
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(self.ttl_ms),
            use_limit,
            expires: now + ttl,
            ..self.decided(by, now, true, message)?
        })
    }

    /// The approval as denied by `by`.
    pub fn denied(&self, by: Party, now: Time, message: &str) -> Result<Approval, Undecidable> {
        self.decided(by, now, false, message)
    }

    fn decided(&self, by: Party, now: Time, granted: bool, message: &str) -> Result<Approval, Undecidable> {
        let task_of = |member: MemberId| by == Party::Member(member);
        if self.requester == Some(by) || self.member.is_some_and(task_of) {
            return Err(Undecidable::Own);
        }
        match self.state(now, 0) {
            State::Pending => Ok(Approval {
                ruling: Some(Ruling {
                    by,
                    at: now,
                    granted,
                    message: message.to_owned(),
                }),
                ..self.clone()
            }),
            state => Err(Undecidable::Decided(state)),
        }
    }
}
