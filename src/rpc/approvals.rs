//! `ApprovalService`: approvals, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, duration, proto_duration, show_once, timestamp};
use super::status::status;
use crate::domain::approval::{Capability, State};
use crate::domain::mode::AuthMode;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{ApprovalGrant, ApprovalView, Broker, CapabilityLists, NewApproval, PageRequest};

pub(super) struct ApprovalService(pub(super) Arc<Broker>);

fn capability(capability: &Capability) -> proto::CapabilityScope {
    proto::CapabilityScope {
        executors: capability.executors.names(String::as_str),
        providers: capability.providers.names(String::as_str),
        modes: capability.modes.names(|mode: &AuthMode| mode.name()),
    }
}

fn lists(capability: Option<&proto::CapabilityScope>) -> CapabilityLists<'_> {
    capability.map_or_else(CapabilityLists::default, |lists| CapabilityLists {
        executors: &lists.executors,
        providers: &lists.providers,
        modes: &lists.modes,
    })
}

fn proto_state(state: State) -> i32 {
    (match state {
        State::Pending => proto::ApprovalState::Pending,
        State::Granted => proto::ApprovalState::Granted,
        State::Denied => proto::ApprovalState::Denied,
        State::Expired => proto::ApprovalState::Expired,
        State::Spent => proto::ApprovalState::Spent,
        State::Revoked => proto::ApprovalState::Revoked,
    }) as i32
}

fn state(value: i32) -> Result<Option<State>, Refusal> {
    Ok(match proto::ApprovalState::try_from(value) {
        Ok(proto::ApprovalState::Unspecified) => None,
        Ok(proto::ApprovalState::Pending) => Some(State::Pending),
        Ok(proto::ApprovalState::Granted) => Some(State::Granted),
        Ok(proto::ApprovalState::Denied) => Some(State::Denied),
        Ok(proto::ApprovalState::Expired) => Some(State::Expired),
        Ok(proto::ApprovalState::Spent) => Some(State::Spent),
        Ok(proto::ApprovalState::Revoked) => Some(State::Revoked),
        Err(_) => return Err(Refusal::invalid("state", "state is not one this broker knows")),
    })
}

fn text(shown: Option<impl ToString>) -> String {
    shown.map(|shown| shown.to_string()).unwrap_or_default()
}

fn approval(view: &ApprovalView) -> proto::Approval {
    let approval = &view.approval;
    let ruling = approval.ruling.as_ref();
    proto::Approval {
        id: approval.id.to_string(),
        org: approval.org.to_string(),
        project: approval.project.to_string(),
        environment: approval.environment.to_string(),
        task: text(approval.task),
        member: text(approval.member),
        spec_hash: approval.spec_hash.clone(),
        capability: Some(capability(&approval.capability)),
        state: proto_state(view.state),
        use_limit: approval.use_limit,
        uses: u32::try_from(view.uses).unwrap_or(u32::MAX),
        expire_time: Some(timestamp(approval.expires)),
        ttl: Some(proto_duration(std::time::Duration::from_millis(approval.ttl_ms))),
        requester: text(approval.requester),
        reason: approval.reason.clone(),
        decider: text(ruling.map(|ruling| ruling.by)),
        message: ruling.map(|ruling| ruling.message.clone()).unwrap_or_default(),
        decide_time: ruling.map(|ruling| timestamp(ruling.at)),
        create_time: Some(timestamp(approval.created)),
        revoke_time: approval.revoked.map(timestamp),
    }
}

#[tonic::async_trait]
impl proto::approval_service_server::ApprovalService for ApprovalService {
    async fn request_approval(
        &self,
        request: Request<proto::RequestApprovalRequest>,
    ) -> Result<Response<proto::RequestApprovalResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let new = NewApproval {
            org: &m.org,
            project: &m.project,
            environment: &m.environment,
            task: &m.task,
            spec_hash: "",
            capability: lists(m.capability.as_ref()),
            ttl: duration("ttl", m.ttl).map_err(status)?,
            use_limit: m.use_limit,
            words: &m.reason,
        };
        let minted = self.0.request_approval(&caller, new).await.map_err(status)?;
        Ok(Response::new(proto::RequestApprovalResponse {
            approval: Some(approval(&minted.view)),
            token: Some(show_once(&minted.token)),
        }))
    }

    async fn create_approval(
        &self,
        request: Request<proto::CreateApprovalRequest>,
    ) -> Result<Response<proto::CreateApprovalResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let new = NewApproval {
            org: &m.org,
            project: &m.project,
            environment: &m.environment,
            task: &m.task,
            spec_hash: &m.spec_hash,
            capability: lists(m.capability.as_ref()),
            ttl: duration("ttl", m.ttl).map_err(status)?,
            use_limit: m.use_limit,
            words: &m.message,
        };
        let minted = self.0.create_approval(&caller, new).await.map_err(status)?;
        Ok(Response::new(proto::CreateApprovalResponse {
            approval: Some(approval(&minted.view)),
            token: Some(show_once(&minted.token)),
        }))
    }

    async fn grant_approval(
        &self,
        request: Request<proto::GrantApprovalRequest>,
    ) -> Result<Response<proto::GrantApprovalResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let grant = ApprovalGrant {
            use_limit: m.use_limit,
            ttl: duration("ttl", m.ttl).map_err(status)?,
            message: &m.message,
        };
        let view = self
            .0
            .grant_approval(&caller, &m.org, &m.approval, grant)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GrantApprovalResponse {
            approval: Some(approval(&view)),
        }))
    }

    async fn deny_approval(
        &self,
        request: Request<proto::DenyApprovalRequest>,
    ) -> Result<Response<proto::DenyApprovalResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let view = self
            .0
            .deny_approval(&caller, &m.org, &m.approval, &m.message)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::DenyApprovalResponse {
            approval: Some(approval(&view)),
        }))
    }

    async fn revoke_approval(
        &self,
        request: Request<proto::RevokeApprovalRequest>,
    ) -> Result<Response<proto::RevokeApprovalResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let revoked = self
            .0
            .revoke_approval(&caller, &m.org, &m.approval)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeApprovalResponse {
            approval: Some(approval(&revoked.view)),
            ended_leases: revoked.ended.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn get_approval(
        &self,
        request: Request<proto::GetApprovalRequest>,
    ) -> Result<Response<proto::GetApprovalResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let view = self
            .0
            .get_approval(&caller, &m.org, &m.approval)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetApprovalResponse {
            approval: Some(approval(&view)),
        }))
    }

    async fn list_approvals(
        &self,
        request: Request<proto::ListApprovalsRequest>,
    ) -> Result<Response<proto::ListApprovalsResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let state = state(m.state).map_err(status)?;
        let page = self
            .0
            .list_approvals(&caller, &m.org, state, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListApprovalsResponse {
            approvals: page.rows.iter().map(approval).collect(),
            next_page_token: page.next,
        }))
    }
}
