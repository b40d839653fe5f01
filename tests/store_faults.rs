//! The store when things go wrong: tampering, wrong keys, newer data, overload, and races.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use credbroker::domain::secret::{ApiKey, Exposure, KeyMaterial, Secret};
use credbroker::store::keys::Key;
use credbroker::store::record::{Changes, MAX_RECORD, Record, Records};
use credbroker::store::seal::{KeyUse, LocalMasterKey, OVERHEAD, Sealer};
use credbroker::store::sled::{Options, SCHEMA, SledStore};
use credbroker::store::{Batch, Commit, Kv, Meta, Revision, StoreError, Write};
use minicbor::{Decode, Encode};

#[derive(Encode, Decode)]
struct Small {
    #[n(0)]
    count: u64,
    #[n(1)]
    key: Option<Secret<ApiKey>>,
}

impl Record for Small {
    const VERSION: u8 = 1;
}

#[derive(Encode, Decode)]
struct Newer {
    #[n(0)]
    count: u64,
}

impl Record for Newer {
    const VERSION: u8 = 2;
}

#[derive(Encode, Decode)]
struct Large {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

impl Record for Large {
    const VERSION: u8 = 1;
    const LARGE: bool = true;
    const CACHE: bool = false;
}

fn small(count: u64) -> Small {
    Small { count, key: None }
}

fn large(length: usize, fill: u8) -> Large {
    Large {
        bytes: vec![fill; length],
    }
}

fn master(byte: u8) -> Arc<LocalMasterKey> {
    Arc::new(LocalMasterKey::new(&Secret::<KeyMaterial>::new(vec![byte; 32])).unwrap())
}

fn open(dir: &Path) -> Arc<SledStore> {
    SledStore::open(dir, Options::new("example.test")).unwrap()
}

fn records(store: &Arc<SledStore>) -> Records {
    let sealer = Sealer::open(store.clone(), master(1)).unwrap();
    Records::new(store.clone(), Arc::new(sealer), 1000)
}

fn key(text: &str) -> Key {
    Key::from(text.as_bytes().to_vec())
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

async fn apply(records: &Records, changes: Changes) -> Revision {
    match records.commit(changes).await.unwrap() {
        Commit::Applied(revision) => revision,
        Commit::Conflict => panic!("a conflict"),
    }
}

async fn count(records: &Records, at: &str) -> Result<Option<u64>, StoreError> {
    let found = records.get::<Small>(&key(at)).await?;
    Ok(found.map(|stored| stored.value.count))
}

/// Everything in the store, past our own code.
fn dump(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    tamper(dir, |db| {
        let mut all = Vec::new();
        for name in db.tree_names() {
            for row in &db.open_tree(&name).unwrap() {
                let (key, value) = row.unwrap();
                all.push((name.to_vec(), key.to_vec(), value.to_vec()));
            }
        }
        all
    })
}

fn tamper<T>(dir: &Path, change: impl FnOnce(&sled::Db) -> T) -> T {
    let db = loop {
        match sled::open(dir) {
            Ok(db) => break db,
            Err(error) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    };
    let outcome = change(&db);
    db.flush().unwrap();
    outcome
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close();
    tamper(dir.path(), |db| {
        let meta = db.open_tree("meta").unwrap();
        meta.insert("schema", &(SCHEMA + 1).to_be_bytes()).unwrap();
    });
    let before = dump(dir.path());
    let refused = SledStore::open(dir.path(), Options::new("example.test")).err();
    assert_eq!(
        refused,
        Some(StoreError::TooNew {
            found: SCHEMA + 1,
            supported: SCHEMA
        })
    );
    assert_eq!(dump(dir.path()), before);
}

#[tokio::test]
async fn another_master_key_or_trust_domain_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&records(&store), Changes::new().put(&key("a"), &small(1))).await;
    drop(store);
    let before = dump(dir.path());
    let store = open(dir.path());
    let refused = Sealer::open(store.clone(), master(2)).err();
    assert_eq!(refused, Some(StoreError::WrongMasterKey));
    drop(store);
    let refused = SledStore::open(dir.path(), Options::new("other.test")).err();
    assert!(matches!(refused, Some(StoreError::WrongTrustDomain { .. })));
    assert_eq!(dump(dir.path()), before);
    let store = open(dir.path());
    assert_eq!(count(&records(&store), "a").await, Ok(Some(1)));
}

#[tokio::test]
async fn the_identity_stays_and_the_epoch_rises() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).info().clone();
    assert_eq!((first.epoch, first.schema), (1, SCHEMA));
    assert_eq!(
        SledStore::raise_epoch(dir.path(), Options::new("example.test")),
        Ok(2)
    );
    let second = open(dir.path()).info().clone();
    assert_eq!((second.id, second.epoch), (first.id, 2));
}

#[tokio::test]
async fn a_second_opening_is_refused_while_the_first_stands() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = SledStore::open(dir.path(), Options::new("example.test")).err();
    assert_eq!(refused, Some(StoreError::InUse));
    drop(store);
    open(dir.path());
    // Another program that knows nothing of our lock, only of sled's.
    let db = sled::open(dir.path()).unwrap();
    let refused = SledStore::open(dir.path(), Options::new("example.test")).err();
    assert_eq!(refused, Some(StoreError::InUse));
    drop(db);
}

#[tokio::test]
async fn an_unfinished_snapshot_does_not_keep_the_store_shut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&records(&store), Changes::new().put(&key("a"), &small(1))).await;
    // Not while another one has the store open, for it may be the one writing it.
    let unfinished = dir.path().join("snap.0000000000000FFF.generating");
    std::fs::write(&unfinished, b"half").unwrap();
    assert!(SledStore::open(dir.path(), Options::new("example.test")).is_err());
    assert!(unfinished.exists());
    drop(store);
    let store = open(dir.path());
    assert!(!unfinished.exists());
    assert_eq!(count(&records(&store), "a").await, Ok(Some(1)));
}

#[tokio::test]
async fn every_flipped_byte_is_seen_and_named_and_the_neighbours_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let changes = Changes::new()
        .put(&key("org/a"), &small(1))
        .put(&key("org/b"), &small(2));
    apply(&records(&store), changes).await;
    let stored = store.get(b"org/a").await.unwrap().unwrap().value;
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 0x10;
        let batch = Batch {
            guards: vec![],
            writes: vec![Write::Put(b"org/a".to_vec(), changed)],
        };
        let _ = store.commit(batch).await.unwrap();
        let records = records(&store);
        let damaged = StoreError::Damaged { key: hex("org/a") };
        assert_eq!(count(&records, "org/a").await, Err(damaged.clone()), "byte {at}");
        assert_eq!(
            records.scan::<Small>(b"org/", None, 10).await.err(),
            Some(damaged)
        );
        assert_eq!(count(&records, "org/b").await, Ok(Some(2)));
        let after = records.scan::<Small>(b"org/", Some(&key("org/a")), 10).await;
        assert_eq!(after.unwrap().len(), 1);
    }
    drop(store);
    // Cut short under the store's own header, past our code.
    tamper(dir.path(), |db| {
        db.open_tree("state").unwrap().insert("org/a", b"cut").unwrap();
    });
    let store = open(dir.path());
    let records = records(&store);
    assert!(matches!(
        count(&records, "org/a").await,
        Err(StoreError::Damaged { .. })
    ));
    apply(&records, Changes::new().put(&key("org/a"), &small(3))).await;
    assert_eq!(count(&records, "org/a").await, Ok(Some(3)));
}

#[tokio::test]
async fn a_record_moved_to_another_key_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(&records(&store), Changes::new().put(&key("org1/x"), &small(1))).await;
    let stored = store.get(b"org1/x").await.unwrap().unwrap().value;
    let batch = Batch {
        guards: vec![],
        writes: vec![Write::Put(b"org2/x".to_vec(), stored)],
    };
    let _ = store.commit(batch).await.unwrap();
    let damaged = StoreError::Damaged { key: hex("org2/x") };
    assert_eq!(count(&records(&store), "org2/x").await, Err(damaged));
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    apply(
        &records(&store),
        Changes::new().put(&key("a"), &Newer { count: 1 }),
    )
    .await;
    assert_eq!(
        count(&records(&store), "a").await,
        Err(StoreError::RecordTooNew {
            key: hex("a"),
            found: 2,
            supported: 1
        })
    );
}

#[tokio::test]
async fn secrets_are_sealed_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let secret = "a-secret-that-must-not-be-found";
    let record = Small {
        count: 1,
        key: Some(Secret::from(secret.to_owned())),
    };
    apply(&records(&store), Changes::new().put(&key("a"), &record)).await;
    let found = records(&store).get::<Small>(&key("a")).await.unwrap().unwrap();
    let read = found.value.key.as_ref().unwrap();
    assert_eq!(read.expose_str(Exposure::Inspect), Some(secret));
    drop(store);
    let found = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
    assert!(!dump(dir.path()).iter().any(|row| found(&row.2)));
    assert!(!found(&std::fs::read(dir.path().join("db")).unwrap()));
}

#[tokio::test]
async fn a_data_key_is_replaced_when_used_up_whatever_restarts_forget() {
    let dir = tempfile::tempdir().unwrap();
    let limits = KeyUse { cap: 10, block: 4 };
    let mut sealed = Vec::new();
    // Four openings of five seals: each wastes what is left of its block.
    for _ in 0..4 {
        let store = open(dir.path());
        let sealer = Sealer::open_with(store.clone(), master(1), limits).unwrap();
        for _ in 0..5 {
            sealed.push(sealer.seal(b"k", b"text").unwrap());
        }
    }
    let store = open(dir.path());
    let sealer = Sealer::open_with(store.clone(), master(1), limits).unwrap();
    let mut uses = std::collections::BTreeMap::new();
    for one in &sealed {
        assert_eq!(*sealer.open_sealed(b"k", one).unwrap(), b"text");
        assert_eq!(one.len(), 4 + OVERHEAD);
        *uses.entry(one[1..5].to_vec()).or_insert(0) += 1;
    }
    // Each opening goes on after what the one before had reserved, not after what it had used.
    assert_eq!(uses.values().copied().collect::<Vec<_>>(), [7, 8, 5]);
    let nonces: HashSet<_> = sealed.iter().map(|one| one[5..17].to_vec()).collect();
    assert_eq!(nonces.len(), sealed.len());
    // The reserved uses are on disk before they are made.
    let current = store.meta("key.current").unwrap().unwrap();
    assert_eq!(current[..4], [0, 0, 0, 3]);
    assert!(u64::from_be_bytes(current[4..].try_into().unwrap()) >= 6);
}

#[tokio::test]
async fn large_records_leave_no_chunk_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let records = records(&store);
    let k = key("org/large");
    let longest = MAX_RECORD - 8;
    for (i, length) in [longest, 10, 5000, 3900, 4096, 70_000, 20_000, 0, longest]
        .into_iter()
        .enumerate()
    {
        apply(&records, Changes::new().put(&k, &large(length, i as u8))).await;
        let read = records.get::<Large>(&k).await.unwrap().unwrap();
        assert_eq!(read.value.bytes, vec![i as u8; length]);
        let rows = records.scan::<Large>(b"org/", None, 10).await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].1.value.bytes.len(), length);
        // Head and chunks, nothing else: no more bytes than the record has, but for the headers.
        let all = store.scan(b"", None, 1000).await.unwrap();
        let bytes: usize = all.iter().map(|row| row.value.len()).sum();
        assert!(bytes <= length + 100 + all.len() * 9, "{length}: {bytes}");
    }
    let too_long = records.commit(Changes::new().put(&k, &large(MAX_RECORD, 0)));
    assert!(matches!(too_long.await, Err(StoreError::Limit(_))));
    apply(&records, Changes::new().delete::<Large>(&k)).await;
    assert!(store.scan(b"", None, 10).await.unwrap().is_empty());
    assert!(records.get::<Large>(&k).await.unwrap().is_none());

    // A chunk that is missing, and nobody is writing: damaged, not waited for.
    apply(&records, Changes::new().put(&k, &large(9000, 1))).await;
    let chunk = store.scan(&[0xff], None, 1).await.unwrap().remove(0).key;
    let batch = Batch {
        guards: vec![],
        writes: vec![Write::Delete(chunk)],
    };
    let _ = store.commit(batch).await.unwrap();
    assert!(matches!(
        records.get::<Large>(&k).await,
        Err(StoreError::Damaged { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_record_is_never_read_in_two_versions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let records = Arc::new(records(&store));
    let k = key("org/large");
    apply(&records, Changes::new().put(&k, &large(60_000, 0))).await;
    let writer = {
        let records = Arc::clone(&records);
        let k = k.clone();
        tokio::spawn(async move {
            for i in 1..=150_u8 {
                let length = 20_000 + usize::from(i) * 300;
                apply(&records, Changes::new().put(&k, &large(length, i))).await;
            }
        })
    };
    while !writer.is_finished() {
        let read = records.get::<Large>(&k).await.unwrap().unwrap();
        let first = read.value.bytes[0];
        assert!(read.value.bytes.iter().all(|byte| *byte == first));
        let rows = records.scan::<Large>(b"org/", None, 10).await.unwrap();
        assert_eq!(rows.len(), 1);
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

/// Writers raise a floor once they are answered; a reader that saw the floor must read no less, from the cache
/// or not. Some commits are abandoned by their callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_gets_from_the_cache_what_an_answered_commit_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let records = Arc::new(records(&store));
    let floor = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    apply(&records, Changes::new().put(&key("hot"), &small(0))).await;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (records, floor, done) = (records.clone(), floor.clone(), done.clone());
            tokio::spawn(async move {
                let mut highest = 0;
                while !done.load(Ordering::SeqCst) {
                    for _ in 0..100 {
                        let least = floor.load(Ordering::SeqCst).max(highest);
                        highest = count(&records, "hot").await.unwrap().unwrap();
                        assert!(highest >= least, "read {highest} after {least}");
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for i in 1..=400 {
        let commit = records.commit(Changes::new().put(&key("hot"), &small(i)));
        if i % 5 == 0 {
            let mut commit = Box::pin(commit);
            let _ = futures_util::poll!(&mut commit);
            drop(commit);
            // Nothing answers it, so wait until it can be read.
            let arrived = async {
                while count(&records, "hot").await.unwrap() != Some(i) {
                    tokio::task::yield_now().await;
                }
            };
            let within = std::time::Duration::from_secs(5);
            tokio::time::timeout(within, arrived).await.unwrap();
        } else {
            assert!(matches!(commit.await.unwrap(), Commit::Applied(_)));
        }
        floor.store(i, Ordering::SeqCst);
        // Puts it in the cache, for the next commit to replace.
        assert_eq!(count(&records, "hot").await, Ok(Some(i)));
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn past_its_queue_the_store_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new("example.test");
    options.queue = 4;
    let store = SledStore::open(dir.path(), options).unwrap();
    let commits = (0..500_u32).map(|i| {
        let batch = Batch {
            guards: vec![],
            writes: vec![Write::Put(i.to_be_bytes().to_vec(), vec![])],
        };
        store.commit(batch)
    });
    let outcomes = futures_util::future::join_all(commits).await;
    assert!(outcomes.contains(&Err(StoreError::Overloaded)));
    for (i, outcome) in (0_u32..).zip(outcomes) {
        let found = store.get(&i.to_be_bytes()).await.unwrap();
        match outcome {
            Ok(Commit::Applied(revision)) => assert_eq!(found.unwrap().revision, revision),
            Err(StoreError::Overloaded) => assert_eq!(found, None),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.healthy());
}
