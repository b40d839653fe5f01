//! Callers that show the wrong thing, or half of it.

use credbroker::domain::id::{ApiKeyId, OperatorId};
use credbroker::domain::secret::Exposure;
use credbroker::domain::token::{ApiKeyFamily, ApprovalFamily, OperatorFamily, RuntimeKeyFamily, Token};
use credbroker::proto;

use crate::support::broker::{MEMBER, ORG};
use crate::support::raw::told;
use crate::support::state::State;
use crate::support::{Caller, Enrolled, TestBroker, reason};

fn text<F: credbroker::domain::token::Family>(token: &Token<F>) -> String {
    token.reveal().expose_str(Exposure::Inspect).unwrap().to_owned()
}

async fn as_whoever(broker: &TestBroker, certificate: Option<&Enrolled>, token: Option<&str>) -> Caller {
    let identity = certificate.map(Enrolled::identity);
    Caller::connect(&broker.address.to_string(), broker.trust(), identity, token).await
}

// req: D1 D3 D5 K2
#[tokio::test]
async fn half_a_credential_or_another_agents_is_none() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let other = broker.enroll(&operator, &task).await;
    for enrolled in [&enrolled, &other] {
        let agent = broker.agent(enrolled).await;
        agent.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();
    }
    let (_, api_key) = operator.make_api_key(ORG).await;
    let key = enrolled.runtime_key.as_str();
    let agent_id = enrolled.agent.parse().unwrap();
    let guessed = text(&Token::<RuntimeKeyFamily>::new(agent_id, [9; 32]));
    let no_api_key = text(&Token::<ApiKeyFamily>::new(
        ApiKeyId::from_bytes([7; 16]),
        [9; 32],
    ));
    let no_operator = text(&Token::<OperatorFamily>::new(
        OperatorId::from_bytes([7; 16]),
        [9; 32],
    ));
    let approval = text(&Token::<ApprovalFamily>::new(
        credbroker::domain::id::ApprovalId::from_bytes([7; 16]),
        [9; 32],
    ));
    let renamed = key.replacen("cbr_", "cbk_", 1);
    let enrollment = operator.enrollment_token(ORG, "").await;

    let before = State::of(&operator, ORG).await;
    for (what, certificate, token, expected) in [
        ("nothing", None, None, "CREDENTIAL_MISSING"),
        ("a certificate alone", Some(&enrolled), None, "CREDENTIAL_MISSING"),
        ("a key alone", None, Some(key), "CLIENT_CERTIFICATE_REQUIRED"),
        (
            "another agent's certificate",
            Some(&other),
            Some(key),
            "CERTIFICATE_MISMATCH",
        ),
        (
            "a guessed key",
            Some(&enrolled),
            Some(&guessed),
            "CREDENTIAL_UNKNOWN",
        ),
        (
            "a key cut short",
            Some(&enrolled),
            Some(&key[..20]),
            "CREDENTIAL_MALFORMED",
        ),
        (
            "a key under another name",
            Some(&enrolled),
            Some(&renamed),
            "CREDENTIAL_MALFORMED",
        ),
        (
            "an unknown API key",
            None,
            Some(&no_api_key),
            "CREDENTIAL_UNKNOWN",
        ),
        (
            "an enrollment token",
            None,
            Some(&enrollment),
            "WRONG_CREDENTIAL_FAMILY",
        ),
        ("an approval", None, Some(&approval), "WRONG_CREDENTIAL_FAMILY"),
        (
            "an operator's token",
            None,
            Some(broker.operator_token()),
            "PERMISSION_DENIED",
        ),
        (
            "an unknown operator's",
            None,
            Some(&no_operator),
            "CREDENTIAL_UNKNOWN",
        ),
        ("something else", None, Some("hello"), "WRONG_CREDENTIAL_FAMILY"),
    ] {
        let caller = as_whoever(&broker, certificate, token).await;
        let status = caller.resolve(&task).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{what}");
        // Who is known and may not is told so; all others did not show who they are.
        let code = match expected {
            "PERMISSION_DENIED" => tonic::Code::PermissionDenied,
            _ => tonic::Code::Unauthenticated,
        };
        assert_eq!(status.code(), code, "{what}");
    }

    // An API key stays one over an agent's connection: it gets nothing that the agent has.
    let both = as_whoever(&broker, Some(&enrolled), Some(&api_key)).await;
    let who = both
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(who.family, "api-key");
    let rotated = both
        .enrollment()
        .rotate_runtime_key(proto::RotateRuntimeKeyRequest {})
        .await;
    assert_eq!(reason(&rotated.unwrap_err()), "WRONG_CREDENTIAL_FAMILY");
    assert_eq!(State::of(&operator, ORG).await, before);
}

// req: D8
#[tokio::test]
async fn another_agents_task_or_lease_looks_like_none() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let (task, others_task) = (
        operator.make_task(ORG, MEMBER).await,
        operator.make_task(ORG, MEMBER).await,
    );
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let other = broker.agent(&broker.enroll(&operator, &others_task).await).await;
    agent.resolve("").await.unwrap();
    let others_lease = other.resolve("").await.unwrap().lease.unwrap().id;
    let ended = operator.make_task(ORG, MEMBER).await;
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: ended.clone(),
    };
    operator.tasks().end_task(end).await.unwrap();
    let no_task = format!("tsk_{}", "0".repeat(32));
    let no_lease = format!("lse_{}", "0".repeat(32));

    let before = State::of(&operator, ORG).await;
    let unknown = agent.resolve(&no_task).await.unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND");
    for hidden in [&others_task, &ended] {
        let status = agent.resolve(hidden).await.unwrap_err();
        assert_eq!(told(&status), told(&unknown));
        // Nor does a wrong claim about it say more.
        let request = proto::ResolveCredentialRequest {
            task: hidden.clone(),
            executor: "codex".to_owned(),
            ..Default::default()
        };
        let status = agent.broker().resolve_credential(request).await.unwrap_err();
        assert_eq!(told(&status), told(&unknown));
    }
    let refresh = |lease: &str| proto::RefreshTokenRequest {
        lease: lease.to_owned(),
        rejected_generation: 1,
        ..Default::default()
    };
    let release = |lease: &str| proto::ReleaseLeaseRequest {
        lease: lease.to_owned(),
    };
    let unknown = agent
        .broker()
        .refresh_token(refresh(&no_lease))
        .await
        .unwrap_err();
    let hidden = agent
        .broker()
        .refresh_token(refresh(&others_lease))
        .await
        .unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND");
    assert_eq!(told(&hidden), told(&unknown));
    let unknown = agent
        .broker()
        .release_lease(release(&no_lease))
        .await
        .unwrap_err();
    let hidden = agent
        .broker()
        .release_lease(release(&others_lease))
        .await
        .unwrap_err();
    assert_eq!(reason(&unknown), "NOT_FOUND");
    assert_eq!(told(&hidden), told(&unknown));
    assert_eq!(State::of(&operator, ORG).await, before);
    assert_eq!(other.resolve("").await.unwrap().lease.unwrap().id, others_lease);
}
