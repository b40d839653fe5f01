//! `AgentService`: enrollment tokens and agents, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, duration, map, pairs, show_once, timestamp};
use super::status::status;
use crate::domain::agent::Agent;
use crate::domain::enrollment::EnrollmentToken;
use crate::proto;
use crate::service::{Broker, NewEnrollmentTokens, OutstandingLease, PageRequest};

pub(super) struct AgentService(pub(super) Arc<Broker>);

fn enrollment_token(token: &EnrollmentToken) -> proto::EnrollmentToken {
    proto::EnrollmentToken {
        id: token.id.to_string(),
        org: token.org.to_string(),
        environment: token.environment.to_string(),
        max_agents: token.max_agents,
        bound_agents: token.bound,
        task: token.task.map(|task| task.to_string()).unwrap_or_default(),
        labels: map(&token.labels),
        create_time: Some(timestamp(token.created)),
        expire_time: Some(timestamp(token.expires)),
        revoke_time: token.revoked.map(timestamp),
    }
}

fn agent(agent: &Agent) -> proto::Agent {
    let state = match agent.revoked {
        None => proto::AgentState::Active,
        Some(_) => proto::AgentState::Revoked,
    };
    proto::Agent {
        id: agent.id.to_string(),
        org: agent.org.to_string(),
        environment: agent.environment.to_string(),
        state: state as i32,
        labels: map(&agent.labels),
        attributes: map(&agent.attributes),
        create_time: Some(timestamp(agent.created)),
        certificate_expire_time: Some(timestamp(agent.certificate_expires)),
        revoke_time: agent.revoked.map(timestamp),
        key_fingerprint: agent.key.to_string(),
    }
}

fn outstanding(held: &OutstandingLease) -> proto::OutstandingLease {
    proto::OutstandingLease {
        lease: held.lease.to_string(),
        credential: held.credential.id.to_string(),
        generation: held.credential.rotation.generation,
        material_expire_time: held.credential.expires.map(timestamp),
    }
}

#[tonic::async_trait]
impl proto::agent_service_server::AgentService for AgentService {
    async fn create_enrollment_tokens(
        &self,
        request: Request<proto::CreateEnrollmentTokensRequest>,
    ) -> Result<Response<proto::CreateEnrollmentTokensResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let labels = pairs(message.labels);
        let new = NewEnrollmentTokens {
            org: &message.org,
            project: &message.project,
            environment: &message.environment,
            count: message.count,
            max_agents: message.max_agents,
            ttl: duration("ttl", message.ttl).map_err(status)?,
            task: &message.task,
            labels: &labels,
        };
        let minted = self
            .0
            .create_enrollment_tokens(&caller, new)
            .await
            .map_err(status)?;
        let tokens = minted.iter().map(|minted| proto::MintedEnrollmentToken {
            enrollment_token: Some(enrollment_token(&minted.enrollment_token)),
            token: Some(show_once(&minted.token)),
        });
        Ok(Response::new(proto::CreateEnrollmentTokensResponse {
            tokens: tokens.collect(),
            ca_pin: self.0.authority().ca_pin().to_owned(),
        }))
    }

    async fn list_enrollment_tokens(
        &self,
        request: Request<proto::ListEnrollmentTokensRequest>,
    ) -> Result<Response<proto::ListEnrollmentTokensResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_enrollment_tokens(&caller, &message.org, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListEnrollmentTokensResponse {
            enrollment_tokens: page.rows.iter().map(|row| enrollment_token(&row.value)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn revoke_enrollment_token(
        &self,
        request: Request<proto::RevokeEnrollmentTokenRequest>,
    ) -> Result<Response<proto::RevokeEnrollmentTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let revoked = self
            .0
            .revoke_enrollment_token(&caller, &message.org, &message.enrollment_token)
            .await;
        Ok(Response::new(proto::RevokeEnrollmentTokenResponse {
            enrollment_token: Some(enrollment_token(&*revoked.map_err(status)?)),
        }))
    }

    async fn get_agent(
        &self,
        request: Request<proto::GetAgentRequest>,
    ) -> Result<Response<proto::GetAgentResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let found = self
            .0
            .get_agent(&caller, &message.org, &message.agent)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetAgentResponse {
            agent: Some(agent(&found.value)),
        }))
    }

    async fn list_agents(
        &self,
        request: Request<proto::ListAgentsRequest>,
    ) -> Result<Response<proto::ListAgentsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_agents(&caller, &message.org, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListAgentsResponse {
            agents: page.rows.iter().map(|row| agent(&row.value)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn revoke_agent(
        &self,
        request: Request<proto::RevokeAgentRequest>,
    ) -> Result<Response<proto::RevokeAgentResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let revoked = self
            .0
            .revoke_agent(&caller, &message.org, &message.agent)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeAgentResponse {
            agent: Some(agent(&revoked.agent)),
            outstanding: revoked.outstanding.iter().map(outstanding).collect(),
        }))
    }
}
