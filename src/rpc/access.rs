//! The access table: one row a call. What has no row is refused.

use crate::service::Accepts;

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: the call checks what it needs itself, or tells nothing.
    Public,
    /// Actors of these families.
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

const NOBODY: Accepts = Accepts {
    operator: false,
    api_key: false,
    agent: false,
};
const OPERATOR: Access = Access::Actors(Accepts {
    operator: true,
    ..NOBODY
});
const AGENT: Access = Access::Actors(Accepts {
    agent: true,
    ..NOBODY
});
/// Those who run the platform: people and their automation, the latter within its org.
const CONTROL: Access = Access::Actors(Accepts {
    operator: true,
    api_key: true,
    ..NOBODY
});
/// Those a credential may be handed to.
const CONSUMER: Access = Access::Actors(Accepts {
    api_key: true,
    agent: true,
    ..NOBODY
});
const ANYONE_KNOWN: Access = Access::Actors(Accepts {
    operator: true,
    api_key: true,
    agent: true,
});

macro_rules! table {
    ($($service:literal { $($access:ident: $($method:ident)*;)* })*) => {
        /// The table.
        pub const ACCESS: &[Row] = &[$($($(
            Row { path: concat!("/", $service, "/", stringify!($method)), access: $access },
        )*)*)*];
    };
}

const PUBLIC: Access = Access::Public;

table! {
    "credbroker.v1.BrokerService" {
        CONSUMER: ResolveCredential RefreshToken ReleaseLease;
    }
    "credbroker.v1.EnrollmentService" {
        PUBLIC: Enroll GetTrustBundle;
        AGENT: RenewCertificate RotateRuntimeKey;
    }
    "credbroker.v1.TaskService" {
        CONTROL: CreateTask GetTask ListTasks AssignTask EndTask;
    }
    "credbroker.v1.DirectoryService" {
        OPERATOR: CreateOrg UpdateOrg CreateProject UpdateProject CreateEnvironment UpdateEnvironment
            CreateMember UpdateMember;
        CONTROL: GetOrg ListOrgs GetProject ListProjects GetEnvironment ListEnvironments GetMember
            ListMembers;
    }
    "credbroker.v1.AgentService" {
        CONTROL: CreateEnrollmentTokens ListEnrollmentTokens RevokeEnrollmentToken GetAgent ListAgents
            RevokeAgent;
    }
    "credbroker.v1.CredentialService" {
        OPERATOR: SetCredential ImportGrant RemoveCredential;
        CONTROL: GetCredential ListCredentials;
    }
    "credbroker.v1.AccessService" {
        ANYONE_KNOWN: WhoAmI;
        OPERATOR: CreateApiKey ListApiKeys RevokeApiKey;
    }
    "credbroker.v1.JournalService" {
        OPERATOR: ListRecords GetHead FollowRecords PruneRecords;
    }
    "grpc.health.v1.Health" {
        PUBLIC: Check List Watch;
    }
    "grpc.reflection.v1.ServerReflection" {
        PUBLIC: ServerReflectionInfo;
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        PUBLIC: ServerReflectionInfo;
    }
}

/// Who may make the call at `path`; `None`: there is no such call.
pub(super) fn access(path: &str) -> Option<&'static Row> {
    // Some fifty rows, told apart by length and last byte mostly: cheaper than hashing the path.
    ACCESS.iter().find(|row| row.path == path)
}
