//! `SecretService`: secrets of extensions, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, secret_text, timestamp};
use super::status::status;
use crate::domain::extension::{ExtensionSecret, Grantee, SecretGrant};
use crate::domain::refusal::Refusal;
use crate::domain::secret::{Exposure, ExtensionValue, Secret};
use crate::proto;
use crate::service::{Broker, GranteeRef, PageRequest, SecretRef};

pub(super) struct SecretService(pub(super) Arc<Broker>);

fn secret(secret: &ExtensionSecret) -> proto::ExtensionSecret {
    proto::ExtensionSecret {
        namespace: secret.namespace.clone(),
        name: secret.name.clone(),
        version: secret.version,
        create_time: Some(timestamp(secret.created)),
        update_time: Some(timestamp(secret.updated)),
    }
}

fn grant(grant: &SecretGrant) -> proto::SecretGrant {
    use proto::secret_grant::Grantee as Wire;
    proto::SecretGrant {
        namespace: grant.namespace.clone(),
        grantee: Some(match grant.grantee {
            Grantee::Agent(id) => Wire::Agent(id.to_string()),
            Grantee::Environment(id) => Wire::Environment(id.to_string()),
        }),
        create_time: Some(timestamp(grant.created)),
    }
}

fn nobody() -> Status {
    status(Refusal::invalid("grantee", "name an agent or an environment"))
}

#[tonic::async_trait]
impl proto::secret_service_server::SecretService for SecretService {
    async fn set_secret(
        &self,
        request: Request<proto::SetSecretRequest>,
    ) -> Result<Response<proto::SetSecretResponse>, Status> {
        let caller = caller(&request)?;
        let mut m = request.into_inner();
        let value: Secret<ExtensionValue> = Secret::from(secret_text(m.value.take()));
        let at = SecretRef {
            org: &m.org,
            namespace: &m.namespace,
            name: &m.name,
        };
        let set = self.0.set_secret(&caller, at, value).await.map_err(status)?;
        Ok(Response::new(proto::SetSecretResponse {
            secret: Some(secret(&set)),
        }))
    }

    async fn list_secrets(
        &self,
        request: Request<proto::ListSecretsRequest>,
    ) -> Result<Response<proto::ListSecretsResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let page = self
            .0
            .list_secrets(&caller, &m.org, &m.namespace, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListSecretsResponse {
            secrets: page.rows.iter().map(|row| secret(&row.value)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn remove_secret(
        &self,
        request: Request<proto::RemoveSecretRequest>,
    ) -> Result<Response<proto::RemoveSecretResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let at = SecretRef {
            org: &m.org,
            namespace: &m.namespace,
            name: &m.name,
        };
        self.0.remove_secret(&caller, at).await.map_err(status)?;
        Ok(Response::new(proto::RemoveSecretResponse {}))
    }

    async fn grant_secret_access(
        &self,
        request: Request<proto::GrantSecretAccessRequest>,
    ) -> Result<Response<proto::GrantSecretAccessResponse>, Status> {
        use proto::grant_secret_access_request::Grantee as Wire;
        let caller = caller(&request)?;
        let m = request.get_ref();
        let grantee = match m.grantee.as_ref().ok_or_else(nobody)? {
            Wire::Agent(agent) => GranteeRef::Agent(agent),
            Wire::Environment(environment) => GranteeRef::Environment(&m.project, environment),
        };
        let granted = self
            .0
            .grant_secret_access(&caller, &m.org, &m.namespace, grantee)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GrantSecretAccessResponse {
            grant: Some(grant(&granted)),
        }))
    }

    async fn revoke_secret_access(
        &self,
        request: Request<proto::RevokeSecretAccessRequest>,
    ) -> Result<Response<proto::RevokeSecretAccessResponse>, Status> {
        use proto::revoke_secret_access_request::Grantee as Wire;
        let caller = caller(&request)?;
        let m = request.get_ref();
        let grantee = match m.grantee.as_ref().ok_or_else(nobody)? {
            Wire::Agent(agent) => GranteeRef::Agent(agent),
            Wire::Environment(environment) => GranteeRef::Environment(&m.project, environment),
        };
        self.0
            .revoke_secret_access(&caller, &m.org, &m.namespace, grantee)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RevokeSecretAccessResponse {}))
    }

    async fn list_secret_grants(
        &self,
        request: Request<proto::ListSecretGrantsRequest>,
    ) -> Result<Response<proto::ListSecretGrantsResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let page = PageRequest {
            size: m.page_size,
            token: &m.page_token,
        };
        let page = self
            .0
            .list_secret_grants(&caller, &m.org, &m.namespace, page)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::ListSecretGrantsResponse {
            grants: page.rows.iter().map(|row| grant(&row.value)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn read_secret(
        &self,
        request: Request<proto::ReadSecretRequest>,
    ) -> Result<Response<proto::ReadSecretResponse>, Status> {
        let caller = caller(&request)?;
        let m = request.get_ref();
        let read = self
            .0
            .read_secret(&caller, &m.namespace, &m.name)
            .await
            .map_err(status)?;
        // It came in as text.
        let value = read.secret.value.expose_str(Exposure::Vend).unwrap_or_default();
        Ok(Response::new(proto::ReadSecretResponse {
            value: Some(proto::Secret {
                value: value.to_owned(),
            }),
            version: read.secret.version,
            journal_position: read.position.0,
        }))
    }
}
