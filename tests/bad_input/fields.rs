//! Malformed ids, missing fields and values out of bounds: each is named in the details.

use credbroker::proto;
use prost::Message;
use prost_types::{Duration, FieldMask};

use crate::support::broker::{self, ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::client::owner;
use crate::support::state::State;
use crate::support::{Caller, Options, TestBroker, details, reason};

type Call = (&'static str, Vec<u8>, &'static str, &'static str);

macro_rules! calls {
    ($service:literal, $($path:literal: $request:ident { $($fields:tt)* } => $reason:literal $field:literal;)*) => {
        vec![$((
            concat!("/credbroker.v1.", $service, "/", $path),
            #[allow(clippy::needless_update)]
            proto::$request { $($fields)*, ..Default::default() }.encode_to_vec(),
            $reason,
            $field,
        )),*]
    };
}

async fn refused(caller: &Caller, calls: Vec<Call>) {
    for (at, (path, message, expected, field)) in calls.into_iter().enumerate() {
        let what = format!("{path}, number {at}, {field:?}");
        let status = match caller.raw(path, message).await {
            Err(status) => status,
            Ok(_) => panic!("{what}: taken"),
        };
        assert_eq!(reason(&status), expected, "{what}: {status:?}");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{what}");
        let details = details(&status);
        let named: Vec<_> = details
            .bad_request()
            .map(|bad| {
                bad.field_violations
                    .iter()
                    .map(|violation| violation.field.clone())
                    .collect()
            })
            .unwrap_or_default();
        assert_eq!(named, [field], "{what}: {status:?}");
    }
}

fn org() -> String {
    ORG.to_owned()
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask {
        paths: vec![path.to_owned()],
    })
}

fn project(etag: &str) -> Option<proto::Project> {
    Some(proto::Project {
        org: org(),
        id: s(PROJECT),
        etag: s(etag),
        ..Default::default()
    })
}

fn directory() -> Vec<Call> {
    calls! { "DirectoryService",
        "CreateOrg": CreateOrgRequest { name: s("") } => "INVALID_ARGUMENT" "name";
        "CreateOrg": CreateOrgRequest { name: s("Upper") } => "INVALID_ARGUMENT" "name";
        "CreateOrg": CreateOrgRequest { name: s("9lives") } => "INVALID_ARGUMENT" "name";
        "CreateOrg": CreateOrgRequest { name: s("ends-") } => "INVALID_ARGUMENT" "name";
        "CreateOrg": CreateOrgRequest { name: "a".repeat(64) } => "INVALID_ARGUMENT" "name";
        "CreateOrg": CreateOrgRequest { name: s("org_00") } => "INVALID_ARGUMENT" "name";
        "CreateOrg": CreateOrgRequest { name: s("b"), display_name: s("a\nb") } => "INVALID_ARGUMENT" "display_name";
        "CreateOrg": CreateOrgRequest { name: s("b"), display_name: "x".repeat(129) }
            => "INVALID_ARGUMENT" "display_name";
        "LinkIdentities": LinkIdentitiesRequest { org: org() } => "INVALID_ARGUMENT" "links";
        "LinkIdentities": LinkIdentitiesRequest {
            org: org(), links: vec![proto::IdentityLink::default(); 1001] } => "INVALID_ARGUMENT" "links";
        "LinkIdentities": LinkIdentitiesRequest {
            org: org(), links: vec![proto::IdentityLink::default()], request_id: "r".repeat(65) }
            => "INVALID_ARGUMENT" "request_id";
        "GetOrg": GetOrgRequest { org: s("") } => "INVALID_ARGUMENT" "org";
        "GetOrg": GetOrgRequest { org: s("Not A Name") } => "INVALID_ARGUMENT" "org";
        "GetOrg": GetOrgRequest { org: format!("prj_{}", "0".repeat(32)) } => "INVALID_ARGUMENT" "org";
        "GetOrg": GetOrgRequest { org: format!("org_{}", "A".repeat(32)) } => "INVALID_ARGUMENT" "org";
        "ListOrgs": ListOrgsRequest { page_size: -1 } => "INVALID_ARGUMENT" "page_size";
        "ListOrgs": ListOrgsRequest { page_token: s("?") } => "INVALID_ARGUMENT" "page_token";
        "CreateProject": CreateProjectRequest { org: s(""), name: s("p") } => "INVALID_ARGUMENT" "org";
        "CreateProject": CreateProjectRequest { org: org() } => "INVALID_ARGUMENT" "name";
        "CreateProject": CreateProjectRequest { org: org(), name: s("p"), request_id: s("1") }
            => "INVALID_ARGUMENT" "request_id";
        "GetProject": GetProjectRequest { org: org() } => "INVALID_ARGUMENT" "project";
        "UpdateProject": UpdateProjectRequest { project: project("") } => "INVALID_ARGUMENT" "update_mask";
        "UpdateProject": UpdateProjectRequest { project: project(""), update_mask: mask("name") }
            => "INVALID_ARGUMENT" "update_mask";
        "UpdateProject": UpdateProjectRequest { project: project("x"), update_mask: mask("display_name") }
            => "INVALID_ARGUMENT" "etag";
        "UpdateProject": UpdateProjectRequest { update_mask: mask("display_name") } => "INVALID_ARGUMENT" "org";
        "CreateEnvironment": CreateEnvironmentRequest { org: org(), name: s("e") } => "INVALID_ARGUMENT" "project";
        "GetEnvironment": GetEnvironmentRequest { org: org(), project: s(PROJECT) }
            => "INVALID_ARGUMENT" "environment";
        "GetEnvironment": GetEnvironmentRequest { org: org(), environment: s(ENVIRONMENT) }
            => "INVALID_ARGUMENT" "project";
        "CreateMember": CreateMemberRequest { org: org(), name: s("m"), identities: vec![s("github")] }
            => "INVALID_ARGUMENT" "identities";
        "CreateMember": CreateMemberRequest { org: org(), name: s("m"), identities: vec![s(":x")] }
            => "INVALID_ARGUMENT" "identities";
        "CreateMember": CreateMemberRequest { org: org(), name: s("m"),
            identities: (0..33).map(|n| format!("git:{n}")).collect() } => "INVALID_ARGUMENT" "identities";
    }
}

fn tasks() -> Vec<Call> {
    let new = || proto::CreateTaskRequest {
        org: org(),
        member: s(MEMBER),
        project: s(PROJECT),
        executor: s("demo-agent"),
        ..Default::default()
    };
    let with = |change: &dyn Fn(&mut proto::CreateTaskRequest)| {
        let mut request = new();
        change(&mut request);
        request.encode_to_vec()
    };
    const CREATE: &str = "/credbroker.v1.TaskService/CreateTask";
    const INVALID: &str = "INVALID_ARGUMENT";
    let mut calls: Vec<Call> = vec![
        (CREATE, with(&|new| new.member.clear()), INVALID, "member"),
        (CREATE, with(&|new| new.project.clear()), INVALID, "project"),
        (
            CREATE,
            with(&|new| new.executor.clear()),
            "EXECUTOR_UNKNOWN",
            "executor",
        ),
        (
            CREATE,
            with(&|new| new.executor = s("vim")),
            "EXECUTOR_UNKNOWN",
            "executor",
        ),
        (
            CREATE,
            with(&|new| new.profile = "x".repeat(129)),
            INVALID,
            "profile",
        ),
        (
            CREATE,
            with(&|new| new.spec_hash = s("a\0")),
            INVALID,
            "spec_hash",
        ),
        (CREATE, with(&|new| new.capacity = 9), INVALID, "capacity"),
        (CREATE, with(&|new| new.pool = s("nowhere")), INVALID, "pool"),
        (CREATE, with(&|new| new.ttl = seconds(59)), INVALID, "ttl"),
        (CREATE, with(&|new| new.ttl = seconds(-60)), INVALID, "ttl"),
        (
            CREATE,
            with(&|new| new.ttl = seconds(31 * 86_400)),
            INVALID,
            "ttl",
        ),
        (CREATE, with(&|new| new.agents = vec![s("me")]), INVALID, "agents"),
        (
            CREATE,
            with(&|new| new.agents = vec![s("me"); 101]),
            INVALID,
            "agents",
        ),
        (
            CREATE,
            with(&|new| new.request_id = s("again")),
            INVALID,
            "request_id",
        ),
    ];
    calls.extend(calls! { "TaskService",
        "GetTask": GetTaskRequest { org: org() } => "INVALID_ARGUMENT" "task";
        "GetTask": GetTaskRequest { org: org(), task: s("tsk_1") } => "INVALID_ARGUMENT" "task";
        "GetTask": GetTaskRequest { org: org(), task: format!("tsk_{}", "g".repeat(32)) }
            => "INVALID_ARGUMENT" "task";
        "GetTask": GetTaskRequest { org: org(), task: format!("tsk-{}", "0".repeat(32)) }
            => "INVALID_ARGUMENT" "task";
        "EndTask": EndTaskRequest { org: org(), task: format!("agt_{}", "0".repeat(32)) }
            => "INVALID_ARGUMENT" "task";
        "ListTasks": ListTasksRequest { org: org(), page_size: i32::MIN } => "INVALID_ARGUMENT" "page_size";
    });
    calls
}

fn agents() -> Vec<Call> {
    let labels = |many: usize, value: &str| (0..many).map(|n| (n.to_string(), s(value))).collect();
    calls! { "AgentService",
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest { org: org(), project: s(PROJECT) }
            => "INVALID_ARGUMENT" "environment";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest { org: org(), environment: s(ENVIRONMENT) }
            => "INVALID_ARGUMENT" "project";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), count: 101 }
            => "INVALID_ARGUMENT" "count";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), max_agents: 1_001 }
            => "INVALID_ARGUMENT" "max_agents";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), ttl: seconds(0) }
            => "INVALID_ARGUMENT" "ttl";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), ttl: seconds(30 * 86_400 + 1) }
            => "INVALID_ARGUMENT" "ttl";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), task: s("task") }
            => "INVALID_ARGUMENT" "task";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), labels: labels(17, "") }
            => "INVALID_ARGUMENT" "labels";
        "CreateEnrollmentTokens": CreateEnrollmentTokensRequest {
            org: org(), project: s(PROJECT), environment: s(ENVIRONMENT), labels: labels(1, "a\u{7}") }
            => "INVALID_ARGUMENT" "labels";
        "RevokeEnrollmentToken": RevokeEnrollmentTokenRequest { org: org() } => "INVALID_ARGUMENT" "enrollment_token";
        "GetAgent": GetAgentRequest { org: org() } => "INVALID_ARGUMENT" "agent";
        "RevokeAgent": RevokeAgentRequest { org: org(), agent: s("agt_") } => "INVALID_ARGUMENT" "agent";
    }
}

fn credentials() -> Vec<Call> {
    let org_owned = Some(proto::Owner {
        owner: Some(proto::owner::Owner::Org(false)),
    });
    let key = || Some(proto::Secret { value: s("a-key") });
    let odd = || Some(proto::Secret { value: s("a key") });
    let api_key = |key: Option<proto::Secret>| key.map(proto::set_credential_request::Key::ApiKey);
    calls! { "CredentialService",
        "SetCredential": SetCredentialRequest { org: org(), provider: s("demo"), key: api_key(key()) }
            => "INVALID_ARGUMENT" "owner";
        "SetCredential": SetCredentialRequest { org: org(), owner: org_owned, provider: s("demo"), key: api_key(key()) }
            => "INVALID_ARGUMENT" "owner";
        "SetCredential": SetCredentialRequest { org: org(), owner: Some(owner("")), key: api_key(key()) }
            => "PROVIDER_UNKNOWN" "provider";
        "SetCredential": SetCredentialRequest { org: org(), owner: Some(owner("")), provider: s("demo"), force: true }
            => "KEY_SHAPE_MISMATCH" "api_key";
        "SetCredential": SetCredentialRequest {
            org: org(), owner: Some(owner("")), provider: s("demo"), key: api_key(odd()), force: true }
            => "KEY_SHAPE_MISMATCH" "api_key";
        "SetCredential": SetCredentialRequest {
            org: org(), owner: Some(owner("")), provider: s("demo"), key: api_key(key()), executor: s("nobody") }
            => "EXECUTOR_UNKNOWN" "executor";
        "SetCredential": SetCredentialRequest {
            org: org(), owner: Some(owner("")), provider: s("demo"), key: api_key(key()),
            expire_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }) }
            => "INVALID_ARGUMENT" "expire_time";
        "ImportGrant": ImportGrantRequest { org: org(), owner: Some(owner(MEMBER)), refresh_token: key() }
            => "CONNECTOR_UNKNOWN" "connector";
        "ImportGrant": ImportGrantRequest { org: org(), owner: Some(owner(MEMBER)), connector: s("demo") }
            => "INVALID_ARGUMENT" "refresh_token";
        "ImportGrant": ImportGrantRequest {
            org: org(), owner: Some(owner(MEMBER)), connector: s("demo"),
            refresh_token: Some(proto::Secret { value: s("a\nb") }) } => "INVALID_ARGUMENT" "refresh_token";
        "ImportGrant": ImportGrantRequest {
            org: org(), owner: Some(owner(MEMBER)), connector: s("demo"), refresh_token: key(),
            access_token_expire_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }) }
            => "INVALID_ARGUMENT" "access_token_expire_time";
        "GetCredential": GetCredentialRequest { org: org() } => "INVALID_ARGUMENT" "credential";
        "DescribeCredential": DescribeCredentialRequest { org: org() } => "INVALID_ARGUMENT" "credential";
        "GetCredentialStatus": GetCredentialStatusRequest { org: org() } => "INVALID_ARGUMENT" "credential";
        "ListCredentialStatuses": ListCredentialStatusesRequest { org: org(), health: vec![0] }
            => "INVALID_ARGUMENT" "health";
        "ListCredentialStatuses": ListCredentialStatusesRequest { org: org(), health: vec![1; 17] }
            => "INVALID_ARGUMENT" "health";
        "ListCredentialStatuses": ListCredentialStatusesRequest { org: org(), member: s("?") }
            => "INVALID_ARGUMENT" "member";
        "ListCredentialStatuses": ListCredentialStatusesRequest { org: org(), page_token: s("first") }
            => "INVALID_ARGUMENT" "page_token";
        "TestCredential": TestCredentialRequest { org: org() } => "INVALID_ARGUMENT" "credential";
        "RemoveCredential": RemoveCredentialRequest { org: org(), credential: s("crd_x") }
            => "INVALID_ARGUMENT" "credential";
        "SetParallelism": SetParallelismRequest { org: org(), credential: s("crd_x"), parallelism: 3 }
            => "INVALID_ARGUMENT" "credential";
        "SetParallelism": SetParallelismRequest { org: org(), credential: s("crd_x"), parallelism: 201 }
            => "INVALID_ARGUMENT" "parallelism";
    }
}

fn accounts() -> Vec<Call> {
    calls! { "AccountService",
        "BeginConnection": BeginConnectionRequest { org: org(), connector: s("demo") } => "INVALID_ARGUMENT" "member";
        "BeginConnection": BeginConnectionRequest { org: org(), member: s(MEMBER), connector: s("none") }
            => "CONNECTOR_UNKNOWN" "connector";
        "BeginConnection": BeginConnectionRequest {
            org: org(), member: s(MEMBER), connector: s("demo"), flow: 2, loopback_port: 70_000 }
            => "INVALID_ARGUMENT" "loopback_port";
        "BeginConnection": BeginConnectionRequest { org: org(), member: s(MEMBER), connector: s("demo"), flow: 2 }
            => "INVALID_ARGUMENT" "loopback_port";
        "CompleteConnection": CompleteConnectionRequest { org: org() } => "INVALID_ARGUMENT" "connection";
        "RetryConnection": RetryConnectionRequest { org: org(), connection: s("x") }
            => "INVALID_ARGUMENT" "connection";
        "CancelConnection": CancelConnectionRequest { org: org() } => "INVALID_ARGUMENT" "connection";
        "GetConnection": GetConnectionRequest { org: org() } => "INVALID_ARGUMENT" "connection";
        "WatchConnection": WatchConnectionRequest { org: org() } => "INVALID_ARGUMENT" "connection";
        "ListConnections": ListConnectionsRequest { org: org(), page_token: s("x") }
            => "INVALID_ARGUMENT" "page_token";
        "DisconnectAccount": DisconnectAccountRequest { org: org() } => "INVALID_ARGUMENT" "credential";
        "GetRevocation": GetRevocationRequest { org: org() } => "INVALID_ARGUMENT" "revocation";
        "ListRevocations": ListRevocationsRequest { org: org(), page_size: -1 }
            => "INVALID_ARGUMENT" "page_size";
    }
}

fn access() -> Vec<Call> {
    calls! { "AccessService",
        "CreateApiKey": CreateApiKeyRequest { org: org(), ttl: seconds(1) } => "INVALID_ARGUMENT" "ttl";
        "CreateApiKey": CreateApiKeyRequest { org: org(), ttl: seconds(366 * 86_400) } => "INVALID_ARGUMENT" "ttl";
        "CreateApiKey": CreateApiKeyRequest { org: org(), display_name: "x".repeat(129) }
            => "INVALID_ARGUMENT" "display_name";
        "CreateApiKey": CreateApiKeyRequest { org: org(), display_name: s("a\u{1b}[2Jb") }
            => "INVALID_ARGUMENT" "display_name";
        "RevokeApiKey": RevokeApiKeyRequest { org: org() } => "INVALID_ARGUMENT" "api_key";
        "ListApiKeys": ListApiKeysRequest { org: org(), page_token: s("%") } => "INVALID_ARGUMENT" "page_token";
    }
}

fn consumer(task: &str) -> Vec<Call> {
    let task = || task.to_owned();
    calls! { "BrokerService",
        "ResolveCredential": ResolveCredentialRequest { project: s(PROJECT) } => "INVALID_ARGUMENT" "member";
        "ResolveCredential": ResolveCredentialRequest { member: s(MEMBER) } => "INVALID_ARGUMENT" "project";
        "ResolveCredential": ResolveCredentialRequest { task: task(), member: s(MEMBER) }
            => "INVALID_ARGUMENT" "member";
        "ResolveCredential": ResolveCredentialRequest { task: s("mine") } => "INVALID_ARGUMENT" "task";
        "ResolveCredential": ResolveCredentialRequest { task: task(), capacity: 3 } => "INVALID_ARGUMENT" "capacity";
        "ResolveCredential": ResolveCredentialRequest { task: task(), model: "m".repeat(129) }
            => "INVALID_ARGUMENT" "model";
        "ResolveCredential": ResolveCredentialRequest { task: task(), request_id: "r".repeat(65) }
            => "INVALID_ARGUMENT" "request_id";
        "ResolveCredential": ResolveCredentialRequest { task: task(), minimum_remaining: seconds(86_401) }
            => "INVALID_ARGUMENT" "minimum_remaining";
        "ResolveCredential": ResolveCredentialRequest { task: task(), minimum_remaining: seconds(-1) }
            => "INVALID_ARGUMENT" "minimum_remaining";
        "RefreshToken": RefreshTokenRequest { rejected_generation: 1 } => "INVALID_ARGUMENT" "lease";
        "RefreshToken": RefreshTokenRequest { lease: s("lse_"), provider_message: "x".repeat(8_193) }
            => "INVALID_ARGUMENT" "provider_message";
        "ReleaseLease": ReleaseLeaseRequest { lease: s("lease") } => "INVALID_ARGUMENT" "lease";
    }
}

// req: D1 B9(core)
#[tokio::test]
async fn a_malformed_field_is_named_and_nothing_is_changed() {
    let options = Options {
        connectors: broker::connector("http://127.0.0.1:9/token", "client", ""),
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;
    let lease = automation.resolve(&task).await.unwrap().lease.unwrap().id;

    let before = State::of(&operator, ORG).await;
    for calls in [
        directory(),
        tasks(),
        agents(),
        credentials(),
        accounts(),
        access(),
    ] {
        refused(&operator, calls).await;
    }
    let journal = calls! { "JournalService",
        "ListRecords": ListRecordsRequest { page_token: s("first") } => "INVALID_ARGUMENT" "page_token";
        "ListRecords": ListRecordsRequest { page_size: -5 } => "INVALID_ARGUMENT" "page_size";
        "ListRecords": ListRecordsRequest { org: s("?") } => "INVALID_ARGUMENT" "org";
    };
    refused(&operator, journal).await;
    refused(&automation, consumer(&task)).await;
    let generations = calls! { "BrokerService",
        "RefreshToken": RefreshTokenRequest { lease: lease.clone() } => "INVALID_ARGUMENT" "rejected_generation";
        "RefreshToken": RefreshTokenRequest { lease, rejected_generation: 2 }
            => "INVALID_ARGUMENT" "rejected_generation";
    };
    refused(&automation, generations).await;
    assert_eq!(State::of(&operator, ORG).await, before);
}

// A reference longer than any key of the store is not found, like any other that leads nowhere.
// req: D1
#[tokio::test]
async fn a_reference_of_any_length_is_answered() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;
    for length in [600, 100_000] {
        let request = proto::ResolveCredentialRequest {
            member_identity: format!("git:{}", "x".repeat(length)),
            project: s(PROJECT),
            ..Default::default()
        };
        let status = automation.broker().resolve_credential(request).await.unwrap_err();
        assert_eq!(reason(&status), "NOT_FOUND");
        let request = proto::ListTasksRequest {
            page_token: "A".repeat(length),
            ..Default::default()
        };
        let status = automation.tasks().list_tasks(request).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_ARGUMENT");
    }
}
