//! Org API keys: groups, rotation, and client certificates.

use credbroker::cli::client::ClientIdentity;
use credbroker::proto;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::scene::{DAY, HOUR, Scene, refused, span};
use crate::support::broker::{MEMBER, ORG};
use crate::support::{Caller, NewKey};

/// An API key, and what it has to come with.
struct Key {
    id: String,
    token: String,
    shown: proto::ApiKey,
    chain_der: Vec<Vec<u8>>,
    key: NewKey,
}

impl Key {
    async fn make(scene: &Scene) -> Self {
        let key = NewKey::generate();
        let request = proto::CreateApiKeyRequest {
            org: ORG.to_owned(),
            csr_der: key.csr(),
            ..Default::default()
        };
        let made = scene
            .operator
            .access()
            .create_api_key(request)
            .await
            .unwrap()
            .into_inner();
        let shown = made.api_key.unwrap();
        Self {
            id: shown.id.clone(),
            token: made.token.unwrap().value.clone(),
            shown,
            chain_der: made.certificate_chain_der,
            key,
        }
    }

    fn identity(&self) -> ClientIdentity {
        ClientIdentity {
            chain_der: self.chain_der.iter().cloned().map(CertificateDer::from).collect(),
            key_pkcs8: Zeroizing::new(self.key.0.serialize_der()),
        }
    }
}

async fn call(scene: &Scene, identity: Option<ClientIdentity>, token: &str) -> Result<String, String> {
    let address = scene.broker.address.to_string();
    let caller = Caller::connect(&address, scene.broker.trust(), identity, Some(token)).await;
    caller.who().await.map(|who| who.actor)
}

fn error<T>(reason: &str) -> Result<T, String> {
    Err(reason.to_owned())
}

// req: D3 K2
#[tokio::test]
async fn a_key_over_mtls_comes_with_its_own_certificate_or_not_at_all() {
    let scene = Scene::start().await;
    let (one, other) = (Key::make(&scene).await, Key::make(&scene).await);
    assert!(one.shown.certificate_required);
    assert_eq!(one.chain_der.len(), 2);
    assert_eq!(
        call(&scene, Some(one.identity()), &one.token).await,
        Ok(one.id.clone())
    );

    let required = error("CLIENT_CERTIFICATE_REQUIRED");
    let mismatch = error::<String>("CERTIFICATE_MISMATCH");
    assert_eq!(call(&scene, None, &one.token).await, required);
    assert_eq!(call(&scene, Some(other.identity()), &one.token).await, mismatch);
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let agent = scene.broker.enroll(&scene.operator, &task).await;
    assert_eq!(call(&scene, Some(agent.identity()), &one.token).await, mismatch);
    // The reverse: an API key's certificate is no agent's.
    assert_eq!(
        call(&scene, Some(one.identity()), &agent.runtime_key).await,
        mismatch
    );
    assert_eq!(
        call(&scene, Some(agent.identity()), &agent.runtime_key).await,
        Ok(agent.agent.clone())
    );
    // A key that needs none is good on any connection.
    let (plain, token) = scene.operator.make_api_key(ORG).await;
    assert_eq!(
        call(&scene, Some(one.identity()), &token).await,
        Ok(plain.clone())
    );
    assert_eq!(call(&scene, None, &token).await, Ok(plain));

    // The certificate ends with the key, and the connection does not outlive either.
    let address = scene.broker.address.to_string();
    let identity = Some(one.identity());
    let open = Caller::connect(&address, scene.broker.trust(), identity, Some(&one.token)).await;
    assert!(open.who().await.is_ok());
    scene.clock.advance(90 * DAY);
    assert!(open.who().await.is_err());
}

// req: D3 K6
#[tokio::test]
async fn a_rotated_key_and_its_certificate_go_together() {
    let scene = Scene::start().await;
    let one = Key::make(&scene).await;
    let rotate = |csr_der: Vec<u8>, overlap| proto::RotateApiKeyRequest {
        org: ORG.to_owned(),
        api_key: one.id.clone(),
        overlap: span(overlap),
        csr_der,
        ..Default::default()
    };
    let without = scene
        .operator
        .access()
        .rotate_api_key(rotate(Vec::new(), HOUR))
        .await;
    assert_eq!(refused(without), "INVALID_ARGUMENT");
    let key = NewKey::generate();
    let made = scene
        .operator
        .access()
        .rotate_api_key(rotate(key.csr(), HOUR))
        .await
        .unwrap()
        .into_inner();
    let shown = made.api_key.unwrap();
    assert_eq!(shown.expire_time, one.shown.expire_time);
    let two = Key {
        id: shown.id.clone(),
        token: made.token.unwrap().value.clone(),
        shown,
        chain_der: made.certificate_chain_der,
        key,
    };
    // Each token with its own certificate, for the overlap.
    let mismatch = error::<String>("CERTIFICATE_MISMATCH");
    assert_eq!(
        call(&scene, Some(one.identity()), &one.token).await,
        Ok(one.id.clone())
    );
    assert_eq!(
        call(&scene, Some(two.identity()), &two.token).await,
        Ok(one.id.clone())
    );
    assert_eq!(call(&scene, Some(two.identity()), &one.token).await, mismatch);
    assert_eq!(call(&scene, Some(one.identity()), &two.token).await, mismatch);
    scene.clock.advance(HOUR + HOUR);
    assert_eq!(
        call(&scene, Some(one.identity()), &one.token).await,
        error("CREDENTIAL_UNKNOWN")
    );
    assert_eq!(
        call(&scene, Some(two.identity()), &two.token).await,
        Ok(one.id.clone())
    );

    // A revoked one is neither used nor rotated: refused on the connection it has, and let into no new one.
    let address = scene.broker.address.to_string();
    let (trust, token) = (scene.broker.trust(), Some(two.token.as_str()));
    let open = Caller::connect(&address, trust, Some(two.identity()), token).await;
    assert!(open.who().await.is_ok());
    let revoke = proto::RevokeApiKeyRequest {
        org: ORG.to_owned(),
        api_key: one.id.clone(),
    };
    scene.operator.access().revoke_api_key(revoke).await.unwrap();
    assert_eq!(open.who().await.err(), Some("CREDENTIAL_UNKNOWN".to_owned()));
    let trust = scene.broker.trust();
    if let Ok(again) = Caller::try_connect(&address, trust, Some(two.identity()), token).await {
        let answer = again.access().who_am_i(proto::WhoAmIRequest {}).await;
        let refused = answer.unwrap_err();
        assert!(std::error::Error::source(&refused).is_some(), "{refused:?}");
    }
    let csr = NewKey::generate().csr();
    let again = scene.operator.access().rotate_api_key(rotate(csr, HOUR)).await;
    assert_eq!(refused(again), "TOKEN_REVOKED");
}

// req: D3
#[tokio::test]
async fn a_plain_key_can_be_made_to_need_a_certificate() {
    let scene = Scene::start().await;
    let (id, token) = scene.operator.make_api_key(ORG).await;
    let key = NewKey::generate();
    let request = proto::RotateApiKeyRequest {
        org: ORG.to_owned(),
        api_key: id.clone(),
        csr_der: key.csr(),
        ..Default::default()
    };
    let made = scene
        .operator
        .access()
        .rotate_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let new = made.token.unwrap().value.clone();
    assert_eq!(call(&scene, None, &token).await, Ok(id.clone()));
    assert_eq!(
        call(&scene, None, &new).await,
        error("CLIENT_CERTIFICATE_REQUIRED")
    );
    let identity = ClientIdentity {
        chain_der: made
            .certificate_chain_der
            .into_iter()
            .map(CertificateDer::from)
            .collect(),
        key_pkcs8: Zeroizing::new(key.0.serialize_der()),
    };
    assert_eq!(call(&scene, Some(identity), &new).await, Ok(id));
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        csr_der: b"no request".to_vec(),
        ..Default::default()
    };
    let made = scene.operator.access().create_api_key(request).await;
    assert_eq!(refused(made), "CSR_INVALID");
}

// req: D3
#[tokio::test]
async fn a_key_is_good_for_its_groups_and_never_as_an_agent() {
    let scene = Scene::start().await;
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: vec![proto::ApiKeyGroup::Directory as i32],
        ..Default::default()
    };
    let made = scene
        .operator
        .access()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let key = scene.broker.caller(Some(&made.token.unwrap().value)).await;
    assert_eq!(
        key.who().await.unwrap().groups,
        [proto::ApiKeyGroup::Directory as i32]
    );
    assert_eq!(key.list_members("").await.unwrap(), [MEMBER]);
    let tasks = key.tasks().list_tasks(proto::ListTasksRequest::default()).await;
    assert_eq!(refused(tasks), "PERMISSION_DENIED");
    assert_eq!(refused(key.resolve("").await), "PERMISSION_DENIED");
    // What is for agents, or for people, takes no key of any group.
    let all = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: (1..=12).collect(),
        ..Default::default()
    };
    let made = scene
        .operator
        .access()
        .create_api_key(all)
        .await
        .unwrap()
        .into_inner();
    let all = scene.broker.caller(Some(&made.token.unwrap().value)).await;
    let rotate = proto::RotateRuntimeKeyRequest {};
    let rotated = all.enrollment().rotate_runtime_key(rotate).await;
    assert_eq!(refused(rotated), "WRONG_CREDENTIAL_FAMILY");
    assert_eq!(
        refused(all.mint(super::scene::token_of("", MEMBER)).await),
        "WRONG_CREDENTIAL_FAMILY"
    );
    let more = proto::CreateApiKeyRequest::default();
    assert_eq!(
        refused(all.access().create_api_key(more).await),
        "WRONG_CREDENTIAL_FAMILY"
    );
    for groups in [vec![0], vec![13], vec![-1]] {
        let request = proto::CreateApiKeyRequest {
            org: ORG.to_owned(),
            groups,
            ..Default::default()
        };
        let made = scene.operator.access().create_api_key(request).await;
        assert_eq!(refused(made), "INVALID_ARGUMENT");
    }
}
