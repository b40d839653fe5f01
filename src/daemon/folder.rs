//! The data folder: made once, opened by one daemon at a time.
//!
//! ```text
//! master.key   the master key, mode 0600: what opens everything else
//! store/       the state, sealed
//! journal/     the journal
//! ca.pem       the root certificate, for people
//! ```

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::error::DaemonError;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::grant_token::{GrantKey, KEY_LENGTH};
use crate::domain::secret::{Exposure, KeyMaterial, Secret};
use crate::journal::{self, Journal, JournalError, OpenEffect, Options as JournalOptions, SigningKey};
use crate::pki::authority::{Authority, AuthorityParts};
use crate::pki::spiffe::TrustDomain;
use crate::store::model::{StoredAuthority, StoredGrantKey, StoredJournalKey};
use crate::store::record::{Changes, Records};
use crate::store::reserve::Reserve;
use crate::store::seal::{LocalMasterKey, Sealer};
use crate::store::sled::{Options as StoreOptions, SledStore};
use crate::store::{StoreError, keys};

/// The journal's folder.
const JOURNAL: &str = "journal";
/// How many decoded records are kept in memory.
const CACHED_RECORDS: usize = 200_000;

/// What the data folder holds, open.
pub(super) struct Opened {
    pub(super) store: Arc<SledStore>,
    pub(super) records: Arc<Records>,
    pub(super) journal: Journal,
    pub(super) open_effects: Vec<OpenEffect>,
    pub(super) authority: Authority,
    pub(super) grant_key: GrantKey,
}

fn master_key(folder: &Path) -> PathBuf {
    folder.join("master.key")
}

/// Whether there is a broker in the folder.
pub fn initialized(folder: &Path) -> bool {
    master_key(folder).exists()
}

/// Makes a broker in the configured data folder: master key, store, CA, journal key.
pub async fn initialize(config: &Config, clock: &Arc<dyn Clock>) -> Result<(), DaemonError> {
    let folder = &config.data_dir;
    if initialized(folder) {
        return Err(DaemonError::AlreadyInitialized(folder.clone()));
    }
    let trust_domain: TrustDomain = config.identity.trust_domain.parse()?;
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| DaemonError::File { path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(file(folder))?;
    let empty = fs::read_dir(folder).map_err(file(folder))?.next().is_none();
    if !empty {
        // Most likely a store whose master key was lost or moved: making another key would hide that.
        return Err(DaemonError::File {
            path: folder.clone(),
            source: std::io::Error::other("the folder is not empty. Name an empty one"),
        });
    }
    // The master key comes last into place, so that a folder with one is whole: all before it is made under
    // a key that is moved there when everything else is durable.
    let unfinished = folder.join("master.key.unfinished");
    LocalMasterKey::create(&unfinished)?;
    let master = LocalMasterKey::load(&unfinished)?;
    let (store, records) = open_store(config, master, Arc::clone(clock))?;

    let (authority, parts) = Authority::create(&trust_domain, clock.wall())?;
    let key = SigningKey::generate()?;
    let (journal, opened) = open_journal(
        folder,
        SigningKey::new(&key)?,
        Arc::clone(clock),
        JournalOptions::default(),
    )?;
    let closed = journal.close().await;
    closed.map_err(|source| DaemonError::Journal {
        folder: folder.clone(),
        source,
    })?;
    let journal_key = StoredJournalKey {
        key,
        journal: (*opened.journal.as_bytes()).into(),
    };
    let changes = Changes::new()
        .absent(&keys::authority())
        .put(&keys::authority(), &stored_authority(&parts))
        .put(&keys::journal_key(), &journal_key);
    let failed = |source| DaemonError::Store {
        folder: folder.clone(),
        source,
    };
    let _applied = records.commit(changes).await.map_err(failed)?;
    let pem = pem(&authority.trust_bundle_der());
    let ca = folder.join("ca.pem");
    fs::write(&ca, pem).map_err(file(&ca))?;
    drop(records);
    store.close();
    drop(store);
    let path = master_key(folder);
    fs::rename(&unfinished, &path).map_err(file(&path))?;
    fs::File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(file(folder))
}

/// Opens the data folder.
pub(super) async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    journal_options: JournalOptions,
) -> Result<Opened, DaemonError> {
    let folder = &config.data_dir;
    if !initialized(folder) {
        return Err(DaemonError::NotInitialized(folder.clone()));
    }
    let master = LocalMasterKey::load(&master_key(folder))?;
    let (store, records) = open_store(config, master, Arc::clone(&clock))?;
    let failed = |source| DaemonError::Store {
        folder: folder.clone(),
        source,
    };
    let missing = || failed(StoreError::Failed("it was not initialized to its end".to_owned()));
    let stored = records
        .get::<StoredAuthority>(&keys::authority())
        .await
        .map_err(failed)?;
    let authority =
        Authority::from_parts(&authority_parts(&stored.ok_or_else(missing)?.value), clock.wall())?;
    let stored = records
        .get::<StoredJournalKey>(&keys::journal_key())
        .await
        .map_err(failed)?;
    let stored = stored.ok_or_else(missing)?;
    let (journal, opened) = open_journal(
        folder,
        SigningKey::new(&stored.value.key)?,
        clock,
        journal_options,
    )?;
    if opened.journal.as_bytes() != &*stored.value.journal {
        return Err(DaemonError::ForeignJournal(folder.join(JOURNAL)));
    }
    if let Some(bytes) = opened.recovered_tail {
        tracing::warn!(
            bytes,
            "the journal ended in a half-written record, which was cut off"
        );
    }
    let open_effects = opened.open_effects;
    let grant_key = grant_key(&records).await.map_err(failed)?;
    Ok(Opened {
        store,
        records,
        journal,
        open_effects,
        authority,
        grant_key,
    })
}

/// The key of proxy grants, made at the first start that asks for it.
async fn grant_key(records: &Records) -> Result<GrantKey, StoreError> {
    let at = keys::grant_key();
    if let Some(stored) = records.get::<StoredGrantKey>(&at).await? {
        return Ok(GrantKey::new(&stored.value.key));
    }
    let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| StoreError::Failed("the system's random source failed".to_owned()))?;
    let made = StoredGrantKey {
        key: Secret::new(bytes.to_vec()),
    };
    let _applied = records.commit(Changes::new().absent(&at).put(&at, &made)).await?;
    Ok(GrantKey::new(&made.key))
}

fn open_journal(
    folder: &Path,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    options: JournalOptions,
) -> Result<(Journal, journal::Opened), DaemonError> {
    Journal::open(&folder.join(JOURNAL), key, clock, options).map_err(|error| match error {
        JournalError::InUse => DaemonError::InUse(folder.to_owned()),
        source => DaemonError::Journal {
            folder: folder.to_owned(),
            source,
        },
    })
}

fn open_store(
    config: &Config,
    master: LocalMasterKey,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<SledStore>, Arc<Records>), DaemonError> {
    let folder = &config.data_dir;
    let failed = |error| match error {
        StoreError::InUse => DaemonError::InUse(folder.clone()),
        source => DaemonError::Store {
            folder: folder.clone(),
            source,
        },
    };
    let options = StoreOptions {
        queue: config.store.queue,
        ..StoreOptions::new(&*config.identity.trust_domain)
    };
    let store = SledStore::open(&folder.join("store"), options).map_err(failed)?;
    let sealer = Sealer::open(store.clone(), Arc::new(master)).map_err(failed)?;
    let reserve = Reserve::new(folder.clone(), clock);
    let records = Records::new(store.clone(), Arc::new(sealer), CACHED_RECORDS).within(reserve);
    Ok((store, Arc::new(records)))
}

fn copy(key: &Secret<KeyMaterial>) -> Secret<KeyMaterial> {
    Secret::new(key.expose(Exposure::Seal).to_vec())
}

fn stored_authority(parts: &AuthorityParts) -> StoredAuthority {
    StoredAuthority {
        root: parts.root_der.clone().into(),
        root_key: copy(&parts.root_key),
        issuing: parts.issuing_der.clone().into(),
        issuing_key: copy(&parts.issuing_key),
    }
}

fn authority_parts(stored: &StoredAuthority) -> AuthorityParts {
    AuthorityParts {
        root_der: stored.root.to_vec(),
        root_key: copy(&stored.root_key),
        issuing_der: stored.issuing.to_vec(),
        issuing_key: copy(&stored.issuing_key),
    }
}

/// Certificates as PEM (RFC 7468 section 5).
fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(der);
        // Base64 is ASCII, so any 64 bytes of it are 64 characters.
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
