//! The issuer's keys: fetched, remembered, fetched again, and done without.

use super::*;

/// What a fetch costs the issuer: its discovery document and its keys.
const REQUESTS: usize = 2;
/// The time between two fetches.
const REST: Duration = Duration::from_secs(10);

type Change<'a> = Box<dyn Fn(&mut issuer::Script) + 'a>;

fn unavailable(result: Result<VerifiedIdToken, IdTokenError>) -> Duration {
    match result {
        Err(IdTokenError::Unavailable { retry_after, .. }) => retry_after,
        other => panic!("{other:?}"),
    }
}

// req: D2
#[tokio::test]
async fn keys_are_fetched_once_and_used_until_they_are_old() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        scene.verify(&scene.key.sign(&scene.claims())).await.unwrap();
    }
    assert_eq!(scene.issuer.requests(), REQUESTS);
    // A key that was taken back is refused from then on.
    scene.issuer.publish(&[&SigningKey::p256("two")]);
    scene.clock.advance(Duration::from_secs(15 * 60));
    assert_eq!(
        scene.fault(&scene.key.sign(&scene.claims())).await,
        TokenFault::Key
    );
    assert_eq!(scene.issuer.requests(), 2 * REQUESTS);
}

// req: D2
#[tokio::test]
async fn a_new_key_is_picked_up_at_its_first_use() {
    let scene = Scene::new().await;
    scene.verify(&scene.key.sign(&scene.claims())).await.unwrap();
    let new = SigningKey::ed25519("two");
    scene.issuer.publish(&[&scene.key, &new]);
    scene.clock.advance(REST);
    scene.verify(&new.sign(&scene.claims())).await.unwrap();
    scene.verify(&scene.key.sign(&scene.claims())).await.unwrap();
    assert_eq!(scene.issuer.fetches(), 2);
}

// req: D2
#[tokio::test]
async fn a_storm_of_unknown_keys_does_not_reach_the_issuer() {
    let scene = Scene::new().await;
    let good = scene.key.sign(&scene.claims());
    let stranger = SigningKey::p256("one");
    let storm = |round: usize| {
        let made_up = (0..200).map(move |n| format!("made-up-{round}-{n}"));
        let tokens: Vec<_> = made_up
            .map(|kid| stranger.sign_as(&json!({"alg": "ES256", "kid": kid}), &scene.claims()))
            .collect();
        tokens
    };
    for round in 0..3 {
        let calls = storm(round).into_iter().map(|token| {
            let issuers = Arc::clone(&scene.issuers);
            tokio::spawn(async move { issuers.verify(&token).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert!(call.await.unwrap().is_err());
        }
        assert_eq!(scene.issuer.fetches(), round + 1, "one fetch a rest");
        scene.verify(&good).await.unwrap();
        scene.clock.advance(REST);
    }
    // Where a fetch has just been made, the answer says when the next may be.
    scene.clock.advance(REST);
    let tokens = storm(9);
    assert_eq!(scene.fault(&tokens[0]).await, TokenFault::Key);
    assert_eq!(unavailable(scene.verify(&tokens[1]).await), REST);
}

// req: D2
#[tokio::test]
async fn callers_share_one_fetch_and_a_caller_that_leaves_does_not_end_it() {
    let scene = Scene::new().await;
    scene.issuer.hold(true);
    let token = scene.key.sign(&scene.claims());
    let call = || {
        let (issuers, token) = (Arc::clone(&scene.issuers), token.clone());
        tokio::spawn(async move { issuers.verify(&token).await })
    };
    let leaver = call();
    while scene.issuer.requests() == 0 {
        tokio::task::yield_now().await;
    }
    leaver.abort();
    let calls: Vec<_> = (0..20).map(|_| call()).collect();
    tokio::task::yield_now().await;
    scene.issuer.hold(false);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(scene.issuer.fetches(), 1);
}

// req: D2
#[tokio::test]
async fn remembered_keys_outlast_an_issuer_that_is_down_for_a_day() {
    let mut scene = Scene::new().await;
    let token = |scene: &Scene| scene.key.sign(&scene.claims());
    scene.verify(&token(&scene)).await.unwrap();
    scene.issuer.stop().await;
    scene.clock.advance(23 * HOUR);
    scene.verify(&token(&scene)).await.unwrap();
    scene.clock.advance(HOUR);
    assert_eq!(unavailable(scene.verify(&token(&scene)).await), REST);
    // A first fetch that fails says the same.
    let mut fresh = Scene::new().await;
    fresh.issuer.stop().await;
    assert_eq!(unavailable(fresh.verify(&token(&fresh)).await), REST);
}

/// Nothing of what an issuer publishes wrongly is taken.
// req: D2
#[tokio::test]
async fn documents_that_are_wrong_or_huge_are_refused() {
    let elsewhere = Scene::new().await;
    let published = |key: &SigningKey, more: Value| json!({"keys": [key.jwk()], "more": more}).to_string();
    let key = SigningKey::p256("one");
    let many: Vec<Value> = (0..65).map(|_| key.jwk()).collect();
    let changes: Vec<(&str, Change<'_>)> = vec![
        (
            "another issuer's",
            Box::new(|s| s.issuer = "https://evil.example".into()),
        ),
        ("its own with a slash", Box::new(|s| s.issuer.push('/'))),
        (
            "keys in clear",
            Box::new(|s| s.jwks_uri = "http://192.0.2.1/keys".into()),
        ),
        (
            "keys in a file",
            Box::new(|s| s.jwks_uri = "file:///etc/passwd".into()),
        ),
        ("no JSON", Box::new(|s| s.jwks = "<html>".into())),
        (
            "too large",
            Box::new(|s| s.jwks = published(&key, json!("x".repeat(128 * 1024)))),
        ),
        (
            "too many keys",
            Box::new(|s| s.jwks = json!({"keys": many.clone()}).to_string()),
        ),
        ("an error", Box::new(|s| s.status = 500)),
        (
            "a redirect",
            Box::new(|s| {
                s.status = 302;
                s.location = Some(elsewhere.issuer.url.clone());
            }),
        ),
    ];
    for (what, change) in changes {
        let scene = Scene::new().await;
        scene.issuer.change(change);
        assert_eq!(
            unavailable(scene.verify(&scene.key.sign(&scene.claims())).await),
            REST,
            "{what}"
        );
    }
    assert_eq!(elsewhere.issuer.requests(), 0, "no redirect is followed");
}

// req: D2
#[tokio::test]
async fn keys_for_something_else_verify_nothing() {
    let scene = Scene::new().await;
    let cases = [
        (json!({"use": "enc"}), false),
        (json!({"key_ops": ["sign"]}), false),
        (json!({"alg": "ES384"}), false),
        (json!({"crv": "P-384"}), false),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), false),
        (json!({"x": "AAAA"}), false),
        (json!({"kid": "two"}), false),
        (json!({"key_ops": ["verify"], "alg": "ES256"}), true),
    ];
    for (changes, good) in cases {
        let mut jwk = scene.key.jwk();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        scene
            .issuer
            .change(|script| script.jwks = json!({"keys": [{"kty": "new"}, 7, jwk]}).to_string());
        scene.clock.advance(Duration::from_secs(15 * 60));
        let token = scene.key.sign(&scene.claims());
        assert_eq!(scene.verify(&token).await.is_ok(), good, "{changes}");
    }
    // A token without a key id is one of an issuer with one key.
    scene.issuer.publish(&[&scene.key]);
    scene.clock.advance(Duration::from_secs(15 * 60));
    let now = scene.key.sign_as(&json!({"alg": "ES256"}), &scene.claims());
    scene.verify(&now).await.unwrap();
    scene.issuer.publish(&[&scene.key, &SigningKey::p256("two")]);
    scene.clock.advance(Duration::from_secs(15 * 60));
    let now = scene.key.sign_as(&json!({"alg": "ES256"}), &scene.claims());
    assert_eq!(scene.fault(&now).await, TokenFault::Key);
}
