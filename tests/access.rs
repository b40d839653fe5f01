//! Who may call what: every call has its row, every kind of caller meets it, and what was revoked is refused
//! on the connection it has open.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeSet;

use credbroker::domain::id::ApprovalId;
use credbroker::domain::secret::Exposure;
use credbroker::domain::token::{ApprovalFamily, Token};
use credbroker::proto;
use credbroker::rpc::ACCESS;
use support::broker::{MEMBER, ORG};
use support::raw::methods;
use support::{Caller, TestBroker, reason};

// req: D1
#[test]
fn every_call_has_one_row_and_every_row_is_a_call() {
    let calls: BTreeSet<String> = methods().into_iter().map(|(path, _)| path).collect();
    assert!(calls.len() > 40, "the descriptors were not read");
    let ours = |path: &&str| !path.starts_with("/grpc.");
    let rows: Vec<&str> = ACCESS.iter().map(|row| row.path).filter(ours).collect();
    let set: BTreeSet<String> = rows.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(set, calls);
    assert_eq!(set.len(), rows.len(), "a call has two rows");
    // Health and reflection tell nothing about anybody, and are the only ones beside ours.
    for row in ACCESS.iter().filter(|row| !ours(&row.path)) {
        assert!(row.path.starts_with("/grpc.health.v1.") || row.path.starts_with("/grpc.reflection."));
    }
}

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Nobody,
    Operator,
    ApiKey,
    Agent,
    AgentWithoutCertificate,
    CertificateAlone,
    EnrollmentToken,
    Approval,
    Nonsense,
}

/// The policy in words, apart from the table: agents resolve and keep their identity fresh; automation also
/// runs tasks and agents and reads what is there; operators do everything but that; anybody may enroll, and ask
/// how to sign in.
fn may(kind: Kind, path: &str) -> bool {
    let call = path.strip_prefix("/credbroker.v1.").unwrap();
    let (service, method) = call.split_once('/').unwrap();
    let reads = method.starts_with("Get") || method.starts_with("List");
    let public = [
        "Enroll",
        "GetTrustBundle",
        "GetLoginConfiguration",
        "GetRenewalNonce",
        "RenewExpiredCertificate",
    ];
    if public.contains(&method) {
        return true;
    }
    match kind {
        Kind::Operator => {
            !["BrokerService", "EnrollmentService"].contains(&service) && method != "ReadSecret"
        }
        Kind::Agent => {
            ["BrokerService", "EnrollmentService", "WatchService"].contains(&service)
                || (service == "ApprovalService" && (reads || method == "RequestApproval"))
                || ["WhoAmI", "ReadSecret"].contains(&method)
        }
        Kind::ApiKey => match service {
            "BrokerService" | "TaskService" | "AgentService" | "WatchService" => true,
            "DirectoryService" | "CredentialService" | "ExecutorService" => reads,
            "LockService" => method != "RemoveLock",
            "ApprovalService" => reads || method == "RequestApproval",
            "SecretService" => method != "ReadSecret",
            _ => method == "WhoAmI",
        },
        _ => false,
    }
}

/// What a caller of this kind is told where it may not call.
fn refusal(kind: Kind, path: &str) -> &'static str {
    match kind {
        Kind::Nobody | Kind::CertificateAlone => "CREDENTIAL_MISSING",
        Kind::AgentWithoutCertificate if may(Kind::Agent, path) => "CLIENT_CERTIFICATE_REQUIRED",
        _ => "WRONG_CREDENTIAL_FAMILY",
    }
}

/// What the gate tells, and handlers never do.
const GATE: [&str; 8] = [
    "CREDENTIAL_MISSING",
    "CREDENTIAL_MALFORMED",
    "CREDENTIAL_UNKNOWN",
    "WRONG_CREDENTIAL_FAMILY",
    "CLIENT_CERTIFICATE_REQUIRED",
    "CERTIFICATE_MISMATCH",
    "PERMISSION_DENIED",
    "UNKNOWN_METHOD",
];

// req: D1 D3 K6 K2
#[tokio::test]
async fn every_kind_of_caller_gets_what_it_may_and_nothing_else() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    // Good for every group of calls: which group is tested elsewhere.
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: (1..=10).collect(),
        ..Default::default()
    };
    let made = operator.access().create_api_key(request).await.unwrap();
    let api_key = made.into_inner().token.unwrap().value.clone();
    let enrollment = operator.enrollment_token(ORG, "").await;
    let approval = Token::<ApprovalFamily>::new(ApprovalId::from_bytes([7; 16]), [9; 32]).reveal();
    let approval = approval.expose_str(Exposure::Inspect).unwrap();
    let address = broker.address.to_string();
    let certificate_alone = Caller::connect(&address, broker.trust(), Some(enrolled.identity()), None).await;
    let callers = [
        (Kind::Nobody, broker.caller(None).await),
        (Kind::Operator, operator),
        (Kind::ApiKey, broker.caller(Some(&api_key)).await),
        (Kind::Agent, broker.agent(&enrolled).await),
        (
            Kind::AgentWithoutCertificate,
            broker.caller(Some(&enrolled.runtime_key)).await,
        ),
        (Kind::CertificateAlone, certificate_alone),
        (Kind::EnrollmentToken, broker.caller(Some(&enrollment)).await),
        (Kind::Approval, broker.caller(Some(approval)).await),
        (Kind::Nonsense, broker.caller(Some("sk-ant-api03-hello")).await),
    ];
    for (path, _) in methods() {
        for (kind, caller) in &callers {
            let answer = caller.raw(&path, Vec::new()).await;
            let told = answer.as_ref().err().map(reason).unwrap_or_default();
            if may(*kind, &path) {
                assert!(!GATE.contains(&told.as_str()), "{kind:?} {path}: {told}");
                assert_ne!(told, "INTERNAL", "{kind:?} {path}");
            } else {
                assert_eq!(told, refusal(*kind, &path), "{kind:?} {path}");
                let code = answer.unwrap_err().code();
                assert_eq!(code, tonic::Code::Unauthenticated, "{kind:?} {path}");
            }
        }
    }
}

async fn who(caller: &Caller) -> Result<String, String> {
    match caller.access().who_am_i(proto::WhoAmIRequest {}).await {
        Ok(answer) => Ok(answer.into_inner().actor),
        Err(status) => Err(reason(&status)),
    }
}

fn gone() -> Result<String, String> {
    Err("CREDENTIAL_UNKNOWN".to_owned())
}

// req: D6 N4
#[tokio::test]
async fn a_revoked_agent_is_refused_on_its_open_connection_and_on_a_new_one() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let bystander = broker.enroll(&operator, &task).await;
    let (open, other) = (broker.agent(&enrolled).await, broker.agent(&bystander).await);
    assert_eq!(who(&open).await, Ok(enrolled.agent.clone()));
    let lease = open.resolve("").await.unwrap().lease.unwrap();

    let request = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    let revoked = operator
        .agents()
        .revoke_agent(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        revoked.agent.as_ref().unwrap().state(),
        proto::AgentState::Revoked
    );
    assert!(revoked.agent.as_ref().unwrap().revoke_time.is_some());
    // What it was handed stays valid at the provider, and is listed.
    let held: Vec<_> = revoked.outstanding.iter().map(|held| &held.lease).collect();
    assert_eq!(held, [&lease.id]);
    assert_eq!(revoked.outstanding[0].credential, lease.credential);
    assert_eq!(revoked.outstanding[0].generation, 1);

    assert_eq!(who(&open).await, gone());
    assert_eq!(reason(&open.resolve("").await.unwrap_err()), "CREDENTIAL_UNKNOWN");
    let release = proto::ReleaseLeaseRequest { lease: lease.id };
    let released = open.broker().release_lease(release).await.unwrap_err();
    assert_eq!(reason(&released), "CREDENTIAL_UNKNOWN");
    let rotated = open
        .enrollment()
        .rotate_runtime_key(proto::RotateRuntimeKeyRequest {})
        .await;
    assert_eq!(reason(&rotated.unwrap_err()), "CREDENTIAL_UNKNOWN");
    assert!(broker.is_kept_out(&enrolled).await);
    assert_eq!(who(&other).await, Ok(bystander.agent));

    // Again: nothing changes, and the same is listed.
    let again = operator
        .agents()
        .revoke_agent(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, revoked);
    let broker = broker.restart().await;
    assert!(broker.is_kept_out(&enrolled).await);
}

// req: D6 K6
#[tokio::test]
async fn a_revoked_api_key_is_refused_on_its_open_connection_and_on_a_new_one() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (id, key) = operator.make_broad_api_key(ORG).await;
    let (other_id, other_key) = operator.make_api_key(ORG).await;
    let (open, other) = (
        broker.caller(Some(&key)).await,
        broker.caller(Some(&other_key)).await,
    );
    assert_eq!(who(&open).await, Ok(id.clone()));
    let request = proto::RevokeApiKeyRequest {
        org: ORG.to_owned(),
        api_key: id,
    };
    let revoked = operator
        .access()
        .revoke_api_key(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(revoked.api_key.as_ref().unwrap().revoke_time.is_some());
    assert_eq!(who(&open).await, gone());
    assert_eq!(who(&broker.caller(Some(&key)).await).await, gone());
    assert_eq!(who(&other).await, Ok(other_id));
    let again = operator
        .access()
        .revoke_api_key(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, revoked);
}
