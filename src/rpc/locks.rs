//! `LockService`: between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, duration, outstanding, timestamp};
use super::status::status;
use crate::domain::lock::Lock;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::proto::lock_target::Target;
use crate::service::{Broker, LockRef, NewLock, PageRequest};

pub(super) struct LockService(pub(super) Arc<Broker>);

fn lock(lock: &Lock) -> proto::Lock {
    proto::Lock {
        id: lock.id.to_string(),
        org: lock.org.to_string(),
        subject: lock.target.to_string(),
        message: lock.message.clone(),
        actor: lock.by.clone(),
        by_system: lock.by_system,
        create_time: Some(timestamp(lock.created)),
        expire_time: lock.expires.map(timestamp),
    }
}

fn target(target: Option<&proto::LockTarget>) -> Result<LockRef<'_>, Refusal> {
    let missing = || Refusal::invalid("target", "target is required: say what to lock");
    let target = target.ok_or_else(missing)?;
    match &target.target {
        Some(Target::Agent(agent)) => Ok(LockRef::Agent(agent)),
        Some(Target::Member(member)) => Ok(LockRef::Member(member)),
        Some(Target::Credential(credential)) => Ok(LockRef::Credential(credential)),
        Some(Target::Environment(environment)) => Ok(LockRef::Environment {
            project: &target.project,
            environment,
        }),
        Some(Target::Org(true)) => Ok(LockRef::Org),
        Some(Target::Org(false)) | None => Err(missing()),
    }
}

#[tonic::async_trait]
impl proto::lock_service_server::LockService for LockService {
    async fn create_lock(
        &self,
        request: Request<proto::CreateLockRequest>,
    ) -> Result<Response<proto::CreateLockResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let new = NewLock {
            org: &message.org,
            target: target(message.target.as_ref()).map_err(status)?,
            message: &message.message,
            ttl: duration("ttl", message.ttl).map_err(status)?,
            request_id: &message.request_id,
        };
        let locked = self.0.create_lock(&caller, new).await.map_err(status)?;
        Ok(Response::new(proto::CreateLockResponse {
            lock: Some(lock(&locked.lock)),
            outstanding: outstanding(&locked.outstanding),
            outstanding_truncated: locked.outstanding.more,
        }))
    }

    async fn list_locks(
        &self,
        request: Request<proto::ListLocksRequest>,
    ) -> Result<Response<proto::ListLocksResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self.0.list_locks(&caller, &message.org, page).await;
        let page = page.map_err(status)?;
        Ok(Response::new(proto::ListLocksResponse {
            locks: page.rows.iter().map(|row| lock(&row.value)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn remove_lock(
        &self,
        request: Request<proto::RemoveLockRequest>,
    ) -> Result<Response<proto::RemoveLockResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let removed = self.0.remove_lock(&caller, &message.org, &message.lock).await;
        Ok(Response::new(proto::RemoveLockResponse {
            lock: Some(lock(&*removed.map_err(status)?)),
        }))
    }
}
