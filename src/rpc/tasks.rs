//! `TaskService`: tasks and their agents, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, capacity, duration, proto_capacity, timestamp};
use super::status::status;
use crate::proto;
use crate::service::{Broker, NewTask, PageRequest, TaskView};

pub(super) struct TaskService(pub(super) Arc<Broker>);

fn task(view: &TaskView) -> Option<proto::Task> {
    let task = &view.task;
    Some(proto::Task {
        id: task.id.to_string(),
        org: task.org.to_string(),
        member: task.member.to_string(),
        project: task.project.to_string(),
        executor: task.executor.clone(),
        profile: task.profile.clone(),
        capacity: proto_capacity(task.capacity),
        spec_hash: task.spec_hash.clone(),
        expire_time: Some(timestamp(task.expires)),
        create_time: Some(timestamp(task.created)),
        end_time: task.ended.map(timestamp),
        agents: view.agents.iter().map(ToString::to_string).collect(),
        provider: task.provider.clone().unwrap_or_default(),
        pool: task.pool.clone().unwrap_or_default(),
    })
}

#[tonic::async_trait]
impl proto::task_service_server::TaskService for TaskService {
    async fn create_task(
        &self,
        request: Request<proto::CreateTaskRequest>,
    ) -> Result<Response<proto::CreateTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let new = NewTask {
            org: &message.org,
            member: &message.member,
            member_identity: &message.member_identity,
            project: &message.project,
            executor: &message.executor,
            provider: &message.provider,
            profile: &message.profile,
            capacity: capacity(message.capacity).map_err(status)?.unwrap_or_default(),
            pool: &message.pool,
            spec_hash: &message.spec_hash,
            ttl: duration("ttl", message.ttl).map_err(status)?,
            agents: &message.agents,
            request_id: &message.request_id,
        };
        let view = self.0.create_task(&caller, new).await.map_err(status)?;
        Ok(Response::new(proto::CreateTaskResponse { task: task(&view) }))
    }

    async fn get_task(
        &self,
        request: Request<proto::GetTaskRequest>,
    ) -> Result<Response<proto::GetTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let view = self
            .0
            .get_task(&caller, &message.org, &message.task)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetTaskResponse { task: task(&view) }))
    }

    async fn list_tasks(
        &self,
        request: Request<proto::ListTasksRequest>,
    ) -> Result<Response<proto::ListTasksResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_tasks(&caller, &message.org, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListTasksResponse {
            tasks: page.rows.iter().filter_map(task).collect(),
            next_page_token: page.next,
        }))
    }

    async fn assign_task(
        &self,
        request: Request<proto::AssignTaskRequest>,
    ) -> Result<Response<proto::AssignTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let view = self
            .0
            .assign_task(&caller, &message.org, &message.task, &message.agents)
            .await;
        Ok(Response::new(proto::AssignTaskResponse {
            task: task(&view.map_err(status)?),
        }))
    }

    async fn end_task(
        &self,
        request: Request<proto::EndTaskRequest>,
    ) -> Result<Response<proto::EndTaskResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let view = self
            .0
            .end_task(&caller, &message.org, &message.task)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::EndTaskResponse { task: task(&view) }))
    }
}
