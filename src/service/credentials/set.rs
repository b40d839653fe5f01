//! Keys that somebody brought: API keys, AWS keys, bearer keys for Bedrock. Looked at for a likely mix-up, then
//! stored in place of the one there was.

use std::sync::Arc;

use super::{BEARER, Incoming, OwnerRef};
use crate::domain::actor::Caller;
use crate::domain::credential::Credential;
use crate::domain::journal::Action;
use crate::domain::key_shape::{AwsKeyText, AwsPart, ShapeMismatch, hint, is_region};
use crate::domain::mode::{AuthMode, CredentialKind};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{AccessToken, ApiKey, AwsSecretKey, AwsSessionToken, Exposure, Secret};
use crate::domain::time::Time;
use crate::service::Broker;
use crate::store::model::AwsSecret;

/// A key to store.
pub struct SetKey<'a> {
    /// The org.
    pub org: &'a str,
    /// Whose it is.
    pub owner: OwnerRef<'a>,
    /// The provider.
    pub provider: &'a str,
    /// The only executor it is for; empty: all.
    pub executor: &'a str,
    /// The key.
    pub key: KeyInput<'a>,
    /// When it stops working, where that is known.
    pub expires: Option<Time>,
    /// Whether to store it even when it does not look like one of this provider.
    pub force: bool,
}

/// A key of one of the kinds.
pub enum KeyInput<'a> {
    /// An API key.
    ApiKey(Secret<ApiKey>),
    /// AWS keys.
    Aws {
        /// The access key id.
        access_key_id: String,
        /// The secret access key.
        secret_access_key: Secret<AwsSecretKey>,
        /// The session token of temporary keys.
        session_token: Option<Secret<AwsSessionToken>>,
        /// The region they are meant for.
        region: &'a str,
    },
    /// A bearer key for Bedrock.
    BedrockBearer {
        /// The key.
        token: Secret<ApiKey>,
        /// The region it is meant for.
        region: &'a str,
    },
}

impl KeyInput<'_> {
    fn kind(&self) -> CredentialKind {
        match self {
            KeyInput::ApiKey(_) => CredentialKind::ApiKey,
            KeyInput::Aws { .. } => CredentialKind::Aws,
            KeyInput::BedrockBearer { .. } => CredentialKind::BedrockBearer,
        }
    }

    /// The field of the request that has it.
    fn field(&self) -> &'static str {
        match self {
            KeyInput::ApiKey(_) => "api_key",
            KeyInput::Aws { .. } => "aws_keys",
            KeyInput::BedrockBearer { .. } => "bedrock_bearer",
        }
    }
}

/// What of a key goes into the store.
struct Checked {
    access: Option<Secret<AccessToken>>,
    aws: Option<AwsSecret>,
    region: Option<String>,
    hint: String,
}

impl Broker {
    /// Stores a key, in place of the one there was of this kind, for this executor or for all.
    pub async fn set_key(
        self: &Arc<Self>,
        caller: &Caller,
        set: SetKey<'_>,
    ) -> Result<Arc<Credential>, Refusal> {
        let place = self.place(caller, set.org).await?;
        let org = place.id();
        let owner = self.owner(org, set.owner).await?;
        place.admit("owner", None, owner.member())?;
        let kind = set.key.kind();
        self.check_takes(set.provider, &set.key)?;
        if !set.executor.is_empty() {
            self.check_executor(set.executor, set.provider)?;
        }
        if set.expires.is_some_and(|expires| expires <= self.now()) {
            return Err(Refusal::invalid(
                "expire_time",
                "expire_time is over: the key has expired",
            ));
        }
        let checked = self.checked_key(set.provider, set.key, set.force)?;
        let incoming = Incoming {
            org,
            owner,
            provider: set.provider.to_owned(),
            kind,
            connector: String::new(),
            expires: set.expires,
            hint: checked.hint,
            scopes: Vec::new(),
            account: Vec::new(),
            access: checked.access,
            refresh: None,
            aws: checked.aws,
            executor: (!set.executor.is_empty()).then(|| set.executor.to_owned()),
            region: checked.region,
            token_type: BEARER.to_owned(),
            refresh_expires: None,
        };
        self.store(caller, Action::CredentialSet, incoming).await
    }

    /// The provider is known and takes keys of this kind.
    fn check_takes(&self, provider: &str, key: &KeyInput<'_>) -> Result<(), Refusal> {
        let Some(known) = self.registry.provider(provider) else {
            let names = self.registry.providers().map(|known| known.name.as_str());
            return Err(Refusal {
                field: Some("provider"),
                ..Refusal::new(
                    Reason::ProviderUnknown,
                    format!("there is no provider {provider:?}"),
                )
                .with("known", names.collect::<Vec<_>>().join(", "))
            });
        };
        if known.kinds.contains(&key.kind()) {
            return Ok(());
        }
        let kinds: Vec<_> = known.kinds.iter().map(|kind| kind.name()).collect();
        let kinds = kinds.join(", ");
        Err(Refusal {
            field: Some(key.field()),
            ..Refusal::new(
                Reason::KindUnsupported,
                if kinds.is_empty() {
                    format!("{provider} takes no credential: it is for mode local")
                } else {
                    format!(
                        "{provider} takes no credential of kind {}, only {kinds}",
                        key.kind().name()
                    )
                },
            )
            .with("supported", kinds)
        })
    }

    /// The executor is known and uses keys of this provider: a key for any other would never be handed out.
    fn check_executor(&self, executor: &str, provider: &str) -> Result<(), Refusal> {
        let at = |refusal| Refusal {
            field: Some("executor"),
            ..refusal
        };
        let Some(known) = self.registry.executor(executor) else {
            let message = format!("there is no executor {executor:?}");
            return Err(at(Refusal::new(Reason::ExecutorUnknown, message)));
        };
        if known.modes(provider).contains(AuthMode::Byok) {
            return Ok(());
        }
        let takes = known
            .providers
            .iter()
            .filter(|(_, modes)| modes.contains(AuthMode::Byok));
        let takes: Vec<_> = takes.map(|(provider, _)| provider.as_str()).collect();
        let message = format!("{executor} uses no keys of {provider}");
        Err(at(
            Refusal::new(Reason::ProviderUnsupported, message).with("supported", takes.join(", "))
        ))
    }

    fn checked_key(&self, provider: &str, key: KeyInput<'_>, force: bool) -> Result<Checked, Refusal> {
        match key {
            KeyInput::ApiKey(key) => self.checked_text(provider, &key, "api_key", None, force),
            KeyInput::BedrockBearer { token, region } => {
                let region = checked_region("bedrock_bearer.region", region)?;
                self.checked_text(provider, &token, "bedrock_bearer.token", Some(region), force)
            }
            KeyInput::Aws {
                access_key_id,
                secret_access_key,
                session_token,
                region,
            } => {
                let region = checked_region("aws_keys.region", region)?;
                let keys = AwsKeyText {
                    access_key_id: &access_key_id,
                    secret_access_key: text(&secret_access_key, field_of(AwsPart::SecretAccessKey))?,
                    session_token: session_token
                        .as_ref()
                        .map(|token| text(token, field_of(AwsPart::SessionToken)))
                        .transpose()?,
                };
                let checked = self.registry.check_aws_keys(provider, keys);
                checked.or_else(|(part, mismatch)| passed(mismatch, field_of(part), force))?;
                Ok(Checked {
                    hint: hint(&access_key_id),
                    access: None,
                    aws: Some(AwsSecret {
                        access_key_id,
                        secret_access_key,
                        session_token,
                    }),
                    region: Some(region),
                })
            }
        }
    }

    /// A key that is one text.
    fn checked_text(
        &self,
        provider: &str,
        key: &Secret<ApiKey>,
        field: &'static str,
        region: Option<String>,
        force: bool,
    ) -> Result<Checked, Refusal> {
        let text = text(key, field)?;
        let checked = self.registry.check_key(provider, text);
        checked.or_else(|mismatch| passed(mismatch, field, force))?;
        Ok(Checked {
            hint: hint(text),
            access: Some(Secret::new(key.expose(Exposure::Seal).to_vec())),
            aws: None,
            region,
        })
    }
}

fn field_of(part: AwsPart) -> &'static str {
    match part {
        AwsPart::AccessKeyId => "aws_keys.access_key_id",
        AwsPart::SecretAccessKey => "aws_keys.secret_access_key",
        AwsPart::SessionToken => "aws_keys.session_token",
    }
}

fn text<'a, K>(secret: &'a Secret<K>, field: &'static str) -> Result<&'a str, Refusal> {
    secret
        .expose_str(Exposure::Inspect)
        .ok_or_else(|| Refusal::invalid(field, "the key is not text"))
}

/// Lets a mismatch pass where the caller insists and may.
fn passed(mismatch: ShapeMismatch, field: &'static str, force: bool) -> Result<(), Refusal> {
    if force && mismatch.forceable() {
        return Ok(());
    }
    Err(Refusal {
        field: Some(field),
        ..Refusal::new(Reason::KeyShapeMismatch, mismatch.to_string())
    })
}

fn checked_region(field: &'static str, region: &str) -> Result<String, Refusal> {
    if is_region(region) {
        return Ok(region.to_owned());
    }
    let message = "the region that the key is meant for is required, such as us-east-1";
    Err(Refusal::invalid(field, message))
}
