//! A person who signs in at a real server: by a code, by a device, and out again.

use credbroker::domain::secret::{AuthorizationCode, CodeVerifier};
use credbroker::upstream::answer::{
    DeviceAnswer, ExchangeAnswer, RevocationAnswer, classify_device, classify_exchange, classify_revocation,
};
use credbroker::upstream::oauth::{
    CodeRequest, DeviceGrant, DevicePoll, GrantToken, RevocationRequest, authorization_request,
};

use super::oidc::{CLI_CLIENT, OidcServer};
use super::web::Browser;
use super::*;

/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Scene {
    server: OidcServer,
    endpoint: HttpTokenEndpoint,
    connector: Arc<Connector>,
}

impl Scene {
    async fn start() -> Self {
        let server = OidcServer::start().await;
        let text = format!(
            "[connectors.test]\nissuer = \"{}\"\nclient_id = \"{CLI_CLIENT}\"\n\
             scopes = [\"openid\", \"offline_access\"]\nauthorize_params = {{ prompt = \"consent\" }}\n",
            server.issuer()
        );
        let connectors = Connectors::load_text("test.toml", &text).unwrap();
        Self {
            server,
            endpoint: endpoint(&HttpOptions::default()),
            connector: connectors.get("test").unwrap().clone(),
        }
    }

    async fn exchange(&self, code: &str, verifier: &str, redirect_uri: &str) -> Exchanged {
        let code: Secret<AuthorizationCode> = Secret::from(code.to_owned());
        let verifier: Secret<CodeVerifier> = Secret::from(verifier.to_owned());
        let request = CodeRequest {
            connector: &self.connector,
            code: &code,
            redirect_uri,
            verifier: Some(&verifier),
            state: "st",
        };
        self.exchanged(self.endpoint.exchange_code(request).await)
    }

    fn exchanged(&self, delivery: Delivery) -> Exchanged {
        let (status, retry_after, body) = answered(delivery);
        match classify_exchange(&self.connector, status, retry_after, &body) {
            ExchangeAnswer::Granted(granted) => Ok(granted),
            ExchangeAnswer::Refused { code, .. } => Err(code),
            _ => panic!("status {status}"),
        }
    }

    async fn poll(&self, grant: &DeviceGrant) -> Delivery {
        let request = DevicePoll {
            connector: &self.connector,
            device_code: &grant.device_code,
            user_code: &grant.user_code,
        };
        self.endpoint.poll_device(request).await
    }

    fn polled(&self, delivery: Delivery) -> DeviceAnswer {
        let (status, retry_after, body) = answered(delivery);
        classify_device(&self.connector, status, retry_after, &body)
    }

    async fn revoke(&self, token: GrantToken<'_>) -> RevocationAnswer {
        let connector = &self.connector;
        let request = RevocationRequest { connector, token };
        let (status, retry_after, body) = answered(self.endpoint.revoke(request).await);
        classify_revocation(connector, status, retry_after, &body)
    }
}

/// Tokens, or the code of the refusal.
type Exchanged = Result<Granted, String>;

fn answered(
    delivery: Delivery,
) -> (
    u16,
    Option<Duration>,
    Secret<credbroker::domain::secret::RawAnswer>,
) {
    match delivery {
        Delivery::Answered {
            status,
            retry_after,
            body,
        } => (status, retry_after, body),
        Delivery::NotSent(why) | Delivery::Lost(why) => panic!("{why}"),
    }
}

// req: A7 A12
#[tokio::test]
async fn a_code_is_exchanged_once_and_its_tokens_are_revoked() {
    let scene = Scene::start().await;
    let redirect_uri = "http://127.0.0.1:1/callback";
    let sign_in = async || {
        let address = scene.endpoint.authorize_url(&scene.connector).await.unwrap();
        let redirect = &scene.connector.redirects[0];
        let request = authorization_request(
            &address,
            &scene.connector,
            redirect,
            redirect_uri,
            "st",
            Some(CHALLENGE),
        );
        let back = Browser::of("alice").away(request.as_str(), redirect_uri).await;
        let given: std::collections::BTreeMap<_, _> = back.query_pairs().into_owned().collect();
        assert_eq!(given["state"], "st");
        given["code"].clone()
    };
    let wrong = scene
        .exchange(&sign_in().await, &"x".repeat(43), redirect_uri)
        .await;
    assert_eq!(wrong.err().unwrap(), "invalid_grant");
    let other = scene
        .exchange(&sign_in().await, VERIFIER, "http://127.0.0.1:2/callback")
        .await;
    assert_eq!(other.err().unwrap(), "invalid_grant");

    let code = sign_in().await;
    let granted = scene.exchange(&code, VERIFIER, redirect_uri).await.unwrap();
    let refresh_token = granted.refresh_token.unwrap();
    let access_token = text(&granted.access_token);
    assert_eq!(
        scene.server.account_of(&access_token).await.as_deref(),
        Some("alice")
    );

    let endpoint = scene.endpoint.revocation_endpoint(&scene.connector).await;
    assert!(endpoint.unwrap().is_some());
    // Again, as after an answer that was lost: it does no harm.
    for _ in 0..2 {
        let said = scene.revoke(GrantToken::Refresh(&refresh_token)).await;
        assert_eq!(said, RevocationAnswer::Revoked);
    }
    assert!(!scene.server.takes(&text(&refresh_token)).await);
    let said = scene.revoke(GrantToken::Access(&granted.access_token)).await;
    assert_eq!(said, RevocationAnswer::Revoked);
    assert_eq!(scene.server.account_of(&access_token).await, None);

    let again = scene.exchange(&code, VERIFIER, redirect_uri).await;
    assert_eq!(again.err().unwrap(), "invalid_grant");
}

// req: A7
#[tokio::test]
async fn a_device_waits_for_its_person() {
    let scene = Scene::start().await;
    let Ok(grant) = scene.endpoint.begin_device(&scene.connector).await else {
        panic!("not begun");
    };
    let pending = scene.polled(scene.poll(&grant).await);
    assert!(matches!(pending, DeviceAnswer::Pending));

    let page = grant.verification_uri_complete.as_deref().unwrap();
    Browser::of("alice").run(page).await;
    let delivery = scene.poll(&grant).await;
    let (status, retry_after, body) = answered(delivery);
    let said = classify_device(&scene.connector, status, retry_after, &body);
    assert!(matches!(said, DeviceAnswer::Granted));
    let granted = scene.exchanged(Delivery::Answered {
        status,
        retry_after,
        body,
    });
    let account = scene
        .server
        .account_of(&text(&granted.unwrap().access_token))
        .await;
    assert_eq!(account.as_deref(), Some("alice"));

    let again = scene.polled(scene.poll(&grant).await);
    assert!(matches!(&again, DeviceAnswer::Refused { code, .. } if code == "invalid_grant"));
}
