//! Who may call what: every call has its row, every kind of caller meets it, and what was revoked is refused
//! on the connection it has open.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "access/matrix.rs"]
mod matrix;
mod support;

use std::time::Duration;

use credbroker::proto;
use support::broker::{MEMBER, ORG, PROJECT};
use support::{Caller, TestBroker, reason};

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

// Who opens a call and holds the message back until after the revocation gets nothing done by it.
// req: D6 N4
#[tokio::test]
async fn a_message_that_comes_after_the_revocation_is_refused() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (id, key) = operator.make_api_key(ORG).await;
    let caller = broker.caller(Some(&key)).await;
    let task = proto::CreateTaskRequest {
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    let message = prost::Message::encode_to_vec(&task);
    let path = "/credbroker.v1.TaskService/CreateTask";
    // In time it is taken, however late.
    let late = tokio::time::sleep(Duration::from_millis(100));
    caller.raw_when(path, message.clone(), late).await.unwrap();

    let (revoked, told) = tokio::sync::oneshot::channel();
    let held_back = tokio::spawn({
        let (caller, message) = (caller.clone(), message.clone());
        let told = async move { told.await.unwrap() };
        async move { caller.raw_when(path, message, told).await }
    });
    // The head of the call is in by then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let request = proto::RevokeApiKeyRequest {
        org: ORG.to_owned(),
        api_key: id,
    };
    operator.access().revoke_api_key(request).await.unwrap();
    revoked.send(()).unwrap();
    let refused = held_back.await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "CREDENTIAL_UNKNOWN");
    let list = proto::ListTasksRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator.tasks().list_tasks(list).await.unwrap();
    assert_eq!(listed.into_inner().tasks.len(), 1);
}
