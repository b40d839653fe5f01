//! ID tokens as the broker judges them, by an issuer that does what a test tells it: which are taken, which are
//! refused, and how often the issuer is asked for its keys.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/issuer.rs"]
mod issuer;
#[path = "id_tokens/keys.rs"]
mod keys;

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::{Clock as _, ManualClock};
use credbroker::domain::oidc::{Algorithm, Issuer};
use credbroker::domain::time::Time;
use credbroker::upstream::oidc::{IdTokenError, Issuers, TokenFault, VerifiedIdToken};
use issuer::{CLIENT, ScriptedIssuer, SigningKey, encoded, unsigned};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);
/// How far the clocks may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// An issuer with one key, and what trusts it.
struct Scene {
    issuer: ScriptedIssuer,
    key: SigningKey,
    issuers: Arc<Issuers>,
    clock: Arc<ManualClock>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(SigningKey::p256("one"), |_| ()).await
    }

    async fn with(key: SigningKey, change: impl FnOnce(&mut Issuer)) -> Self {
        let issuer = ScriptedIssuer::start(&[&key]).await;
        let mut trusted = Issuer {
            url: issuer.url.clone(),
            audiences: vec![CLIENT.to_owned(), "other-cli".to_owned()],
            client_id: CLIENT.to_owned(),
            orgs: vec!["acme".to_owned()],
            scopes: vec!["openid".to_owned()],
            algorithms: vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
            clock_skew: SKEW,
            ca_file: None,
        };
        change(&mut trusted);
        let clock = Arc::new(ManualClock::at(Time::from_seconds(1_790_000_000)));
        let issuers = Arc::new(Issuers::new(vec![trusted], Arc::clone(&clock) as _).unwrap());
        Self {
            issuer,
            key,
            issuers,
            clock,
        }
    }

    fn now(&self) -> i64 {
        self.clock.wall().seconds()
    }

    fn claims(&self) -> Value {
        self.issuer.claims("alice", self.now(), HOUR)
    }

    /// Good claims, with these changed; null takes one away.
    fn changed(&self, changes: Value) -> Value {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims
                    .as_object_mut()
                    .unwrap()
                    .insert(name.clone(), value.clone()),
            };
        }
        claims
    }

    async fn verify(&self, token: &str) -> Result<VerifiedIdToken, IdTokenError> {
        self.issuers.verify(token).await
    }

    async fn fault(&self, token: &str) -> TokenFault {
        match self.verify(token).await {
            Err(IdTokenError::Fault(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }
}

// req: D2
#[tokio::test]
async fn a_good_token_shows_issuer_and_subject() {
    for key in [SigningKey::p256("one"), SigningKey::ed25519("one")] {
        let scene = Scene::with(key, |_| ()).await;
        let shown = scene.verify(&scene.key.sign(&scene.claims())).await.unwrap();
        assert_eq!(
            (shown.issuer(), shown.subject()),
            (scene.issuer.url.as_str(), "alice")
        );
        assert_eq!(shown.identity(), format!("oidc:{}#alice", scene.issuer.url));
        let end = Time::from_seconds(scene.now()) + HOUR + SKEW;
        assert_eq!(shown.expires(), end, "what it opens ends when it is refused");
    }
}

// req: D2
#[tokio::test]
async fn what_a_token_says_has_to_be_for_us_and_for_now() {
    let scene = Scene::new().await;
    let now = scene.now();
    let refused = [
        (json!({"aud": "somebody-else"}), TokenFault::Audience),
        (json!({"aud": []}), TokenFault::Audience),
        (json!({"aud": [CLIENT, "api"]}), TokenFault::Audience),
        (
            json!({"aud": [CLIENT, "api"], "azp": "somebody-else"}),
            TokenFault::Audience,
        ),
        (json!({"azp": "somebody-else"}), TokenFault::Audience),
        (json!({"aud": ["api"], "azp": CLIENT}), TokenFault::Audience),
        (json!({"nbf": now + 61}), TokenFault::NotYet),
        (json!({"iat": now + 61}), TokenFault::Issued),
        (json!({"sub": ""}), TokenFault::Subject),
        (json!({"sub": "a b"}), TokenFault::Subject),
        (json!({"sub": "x".repeat(256)}), TokenFault::Subject),
        (json!({"typ": "Bearer"}), TokenFault::NoIdToken),
        (
            json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
            TokenFault::NoIdToken,
        ),
    ];
    for (changes, expected) in refused {
        let token = scene.key.sign(&scene.changed(changes.clone()));
        assert_eq!(scene.fault(&token).await, expected, "{changes}");
    }
    for missing in ["iss", "sub", "aud", "exp", "iat"] {
        let token = scene.key.sign(&scene.changed(json!({missing: null})));
        assert!(
            matches!(scene.fault(&token).await, TokenFault::Malformed(_)),
            "{missing}"
        );
    }
    for odd in [
        json!({"exp": "soon"}),
        json!({"exp": -1}),
        json!({"exp": 1e300}),
        json!({"sub": 7}),
    ] {
        let token = scene.key.sign(&scene.changed(odd.clone()));
        assert!(
            matches!(scene.fault(&token).await, TokenFault::Malformed(_)),
            "{odd}"
        );
    }
    assert_eq!(scene.issuer.requests(), 0, "none of them is worth a request");

    for good in [
        json!({"aud": [CLIENT]}),
        json!({"aud": "other-cli"}),
        json!({"aud": [CLIENT, "api"], "azp": CLIENT}),
        json!({"nbf": now + 59}),
        json!({"exp": now - 59, "iat": now - 120}),
        json!({"exp": (now as f64) + 10.5}),
        json!({"sub": "x".repeat(255)}),
        json!({"typ": "ID"}),
        json!({"email": "somebody@else.example"}),
    ] {
        let token = scene.key.sign(&scene.changed(good.clone()));
        assert!(scene.verify(&token).await.is_ok(), "{good}");
    }
}

// req: D2
#[tokio::test]
async fn a_token_ends_with_its_time_and_never_later_than_a_day_after_its_issue() {
    let scene = Scene::new().await;
    let token = scene.key.sign(&scene.claims());
    let endless = scene
        .key
        .sign(&scene.changed(json!({"exp": scene.now() + 30 * 86_400})));
    scene.clock.advance(HOUR + SKEW - Duration::from_secs(1));
    assert!(scene.verify(&token).await.is_ok());
    scene.clock.advance(Duration::from_secs(1));
    assert!(matches!(scene.verify(&token).await, Err(IdTokenError::Expired)));
    assert!(scene.verify(&endless).await.is_ok());
    scene.clock.advance(24 * HOUR);
    assert!(matches!(scene.verify(&endless).await, Err(IdTokenError::Expired)));
}

// req: D2
#[tokio::test]
async fn another_issuer_is_not_believed() {
    let scene = Scene::new().await;
    for other in ["https://evil.example", &format!("{}/", scene.issuer.url), ""] {
        let token = scene.key.sign(&scene.changed(json!({"iss": other})));
        assert!(
            matches!(scene.verify(&token).await, Err(IdTokenError::IssuerUnknown)),
            "{other}"
        );
    }
    assert_eq!(scene.issuer.requests(), 0);
}

// req: D2
#[tokio::test]
async fn the_algorithm_is_the_lists_and_the_keys_and_not_the_tokens() {
    let scene = Scene::new().await;
    let claims = scene.claims();
    let header = |alg: &str| json!({"alg": alg, "kid": "one"});

    for none in ["none", "None", "NONE", ""] {
        let token = format!("{}.", unsigned(&header(none), &claims));
        assert_eq!(scene.fault(&token).await, TokenFault::Algorithm, "{none}");
    }
    // The public key as a shared one: everybody has it.
    let message = unsigned(&header("HS256"), &claims);
    let shared = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &scene.key.public());
    let tag = ring::hmac::sign(&shared, message.as_bytes());
    let token = format!("{message}.{}", encoded(tag.as_ref()));
    assert_eq!(scene.fault(&token).await, TokenFault::Algorithm);
    // Known, and not on the list.
    assert_eq!(
        scene.fault(&scene.key.sign_as(&header("ES384"), &claims)).await,
        TokenFault::Algorithm
    );
    // On the list, and not of the key's kind: no key fits.
    for other in ["RS256", "EdDSA"] {
        let token = scene.key.sign_as(&header(other), &claims);
        assert_eq!(scene.fault(&token).await, TokenFault::Key, "{other}");
        scene.clock.advance(Duration::from_secs(10));
    }
    let narrow = Scene::with(SigningKey::p256("one"), |issuer| {
        issuer.algorithms = vec![Algorithm::Rs256]
    })
    .await;
    assert_eq!(
        narrow.fault(&narrow.key.sign(&narrow.claims())).await,
        TokenFault::Algorithm
    );
}

// req: D2
#[tokio::test]
async fn other_kinds_of_tokens_are_refused() {
    let scene = Scene::new().await;
    let claims = scene.claims();
    for typ in [
        "at+jwt",
        "application/at+jwt",
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
    ] {
        let header = json!({"alg": "ES256", "kid": "one", "typ": typ});
        assert_eq!(
            scene.fault(&scene.key.sign_as(&header, &claims)).await,
            TokenFault::NoIdToken,
            "{typ}"
        );
    }
    let header = json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false});
    let token = scene.key.sign_as(&header, &claims);
    assert!(matches!(scene.fault(&token).await, TokenFault::Malformed(_)));
}

// req: D2
#[tokio::test]
async fn a_token_that_was_touched_is_refused() {
    let scene = Scene::new().await;
    let token = scene.key.sign(&scene.claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other = unsigned(&json!({}), &scene.changed(json!({"sub": "mallory"})));
    let other = other.split('.').nth(1).unwrap();
    let swapped = format!("{}.{other}.{}", parts[0], parts[2]);
    assert_eq!(scene.fault(&swapped).await, TokenFault::Signature);
    let stranger = SigningKey::p256("one");
    assert_eq!(
        scene.fault(&stranger.sign(&scene.claims())).await,
        TokenFault::Signature
    );
    for cut in [&token[..token.len() - 2], &format!("{}.{}.", parts[0], parts[1])] {
        assert!(scene.verify(cut).await.is_err(), "{cut}");
    }
    let twice = encoded(format!(r#"{{"iss":"x",{}"#, &scene.claims().to_string()[1..]).as_bytes());
    for malformed in [
        "",
        ".",
        "..",
        "a.b.c",
        &format!("{token}="),
        &format!("{token}.x"),
        &format!("{}.{twice}.{}", parts[0], parts[2]),
        &format!("{}.{}", "A".repeat(17_000), token),
    ] {
        assert!(
            matches!(scene.fault(malformed).await, TokenFault::Malformed(_)),
            "{malformed}"
        );
    }
}
