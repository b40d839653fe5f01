//! `ExecutorService`: what executors can be used by, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, health, kind, mode, owner};
use super::status::status;
use crate::domain::readiness::Readiness;
use crate::proto;
use crate::service::{Broker, ExecutorView, ExecutorWay, PageRequest};

pub(super) struct ExecutorService(pub(super) Arc<Broker>);

fn readiness(readiness: Readiness) -> i32 {
    (match readiness {
        Readiness::Ready => proto::Readiness::Ready,
        Readiness::Connect(_) => proto::Readiness::Connect,
        Readiness::Fault(_) => proto::Readiness::Fault,
    }) as i32
}

fn way(broker: &Broker, way: &ExecutorWay) -> proto::ExecutorWay {
    let credential = way.credential.as_ref();
    let reason = way.readiness.reason();
    proto::ExecutorWay {
        provider: way.entry.provider.clone(),
        mode: mode(way.entry.mode),
        readiness: readiness(way.readiness),
        credential: credential.map(|it| it.id.to_string()).unwrap_or_default(),
        owner: credential.map(|it| owner(it.owner)),
        health: credential.map(|it| health(broker.health(it))).unwrap_or_default(),
        reason: reason.map(|it| it.code().to_owned()).unwrap_or_default(),
        fault: reason.map(|it| it.fault().name().to_owned()).unwrap_or_default(),
        remedy: reason.map(|it| it.remedy().to_owned()).unwrap_or_default(),
        kind: way.entry.kind.map(kind).unwrap_or_default(),
    }
}

fn executor(broker: &Broker, view: &ExecutorView) -> proto::Executor {
    let ways = view.ways.iter().map(|way| way.readiness);
    proto::Executor {
        name: view.name.clone(),
        native_provider: view.native_provider.clone(),
        readiness: ways.reduce(Readiness::better).map(readiness).unwrap_or_default(),
        ways: view.ways.iter().map(|it| way(broker, it)).collect(),
    }
}

#[tonic::async_trait]
impl proto::executor_service_server::ExecutorService for ExecutorService {
    async fn list_executors(
        &self,
        request: Request<proto::ListExecutorsRequest>,
    ) -> Result<Response<proto::ListExecutorsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let listed = self
            .0
            .list_executors(&caller, &message.org, &message.member, &message.project, page);
        let page = listed.await.map_err(status)?;
        Ok(Response::new(proto::ListExecutorsResponse {
            executors: page.rows.iter().map(|view| executor(&self.0, view)).collect(),
            next_page_token: page.next,
        }))
    }
}
