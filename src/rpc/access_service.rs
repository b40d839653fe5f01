//! `AccessService`: the caller itself and the org API keys, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, duration, show_once, timestamp};
use super::status::status;
use crate::domain::directory::ApiKey;
use crate::domain::oidc::Issuer;
use crate::proto;
use crate::service::{Broker, PageRequest};

pub(super) struct AccessService(pub(super) Arc<Broker>);

fn api_key(key: &ApiKey) -> proto::ApiKey {
    proto::ApiKey {
        id: key.id.to_string(),
        org: key.org.to_string(),
        display_name: key.display_name.clone(),
        create_time: Some(timestamp(key.created)),
        expire_time: Some(timestamp(key.expires)),
        revoke_time: key.revoked.map(timestamp),
    }
}

#[tonic::async_trait]
impl proto::access_service_server::AccessService for AccessService {
    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let who = self.0.who_am_i(&caller(&request)?);
        Ok(Response::new(proto::WhoAmIResponse {
            actor: who.actor.to_string(),
            family: who.actor.family().to_owned(),
            org: who.actor.org().map(|org| org.to_string()).unwrap_or_default(),
            broker_version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: who.trust_domain,
        }))
    }

    async fn create_api_key(
        &self,
        request: Request<proto::CreateApiKeyRequest>,
    ) -> Result<Response<proto::CreateApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let ttl = duration("ttl", message.ttl).map_err(status)?;
        let minted = self
            .0
            .create_api_key(&caller, &message.org, &message.display_name, ttl)
            .await;
        let minted = minted.map_err(status)?;
        Ok(Response::new(proto::CreateApiKeyResponse {
            api_key: Some(api_key(&minted.key)),
            token: Some(show_once(&minted.token)),
        }))
    }

    async fn list_api_keys(
        &self,
        request: Request<proto::ListApiKeysRequest>,
    ) -> Result<Response<proto::ListApiKeysResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_api_keys(&caller, &message.org, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListApiKeysResponse {
            api_keys: page.rows.iter().map(|row| api_key(&row.value)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<proto::RevokeApiKeyRequest>,
    ) -> Result<Response<proto::RevokeApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let key = self
            .0
            .revoke_api_key(&caller, &message.org, &message.api_key)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeApiKeyResponse {
            api_key: Some(api_key(&key)),
        }))
    }

    async fn get_login_configuration(
        &self,
        _: Request<proto::GetLoginConfigurationRequest>,
    ) -> Result<Response<proto::GetLoginConfigurationResponse>, Status> {
        // Neither the orgs nor the audiences are for everybody to know.
        let method = |issuer: &Issuer| proto::LoginMethod {
            issuer: issuer.url.clone(),
            client_id: issuer.client_id.clone(),
            scopes: issuer.scopes.clone(),
        };
        let methods = self.0.issuers().map(method).collect();
        Ok(Response::new(proto::GetLoginConfigurationResponse { methods }))
    }
}
