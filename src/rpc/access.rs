//! The access table: one row a call. What has no row is refused.

use crate::domain::directory::Group;
use crate::domain::role::Extent::{All, Own};
use crate::domain::role::Role::{Approver, Auditor, Member, ModelProxy, OrgAdmin};
use crate::domain::role::Rule;
use crate::service::{Accepts, KeyAccess};

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: the call checks what it needs itself, or tells nothing.
    Public,
    /// Actors of these kinds, in these roles.
    Actors(Accepts),
}

/// One call and who may make it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The call's path.
    pub path: &'static str,
    /// Who may make it.
    pub access: Access,
}

/// Humans of these roles (and system admins), API keys of this group, agents.
const fn row(humans: Option<&'static [Rule]>, api_key: KeyAccess, agent: bool) -> Access {
    Access::Actors(Accepts {
        humans,
        api_key,
        agent,
    })
}

const fn humans(rules: &'static [Rule]) -> Access {
    row(Some(rules), KeyAccess::No, false)
}

const fn of(group: Group) -> KeyAccess {
    KeyAccess::Of(group)
}

const PUBLIC: Access = Access::Public;
const AGENT: Access = row(None, KeyAccess::No, true);
/// Who runs the broker, and nobody else.
const SYSTEM: Access = humans(&[]);
const ADMIN: Access = humans(ADMINS);
const ANYONE_KNOWN: Access = row(Some(ANY_ROLE), KeyAccess::Any, true);

/// Those who change an org.
const ADMINS: &[Rule] = &[(OrgAdmin, All)];
/// Those who read everything.
const READERS: &[Rule] = &[(OrgAdmin, All), (Auditor, All)];
/// Those who read everything, and members what is theirs.
const READERS_AND_OWNERS: &[Rule] = &[(OrgAdmin, All), (Auditor, All), (Member, Own)];
/// Those who change an org, and members what is theirs.
const ADMINS_AND_OWNERS: &[Rule] = &[(OrgAdmin, All), (Member, Own)];
/// Those who change an org, and everybody what is about themselves.
const ADMINS_AND_SELF: &[Rule] = &[(OrgAdmin, All), (Auditor, Own), (Approver, Own), (Member, Own)];
/// Those who read everything, and everybody what is about themselves.
const READERS_AND_SELF: &[Rule] = &[(OrgAdmin, All), (Auditor, All), (Approver, Own), (Member, Own)];
/// Everybody who has a role in the org.
const EVERYONE: &[Rule] = &[(OrgAdmin, All), (Auditor, All), (Approver, All), (Member, All)];
/// Everybody who has any role, services too.
const ANY_ROLE: &[Rule] = &[
    (OrgAdmin, All),
    (Auditor, All),
    (Approver, All),
    (Member, All),
    (ModelProxy, All),
];
/// Those who follow events: as far as they read, and approvers all of it.
const WATCHERS: &[Rule] = &[(OrgAdmin, All), (Auditor, All), (Approver, All), (Member, Own)];

/// The platform's model proxy.
const MODEL_PROXIES: &[Rule] = &[(ModelProxy, All)];
/// Those who approve.
const APPROVERS: &[Rule] = &[(Approver, All)];
/// Those who take approvals back.
const APPROVERS_AND_ADMINS: &[Rule] = &[(OrgAdmin, All), (Approver, All)];
/// Those who see approvals; members those for their own tasks.
const APPROVALS_SEEN_BY: &[Rule] = &[(OrgAdmin, All), (Auditor, All), (Approver, All), (Member, Own)];

macro_rules! table {
    ($($service:literal { $($access:expr => $($method:ident)*;)* })*) => {
        /// The table.
        pub const ACCESS: &[Row] = &[$($($(
            Row { path: concat!("/", $service, "/", stringify!($method)), access: $access },
        )*)*)*];
    };
}

table! {
    "credbroker.v1.BrokerService" {
        // Humans: system admins, at the scope of the system.
        row(Some(&[]), of(Group::Resolve), true) => ResolveCredential;
        row(Some(READERS_AND_OWNERS), of(Group::Resolve), true) => ExplainResolution;
        row(None, of(Group::Resolve), true) => RefreshToken ReleaseLease;
    }
    "credbroker.v1.EnrollmentService" {
        PUBLIC => Enroll GetTrustBundle GetRenewalNonce RenewExpiredCertificate;
        AGENT => Heartbeat RenewCertificate RotateRuntimeKey;
    }
    "credbroker.v1.TaskService" {
        row(Some(ADMINS_AND_OWNERS), of(Group::Tasks), false) => CreateTask EndTask;
        row(Some(ADMINS), of(Group::Tasks), false) => AssignTask;
        row(Some(READERS_AND_OWNERS), of(Group::Tasks), false) => GetTask ListTasks;
    }
    "credbroker.v1.DirectoryService" {
        SYSTEM => CreateOrg;
        ADMIN => UpdateOrg CreateProject UpdateProject CreateEnvironment UpdateEnvironment CreateMember
            UpdateMember RemoveMember LinkIdentities;
        row(Some(EVERYONE), of(Group::Directory), false) => GetOrg ListOrgs GetProject ListProjects
            GetEnvironment ListEnvironments;
        row(Some(READERS_AND_OWNERS), of(Group::Directory), false) => GetMember ListMembers;
    }
    "credbroker.v1.AgentService" {
        row(Some(ADMINS), of(Group::Enrollment), false) => CreateEnrollmentTokens RevokeEnrollmentToken;
        row(Some(READERS), of(Group::Enrollment), false) => ListEnrollmentTokens GetEnrollmentToken
            ListEnrollmentTokenSlots;
        row(Some(READERS), of(Group::Agents), false) => GetAgent ListAgents;
        row(Some(ADMINS), of(Group::Agents), false) => RevokeAgent;
        row(Some(READERS), of(Group::Introspect), false) => IntrospectRuntimeKey;
    }
    "credbroker.v1.CredentialService" {
        humans(ADMINS_AND_OWNERS) => SetCredential ImportGrant RemoveCredential;
        // Not members: what a subscription is used for beyond its usual is the org's to answer for.
        ADMIN => SetParallelism;
        row(Some(READERS_AND_OWNERS), of(Group::Credentials), false) => DescribeCredential GetCredential ListCredentials
            GetCredentialStatus ListCredentialStatuses;
        row(Some(ADMINS_AND_OWNERS), of(Group::Credentials), false) => TestCredential;
    }
    "credbroker.v1.AccountService" {
        row(Some(ADMINS_AND_OWNERS), of(Group::Accounts), false) => BeginConnection CompleteConnection RetryConnection
            CancelConnection DisconnectAccount;
        row(Some(READERS_AND_OWNERS), of(Group::Accounts), false) => GetConnection ListConnections WatchConnection
            GetRevocation ListRevocations;
    }
    "credbroker.v1.ExecutorService" {
        row(Some(READERS_AND_OWNERS), of(Group::Directory), false) => ListExecutors GetExecutor;
        row(Some(EVERYONE), of(Group::Directory), false) => ListProviders GetProvider ListPools
            ListConnectors GetConnector;
    }
    "credbroker.v1.AccessService" {
        PUBLIC => GetLoginConfiguration;
        ANYONE_KNOWN => WhoAmI;
        ADMIN => CreateApiKey RevokeApiKey;
        humans(READERS) => ListApiKeys;
        ADMIN => RotateApiKey GrantRole RevokeRole;
        humans(ADMINS_AND_SELF) => CreateOperatorToken RotateOperatorToken RevokeOperatorToken;
        humans(READERS_AND_SELF) => ListOperatorTokens ListRoles;
    }
    "credbroker.v1.LockService" {
        row(Some(ADMINS), of(Group::Agents), false) => CreateLock;
        row(Some(READERS), of(Group::Agents), false) => ListLocks;
        ADMIN => RemoveLock;
    }
    "credbroker.v1.JournalService" {
        humans(READERS) => ListRecords GetHead FollowRecords;
        SYSTEM => PruneRecords;
    }
    "credbroker.v1.WatchService" {
        row(Some(WATCHERS), of(Group::Watch), true) => Watch;
    }
    "credbroker.v1.ApprovalService" {
        row(Some(ADMINS_AND_OWNERS), of(Group::Approvals), true) => RequestApproval;
        humans(APPROVERS) => CreateApproval GrantApproval DenyApproval;
        humans(APPROVERS_AND_ADMINS) => RevokeApproval;
        row(Some(APPROVALS_SEEN_BY), of(Group::Approvals), true) => GetApproval ListApprovals;
    }
    "credbroker.v1.SecretService" {
        row(Some(ADMINS), of(Group::Secrets), false) => SetSecret RemoveSecret GrantSecretAccess
            RevokeSecretAccess;
        row(Some(READERS), of(Group::Secrets), false) => ListSecrets ListSecretGrants;
        AGENT => ReadSecret;
    }
    "credbroker.v1.PlatformService" {
        SYSTEM => SetManagedKey ListManagedKeys RemoveManagedKey;
        row(Some(MODEL_PROXIES), of(Group::Proxy), false) => IntrospectGrant;
    }
    "credbroker.v1.BillingService" {
        humans(READERS) => GetAccount;
        SYSTEM => UpdateAccount AddCredit;
        row(Some(MODEL_PROXIES), of(Group::Proxy), false) => ReportUsage;
        row(Some(READERS_AND_OWNERS), of(Group::Tasks), false) => ListCostEvents StreamCostEvents SummarizeSpend;
    }
    "credbroker.v1.PolicyService" {
        humans(READERS) => GetPolicy;
        ADMIN => ApplyPolicy SetCells PinExecutor UnpinExecutor CreateProfile UpdateProfile RemoveProfile;
        row(Some(EVERYONE), of(Group::Directory), false) => ListProfiles GetProfile;
    }
    "grpc.health.v1.Health" {
        PUBLIC => Check List Watch;
    }
    "grpc.reflection.v1.ServerReflection" {
        PUBLIC => ServerReflectionInfo;
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        PUBLIC => ServerReflectionInfo;
    }
}

/// Who may make the call at `path`; `None`: there is no such call.
pub(super) fn access(path: &str) -> Option<&'static Row> {
    // Some fifty rows, told apart by length and last byte mostly: cheaper than hashing the path.
    ACCESS.iter().find(|row| row.path == path)
}
