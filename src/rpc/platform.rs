//! `PlatformService`: the platform's own keys and proxy grants, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, duration, mode, secret_text, timestamp};
use super::status::status;
use crate::domain::managed::{Pool, Source};
use crate::domain::refusal::Refusal;
use crate::domain::secret::{Exposure, Secret};
use crate::proto;
use crate::service::{ActiveGrant, Broker, Introspection, ManagedKeyView, PageRequest, SetManagedKey};

pub(super) struct PlatformService(pub(super) Arc<Broker>);

fn pool(value: i32) -> Result<Pool, Refusal> {
    match proto::KeyPool::try_from(value) {
        Ok(proto::KeyPool::Metered) => Ok(Pool::Metered),
        Ok(proto::KeyPool::Shared) => Ok(Pool::Shared),
        Ok(proto::KeyPool::Unspecified) => Err(Refusal::invalid("pool", "pool is required")),
        Err(_) => Err(Refusal::invalid("pool", "pool is not one this broker knows")),
    }
}

fn source(source: Source) -> i32 {
    (match source {
        Source::Stored => proto::KeySource::Stored,
        Source::Environment => proto::KeySource::Environment,
        Source::File => proto::KeySource::File,
    }) as i32
}

fn managed_key(view: &ManagedKeyView) -> proto::ManagedKey {
    let key = &view.key;
    let pool = match key.pool {
        Pool::Metered => proto::KeyPool::Metered,
        Pool::Shared => proto::KeyPool::Shared,
    };
    proto::ManagedKey {
        pool: pool as i32,
        provider: key.provider.clone(),
        source: source(key.source),
        generation: key.generation,
        hint: key.hint.clone(),
        update_time: Some(timestamp(key.updated)),
        previous_expire_time: key.previous_until.map(timestamp),
        behind: view.behind.iter().map(|one| source(*one)).collect(),
    }
}

fn active(grant: &ActiveGrant) -> proto::IntrospectGrantResponse {
    let lease = &grant.lease;
    let text = |id: Option<String>| id.unwrap_or_default();
    // A key that was taken in is printable ASCII.
    let key = grant.key.as_ref().map(|held| proto::Secret {
        value: held
            .key()
            .expose_str(Exposure::Vend)
            .unwrap_or_default()
            .to_owned(),
    });
    proto::IntrospectGrantResponse {
        active: true,
        org: lease.org.to_string(),
        project: text(grant.project.map(|id| id.to_string())),
        member: lease.member.to_string(),
        task: text(lease.task.map(|id| id.to_string())),
        holder: lease.holder.to_string(),
        lease: lease.id.to_string(),
        mode: mode(lease.mode),
        provider: lease.provider.clone(),
        model: grant.model.clone(),
        expire_time: Some(timestamp(grant.expires)),
        key,
        key_generation: grant.key.as_ref().map_or(0, |held| held.facts.generation),
        inactive_reason: String::new(),
    }
}

#[tonic::async_trait]
impl proto::platform_service_server::PlatformService for PlatformService {
    async fn set_managed_key(
        &self,
        request: Request<proto::SetManagedKeyRequest>,
    ) -> Result<Response<proto::SetManagedKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let set = SetManagedKey {
            pool: pool(message.pool).map_err(status)?,
            provider: &message.provider,
            key: Secret::from(secret_text(message.key)),
            force: message.force,
            overlap: duration("overlap", message.overlap).map_err(status)?,
        };
        let stored = self.0.set_managed_key(&caller, set).await.map_err(status)?;
        Ok(Response::new(proto::SetManagedKeyResponse {
            managed_key: Some(managed_key(&stored)),
        }))
    }

    async fn list_managed_keys(
        &self,
        request: Request<proto::ListManagedKeysRequest>,
    ) -> Result<Response<proto::ListManagedKeysResponse>, Status> {
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self.0.list_managed_keys(page).await.map_err(status)?;
        Ok(Response::new(proto::ListManagedKeysResponse {
            managed_keys: page.rows.iter().map(managed_key).collect(),
            next_page_token: page.next,
        }))
    }

    async fn remove_managed_key(
        &self,
        request: Request<proto::RemoveManagedKeyRequest>,
    ) -> Result<Response<proto::RemoveManagedKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let pool = pool(message.pool).map_err(status)?;
        let left = self
            .0
            .remove_managed_key(&caller, pool, &message.provider)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RemoveManagedKeyResponse {
            managed_key: left.as_ref().map(managed_key),
        }))
    }

    async fn introspect_grant(
        &self,
        request: Request<proto::IntrospectGrantRequest>,
    ) -> Result<Response<proto::IntrospectGrantResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let token = Secret::from(secret_text(message.token));
        if token.is_empty() {
            return Err(status(Refusal::invalid("token", "token is required")));
        }
        let found = self
            .0
            .introspect_grant(&caller, &token, &message.model)
            .await
            .map_err(status)?;
        Ok(Response::new(match found {
            Introspection::Active(grant) => active(&grant),
            Introspection::Inactive(why) => proto::IntrospectGrantResponse {
                inactive_reason: why.map(|reason| reason.code().to_owned()).unwrap_or_default(),
                ..Default::default()
            },
        }))
    }
}
