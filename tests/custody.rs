//! Where secrets go: refresh tokens to the provider they came from, keys to the task that they are handed out for,
//! and nowhere else. Scenarios all of whose answers are kept, and then the folder, the journal and the answers are
//! searched.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use credbroker::proto;
use prost::Message;
use support::broker::{MEMBER, ORG};
use support::provider::{ACCESS_MARK, REFRESH_MARK, Reply};
use support::scene::Scene;
use tonic::Status;

/// Everything the broker has answered, as it was on the wire and as programs print it.
#[derive(Default)]
struct Heard {
    wire: Vec<u8>,
    printed: String,
}

impl Heard {
    fn message(&mut self, message: &(impl Message + Debug)) {
        message.encode(&mut self.wire).unwrap();
        self.printed.push_str(&format!("{message:?}\n"));
    }

    fn answer<M: Message + Debug>(&mut self, answer: Result<M, Status>) {
        match answer {
            Ok(message) => self.message(&message),
            Err(status) => {
                self.wire.extend_from_slice(status.message().as_bytes());
                self.wire.extend_from_slice(status.details());
                self.printed.push_str(&format!("{status:?} {status}\n"));
            }
        }
    }
}

fn holds(bytes: &[u8], mark: &str) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// The files that hold a mark, and whether there were bytes to look through in each named folder.
fn found(folder: &Path, mark: &str) -> Vec<PathBuf> {
    let all = files(folder);
    for part in ["store", "journal"] {
        let bytes: u64 = all
            .iter()
            .filter(|path| path.strip_prefix(folder).unwrap().starts_with(part))
            .map(|path| path.metadata().unwrap().len())
            .sum();
        assert!(bytes > 0, "nothing in {part}: {all:?}");
    }
    all.into_iter()
        .filter(|path| holds(&fs::read(path).unwrap(), mark))
        .collect()
}

// req: N2 E7
#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_go_to_their_provider_and_nowhere_else() {
    let scene = Scene::imported("", "").await;
    let mut heard = Heard::default();
    // First exchange, an expiry, a forced rotation.
    let lease = scene.resolve().await.unwrap();
    heard.message(&lease);
    scene.expire();
    heard.answer(scene.resolve().await);
    let request = proto::RefreshTokenRequest {
        lease: lease.id.clone(),
        rejected_generation: 3,
        // An agent cannot know a refresh token; should it, the broker does not keep it in clear either.
        provider_message: format!("{} is no good", scene.provider.current()),
        ..Default::default()
    };
    let answer = scene.agent.broker().refresh_token(request).await;
    heard.answer(answer.map(tonic::Response::into_inner));

    // Providers that tell the token back, in every kind of failure.
    let token = scene.provider.current();
    let says = |error: &str| format!(r#"{{"error":"{error}","error_description":"bad token: {token}"}}"#);
    for (status, error) in [
        (429, "slow_down"),
        (500, "oops"),
        (401, "invalid_client"),
        (400, "invalid_grant"),
    ] {
        scene.expire();
        let body = says(error);
        scene.provider.next(Reply::Answer {
            status,
            body,
            retry_after: None,
        });
        let calls = scene.provider.calls();
        heard.answer(scene.resolve().await);
        assert_eq!(scene.provider.calls(), calls + 1, "{error} was told");
        heard.message(&scene.shown().await);
    }
    // A new grant takes the dead one's place.
    heard.message(
        &scene
            .operator
            .import_grant(ORG, MEMBER, &scene.provider.mint())
            .await,
    );
    heard.answer(scene.resolve().await);
    let list = proto::ListCredentialsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = scene.operator.credentials().list_credentials(list).await;
    heard.answer(listed.map(tonic::Response::into_inner));
    assert!(holds(&heard.wire, ACCESS_MARK), "the agent got access tokens");
    assert!(!heard.printed.contains(ACCESS_MARK), "and does not print them");

    // The journal, with the bytes as stored. Not even access tokens are in it.
    let mut journal = Heard::default();
    for record in scene.operator.records().await {
        journal.message(&record);
        journal.wire.extend_from_slice(&record.stored);
    }
    assert!(
        holds(&journal.wire, &scene.credential),
        "the journal names the credential"
    );
    for mark in [REFRESH_MARK, ACCESS_MARK] {
        assert!(!holds(&journal.wire, mark) && !journal.printed.contains(mark));
    }
    assert!(!holds(&heard.wire, REFRESH_MARK), "{}", heard.printed);
    assert!(!heard.printed.contains(REFRESH_MARK), "{}", heard.printed);

    // The folder, with an answer staged or not: while it serves, and once it has stopped.
    let folder = scene.broker.data_dir();
    let credential = scene.credential.clone();
    let search = |when: &str| {
        for mark in [REFRESH_MARK, ACCESS_MARK] {
            assert_eq!(found(&folder, mark), Vec::<PathBuf>::new(), "{mark} {when}");
        }
        assert!(
            !found(&folder, &credential).is_empty(),
            "the search finds what is there"
        );
    };
    search("while it serves");
    let (_, kept, _) = scene.broker.stop().await;
    search("once it has stopped");
    drop(kept);
}

// What of each kind of key has to stay hidden, told apart by its mark.
const AWS_SECRET: &str = "custody+secret/access+key+0123456789abcd";
const AWS_SESSION: &str = "custody-session-token-0123456789";
const BEARER: &str = "ABSKcustody-of-a-bearer-key-0123456789";

fn secret(text: &str) -> Option<proto::Secret> {
    Some(proto::Secret {
        value: text.to_owned(),
    })
}

fn aws(access_key_id: &str, session_token: Option<proto::Secret>) -> proto::AwsKeys {
    proto::AwsKeys {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: secret(AWS_SECRET),
        session_token,
        region: "us-east-1".to_owned(),
    }
}

// req: N2 E7 B1
#[tokio::test(flavor = "multi_thread")]
async fn aws_keys_and_bearer_keys_go_to_their_task_and_nowhere_else() {
    use proto::set_credential_request::Key;

    let broker = support::TestBroker::start().await;
    let operator = broker.prepare().await;
    let (_, token) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&token)).await;
    let resolve = async || {
        let request = proto::ResolveCredentialRequest {
            member: MEMBER.to_owned(),
            project: support::broker::PROJECT.to_owned(),
            executor: "claude-code".to_owned(),
            provider: "bedrock".to_owned(),
            ..Default::default()
        };
        let answer = automation.broker().resolve_credential(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let (mut heard, mut handed, mut id) = (Heard::default(), Heard::default(), String::new());
    let temporary = aws("ASIAABCDEFGHIJKLMNOP", secret(AWS_SESSION));
    let bearer = |token: &str| proto::BedrockBearer {
        token: secret(token),
        region: "us-east-1".to_owned(),
    };
    let misplaced = aws(AWS_SECRET, secret(AWS_SESSION));
    let keys = [
        // Taken, replaced, and refused for each reason there is.
        Key::BedrockBearer(bearer(BEARER)),
        Key::AwsKeys(aws("AKIAABCDEFGHIJKLMNOP", None)),
        Key::AwsKeys(temporary.clone()),
        Key::AwsKeys(aws("AKIAABCDEFGHIJKLMNOP", secret(AWS_SESSION))),
        Key::AwsKeys(aws("ASIAABCDEFGHIJKLMNOP", None)),
        Key::AwsKeys(misplaced),
        Key::AwsKeys(proto::AwsKeys {
            region: AWS_SECRET.to_owned(),
            ..temporary
        }),
        Key::BedrockBearer(proto::BedrockBearer {
            region: BEARER.to_owned(),
            ..bearer(BEARER)
        }),
        Key::BedrockBearer(bearer(&format!("{BEARER} {AWS_SECRET}"))),
        Key::ApiKey(proto::Secret {
            value: BEARER.to_owned(),
        }),
    ];
    for (key, taken) in keys.into_iter().zip((0..).map(|number| number < 3)) {
        let request = proto::SetCredentialRequest {
            org: ORG.to_owned(),
            owner: Some(support::client::owner("")),
            provider: "bedrock".to_owned(),
            key: Some(key),
            ..Default::default()
        };
        // What stands where no secret belongs is printed like the rest of a request.
        if taken {
            heard.printed.push_str(&format!("{request:?}\n"));
        }
        let answer = operator
            .credentials()
            .set_credential(request)
            .await
            .map(tonic::Response::into_inner);
        assert_eq!(answer.is_ok(), taken);
        if let Ok(stored) = &answer {
            id.clone_from(&stored.credential.as_ref().unwrap().id);
            handed.answer(resolve().await);
        }
        heard.answer(answer);
    }
    let lease = resolve().await.unwrap().lease.unwrap();
    heard.answer(automation.reject(&lease.id, lease.generation).await);
    let list = proto::ListCredentialsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator.credentials().list_credentials(list).await;
    heard.answer(listed.map(tonic::Response::into_inner));
    for record in operator.records().await {
        heard.message(&record);
        heard.wire.extend_from_slice(&record.stored);
    }
    let marks = [AWS_SECRET, AWS_SESSION, BEARER];
    assert!(holds(&heard.wire, &id), "the search finds what is there");
    for mark in marks {
        assert!(!holds(&heard.wire, mark), "{mark}: {}", heard.printed);
        assert!(!heard.printed.contains(mark), "{mark}: {}", heard.printed);
        assert!(!handed.printed.contains(mark), "{mark}: {}", handed.printed);
    }
    for mark in marks {
        assert!(holds(&handed.wire, mark), "{mark} was handed out");
    }

    let folder = broker.data_dir();
    let search = |when: &str| {
        for mark in marks {
            assert_eq!(found(&folder, mark), Vec::<PathBuf>::new(), "{mark} {when}");
        }
        assert!(!found(&folder, &id).is_empty(), "the search finds what is there");
    };
    search("while it serves");
    let (_, kept, _) = broker.stop().await;
    search("once it has stopped");
    drop(kept);
}
