//! No secret gets into the log, at any level, in either format: not when all goes well, not when a secret is
//! wrong, and not when a caller puts one where it does not belong.

use std::time::Duration;

use credbroker::proto;
use rustix::process::Signal;
use serde_json::Value;

use super::support::broker::{MEMBER, ORG};
use super::support::client::secret;
use super::support::{Caller, reason};
use super::{Scene, who_am_i};

const ORG_KEY: &str = "demo-key-5d1f0c7e9ab34482bb6a01";
const AWS_SECRET: &str = "log+secret/access+key+0123456789abcdefgh";
const AWS_SESSION: &str = "log-session-token-0123456789abcd";

/// What has to stay out of the log.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn add(&mut self, secret: &str) -> String {
        assert!(secret.len() >= 24, "{secret} may stand in a log by chance");
        self.0.push(secret.to_owned());
        secret.to_owned()
    }

    /// The secrets in `text`, whole or in part: the id in a token may be told, what follows it may not.
    fn found_in(&self, text: &str) -> Vec<&str> {
        let told = |secret: &&String| text.contains(&secret[secret.len() - 16..]);
        self.0.iter().filter(told).map(String::as_str).collect()
    }
}

async fn code(caller: Caller) -> String {
    let answer = caller.access().who_am_i(proto::WhoAmIRequest {}).await;
    reason(&answer.unwrap_err())
}

/// The token with its last character changed: no longer a token, and still nearly the secret.
fn mangled(token: &str) -> String {
    let (rest, last) = token.split_at(token.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// Everything that has to do with secrets, well done and badly done. Returns the secrets and the whole log.
async fn scenario(format: &str) -> (Secrets, Vec<String>) {
    let config = format!("[log]\nformat = {format:?}\nfilter = \"trace\"");
    let scene = Scene::set(&config, Duration::ZERO).await;
    let mut secrets = Secrets::default();
    let daemon = &scene.daemon;
    let operator_token = secrets.add(&scene.made.operator_token);
    let runtime_key = secrets.add(&scene.enrolled.runtime_key);
    let refresh_token = secrets.add(&scene.grant.refresh_token);
    let operator = daemon.operator().await;
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let api_key = operator
        .access()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let api_key = secrets.add(&api_key.token.unwrap().value);
    assert_eq!(
        who_am_i(&daemon.caller(Some(&api_key)).await).await.family,
        "api-key"
    );
    let enrollment = secrets.add(&operator.enrollment_token(ORG, "").await);
    daemon.enroll_with(&enrollment).await;
    operator.set_key(ORG, "", &secrets.add(ORG_KEY)).await;
    for (access_key_id, taken) in [("ASIAABCDEFGHIJKLMNOP", true), (AWS_SECRET, false)] {
        let keys = proto::AwsKeys {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Some(proto::Secret {
                value: secrets.add(AWS_SECRET),
            }),
            session_token: Some(proto::Secret {
                value: secrets.add(AWS_SESSION),
            }),
            region: "us-east-1".to_owned(),
        };
        let request = proto::SetCredentialRequest {
            org: ORG.to_owned(),
            owner: Some(super::support::client::owner("")),
            provider: "bedrock".to_owned(),
            key: Some(proto::set_credential_request::Key::AwsKeys(keys)),
            ..Default::default()
        };
        let answer = operator.credentials().set_credential(request).await;
        assert_eq!(answer.is_ok(), taken);
    }

    let agent = scene.agent().await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    let access = secrets.add(secret(&lease));
    let request = proto::RefreshTokenRequest {
        lease: lease.id,
        rejected_generation: lease.generation,
        provider_message: format!("401: {access} has expired"),
        ..Default::default()
    };
    let replaced = agent.broker().refresh_token(request).await.unwrap().into_inner();
    secrets.add(secret(&replaced.lease.unwrap()));

    // What is wrong is refused and logged as refused.
    for token in [&operator_token, &api_key, &enrollment, &runtime_key] {
        code(daemon.caller(Some(&mangled(token))).await).await;
    }
    code(daemon.caller(Some(&enrollment)).await).await;
    code(daemon.caller(Some(&runtime_key)).await).await;
    // A token that a caller puts where a name belongs, each into a field of its own.
    misplace(
        &operator,
        &[
            &operator_token,
            &api_key,
            &enrollment,
            &runtime_key,
            &refresh_token,
            &access,
        ],
    )
    .await;

    // Nor does any of it get into the journal, which is kept for longer than any log.
    for record in operator.records().await {
        let stored = String::from_utf8(record.stored).unwrap();
        clean(&secrets, &[stored]);
    }

    scene.daemon.signal(Signal::TERM);
    let (status, stdout, log) = scene.daemon.output().await;
    assert!(status.success());
    assert_eq!(stdout, "", "the log goes to standard error");
    (secrets, log)
}

/// Sends each secret where a name or an id belongs. All of it is refused.
async fn misplace(operator: &Caller, secrets: &[&String]) {
    for secret in secrets {
        let secret = || secret.to_string();
        let task = proto::GetTaskRequest {
            org: ORG.to_owned(),
            task: secret(),
        };
        operator.tasks().get_task(task).await.unwrap_err();
        let member = proto::CreateTaskRequest {
            org: ORG.to_owned(),
            member: secret(),
            ..Default::default()
        };
        operator.tasks().create_task(member).await.unwrap_err();
        let executor = proto::CreateTaskRequest {
            org: ORG.to_owned(),
            member: MEMBER.to_owned(),
            project: super::support::broker::PROJECT.to_owned(),
            executor: secret(),
            ..Default::default()
        };
        operator.tasks().create_task(executor).await.unwrap_err();
        let connector = proto::ImportGrantRequest {
            org: ORG.to_owned(),
            owner: Some(super::support::client::owner("")),
            connector: secret(),
            refresh_token: Some(proto::Secret { value: secret() }),
            ..Default::default()
        };
        operator.credentials().import_grant(connector).await.unwrap_err();
        let provider = proto::SetCredentialRequest {
            org: ORG.to_owned(),
            owner: Some(super::support::client::owner("")),
            provider: secret(),
            key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
                value: secret(),
            })),
            force: false,
            ..Default::default()
        };
        operator.credentials().set_credential(provider).await.unwrap_err();
        let for_executor = proto::SetCredentialRequest {
            org: ORG.to_owned(),
            owner: Some(super::support::client::owner("")),
            provider: "demo".to_owned(),
            key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
                value: secret(),
            })),
            executor: secret(),
            ..Default::default()
        };
        operator
            .credentials()
            .set_credential(for_executor)
            .await
            .unwrap_err();
        let links = proto::LinkIdentitiesRequest {
            org: ORG.to_owned(),
            links: vec![proto::IdentityLink {
                member: secret(),
                identity: secret(),
            }],
            request_id: String::new(),
            validate_only: false,
        };
        let told = operator.directory().link_identities(links).await.unwrap();
        assert_eq!(told.into_inner().refused, 1);
        operator.resolve(&secret()).await.unwrap_err();
    }
}

fn clean(secrets: &Secrets, log: &[String]) {
    for line in log {
        let found = secrets.found_in(line);
        assert!(found.is_empty(), "{found:?} in: {line}");
        for prefix in ["demo-rt.", "demo-at."] {
            assert!(!line.contains(prefix), "a token of the provider in: {line}");
        }
    }
}

// req: K8
#[tokio::test]
async fn a_json_log_at_its_finest_has_no_secret_and_one_span_a_request() {
    let (secrets, log) = scenario("json").await;
    clean(&secrets, &log);
    let mut refused = 0;
    for line in &log {
        let parsed: Value = serde_json::from_str(line).unwrap();
        assert_eq!(&parsed.to_string(), line, "a key stands twice");
        if parsed["message"] == "refused" {
            refused += 1;
            assert_eq!(parsed["spans"].as_array().unwrap().len(), 1, "{line}");
            assert_eq!(parsed["span"]["name"], "request", "{line}");
            assert!(
                parsed["span"]["method"]
                    .as_str()
                    .unwrap()
                    .starts_with("/credbroker.v1."),
                "{line}"
            );
        }
    }
    assert!(refused > 40, "only {refused} lines tell of what was refused");
}

// req: K8
#[tokio::test]
async fn a_pretty_log_at_its_finest_has_no_secret() {
    let (secrets, log) = scenario("pretty").await;
    clean(&secrets, &log);
    let refused = log.iter().filter(|line| line.contains(" refused reason=\""));
    assert!(refused.count() > 40, "{}", log.join("\n"));
}
