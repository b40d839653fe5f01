//! Revocation that bites: after the answer nothing of the subject succeeds, whatever was under way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "revoke/connections.rs"]
mod connections;
#[path = "revoke/members.rs"]
mod members;
#[path = "revoke/outstanding.rs"]
mod outstanding;
#[path = "revoke/races.rs"]
mod races;
#[path = "revoke/thousand.rs"]
mod thousand;

use credbroker::proto::{self, lock_target::Target};
use support::Caller;
use support::broker::{ORG, PROJECT};

async fn revoke_agent(operator: &Caller, agent: &str, rotate: bool) -> proto::RevokeAgentResponse {
    let request = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: agent.to_owned(),
        rotate_outstanding: rotate,
    };
    operator
        .agents()
        .revoke_agent(request)
        .await
        .unwrap()
        .into_inner()
}

async fn lock(operator: &Caller, target: Target) -> proto::CreateLockResponse {
    let request = proto::CreateLockRequest {
        org: ORG.to_owned(),
        target: Some(proto::LockTarget {
            target: Some(target),
            project: PROJECT.to_owned(),
        }),
        ..Default::default()
    };
    operator.locks().create_lock(request).await.unwrap().into_inner()
}

async fn unlock(operator: &Caller, lock: &proto::CreateLockResponse) {
    let request = proto::RemoveLockRequest {
        org: ORG.to_owned(),
        lock: lock.lock.as_ref().unwrap().id.clone(),
    };
    operator.locks().remove_lock(request).await.unwrap();
}

async fn revoke_key(operator: &Caller, api_key: &str) -> proto::RevokeApiKeyResponse {
    let request = proto::RevokeApiKeyRequest {
        org: ORG.to_owned(),
        api_key: api_key.to_owned(),
    };
    operator
        .access()
        .revoke_api_key(request)
        .await
        .unwrap()
        .into_inner()
}

async fn remove_member(operator: &Caller, member: &str) -> proto::RemoveMemberResponse {
    let request = proto::RemoveMemberRequest {
        org: ORG.to_owned(),
        member: member.to_owned(),
    };
    operator
        .directory()
        .remove_member(request)
        .await
        .unwrap()
        .into_inner()
}
