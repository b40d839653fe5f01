//! When tokens were last used, at no write for each request; and that no token is at rest.

use std::fs;
use std::path::{Path, PathBuf};

use super::scene::{Scene, alex, token_of};
use crate::support::broker::{MEMBER, ORG, now};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn all_bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_default();
        (path, bytes)
    };
    files(folder).into_iter().map(read).collect()
}

// req: D1 N6
#[tokio::test]
async fn the_last_use_is_shown_survives_a_restart_and_costs_no_write_a_request() {
    let scene = Scene::start().await;
    let (minted, alex) = alex(&scene).await;
    let unused = scene.operator.mint(token_of(ORG, MEMBER)).await.unwrap();
    let (key, token) = scene.operator.make_api_key(ORG).await;
    let before = now();
    alex.who().await.unwrap();
    let service = scene.broker.caller(Some(&token)).await;
    service.who().await.unwrap();
    // The flush of the start is over; the next is a minute away.
    scene.broker.broker.flush_presence().await.unwrap();

    let folder = scene.broker.data_dir();
    let records = scene.operator.records().await.len();
    let size = |folder: &Path| {
        all_bytes(folder)
            .iter()
            .map(|(_, bytes)| bytes.len())
            .sum::<usize>()
    };
    let stored = size(&folder.join("store"));
    for _ in 0..200 {
        alex.who().await.unwrap();
        service.who().await.unwrap();
    }
    assert_eq!(
        size(&folder.join("store")),
        stored,
        "requests were written to the store"
    );
    assert_eq!(
        scene.operator.records().await.len(),
        records,
        "requests were journaled"
    );

    let shown = scene.operator.tokens(ORG, "").await.unwrap();
    let used = |id: &str| {
        let token = shown.iter().find(|token| token.id == id).unwrap();
        token.last_used_time.map(|time| time.seconds)
    };
    assert!(used(&minted.id).unwrap() >= before.seconds());
    assert_eq!(used(&unused.id), None);
    let list = credbroker::proto::ListApiKeysRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let keys = scene
        .operator
        .access()
        .list_api_keys(list)
        .await
        .unwrap()
        .into_inner()
        .api_keys;
    let shown = keys.iter().find(|shown| shown.id == key).unwrap();
    assert!(shown.last_used_time.unwrap().seconds >= before.seconds());

    let Scene {
        broker,
        clock: _clock,
        ..
    } = scene;
    let broker = broker.restart().await;
    let shown = broker.operator().await.tokens(ORG, "").await.unwrap();
    let again = shown.iter().find(|token| token.id == minted.id).unwrap();
    assert!(again.last_used_time.unwrap().seconds >= before.seconds());
}

// req: D1 N2
#[tokio::test]
async fn no_token_is_at_rest() {
    let scene = Scene::start().await;
    let (minted, alex) = alex(&scene).await;
    let rotated = alex.rotate("", None, None).await.unwrap();
    let (_, key) = scene.operator.make_api_key(ORG).await;
    let enrollment = scene.operator.enrollment_token(ORG, "").await;
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let agent = scene.broker.enroll(&scene.operator, &task).await;
    let operator = scene.broker.operator_token().to_owned();
    let folder = scene.broker.data_dir();
    let Scene {
        broker,
        operator: caller,
        clock: _clock,
    } = scene;
    drop((caller, alex));
    let (_options, dir, _token) = broker.stop().await;
    let bytes = all_bytes(&folder);
    assert!(bytes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > 10_000);
    for token in [
        &minted.token,
        &rotated.token,
        &key,
        &enrollment,
        &agent.runtime_key,
        &operator,
    ] {
        assert_eq!(token.len(), 76);
        // Not whole, and not its secret half without prefix and id.
        for part in [token.as_str(), &token[26..70]] {
            for (path, bytes) in &bytes {
                let held = bytes.windows(part.len()).any(|window| window == part.as_bytes());
                assert!(!held, "{} holds a {}", path.display(), &token[..4]);
            }
        }
    }
    drop(dir);
}
