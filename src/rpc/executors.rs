//! `ExecutorService`: the registry, and what executors can be used by, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::connectors::connector;
use super::convert::{caller, health, kind, mode, owner, proto_capacity};
use super::status::status;
use crate::domain::executor::Expectation;
use crate::domain::mode::ModeSet;
use crate::domain::readiness::Readiness;
use crate::proto;
use crate::service::{
    Broker, ConnectorView, ExecutorView, ExecutorWay, PageRequest, PoolView, ProviderView, StateOf,
};

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
        providers: view
            .providers
            .iter()
            .map(|(provider, modes)| supported(&view.name, provider, *modes))
            .collect(),
    }
}

fn supported(executor: &str, provider: &str, modes: ModeSet) -> proto::SupportedModes {
    proto::SupportedModes {
        executor: executor.to_owned(),
        provider: provider.to_owned(),
        modes: modes.iter().map(mode).collect(),
    }
}

fn of_provider(view: ConnectorView) -> proto::ProviderConnector {
    proto::ProviderConnector {
        name: view.name,
        usable: view.usable,
        terms: view.terms,
        terms_url: view.terms_url,
    }
}

fn provider(view: ProviderView) -> proto::Provider {
    let provider = view.provider;
    let expectation = match provider.credential {
        Expectation::Required => proto::CredentialExpectation::Required,
        Expectation::None => proto::CredentialExpectation::None,
    };
    let name = provider.name.to_string();
    let executors = view.executors.iter();
    proto::Provider {
        title: provider.title,
        kinds: provider.kinds.into_iter().map(kind).collect(),
        credential: expectation as i32,
        base_url: provider.base_url.unwrap_or_default(),
        models: provider.models.iter().map(ToString::to_string).collect(),
        model_ids: provider.model_ids.into_iter().collect(),
        executors: executors
            .map(|(executor, modes)| supported(executor, &name, *modes))
            .collect(),
        connectors: view.connectors.into_iter().map(of_provider).collect(),
        name,
    }
}

fn pool(view: PoolView) -> proto::Pool {
    proto::Pool {
        name: view.pool.name.to_string(),
        title: view.pool.title,
        capacity: proto_capacity(view.pool.capacity),
        default: view.default,
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
        let of = StateOf {
            org: &message.org,
            member: &message.member,
            project: &message.project,
        };
        let listed = self.0.list_executors(&caller, of, page).await;
        let page = listed.map_err(status)?;
        Ok(Response::new(proto::ListExecutorsResponse {
            executors: page.rows.iter().map(|view| executor(&self.0, view)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn get_executor(
        &self,
        request: Request<proto::GetExecutorRequest>,
    ) -> Result<Response<proto::GetExecutorResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let of = StateOf {
            org: &message.org,
            member: &message.member,
            project: &message.project,
        };
        let view = self.0.get_executor(&caller, of, &message.executor).await;
        let view = view.map_err(status)?;
        Ok(Response::new(proto::GetExecutorResponse {
            executor: Some(executor(&self.0, &view)),
        }))
    }

    async fn list_providers(
        &self,
        request: Request<proto::ListProvidersRequest>,
    ) -> Result<Response<proto::ListProvidersResponse>, Status> {
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self.0.list_providers(page).map_err(status)?;
        Ok(Response::new(proto::ListProvidersResponse {
            providers: page.rows.into_iter().map(provider).collect(),
            next_page_token: page.next,
        }))
    }

    async fn get_provider(
        &self,
        request: Request<proto::GetProviderRequest>,
    ) -> Result<Response<proto::GetProviderResponse>, Status> {
        let view = self.0.get_provider(&request.get_ref().provider).map_err(status)?;
        Ok(Response::new(proto::GetProviderResponse {
            provider: Some(provider(view)),
        }))
    }

    async fn list_connectors(
        &self,
        request: Request<proto::ListConnectorsRequest>,
    ) -> Result<Response<proto::ListConnectorsResponse>, Status> {
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self.0.list_connectors(page).map_err(status)?;
        Ok(Response::new(proto::ListConnectorsResponse {
            connectors: page.rows.iter().map(connector).collect(),
            next_page_token: page.next,
        }))
    }

    async fn get_connector(
        &self,
        request: Request<proto::GetConnectorRequest>,
    ) -> Result<Response<proto::GetConnectorResponse>, Status> {
        let view = self.0.get_connector(&request.get_ref().connector);
        Ok(Response::new(proto::GetConnectorResponse {
            connector: Some(connector(&view.map_err(status)?)),
        }))
    }

    async fn list_pools(
        &self,
        request: Request<proto::ListPoolsRequest>,
    ) -> Result<Response<proto::ListPoolsResponse>, Status> {
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self.0.list_pools(page).map_err(status)?;
        Ok(Response::new(proto::ListPoolsResponse {
            pools: page.rows.into_iter().map(pool).collect(),
            next_page_token: page.next,
        }))
    }
}
