//! `AccessService`: the caller itself, operator tokens, roles and org API keys, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::access_convert::{
    api_key, grant, grants, groups, holder, named, operator_token, subject, wire_groups,
};
use super::convert::{caller, duration, outstanding, show_once, timestamp};
use super::status::status;
use crate::domain::actor::{Actor, Shown};
use crate::domain::oidc::Issuer;
use crate::proto;
use crate::service::{Broker, NewApiKey, NewOperatorToken, PageRequest, RoleChange, RotateApiKey};

pub(super) struct AccessService(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl proto::access_service_server::AccessService for AccessService {
    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let who = self.0.who_am_i(&caller(&request)?).await.map_err(status)?;
        let member = match who.actor {
            Actor::Member { id, .. } => id.to_string(),
            _ => String::new(),
        };
        let (shown, shown_id) = match who.shown {
            Shown::OperatorToken(id) => ("operator-token", id.to_string()),
            Shown::IdToken(_) => ("id-token", String::new()),
            Shown::ApiKey(id) => ("api-key", id.to_string()),
            Shown::RuntimeKey(id) => ("runtime-key", id.to_string()),
        };
        Ok(Response::new(proto::WhoAmIResponse {
            actor: who.actor.to_string(),
            family: who.actor.family().to_owned(),
            org: who.actor.org().map(|org| org.to_string()).unwrap_or_default(),
            broker_version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: who.trust_domain,
            member,
            roles: who.grants.iter().map(|held| grant(*held)).collect(),
            shown: shown.to_owned(),
            shown_id,
            expire_time: who.expires.map(timestamp),
            groups: wire_groups(&who.groups),
            projects: who.projects.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn create_api_key(
        &self,
        request: Request<proto::CreateApiKeyRequest>,
    ) -> Result<Response<proto::CreateApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let groups = groups(&message.groups).map_err(status)?;
        let new = NewApiKey {
            display_name: &message.display_name,
            ttl: duration("ttl", message.ttl).map_err(status)?,
            projects: &message.projects,
            groups: &groups,
            csr_der: &message.csr_der,
        };
        let minted = self.0.create_api_key(&caller, &message.org, new).await;
        let minted = minted.map_err(status)?;
        Ok(Response::new(proto::CreateApiKeyResponse {
            api_key: Some(api_key(&minted.key)),
            token: Some(show_once(&minted.token)),
            certificate_chain_der: minted.chain_der,
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
            api_keys: page.rows.iter().map(api_key).collect(),
            next_page_token: page.next,
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<proto::RevokeApiKeyRequest>,
    ) -> Result<Response<proto::RevokeApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let revoked = self
            .0
            .revoke_api_key(&caller, &message.org, &message.api_key)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeApiKeyResponse {
            api_key: Some(api_key(&revoked.key)),
            outstanding: outstanding(&revoked.outstanding),
            outstanding_truncated: revoked.outstanding.more,
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

    async fn rotate_api_key(
        &self,
        request: Request<proto::RotateApiKeyRequest>,
    ) -> Result<Response<proto::RotateApiKeyResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let rotate = RotateApiKey {
            overlap: duration("overlap", message.overlap).map_err(status)?,
            ttl: duration("ttl", message.ttl).map_err(status)?,
            csr_der: &message.csr_der,
        };
        let minted = self
            .0
            .rotate_api_key(&caller, &message.org, &message.api_key, rotate)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RotateApiKeyResponse {
            api_key: Some(api_key(&minted.key)),
            token: Some(show_once(&minted.token)),
            certificate_chain_der: minted.chain_der,
        }))
    }

    async fn create_operator_token(
        &self,
        request: Request<proto::CreateOperatorTokenRequest>,
    ) -> Result<Response<proto::CreateOperatorTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let roles = grants(&message.roles).map_err(status)?;
        let new = NewOperatorToken {
            org: &message.org,
            member: &message.member,
            display_name: &message.display_name,
            ttl: duration("ttl", message.ttl).map_err(status)?,
            roles: &roles,
        };
        let minted = self.0.create_operator_token(&caller, new).await.map_err(status)?;
        Ok(Response::new(proto::CreateOperatorTokenResponse {
            operator_token: Some(operator_token(&minted.operator)),
            token: Some(show_once(&minted.token)),
        }))
    }

    async fn list_operator_tokens(
        &self,
        request: Request<proto::ListOperatorTokensRequest>,
    ) -> Result<Response<proto::ListOperatorTokensResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_operator_tokens(&caller, &message.org, &message.member, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListOperatorTokensResponse {
            operator_tokens: page.rows.iter().map(operator_token).collect(),
            next_page_token: page.next,
        }))
    }

    async fn rotate_operator_token(
        &self,
        request: Request<proto::RotateOperatorTokenRequest>,
    ) -> Result<Response<proto::RotateOperatorTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let overlap = duration("overlap", message.overlap).map_err(status)?;
        let ttl = duration("ttl", message.ttl).map_err(status)?;
        let minted = self
            .0
            .rotate_operator_token(&caller, &message.operator_token, overlap, ttl)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RotateOperatorTokenResponse {
            operator_token: Some(operator_token(&minted.operator)),
            token: Some(show_once(&minted.token)),
        }))
    }

    async fn revoke_operator_token(
        &self,
        request: Request<proto::RevokeOperatorTokenRequest>,
    ) -> Result<Response<proto::RevokeOperatorTokenResponse>, Status> {
        let caller = caller(&request)?;
        let id = &request.get_ref().operator_token;
        let revoked = self.0.revoke_operator_token(&caller, id).await.map_err(status)?;
        Ok(Response::new(proto::RevokeOperatorTokenResponse {
            operator_token: Some(operator_token(&revoked)),
        }))
    }

    async fn grant_role(
        &self,
        request: Request<proto::GrantRoleRequest>,
    ) -> Result<Response<proto::GrantRoleResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let subject = subject(&message.org, &message.member, &message.operator).map_err(status)?;
        let role = named(message.role.as_ref()).map_err(status)?;
        let changed = self
            .0
            .change_role(&caller, subject, RoleChange::Grant, &role)
            .await;
        Ok(Response::new(proto::GrantRoleResponse {
            holder: Some(holder(&changed.map_err(status)?)),
        }))
    }

    async fn revoke_role(
        &self,
        request: Request<proto::RevokeRoleRequest>,
    ) -> Result<Response<proto::RevokeRoleResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let subject = subject(&message.org, &message.member, &message.operator).map_err(status)?;
        let role = named(message.role.as_ref()).map_err(status)?;
        let changed = self
            .0
            .change_role(&caller, subject, RoleChange::Revoke, &role)
            .await;
        Ok(Response::new(proto::RevokeRoleResponse {
            holder: Some(holder(&changed.map_err(status)?)),
        }))
    }

    async fn list_roles(
        &self,
        request: Request<proto::ListRolesRequest>,
    ) -> Result<Response<proto::ListRolesResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self
            .0
            .list_roles(&caller, &message.org, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListRolesResponse {
            holders: page.rows.iter().map(holder).collect(),
            next_page_token: page.next,
        }))
    }
}
