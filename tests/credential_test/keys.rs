//! API keys and bearer keys: what is sent for each provider, and what its answers mean.

use super::fake::reply;
use super::*;

const ANTHROPIC: &str = "sk-ant-api03-the-key-of-anthropic";
const OPENAI: &str = "sk-proj-the-key-of-openai";
const GOOGLE: &str = "AIzaSyThe-key-of-google-000000000000000";
const BEARER: &str = "ABSKthe-bearer-key-of-bedrock";

fn bearer() -> Key {
    Key::BedrockBearer(proto::BedrockBearer {
        token: Some(proto::Secret {
            value: BEARER.to_owned(),
        }),
        region: "eu-central-1".to_owned(),
    })
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_asked_in_its_own_way_and_nothing_else_is_sent() {
    let scene = Scene::new().await;
    let bearer = scene.store("", "bedrock", bearer()).await;
    for (id, line, header, value) in [
        (
            scene.key("anthropic", ANTHROPIC).await,
            "GET /v1/models?limit=1 HTTP/1.1",
            "x-api-key",
            ANTHROPIC.to_owned(),
        ),
        (
            scene.key("openai", OPENAI).await,
            "GET /v1/models HTTP/1.1",
            "authorization",
            format!("Bearer {OPENAI}"),
        ),
        (
            scene.key("google", GOOGLE).await,
            "GET /v1beta/models?pageSize=1 HTTP/1.1",
            "x-goog-api-key",
            GOOGLE.to_owned(),
        ),
        (
            bearer,
            "GET /eu-central-1/foundation-models HTTP/1.1",
            "authorization",
            format!("Bearer {BEARER}"),
        ),
    ] {
        let told = scene.test(&id).await;
        assert_eq!((told.outcome(), told.http_status), (Outcome::Works, 200));
        assert_eq!((told.message.as_str(), told.host.as_str()), ("", "127.0.0.1"));
        assert!(!told.refreshed && !told.remembered && told.check_time.is_some());
        let asked = scene.fake.last();
        assert_eq!(asked.line, line);
        assert_eq!(asked.header(header), Some(value.as_str()));
        let agent = asked.header("user-agent").unwrap();
        assert!(agent.starts_with("credbroker/"), "{agent}");
        let mut others: Vec<_> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
        others.retain(|name| *name != header && !["accept", "host", "user-agent"].contains(name));
        let version = asked.header("anthropic-version").map(|_| "anthropic-version");
        assert_eq!(others, version.into_iter().collect::<Vec<_>>());
    }
    assert_eq!(scene.fake.asked().len(), 4);
}

// req: C4 C5
#[tokio::test(flavor = "multi_thread")]
async fn answers_mean_what_each_provider_says_they_do() {
    let scene = Scene::new().await;
    let [anthropic, openai, google] = [
        scene.key("anthropic", ANTHROPIC).await,
        scene.key("openai", OPENAI).await,
        scene.key("google", GOOGLE).await,
    ];
    let bearer = scene.store("", "bedrock", bearer()).await;
    let said = |text: &str| format!(r#"{{"type":"error","error":{{"type":"x","message":"{text}"}}}}"#);
    let invalid =
        r#"{"error":{"code":400,"message":"API key not valid.","details":[{"reason":"API_KEY_INVALID"}]}}"#;
    let quota = r#"{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}"#;
    let refused = r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#;
    let hotel = "<html>welcome to the hotel</html>";
    for (id, status, body, outcome, message) in [
        (
            &anthropic,
            401,
            said("invalid x-api-key"),
            Outcome::Rejected,
            "invalid x-api-key",
        ),
        (
            &anthropic,
            401,
            said(&format!("no {ANTHROPIC} here")),
            Outcome::Rejected,
            "no [redacted] here",
        ),
        (
            &anthropic,
            402,
            said("add credits"),
            Outcome::Billing,
            "add credits",
        ),
        (
            &anthropic,
            403,
            said("not allowed"),
            Outcome::NotPermitted,
            "not allowed",
        ),
        (&anthropic, 429, said("slow down"), Outcome::Limited, "slow down"),
        (
            &anthropic,
            529,
            said("overloaded"),
            Outcome::Limited,
            "overloaded",
        ),
        (&anthropic, 500, said("oops"), Outcome::Unreachable, "oops"),
        (&anthropic, 503, String::new(), Outcome::Limited, "status 503"),
        (
            &anthropic,
            404,
            "garbage".to_owned(),
            Outcome::Unclear,
            "status 404",
        ),
        (
            &anthropic,
            200,
            hotel.to_owned(),
            Outcome::Unclear,
            "status 200, with something else",
        ),
        (
            &openai,
            401,
            said("Incorrect API key"),
            Outcome::Rejected,
            "Incorrect API key",
        ),
        (
            &openai,
            403,
            said("Country not supported"),
            Outcome::NotPermitted,
            "Country not supported",
        ),
        (&openai, 429, said("Rate limit"), Outcome::Limited, "Rate limit"),
        (
            &openai,
            429,
            quota.to_owned(),
            Outcome::Billing,
            "You exceeded your quota",
        ),
        (
            &google,
            400,
            invalid.to_owned(),
            Outcome::Rejected,
            "API key not valid.",
        ),
        (
            &google,
            400,
            said("bad page size"),
            Outcome::Unclear,
            "bad page size",
        ),
        (&google, 403, said("blocked"), Outcome::NotPermitted, "blocked"),
        (
            &bearer,
            403,
            refused.to_owned(),
            Outcome::Rejected,
            "Authentication failed",
        ),
        (
            &bearer,
            403,
            r#"{"Message":"not authorized"}"#.to_owned(),
            Outcome::NotPermitted,
            "not authorized",
        ),
    ] {
        scene.fake.answers(reply(status, &body));
        let told = scene.test(id).await;
        assert_eq!(told.outcome(), outcome, "{status} {body}");
        assert_eq!(told.http_status, i32::from(status));
        assert!(
            told.message.starts_with(message),
            "{status} {body}: {}",
            told.message
        );
        assert_eq!(told.retry_after, None);
        let kept = scene.last_check(id).await.unwrap();
        assert_eq!(
            (i32::from(kept.status), &kept.message),
            (told.http_status, &told.message)
        );
    }
    let forbidden = r#"{"message":"no"}"#;
    let by_header = reply(403, forbidden).with("x-amzn-errortype: UnrecognizedClientException:http://x/");
    scene.fake.answers(by_header);
    assert_eq!(scene.test(&bearer).await.outcome(), Outcome::Rejected);
}

// req: C4 C6
#[tokio::test(flavor = "multi_thread")]
async fn limits_and_pauses_are_told_where_the_provider_tells_them() {
    let scene = Scene::new().await;
    let id = scene.key("anthropic", ANTHROPIC).await;
    let limited = reply(429, r#"{"error":{"message":"slow down"}}"#)
        .with("retry-after: 17")
        .with("anthropic-ratelimit-requests-remaining: 0")
        .with("anthropic-ratelimit-unified-5h-utilization: 0.42")
        .with(&format!("anthropic-ratelimit-echo: {ANTHROPIC}"))
        .with("x-other: 1");
    scene.fake.answers(limited);
    let told = scene.test(&id).await;
    assert_eq!(told.retry_after.unwrap().seconds, 17);
    let facts: Vec<_> = told
        .facts
        .iter()
        .map(|fact| (fact.label.as_str(), fact.value.as_str()))
        .collect();
    assert_eq!(
        facts,
        [("requests-remaining", "0"), ("unified-5h-utilization", "0.42")]
    );
    assert_eq!(scene.last_check(&id).await.unwrap().facts.len(), 2);

    // Until then it is not asked again, and those who ask get what was found and how long there is to wait.
    let again = scene.test(&id).await;
    assert_eq!((again.outcome(), again.remembered), (Outcome::Limited, true));
    let left = again.retry_after.unwrap().seconds;
    assert!((0..=11).contains(&left), "{left}");
    assert_eq!(scene.fake.asked().len(), 1);
    scene.clock.advance(Duration::from_secs(11));

    // However much a provider tells, what is kept stays within bounds.
    let long = "v".repeat(300);
    let many = (0..60).fold(reply(200, "{}"), |reply, at| {
        reply.with(&format!("anthropic-ratelimit-{at}: {long}"))
    });
    scene.fake.answers(many);
    let told = scene.test(&id).await;
    assert_eq!(told.outcome(), Outcome::Works);
    let size: usize = told
        .facts
        .iter()
        .map(|fact| fact.label.len() + fact.value.len())
        .sum();
    assert!((1_500..2_100).contains(&size), "{size}");
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_wants_an_hour_is_asked_again_after_ten_minutes() {
    let scene = Scene::new().await;
    let id = scene.key("openai", OPENAI).await;
    scene.fake.answers(reply(429, "{}").with("retry-after: 3600"));
    assert!(!scene.test(&id).await.remembered);
    scene.clock.advance(Duration::from_secs(500));
    assert!(scene.test(&id).await.remembered);
    scene.clock.advance(Duration::from_secs(100));
    assert!(!scene.test(&id).await.remembered);
    // Another key in its place is another matter.
    scene.key("openai", "sk-proj-another-key-altogether").await;
    assert!(!scene.test(&id).await.remembered);
    assert_eq!(scene.fake.asked().len(), 3);
}

/// What a key is told to have against it.
async fn held_against(scene: &Scene, id: &str) -> String {
    scene.operator.health_of(ORG, id).await.last_error
}

// req: C4 C5 C6
#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_tells_neither_takes_nothing_back() {
    let scene = Scene::new().await;
    let id = scene.key("anthropic", ANTHROPIC).await;
    let consumption = async || {
        let request = proto::GetCredentialStatusRequest {
            org: ORG.to_owned(),
            credential: id.clone(),
        };
        let told = scene.operator.credentials().get_credential_status(request).await;
        let told = told.unwrap().into_inner().status.unwrap();
        (told.consumption, told.consumption_time)
    };
    let limits = reply(200, "{}").with("anthropic-ratelimit-requests-remaining: 7");
    scene.fake.answers(limits.clone());
    assert_eq!(scene.test(&id).await.outcome(), Outcome::Works);
    let told = consumption().await;
    assert_eq!((told.0.len(), told.1.is_some()), (1, true));
    // They are still those of then.
    for status in [500, 500, 403] {
        scene.fake.answers(reply(status, "{}"));
        assert!(scene.test(&id).await.facts.is_empty());
        assert_eq!(consumption().await, told);
    }
    assert_eq!(held_against(&scene, &id).await, "");

    scene
        .fake
        .answers(reply(401, r#"{"error":{"message":"revoked"}}"#));
    assert_eq!(scene.test(&id).await.outcome(), Outcome::Rejected);
    let rejected = "the provider rejected it when it was tested: revoked";
    assert_eq!(held_against(&scene, &id).await, rejected);
    assert!(consumption().await.0.is_empty());
    for status in [429, 500, 404] {
        scene.fake.answers(reply(status, "{}"));
        scene.test(&id).await;
        assert_eq!(held_against(&scene, &id).await, rejected, "{status}");
    }

    // And what was taken back stays so.
    for answer in [limits, reply(429, "{}")] {
        scene.fake.answers(answer);
        scene.test(&id).await;
        assert_eq!(held_against(&scene, &id).await, "");
    }
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_unreachable_and_a_redirect_leads_nowhere() {
    let mut scene = Scene::new().await;
    let id = scene.key("openai", OPENAI).await;
    let elsewhere = Fake::start().await;
    let redirect = reply(307, "").with(&format!("location: {}", elsewhere.url("/")));
    scene.fake.answers(redirect);
    assert_eq!(scene.test(&id).await.outcome(), Outcome::Unclear);
    assert!(elsewhere.asked().is_empty());

    let silent = fake::Reply {
        hang_up: true,
        ..reply(200, "{}")
    };
    scene.fake.answers(silent);
    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.http_status), (Outcome::Unreachable, 0));
    assert!(!told.message.is_empty());

    let slow = fake::Reply {
        after: Duration::from_secs(60),
        ..reply(200, "{}")
    };
    scene.fake.answers(slow);
    let told = tokio::time::timeout(Duration::from_secs(40), scene.test(&id)).await;
    assert_eq!(told.expect("it is given up").outcome(), Outcome::Unreachable);

    scene.fake.go_away().await;
    let told = scene.test(&id).await;
    assert_eq!((told.outcome(), told.http_status), (Outcome::Unreachable, 0));
    assert!(!told.message.contains(OPENAI));
    // A list as long as that is not read to its end, and shows that the key works.
    let scene = Scene::new().await;
    let id = scene.key("openai", OPENAI).await;
    let endless = format!(r#"{{"data":["{}"]}}"#, "m".repeat(4 << 20));
    scene.fake.answers(reply(200, &endless));
    assert_eq!(scene.test(&id).await.outcome(), Outcome::Works);
}
