//! The whole keyspace, on one page.
//!
//! ```text
//! s/…                                      the broker itself
//!   authority                              the CA's certificates and keys
//!   journal-key                            the journal's signing key
//!   operator/<operator>                    an operator
//!   org/<org>      org-name/<name>         an org, and its name
//!   home/<id>                              the org of an API key or enrollment token, by its id
//!   effect/<position>                      an effect that began at this journal position has happened
//!   connecting/<org><connection>           a connection goes on without its member's help
//!   exchange/<org><credential>             an exchange is under way or unsettled
//!   operator-seen/<operator>               when an operator token was last used
//!   lock/<org><lock>                       a lock; all orgs' together, for one scan at the start
//!   leaving/<org><member>                  a member who is being removed: what was theirs is ending
//!   spend/                                 how far the sums of spend have read the journal
//!   managed-key/<pool><provider>           one of the platform's own keys
//!   grant-key                              what proxy grants are made and checked with
//!   policy-head                            the version of the policy
//!   policy/<org><project><page>            a page of a scope's cells; no org: the system's, no project: the org's
//!   policy-pins/<org>                      the executors that an org holds to one mode
//!   profile/<org><name>                    a profile
//!   revoking/<time><org><revocation>       a revocation at a provider is to be tried then
//! o/<org>/…                                what belongs to an org
//!   project/<project>       project-name/<name>
//!   environment/<env>       environment-name/<project><name>
//!   member/<member>         member-name/<name>       member-identity/<system:subject>
//!   api-key/<key>
//!   member-token/<member><operator>        an operator token of a member
//!   enrollment-token/<token>               slot/<token><key fingerprint>
//!   agent/<agent>
//!   task/<task>             task-agent/<task><agent>   agent-task/<agent><task>
//!   credential/<credential>                its account, rotation and expiry
//!   credential-secret/<credential>         its secret
//!   credential-answer/<credential>         a token endpoint's answer, staged
//!   revocation/<revocation>                what becomes of the tokens of an account that is gone
//!   revocation-secret/<revocation>         the tokens that it has still to revoke
//!   revocation-of/<credential>             the revocation of what a credential had
//!   credential-lineage/<credential>        the generations that it has had
//!   credential-reported/<credential>       the last report that its provider rejects a key
//!   checked/<credential>                   what the last test of it found out
//!   grant/<fingerprint>                    the credential that has, or had, this refresh token
//!   parallel/<credential>                  how many leases may stand on it at once, and which have a place
//!   credential-slot/<owner><provider>\0<kind>[\0<executor>]
//!                                          which credential it is, by owner, provider and kind; of a key for one
//!                                          executor by that too
//!   connection/<connection>                an account on its way to being connected
//!   connection-secret/<connection>         its state, verifier or device code
//!   connection-answer/<connection>         a token endpoint's answer to it, staged
//!   connections-of/<member>                which connections there are of a member
//!   lease/<lease>           lease-for/<holder><task>…   by credential, or by <mode>\0<provider> where there is none
//!   pin/<task><provider>
//!   agent-seen/<agent>      api-key-seen/<key>   when they were last seen
//!   request/<day><hash>                    what a create with this request id made, by UTC day
//!   approval/<approval>                    an approval
//!   approval-use/<approval><slot>          a use of an approval
//!   approval-wait/<requester><slot>        a place among those that one requester, or (all zeros) the org, has
//!                                          waiting to be decided
//!   extension-namespace/<namespace>        how much a namespace holds
//!   extension-secret/<namespace>\0<name>   a secret of an extension
//!   extension-value/<namespace>\0<name>    its value
//!   extension-grant/<namespace>\0<grantee> who may read a namespace
//!   account/                               the org's subscription, entitlement, credit and quota
//!   taken/<hash>            taken-day/<day><hash>   that an event of usage or credit was taken, and when
//!   spend/<day><mode><project><member><provider>   what was spent, by UTC day
//! ```
//!
//! Ids are their 16 bytes, positions 8 bytes big-endian, so that keys sort by the time of making.

use crate::domain::agent::KeyFingerprint;
use crate::domain::id::{
    AgentId, ApiKeyId, CredentialId, EnrollmentTokenId, EnvironmentId, Id, LeaseId, LockId, MemberId,
    OperatorId, OrgId, ProjectId, TaskId,
};
use crate::domain::journal::Position;
use crate::domain::lease::{Backing, Holder};

mod approvals;
mod billing;
mod connections;
mod credentials;
mod extensions;
mod platform;
mod policy;
mod revocations;
mod tokens;

pub use approvals::*;
pub use billing::*;
pub use connections::*;
pub use credentials::*;
pub use extensions::*;
pub use platform::*;
pub use policy::*;
pub use revocations::*;
pub use tokens::*;

/// A key of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key read back from the store.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, taken.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The id this key ends with; for the keys that do.
    pub fn last_id<K>(&self) -> Option<Id<K>>
    where
        K: crate::domain::id::Kind,
    {
        self.0.last_chunk().map(|bytes| Id::from_bytes(*bytes))
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

fn system(kind: &str, parts: &[&[u8]]) -> Key {
    build(b"s/", &[], kind, parts)
}

fn of(org: OrgId, kind: &str, parts: &[&[u8]]) -> Key {
    build(b"o/", &[org.as_bytes(), b"/"], kind, parts)
}

fn build(space: &[u8], scope: &[&[u8]], kind: &str, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(96);
    key.extend_from_slice(space);
    scope.iter().for_each(|part| key.extend_from_slice(part));
    key.extend_from_slice(kind.as_bytes());
    key.push(b'/');
    parts.iter().for_each(|part| key.extend_from_slice(part));
    Key(key)
}

/// The CA's certificates and keys.
pub fn authority() -> Key {
    system("authority", &[])
}

/// The journal's signing key.
pub fn journal_key() -> Key {
    system("journal-key", &[])
}

/// All operators.
pub fn operators() -> Key {
    system("operator", &[])
}

/// An operator.
pub fn operator(id: OperatorId) -> Key {
    system("operator", &[id.as_bytes()])
}

/// All orgs.
pub fn orgs() -> Key {
    system("org", &[])
}

/// An org.
pub fn org(id: OrgId) -> Key {
    system("org", &[id.as_bytes()])
}

/// An org's name.
pub fn org_name(name: &str) -> Key {
    system("org-name", &[name.as_bytes()])
}

/// The org of an API key.
pub fn api_key_home(id: ApiKeyId) -> Key {
    system("home", &[id.as_bytes()])
}

/// The org of an enrollment token.
pub fn enrollment_token_home(id: EnrollmentTokenId) -> Key {
    system("home", &[id.as_bytes()])
}

/// All marks of effects.
pub fn effects() -> Key {
    system("effect", &[])
}

/// The mark that the effect which began at `position` has happened.
pub fn effect(position: Position) -> Key {
    system("effect", &[&position.0.to_be_bytes()])
}

/// All exchanges under way or unsettled.
pub fn exchanges() -> Key {
    system("exchange", &[])
}

/// The mark of an exchange under way or unsettled.
pub fn exchange(org: OrgId, id: CredentialId) -> Key {
    system("exchange", &[org.as_bytes(), id.as_bytes()])
}

/// The org and credential of a key made by [`exchange`].
pub fn exchange_of(key: &Key) -> Option<(OrgId, CredentialId)> {
    let ids: &[u8; 32] = key.0.last_chunk()?;
    let (org, credential) = ids.split_first_chunk::<16>()?;
    Some((Id::from_bytes(*org), Id::from_bytes(credential.try_into().ok()?)))
}

/// When an operator token was last used.
pub fn operator_seen(id: OperatorId) -> Key {
    system("operator-seen", &[id.as_bytes()])
}

/// When an agent was last seen.
pub fn agent_seen(org: OrgId, id: AgentId) -> Key {
    of(org, "agent-seen", &[id.as_bytes()])
}

/// When an API key was last used.
pub fn api_key_seen(org: OrgId, id: ApiKeyId) -> Key {
    of(org, "api-key-seen", &[id.as_bytes()])
}

/// All members who are being removed, of all orgs.
pub fn all_leaving() -> Key {
    system("leaving", &[])
}

/// The mark of a member who is being removed.
pub fn leaving(org: OrgId, id: MemberId) -> Key {
    system("leaving", &[org.as_bytes(), id.as_bytes()])
}

/// The org and member of a key made by [`leaving`].
pub fn leaving_of(key: &Key) -> Option<(OrgId, MemberId)> {
    let ids: &[u8; 32] = key.0.last_chunk()?;
    let (org, member) = ids.split_first_chunk::<16>()?;
    Some((Id::from_bytes(*org), Id::from_bytes(member.try_into().ok()?)))
}

/// All locks, of all orgs.
pub fn all_locks() -> Key {
    system("lock", &[])
}

/// All locks of an org.
pub fn locks(org: OrgId) -> Key {
    system("lock", &[org.as_bytes()])
}

/// A lock.
pub fn lock(org: OrgId, id: LockId) -> Key {
    system("lock", &[org.as_bytes(), id.as_bytes()])
}

/// All projects of an org.
pub fn projects(org: OrgId) -> Key {
    of(org, "project", &[])
}

/// A project.
pub fn project(org: OrgId, id: ProjectId) -> Key {
    of(org, "project", &[id.as_bytes()])
}

/// A project's name.
pub fn project_name(org: OrgId, name: &str) -> Key {
    of(org, "project-name", &[name.as_bytes()])
}

/// All environments of an org.
pub fn environments(org: OrgId) -> Key {
    of(org, "environment", &[])
}

/// An environment.
pub fn environment(org: OrgId, id: EnvironmentId) -> Key {
    of(org, "environment", &[id.as_bytes()])
}

/// An environment's name.
pub fn environment_name(org: OrgId, project: ProjectId, name: &str) -> Key {
    of(org, "environment-name", &[project.as_bytes(), name.as_bytes()])
}

/// All members of an org.
pub fn members(org: OrgId) -> Key {
    of(org, "member", &[])
}

/// A member.
pub fn member(org: OrgId, id: MemberId) -> Key {
    of(org, "member", &[id.as_bytes()])
}

/// A member's name.
pub fn member_name(org: OrgId, name: &str) -> Key {
    of(org, "member-name", &[name.as_bytes()])
}

/// A member's outside identity.
pub fn member_identity(org: OrgId, identity: &str) -> Key {
    of(org, "member-identity", &[identity.as_bytes()])
}

/// All API keys of an org.
pub fn api_keys(org: OrgId) -> Key {
    of(org, "api-key", &[])
}

/// An API key.
pub fn api_key(org: OrgId, id: ApiKeyId) -> Key {
    of(org, "api-key", &[id.as_bytes()])
}

/// All enrollment tokens of an org.
pub fn enrollment_tokens(org: OrgId) -> Key {
    of(org, "enrollment-token", &[])
}

/// An enrollment token.
pub fn enrollment_token(org: OrgId, id: EnrollmentTokenId) -> Key {
    of(org, "enrollment-token", &[id.as_bytes()])
}

/// The slot of an enrollment token that is bound to a key.
pub fn slot(org: OrgId, token: EnrollmentTokenId, key: KeyFingerprint) -> Key {
    of(org, "slot", &[token.as_bytes(), &key.0])
}

/// The bound slots of an enrollment token.
pub fn slots(org: OrgId, token: EnrollmentTokenId) -> Key {
    of(org, "slot", &[token.as_bytes()])
}

/// The public key of a key made by [`slot`].
pub fn slot_key(key: &Key) -> Option<KeyFingerprint> {
    key.0.last_chunk().map(|bytes| KeyFingerprint(*bytes))
}

/// All agents of an org.
pub fn agents(org: OrgId) -> Key {
    of(org, "agent", &[])
}

/// An agent.
pub fn agent(org: OrgId, id: AgentId) -> Key {
    of(org, "agent", &[id.as_bytes()])
}

/// All tasks of an org.
pub fn tasks(org: OrgId) -> Key {
    of(org, "task", &[])
}

/// A task.
pub fn task(org: OrgId, id: TaskId) -> Key {
    of(org, "task", &[id.as_bytes()])
}

/// The agents assigned to a task.
pub fn task_agents(org: OrgId, task: TaskId) -> Key {
    of(org, "task-agent", &[task.as_bytes()])
}

/// An agent's assignment, seen from the task.
pub fn task_agent(org: OrgId, task: TaskId, agent: AgentId) -> Key {
    of(org, "task-agent", &[task.as_bytes(), agent.as_bytes()])
}

/// The tasks an agent is assigned to.
pub fn agent_tasks(org: OrgId, agent: AgentId) -> Key {
    of(org, "agent-task", &[agent.as_bytes()])
}

/// An agent's assignment, seen from the agent.
pub fn agent_task(org: OrgId, agent: AgentId, task: TaskId) -> Key {
    of(org, "agent-task", &[agent.as_bytes(), task.as_bytes()])
}

/// All leases of an org.
pub fn leases(org: OrgId) -> Key {
    of(org, "lease", &[])
}

/// A lease.
pub fn lease(org: OrgId, id: LeaseId) -> Key {
    of(org, "lease", &[id.as_bytes()])
}

/// Every lease ever handed to a holder.
pub fn leases_for(org: OrgId, holder: Holder) -> Key {
    of(org, "lease-for", &[&holder_part(holder)])
}

/// The lease of a holder for a task and what is behind it. `subject` is the task's id, or for a direct resolution
/// the member's.
pub fn lease_for(org: OrgId, holder: Holder, subject: &[u8; 16], backing: Backing<'_>) -> Key {
    let holder = holder_part(holder);
    match backing {
        Backing::Credential(id) => of(org, "lease-for", &[&holder, subject, id.as_bytes()]),
        Backing::Mode(mode, provider) => {
            let parts: [&[u8]; 5] = [
                &holder,
                subject,
                mode.name().as_bytes(),
                b"\0",
                provider.as_bytes(),
            ];
            of(org, "lease-for", &parts)
        }
    }
}

/// All pins of a task.
pub fn pins(org: OrgId, task: TaskId) -> Key {
    of(org, "pin", &[task.as_bytes()])
}

/// A task's pin, for one of the providers that its executor can use.
pub fn pin(org: OrgId, task: TaskId, provider: &str) -> Key {
    of(org, "pin", &[task.as_bytes(), provider.as_bytes()])
}

/// What creates with a request id made, of all days.
pub fn requests(org: OrgId) -> Key {
    of(org, "request", &[])
}

/// What a create with a request id made on a UTC day. `hash` covers the caller, the call and the request id.
pub fn request(org: OrgId, day: u32, hash: &[u8; 32]) -> Key {
    of(org, "request", &[&day.to_be_bytes(), hash])
}

/// The provider of a key made by [`pin`].
pub fn pin_provider(key: &Key) -> Option<String> {
    let before = of(OrgId::from_bytes([0; 16]), "pin", &[&[0; 16]]).0.len();
    String::from_utf8(key.0.get(before..)?.to_vec()).ok()
}

fn holder_part(holder: Holder) -> [u8; 17] {
    match holder {
        Holder::Agent(id) => tagged(0, id.as_bytes()),
        Holder::ApiKey(id) => tagged(1, id.as_bytes()),
        Holder::Operator(id) => tagged(2, id.as_bytes()),
    }
}

fn tagged(tag: u8, id: &[u8; 16]) -> [u8; 17] {
    let mut part = [tag; 17];
    part[1..].copy_from_slice(id);
    part
}
