//! What is stored: the table of every record, and the few structs that exist only to be stored.
//!
//! Field numbers are for good. `tests/golden` holds the bytes of each record as first released; a test
//! decodes them with today's tables.

mod checked;
mod parallelism;
mod reported;
mod revocation;

use minicbor::bytes::{ByteArray, ByteVec};

use super::record::Record;
use super::table::{choice, table};
use crate::domain::agent::{Agent, Certificates};
use crate::domain::approval::{Approval, Capability, Party, Posture, Ruling};
use crate::domain::billing::{Account, Entitlement, Subscription};
use crate::domain::cost::Spend;
use crate::domain::credential::Credential;
use crate::domain::directory::{
    ApiKey, Environment, Group, Member, MemberOf, Operator, Org, PreviousToken, Project,
};
use crate::domain::enrollment::EnrollmentToken;
use crate::domain::extension::{ExtensionSecret, Grantee, Namespace, SecretGrant};
use crate::domain::id::{AgentId, CredentialId, LeaseId, OrgId};
use crate::domain::lease::{Handed, Holder, Lease};
use crate::domain::lineage::{Lineage, Link, Origin};
use crate::domain::lock::{Lock, LockTarget};
use crate::domain::matrix::Cell;
use crate::domain::mode::{AuthMode, CredentialKind, ModeSet};
use crate::domain::profile::{OnRejection, Profile};
use crate::domain::rejection::{Failing, Forced, Row, Share, Window};
use crate::domain::role::{Grant, Role, Scope};
use crate::domain::rotation::{Death, Phase, Rotation, Sent};
use crate::domain::secret::{
    self, AccessToken, AwsSecretKey, AwsSessionToken, ExtensionValue, KeyMaterial, RawAnswer, RefreshToken,
    Secret,
};
use crate::domain::task::{Capacity, Task};

pub use reported::Reported;
pub use revocation::{KeptToken, RevocationDue, RevocationSecret};

/// The CA: certificates and the keys that sign.
pub struct StoredAuthority {
    /// The root's certificate, DER.
    pub root: ByteVec,
    /// The root's key, PKCS#8.
    pub root_key: Secret<KeyMaterial>,
    /// The issuing CA's certificate, DER.
    pub issuing: ByteVec,
    /// The issuing CA's key, PKCS#8.
    pub issuing_key: Secret<KeyMaterial>,
}

/// The journal's signing key.
pub struct StoredJournalKey {
    /// Ed25519, PKCS#8.
    pub key: Secret<KeyMaterial>,
    /// The journal it signs: another one in its place is not taken.
    pub journal: ByteArray<16>,
}

/// Which org an API key or enrollment token belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    /// The org.
    pub org: OrgId,
}

/// The id a name or another natural key stands for.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    /// The id's 16 bytes.
    pub id: ByteArray<16>,
}

/// That something is so; the key says what.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// When it came to be so.
    pub since: crate::domain::time::Time,
}

/// A slot of an enrollment token.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The agent that enrolled in it.
    pub agent: AgentId,
}

/// A credential's secret. Of the same generation as the credential, or older while the two are being read
/// apart.
pub struct CredentialSecret {
    /// The generation it belongs to.
    pub generation: u64,
    /// The access token, the API key or the bearer key. `None` where only a refresh token is known yet, and of
    /// AWS keys.
    pub access: Option<Secret<AccessToken>>,
    /// The refresh token of a grant.
    pub refresh: Option<Secret<RefreshToken>>,
    /// AWS keys.
    pub aws: Option<AwsSecret>,
}

/// AWS keys: the pair, and the session token of temporary ones.
pub struct AwsSecret {
    /// The access key id; not a secret by itself.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: Secret<AwsSecretKey>,
    /// The session token.
    pub session_token: Option<Secret<AwsSessionToken>>,
}

/// A token endpoint's answer, stored before it is looked at.
pub struct StagedAnswer {
    /// The fence of the exchange.
    pub fence: u64,
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` said, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The body.
    pub body: Secret<RawAnswer>,
    /// When it came in.
    pub received: crate::domain::time::Time,
}

/// A task's first choice. A choice, never a permission.
#[derive(Clone, Debug)]
pub struct Pin {
    /// The credential; `None` in the modes that use none of the org's or a member's.
    pub credential: Option<CredentialId>,
    /// Which entry of the permit.
    pub position: u32,
    /// What the task runs on. `None` in pins of the first release, which tell it by their credential.
    pub runs: Option<Runs>,
}

/// What a task runs on, whatever its profile says by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The mode.
    pub mode: AuthMode,
    /// The provider.
    pub provider: String,
    /// The modes it started with.
    pub modes: ModeSet,
    /// What is to happen when the provider rejects the credential.
    pub on_rejection: OnRejection,
    /// The key that its profile named.
    pub named: Option<CredentialId>,
    /// The kind of its credential; `None` in the modes that use none of the org's or a member's.
    pub kind: Option<CredentialKind>,
    /// The code of the reason why it is not the first way it might have been served; `None` where it is.
    pub because: Option<String>,
}

/// Which lease serves a holder for a task and credential.
#[derive(Clone, Copy, Debug)]
pub struct LeasePointer {
    /// The lease.
    pub lease: LeaseId,
}

/// When somebody was last seen, as far as it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: crate::domain::time::Time,
    /// The address the request came from.
    pub address: Option<String>,
    /// The version an agent's program said it has.
    pub version: Option<String>,
    /// What an agent last said of itself.
    pub attributes: Option<Vec<(String, String)>>,
}

/// What a create with a request id made.
#[derive(Clone, Debug)]
pub struct RequestOutcome {
    /// SHA-256 of the request's content.
    pub content: ByteArray<32>,
    /// The id it made.
    pub id: ByteArray<16>,
    /// When.
    pub at: crate::domain::time::Time,
}

/// A use of an approval.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalUse {
    /// The lease that it was used for.
    pub lease: LeaseId,
    /// Whose.
    pub holder: Holder,
    /// When.
    pub at: crate::domain::time::Time,
}

/// The value of an extension's secret.
pub struct ExtensionSecretValue {
    /// Which of the secret's values it is.
    pub version: u64,
    /// The value.
    pub value: Secret<ExtensionValue>,
}

/// That an event of usage or credit was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// SHA-256 of the event's content.
    pub content: ByteArray<32>,
    /// When.
    pub at: crate::domain::time::Time,
}

/// How far the sums of spend have read the journal.
#[derive(Clone, Copy, Debug)]
pub struct SpendCheckpoint {
    /// All up to this position is in the sums.
    pub position: u64,
}

/// The version of the policy. Every change of any of it changes this too, guarded by what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyHead {
    /// The version.
    pub version: u64,
}

/// Some of the cells of a scope. A scope has as many pages as its cells need, so that a change of many scopes
/// fits one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPage {
    /// The cells.
    pub cells: Vec<Cell>,
}

/// The executors that an org holds to one mode each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPins {
    /// Executor and mode.
    pub pins: Vec<(String, AuthMode)>,
}

/// One of the platform's own keys, stored through the API. What is left of one that was removed counts on.
pub struct StoredManagedKey {
    /// The provider.
    pub provider: String,
    /// Counts the keys there were.
    pub generation: u64,
    /// The key; empty once it was removed.
    pub key: Secret<secret::ApiKey>,
    /// Its last characters.
    pub hint: String,
    /// When it was set, or removed.
    pub updated: crate::domain::time::Time,
    /// Until when the key before it may be in use.
    pub previous_until: Option<crate::domain::time::Time>,
    /// Whether it was removed.
    pub removed: bool,
}

/// What proxy grants are made and checked with.
pub struct StoredGrantKey {
    /// The key of the MAC.
    pub key: Secret<KeyMaterial>,
}

macro_rules! records {
    ($($type:ty, $version:literal $(, large: $large:literal)? $(, cache: $cache:literal)?;)*) => {
        $(impl Record for $type {
            const VERSION: u8 = $version;
            $(const LARGE: bool = $large;)?
            $(const CACHE: bool = $cache;)?
        })*
    };
}

records! {
    StoredAuthority, 1, cache: false;
    StoredJournalKey, 1, cache: false;
    Home, 1;
    Pointer, 1;
    Mark, 1;
    Slot, 1;
    Operator, 1;
    Org, 1;
    Project, 1;
    Environment, 1;
    Member, 1;
    ApiKey, 1;
    EnrollmentToken, 1;
    Agent, 1;
    Task, 1;
    Credential, 1, large: true;
    CredentialSecret, 1, large: true;
    StagedAnswer, 1, large: true, cache: false;
    Lease, 1;
    LeasePointer, 1;
    Pin, 1;
    RequestOutcome, 1, cache: false;
    Seen, 1, cache: false;
    Lock, 1, cache: false;
    Approval, 1;
    ApprovalUse, 1, cache: false;
    ExtensionSecret, 1;
    ExtensionSecretValue, 1, large: true, cache: false;
    SecretGrant, 1;
    Namespace, 1;
    Account, 1;
    Taken, 1, cache: false;
    Spend, 1, cache: false;
    SpendCheckpoint, 1, cache: false;
    PolicyHead, 1, cache: false;
    PolicyPage, 1, cache: false;
    PolicyPins, 1, cache: false;
    Profile, 1, cache: false;
    StoredManagedKey, 1, large: true;
    StoredGrantKey, 1, cache: false;
    Lineage, 1;
    Forced, 1;
    Window, 1;
}

mod connections;
pub use connections::ConnectionSecret;

table!(StoredAuthority { 0 => root, 1 => root_key, 2 => issuing, 3 => issuing_key });
table!(StoredJournalKey { 0 => key, 1 => journal });
table!(StoredManagedKey {
    0 => provider, 1 => generation, 2 => key, 3 => hint, 4 => updated, 5 => previous_until, 6 => removed,
});
table!(StoredGrantKey { 0 => key });
table!(Home { 0 => org });
table!(Pointer { 0 => id });
table!(Mark { 0 => since });
table!(Slot { 0 => agent });
table!(Pin { 0 => credential, 1 => position, 2 => runs });
table!(Runs { 0 => mode, 1 => provider, 2 => modes, 3 => on_rejection, 4 => named, 5 => because, 6 => kind });
table!(LeasePointer { 0 => lease });
table!(RequestOutcome { 0 => content, 1 => id, 2 => at });
table!(Seen { 0 => at, 1 => address, 2 => version, 3 => attributes });
table!(CredentialSecret { 0 => generation, 1 => access, 2 => refresh, 3 => aws });
table!(AwsSecret { 0 => access_key_id, 1 => secret_access_key, 2 => session_token });
table!(StagedAnswer { 0 => fence, 1 => status, 2 => retry_after_ms, 3 => body, 4 => received });

table!(Operator {
    0 => id, 1 => token, 2 => display_name, 3 => created, 4 => expires, 5 => revoked, 6 => member, 7 => grants,
    8 => previous,
});
table!(MemberOf { 0 => org, 1 => member });
table!(PreviousToken { 0 => token, 1 => until });
table!(Grant { 0 => role, 1 => scope });
table!(Org { 0 => id, 1 => name, 2 => display_name, 3 => created });
table!(Project { 0 => id, 1 => org, 2 => name, 3 => display_name, 4 => created });
table!(Environment {
    0 => id, 1 => org, 2 => project, 3 => name, 4 => display_name, 5 => created, 6 => approval,
});
table!(Member {
    0 => id, 1 => org, 2 => name, 3 => display_name, 4 => identities, 5 => created,
    6 => grants, 7 => removed,
});
table!(ApiKey {
    0 => id, 1 => org, 2 => token, 3 => display_name, 4 => created, 5 => expires, 6 => revoked, 7 => projects,
    8 => groups, 9 => certificate, 10 => previous, 11 => previous_certificate,
});
table!(EnrollmentToken {
    0 => id, 1 => org, 2 => environment, 3 => token, 4 => max_agents, 5 => bound, 6 => task, 7 => labels,
    8 => created, 9 => expires, 10 => revoked, 11 => networks, 12 => spent,
});
table!(Certificates { 0 => newest, 1 => earlier, 2 => issued, 3 => used, 4 => nonce });
table!(Agent {
    0 => id, 1 => org, 2 => environment, 3 => key, 4 => runtime_key, 5 => next_runtime_key, 6 => used,
    7 => enrollment_token, 8 => labels, 9 => attributes, 10 => created, 11 => certificate_expires,
    12 => revoked, 13 => certificates, 14 => expired,
});
table!(Task {
    0 => id, 1 => org, 2 => member, 3 => project, 4 => executor, 5 => provider, 6 => profile, 7 => capacity,
    8 => spec_hash, 9 => created, 10 => expires, 11 => ended, 12 => pool,
});
table!(Credential {
    0 => id, 1 => org, 2 => owner, 3 => provider, 4 => kind, 5 => connector, 6 => rotation, 7 => expires,
    8 => created, 9 => refreshed, 10 => hint, 11 => scopes, 12 => token_type, 13 => account,
    14 => executor, 15 => region,
});
table!(Lease {
    0 => id, 1 => org, 2 => holder, 3 => task, 4 => member, 5 => credential, 6 => mode, 7 => provider,
    8 => model, 9 => permit_position, 10 => created, 11 => expires, 12 => ended,
    13 => handed, 14 => approval, 15 => project, 16 => rejections,
});
table!(Handed { 0 => generation, 1 => expires, 2 => at });
table!(Row { 0 => count, 1 => since, 2 => generation });
table!(Window { 0 => began, 1 => count });
table!(Forced { 0 => window, 1 => generation, 2 => connected, 3 => failing, 4 => shares });
table!(Share { 0 => holder, 1 => count });
table!(Failing { 0 => holder, 1 => at });
table!(Lock {
    0 => id, 1 => org, 2 => target, 3 => message, 4 => by, 5 => by_system, 6 => created, 7 => expires,
});
table!(Rotation { 0 => generation, 1 => fence, 2 => failures, 3 => phase });
table!(Sent { 0 => first, 1 => unanswered });

choice!(Phase {
    0 => Live { not_before, message },
    1 => Claimed { by, deadline, sent },
    2 => Staged { sent },
    3 => Ambiguous { sent, not_before, message },
    4 => Quarantined { since, message },
    5 => Dead { since, cause, message },
});
choice!(Death { 0 => Refused, 1 => AnswerLost, 2 => Expired, 3 => Withdrawn });
table!(Lineage { 0 => links, 1 => refresh_expires });
table!(Link { 0 => generation, 1 => at, 2 => origin, 3 => refresh, 4 => access, 5 => fence });
choice!(Origin { 0 => Brought, 1 => Refreshed, 2 => Recovered });
choice!(Role { 0 => SystemAdmin, 1 => OrgAdmin, 2 => Member, 3 => Auditor, 4 => Approver, 5 => ModelProxy });
choice!(Scope { 0 => Broker, 1 => Org(org), 2 => Project(org, project) });
choice!(Group {
    0 => Tasks, 1 => Resolve, 2 => Enrollment, 3 => Agents, 4 => Directory, 5 => Credentials, 6 => Approvals,
    7 => Introspect, 8 => Watch, 9 => Secrets, 10 => Proxy,
    11 => Accounts,
});
choice!(Capacity { 0 => Cloud, 1 => Local });
choice!(LockTarget {
    0 => Agent(id), 1 => Member(id), 2 => Credential(id), 3 => Environment(id), 4 => Org(id),
});
choice!(Holder { 0 => Agent(id), 1 => ApiKey(id), 2 => Operator(id) });

table!(Approval {
    0 => id, 1 => org, 2 => project, 3 => environment, 4 => task, 5 => member, 6 => spec_hash, 7 => capability,
    8 => token, 9 => requester, 10 => reason, 11 => ttl_ms, 12 => use_limit, 13 => created, 14 => expires,
    15 => ruling, 16 => revoked,
});
table!(Capability { 0 => executors, 1 => providers, 2 => modes });
table!(Ruling { 0 => by, 1 => at, 2 => granted, 3 => message });
table!(ApprovalUse { 0 => lease, 1 => holder, 2 => at });
choice!(Party { 0 => Agent(id), 1 => ApiKey(id), 2 => Member(id), 3 => Operator(id) });
choice!(Posture { 0 => None, 1 => Required });

table!(PolicyHead { 0 => version });
table!(PolicyPage { 0 => cells });
table!(PolicyPins { 0 => pins });
table!(Cell { 0 => mode, 1 => provider, 2 => model, 3 => verdict });
table!(Profile { 0 => name, 1 => modes, 2 => on_rejection, 3 => credential, 4 => models });

table!(ExtensionSecret { 0 => namespace, 1 => name, 2 => version, 3 => created, 4 => updated });
table!(ExtensionSecretValue { 0 => version, 1 => value });
table!(SecretGrant { 0 => namespace, 1 => grantee, 2 => created });
table!(Namespace { 0 => secrets, 1 => grants });
choice!(Grantee { 0 => Agent(id), 1 => Environment(id) });

table!(Account {
    0 => org, 1 => subscription, 2 => metered, 3 => shared_per_day, 4 => balance, 5 => updated,
});
table!(Taken { 0 => content, 1 => at });
table!(Spend { 0 => dispatches, 1 => micros, 2 => events });
table!(SpendCheckpoint { 0 => position });
choice!(Subscription { 0 => Active, 1 => Inactive });
choice!(Entitlement { 0 => Default, 1 => Granted, 2 => Withdrawn });
