//! What every implementation of the store contract does. The suite is written against a factory; each engine
//! adds one line at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use credbroker::store::sled::{Options, SledStore};
use credbroker::store::watch::{Change, Event, WatchError};
use credbroker::store::{
    Batch, Commit, Entry, Guard, Kv, MAX_BATCH, MAX_KEY, MAX_OPERATIONS, MAX_SCAN, MAX_VALUE, Revision,
    StoreError, Write,
};

/// Makes an empty store and opens it again.
trait Engine: Send + Sync {
    fn new() -> Self;
    /// Opens the store; it remembers at most 64 changes.
    fn open(&self) -> Arc<dyn Kv>;
    /// Closes what `open` gave.
    fn close(&self, kv: Arc<dyn Kv>);
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.into(), value.into())
}

fn delete(key: &str) -> Write {
    Write::Delete(key.into())
}

fn absent(key: &str) -> Guard {
    Guard::Absent(key.into())
}

fn at(key: &str, revision: Revision) -> Guard {
    Guard::At(key.into(), revision)
}

async fn commit(kv: &dyn Kv, guards: Vec<Guard>, writes: Vec<Write>) -> Option<Revision> {
    match kv.commit(Batch { guards, writes }).await.unwrap() {
        Commit::Applied(revision) => Some(revision),
        Commit::Conflict => None,
    }
}

async fn read(kv: &dyn Kv, key: &str) -> Option<(String, Revision)> {
    let found = kv.get(key.as_bytes()).await.unwrap()?;
    Some((String::from_utf8(found.value).unwrap(), found.revision))
}

fn keys(rows: &[Entry]) -> Vec<&str> {
    rows.iter()
        .map(|row| std::str::from_utf8(&row.key).unwrap())
        .collect()
}

async fn guards_hold_or_nothing_changes(engine: &impl Engine) {
    let kv = engine.open();
    let first = commit(&*kv, vec![absent("a")], vec![put("a", "1")])
        .await
        .unwrap();
    assert_eq!(commit(&*kv, vec![absent("a")], vec![put("a", "x")]).await, None);
    assert_eq!(
        commit(&*kv, vec![at("b", first)], vec![put("b", "x")]).await,
        None,
        "an absent key stands at no revision"
    );
    let second = commit(&*kv, vec![at("a", first)], vec![put("a", "2")])
        .await
        .unwrap();
    assert_eq!(
        commit(&*kv, vec![at("a", first)], vec![put("a", "x")]).await,
        None
    );
    // One guard of several fails, and it is not on a key that is written: no write is made.
    let mixed = commit(
        &*kv,
        vec![absent("c"), at("a", first)],
        vec![put("c", "x"), put("d", "x"), delete("a")],
    );
    assert_eq!(mixed.await, None);
    assert_eq!(read(&*kv, "a").await, Some(("2".into(), second)));
    assert_eq!(read(&*kv, "c").await, None);
    assert_eq!(read(&*kv, "d").await, None);
    // Guards alone make a commit too.
    assert!(
        commit(&*kv, vec![at("a", second), absent("c")], vec![])
            .await
            .is_some()
    );
    engine.close(kv);
}

async fn revisions_grow_over_deletion_and_reopening(engine: &impl Engine) {
    let kv = engine.open();
    let first = commit(&*kv, vec![], vec![put("a", "1"), put("b", "1")])
        .await
        .unwrap();
    assert!(first > Revision(0));
    assert_eq!(read(&*kv, "b").await, Some(("1".into(), first)));
    let deleted = commit(&*kv, vec![], vec![delete("a"), delete("never")])
        .await
        .unwrap();
    assert!(deleted > first);
    assert_eq!(read(&*kv, "a").await, None);
    let again = commit(&*kv, vec![absent("a")], vec![put("a", "2")])
        .await
        .unwrap();
    assert!(again > deleted);
    assert_eq!(
        commit(&*kv, vec![at("a", first)], vec![put("a", "x")]).await,
        None
    );
    commit(&*kv, vec![], vec![delete("a")]).await.unwrap();
    engine.close(kv);

    let kv = engine.open();
    let after = commit(&*kv, vec![absent("a")], vec![put("a", "3")])
        .await
        .unwrap();
    assert!(after > again);
    assert_eq!(read(&*kv, "b").await, Some(("1".into(), first)));
    engine.close(kv);
}

async fn scans_are_ordered_bounded_and_paged(engine: &impl Engine) {
    let kv = engine.open();
    for key in ["p/3", "p/1", "q", "p/2", "p", "p/", "o/9"] {
        commit(&*kv, vec![], vec![put(key, key)]).await.unwrap();
    }
    for i in 0..3_u8 {
        let writes = (0..100)
            .map(|j| Write::Put(vec![0xff, 0xff, i, j], vec![i]))
            .collect();
        commit(&*kv, vec![], writes).await.unwrap();
    }
    let scan = |prefix: &'static [u8], after: Option<&'static [u8]>, limit| {
        let kv = Arc::clone(&kv);
        async move { kv.scan(prefix, after, limit).await.unwrap() }
    };
    let rows = scan(b"p/", None, 10).await;
    assert_eq!(keys(&rows), ["p/", "p/1", "p/2", "p/3"]);
    assert_eq!(rows[1].value, b"p/1");
    assert!(rows[1].revision > Revision(0));
    assert_eq!(keys(&scan(b"p/", Some(b"p/1"), 1).await), ["p/2"]);
    assert_eq!(keys(&scan(b"p/", Some(b"p/15"), 10).await), ["p/2", "p/3"]);
    assert_eq!(keys(&scan(b"p/", Some(b"a"), 10).await).len(), 4);
    assert!(scan(b"p/", Some(b"p/3"), 10).await.is_empty());
    assert!(scan(b"p/", Some(b"zzz"), 10).await.is_empty());
    assert!(scan(b"p/", None, 0).await.is_empty());
    assert_eq!(keys(&scan(b"", None, 3).await), ["o/9", "p", "p/"]);

    // A prefix with no successor, and paging over many.
    let mut seen: Vec<Vec<u8>> = Vec::new();
    loop {
        let after = seen.last().cloned();
        let page = kv.scan(&[0xff, 0xff], after.as_deref(), 7).await.unwrap();
        seen.extend(page.iter().map(|row| row.key.clone()));
        if page.len() < 7 {
            break;
        }
    }
    assert_eq!(seen.len(), 300);
    assert!(seen.is_sorted());
    engine.close(kv);
}

async fn limits_are_refused_and_change_nothing(engine: &impl Engine) {
    let kv = engine.open();
    let many = |count: usize| (0..count).map(|i| put(&format!("m{i}"), "")).collect::<Vec<_>>();
    let wide = |count: usize| {
        (0..count)
            .map(|i| Write::Put(format!("w{i}").into(), vec![1; MAX_VALUE]))
            .collect::<Vec<_>>()
    };
    let refused = [
        (vec![], many(MAX_OPERATIONS + 1)),
        (vec![absent("x")], many(MAX_OPERATIONS)),
        (vec![], wide(MAX_BATCH / MAX_VALUE)),
        (vec![], vec![put("a", "1"), delete("a")]),
        (vec![], vec![Write::Put(b"a".to_vec(), vec![0; MAX_VALUE + 1])]),
        (vec![], vec![Write::Put(vec![1; MAX_KEY + 1], vec![])]),
        (vec![Guard::Absent(vec![1; MAX_KEY + 1])], vec![]),
        (vec![], vec![put("", "1")]),
    ];
    for (guards, writes) in refused {
        let outcome = kv.commit(Batch { guards, writes }).await;
        assert!(matches!(outcome, Err(StoreError::Limit(_))), "{outcome:?}");
    }
    assert!(matches!(
        kv.scan(b"", None, MAX_SCAN + 1).await,
        Err(StoreError::Limit(_))
    ));
    assert!(kv.scan(b"", None, MAX_SCAN).await.unwrap().is_empty());
    assert!(kv.healthy(), "a fault of the caller is none of the store");

    commit(&*kv, vec![], many(MAX_OPERATIONS)).await.unwrap();
    commit(&*kv, vec![], wide(MAX_BATCH / MAX_VALUE - 2))
        .await
        .unwrap();
    let longest = Write::Put(vec![1; MAX_KEY], vec![7; MAX_VALUE]);
    commit(&*kv, vec![], vec![longest]).await.unwrap();
    assert_eq!(
        kv.get(&[1; MAX_KEY]).await.unwrap().unwrap().value,
        vec![7; MAX_VALUE]
    );
    engine.close(kv);
}

async fn of_concurrent_increments_none_is_lost(engine: &impl Engine) {
    const TASKS: usize = 32;
    const TIMES: usize = 20;
    let kv = engine.open();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let kv = Arc::clone(&kv);
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                while revisions.len() < TIMES {
                    let (count, guard) = match read(&*kv, "n").await {
                        Some((count, revision)) => (count.parse::<usize>().unwrap(), at("n", revision)),
                        None => (0, absent("n")),
                    };
                    let write = put("n", &(count + 1).to_string());
                    if let Some(revision) = commit(&*kv, vec![guard], vec![write]).await {
                        let (now, standing) = read(&*kv, "n").await.unwrap();
                        assert!(now.parse::<usize>().unwrap() > count && standing >= revision);
                        revisions.push(revision);
                    }
                }
                revisions
            })
        })
        .collect();
    let mut revisions = HashSet::new();
    for task in tasks {
        for revision in task.await.unwrap() {
            assert!(revisions.insert(revision), "a revision was given twice");
        }
    }
    assert_eq!(read(&*kv, "n").await.unwrap().0, (TASKS * TIMES).to_string());
    engine.close(kv);
}

/// Two keys are always written together. Whoever reads one and then the other may find the second newer, never
/// older; and within one scan of a quiet moment both are the same.
async fn a_batch_becomes_visible_at_once(engine: &impl Engine) {
    let kv = engine.open();
    commit(&*kv, vec![], vec![put("x/a", "0"), put("x/b", "0")])
        .await
        .unwrap();
    let writer = {
        let kv = Arc::clone(&kv);
        tokio::spawn(async move {
            for i in 1..400 {
                let i = i.to_string();
                commit(&*kv, vec![], vec![put("x/a", &i), put("x/b", &i)])
                    .await
                    .unwrap();
            }
        })
    };
    let mut rounds = 0;
    while !writer.is_finished() {
        let first = read(&*kv, "x/a").await.unwrap().1;
        let second = read(&*kv, "x/b").await.unwrap().1;
        let third = read(&*kv, "x/a").await.unwrap().1;
        assert!(first <= second && second <= third);
        assert_eq!(kv.scan(b"x/", None, 10).await.unwrap().len(), 2);
        rounds += 1;
        if rounds % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    writer.await.unwrap();
    let rows = kv.scan(b"x/", None, 10).await.unwrap();
    assert_eq!(rows[0].revision, rows[1].revision);
    engine.close(kv);
}

/// Rows that are put and removed over and over must not hide the ones beside them from a paged scan.
async fn scans_amid_changes_miss_no_standing_row(engine: &impl Engine) {
    let kv = engine.open();
    let standing: Vec<String> = (0..40).map(|i| format!("s/{i:02}")).collect();
    let writes = standing.iter().map(|key| put(key, "")).collect();
    commit(&*kv, vec![], writes).await.unwrap();
    let writer = {
        let kv = Arc::clone(&kv);
        tokio::spawn(async move {
            for round in 0..150 {
                let write = |i| {
                    let key = format!("s/{i:02}x");
                    if round % 2 == 0 {
                        put(&key, "")
                    } else {
                        delete(&key)
                    }
                };
                commit(&*kv, vec![], (0..40).map(write).collect()).await.unwrap();
            }
        })
    };
    while !writer.is_finished() {
        for limit in [1, 3, 100] {
            let mut seen: Vec<String> = Vec::new();
            loop {
                let after = seen.last().map(String::as_bytes);
                let page = kv.scan(b"s/", after, limit).await.unwrap();
                assert!(page.len() <= limit);
                seen.extend(keys(&page).into_iter().map(str::to_owned));
                if page.len() < limit {
                    break;
                }
            }
            assert!(seen.is_sorted());
            seen.dedup();
            assert!(standing.iter().all(|key| seen.binary_search(key).is_ok()));
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    engine.close(kv);
}

async fn a_dropped_future_still_commits(engine: &impl Engine) {
    let kv = engine.open();
    for i in 0..50 {
        let batch = Batch {
            guards: vec![],
            writes: vec![put(&format!("d{i}"), "1")],
        };
        let mut commit = kv.commit(batch);
        // One poll hands the commit over; then the caller is gone.
        let polled = futures_util::poll!(&mut commit);
        drop((polled, commit));
    }
    // Commits are made in order, so once this one is answered they are too.
    commit(&*kv, vec![], vec![put("last", "1")]).await.unwrap();
    for i in 0..50 {
        assert!(read(&*kv, &format!("d{i}")).await.is_some(), "d{i}");
    }
    engine.close(kv);
}

async fn reopening_sees_everything_acknowledged(engine: &impl Engine) {
    let mut expected: Vec<(String, Revision)> = Vec::new();
    for round in 0..3 {
        let kv = engine.open();
        for (key, revision) in &expected {
            assert_eq!(read(&*kv, key).await.unwrap().1, *revision);
        }
        let tasks: Vec<_> = (0..64)
            .map(|i| {
                let kv = Arc::clone(&kv);
                let key = format!("r{round}-{i}");
                tokio::spawn(async move {
                    let revision = commit(&*kv, vec![], vec![put(&key, &key)]).await.unwrap();
                    (key, revision)
                })
            })
            .collect();
        for task in tasks {
            expected.push(task.await.unwrap());
        }
        engine.close(kv);
    }
}

async fn a_closed_store_refuses_writes(engine: &impl Engine) {
    let kv = engine.open();
    commit(&*kv, vec![], vec![put("a", "1")]).await.unwrap();
    let mut watch = kv.watch(b"", None).unwrap();
    let other = Arc::clone(&kv);
    engine.close(kv);
    assert_eq!(other.commit(Batch::default()).await, Err(StoreError::Closed));
    assert!(!other.healthy());
    assert_eq!(watch.next().await, Err(WatchError::Closed));
}

async fn a_watch_tells_every_change_in_order(engine: &impl Engine) {
    let kv = engine.open();
    let before = commit(&*kv, vec![], vec![put("w/a", "1")]).await.unwrap();
    let mut live = kv.watch(b"w/", None).unwrap();
    let waiting = tokio::spawn(async move {
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(live.next().await.unwrap());
        }
        events
    });
    commit(&*kv, vec![], vec![put("v", "1")]).await.unwrap();
    let second = commit(&*kv, vec![], vec![put("w/b", "1"), delete("w/a")])
        .await
        .unwrap();
    commit(&*kv, vec![absent("w/b")], vec![put("w/c", "1")]).await;
    let third = commit(&*kv, vec![], vec![put("w/a", "2")]).await.unwrap();
    let event = |revision, key: &str, change| Event {
        revision,
        key: key.into(),
        change,
    };
    let expected = [
        event(second, "w/b", Change::Put),
        event(second, "w/a", Change::Deleted),
        event(third, "w/a", Change::Put),
    ];
    assert_eq!(waiting.await.unwrap(), expected);
    let mut late = kv.watch(b"w/", Some(before)).unwrap();
    for event in &expected {
        assert_eq!(late.next().await.as_ref(), Ok(event));
    }
    let more = tokio::time::timeout(Duration::from_millis(20), late.next());
    assert!(more.await.is_err());
    engine.close(kv);
}

async fn a_slow_watch_is_cut_off_and_never_blocks(engine: &impl Engine) {
    let kv = engine.open();
    let first = commit(&*kv, vec![], vec![put("a", "0")]).await.unwrap();
    let mut slow = kv.watch(b"", None).unwrap();
    for i in 0..100 {
        commit(&*kv, vec![], vec![put("a", &i.to_string())])
            .await
            .unwrap();
    }
    assert_eq!(slow.next().await, Err(WatchError::Lagged));
    assert!(matches!(kv.watch(b"", Some(first)), Err(WatchError::Compacted)));
    let newest = read(&*kv, "a").await.unwrap().1;
    assert!(kv.watch(b"", Some(newest)).is_ok());
    engine.close(kv);

    let kv = engine.open();
    assert!(matches!(kv.watch(b"", Some(first)), Err(WatchError::Compacted)));
    engine.close(kv);
}

macro_rules! conformance {
    ($engine:ident, $module:ident: $($test:ident)*) => {
        mod $module {
            use super::{$engine, Engine};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(&$engine::new()).await;
                }
            )*
        }
    };
    ($engine:ident, $module:ident) => {
        conformance! { $engine, $module:
            guards_hold_or_nothing_changes
            revisions_grow_over_deletion_and_reopening
            scans_are_ordered_bounded_and_paged
            limits_are_refused_and_change_nothing
            of_concurrent_increments_none_is_lost
            a_batch_becomes_visible_at_once
            scans_amid_changes_miss_no_standing_row
            a_dropped_future_still_commits
            reopening_sees_everything_acknowledged
            a_closed_store_refuses_writes
            a_watch_tells_every_change_in_order
            a_slow_watch_is_cut_off_and_never_blocks
        }
    };
}

/// sled closes when dropped; `close` is told apart from it so that a clone that lives on is closed too.
struct Sled {
    dir: tempfile::TempDir,
    open: std::sync::Mutex<Option<Arc<SledStore>>>,
}

impl Engine for Sled {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            open: std::sync::Mutex::new(None),
        }
    }

    fn open(&self) -> Arc<dyn Kv> {
        let mut options = Options::new("example.test");
        options.remembered_changes = 64;
        let store = SledStore::open(self.dir.path(), options).unwrap();
        *self.open.lock().unwrap() = Some(Arc::clone(&store));
        store
    }

    fn close(&self, kv: Arc<dyn Kv>) {
        self.open.lock().unwrap().take().unwrap().close();
        drop(kv);
    }
}

conformance!(Sled, sled);
