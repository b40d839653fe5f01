//! Signing in with a browser on this machine: authorization code with PKCE (RFC 7636), answered at a port of this
//! process on loopback (RFC 8252 section 7.3).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::issuer::{Provider, Refused};
use super::session::Tokens;
use crate::cli::error::{Failure, Kind};
use crate::cli::loopback::{self, Host, Listener};
use crate::cli::render;

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(300);
const PATH: &str = "/callback";

/// What who comes with another answer is told.
const AGAIN: &str = "Run 'credbroker login' again.";

/// Signs in at the provider's authorization `endpoint`. `open` also starts a browser.
pub(super) async fn sign_in(provider: &Provider<'_>, endpoint: &str, open: bool) -> Result<Tokens, Failure> {
    let listener = Listener::bind(Host::V4, &[], PATH).await;
    let no_port = |error| loopback::no_port(error).remedy("Sign in with --device.");
    let listener = listener.map_err(no_port)?;
    let port = listener.port();
    let redirect_uri = format!("http://127.0.0.1:{port}{PATH}");
    let (verifier, state, nonce) = (random()?, random()?, random()?);
    let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
    let scope = provider.login.scopes.join(" ");
    let mut fields = vec![
        ("response_type", "code".to_owned()),
        ("client_id", provider.login.client_id.clone()),
        ("redirect_uri", redirect_uri.clone()),
        ("scope", scope),
        ("state", state.clone()),
        ("nonce", nonce.clone()),
        ("code_challenge", URL_SAFE_NO_PAD.encode(challenge)),
        ("code_challenge_method", "S256".to_owned()),
    ];
    if provider
        .login
        .scopes
        .iter()
        .any(|scope| scope == "offline_access")
    {
        // Without it a provider ignores the scope (OpenID Connect Core 1.0 section 11).
        fields.push(("prompt", "consent".to_owned()));
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&fields)
        .finish();
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    let url = format!("{endpoint}{joint}{query}");
    if open && loopback::start_browser(&url) {
        render::remark("Sign in with the browser. If none opens, open this address on this machine:");
    } else {
        render::remark("Open this address with a browser on this machine:");
    }
    render::remark(&url);

    let returned = tokio::time::timeout(PATIENCE, listener.answered(&state, AGAIN)).await;
    let returned = returned
        .map_err(|_| Failure::usage("nobody signed in in time").remedy("Run the command again."))??;
    // Whose answer it is, where several providers are used (RFC 9207).
    if returned
        .field("iss")
        .is_some_and(|issuer| issuer != provider.login.issuer)
    {
        return Err(provider.wrong("the answer is another provider's"));
    }
    let refused = returned.field("error");
    let refused = refused.map(|error| Refused::new(error, returned.field("error_description")));
    match (returned.field("code"), refused) {
        (_, refused @ Some(_)) => Err(provider.refused(refused, 200)),
        (Some(code), None) => {
            let now = render::now();
            provider
                .redeem(&code, &redirect_uri, &verifier, &nonce, now)
                .await
        }
        (None, None) => Err(provider.wrong("the browser came back without a code")),
    }
}

/// 256 random bits as text (RFC 7636 section 4.1 asks for as many).
fn random() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
