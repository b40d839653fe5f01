//! `BrokerService`: resolution and rejection, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, capacity, duration, kind, mode, owner, proto_duration, secret_text, timestamp};
use super::status::status;
use crate::domain::decision::Decision;
use crate::domain::mode::PermitEntry;
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use crate::proto;
use crate::service::{Broker, RefreshInput, ResolveInput, Vended};

pub(super) struct BrokerService(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl proto::broker_service_server::BrokerService for BrokerService {
    async fn resolve_credential(
        &self,
        request: Request<proto::ResolveCredentialRequest>,
    ) -> Result<Response<proto::ResolveCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let mut message = request.into_inner();
        let approval = message.approval.take();
        let approval = approval.map(|token| Secret::from(secret_text(Some(token))));
        let input = ResolveInput {
            org: &message.org,
            task: &message.task,
            member: &message.member,
            member_identity: &message.member_identity,
            project: &message.project,
            executor: &message.executor,
            provider: &message.provider,
            model: &message.model,
            profile: &message.profile,
            capacity: capacity(message.capacity).map_err(status)?,
            spec_hash: &message.spec_hash,
            minimum_remaining: duration("minimum_remaining", message.minimum_remaining).map_err(status)?,
            approval: approval.as_ref(),
            request_id: &message.request_id,
        };
        let resolved = self.0.resolve(&caller, input).await.map_err(status)?;
        Ok(Response::new(proto::ResolveCredentialResponse {
            fallback_reason: resolved.decision.fallback_reason.clone(),
            lease: Some(lease(&resolved.vended).map_err(status)?),
            decision: Some(decision(&resolved.decision)),
            journal_position: resolved.position.0,
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
            fallback_reason: String::new(),
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

/// The lease with its material.
fn lease(vended: &Vended) -> Result<proto::Lease, Refusal> {
    let (lease, credential) = (&vended.lease, &vended.material.credential);
    let material = super::material::of(credential, &vended.material.secret)?;
    Ok(proto::Lease {
        id: lease.id.to_string(),
        task: lease.task.map(|task| task.to_string()).unwrap_or_default(),
        credential: lease.credential.to_string(),
        mode: mode(lease.mode),
        provider: lease.provider.clone(),
        model: lease.model.clone(),
        permit_position: lease.permit_position,
        generation: credential.rotation.generation,
        material_expire_time: credential.expires.map(timestamp),
        expire_time: Some(timestamp(lease.expires)),
        minimum_remaining: Some(proto_duration(vended.minimum_remaining)),
        material: Some(proto::Material {
            material: Some(material),
        }),
    })
}

fn permit_entry(entry: &PermitEntry) -> proto::PermitEntry {
    proto::PermitEntry {
        mode: mode(entry.mode),
        provider: entry.provider.clone(),
        kind: kind(entry.kind),
        model: entry.model.clone(),
    }
}

fn decision(decision: &Decision) -> proto::Decision {
    let entry = decision.entry();
    proto::Decision {
        allowed: decision.refused.is_none(),
        reason: decision
            .refused
            .map(|reason| reason.code().to_owned())
            .unwrap_or_default(),
        mode: entry.map(|entry| mode(entry.mode)).unwrap_or_default(),
        provider: entry.map(|entry| entry.provider.clone()).unwrap_or_default(),
        model: entry.map(|entry| entry.model.clone()).unwrap_or_default(),
        credential: decision.chosen.map(|(id, _)| id.to_string()).unwrap_or_default(),
        owner: decision.chosen.map(|(_, of)| owner(of)),
        permit: decision.permit.iter().map(permit_entry).collect(),
        permit_position: u32::try_from(decision.position).unwrap_or(u32::MAX),
        fallback_reason: decision.fallback_reason.clone(),
        policy_version: decision.policy_version,
        scopes: Vec::new(),
        candidates: decision
            .candidates
            .iter()
            .map(|candidate| proto::Candidate {
                credential: candidate.credential.map(|id| id.to_string()).unwrap_or_default(),
                mode: mode(candidate.mode),
                owner: Some(owner(candidate.owner)),
                chosen: candidate.passed_over.is_none(),
                reason: candidate
                    .passed_over
                    .map(|reason| reason.code().to_owned())
                    .unwrap_or_default(),
            })
            .collect(),
    }
}
