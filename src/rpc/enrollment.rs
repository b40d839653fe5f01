//! `EnrollmentService`: enrollment and the upkeep of an identity, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, pairs, proto_duration, secret_text, show_once, timestamp};
use super::status::status;
use crate::domain::actor::{Actor, AgentActor};
use crate::domain::agent::SerialNumber;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::pki::accept::PeerInfo;
use crate::proto;
use crate::service::{Broker, ExpiredRenewal};

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

/// The serial number of the certificate that the connection presented.
fn presented<T>(request: &Request<T>) -> Result<SerialNumber, Status> {
    let peer = request.extensions().get::<PeerInfo>();
    let identity = peer.and_then(|peer| peer.identity.as_ref());
    identity
        .map(|identity| SerialNumber(*identity.serial.as_bytes()))
        .ok_or_else(|| {
            status(Refusal::new(
                Reason::ClientCertificateRequired,
                "the connection has no client certificate",
            ))
        })
}

#[tonic::async_trait]
impl proto::enrollment_service_server::EnrollmentService for EnrollmentService {
    async fn enroll(
        &self,
        request: Request<proto::EnrollRequest>,
    ) -> Result<Response<proto::EnrollResponse>, Status> {
        let peer = request
            .extensions()
            .get::<PeerInfo>()
            .map(|peer| peer.remote.ip());
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
            .enroll(&token, &message.csr_der, &attributes, peer)
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
        let serial = presented(&request)?;
        let certificate = self
            .0
            .renew_certificate(&agent, serial, csr)
            .await
            .map_err(status)?;
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

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        let agent = agent(&request)?;
        let message = request.into_inner();
        let attributes = pairs(message.attributes);
        let pulse = self
            .0
            .heartbeat(&agent, &message.version, &attributes)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::HeartbeatResponse {
            server_time: Some(timestamp(pulse.now)),
            certificate_renew_time: Some(timestamp(pulse.renew)),
            certificate_expire_time: Some(timestamp(pulse.certificate_expires)),
            next_heartbeat: Some(proto_duration(pulse.next)),
            unseen_expiry: Some(proto_duration(pulse.unseen_expiry)),
        }))
    }

    async fn get_renewal_nonce(
        &self,
        _: Request<proto::GetRenewalNonceRequest>,
    ) -> Result<Response<proto::GetRenewalNonceResponse>, Status> {
        let nonce = self.0.renewal_nonce().map_err(status)?;
        Ok(Response::new(proto::GetRenewalNonceResponse {
            nonce: nonce.bytes,
            expire_time: Some(timestamp(nonce.expires)),
        }))
    }

    async fn renew_expired_certificate(
        &self,
        request: Request<proto::RenewExpiredCertificateRequest>,
    ) -> Result<Response<proto::RenewExpiredCertificateResponse>, Status> {
        let message = request.into_inner();
        let runtime_key = zeroize::Zeroizing::new(secret_text(message.runtime_key));
        if runtime_key.is_empty() {
            return Err(status(Refusal::invalid(
                "runtime_key",
                "runtime_key is required: the agent's runtime key",
            )));
        }
        let renewal = ExpiredRenewal {
            org: &message.org,
            agent: &message.agent,
            csr_der: &message.csr_der,
            serial: &message.certificate_serial,
            nonce: &message.nonce,
            signature: &message.signature,
        };
        let certificate = self
            .0
            .renew_expired_certificate(&runtime_key, renewal)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RenewExpiredCertificateResponse {
            certificate_chain_der: certificate.chain_der,
            trust_bundle_der: self.0.authority().trust_bundle_der(),
            certificate_expire_time: Some(timestamp(certificate.not_after)),
        }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<proto::GetTrustBundleRequest>,
    ) -> Result<Response<proto::GetTrustBundleResponse>, Status> {
        let bundle = self.0.trust_bundle();
        Ok(Response::new(proto::GetTrustBundleResponse {
            trust_bundle_der: bundle.roots_der,
            ca_pin: bundle.ca_pin,
            journal_public_key: bundle.journal_key.to_vec(),
            signing_keys: vec![proto::BrokerSigningKey {
                id: bundle.journal_key_id,
                r#use: proto::SigningKeyUse::Journal.into(),
                algorithm: "Ed25519".to_owned(),
                public_key: bundle.journal_key.to_vec(),
            }],
            refresh_time: Some(timestamp(bundle.refresh)),
        }))
    }
}
