//! What belongs to another org looks, to an API key, exactly like what does not exist.

#[path = "hidden/refs.rs"]
mod refs;

use std::collections::BTreeSet;

use credbroker::proto::{self, grant_secret_access_request as grant, revoke_secret_access_request as revoke};
use credbroker::rpc::{ACCESS, Access};
use credbroker::service::KeyAccess;
use prost::Message;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT, connector};
use crate::support::client::owner;
use crate::support::raw::told;
use crate::support::state::State;
use crate::support::{Caller, Options, TestBroker, reason};
use refs::{Refs, THEIRS, any, theirs};

macro_rules! calls {
    ($($path:literal: $request:ident { $($fields:tt)* })*) => {
        vec![$((
            concat!("/credbroker.v1.", $path),
            #[allow(clippy::needless_update)]
            proto::$request { $($fields)*, ..Default::default() }.encode_to_vec(),
        )),*]
    };
}

/// What an explanation is asked about.
fn resolution(
    name: impl FnOnce(&mut proto::ResolveCredentialRequest),
) -> Option<proto::ResolveCredentialRequest> {
    let mut resolution = proto::ResolveCredentialRequest::default();
    name(&mut resolution);
    Some(resolution)
}

/// Every call that takes a reference, with one of `their` in it and the caller's own for the rest.
fn naming(their: &Refs, own_task: &str) -> Vec<(&'static str, Vec<u8>)> {
    let r = || their.clone();
    let own = String::new;
    let named = |text: &str| text.to_owned();
    calls! {
        "BrokerService/ResolveCredential": ResolveCredentialRequest { org: r().org, task: named(own_task) }
        "BrokerService/ResolveCredential": ResolveCredentialRequest { task: r().task }
        "BrokerService/ResolveCredential": ResolveCredentialRequest { org: r().org, task: r().task }
        "BrokerService/ResolveCredential": ResolveCredentialRequest {
            member: r().member, project: named(PROJECT), executor: named("demo-agent") }
        "BrokerService/ResolveCredential": ResolveCredentialRequest {
            member_identity: r().identity, project: named(PROJECT), executor: named("demo-agent") }
        "BrokerService/ResolveCredential": ResolveCredentialRequest {
            member: named(MEMBER), project: r().project, executor: named("demo-agent") }
        "BrokerService/ExplainResolution": ExplainResolutionRequest { resolution: resolution(|one| {
            one.org = r().org;
            one.task = named(own_task);
        }) }
        "BrokerService/ExplainResolution": ExplainResolutionRequest {
            resolution: resolution(|one| one.task = r().task) }
        "BrokerService/ExplainResolution": ExplainResolutionRequest { resolution: resolution(|one| {
            one.org = r().org;
            one.task = r().task;
        }) }
        "BrokerService/ExplainResolution": ExplainResolutionRequest { resolution: resolution(|one| {
            (one.member, one.project, one.executor) = (r().member, named(PROJECT), named("demo-agent"));
        }) }
        "BrokerService/ExplainResolution": ExplainResolutionRequest { resolution: resolution(|one| {
            (one.member_identity, one.project) = (r().identity, named(PROJECT));
            one.executor = named("demo-agent");
        }) }
        "BrokerService/ExplainResolution": ExplainResolutionRequest { resolution: resolution(|one| {
            (one.member, one.project, one.executor) = (named(MEMBER), r().project, named("demo-agent"));
        }) }
        "BrokerService/RefreshToken": RefreshTokenRequest { lease: r().lease, rejected_generation: 1 }
        "BrokerService/ReleaseLease": ReleaseLeaseRequest { lease: r().lease }
        "TaskService/CreateTask": CreateTaskRequest {
            org: r().org, member: named(MEMBER), project: named(PROJECT), executor: named("demo-agent") }
        "TaskService/CreateTask": CreateTaskRequest {
            member: r().member, project: named(PROJECT), executor: named("demo-agent") }
        "TaskService/CreateTask": CreateTaskRequest {
            member_identity: r().identity, project: named(PROJECT), executor: named("demo-agent") }
        "TaskService/CreateTask": CreateTaskRequest {
            member: named(MEMBER), project: r().project, executor: named("demo-agent") }
        "TaskService/CreateTask": CreateTaskRequest {
            member: named(MEMBER), project: named(PROJECT), executor: named("demo-agent"),
            agents: vec![r().agent] }
        "TaskService/GetTask": GetTaskRequest { org: r().org, task: r().task }
        "TaskService/GetTask": GetTaskRequest { org: own(), task: r().task }
        "TaskService/ListTasks": ListTasksRequest { org: r().org }
        "TaskService/AssignTask": AssignTaskRequest { org: r().org, task: r().task, agents: vec![r().agent] }
        "TaskService/AssignTask": AssignTaskRequest { org: own(), task: r().task, agents: vec![r().agent] }
        "TaskService/AssignTask": AssignTaskRequest { org: own(), task: named(own_task), agents: vec![r().agent] }
        "TaskService/EndTask": EndTaskRequest { org: r().org, task: r().task }
        "TaskService/EndTask": EndTaskRequest { org: own(), task: r().task }
        "DirectoryService/GetOrg": GetOrgRequest { org: r().org }
        "DirectoryService/GetProject": GetProjectRequest { org: r().org, project: r().project }
        "DirectoryService/GetProject": GetProjectRequest { org: own(), project: r().project }
        "DirectoryService/ListProjects": ListProjectsRequest { org: r().org }
        "DirectoryService/GetEnvironment": GetEnvironmentRequest {
            org: r().org, project: r().project, environment: r().environment }
        "DirectoryService/GetEnvironment": GetEnvironmentRequest {
            project: r().project, environment: named(ENVIRONMENT) }
        "DirectoryService/GetEnvironment": GetEnvironmentRequest {
            project: named(PROJECT), environment: r().environment }
        "DirectoryService/ListEnvironments": ListEnvironmentsRequest { org: r().org }
        "DirectoryService/ListEnvironments": ListEnvironmentsRequest { project: r().project }
        "DirectoryService/GetMember": GetMemberRequest { org: r().org, member: r().member }
        "DirectoryService/GetMember": GetMemberRequest { org: own(), member: r().member }
        "DirectoryService/ListMembers": ListMembersRequest { org: r().org }
        "ExecutorService/ListExecutors": ListExecutorsRequest { org: r().org }
        "ExecutorService/ListExecutors": ListExecutorsRequest { org: own(), member: r().member }
        "ExecutorService/GetExecutor": GetExecutorRequest { org: r().org, executor: named("demo-agent") }
        "ExecutorService/GetExecutor": GetExecutorRequest {
            org: own(), executor: named("demo-agent"), member: r().member }
        "WatchService/Watch": WatchRequest { org: r().org }
        "AgentService/CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: r().org, project: named(PROJECT), environment: named(ENVIRONMENT) }
        "AgentService/CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            project: r().project, environment: named(ENVIRONMENT), task: named("") }
        "AgentService/CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            project: named(PROJECT), environment: r().environment }
        "AgentService/CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            project: named(PROJECT), environment: named(ENVIRONMENT), task: r().task }
        "AgentService/ListEnrollmentTokens": ListEnrollmentTokensRequest { org: r().org }
        "AgentService/GetEnrollmentToken": GetEnrollmentTokenRequest {
            org: r().org, enrollment_token: r().enrollment_token }
        "AgentService/GetEnrollmentToken": GetEnrollmentTokenRequest {
            org: own(), enrollment_token: r().enrollment_token }
        "AgentService/ListEnrollmentTokenSlots": ListEnrollmentTokenSlotsRequest {
            org: r().org, enrollment_token: r().enrollment_token }
        "AgentService/ListEnrollmentTokenSlots": ListEnrollmentTokenSlotsRequest {
            org: own(), enrollment_token: r().enrollment_token }
        "AgentService/RevokeEnrollmentToken": RevokeEnrollmentTokenRequest {
            org: r().org, enrollment_token: r().enrollment_token }
        "AgentService/RevokeEnrollmentToken": RevokeEnrollmentTokenRequest {
            org: own(), enrollment_token: r().enrollment_token }
        "AgentService/GetAgent": GetAgentRequest { org: r().org, agent: r().agent }
        "AgentService/GetAgent": GetAgentRequest { org: own(), agent: r().agent }
        "AgentService/ListAgents": ListAgentsRequest { org: r().org }
        "AgentService/IntrospectRuntimeKey": IntrospectRuntimeKeyRequest {
            org: r().org, certificate_key_sha256: vec![7; 32] }
        "AgentService/RevokeAgent": RevokeAgentRequest { org: r().org, agent: r().agent }
        "AgentService/RevokeAgent": RevokeAgentRequest { org: own(), agent: r().agent }
        "LockService/CreateLock": CreateLockRequest { org: r().org, target: agent_lock(&r()) }
        "LockService/CreateLock": CreateLockRequest { org: own(), target: agent_lock(&r()) }
        "LockService/ListLocks": ListLocksRequest { org: r().org }
        "PolicyService/ListProfiles": ListProfilesRequest { org: r().org }
        "PolicyService/GetProfile": GetProfileRequest { org: r().org, name: named("shared") }
        "CredentialService/GetCredential": GetCredentialRequest { org: r().org, credential: r().credential }
        "CredentialService/GetCredential": GetCredentialRequest { org: own(), credential: r().credential }
        "CredentialService/DescribeCredential": DescribeCredentialRequest { org: r().org, credential: r().credential }
        "CredentialService/DescribeCredential": DescribeCredentialRequest { org: own(), credential: r().credential }
        "CredentialService/TestCredential": TestCredentialRequest { org: r().org, credential: r().credential }
        "CredentialService/TestCredential": TestCredentialRequest { org: own(), credential: r().credential }
        "AccountService/BeginConnection": BeginConnectionRequest { org: r().org, connector: named("demo") }
        "AccountService/BeginConnection": BeginConnectionRequest {
            org: own(), connector: named("demo"), member: r().member }
        "AccountService/CompleteConnection": CompleteConnectionRequest { org: r().org, connection: r().connection }
        "AccountService/CompleteConnection": CompleteConnectionRequest { org: own(), connection: r().connection }
        "AccountService/RetryConnection": RetryConnectionRequest { org: r().org, connection: r().connection }
        "AccountService/RetryConnection": RetryConnectionRequest { org: own(), connection: r().connection }
        "AccountService/CancelConnection": CancelConnectionRequest { org: r().org, connection: r().connection }
        "AccountService/CancelConnection": CancelConnectionRequest { org: own(), connection: r().connection }
        "AccountService/GetConnection": GetConnectionRequest { org: r().org, connection: r().connection }
        "AccountService/GetConnection": GetConnectionRequest { org: own(), connection: r().connection }
        "AccountService/ListConnections": ListConnectionsRequest { org: r().org }
        "AccountService/WatchConnection": WatchConnectionRequest { org: r().org, connection: r().connection }
        "AccountService/WatchConnection": WatchConnectionRequest { org: own(), connection: r().connection }
        "AccountService/DisconnectAccount": DisconnectAccountRequest { org: r().org, credential: r().credential }
        "AccountService/DisconnectAccount": DisconnectAccountRequest { org: own(), credential: r().credential }
        "AccountService/GetRevocation": GetRevocationRequest { org: r().org, revocation: r().revocation }
        "AccountService/GetRevocation": GetRevocationRequest { org: own(), revocation: r().revocation }
        "AccountService/ListRevocations": ListRevocationsRequest { org: r().org }
        "CredentialService/ListCredentials": ListCredentialsRequest { org: r().org }
        "CredentialService/GetCredentialStatus": GetCredentialStatusRequest { org: r().org, credential: r().credential }
        "CredentialService/GetCredentialStatus": GetCredentialStatusRequest { org: own(), credential: r().credential }
        "CredentialService/ListCredentialStatuses": ListCredentialStatusesRequest { org: r().org }
        "CredentialService/ListCredentialStatuses": ListCredentialStatusesRequest { org: own(), member: r().member }
        "ApprovalService/RequestApproval": RequestApprovalRequest {
            org: r().org, task: named(own_task), project: named(PROJECT), environment: named(ENVIRONMENT), capability: any() }
        "ApprovalService/RequestApproval": RequestApprovalRequest {
            task: r().task, project: named(PROJECT), environment: named(ENVIRONMENT), capability: any() }
        "ApprovalService/RequestApproval": RequestApprovalRequest {
            task: named(own_task), project: named(PROJECT), environment: r().environment, capability: any() }
        "ApprovalService/GetApproval": GetApprovalRequest { org: r().org, approval: r().approval }
        "ApprovalService/GetApproval": GetApprovalRequest { org: own(), approval: r().approval }
        "ApprovalService/ListApprovals": ListApprovalsRequest { org: r().org }
        "SecretService/SetSecret": SetSecretRequest {
            org: r().org, namespace: named("a"), name: named("KEY"), value: Some(proto::Secret { value: named("v") }) }
        "SecretService/ListSecrets": ListSecretsRequest { org: r().org }
        "SecretService/RemoveSecret": RemoveSecretRequest { org: r().org, namespace: named("a"), name: named("KEY") }
        "SecretService/RemoveSecret": RemoveSecretRequest { org: own(), namespace: named("a"), name: named("KEY") }
        "SecretService/GrantSecretAccess": GrantSecretAccessRequest {
            org: r().org, namespace: named("a"), grantee: Some(grant::Grantee::Agent(r().agent)) }
        "SecretService/GrantSecretAccess": GrantSecretAccessRequest {
            org: own(), namespace: named("a"), grantee: Some(grant::Grantee::Agent(r().agent)) }
        "SecretService/GrantSecretAccess": GrantSecretAccessRequest { org: own(), namespace: named("a"),
            project: named(PROJECT), grantee: Some(grant::Grantee::Environment(r().environment)) }
        "SecretService/RevokeSecretAccess": RevokeSecretAccessRequest {
            org: r().org, namespace: named("a"), grantee: Some(revoke::Grantee::Agent(r().agent)) }
        "SecretService/RevokeSecretAccess": RevokeSecretAccessRequest {
            org: own(), namespace: named("a"), grantee: Some(revoke::Grantee::Agent(r().agent)) }
        "SecretService/ListSecretGrants": ListSecretGrantsRequest { org: r().org }
        "BillingService/ReportUsage": ReportUsageRequest { org: r().org }
        "BillingService/ListCostEvents": ListCostEventsRequest { org: r().org }
        "BillingService/ListCostEvents": ListCostEventsRequest { org: own(), filter: of_project(&r()) }
        "BillingService/StreamCostEvents": StreamCostEventsRequest { org: r().org }
        "BillingService/StreamCostEvents": StreamCostEventsRequest { org: own(), filter: of_project(&r()) }
        "BillingService/SummarizeSpend": SummarizeSpendRequest { org: r().org }
        "BillingService/SummarizeSpend": SummarizeSpendRequest { org: own(), filter: of_project(&r()) }
    }
}

fn of_project(refs: &Refs) -> Option<proto::CostFilter> {
    Some(proto::CostFilter {
        project: refs.project.clone(),
        ..Default::default()
    })
}

/// An approval, and a secret in the namespace `a`, of another org.
fn agent_lock(refs: &Refs) -> Option<proto::LockTarget> {
    let target = proto::lock_target::Target::Agent(refs.agent.clone());
    Some(proto::LockTarget {
        target: Some(target),
        ..Default::default()
    })
}

/// What each call is refused with.
async fn answers(caller: &Caller, calls: Vec<(&'static str, Vec<u8>)>) -> Vec<(&'static str, tonic::Status)> {
    let mut told = Vec::new();
    for (path, message) in calls {
        match caller.raw(path, message).await {
            Err(status) => told.push((path, status)),
            Ok(_) => panic!("{path}: allowed"),
        }
    }
    told
}

// req: D1 D8 K6
#[tokio::test]
async fn another_orgs_anything_looks_like_nothing() {
    let endpoints =
        "authorize_url = \"http://127.0.0.1:9/authorize\"\nrevoke_url = \"http://127.0.0.1:9/revoke\"";
    let options = Options {
        connectors: connector("http://127.0.0.1:9/token", "client", endpoints),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let own_task = operator.make_task(ORG, MEMBER).await;
    let theirs = theirs(&broker, &operator).await;
    let (_, key) = operator.make_broad_api_key(ORG).await;
    let caller = broker.caller(Some(&key)).await;
    let nothing = Refs::to_nothing();

    let covered: BTreeSet<&str> = naming(&nothing, "").iter().map(|(path, _)| *path).collect();
    let open: BTreeSet<&str> = ACCESS
        .iter()
        .filter(|row| matches!(row.access, Access::Actors(actors) if actors.api_key != KeyAccess::No))
        .map(|row| row.path)
        // Another org's grant is answered as a forged one is, not refused: tests/proxy_grants.rs.
        .filter(|path| !path.ends_with("/WhoAmI") && !path.ends_with("/ListOrgs"))
        .filter(|path| !path.ends_with("/IntrospectGrant"))
        // The registry is one for all orgs.
        .filter(|path| {
            ![
                "/ListProviders",
                "/GetProvider",
                "/ListPools",
                "/ListConnectors",
                "/GetConnector",
            ]
            .iter()
            .any(|call| path.ends_with(call))
        })
        .collect();
    assert_eq!(
        covered, open,
        "calls that an API key may make and that are not tried here"
    );

    let before = (
        State::of(&operator, ORG).await,
        State::of(&operator, &theirs.org).await,
    );
    for (hidden, absent) in [
        (theirs.clone(), nothing.clone()),
        (theirs.named(THEIRS), nothing.named("nobodys")),
    ] {
        let hidden = answers(&caller, naming(&hidden, &own_task)).await;
        let absent = answers(&caller, naming(&absent, &own_task)).await;
        for ((path, hidden), (_, absent)) in hidden.iter().zip(&absent) {
            assert_eq!(reason(absent), "NOT_FOUND", "{path}");
            assert_eq!(told(hidden), told(absent), "{path}");
        }
    }
    let after = (
        State::of(&operator, ORG).await,
        State::of(&operator, &theirs.org).await,
    );
    assert_eq!(after, before);

    let orgs = caller
        .directory()
        .list_orgs(proto::ListOrgsRequest::default())
        .await
        .unwrap();
    let orgs: Vec<_> = orgs.into_inner().orgs.into_iter().map(|org| org.name).collect();
    assert_eq!(orgs, [ORG]);
}

// req: D1 D8
#[tokio::test]
async fn an_operator_cannot_mix_two_orgs() {
    let endpoints =
        "authorize_url = \"http://127.0.0.1:9/authorize\"\nrevoke_url = \"http://127.0.0.1:9/revoke\"";
    let options = Options {
        connectors: connector("http://127.0.0.1:9/token", "client", endpoints),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let own_task = operator.make_task(ORG, MEMBER).await;
    let theirs = theirs(&broker, &operator).await;
    let before = (
        State::of(&operator, ORG).await,
        State::of(&operator, &theirs.org).await,
    );
    let org = || ORG.to_owned();
    let mask = || {
        Some(prost_types::FieldMask {
            paths: vec!["display_name".to_owned()],
        })
    };
    let calls = calls! {
        "TaskService/AssignTask": AssignTaskRequest { org: org(), task: own_task, agents: vec![theirs.agent.clone()] }
        "TaskService/EndTask": EndTaskRequest { org: org(), task: theirs.task.clone() }
        "AgentService/RevokeAgent": RevokeAgentRequest { org: org(), agent: theirs.agent.clone() }
        "AgentService/RevokeEnrollmentToken": RevokeEnrollmentTokenRequest {
            org: org(), enrollment_token: theirs.enrollment_token.clone() }
        "CredentialService/SetCredential": SetCredentialRequest {
            org: org(), owner: Some(owner(&theirs.member)), provider: "demo".to_owned(),
            key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
                value: "a-key-for-a-stranger".to_owned() })) }
        "CredentialService/RemoveCredential": RemoveCredentialRequest {
            org: org(), credential: theirs.credential.clone() }
        "CredentialService/SetParallelism": SetParallelismRequest {
            org: org(), credential: theirs.credential.clone(), parallelism: 5 }
        "CredentialService/TestCredential": TestCredentialRequest {
            org: org(), credential: theirs.credential.clone() }
        "DirectoryService/CreateEnvironment": CreateEnvironmentRequest {
            org: org(), project: theirs.project.clone(), name: "mixed".to_owned() }
        "DirectoryService/UpdateProject": UpdateProjectRequest {
            project: Some(proto::Project { org: org(), id: theirs.project.clone(), ..Default::default() }),
            update_mask: mask() }
        "DirectoryService/UpdateMember": UpdateMemberRequest {
            member: Some(proto::Member { org: org(), id: theirs.member.clone(), ..Default::default() }),
            update_mask: mask() }
    };
    for (path, status) in answers(&operator, calls).await {
        assert_eq!(reason(&status), "NOT_FOUND", "{path}");
    }
    let after = (
        State::of(&operator, ORG).await,
        State::of(&operator, &theirs.org).await,
    );
    assert_eq!(after, before);
}
