//! Callers of the broker, over real connections.

use std::time::Duration;

use credbroker::cli::client::{Bearer, ClientIdentity, Transport, Trust, connect};
use credbroker::cli::identity::certificate_request;
use credbroker::domain::secret::Secret;
use credbroker::proto;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::{ErrorDetails, StatusExt as _};
use zeroize::Zeroizing;

use super::broker::{ENVIRONMENT, MEMBER, PROJECT};

/// A caller: a connection and a token.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
    bearer: Bearer,
}

macro_rules! services {
    ($($name:ident: $module:ident, $client:ident;)*) => {$(
        pub fn $name(&self) -> proto::$module::$client<Transport> {
            proto::$module::$client::with_interceptor(self.channel.clone(), self.bearer.clone())
        }
    )*};
}

impl Caller {
    pub async fn connect(
        address: &str,
        trust: Trust,
        identity: Option<ClientIdentity>,
        token: Option<&str>,
    ) -> Self {
        Self::try_connect(address, trust, identity, token).await.unwrap()
    }

    pub async fn try_connect(
        address: &str,
        trust: Trust,
        identity: Option<ClientIdentity>,
        token: Option<&str>,
    ) -> Result<Self, String> {
        let channel = connect(address, trust, identity)
            .await
            .map_err(|error| error.to_string())?;
        let token = token.map(|token| Secret::from(token.to_owned()));
        let bearer = Bearer::new(token.as_ref(), Duration::from_secs(60))
            .ok()
            .ok_or("token")?;
        Ok(Self { channel, bearer })
    }

    services! {
        broker: broker_service_client, BrokerServiceClient;
        enrollment: enrollment_service_client, EnrollmentServiceClient;
        tasks: task_service_client, TaskServiceClient;
        directory: directory_service_client, DirectoryServiceClient;
        executors: executor_service_client, ExecutorServiceClient;
        agents: agent_service_client, AgentServiceClient;
        credentials: credential_service_client, CredentialServiceClient;
        access: access_service_client, AccessServiceClient;
        journal: journal_service_client, JournalServiceClient;
        approvals: approval_service_client, ApprovalServiceClient;
        secrets: secret_service_client, SecretServiceClient;
        watches: watch_service_client, WatchServiceClient;
        locks: lock_service_client, LockServiceClient;
        billing: billing_service_client, BillingServiceClient;
        platform: platform_service_client, PlatformServiceClient;
        policies: policy_service_client, PolicyServiceClient;
        accounts: account_service_client, AccountServiceClient;
    }

    /// Stores one of the platform's own keys for a provider.
    pub async fn set_managed_key(
        &self,
        pool: proto::KeyPool,
        provider: &str,
        key: &str,
    ) -> Result<proto::ManagedKey, Status> {
        let request = proto::SetManagedKeyRequest {
            pool: pool as i32,
            provider: provider.to_owned(),
            key: Some(proto::Secret {
                value: key.to_owned(),
            }),
            ..Default::default()
        };
        let answer = self.platform().set_managed_key(request).await?;
        Ok(answer.into_inner().managed_key.unwrap())
    }

    /// What a model proxy is told of a grant.
    pub async fn introspect_grant(&self, token: &str) -> proto::IntrospectGrantResponse {
        let request = proto::IntrospectGrantRequest {
            token: Some(proto::Secret {
                value: token.to_owned(),
            }),
            ..Default::default()
        };
        let answer = self.platform().introspect_grant(request).await;
        answer.unwrap().into_inner()
    }

    /// The token of a model proxy of the platform's.
    pub async fn make_model_proxy(&self) -> String {
        let request = proto::CreateOperatorTokenRequest {
            roles: vec![proto::RoleGrant {
                role: proto::Role::ModelProxy as i32,
                ..Default::default()
            }],
            ..Default::default()
        };
        let made = self.access().create_operator_token(request).await.unwrap();
        made.into_inner().token.unwrap().value.clone()
    }

    /// The connection with the token on it.
    pub fn transport(&self) -> Transport {
        Transport::new(self.channel.clone(), self.bearer.clone())
    }

    /// An API key of the org: its id and the key itself.
    pub async fn make_api_key(&self, org: &str) -> (String, String) {
        let request = proto::CreateApiKeyRequest {
            org: org.to_owned(),
            ..Default::default()
        };
        let made = self.access().create_api_key(request).await.unwrap().into_inner();
        (made.api_key.unwrap().id, made.token.unwrap().value.clone())
    }

    /// As [`Caller::make_api_key`], a key that may be used for everything a key may be used for.
    pub async fn make_broad_api_key(&self, org: &str) -> (String, String) {
        let groups = (1..64).filter(|group| proto::ApiKeyGroup::try_from(*group).is_ok());
        let request = proto::CreateApiKeyRequest {
            org: org.to_owned(),
            groups: groups.collect(),
            ..Default::default()
        };
        let made = self.access().create_api_key(request).await.unwrap().into_inner();
        (made.api_key.unwrap().id, made.token.unwrap().value.clone())
    }

    /// An org with a project, an environment and a member.
    pub async fn make_org(&self, org: &str) {
        let mut directory = self.directory();
        let name = org.to_owned();
        directory
            .create_org(proto::CreateOrgRequest {
                name,
                ..Default::default()
            })
            .await
            .unwrap();
        let (org, name) = (org.to_owned(), PROJECT.to_owned());
        let request = proto::CreateProjectRequest {
            org: org.clone(),
            name,
            ..Default::default()
        };
        directory.create_project(request).await.unwrap();
        let request = proto::CreateEnvironmentRequest {
            org: org.clone(),
            project: PROJECT.to_owned(),
            name: ENVIRONMENT.to_owned(),
            ..Default::default()
        };
        directory.create_environment(request).await.unwrap();
        self.make_member(&org, MEMBER).await;
    }

    pub async fn make_member(&self, org: &str, name: &str) -> proto::Member {
        let (org, name) = (org.to_owned(), name.to_owned());
        let request = proto::CreateMemberRequest {
            org,
            name,
            ..Default::default()
        };
        self.directory()
            .create_member(request)
            .await
            .unwrap()
            .into_inner()
            .member
            .unwrap()
    }

    /// A task for a member, executor `demo-agent`.
    pub async fn make_task(&self, org: &str, member: &str) -> String {
        let request = proto::CreateTaskRequest {
            org: org.to_owned(),
            member: member.to_owned(),
            project: PROJECT.to_owned(),
            executor: "demo-agent".to_owned(),
            ..Default::default()
        };
        self.tasks()
            .create_task(request)
            .await
            .unwrap()
            .into_inner()
            .task
            .unwrap()
            .id
    }

    /// One enrollment token for one agent, assigned to `task` (none when empty).
    pub async fn enrollment_token(&self, org: &str, task: &str) -> String {
        let request = proto::CreateEnrollmentTokensRequest {
            org: org.to_owned(),
            project: PROJECT.to_owned(),
            environment: ENVIRONMENT.to_owned(),
            task: task.to_owned(),
            ..Default::default()
        };
        let mut tokens = self
            .agents()
            .create_enrollment_tokens(request)
            .await
            .unwrap()
            .into_inner()
            .tokens;
        let token = tokens.remove(0).token.unwrap();
        token.value.clone()
    }

    /// Stores an API key for the provider `demo`; of the org where `member` is empty.
    pub async fn set_key(&self, org: &str, member: &str, key: &str) -> proto::Credential {
        let request = proto::SetCredentialRequest {
            org: org.to_owned(),
            owner: Some(owner(member)),
            provider: "demo".to_owned(),
            key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
                value: key.to_owned(),
            })),
            force: false,
            ..Default::default()
        };
        self.credentials()
            .set_credential(request)
            .await
            .unwrap()
            .into_inner()
            .credential
            .unwrap()
    }

    /// Imports a grant of the connector `demo` that has no access token yet.
    pub async fn import_grant(&self, org: &str, member: &str, refresh_token: &str) -> proto::Credential {
        let request = proto::ImportGrantRequest {
            org: org.to_owned(),
            owner: Some(owner(member)),
            connector: "demo".to_owned(),
            refresh_token: Some(proto::Secret {
                value: refresh_token.to_owned(),
            }),
            ..Default::default()
        };
        self.credentials()
            .import_grant(request)
            .await
            .unwrap()
            .into_inner()
            .credential
            .unwrap()
    }

    /// Resolves for a task, or for the caller's only one when empty.
    pub async fn resolve(&self, task: &str) -> Result<proto::ResolveCredentialResponse, Status> {
        self.resolve_for(task, Duration::ZERO).await
    }

    pub async fn resolve_for(
        &self,
        task: &str,
        remaining: Duration,
    ) -> Result<proto::ResolveCredentialResponse, Status> {
        let request = proto::ResolveCredentialRequest {
            task: task.to_owned(),
            minimum_remaining: Some(remaining.try_into().unwrap()),
            ..Default::default()
        };
        Ok(self.broker().resolve_credential(request).await?.into_inner())
    }

    /// Reports that the provider rejected a generation.
    pub async fn reject(
        &self,
        lease: &str,
        rejected_generation: u64,
    ) -> Result<proto::RefreshTokenResponse, Status> {
        let request = proto::RefreshTokenRequest {
            lease: lease.to_owned(),
            rejected_generation,
            ..Default::default()
        };
        Ok(self.broker().refresh_token(request).await?.into_inner())
    }

    pub async fn health_of(&self, org: &str, credential: &str) -> proto::Credential {
        let (org, credential) = (org.to_owned(), credential.to_owned());
        let request = proto::GetCredentialRequest { org, credential };
        self.credentials()
            .get_credential(request)
            .await
            .unwrap()
            .into_inner()
            .credential
            .unwrap()
    }

    /// A credential of `org` with its generations and dependents.
    pub async fn described(&self, org: &str, credential: &str) -> proto::DescribeCredentialResponse {
        let (org, credential) = (org.to_owned(), credential.to_owned());
        let request = proto::DescribeCredentialRequest { org, credential };
        let answer = self.credentials().describe_credential(request).await;
        answer.unwrap().into_inner()
    }

    /// The journal from its first record to its last.
    pub async fn records(&self) -> Vec<proto::JournalRecord> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListRecordsRequest {
                page_token: token,
                ..Default::default()
            };
            let page = self.journal().list_records(request).await.unwrap().into_inner();
            token = page.next_page_token;
            if page.records.is_empty() {
                return all;
            }
            all.extend(page.records);
        }
    }
}

/// The owner: the org where `member` is empty.
pub fn owner(member: &str) -> proto::Owner {
    let owner = match member {
        "" => proto::owner::Owner::Org(true),
        member => proto::owner::Owner::Member(member.to_owned()),
    };
    proto::Owner { owner: Some(owner) }
}

/// The secret that a lease hands out, whatever its kind.
pub fn secret(lease: &proto::Lease) -> &str {
    let material = lease
        .material
        .as_ref()
        .and_then(|material| material.material.as_ref());
    match material {
        Some(proto::material::Material::OauthAccessToken(token)) => &token.token.as_ref().unwrap().value,
        Some(proto::material::Material::ApiKey(key)) => &key.key.as_ref().unwrap().value,
        other => panic!("no material: {other:?}"),
    }
}

/// A key pair of an agent to be.
pub struct NewKey(pub KeyPair);

impl NewKey {
    pub fn generate() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    pub fn csr(&self) -> Vec<u8> {
        certificate_request(&self.0).unwrap()
    }
}

/// An enrolled agent.
pub struct Enrolled {
    pub agent: String,
    pub runtime_key: String,
    pub chain_der: Vec<Vec<u8>>,
    key_pkcs8: Vec<u8>,
}

impl Enrolled {
    pub fn new(answer: proto::EnrollResponse, key: &NewKey) -> Self {
        Self {
            agent: answer.agent,
            runtime_key: answer.runtime_key.unwrap().value.clone(),
            chain_der: answer.certificate_chain_der,
            key_pkcs8: key.0.serialize_der(),
        }
    }

    /// The same agent with another certificate.
    pub fn with_chain(&self, chain_der: Vec<Vec<u8>>) -> Self {
        Self {
            agent: self.agent.clone(),
            runtime_key: self.runtime_key.clone(),
            key_pkcs8: self.key_pkcs8.clone(),
            chain_der,
        }
    }

    /// The same agent with another runtime key.
    pub fn with_key(&self, runtime_key: &str) -> Self {
        Self {
            runtime_key: runtime_key.to_owned(),
            ..self.with_chain(self.chain_der.clone())
        }
    }

    pub fn identity(&self) -> ClientIdentity {
        ClientIdentity {
            chain_der: self.chain_der.iter().cloned().map(CertificateDer::from).collect(),
            key_pkcs8: Zeroizing::new(self.key_pkcs8.clone()),
        }
    }
}

/// The reason of a failure. Every failure has one.
pub fn reason(status: &Status) -> String {
    let details = details(status);
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "credbroker");
    info.reason.clone()
}

/// How long a failure asks the caller to wait, where it does.
pub fn retry_after(status: &Status) -> Option<Duration> {
    details(status).retry_info().and_then(|info| info.retry_delay)
}

/// A failure's metadata; empty where it has none of that name.
pub fn metadata(status: &Status, key: &str) -> String {
    let details = details(status);
    let value = details.error_info().and_then(|info| info.metadata.get(key));
    value.cloned().unwrap_or_default()
}

pub fn details(status: &Status) -> ErrorDetails {
    status.get_error_details()
}
