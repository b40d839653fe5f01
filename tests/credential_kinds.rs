//! The kinds of stored keys: what is taken, what is refused, what a task is handed, and whose key it is.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "credential_kinds/lasting.rs"]
mod lasting;
#[path = "credential_kinds/owners.rs"]
mod owners;
#[path = "credential_kinds/shapes.rs"]
mod shapes;
#[path = "credential_kinds/storing.rs"]
mod storing;
mod support;

use credbroker::proto;
use proto::material::Material;
use proto::set_credential_request::Key;
use support::broker::{ORG, PROJECT};
use support::client::owner;
use support::{Caller, TestBroker};
use tonic::Status;

const LONG_TERM: &str = "AKIAABCDEFGHIJKLMNOP";
const TEMPORARY: &str = "ASIAABCDEFGHIJKLMNOP";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const REGION: &str = "us-east-1";

fn s(text: &str) -> String {
    text.to_owned()
}

fn secret(text: &str) -> Option<proto::Secret> {
    (!text.is_empty()).then(|| proto::Secret { value: s(text) })
}

/// AWS keys; without a session token where that is empty.
fn aws(access_key_id: &str, secret_access_key: &str, session_token: &str) -> Key {
    Key::AwsKeys(proto::AwsKeys {
        access_key_id: s(access_key_id),
        secret_access_key: secret(secret_access_key),
        session_token: secret(session_token),
        region: s(REGION),
    })
}

fn bearer(token: &str) -> Key {
    Key::BedrockBearer(proto::BedrockBearer {
        token: secret(token),
        region: s(REGION),
    })
}

fn api_key(key: &str) -> Key {
    Key::ApiKey(proto::Secret { value: s(key) })
}

/// A key of the org for bedrock.
fn request(key: Key) -> proto::SetCredentialRequest {
    proto::SetCredentialRequest {
        org: s(ORG),
        owner: Some(owner("")),
        provider: s("bedrock"),
        key: Some(key),
        ..Default::default()
    }
}

async fn set(caller: &Caller, request: proto::SetCredentialRequest) -> Result<proto::Credential, Status> {
    let stored = caller.credentials().set_credential(request).await?.into_inner();
    Ok(stored.credential.unwrap())
}

/// A task of the prepared member for this executor and provider.
async fn task(operator: &Caller, executor: &str, provider: &str) -> String {
    let request = proto::CreateTaskRequest {
        org: s(ORG),
        member: s(support::broker::MEMBER),
        project: s(PROJECT),
        executor: s(executor),
        provider: s(provider),
        ..Default::default()
    };
    let made = operator.tasks().create_task(request).await.unwrap().into_inner();
    made.task.unwrap().id
}

/// An agent with a task of its own for claude-code with bedrock, and the task.
async fn agent(broker: &TestBroker, operator: &Caller) -> (Caller, String) {
    let task = task(operator, "claude-code", "bedrock").await;
    let agent = broker.agent(&broker.enroll(operator, &task).await).await;
    (agent, task)
}

fn material(lease: &proto::Lease) -> &Material {
    lease.material.as_ref().unwrap().material.as_ref().unwrap()
}
