//! Introspection by another service: yes for the live agent whose key and certificate key these are, and a bare no
//! for everything else.

use rcgen::PublicKeyData as _;
use ring::digest::{SHA256, digest};

use super::*;
use crate::support::broker::MEMBER;

fn spki_hash(key: &NewKey) -> Vec<u8> {
    digest(&SHA256, &key.0.subject_public_key_info())
        .as_ref()
        .to_vec()
}

async fn ask(
    caller: &Caller,
    org: &str,
    runtime_key: &str,
    certificate_key_sha256: Vec<u8>,
) -> Result<proto::IntrospectRuntimeKeyResponse, Status> {
    let request = proto::IntrospectRuntimeKeyRequest {
        org: org.to_owned(),
        runtime_key: Some(proto::Secret {
            value: runtime_key.to_owned(),
        }),
        certificate_key_sha256,
    };
    Ok(caller
        .agents()
        .introspect_runtime_key(request)
        .await?
        .into_inner())
}

// req: D5
#[tokio::test]
async fn a_live_agent_is_told_from_everything_else() {
    let site = Site::start("").await;
    let operator = &site.operator;
    operator.make_org("other").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let (enrolled, key) = site.agent(&task).await;
    let (neighbour, neighbour_key) = site.agent("").await;
    let runtime_key = &enrolled.runtime_key;

    let answer = ask(operator, ORG, runtime_key, spki_hash(&key)).await.unwrap();
    let shown = site.shown(&enrolled.agent).await;
    let expected = proto::IntrospectRuntimeKeyResponse {
        active: true,
        agent: enrolled.agent.clone(),
        org: shown.org,
        environment: shown.environment,
        labels: Default::default(),
        tasks: vec![task.clone()],
        certificate_expire_time: shown.certificate_expire_time,
    };
    assert_eq!(answer, expected);
    // It was no use of the key: the enrollment may still be repeated, and nobody was seen.
    assert_eq!(site.shown(&enrolled.agent).await.last_seen_time, None);

    let no = proto::IntrospectRuntimeKeyResponse::default();
    for (what, org, runtime_key, hash) in [
        (
            "another key's certificate",
            ORG,
            runtime_key.as_str(),
            spki_hash(&neighbour_key),
        ),
        (
            "another agent's key",
            ORG,
            &neighbour.runtime_key,
            spki_hash(&key),
        ),
        ("another org", "other", runtime_key, spki_hash(&key)),
        ("nonsense", ORG, "hello", spki_hash(&key)),
        (
            "an operator token",
            ORG,
            site.broker.operator_token(),
            spki_hash(&key),
        ),
        ("nothing", ORG, "", spki_hash(&key)),
    ] {
        let answer = ask(operator, org, runtime_key, hash).await.unwrap();
        assert_eq!(answer, no, "{what}");
    }
    let refused = ask(operator, ORG, runtime_key, vec![1; 31]).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");

    // Tasks that ended are not told, rotated keys go, and so does a revoked agent's.
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task,
    };
    operator.tasks().end_task(end).await.unwrap();
    let answer = ask(operator, ORG, runtime_key, spki_hash(&key)).await.unwrap();
    assert!(answer.active && answer.tasks.is_empty());
    let agent = site.broker.agent(&enrolled).await;
    let rotated = agent
        .enrollment()
        .rotate_runtime_key(proto::RotateRuntimeKeyRequest {})
        .await;
    let rotated = rotated.unwrap().into_inner().runtime_key.unwrap().value.clone();
    for key_text in [runtime_key, &rotated] {
        assert!(
            ask(operator, ORG, key_text, spki_hash(&key))
                .await
                .unwrap()
                .active
        );
    }
    let successor = enrolled.with_key(&rotated);
    who(&site.broker.agent(&successor).await).await.unwrap();
    assert_eq!(
        ask(operator, ORG, runtime_key, spki_hash(&key)).await.unwrap(),
        no
    );
    assert!(
        ask(operator, ORG, &rotated, spki_hash(&key))
            .await
            .unwrap()
            .active
    );
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(revoke).await.unwrap();
    assert_eq!(ask(operator, ORG, &rotated, spki_hash(&key)).await.unwrap(), no);
}

// req: D5 D3
#[tokio::test]
async fn agents_and_keys_for_other_things_do_not_introspect() {
    let site = Site::start("").await;
    let (enrolled, key) = site.agent("").await;
    let (_, api_key) = site.operator.make_api_key(ORG).await;
    for caller in [
        site.broker.caller(Some(&api_key)).await,
        site.broker.agent(&enrolled).await,
    ] {
        let refused = ask(&caller, ORG, &enrolled.runtime_key, spki_hash(&key))
            .await
            .unwrap_err();
        assert!(["PERMISSION_DENIED", "WRONG_CREDENTIAL_FAMILY"].contains(&&*reason(&refused)));
    }
}

// req: D5
#[tokio::test]
async fn the_trust_bundle_has_the_signing_keys_and_its_time() {
    let site = Site::start("").await;
    let caller = site.broker.caller(None).await;
    let bundle = caller
        .enrollment()
        .get_trust_bundle(proto::GetTrustBundleRequest {})
        .await;
    let bundle = bundle.unwrap().into_inner();
    let [key] = &bundle.signing_keys[..] else {
        panic!("{bundle:?}")
    };
    assert_eq!(key.public_key, bundle.journal_public_key);
    assert_eq!(
        (key.r#use(), &*key.algorithm),
        (proto::SigningKeyUse::Journal, "Ed25519")
    );
    let hex: String = digest(&SHA256, &key.public_key)
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(key.id, format!("sha256:{hex}"));
    let ahead = bundle.refresh_time.unwrap().seconds - support::broker::now().seconds();
    assert!((86_000..=86_400).contains(&ahead), "{ahead} s");
}
