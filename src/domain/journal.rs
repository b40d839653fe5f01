//! What a journal record says. References only, never a secret.

use std::fmt::{Display, Write as _};

use super::id::OrgId;
use super::reason::Reason;

macro_rules! actions {
    ($($variant:ident, $name:literal;)*) => {
        /// What a record is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Action] = &[$(Action::$variant,)*];

            /// The name stored.
            pub const fn name(self) -> &'static str {
                match self { $(Action::$variant => $name,)* }
            }

            /// The action of this name.
            pub fn from_name(name: &str) -> Option<Action> {
                match name { $($name => Some(Action::$variant),)* _ => None }
            }
        }
    };
}

actions! {
    Resolve, "credential.resolve";
    ForceRotate, "credential.force_rotate";
    Refresh, "credential.refresh";
    RefreshRecover, "credential.refresh_recover";
    CredentialSet, "credential.set";
    CredentialImport, "credential.import";
    CredentialRemove, "credential.remove";
    LeaseRelease, "lease.release";
    Enroll, "agent.enroll";
    AgentActivate, "agent.activate";
    CertificateRenew, "agent.renew_certificate";
    RuntimeKeyRotate, "agent.rotate_runtime_key";
    AgentRevoke, "agent.revoke";
    EnrollmentTokenCreate, "enrollment_token.create";
    EnrollmentTokenRevoke, "enrollment_token.revoke";
    EnrollmentAlarm, "enrollment_token.alarm";
    TaskCreate, "task.create";
    TaskAssign, "task.assign";
    TaskEnd, "task.end";
    OrgCreate, "org.create";
    OrgUpdate, "org.update";
    ProjectCreate, "project.create";
    ProjectUpdate, "project.update";
    EnvironmentCreate, "environment.create";
    EnvironmentUpdate, "environment.update";
    MemberCreate, "member.create";
    MemberUpdate, "member.update";
    ApiKeyCreate, "api_key.create";
    ApiKeyRevoke, "api_key.revoke";
    OperatorCreate, "operator.create";
    BrokerStart, "broker.start";
    BrokerStop, "broker.stop";
    RequestRefuse, "request.refuse";
    JournalPrune, "journal.prune";
    AgentClone, "agent.clone_alarm";
    AgentExpire, "agent.expire";
    Collect, "broker.collect";
    OperatorRotate, "operator.rotate";
    OperatorRevoke, "operator.revoke";
    OperatorRecover, "operator.recover";
    RoleGrant, "role.grant";
    RoleRevoke, "role.revoke";
    ApiKeyRotate, "api_key.rotate";
    ApprovalRequest, "approval.request";
    ApprovalCreate, "approval.create";
    ApprovalGrant, "approval.grant";
    ApprovalDeny, "approval.deny";
    ApprovalRevoke, "approval.revoke";
    SecretSet, "secret.set";
    SecretRemove, "secret.remove";
    SecretGrant, "secret.grant";
    SecretRevoke, "secret.revoke";
    SecretRead, "secret.read";
    LockCreate, "lock.create";
    LockRemove, "lock.remove";
    MemberRemove, "member.remove";
    IdentityLink, "member.link_identities";
    AccountUpdate, "account.update";
    CreditAdd, "credit.add";
    UsageReport, "usage.report";
    ManagedKeySet, "managed_key.set";
    ManagedKeyRemove, "managed_key.remove";
    GrantIntrospect, "proxy_grant.introspect";
    PolicyApply, "policy.apply";
    PolicySetCells, "policy.set_cells";
    ExecutorPin, "executor.pin";
    ExecutorUnpin, "executor.unpin";
    ProfileCreate, "profile.create";
    ProfileUpdate, "profile.update";
    ProfileRemove, "profile.remove";
    ConnectionBegin, "connection.begin";
    ConnectionExchange, "connection.exchange";
    ConnectionFail, "connection.fail";
    ConnectionCancel, "connection.cancel";
    AccountConnect, "account.connect";
    AccountDisconnect, "account.disconnect";
    TokenRevoke, "account.revoke_tokens";
    CredentialTest, "credential.test";
    CredentialParallelism, "credential.set_parallelism";
}

/// The place of a record in its journal, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Which part of an effect a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A decision or event, whole in itself.
    Single,
    /// Written, durable, before an effect happens.
    Begin,
    /// The effect that began at this position has happened, or is known not to have.
    Finish(Position),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Allowed, or done. Of a begin: about to be done.
    Allowed,
    /// Refused.
    Denied(Reason),
    /// Allowed, and failed.
    Failed(Reason),
}

/// Room for what a resolution concerns, and for an id: every request makes one of those, and growing step by
/// step costs more than writing it.
const USUAL_SUBJECTS: usize = 12;
const USUAL_LENGTH: usize = 36;

/// A record, before it is given its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub action: Action,
    /// Which part of an effect.
    pub phase: Phase,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked: an id with its kind's prefix, or `broker`, or `anonymous`.
    pub actor: String,
    /// The org it concerns.
    pub org: Option<OrgId>,
    /// What it concerns, by kind. Keys are fixed words of the program, values ids, names and numbers.
    pub subject: Vec<(&'static str, String)>,
    /// The caller's request id; empty for none.
    pub request_id: String,
}

impl Record {
    /// A record of `action` by `actor`, whole and allowed until said otherwise.
    pub fn new(action: Action, actor: impl Into<String>, org: Option<OrgId>) -> Self {
        Self {
            action,
            phase: Phase::Single,
            outcome: Outcome::Allowed,
            actor: actor.into(),
            org,
            subject: Vec::with_capacity(USUAL_SUBJECTS),
            request_id: String::new(),
        }
    }

    /// Adds what it concerns.
    pub fn about(mut self, kind: &'static str, value: impl Display) -> Self {
        let mut text = String::with_capacity(USUAL_LENGTH);
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{value}");
        self.subject.push((kind, text));
        self
    }

    /// Sets how it ended.
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Sets which part of an effect it is.
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// Sets the caller's request id.
    pub fn request(mut self, id: &str) -> Self {
        self.request_id = id.to_owned();
        self
    }
}
