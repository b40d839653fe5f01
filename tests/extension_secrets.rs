//! Secrets of extensions: read by those a namespace was granted to, and by nobody else; and nothing else by them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use credbroker::proto::{self, grant_secret_access_request as grant, revoke_secret_access_request as revoke};
use futures_util::future::join_all;
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use support::{Caller, Enrolled, TestBroker, reason};
use tonic::Status;

struct Scene {
    broker: TestBroker,
    operator: Caller,
    enrolled: Enrolled,
    agent: Caller,
}

impl Scene {
    async fn start() -> Self {
        let broker = TestBroker::start().await;
        let operator = broker.prepare().await;
        let task = operator.make_task(ORG, MEMBER).await;
        let enrolled = broker.enroll(&operator, &task).await;
        let agent = broker.agent(&enrolled).await;
        Self {
            broker,
            operator,
            enrolled,
            agent,
        }
    }
}

impl Caller {
    async fn keep(&self, namespace: &str, name: &str, value: &str) -> Result<proto::ExtensionSecret, Status> {
        let request = proto::SetSecretRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            value: Some(proto::Secret {
                value: value.to_owned(),
            }),
        };
        let answer = self.secrets().set_secret(request).await?;
        Ok(answer.into_inner().secret.unwrap())
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<(String, u64), Status> {
        let request = proto::ReadSecretRequest {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let answer = self.secrets().read_secret(request).await?.into_inner();
        assert!(answer.journal_position > 0);
        Ok((answer.value.unwrap().value.clone(), answer.version))
    }

    async fn remove(&self, namespace: &str, name: &str) -> Result<(), Status> {
        let request = proto::RemoveSecretRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.secrets().remove_secret(request).await.map(|_| ())
    }

    async fn let_agent(&self, namespace: &str, agent: &str) -> Result<proto::SecretGrant, Status> {
        let request = proto::GrantSecretAccessRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            grantee: Some(grant::Grantee::Agent(agent.to_owned())),
            ..Default::default()
        };
        let answer = self.secrets().grant_secret_access(request).await?;
        Ok(answer.into_inner().grant.unwrap())
    }

    async fn let_environment(&self, namespace: &str) {
        let request = proto::GrantSecretAccessRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            grantee: Some(grant::Grantee::Environment(ENVIRONMENT.to_owned())),
            project: PROJECT.to_owned(),
        };
        self.secrets().grant_secret_access(request).await.unwrap();
    }

    async fn stop_agent(&self, namespace: &str, agent: &str) {
        let request = proto::RevokeSecretAccessRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            grantee: Some(revoke::Grantee::Agent(agent.to_owned())),
            ..Default::default()
        };
        self.secrets().revoke_secret_access(request).await.unwrap();
    }

    async fn names(&self, namespace: &str) -> Vec<String> {
        let request = proto::ListSecretsRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            page_size: 200,
            ..Default::default()
        };
        let page = self.secrets().list_secrets(request).await.unwrap().into_inner();
        let path = |secret: &proto::ExtensionSecret| format!("{}/{}", secret.namespace, secret.name);
        page.secrets.iter().map(path).collect()
    }

    async fn grants(&self, namespace: &str) -> usize {
        let request = proto::ListSecretGrantsRequest {
            org: ORG.to_owned(),
            namespace: namespace.to_owned(),
            ..Default::default()
        };
        let page = self.secrets().list_secret_grants(request).await.unwrap();
        page.into_inner().grants.len()
    }
}

#[track_caller]
fn refused<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => panic!("not refused"),
        Err(status) => reason(&status),
    }
}

// req: C2 D4
#[tokio::test]
async fn a_grant_lets_an_agent_read_a_namespace_and_nothing_beside_it() {
    let scene = Scene::start().await;
    let Scene { operator, agent, .. } = &scene;
    for namespace in ["a", "ab", "a-b"] {
        operator.keep(namespace, "KEY", namespace).await.unwrap();
    }
    assert_eq!(refused(agent.read("a", "KEY").await), "NOT_FOUND");
    operator.let_agent("a", &scene.enrolled.agent).await.unwrap();
    assert_eq!(agent.read("a", "KEY").await.unwrap(), ("a".to_owned(), 1));
    for namespace in ["ab", "a-b"] {
        assert_eq!(refused(agent.read(namespace, "KEY").await), "NOT_FOUND");
    }
    assert_eq!(operator.names("a").await, ["a/KEY"]);
    assert_eq!(operator.names("").await.len(), 3);
    // A value that is set anew is read anew.
    operator.keep("a", "KEY", "second").await.unwrap();
    assert_eq!(agent.read("a", "KEY").await.unwrap(), ("second".to_owned(), 2));
    // Another agent of the environment, by a grant to all of them.
    let other = scene.broker.enroll(operator, "").await;
    let other = scene.broker.agent(&other).await;
    assert_eq!(refused(other.read("ab", "KEY").await), "NOT_FOUND");
    operator.let_environment("ab").await;
    assert_eq!(other.read("ab", "KEY").await.unwrap().0, "ab");
    assert_eq!(refused(other.read("a", "KEY").await), "NOT_FOUND");
}

// req: C2
#[tokio::test]
async fn no_name_leads_out_of_a_namespace() {
    let scene = Scene::start().await;
    scene.operator.keep("a", "KEY", "one").await.unwrap();
    scene.operator.keep("b", "KEY", "two").await.unwrap();
    scene
        .operator
        .let_agent("a", &scene.enrolled.agent)
        .await
        .unwrap();
    let credential = scene.operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let grants = [
        "../b",
        "a/../b",
        "b\0",
        "a\0b",
        "*",
        "",
        "A",
        "credential-secret",
        "a.b",
        "%62",
    ];
    for namespace in grants {
        let told = refused(scene.agent.read(namespace, "KEY").await);
        assert!(
            ["INVALID_ARGUMENT", "NOT_FOUND"].contains(&told.as_str()),
            "{namespace:?}: {told}"
        );
        let told = scene.operator.let_agent(namespace, &scene.enrolled.agent).await;
        if namespace != "credential-secret" {
            assert_eq!(refused(told), "INVALID_ARGUMENT", "{namespace:?}");
        }
    }
    let names = [
        "../b/KEY",
        "\0b\0KEY",
        "KEY\0",
        "/KEY",
        "b/KEY",
        "..",
        "*",
        "",
        &credential.id,
    ];
    for name in names {
        let told = refused(scene.agent.read("a", name).await);
        assert!(
            ["INVALID_ARGUMENT", "NOT_FOUND"].contains(&told.as_str()),
            "{name:?}: {told}"
        );
    }
    // A namespace may be called like a part of the store, and is still none.
    assert_eq!(
        refused(scene.agent.read("credential-secret", "KEY").await),
        "NOT_FOUND"
    );
}

// req: C2
#[tokio::test]
async fn not_granted_and_not_there_are_told_alike() {
    let scene = Scene::start().await;
    scene.operator.keep("a", "KEY", "one").await.unwrap();
    scene
        .operator
        .let_agent("empty", &scene.enrolled.agent)
        .await
        .unwrap();
    let told = |status: Status| {
        (
            status.code(),
            status.message().to_owned(),
            status.details().to_vec(),
        )
    };
    let ungranted = told(scene.agent.read("a", "KEY").await.unwrap_err());
    assert_eq!(ungranted, told(scene.agent.read("a", "NONE").await.unwrap_err()));
    assert_eq!(
        ungranted,
        told(scene.agent.read("none", "KEY").await.unwrap_err())
    );
    assert_eq!(
        ungranted,
        told(scene.agent.read("empty", "KEY").await.unwrap_err())
    );
}

// req: C2 D6 N4
#[tokio::test]
async fn what_is_taken_back_bites_at_once() {
    let scene = Scene::start().await;
    let Scene {
        operator,
        agent,
        enrolled,
        ..
    } = &scene;
    operator.keep("a", "KEY", "one").await.unwrap();
    operator.let_agent("a", &enrolled.agent).await.unwrap();
    agent.read("a", "KEY").await.unwrap();
    operator.stop_agent("a", &enrolled.agent).await;
    assert_eq!(refused(agent.read("a", "KEY").await), "NOT_FOUND");
    operator.let_agent("a", &enrolled.agent).await.unwrap();
    operator.remove("a", "KEY").await.unwrap();
    assert_eq!(refused(agent.read("a", "KEY").await), "NOT_FOUND");
    assert_eq!(refused(operator.remove("a", "KEY").await), "NOT_FOUND");
    // Nothing of it is left for the next of its name but the grant, which is listed.
    assert_eq!(operator.grants("a").await, 1);
    operator.keep("a", "KEY", "two").await.unwrap();
    assert_eq!(agent.read("a", "KEY").await.unwrap(), ("two".to_owned(), 1));
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: enrolled.agent.clone(),
        ..Default::default()
    };
    operator.agents().revoke_agent(revoke).await.unwrap();
    assert_eq!(refused(agent.read("a", "KEY").await), "CREDENTIAL_UNKNOWN");
    assert_eq!(
        refused(operator.let_agent("a", &enrolled.agent).await),
        "NOT_FOUND"
    );
}

// Readers and a revoker at the same time: no read that began after the revocation was answered succeeds.
// req: C2 N4
#[tokio::test]
async fn a_read_that_races_a_revocation_loses() {
    let scene = Scene::start().await;
    scene.operator.keep("a", "KEY", "one").await.unwrap();
    for _ in 0..5 {
        scene
            .operator
            .let_agent("a", &scene.enrolled.agent)
            .await
            .unwrap();
        let reading = async {
            let mut reads = 0;
            while scene.agent.read("a", "KEY").await.is_ok() {
                reads += 1;
            }
            reads
        };
        let revoking = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            scene.operator.stop_agent("a", &scene.enrolled.agent).await;
            refused(scene.agent.read("a", "KEY").await)
        };
        let (_, after) = tokio::join!(reading, revoking);
        assert_eq!(after, "NOT_FOUND");
    }
}

// req: C2 D3
#[tokio::test]
async fn admins_and_their_automation_keep_secrets_and_only_agents_read_them() {
    let scene = Scene::start().await;
    scene.operator.keep("a", "KEY", "one").await.unwrap();
    assert_eq!(
        refused(scene.operator.read("a", "KEY").await),
        "WRONG_CREDENTIAL_FAMILY"
    );
    let (_, usual) = scene.operator.make_api_key(ORG).await;
    let usual = scene.broker.caller(Some(&usual)).await;
    assert_eq!(refused(usual.keep("a", "KEY", "x").await), "PERMISSION_DENIED");
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: vec![proto::ApiKeyGroup::Secrets as i32],
        ..Default::default()
    };
    let made = scene.operator.access().create_api_key(request).await.unwrap();
    let token = made.into_inner().token.unwrap();
    let key = scene.broker.caller(Some(&token.value)).await;
    key.keep("a", "KEY", "two").await.unwrap();
    key.let_agent("a", &scene.enrolled.agent).await.unwrap();
    assert_eq!(refused(key.read("a", "KEY").await), "WRONG_CREDENTIAL_FAMILY");
    assert_eq!(scene.agent.read("a", "KEY").await.unwrap().0, "two");
    assert_eq!(
        refused(scene.agent.keep("a", "KEY", "x").await),
        "WRONG_CREDENTIAL_FAMILY"
    );
    // Another org's agent of the same names.
    scene.operator.make_org("other").await;
    let task = scene.operator.make_task("other", MEMBER).await;
    let token = scene.operator.enrollment_token("other", &task).await;
    let enrolled = scene
        .broker
        .enroll_with(&token, &support::NewKey::generate())
        .await;
    let stranger = scene.broker.agent(&enrolled.unwrap()).await;
    assert_eq!(refused(stranger.read("a", "KEY").await), "NOT_FOUND");
}

// req: C2 J5
#[tokio::test]
async fn every_read_is_recorded_and_no_value_is() {
    let scene = Scene::start().await;
    scene
        .operator
        .keep("a", "KEY", "very-secret-value")
        .await
        .unwrap();
    refused(scene.agent.read("a", "KEY").await);
    scene
        .operator
        .let_agent("a", &scene.enrolled.agent)
        .await
        .unwrap();
    scene.agent.read("a", "KEY").await.unwrap();
    let records = scene.operator.records().await;
    let reads: Vec<_> = records
        .iter()
        .filter(|record| record.action == "secret.read")
        .map(|record| (record.outcome.as_str(), record.subject["secret"].as_str()))
        .collect();
    assert_eq!(reads, [("denied", "KEY"), ("allowed", "KEY")]);
    assert!(!format!("{records:?}").contains("very-secret-value"));
}

// req: C2
#[tokio::test]
async fn sizes_and_numbers_are_bounded_also_under_contention() {
    let scene = Scene::start().await;
    let operator = &scene.operator;
    assert_eq!(refused(operator.keep("a", "KEY", "").await), "INVALID_ARGUMENT");
    let largest = "x".repeat(64 * 1024);
    operator.keep("large", "KEY", &largest).await.unwrap();
    operator.let_agent("large", &scene.enrolled.agent).await.unwrap();
    assert_eq!(scene.agent.read("large", "KEY").await.unwrap().0, largest);
    let larger = format!("{largest}x");
    assert_eq!(
        refused(operator.keep("large", "KEY", &larger).await),
        "INVALID_ARGUMENT"
    );
    let mut kept = 0;
    for batch in 0..40 {
        let names: Vec<_> = (0..8).map(|name| format!("K{batch}_{name}")).collect();
        let answers = join_all(names.iter().map(|name| operator.keep("a", name, "v"))).await;
        kept += answers.iter().filter(|answer| answer.is_ok()).count();
        for status in answers.into_iter().filter_map(Result::err) {
            let told = reason(&status);
            assert!(["SECRET_LIMIT", "CONFLICT"].contains(&told.as_str()), "{told}");
        }
    }
    assert!(kept <= 256, "{kept}");
    while kept < 256 {
        operator.keep("a", &format!("L{kept}"), "v").await.unwrap();
        kept += 1;
    }
    assert_eq!(refused(operator.keep("a", "ONE_MORE", "v").await), "SECRET_LIMIT");
    operator.keep("b", "ONE_MORE", "v").await.unwrap();
}

// req: C2 E7
#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_and_not_in_clear() {
    let Scene {
        broker,
        operator,
        enrolled,
        ..
    } = Scene::start().await;
    operator.keep("a", "KEY", "very-secret-value").await.unwrap();
    operator.let_agent("a", &enrolled.agent).await.unwrap();
    let broker = broker.restart().await;
    let agent = broker.agent(&enrolled).await;
    assert_eq!(agent.read("a", "KEY").await.unwrap().0, "very-secret-value");
    let folder = broker.data_dir();
    let (_, dir, _) = broker.stop().await;
    let mut folders = vec![folder];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                let bytes = std::fs::read(&path).unwrap();
                let clear = bytes.windows(17).any(|window| window == b"very-secret-value");
                assert!(!clear, "{}", path.display());
            }
        }
    }
    assert!(files > 3);
    drop(dir);
}
