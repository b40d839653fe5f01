//! What of a stored credential a lease hands out. The only place where a provider's secret goes into a message.

use super::convert::map;
use crate::domain::credential::Credential;
use crate::domain::mode::CredentialKind;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{Exposure, Secret};
use crate::proto;
use crate::proto::material::Material;
use crate::service::{CredentialSecret, Material as Handed};

/// What a lease hands out.
pub(super) fn of(material: &Handed) -> Result<Material, Refusal> {
    Ok(match material {
        Handed::Stored { credential, secret } => stored(credential, secret)?,
        Handed::Managed(key, CredentialKind::BedrockBearer) => {
            Material::BedrockBearer(proto::BedrockBearer {
                token: Some(vended(key.key())?),
                region: String::new(),
            })
        }
        Handed::Managed(key, _) => Material::ApiKey(proto::ApiKeyMaterial {
            key: Some(vended(key.key())?),
        }),
        Handed::Proxy(grant) => Material::ProxyGrant(proto::ProxyGrant {
            base_url: grant.base_url.clone(),
            token: Some(vended(&grant.token)?),
        }),
        Handed::HostSession(executor) => Material::HostSession(proto::HostSessionDirective {
            executor: executor.clone(),
        }),
        Handed::Local(base_url) => Material::LocalEndpoint(proto::LocalEndpoint {
            base_url: base_url.clone(),
        }),
    })
}

/// The material of a credential, by its kind. Of a grant the access token only.
fn stored(credential: &Credential, secret: &CredentialSecret) -> Result<Material, Refusal> {
    let access = || secret.access.as_ref().ok_or_else(unusable).and_then(vended);
    let region = || credential.region.clone().unwrap_or_default();
    Ok(match credential.kind {
        CredentialKind::OAuthGrant => Material::OauthAccessToken(proto::OAuthAccessToken {
            token: Some(access()?),
            token_type: credential.token_type.clone(),
            scopes: credential.scopes.clone(),
            account: map(&credential.account),
        }),
        CredentialKind::ApiKey => Material::ApiKey(proto::ApiKeyMaterial { key: Some(access()?) }),
        CredentialKind::Aws => {
            let keys = secret.aws.as_ref().ok_or_else(unusable)?;
            Material::AwsKeys(proto::AwsKeys {
                access_key_id: keys.access_key_id.clone(),
                secret_access_key: Some(vended(&keys.secret_access_key)?),
                session_token: keys.session_token.as_ref().map(vended).transpose()?,
                region: region(),
            })
        }
        CredentialKind::BedrockBearer => Material::BedrockBearer(proto::BedrockBearer {
            token: Some(access()?),
            region: region(),
        }),
    })
}

fn vended<K>(secret: &Secret<K>) -> Result<proto::Secret, Refusal> {
    let text = secret.expose_str(Exposure::Vend).ok_or_else(unusable)?;
    Ok(proto::Secret {
        value: text.to_owned(),
    })
}

fn unusable() -> Refusal {
    Refusal::new(Reason::CredentialUnusable, "the credential has no usable secret")
}
