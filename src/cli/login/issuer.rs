//! The identity provider: its endpoints, and what is asked of them.
//!
//! `credbroker` is a public client (RFC 8252): it has no secret, and shows by PKCE (RFC 7636) that the one who
//! began a sign-in ends it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::http::{Answer, Client};
use super::session::Tokens;
use crate::cli::context::Login;
use crate::cli::error::{Failure, Kind};
use crate::domain::oidc;
use crate::domain::secret::{Exposure, RefreshToken, Secret};
use crate::domain::time::Time;

/// An identity provider, discovered.
pub(super) struct Provider<'a> {
    pub(super) login: &'a Login,
    pub(super) client: Client,
    pub(super) endpoints: Endpoints,
}

/// What is used of the discovery document (OpenID Connect Discovery 1.0 section 3, RFC 8628 section 4, RFC 8414
/// section 2).
#[derive(Deserialize)]
pub(super) struct Endpoints {
    issuer: String,
    pub(super) authorization_endpoint: Option<String>,
    token_endpoint: String,
    pub(super) device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
}

/// What a token endpoint grants (OpenID Connect Core 1.0 section 3.1.3.3).
#[derive(Deserialize)]
struct Granted {
    id_token: Option<String>,
    refresh_token: Option<String>,
}

/// Why it grants nothing (RFC 6749 section 5.2).
#[derive(Deserialize)]
pub(super) struct Refused {
    pub(super) error: String,
    error_description: Option<String>,
}

/// What is looked at of an ID token. It came over TLS from its issuer, which stands in for checking the signature
/// (OpenID Connect Core 1.0 section 3.1.3.7); the broker, to which it is shown, does check it.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: f64,
    nonce: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Endpoints {
    fn may_be_called(&self) -> bool {
        let optional = [&self.authorization_endpoint, &self.device_authorization_endpoint];
        let mut urls = optional.into_iter().flatten().chain([&self.token_endpoint]);
        urls.all(|url| oidc::is_endpoint(url))
    }
}

impl<'a> Provider<'a> {
    /// Reads the discovery document.
    pub(super) async fn discover(login: &'a Login) -> Result<Self, Failure> {
        let client = Client::new(login.issuer_ca_file.as_deref())?;
        let base = login.issuer.trim_end_matches('/');
        let answer = client
            .get(&format!("{base}/.well-known/openid-configuration"))
            .await?;
        let document: Option<Endpoints> = answer.json().filter(|_| answer.status == 200);
        let endpoints = document.ok_or_else(|| {
            Failure::new(
                Kind::Failed,
                format!("there is no identity provider at {}", login.issuer),
            )
            .because(format!(
                "its discovery document was answered with status {}",
                answer.status
            ))
            .remedy("Tell the broker's operator: oidc.issuers names it.")
        })?;
        // Otherwise one provider could send us on to another with what was meant for it.
        if endpoints.issuer != login.issuer || !endpoints.may_be_called() {
            return Err(Failure::new(
                Kind::Failed,
                format!("what is at {} is another's discovery document", login.issuer),
            )
            .remedy(
                "Tell the broker's operator: the issuer under oidc.issuers is to be written as it is there.",
            ));
        }
        Ok(Self {
            login,
            client,
            endpoints,
        })
    }

    /// Exchanges a code for tokens.
    pub(super) async fn redeem(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        nonce: &str,
        now: Time,
    ) -> Result<Tokens, Failure> {
        let answer = self
            .token(&[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier),
            ])
            .await?;
        self.tokens(&answer, Some(nonce), now)
    }

    /// Exchanges the refresh token (RFC 6749 section 6, OpenID Connect Core 1.0 section 12). `None`: it is no
    /// longer good.
    pub(super) async fn refresh(
        &self,
        token: &Secret<RefreshToken>,
        now: Time,
    ) -> Result<Option<Tokens>, Failure> {
        let token = token.expose_str(Exposure::Upstream).unwrap_or_default();
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let answer = self.token(&fields).await?;
        let refused: Option<Refused> = answer.json().filter(|_| answer.status != 200);
        if refused.is_some_and(|refused| refused.error == "invalid_grant") {
            return Ok(None);
        }
        self.tokens(&answer, None, now).map(Some)
    }

    /// Asks the token endpoint, as this client.
    pub(super) async fn token(&self, fields: &[(&str, &str)]) -> Result<Answer, Failure> {
        let fields = [fields, &[("client_id", self.login.client_id.as_str())]].concat();
        self.client.post(&self.endpoints.token_endpoint, &fields).await
    }

    /// The tokens in an answer of the token endpoint.
    pub(super) fn tokens(&self, answer: &Answer, nonce: Option<&str>, now: Time) -> Result<Tokens, Failure> {
        if answer.status != 200 {
            return Err(self.refused(answer.json(), answer.status));
        }
        let granted: Option<Granted> = answer.json();
        let granted = granted.ok_or_else(|| self.wrong("its answer cannot be read"))?;
        let id_token = granted
            .id_token
            .ok_or_else(|| self.wrong("it gave no ID token"))?;
        let expires = self.checked(&id_token, nonce, now)?;
        Ok(Tokens {
            id_token: id_token.into(),
            refresh_token: granted.refresh_token.map(Secret::from),
            expires,
        })
    }

    /// When the ID token ends, if it is one for us.
    fn checked(&self, token: &str, nonce: Option<&str>, now: Time) -> Result<Time, Failure> {
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<Claims> = claims.and_then(|json| serde_json::from_slice(&json).ok());
        let claims = claims.ok_or_else(|| self.wrong("its ID token cannot be read"))?;
        let ours = match &claims.aud {
            Audience::One(one) => *one == self.login.client_id,
            Audience::Many(many) => many.contains(&self.login.client_id),
        };
        if claims.iss != self.login.issuer || !ours {
            return Err(self.wrong("its ID token is another's"));
        }
        if nonce.is_some() && claims.nonce.as_deref() != nonce {
            return Err(self.wrong("its ID token is of another sign-in (nonce)"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float becomes the nearest whole number there is"
        )]
        let expires = Time::from_seconds(claims.exp as i64);
        if expires <= now {
            return Err(self.wrong("its ID token has expired already; compare the clocks"));
        }
        Ok(expires)
    }

    /// Takes the refresh token back (RFC 7009). `false`: the provider does not offer that.
    pub(super) async fn revoke(&self, token: &Secret<RefreshToken>) -> Result<bool, Failure> {
        let url = self.endpoints.revocation_endpoint.as_deref();
        let Some(url) = url.filter(|url| oidc::is_endpoint(url)) else {
            return Ok(false);
        };
        let fields = [
            ("token", token.expose_str(Exposure::Upstream).unwrap_or_default()),
            ("token_type_hint", "refresh_token"),
            ("client_id", self.login.client_id.as_str()),
        ];
        let answer = self.client.post(url, &fields).await?;
        match answer.status {
            200 => Ok(true),
            status => Err(self.refused(answer.json(), status)),
        }
    }

    /// The provider has said no.
    pub(super) fn refused(&self, refused: Option<Refused>, status: u16) -> Failure {
        let failure = Failure::new(
            Kind::Denied,
            format!("the identity provider {} refused", self.login.issuer),
        );
        match refused {
            Some(Refused {
                error,
                error_description,
            }) => {
                let failure = failure.because(error);
                match error_description {
                    Some(description) => failure.because(description),
                    None => failure,
                }
            }
            None => failure.because(format!("status {status}")),
        }
        .remedy("Sign in again. If it stays so, its administrators know what the client may do.")
    }

    /// The provider has answered something that it must not.
    pub(super) fn wrong(&self, why: &str) -> Failure {
        Failure::new(
            Kind::Failed,
            format!(
                "the identity provider {} did not do what it should",
                self.login.issuer
            ),
        )
        .because(why)
        .remedy("Sign in again. If it stays so, tell the broker's operator.")
    }
}

impl Refused {
    pub(super) fn new(error: String, error_description: Option<String>) -> Self {
        Self {
            error,
            error_description,
        }
    }
}
