//! Enrollment tokens and API keys: minted, listed, revoked, and shown once.

use std::collections::BTreeSet;

use credbroker::proto;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::{NewKey, TestBroker, reason};

fn s(text: &str) -> String {
    text.to_owned()
}

/// Whether the encoded message holds the text anywhere.
pub(crate) fn holds(message: &impl prost::Message, text: &str) -> bool {
    let bytes = message.encode_to_vec();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

// req: K7 D4
#[tokio::test]
async fn enrollment_tokens_are_minted_in_bulk_listed_and_revoked() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let request = proto::CreateEnrollmentTokensRequest {
        org: s(ORG),
        project: s(PROJECT),
        environment: s(ENVIRONMENT),
        count: 60,
        max_agents: 2,
        ttl: seconds(7_200),
        task: task.clone(),
        labels: [(s("team"), s("red"))].into(),
        ..Default::default()
    };
    let minted = operator
        .agents()
        .create_enrollment_tokens(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(minted.tokens.len(), 60);
    let secrets: BTreeSet<String> = minted
        .tokens
        .iter()
        .map(|minted| minted.token.as_ref().unwrap().value.clone())
        .collect();
    assert_eq!(secrets.len(), 60);
    assert!(secrets.iter().all(|token| token.starts_with("cbe_")));
    let one = minted.tokens[7].enrollment_token.clone().unwrap();
    assert_eq!((one.max_agents, one.bound_agents, &one.task), (2, 0, &task));
    assert_eq!(one.labels["team"], "red");
    let life = one.expire_time.unwrap().seconds - one.create_time.unwrap().seconds;
    assert_eq!(life, 7_200);

    let list = || proto::ListEnrollmentTokensRequest {
        org: s(ORG),
        page_size: 200,
        ..Default::default()
    };
    let listed = operator
        .agents()
        .list_enrollment_tokens(list())
        .await
        .unwrap()
        .into_inner();
    let mut shown: Vec<_> = minted
        .tokens
        .iter()
        .map(|minted| minted.enrollment_token.clone().unwrap())
        .collect();
    shown.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(listed.enrollment_tokens, shown);
    assert!(!secrets.iter().any(|secret| holds(&listed, secret)));
    let revoke = proto::RevokeEnrollmentTokenRequest {
        org: s(ORG),
        enrollment_token: one.id.clone(),
        ..Default::default()
    };
    operator.agents().revoke_enrollment_token(revoke).await.unwrap();
    let listed = operator
        .agents()
        .list_enrollment_tokens(list())
        .await
        .unwrap()
        .into_inner();
    let revoked: Vec<_> = listed
        .enrollment_tokens
        .iter()
        .filter(|token| token.revoke_time.is_some())
        .collect();
    assert_eq!(revoked.len(), 1);
    assert_eq!(revoked[0].id, one.id);
    // The others are as good as before.
    let other = &minted.tokens[8].token.as_ref().unwrap().value;
    broker.enroll_with(other, &NewKey::generate()).await.unwrap();
    let spoilt = &minted.tokens[7].token.as_ref().unwrap().value;
    let status = broker
        .enroll_with(spoilt, &NewKey::generate())
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&status), "ENROLLMENT_TOKEN_REVOKED");
    // Each is named in the journal, by its id.
    let records = operator.records().await;
    let named: usize = records
        .iter()
        .filter(|record| record.action == "enrollment_token.create" && record.phase == "finish")
        .map(|record| record.subject["enrollment_tokens"].split(',').count())
        .sum();
    assert_eq!(named, 60);
}

// req: K7 D1 D3
#[tokio::test]
async fn api_keys_are_minted_listed_and_revoked() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let request = proto::CreateApiKeyRequest {
        org: s(ORG),
        display_name: s("Deploy"),
        ttl: seconds(60),
        ..Default::default()
    };
    let made = operator
        .access()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let (key, token) = (made.api_key.unwrap(), made.token.unwrap().value.clone());
    assert!(token.starts_with("cbk_") && key.id.starts_with("key_"));
    assert_eq!(
        key.expire_time.unwrap().seconds - key.create_time.unwrap().seconds,
        60
    );
    let list = || proto::ListApiKeysRequest {
        org: s(ORG),
        ..Default::default()
    };
    let listed = operator
        .access()
        .list_api_keys(list())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.api_keys, std::slice::from_ref(&key));
    assert!(!holds(&listed, &token));
    let who = broker
        .caller(Some(&token))
        .await
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await;
    let who = who.unwrap().into_inner();
    assert_eq!(
        (&who.actor, &*who.family, &who.org),
        (&key.id, "api-key", &key.org)
    );

    let revoke = proto::RevokeApiKeyRequest {
        org: s(ORG),
        api_key: key.id.clone(),
    };
    let revoked = operator
        .access()
        .revoke_api_key(revoke)
        .await
        .unwrap()
        .into_inner()
        .api_key
        .unwrap();
    assert!(revoked.revoke_time.is_some());
    let listed = operator
        .access()
        .list_api_keys(list())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.api_keys, [revoked]);
    let absent = proto::RevokeApiKeyRequest {
        org: s(ORG),
        api_key: format!("key_{}", "0".repeat(32)),
    };
    assert_eq!(
        reason(&operator.access().revoke_api_key(absent).await.unwrap_err()),
        "NOT_FOUND"
    );
}
