//! `CredentialService`: stored credentials, between message and use case. Secrets come in here and never go out.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, credential, pairs, secret_text, time, timestamp};
use super::credential_status;
use super::status::status;
use crate::domain::credential::Credential;
use crate::domain::lineage::{Fingerprint, Link};
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use crate::proto;
use crate::proto::set_credential_request::Key;
use crate::service::{Broker, Dependent, ImportGrant, KeyInput, OwnerRef, PageRequest, Parallelism, SetKey};

pub(super) struct CredentialService(pub(super) Arc<Broker>);

impl CredentialService {
    fn shown(&self, stored: &Credential) -> proto::Credential {
        credential(stored, self.0.health(stored))
    }

    /// As [`CredentialService::shown`], with what callers report where the provider says nothing.
    async fn shown_by_itself(&self, stored: &Credential) -> Result<proto::Credential, Status> {
        let last_error = self.0.last_error(stored).await.map_err(status)?;
        let parallelism = self.0.parallelism(stored).await.map_err(status)?;
        Ok(proto::Credential {
            last_error: last_error.message,
            parallelism: parallelism.map(of_parallelism),
            ..self.shown(stored)
        })
    }
}

fn owner(owner: Option<&proto::Owner>) -> Result<OwnerRef<'_>, Refusal> {
    match owner.and_then(|owner| owner.owner.as_ref()) {
        Some(proto::owner::Owner::Member(member)) => Ok(OwnerRef::Member(member)),
        Some(proto::owner::Owner::Org(true)) => Ok(OwnerRef::Org),
        Some(proto::owner::Owner::Org(false)) | None => Err(Refusal::invalid(
            "owner",
            "owner is required: a member, or the org",
        )),
    }
}

/// The key of a request; where it has none, an API key with nothing in it.
fn key_input(key: Option<&mut Key>) -> KeyInput<'_> {
    match key {
        None => KeyInput::ApiKey(Secret::from(String::new())),
        Some(Key::ApiKey(key)) => KeyInput::ApiKey(taken(key)),
        Some(Key::AwsKeys(keys)) => KeyInput::Aws {
            access_key_id: std::mem::take(&mut keys.access_key_id),
            secret_access_key: Secret::from(secret_text(keys.secret_access_key.take())),
            session_token: keys
                .session_token
                .as_mut()
                .filter(|token| !token.value.is_empty())
                .map(taken),
            region: &keys.region,
        },
        Some(Key::BedrockBearer(bearer)) => KeyInput::BedrockBearer {
            token: Secret::from(secret_text(bearer.token.take())),
            region: &bearer.region,
        },
    }
}

fn taken<K>(secret: &mut proto::Secret) -> Secret<K> {
    Secret::from(std::mem::take(&mut secret.value))
}

fn of_parallelism(parallelism: Parallelism) -> proto::Parallelism {
    proto::Parallelism {
        cap: parallelism.cap,
        set: parallelism.set,
        standing: u32::try_from(parallelism.standing).unwrap_or(u32::MAX),
    }
}

fn generation(link: &Link) -> proto::GrantGeneration {
    let shown = |token: Option<Fingerprint>| token.map(|token| token.to_string()).unwrap_or_default();
    proto::GrantGeneration {
        generation: link.generation,
        create_time: Some(timestamp(link.at)),
        origin: link.origin.name().to_owned(),
        refresh_token_fingerprint: shown(link.refresh),
        access_token_fingerprint: shown(link.access),
    }
}

fn dependent(held: &Dependent) -> proto::CredentialDependent {
    proto::CredentialDependent {
        lease: held.lease.to_string(),
        holder: held.holder.to_string(),
        task: held.task.map(|task| task.to_string()).unwrap_or_default(),
        member: held.member.to_string(),
        generation: held.generation.unwrap_or_default(),
        expire_time: Some(timestamp(held.expires)),
    }
}

#[tonic::async_trait]
impl proto::credential_service_server::CredentialService for CredentialService {
    async fn set_credential(
        &self,
        request: Request<proto::SetCredentialRequest>,
    ) -> Result<Response<proto::SetCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let (mut key, expires) = (message.key, message.expire_time.as_ref());
        let set = SetKey {
            org: &message.org,
            owner: owner(message.owner.as_ref()).map_err(status)?,
            provider: &message.provider,
            executor: &message.executor,
            key: key_input(key.as_mut()),
            expires: expires
                .map(|expires| time("expire_time", expires))
                .transpose()
                .map_err(status)?,
            force: message.force,
        };
        let stored = self.0.set_key(&caller, set).await.map_err(status)?;
        Ok(Response::new(proto::SetCredentialResponse {
            credential: Some(self.shown(&stored)),
        }))
    }

    async fn import_grant(
        &self,
        request: Request<proto::ImportGrantRequest>,
    ) -> Result<Response<proto::ImportGrantResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let access = secret_text(message.access_token);
        let expires = message.access_token_expire_time.as_ref();
        let import = ImportGrant {
            org: &message.org,
            owner: owner(message.owner.as_ref()).map_err(status)?,
            connector: &message.connector,
            refresh: Secret::from(secret_text(message.refresh_token)),
            access: (!access.is_empty()).then(|| Secret::from(access)),
            expires: expires
                .map(|expires| time("access_token_expire_time", expires))
                .transpose()
                .map_err(status)?,
            scopes: message.scopes,
            account: pairs(message.account),
        };
        let stored = self.0.import_grant(&caller, import).await.map_err(status)?;
        Ok(Response::new(proto::ImportGrantResponse {
            credential: Some(self.shown(&stored)),
        }))
    }

    async fn get_credential(
        &self,
        request: Request<proto::GetCredentialRequest>,
    ) -> Result<Response<proto::GetCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let stored = self
            .0
            .get_credential(&caller, &message.org, &message.credential)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetCredentialResponse {
            credential: Some(self.shown_by_itself(&stored).await?),
        }))
    }

    async fn describe_credential(
        &self,
        request: Request<proto::DescribeCredentialRequest>,
    ) -> Result<Response<proto::DescribeCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let described = self
            .0
            .describe_credential(&caller, &message.org, &message.credential)
            .await
            .map_err(status)?;
        let phase = &described.credential.rotation.phase;
        Ok(Response::new(proto::DescribeCredentialResponse {
            credential: Some(self.shown_by_itself(&described.credential).await?),
            generations: described.lineage.links.iter().map(generation).collect(),
            grant_expire_time: described.lineage.refresh_expires.map(timestamp),
            cause: phase.cause().unwrap_or_default().to_owned(),
            dependents: described.dependents.iter().map(dependent).collect(),
            dependents_truncated: described.more,
        }))
    }

    async fn list_credentials(
        &self,
        request: Request<proto::ListCredentialsRequest>,
    ) -> Result<Response<proto::ListCredentialsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_credentials(&caller, &message.org, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListCredentialsResponse {
            credentials: page.rows.iter().map(|stored| self.shown(stored)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn get_credential_status(
        &self,
        request: Request<proto::GetCredentialStatusRequest>,
    ) -> Result<Response<proto::GetCredentialStatusResponse>, Status> {
        credential_status::get(&self.0, &request).await
    }

    async fn list_credential_statuses(
        &self,
        request: Request<proto::ListCredentialStatusesRequest>,
    ) -> Result<Response<proto::ListCredentialStatusesResponse>, Status> {
        credential_status::list(&self.0, &request).await
    }

    async fn remove_credential(
        &self,
        request: Request<proto::RemoveCredentialRequest>,
    ) -> Result<Response<proto::RemoveCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        self.0
            .remove_credential(&caller, &message.org, &message.credential)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RemoveCredentialResponse {}))
    }

    async fn set_parallelism(
        &self,
        request: Request<proto::SetParallelismRequest>,
    ) -> Result<Response<proto::SetParallelismResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let set = self
            .0
            .set_parallelism(&caller, &message.org, &message.credential, message.parallelism);
        let stored = set.await.map_err(status)?;
        Ok(Response::new(proto::SetParallelismResponse {
            credential: Some(self.shown_by_itself(&stored).await?),
        }))
    }

    async fn test_credential(
        &self,
        request: Request<proto::TestCredentialRequest>,
    ) -> Result<Response<proto::TestCredentialResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let tested = self
            .0
            .test_credential(&caller, &message.org, &message.credential)
            .await
            .map_err(status)?;
        Ok(Response::new(super::credential_test::answer(tested)))
    }
}
