//! `BrokerService`: resolution and rejection, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, capacity, duration, mode, proto_duration, secret_text, timestamp};
use super::decision::{Telling, code, decision};
use super::status::status;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Secret};
use crate::proto;
use crate::service::{Broker, Facts, RefreshInput, ResolveInput, Vended};

pub(super) struct BrokerService(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl proto::broker_service_server::BrokerService for BrokerService {
    async fn resolve_credential(
        &self,
        request: Request<proto::ResolveCredentialRequest>,
    ) -> Result<Response<proto::ResolveCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let mut message = request.into_inner();
        let approval = approval(&mut message);
        let input = input(&message, approval.as_ref()).map_err(status)?;
        let resolved = self.0.resolve(&caller, input).await.map_err(status)?;
        Ok(Response::new(proto::ResolveCredentialResponse {
            fallback_reason: code(resolved.decision.fallback),
            lease: Some(lease(&resolved.vended).map_err(status)?),
            decision: Some(decision(&resolved.decision, Telling::Outcome)),
            journal_position: resolved.position.0,
        }))
    }

    async fn explain_resolution(
        &self,
        request: Request<proto::ExplainResolutionRequest>,
    ) -> Result<Response<proto::ExplainResolutionResponse>, Status> {
        let caller = caller(&request)?;
        let mut message = request.into_inner().resolution.unwrap_or_default();
        let approval = approval(&mut message);
        let input = input(&message, approval.as_ref()).map_err(status)?;
        let explained = self.0.explain(&caller, input).await.map_err(status)?;
        let refusal = explained.refusal.as_ref();
        let told = |tell: fn(Reason) -> &'static str| {
            refusal
                .map(|refusal| tell(refusal.reason).to_owned())
                .unwrap_or_default()
        };
        Ok(Response::new(proto::ExplainResolutionResponse {
            decision: Some(decision(&explained.decision, Telling::Everything)),
            message: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
            remedy: told(Reason::remedy),
            fault: told(|reason| reason.fault().name()),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<proto::RefreshTokenRequest>,
    ) -> Result<Response<proto::RefreshTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let input = RefreshInput {
            lease: &message.lease,
            rejected_generation: message.rejected_generation,
            provider_message: &message.provider_message,
            request_id: &message.request_id,
        };
        let refreshed = self.0.refresh_token(&caller, input).await.map_err(status)?;
        Ok(Response::new(proto::RefreshTokenResponse {
            lease: Some(lease(&refreshed.vended).map_err(status)?),
            exchanged: refreshed.exchanged,
            fallback_reason: code(refreshed.fallback),
            journal_position: refreshed.position.0,
        }))
    }

    async fn release_lease(
        &self,
        request: Request<proto::ReleaseLeaseRequest>,
    ) -> Result<Response<proto::ReleaseLeaseResponse>, Status> {
        let caller = caller(&request)?;
        self.0
            .release_lease(&caller, &request.get_ref().lease)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ReleaseLeaseResponse {}))
    }
}

/// The token of an approval, out of the message.
fn approval(message: &mut proto::ResolveCredentialRequest) -> Option<Secret<ActorToken>> {
    let token = message.approval.take();
    token.map(|token| Secret::from(secret_text(Some(token))))
}

fn input<'a>(
    message: &'a proto::ResolveCredentialRequest,
    approval: Option<&'a Secret<ActorToken>>,
) -> Result<ResolveInput<'a>, Refusal> {
    let facts = message.local_facts.as_ref();
    let endpoint = facts.and_then(|facts| facts.local_endpoint.as_ref());
    Ok(ResolveInput {
        org: &message.org,
        task: &message.task,
        member: &message.member,
        member_identity: &message.member_identity,
        project: &message.project,
        executor: &message.executor,
        provider: &message.provider,
        model: &message.model,
        profile: &message.profile,
        capacity: capacity(message.capacity)?,
        spec_hash: &message.spec_hash,
        minimum_remaining: duration("minimum_remaining", message.minimum_remaining)?,
        approval,
        facts: Facts {
            host_session: facts.is_some_and(|facts| facts.host_session_present),
            local_endpoint: endpoint.map(|endpoint| (endpoint.base_url.as_str(), endpoint.reachable)),
        },
        system_scope: message.system_scope,
        request_id: &message.request_id,
    })
}

/// The lease with its material.
fn lease(vended: &Vended) -> Result<proto::Lease, Refusal> {
    let (lease, material) = (&vended.lease, &vended.material);
    Ok(proto::Lease {
        id: lease.id.to_string(),
        task: lease.task.map(|task| task.to_string()).unwrap_or_default(),
        credential: lease.credential.map(|id| id.to_string()).unwrap_or_default(),
        mode: mode(lease.mode),
        provider: lease.provider.clone(),
        model: vended.model.clone(),
        permit_position: lease.permit_position,
        generation: material.generation(),
        material_expire_time: material.expires().map(timestamp),
        expire_time: Some(timestamp(lease.expires)),
        minimum_remaining: Some(proto_duration(vended.minimum_remaining)),
        material: Some(proto::Material {
            material: Some(super::material::of(material)?),
        }),
    })
}
