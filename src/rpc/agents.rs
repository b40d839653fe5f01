//! `AgentService`: enrollment tokens and agents, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::convert::{caller, duration, map, outstanding, pairs, secret_text, show_once, time, timestamp};
use super::status::status;
use crate::domain::agent::Agent;
use crate::domain::enrollment::EnrollmentToken;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{
    AgentFilter, AgentState, BoundTo, Broker, NewEnrollmentTokens, PageRequest, RevokeToken, Seen,
};

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
        allowed_networks: token.allowed_networks().iter().map(ToString::to_string).collect(),
    }
}

fn proto_state(state: AgentState) -> proto::AgentState {
    match state {
        AgentState::Active => proto::AgentState::Active,
        AgentState::Revoked => proto::AgentState::Revoked,
        AgentState::Expired => proto::AgentState::Expired,
        AgentState::Locked => proto::AgentState::Locked,
    }
}

fn wanted_state(value: i32) -> Result<Option<AgentState>, Refusal> {
    match proto::AgentState::try_from(value) {
        Ok(proto::AgentState::Unspecified) => Ok(None),
        Ok(proto::AgentState::Active) => Ok(Some(AgentState::Active)),
        Ok(proto::AgentState::Revoked) => Ok(Some(AgentState::Revoked)),
        Ok(proto::AgentState::Expired) => Ok(Some(AgentState::Expired)),
        Ok(proto::AgentState::Locked) => Ok(Some(AgentState::Locked)),
        Err(_) => Err(Refusal::invalid("filter.state", "filter.state is not known")),
    }
}

fn slot(bound: &BoundTo) -> proto::EnrollmentTokenSlot {
    let agent = bound.agent.as_ref();
    let state = bound.state.map_or(proto::AgentState::Unspecified, proto_state);
    proto::EnrollmentTokenSlot {
        agent: bound.id.to_string(),
        key_fingerprint: bound.key.to_string(),
        state: state.into(),
        bind_time: agent.map(|agent| timestamp(agent.created)),
        last_seen_time: bound.seen.as_ref().map(|seen| timestamp(seen.at)),
    }
}

fn agent(agent: &Agent, state: AgentState, seen: Option<&Seen>) -> proto::Agent {
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    proto::Agent {
        id: agent.id.to_string(),
        org: agent.org.to_string(),
        environment: agent.environment.to_string(),
        state: proto_state(state).into(),
        labels: map(&agent.labels),
        attributes: map(&agent.attributes),
        create_time: Some(timestamp(agent.created)),
        certificate_expire_time: Some(timestamp(agent.certificate_expires)),
        revoke_time: agent.revoked.map(timestamp),
        key_fingerprint: agent.key.to_string(),
        last_seen_time: seen.map(|seen| timestamp(seen.at)),
        last_seen_address: text(seen.and_then(|seen| seen.address.as_ref())),
        version: text(seen.and_then(|seen| seen.version.as_ref())),
        reported: map(seen
            .and_then(|seen| seen.attributes.as_deref())
            .unwrap_or_default()),
        enrollment_token: agent.enrollment_token.to_string(),
        expire_time: agent.expired.map(timestamp),
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
            allowed_networks: &message.allowed_networks,
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
        let how = RevokeToken {
            cascade: message.cascade,
            validate_only: message.validate_only,
        };
        let revoked = self
            .0
            .revoke_enrollment_token(&caller, &message.org, &message.enrollment_token, how)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeEnrollmentTokenResponse {
            enrollment_token: Some(enrollment_token(&revoked.token)),
            agents: revoked.agents.iter().map(slot).collect(),
            outstanding: outstanding(&revoked.outstanding),
            outstanding_truncated: revoked.outstanding.more,
        }))
    }

    async fn get_enrollment_token(
        &self,
        request: Request<proto::GetEnrollmentTokenRequest>,
    ) -> Result<Response<proto::GetEnrollmentTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let found = self
            .0
            .get_enrollment_token(&caller, &message.org, &message.enrollment_token)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetEnrollmentTokenResponse {
            enrollment_token: Some(enrollment_token(&found)),
        }))
    }

    async fn list_enrollment_token_slots(
        &self,
        request: Request<proto::ListEnrollmentTokenSlotsRequest>,
    ) -> Result<Response<proto::ListEnrollmentTokenSlotsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_enrollment_token_slots(&caller, &message.org, &message.enrollment_token, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListEnrollmentTokenSlotsResponse {
            slots: page.rows.iter().map(slot).collect(),
            next_page_token: page.next,
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
            agent: Some(agent(&found.agent, found.state, found.seen.as_ref())),
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
        let wanted = message.filter.clone().unwrap_or_default();
        let labels = pairs(wanted.labels);
        let moment = |field, at: Option<prost_types::Timestamp>| {
            at.map(|at| time(field, &at)).transpose().map_err(status)
        };
        let filter = AgentFilter {
            labels: &labels,
            environment: &wanted.environment,
            project: &wanted.project,
            state: wanted_state(wanted.state).map_err(status)?,
            seen_before: moment("filter.seen_before", wanted.seen_before)?,
            seen_after: moment("filter.seen_after", wanted.seen_after)?,
        };
        let page = self
            .0
            .list_agents(&caller, &message.org, filter, page)
            .await
            .map_err(status)?;
        let agents = page
            .rows
            .iter()
            .map(|row| agent(&row.agent, row.state, row.seen.as_ref()));
        Ok(Response::new(proto::ListAgentsResponse {
            agents: agents.collect(),
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
            .revoke_agent(&caller, &message.org, &message.agent, message.rotate_outstanding)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeAgentResponse {
            agent: Some(agent(&revoked.agent, AgentState::Revoked, None)),
            outstanding: outstanding(&revoked.outstanding),
            outstanding_truncated: revoked.outstanding.more,
        }))
    }

    async fn introspect_runtime_key(
        &self,
        request: Request<proto::IntrospectRuntimeKeyRequest>,
    ) -> Result<Response<proto::IntrospectRuntimeKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let key = Zeroizing::new(secret_text(message.runtime_key));
        let found = self
            .0
            .introspect_runtime_key(&caller, &message.org, &key, &message.certificate_key_sha256)
            .await
            .map_err(status)?;
        Ok(Response::new(found.map_or_else(Default::default, |found| {
            proto::IntrospectRuntimeKeyResponse {
                active: true,
                agent: found.agent.id.to_string(),
                org: found.agent.org.to_string(),
                environment: found.agent.environment.to_string(),
                labels: map(&found.agent.labels),
                tasks: found.tasks.iter().map(ToString::to_string).collect(),
                certificate_expire_time: Some(timestamp(found.agent.certificate_expires)),
            }
        })))
    }
}
