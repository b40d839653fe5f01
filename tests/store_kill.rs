//! `kill -9` amid commits: what was acknowledged is there, and nothing is there by halves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use credbroker::store::sled::{Options, SledStore};
use credbroker::store::{Batch, Commit, Kv, MAX_SCAN, Write};

const CHILD_DIR: &str = "STORE_KILL_CHILD_DIR";

fn open(dir: &Path) -> Arc<SledStore> {
    SledStore::open(dir, Options::new("example.test")).unwrap()
}

fn key(side: &str, number: u64) -> Vec<u8> {
    format!("{side}/{number:020}").into_bytes()
}

/// Not a test of its own: what the one below runs in another process, again and again, and kills.
#[test]
fn child_that_commits_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        let base = u64::from(std::process::id()) * 10_000_000;
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for i in 0.. {
                        let number = base + task * 1_000_000 + i;
                        let write = |side| Write::Put(key(side, number), vec![7; 200]);
                        let batch = Batch {
                            guards: vec![],
                            writes: vec![write("one"), write("two")],
                        };
                        assert!(matches!(store.commit(batch).await.unwrap(), Commit::Applied(_)));
                        println!("\nacknowledged {number}.");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn numbers(store: &SledStore, side: &str) -> BTreeSet<u64> {
    let prefix = format!("{side}/");
    let mut found = BTreeSet::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store
            .scan(prefix.as_bytes(), after.as_deref(), MAX_SCAN)
            .await
            .unwrap();
        for row in &page {
            let number = std::str::from_utf8(&row.key[prefix.len()..]).unwrap();
            found.insert(number.parse().unwrap());
        }
        match page.last() {
            Some(row) if page.len() == MAX_SCAN => after = Some(row.key.clone()),
            _ => return found,
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits_until_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let until = acknowledged.len() + 40 + round * 37;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            // The full stop tells a whole line from one that the kill cut.
            let number = line
                .strip_prefix("acknowledged ")
                .and_then(|rest| rest.strip_suffix('.'));
            if let Some(number) = number {
                acknowledged.insert(number.parse().unwrap());
            }
            if acknowledged.len() == until {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(acknowledged.len() >= until);

        let store = open(dir.path());
        let one = numbers(&store, "one").await;
        assert_eq!(one, numbers(&store, "two").await, "a commit by halves");
        assert!(one.is_superset(&acknowledged), "an acknowledged commit is lost");
    }
}
