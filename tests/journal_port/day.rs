//! A day at the broker, which leaves one of everything in the journal.

use credbroker::proto;

use crate::support::broker::{MEMBER, ORG};
use crate::support::{Caller, Enrolled, NewKey, TestBroker, reason};

/// All that a busy day leaves: every effect this broker has, a few refusals, and every secret that was about.
pub(crate) struct Day {
    pub(crate) broker: TestBroker,
    pub(crate) operator: Caller,
    pub(crate) enrolled: Enrolled,
    pub(crate) task: String,
    pub(crate) secrets: Vec<String>,
}

pub(crate) async fn day() -> Day {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let mut secrets = vec![broker.operator_token().to_owned()];
    let mut secret = |text: &str| {
        secrets.push(text.to_owned());
        text.to_owned()
    };
    let org = ORG.to_owned();
    let key = operator.set_key(ORG, "", &secret("the-orgs-own-key-000")).await;
    operator
        .set_key(ORG, MEMBER, &secret("the-members-key-0000"))
        .await;
    let task = operator.make_task(ORG, MEMBER).await;
    let token = secret(&operator.enrollment_token(ORG, &task).await);
    let agent_key = NewKey::generate();
    let enrolled = broker.enroll_with(&token, &agent_key).await.unwrap();
    secret(&enrolled.runtime_key);
    let stranger = broker
        .enroll_with(&token, &NewKey::generate())
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&stranger), "ENROLLMENT_TOKEN_BOUND");
    let agent = broker.agent(&enrolled).await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    agent.resolve("").await.unwrap();
    agent
        .resolve(&format!("tsk_{}", "0".repeat(32)))
        .await
        .unwrap_err();
    let rejected = proto::RefreshTokenRequest {
        lease: lease.id.clone(),
        rejected_generation: 1,
        provider_message: secret("401 for the-members-key"),
        ..Default::default()
    };
    agent.broker().refresh_token(rejected).await.unwrap_err();
    let renew = proto::RenewCertificateRequest {
        csr_der: agent_key.csr(),
    };
    agent.enrollment().renew_certificate(renew).await.unwrap();
    let rotate = proto::RotateRuntimeKeyRequest {};
    let rotated = agent
        .enrollment()
        .rotate_runtime_key(rotate)
        .await
        .unwrap()
        .into_inner();
    secret(&rotated.runtime_key.unwrap().value);
    let release = proto::ReleaseLeaseRequest { lease: lease.id };
    agent.broker().release_lease(release).await.unwrap();
    let (api_key, token) = operator.make_api_key(ORG).await;
    secret(&token);
    let revoke = proto::RevokeApiKeyRequest {
        org: org.clone(),
        api_key,
    };
    operator.access().revoke_api_key(revoke).await.unwrap();
    let remove = proto::RemoveCredentialRequest {
        org: org.clone(),
        credential: key.id,
    };
    operator.credentials().remove_credential(remove).await.unwrap();
    let list = proto::ListEnrollmentTokensRequest {
        org: org.clone(),
        ..Default::default()
    };
    let tokens = operator
        .agents()
        .list_enrollment_tokens(list)
        .await
        .unwrap()
        .into_inner();
    let revoke = proto::RevokeEnrollmentTokenRequest {
        org: org.clone(),
        enrollment_token: tokens.enrollment_tokens[0].id.clone(),
        ..Default::default()
    };
    operator.agents().revoke_enrollment_token(revoke).await.unwrap();
    let other = operator.make_task(ORG, MEMBER).await;
    let spare = broker.enroll(&operator, "").await;
    let assign = proto::AssignTaskRequest {
        org: org.clone(),
        task: other.clone(),
        agents: vec![spare.agent.clone()],
    };
    operator.tasks().assign_task(assign).await.unwrap();
    let end = proto::EndTaskRequest {
        org: org.clone(),
        task: other,
    };
    operator.tasks().end_task(end).await.unwrap();
    let revoke = proto::RevokeAgentRequest {
        org: org.clone(),
        agent: spare.agent,
        ..Default::default()
    };
    operator.agents().revoke_agent(revoke).await.unwrap();
    let mask = prost_types::FieldMask {
        paths: vec!["display_name".to_owned()],
    };
    let update = proto::UpdateOrgRequest {
        org: Some(proto::Org {
            id: org,
            ..Default::default()
        }),
        update_mask: Some(mask),
    };
    operator.directory().update_org(update).await.unwrap();
    Day {
        broker,
        operator,
        enrolled,
        task,
        secrets,
    }
}
