//! Opening a store: lock, clean up after a crash, check what the store is, start the committer.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::sled::{Config, Db};
use ring::rand::{SecureRandom, SystemRandom};

use super::super::{Revision, StoreError};
use super::SledStore;
use super::committer::{self, Committer};
use super::engine::{Engine, META, STATE, failed};

/// How often the lock is tried, and the pause between: half a second together.
const LOCK_ATTEMPTS: usize = 25;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// The schema this program writes, and the newest it reads.
pub const SCHEMA: u32 = 1;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The trust domain; a new store is made for it, an existing one must agree.
    pub trust_domain: String,
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// How many commits may wait for the committer.
    pub queue: usize,
    /// How many changes are remembered for [`super::super::Kv::watch`].
    pub remembered_changes: usize,
}

impl Options {
    /// The defaults: 256 MiB of cache, 8 192 waiting commits, 16 384 changes.
    pub fn new(trust_domain: impl Into<String>) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            cache_bytes: 256 * 1024 * 1024,
            queue: 8192,
            remembered_changes: 16_384,
        }
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Random, made with the store.
    pub id: [u8; 16],
    /// The trust domain it was made for.
    pub trust_domain: String,
    /// The schema it was written with.
    pub schema: u32,
    /// Raised whenever the store is restored from a copy, so that what was promised in between is suspect.
    pub epoch: u64,
}

mod name {
    pub(super) const SCHEMA: &str = "schema";
    pub(super) const ID: &str = "store.id";
    pub(super) const TRUST_DOMAIN: &str = "store.trust-domain";
    pub(super) const EPOCH: &str = "store.epoch";
}

impl SledStore {
    /// Opens the store in `dir`, making it where there is none. Blocks: for a large store, for the seconds
    /// that sled takes to recover.
    pub fn open(dir: &Path, options: Options) -> Result<Arc<SledStore>, StoreError> {
        fs::create_dir_all(dir).map_err(|error| io(dir, &error))?;
        let lock = lock(dir)?;
        remove_unfinished_snapshots(dir)?;
        let db = open_db(dir, &options)?;
        sync_entries(dir)?;
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join("db"))
            .map_err(|error| io(dir, &error))?;

        // The schema is judged before anything is written: a newer store stays as it was.
        let meta = db.open_tree(META).map_err(failed)?;
        let schema = match meta.get(name::SCHEMA).map_err(failed)? {
            Some(bytes) => Some(u32::from_be_bytes(fixed(name::SCHEMA, &bytes)?)),
            None => None,
        };
        if let Some(found) = schema.filter(|found| *found > SCHEMA) {
            return Err(StoreError::TooNew {
                found,
                supported: SCHEMA,
            });
        }
        let state = db.open_tree(STATE).map_err(failed)?;
        let newest = committer::reserved(&meta)?;
        let engine = Arc::new(Engine::new(
            db,
            state,
            meta,
            log,
            options.remembered_changes,
            Revision(newest),
        ));
        let info = if schema.is_some() {
            read_info(&engine)?
        } else {
            make_info(&engine, &options.trust_domain)?
        };
        if info.trust_domain != options.trust_domain {
            return Err(StoreError::WrongTrustDomain {
                found: info.trust_domain,
                configured: options.trust_domain,
            });
        }

        Self::start(engine, options.queue, newest, info, lock)
    }

    /// Starts the committer of an engine whose newest revision is `newest`.
    pub(super) fn start(
        engine: Arc<Engine>,
        queue: usize,
        newest: u64,
        info: StoreInfo,
        lock: File,
    ) -> Result<Arc<SledStore>, StoreError> {
        let queued = Arc::new(AtomicUsize::new(0));
        let (jobs, committer) =
            Committer::new(Arc::clone(&engine), Arc::clone(&queued), queue.max(1), newest);
        let committer = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| StoreError::Failed(format!("starting the committer: {error}")))?;
        Ok(Arc::new(SledStore {
            engine,
            jobs,
            queued,
            committer: Mutex::new(Some(committer)),
            closed: AtomicBool::new(false),
            info,
            _lock: lock,
        }))
    }

    /// Raises the epoch of the store in `dir` by one: for a command that restores a copy. The store must not
    /// be open. Returns the new epoch.
    pub fn raise_epoch(dir: &Path, options: Options) -> Result<u64, StoreError> {
        let store = Self::open(dir, options)?;
        let epoch = store.info.epoch + 1;
        super::super::Meta::set_meta(&*store, &[(name::EPOCH, &epoch.to_be_bytes())])?;
        Ok(epoch)
    }
}

/// Takes the folder for this process, by a lock of our own: sled's is taken too late, after the point where
/// the other process's files could have been cleaned up under it.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| io(&path, &error))?;
    // An owner that has just ended may be held up for a moment: a process being started shares its files
    // until it has replaced itself.
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(io(&path, &error)),
        }
    }
    Err(StoreError::InUse)
}

/// A crash while sled opens leaves a half-written snapshot, which the next opening takes for corruption.
/// It is derived from the log, so nothing is lost with it.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(|error| io(dir, &error))? {
        let entry = entry.map_err(|error| io(dir, &error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(|error| io(&entry.path(), &error))?;
        }
    }
    Ok(())
}

/// sled's threads may hold its own lock for a moment after a store of this process was closed; we hold ours,
/// so waiting is safe.
fn open_db(dir: &Path, options: &Options) -> Result<Db, StoreError> {
    let config = Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(None);
    let mut tries = 0;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(::sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                tries += 1;
                if tries > 50 {
                    return Err(StoreError::InUse);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Makes the files that sled created durable: it syncs neither its settings nor the folder.
fn sync_entries(dir: &Path) -> Result<(), StoreError> {
    for path in [dir.join("conf"), dir.to_owned()] {
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|error| io(&path, &error))?;
    }
    Ok(())
}

fn make_info(engine: &Engine, trust_domain: &str) -> Result<StoreInfo, StoreError> {
    let mut id = [0; 16];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| StoreError::Failed("the system gives no random numbers".to_owned()))?;
    let epoch = 1_u64;
    engine.write_meta(&[
        (name::SCHEMA, &SCHEMA.to_be_bytes()),
        (name::ID, &id),
        (name::TRUST_DOMAIN, trust_domain.as_bytes()),
        (name::EPOCH, &epoch.to_be_bytes()),
    ])?;
    Ok(StoreInfo {
        id,
        trust_domain: trust_domain.to_owned(),
        schema: SCHEMA,
        epoch,
    })
}

fn read_info(engine: &Engine) -> Result<StoreInfo, StoreError> {
    let read = |name: &str| {
        engine
            .meta(name)?
            .ok_or_else(|| StoreError::Failed(format!("the store has no {name}")))
    };
    Ok(StoreInfo {
        id: fixed(name::ID, &read(name::ID)?)?,
        trust_domain: String::from_utf8_lossy(&read(name::TRUST_DOMAIN)?).into_owned(),
        schema: u32::from_be_bytes(fixed(name::SCHEMA, &read(name::SCHEMA)?)?),
        epoch: u64::from_be_bytes(fixed(name::EPOCH, &read(name::EPOCH)?)?),
    })
}

/// A meta value of a fixed length.
pub(super) fn fixed<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::Failed(format!("the store's {name} has the wrong length")))
}

fn io(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Failed(format!("{}: {error}", path.display()))
}
