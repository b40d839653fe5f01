//! AWS keys: the signature is checked by AWS's own library, and the answer tells whose they are.

use serde_json::json;

use super::fake::reply;
use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "IQoJb3JpZ2luX2VjEXAMPLE+/token==";
const IDENTITY: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
    <GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/role/session-0123456789abcdef</Arn>\
    <UserId>AROAEXAMPLE:session</UserId><Account>123456789012</Account></GetCallerIdentityResult>\
    </GetCallerIdentityResponse>";

fn keys(id: &str, session: Option<&str>, region: &str) -> Key {
    let secret = |text: &str| {
        Some(proto::Secret {
            value: text.to_owned(),
        })
    };
    Key::AwsKeys(proto::AwsKeys {
        access_key_id: id.to_owned(),
        secret_access_key: secret(SECRET),
        session_token: session.and_then(secret),
        region: region.to_owned(),
    })
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn the_signature_is_the_one_that_awss_own_library_makes() {
    let scene = Scene::new().await;
    scene.fake.answers(reply(200, IDENTITY));
    for (access_key_id, session, region) in [
        ("AKIAABCDEFGHIJKLMNOP", None, "us-east-1"),
        ("ASIAABCDEFGHIJKLMNOP", Some(SESSION), "eu-west-3"),
    ] {
        let id = scene
            .store("", "bedrock", keys(access_key_id, session, region))
            .await;
        let told = scene.test(&id).await;
        assert_eq!(told.outcome(), Outcome::Works, "{}", told.message);
        let facts: Vec<_> = told.facts.iter().map(|fact| fact.value.as_str()).collect();
        let arn = "arn:aws:sts::123456789012:assumed-role/role/session-0123456789abcdef";
        assert_eq!(facts, ["123456789012", arn]);

        let asked = scene.fake.last();
        let path = "/?Action=GetCallerIdentity&Version=2011-06-15";
        assert_eq!(asked.line, format!("GET {path} HTTP/1.1"));
        assert_eq!(asked.header("x-amz-security-token"), session);
        let input = json!({
            "url": scene.fake.url(path),
            "access_key_id": access_key_id,
            "secret_access_key": SECRET,
            "session_token": session,
            "region": region,
            "service": "sts",
            "date": asked.header("x-amz-date").unwrap(),
        });
        let expected = python::run("sigv4.py", &input).await;
        assert_eq!(asked.header("authorization"), expected["authorization"].as_str());
        assert!(asked.headers.iter().all(|(_, value)| !value.contains(SECRET)));
    }
}

// req: C4 C5
#[tokio::test(flavor = "multi_thread")]
async fn what_sts_refuses_is_told_apart() {
    let scene = Scene::new().await;
    let id = scene
        .store("", "bedrock", keys("AKIAABCDEFGHIJKLMNOP", None, "us-east-1"))
        .await;
    let refusal = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>it is refused</Message>\
             </Error></ErrorResponse>"
        )
    };
    for (status, code, outcome) in [
        (403, "ExpiredToken", Outcome::Rejected),
        (403, "InvalidClientTokenId", Outcome::Rejected),
        (403, "SignatureDoesNotMatch", Outcome::Rejected),
        (400, "ExpiredToken", Outcome::Rejected),
        (403, "AccessDenied", Outcome::NotPermitted),
        (403, "RegionDisabledException", Outcome::NotPermitted),
        (400, "Throttling", Outcome::Limited),
        (400, "IncompleteSignature", Outcome::Unclear),
        (503, "ServiceUnavailable", Outcome::Limited),
    ] {
        scene.fake.answers(reply(status, &refusal(code)));
        let told = scene.test(&id).await;
        assert_eq!(told.outcome(), outcome, "{status} {code}");
        assert_eq!(told.message, "it is refused");
        assert!(told.facts.is_empty());
    }
    // An answer without an identity shows nothing.
    scene.fake.answers(reply(200, "<Something/>"));
    assert_eq!(scene.test(&id).await.outcome(), Outcome::Unclear);
}
