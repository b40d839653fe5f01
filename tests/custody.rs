//! Where refresh tokens go: to the provider they came from and nowhere else. A scenario with every kind of
//! exchange, all of whose answers are kept, and then the folder, the journal and the answers are searched.

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
