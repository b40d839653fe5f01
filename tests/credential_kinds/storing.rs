//! Storing and handing out: what goes in comes out for the task, and nowhere else.

use prost::Message;

use super::*;

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

// req: B1
#[tokio::test]
async fn aws_keys_are_handed_out_whole_and_shown_without_their_secret() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (agent, task) = agent(&broker, &operator).await;
    let stored = set(&operator, request(aws(LONG_TERM, SECRET, ""))).await.unwrap();
    assert_eq!(stored.kind(), proto::CredentialKind::Aws);
    assert_eq!(
        (&*stored.region, &*stored.hint, stored.generation),
        (REGION, "MNOP", 1)
    );
    assert_eq!(stored.executor, "");
    assert!(stored.expire_time.is_none());

    let lease = agent.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(lease.mode(), proto::AuthMode::Byok);
    assert_eq!((&*lease.provider, &lease.credential), ("bedrock", &stored.id));
    let Material::AwsKeys(keys) = material(&lease) else {
        panic!("{:?}", lease.material)
    };
    assert_eq!((&*keys.access_key_id, &*keys.region), (LONG_TERM, REGION));
    assert_eq!(keys.secret_access_key.as_ref().unwrap().value, SECRET);
    assert!(keys.session_token.is_none());
    assert!(!format!("{lease:?}").contains(SECRET));

    let shown = operator.health_of(ORG, &stored.id).await;
    assert_eq!(shown, stored);
    assert!(!holds(&shown.encode_to_vec(), SECRET));

    // Replaced in place: the next generation of the same credential, which the standing lease hands out.
    let next = "bPxRfiCYEXAMPLEKEYwJalrXUtnFEMI/K7MDENG/";
    let replaced = set(&operator, request(aws(TEMPORARY, next, "the-session-token")))
        .await
        .unwrap();
    assert_eq!((&replaced.id, replaced.generation), (&stored.id, 2));
    let again = agent.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!((&again.id, again.generation), (&lease.id, 2));
    let Material::AwsKeys(keys) = material(&again) else {
        panic!("{:?}", again.material)
    };
    assert_eq!(keys.access_key_id, TEMPORARY);
    assert_eq!(keys.secret_access_key.as_ref().unwrap().value, next);
    assert_eq!(keys.session_token.as_ref().unwrap().value, "the-session-token");

    // A rejected key is not refreshed: somebody has to store another.
    let rejected = agent.reject(&again.id, 2).await.unwrap_err();
    assert_eq!(support::reason(&rejected), "REAUTH_REQUIRED");
    let stale = agent.reject(&again.id, 1).await.unwrap();
    assert_eq!(stale.lease.unwrap().generation, 2);
}

// req: B1 B3
#[tokio::test]
async fn a_bearer_key_stands_beside_aws_keys_and_each_outlives_a_restart() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (before, task) = agent(&broker, &operator).await;
    let nothing = before.resolve(&task).await.unwrap_err();
    assert_eq!(support::reason(&nothing), "NO_CREDENTIAL_CONFIGURED");
    assert!(nothing.message().contains("claude-code") && nothing.message().contains("bedrock"));

    let token = "ABSKexample-of-a-bearer-key-0123456789";
    let of_bearer = set(&operator, request(bearer(token))).await.unwrap();
    assert_eq!(of_bearer.kind(), proto::CredentialKind::BedrockBearer);
    assert_eq!((&*of_bearer.region, &*of_bearer.hint), (REGION, "6789"));
    let lease = before.resolve(&task).await.unwrap().lease.unwrap();
    let Material::BedrockBearer(handed) = material(&lease) else {
        panic!("{:?}", lease.material)
    };
    assert_eq!(handed.token.as_ref().unwrap().value, token);
    assert_eq!(handed.region, REGION);

    // AWS keys are another credential: the one for which a new task goes first, as the registry has the kinds.
    let of_aws = set(&operator, request(aws(TEMPORARY, SECRET, "a-session-token")))
        .await
        .unwrap();
    assert_ne!(of_aws.id, of_bearer.id);
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    for stored in [&of_bearer, &of_aws] {
        assert_eq!(&operator.health_of(ORG, &stored.id).await, stored);
    }
    let (after, task) = agent(&broker, &operator).await;
    let answer = after.resolve(&task).await.unwrap();
    let kinds = answer
        .decision
        .unwrap()
        .permit
        .into_iter()
        .filter(|entry| entry.mode() == proto::AuthMode::Byok)
        .map(|entry| entry.kind());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [proto::CredentialKind::Aws, proto::CredentialKind::BedrockBearer]
    );
    let Material::AwsKeys(keys) = material(answer.lease.as_ref().unwrap()).clone() else {
        panic!("no AWS keys")
    };
    assert_eq!(keys.secret_access_key.as_ref().unwrap().value, SECRET);
    assert_eq!(keys.session_token.as_ref().unwrap().value, "a-session-token");

    // Each is removed by itself.
    let remove = proto::RemoveCredentialRequest {
        org: s(ORG),
        credential: of_aws.id,
    };
    operator.credentials().remove_credential(remove).await.unwrap();
    let lease = after.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(lease.credential, of_bearer.id);
}

// req: B1
#[tokio::test]
async fn a_request_of_an_older_client_still_decodes() {
    // Field 4 was an API key of its own before the kinds came; its bytes are the same.
    let mut bytes = Vec::new();
    prost::encoding::string::encode(1, &s(ORG), &mut bytes);
    prost::encoding::string::encode(3, &s("demo"), &mut bytes);
    prost::encoding::message::encode(4, &proto::Secret { value: s("a-key") }, &mut bytes);
    prost::encoding::bool::encode(5, &true, &mut bytes);
    let read = proto::SetCredentialRequest::decode(bytes.as_slice()).unwrap();
    assert_eq!(read.key, Some(api_key("a-key")));
    assert!(read.force && read.executor.is_empty() && read.expire_time.is_none());
}
