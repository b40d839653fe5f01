//! `EnrollmentService`: enrollment and the upkeep of an identity, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, pairs, secret_text, show_once, timestamp};
use super::status::status;
use crate::domain::actor::{Actor, AgentActor};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::Broker;

pub(super) struct EnrollmentService(pub(super) Arc<Broker>);

fn agent<T>(request: &Request<T>) -> Result<AgentActor, Status> {
    match *caller(request)?.actor() {
        Actor::Agent(agent) => Ok(agent),
        _ => Err(status(Refusal::new(
            Reason::PermissionDenied,
            "only an agent may make this call",
        ))),
    }
}

#[tonic::async_trait]
impl proto::enrollment_service_server::EnrollmentService for EnrollmentService {
    async fn enroll(
        &self,
        request: Request<proto::EnrollRequest>,
    ) -> Result<Response<proto::EnrollResponse>, Status> {
        let message = request.into_inner();
        let token = zeroize::Zeroizing::new(secret_text(message.token));
        if token.is_empty() {
            return Err(status(Refusal::invalid(
                "token",
                "token is required: the enrollment token",
            )));
        }
        let attributes = pairs(message.attributes);
        let enrolled = self
            .0
            .enroll(&token, &message.csr_der, &attributes)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::EnrollResponse {
            agent: enrolled.agent.id.to_string(),
            org: enrolled.agent.org.to_string(),
            environment: enrolled.agent.environment.to_string(),
            runtime_key: Some(show_once(&enrolled.runtime_key)),
            certificate_chain_der: enrolled.certificate.chain_der,
            trust_bundle_der: self.0.authority().trust_bundle_der(),
            certificate_expire_time: Some(timestamp(enrolled.certificate.not_after)),
            tasks: enrolled.task.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn renew_certificate(
        &self,
        request: Request<proto::RenewCertificateRequest>,
    ) -> Result<Response<proto::RenewCertificateResponse>, Status> {
        let agent = agent(&request)?;
        let csr = &request.get_ref().csr_der;
        let certificate = self.0.renew_certificate(&agent, csr).await.map_err(status)?;
        Ok(Response::new(proto::RenewCertificateResponse {
            certificate_chain_der: certificate.chain_der,
            trust_bundle_der: self.0.authority().trust_bundle_der(),
            certificate_expire_time: Some(timestamp(certificate.not_after)),
        }))
    }

    async fn rotate_runtime_key(
        &self,
        request: Request<proto::RotateRuntimeKeyRequest>,
    ) -> Result<Response<proto::RotateRuntimeKeyResponse>, Status> {
        let agent = agent(&request)?;
        let key = self.0.rotate_runtime_key(&agent).await.map_err(status)?;
        Ok(Response::new(proto::RotateRuntimeKeyResponse {
            runtime_key: Some(show_once(&key)),
        }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<proto::GetTrustBundleRequest>,
    ) -> Result<Response<proto::GetTrustBundleResponse>, Status> {
        let (_, public_key) = self.0.journal_head();
        Ok(Response::new(proto::GetTrustBundleResponse {
            trust_bundle_der: self.0.authority().trust_bundle_der(),
            ca_pin: self.0.authority().ca_pin().to_owned(),
            journal_public_key: public_key.0.to_vec(),
        }))
    }
}
