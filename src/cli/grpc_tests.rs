//! The client against a broker of the test's own making, over real TLS and HTTP/2: enrollment, calls as the
//! enrolled agent, refusals and deadlines.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::agent::enroll::enroll;
use super::agent::{self, IdentityArgs};
use super::client::tests::{Server, server_for};
use super::context::{ConnectionArgs, Target};
use super::error::{Failure, Kind};
use super::identity::{Folder, certificate_request};
use crate::domain::secret::Secret;
use crate::proto::access_service_server::{AccessService, AccessServiceServer};
use crate::proto::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use crate::proto::*;

const TOKEN: &str = "enrollment-token";
const RUNTIME_KEY: &str = "runtime-key-1";

#[derive(Clone)]
struct Fake {
    tls: Arc<Server>,
    /// For each connection, how many certificates the client showed.
    shown: Arc<Mutex<Vec<usize>>>,
}

impl Fake {
    /// A listening broker and its address.
    async fn start() -> (Fake, Target) {
        let fake = Fake {
            tls: Arc::new(server_for("localhost", |_| {})),
            shown: Arc::default(),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (incoming, accepted) = tokio::sync::mpsc::channel::<std::io::Result<DuplexStream>>(8);
        let acceptor = fake.tls.acceptor(fake.tls.chain());
        let shown = fake.shown.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let mut tls = acceptor.accept(tcp).await.unwrap();
                let count = tls.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                shown.lock().unwrap().push(count);
                let (mut near, far) = tokio::io::duplex(64 * 1024);
                incoming.send(Ok(far)).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut tls, &mut near).await });
            }
        });
        let server = tonic::transport::Server::builder()
            .add_service(EnrollmentServiceServer::new(fake.clone()))
            .add_service(AccessServiceServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(accepted)));
        let target = Target {
            context: None,
            address,
        };
        (fake, target)
    }
}

#[tonic::async_trait]
impl EnrollmentService for Fake {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        assert!(request.metadata().get("authorization").is_none());
        let request = request.into_inner();
        if request.token.as_ref().map(|token| token.value.as_str()) != Some(TOKEN) {
            let details =
                ErrorDetails::with_error_info("ENROLLMENT_TOKEN_UNKNOWN", "credbroker", HashMap::new());
            let status = Status::with_error_details(Code::Unauthenticated, "not known", details);
            return Err(status);
        }
        let csr = CertificateSigningRequestParams::from_der(&request.csr_der.as_slice().into()).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuing = &self.tls.issuing.issuer;
        let certificate = params.signed_by(&csr.public_key, issuing).unwrap();
        let chain = self.tls.chain();
        Ok(Response::new(EnrollResponse {
            agent: format!("agt_{}", request.attributes["name"]),
            runtime_key: Some(crate::proto::Secret {
                value: RUNTIME_KEY.into(),
            }),
            certificate_chain_der: vec![certificate.der().to_vec(), chain[1].to_vec()],
            trust_bundle_der: vec![chain[2].to_vec()],
            ..Default::default()
        }))
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn rotate_runtime_key(
        &self,
        _: Request<RotateRuntimeKeyRequest>,
    ) -> Result<Response<RotateRuntimeKeyResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_renewal_nonce(
        &self,
        _: Request<GetRenewalNonceRequest>,
    ) -> Result<Response<GetRenewalNonceResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn renew_expired_certificate(
        &self,
        _: Request<RenewExpiredCertificateRequest>,
    ) -> Result<Response<RenewExpiredCertificateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl AccessService for Fake {
    /// Tells the token that was presented.
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let header = request.metadata().get("authorization").unwrap();
        Ok(Response::new(WhoAmIResponse {
            actor: header.to_str().unwrap().to_owned(),
            ..Default::default()
        }))
    }

    async fn create_api_key(
        &self,
        _: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get_login_configuration(
        &self,
        _: Request<GetLoginConfigurationRequest>,
    ) -> Result<Response<GetLoginConfigurationResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    /// Never answers.
    async fn list_api_keys(
        &self,
        _: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        std::future::pending().await
    }

    async fn revoke_api_key(
        &self,
        _: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn rotate_api_key(
        &self,
        _: Request<RotateApiKeyRequest>,
    ) -> Result<Response<RotateApiKeyResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn create_operator_token(
        &self,
        _: Request<CreateOperatorTokenRequest>,
    ) -> Result<Response<CreateOperatorTokenResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_operator_tokens(
        &self,
        _: Request<ListOperatorTokensRequest>,
    ) -> Result<Response<ListOperatorTokensResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn rotate_operator_token(
        &self,
        _: Request<RotateOperatorTokenRequest>,
    ) -> Result<Response<RotateOperatorTokenResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn revoke_operator_token(
        &self,
        _: Request<RevokeOperatorTokenRequest>,
    ) -> Result<Response<RevokeOperatorTokenResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn grant_role(&self, _: Request<GrantRoleRequest>) -> Result<Response<GrantRoleResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn revoke_role(
        &self,
        _: Request<RevokeRoleRequest>,
    ) -> Result<Response<RevokeRoleResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn list_roles(&self, _: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

async fn enroll_into(folder: &Folder, fake: &Fake, target: &Target, token: &str) -> Result<(), Failure> {
    let key = folder.key_for_enrollment()?;
    let attributes = [("name".to_owned(), "one".to_owned())];
    let enrolled = enroll(
        target,
        fake.tls.pin(),
        &Secret::from(token.to_owned()),
        certificate_request(&key)?,
        attributes,
        Duration::from_secs(5),
    )
    .await?;
    Ok(folder.install(&enrolled)?)
}

fn connection(timeout: Duration) -> ConnectionArgs {
    ConnectionArgs {
        timeout: Some(timeout),
        ..ConnectionArgs::default()
    }
}

#[tokio::test]
async fn an_enrolled_agent_calls_with_its_certificate_and_runtime_key() {
    let (fake, target) = Fake::start().await;
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder::at(temp.path().join("identity"));
    enroll_into(&folder, &fake, &target, TOKEN).await.unwrap();
    assert_eq!(folder.about().unwrap().unwrap().agent, "agt_one");

    let identity = IdentityArgs {
        identity: Some(folder.path().to_owned()),
    };
    let session = agent::open(&connection(Duration::from_secs(5)), &identity)
        .await
        .unwrap();
    let answer = session.access().who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!(answer.get_ref().actor, format!("Bearer {RUNTIME_KEY}"));
    assert_eq!(
        *fake.shown.lock().unwrap(),
        [0, 2],
        "first without, then with the certificate"
    );
}

#[tokio::test]
async fn a_refused_token_is_told_with_its_reason_and_leaves_the_key_for_the_next_try() {
    let (fake, target) = Fake::start().await;
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder::at(temp.path().join("identity"));
    let failure = enroll_into(&folder, &fake, &target, "wrong").await.unwrap_err();
    assert_eq!(failure.kind, Kind::Denied);
    assert_eq!(failure.reason.as_deref(), Some("ENROLLMENT_TOKEN_UNKNOWN"));
    assert_eq!(failure.target.as_deref(), Some(&target));
    assert!(!failure.account().contains("wrong"));
    assert_eq!(folder.about().unwrap(), None);
    enroll_into(&folder, &fake, &target, TOKEN).await.unwrap();
}

#[tokio::test]
async fn no_call_outlasts_its_deadline() {
    let (fake, target) = Fake::start().await;
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder::at(temp.path().join("identity"));
    enroll_into(&folder, &fake, &target, TOKEN).await.unwrap();
    let identity = IdentityArgs {
        identity: Some(folder.path().to_owned()),
    };
    let session = agent::open(&connection(Duration::from_millis(50)), &identity)
        .await
        .unwrap();
    let call = async {
        session
            .access()
            .list_api_keys(ListApiKeysRequest::default())
            .await
    };
    let status = tokio::time::timeout(Duration::from_secs(5), call)
        .await
        .unwrap()
        .unwrap_err();
    let failure = session.failure(status);
    assert_eq!(failure.kind, Kind::Unavailable);
    assert!(failure.what.contains("in time"), "{}", failure.account());
}
