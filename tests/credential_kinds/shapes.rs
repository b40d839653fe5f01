//! What is refused before it is stored: kinds that the provider does not take, and likely mix-ups.

use support::client::metadata;
use support::state::State;
use support::{details, reason};

use super::*;

fn field(status: &Status) -> String {
    let details = details(status);
    details.bad_request().unwrap().field_violations[0].field.clone()
}

// req: B1 B9
#[tokio::test]
async fn a_provider_takes_its_kinds_only() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let before = State::of(&operator, ORG).await;
    let to = |provider: &str, key: Key| proto::SetCredentialRequest {
        provider: s(provider),
        // No kind is forced on a provider.
        force: true,
        ..request(key)
    };
    for (provider, key, at, supported) in [
        (
            "bedrock",
            api_key("ABSKabcdefghijklmnop"),
            "api_key",
            "aws, bedrock-bearer",
        ),
        (
            "openai",
            aws(LONG_TERM, SECRET, ""),
            "aws_keys",
            "oauth-grant, api-key",
        ),
        (
            "demo",
            bearer("ABSKabc"),
            "bedrock_bearer",
            "oauth-grant, api-key",
        ),
    ] {
        let refused = set(&operator, to(provider, key)).await.unwrap_err();
        assert_eq!(reason(&refused), "CREDENTIAL_KIND_UNSUPPORTED", "{provider}");
        assert_eq!(
            (field(&refused), metadata(&refused, "supported")),
            (s(at), s(supported))
        );
        assert!(refused.message().contains(supported), "{}", refused.message());
    }
    assert_eq!(State::of(&operator, ORG).await, before);
}

// req: B9
#[tokio::test]
async fn a_likely_mix_up_is_refused_unless_forced() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let before = State::of(&operator, ORG).await;
    let to = |provider: &str, key: Key| proto::SetCredentialRequest {
        provider: s(provider),
        ..request(key)
    };
    let id = "aws_keys.access_key_id";
    let session = "aws_keys.session_token";
    let hidden = ["wJalrXUt", "sk-ant-api03", "the-token"];
    // What it is, where the fault is told to be, what the message has to say.
    let forced = [
        (
            to("anthropic", api_key(LONG_TERM)),
            "api_key",
            "AWS access key id",
        ),
        (to("demo", api_key(TEMPORARY)), "api_key", "AWS access key id"),
        (to("anthropic", api_key("ABSKabcdef")), "api_key", "bedrock"),
        (
            request(aws(LONG_TERM, SECRET, "the-token")),
            session,
            "no session token",
        ),
        (request(aws(SECRET, SECRET, "")), id, "AWS access key id"),
        (
            request(aws("sk-ant-api03-abc", SECRET, "")),
            id,
            "AWS access key id",
        ),
        (
            request(aws(LONG_TERM, LONG_TERM, "")),
            "aws_keys.secret_access_key",
            "pair",
        ),
        (
            request(bearer(LONG_TERM)),
            "bedrock_bearer.token",
            "AWS access key id",
        ),
        (
            request(bearer("sk-ant-api03-abc")),
            "bedrock_bearer.token",
            "anthropic",
        ),
    ];
    let never = [
        (request(aws(TEMPORARY, SECRET, "")), session, "session token"),
        (
            request(aws(LONG_TERM, "", "")),
            "aws_keys.secret_access_key",
            "empty",
        ),
        (request(aws("", SECRET, "")), id, "empty"),
        (
            request(aws("odd", "a b", "")),
            "aws_keys.secret_access_key",
            "whitespace",
        ),
        (request(aws(TEMPORARY, SECRET, "a b")), session, "whitespace"),
        (request(bearer("")), "bedrock_bearer.token", "empty"),
    ];
    let told = |status: &Status, at: &str, says: &str| {
        assert_eq!((reason(status), field(status)), (s("KEY_SHAPE_MISMATCH"), s(at)));
        assert!(status.message().contains(says), "{}", status.message());
        let all = format!("{status:?}");
        assert!(hidden.iter().all(|text| !all.contains(text)), "{all}");
    };
    for (request, at, says) in forced.iter().chain(&never) {
        told(&set(&operator, request.clone()).await.unwrap_err(), at, says);
    }
    for (request, at, says) in never {
        let request = proto::SetCredentialRequest {
            force: true,
            ..request
        };
        told(&set(&operator, request).await.unwrap_err(), at, says);
    }
    assert_eq!(State::of(&operator, ORG).await, before);
    for (request, _, _) in forced {
        let request = proto::SetCredentialRequest {
            force: true,
            ..request
        };
        set(&operator, request).await.unwrap();
    }
}

// req: B1
#[tokio::test]
async fn a_region_is_required_by_its_form() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    for region in [
        "",
        "us",
        "US-EAST-1",
        "us-east",
        "us-east-1a",
        "us-east-1.example.org",
        "us-east-1\n",
    ] {
        for (mut key, at) in [
            (aws(LONG_TERM, SECRET, ""), "aws_keys.region"),
            (bearer("ABSKabcdef"), "bedrock_bearer.region"),
        ] {
            match &mut key {
                Key::AwsKeys(keys) => keys.region = s(region),
                Key::BedrockBearer(bearer) => bearer.region = s(region),
                Key::ApiKey(_) => {}
            }
            let request = proto::SetCredentialRequest {
                force: true,
                ..request(key)
            };
            let refused = set(&operator, request).await.unwrap_err();
            assert_eq!(
                (reason(&refused), field(&refused)),
                (s("INVALID_ARGUMENT"), s(at)),
                "{region:?}"
            );
        }
    }
}
