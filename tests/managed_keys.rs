//! The platform's own keys: where they come from, which goes first, how they are replaced, and that no one sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use credbroker::proto::{self, KeyPool, KeySource};
use rustix::process::Signal;
use support::process::{Daemon, Installation, credbrokerd, text};
use support::{Caller, reason};
use tempfile::TempDir;
use tonic::Status;

const STORED: &str = "the-platforms-stored-key-aaaa";
const VARIABLE: &str = "the-platforms-variable-key-bbbb";
const FILE: &str = "the-platforms-file-key-cccc";

/// A file of a key, as only its owner may read it.
fn key_file(folder: &TempDir, name: &str, key: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, format!("{key}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn files(table: &str, provider: &str, path: &Path) -> String {
    format!("[{table}]\nkey_files = {{ {provider} = {path:?} }}\n")
}

async fn list(operator: &Caller) -> Vec<proto::ManagedKey> {
    let request = proto::ListManagedKeysRequest::default();
    let page = operator.platform().list_managed_keys(request).await.unwrap();
    page.into_inner().managed_keys
}

/// The one key there is: source, generation, hint, and what is behind it.
async fn only(operator: &Caller) -> (KeySource, u64, String, Vec<KeySource>) {
    let [key] = &list(operator).await[..] else {
        panic!("not one key")
    };
    assert_eq!((key.pool(), key.provider.as_str()), (KeyPool::Metered, "demo"));
    assert!(key.update_time.is_some());
    (
        key.source(),
        key.generation,
        key.hint.clone(),
        key.behind().collect(),
    )
}

async fn remove(operator: &Caller) -> Result<Option<proto::ManagedKey>, Status> {
    let request = proto::RemoveManagedKeyRequest {
        pool: KeyPool::Metered as i32,
        provider: "demo".to_owned(),
    };
    let answer = operator.platform().remove_managed_key(request).await?;
    Ok(answer.into_inner().managed_key)
}

/// Every file below a folder, as bytes.
fn all_below(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(all_below(&path));
        } else {
            all.extend(fs::read(&path).unwrap_or_default());
        }
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What other users and the log's readers see of the process.
fn seen_of(daemon: &Daemon) -> Vec<u8> {
    let mut seen = fs::read(format!("/proc/{}/cmdline", daemon.id())).unwrap();
    seen.extend(daemon.log().join("\n").into_bytes());
    seen
}

// req: E8 E7
#[tokio::test]
async fn a_stored_key_goes_before_the_environment_and_that_before_a_file() {
    let keys = tempfile::tempdir().unwrap();
    let path = key_file(&keys, "metered", FILE);
    let config = format!("[log]\nfilter = \"debug\"\n{}", files("metered", "demo", &path));
    let made = Installation::make(&config, "").await;
    let variable = [("CREDBROKER_METERED_KEY_DEMO", VARIABLE)];
    let mut daemon = made.start_with(&variable).await;
    let operator = daemon.operator().await;
    let (environment, file) = (KeySource::Environment, KeySource::File);
    assert_eq!(
        only(&operator).await,
        (environment, 1, "bbbb".to_owned(), vec![file])
    );

    let stored = operator
        .set_managed_key(KeyPool::Metered, "demo", STORED)
        .await
        .unwrap();
    assert_eq!((stored.source(), stored.generation), (KeySource::Stored, 1));
    let behind = vec![environment, file];
    assert_eq!(
        only(&operator).await,
        (KeySource::Stored, 1, "aaaa".to_owned(), behind)
    );

    let left = remove(&operator).await.unwrap().unwrap();
    assert_eq!((left.source(), left.hint.as_str()), (environment, "bbbb"));
    let again = remove(&operator).await.unwrap_err();
    assert_eq!(reason(&again), "NOT_FOUND");

    // Nothing of the keys is seen: in answers, the journal, the process's arguments, its log, or in clear on the disk.
    let mut seen = seen_of(&daemon);
    seen.extend(format!("{:?} {:?}", operator.records().await, list(&operator).await).into_bytes());
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    seen.extend(daemon.log().join("\n").into_bytes());
    seen.extend(all_below(&made.data_dir()));
    let check = credbrokerd(&["check", "--config", made.config().to_str().unwrap()])
        .envs(variable)
        .output()
        .await
        .unwrap();
    assert!(check.status.success());
    seen.extend(check.stdout);
    seen.extend(check.stderr);
    for key in [STORED, VARIABLE, FILE] {
        assert!(!holds(&seen, key), "{key} is seen");
    }

    // Without the variable, the file. A removed key stays removed.
    let daemon = made.start().await;
    let operator = daemon.operator().await;
    assert_eq!(only(&operator).await, (file, 1, "cccc".to_owned(), vec![]));
}

// req: E8
#[tokio::test]
async fn another_key_takes_the_place_of_the_one_before_at_once() {
    let made = Installation::make("", "").await;
    let daemon = made.start().await;
    let operator = daemon.operator().await;
    let first = operator
        .set_managed_key(KeyPool::Metered, "demo", STORED)
        .await
        .unwrap();
    assert_eq!((first.generation, first.previous_expire_time), (1, None));
    let request = proto::SetManagedKeyRequest {
        pool: KeyPool::Metered as i32,
        provider: "demo".to_owned(),
        key: Some(proto::Secret {
            value: VARIABLE.to_owned(),
        }),
        overlap: Some(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        }),
        ..Default::default()
    };
    let answer = operator
        .platform()
        .set_managed_key(request.clone())
        .await
        .unwrap();
    let second = answer.into_inner().managed_key.unwrap();
    assert_eq!((second.generation, second.hint.as_str()), (2, "bbbb"));
    let overlap = second.previous_expire_time.unwrap().seconds - second.update_time.unwrap().seconds;
    assert_eq!(overlap, 3_600);
    assert_eq!(list(&operator).await, [second]);

    // The numbers go on after a removal; there is no key before the next one then.
    assert_eq!(remove(&operator).await.unwrap(), None);
    assert!(list(&operator).await.is_empty());
    let third = operator
        .set_managed_key(KeyPool::Metered, "demo", STORED)
        .await
        .unwrap();
    assert_eq!((third.generation, third.previous_expire_time), (3, None));
    // The other pool's is another key.
    let shared = operator
        .set_managed_key(KeyPool::Shared, "demo", FILE)
        .await
        .unwrap();
    assert_eq!((shared.generation, shared.pool()), (1, KeyPool::Shared));
    let places: Vec<_> = list(&operator)
        .await
        .iter()
        .map(proto::ManagedKey::pool)
        .collect();
    assert_eq!(places, [KeyPool::Metered, KeyPool::Shared]);

    let mut too_long = request;
    too_long.overlap = Some(prost_types::Duration {
        seconds: 8 * 86_400,
        nanos: 0,
    });
    let refused = operator.platform().set_managed_key(too_long).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");

    let records = operator.records().await;
    let done = |action: &str| {
        let of = records.iter().filter(|record| record.action == action);
        of.map(|record| record.phase.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(done("managed_key.set"), ["begin", "finish"].repeat(4));
    assert_eq!(done("managed_key.remove"), ["begin", "finish"]);
}

// req: E8 B9
#[tokio::test]
async fn a_key_that_will_not_do_is_refused() {
    let made = Installation::make("", "").await;
    let daemon = made.start().await;
    let operator = daemon.operator().await;
    for (provider, key, expected) in [
        ("nobody", STORED, "PROVIDER_UNKNOWN"),
        (
            "anthropic",
            "sk-proj-123456789012345678901234",
            "KEY_SHAPE_MISMATCH",
        ),
        ("anthropic", "", "KEY_SHAPE_MISMATCH"),
        ("demo", "two words", "KEY_SHAPE_MISMATCH"),
    ] {
        let refused = operator.set_managed_key(KeyPool::Shared, provider, key).await;
        assert_eq!(reason(&refused.unwrap_err()), expected, "{provider} {key}");
    }
    let nowhere = operator
        .set_managed_key(KeyPool::Unspecified, "demo", STORED)
        .await;
    assert_eq!(reason(&nowhere.unwrap_err()), "INVALID_ARGUMENT");
    let forced = proto::SetManagedKeyRequest {
        pool: KeyPool::Shared as i32,
        provider: "anthropic".to_owned(),
        key: Some(proto::Secret {
            value: "sk-proj-123456789012345678901234".to_owned(),
        }),
        force: true,
        ..Default::default()
    };
    operator.platform().set_managed_key(forced).await.unwrap();
    // Bedrock is called with a bearer key.
    operator
        .set_managed_key(KeyPool::Metered, "bedrock", "ABSKsome-bearer-key-0000")
        .await
        .unwrap();
}

/// What `check` and `serve` say of a configuration that neither takes.
async fn said(made: &Installation, variables: &[(&str, &str)]) -> String {
    let config = made.config();
    let mut told = Vec::new();
    for command in ["check", "serve"] {
        let mut daemon = credbrokerd(&[command, "--config", config.to_str().unwrap()]);
        let ended = daemon.envs(variables.iter().copied()).output();
        let ended = tokio::time::timeout(support::process::PATIENCE, ended)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1), "{command}: {ended:?}");
        let error = text(&ended.stderr);
        let error = error.lines().find(|line| line.starts_with("error: "));
        told.push(
            error
                .unwrap_or_else(|| panic!("{command} says nothing"))
                .to_owned(),
        );
    }
    assert_eq!(told[0], told[1]);
    told.remove(0)
}

// req: E8
#[tokio::test]
async fn a_key_that_will_not_do_stops_the_start_and_is_named_by_its_place() {
    let keys = tempfile::tempdir().unwrap();
    let made = Installation::make("", "").await;
    let config = made.config().display().to_string();
    for (name, value, expected) in [
        (
            "CREDBROKER_SHARED_KEY_NO_BODY",
            STORED,
            "there is no provider \"no-body\"",
        ),
        (
            "CREDBROKER_METERED_KEY_ANTHROPIC",
            "sk-proj-1234567890",
            "a key of openai",
        ),
        ("CREDBROKER_METERED_KEY_DEMO", "", "the key is empty"),
    ] {
        let told = said(&made, &[(name, value)]).await;
        assert!(
            told.starts_with(&format!("error: environment variable {name}: ")),
            "{told}"
        );
        assert!(told.contains(expected), "{told}");
        assert!(value.is_empty() || !told.contains(value), "{told}");
    }

    let open = key_file(&keys, "open", FILE);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
    let good = key_file(&keys, "good", FILE);
    for (table, provider, path, expected) in [
        (
            "metered",
            "demo",
            open,
            "is open to other users of this machine (mode 640)",
        ),
        ("shared", "demo", keys.path().join("missing"), "No such file"),
        (
            "shared",
            "nobody",
            good.clone(),
            "there is no provider \"nobody\"",
        ),
        (
            "metered",
            "demo",
            key_file(&keys, "empty", ""),
            "the key is empty",
        ),
        ("metered", "demo", key_file(&keys, "two", "one two"), "whitespace"),
    ] {
        made.configure(&files(table, provider, &path));
        let told = said(&made, &[]).await;
        let place = format!("error: {config}: {table}.key_files.{provider}");
        assert!(told.starts_with(&place) && told.contains(expected), "{told}");
        assert!(
            told.contains(path.to_str().unwrap()) && !told.contains(FILE),
            "{told}"
        );
    }

    // A provider that the registry does not have has no proxy either.
    made.configure("[proxy]\nbase_urls = { nobody = \"https://proxy.example\" }\n");
    let told = said(&made, &[]).await;
    assert!(
        told.contains("proxy.base_urls: there is no provider \"nobody\""),
        "{told}"
    );
    // A variable of this broker's configuration is no key.
    made.configure("");
    let told = said(&made, &[("CREDBROKER_METERED_KEY_FILES", STORED)]).await;
    assert!(
        told.contains("environment variable CREDBROKER_METERED_KEY_FILES: metered.key_files: "),
        "{told}"
    );
    assert!(!told.contains(STORED), "{told}");
}

// req: E8
#[tokio::test]
async fn files_are_read_again_at_a_reload_and_a_bad_one_changes_nothing() {
    let keys = tempfile::tempdir().unwrap();
    let path = key_file(&keys, "metered", FILE);
    let made = Installation::make(&files("metered", "demo", &path), "").await;
    let mut daemon = made.start().await;
    let operator = daemon.operator().await;
    let is = |source, generation, hint: &str| (source, generation, hint.to_owned(), vec![]);
    assert_eq!(only(&operator).await, is(KeySource::File, 1, "cccc"));

    key_file(&keys, "metered", VARIABLE);
    daemon.signal(Signal::HUP);
    daemon
        .line(|line| line.contains("reloaded the configuration"))
        .await;
    assert_eq!(only(&operator).await, is(KeySource::File, 2, "bbbb"));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    daemon.signal(Signal::HUP);
    let line = daemon
        .line(|line| line.contains("the configuration was not reloaded"))
        .await;
    assert!(
        line.contains("metered.key_files.demo") && !line.contains(VARIABLE),
        "{line}"
    );
    assert_eq!(only(&operator).await, is(KeySource::File, 2, "bbbb"));
}
