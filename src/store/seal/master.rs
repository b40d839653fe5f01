//! The master key: what wraps the data keys. Here a local file; a key service later, behind the same trait.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::domain::secret::{Exposure, KeyMaterial, Secret};
use crate::store::StoreError;

/// Why a key was not wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// It was not wrapped by this master key, or for another context.
    #[error("not wrapped by this master key")]
    Refused,
    /// The keeper of the master key did not answer.
    #[error("the master key cannot be reached: {0}")]
    Unavailable(String),
}

impl From<WrapError> for StoreError {
    fn from(error: WrapError) -> Self {
        match error {
            WrapError::Refused => StoreError::WrongMasterKey,
            WrapError::Unavailable(why) => StoreError::MasterKeyUnavailable(why),
        }
    }
}

/// Wraps data keys. Called at opening and when a data key is made; may block.
pub trait KeyWrap: Send + Sync + 'static {
    /// Wraps `key`, bound to `context`.
    fn wrap(&self, context: &[u8], key: &[u8]) -> Result<Vec<u8>, WrapError>;

    /// What was wrapped for `context`.
    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError>;
}

/// Why a master key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// It cannot be read or written.
    #[error("the master key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner have access.
    #[error(
        "the master key file {path} has mode {mode:04o}: make it readable for its owner only (chmod 600)"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("the master key file {path} does not hold 32 bytes in base64")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A master key held in this process.
pub struct LocalMasterKey {
    key: LessSafeKey,
}

const KEY: usize = 32;
/// 32 bytes in base64.
const TEXT: usize = 44;

impl LocalMasterKey {
    /// The key of these 32 bytes; `None` where they are not 32.
    pub fn new(bytes: &Secret<KeyMaterial>) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, bytes.expose(Exposure::Inspect)).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
        })
    }

    /// Reads the key file at `path`, which none but its owner may have access to.
    pub fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let mut file = File::open(path).map_err(io(path))?;
        let mode = file.metadata().map_err(io(path))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(MasterKeyError::Permissions {
                path: path.to_owned(),
                mode,
            });
        }
        // Longer than a key file ever is, so that one which is too long is seen, and never grown.
        let mut text = Zeroizing::new([0; TEXT + 20]);
        let mut length = 0;
        while let read @ 1.. = file.read(&mut text[length..]).map_err(io(path))? {
            length += read;
        }
        let malformed = || MasterKeyError::Malformed {
            path: path.to_owned(),
        };
        let mut bytes = Zeroizing::new(vec![0; KEY + 1]);
        let decoded = STANDARD
            .decode_slice(text[..length].trim_ascii(), &mut bytes)
            .map_err(|_| malformed())?;
        let bytes = Secret::new(bytes.get(..decoded).ok_or_else(malformed)?.to_vec());
        Self::new(&bytes).ok_or_else(malformed)
    }

    /// Makes a random key and its file at `path`, mode 0600. The file is there whole and durable, or not at
    /// all; an existing one is never replaced.
    pub fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new(vec![0; KEY]);
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| io(path)(std::io::Error::other("the system gives no random numbers")))?;
        let mut text = Zeroizing::new([0; TEXT + 1]);
        STANDARD
            .encode_slice(&bytes, &mut text[..TEXT])
            .map_err(|error| io(path)(std::io::Error::other(error)))?;
        text[TEXT] = b'\n';
        write_new(path, &*text).map_err(io(path))?;
        let bytes = Secret::new(std::mem::take(&mut *bytes));
        Self::new(&bytes).ok_or_else(|| MasterKeyError::Malformed {
            path: path.to_owned(),
        })
    }
}

/// Writes beside `path`, syncs, and links to `path`, which fails where something is there.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = parent.join(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::hard_link(&beside, path));
    let removed = fs::remove_file(&beside);
    written?;
    removed?;
    File::open(parent)?.sync_all()
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> MasterKeyError {
    move |source| MasterKeyError::Io {
        path: path.to_owned(),
        source,
    }
}

impl KeyWrap for LocalMasterKey {
    fn wrap(&self, context: &[u8], key: &[u8]) -> Result<Vec<u8>, WrapError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| WrapError::Unavailable("the system gives no random numbers".to_owned()))?;
        let mut wrapped = Vec::with_capacity(NONCE_LEN + key.len() + AES_256_GCM.tag_len());
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(key);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut wrapped[NONCE_LEN..],
            )
            .map_err(|_| WrapError::Unavailable("the key is too long".to_owned()))?;
        wrapped.extend_from_slice(tag.as_ref());
        Ok(wrapped)
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapError> {
        let (nonce, wrapped) = wrapped.split_at_checked(NONCE_LEN).ok_or(WrapError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WrapError::Refused)?;
        let mut key = Zeroizing::new(wrapped.to_vec());
        let length = self
            .key
            .open_in_place(nonce, Aad::from(context), &mut key)
            .map_err(|_| WrapError::Refused)?
            .len();
        key.truncate(length);
        Ok(key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_created_key_loads_as_the_same_key_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let made = LocalMasterKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let wrapped = made.wrap(b"context", b"a key").unwrap();
        let loaded = LocalMasterKey::load(&path).unwrap();
        assert_eq!(*loaded.unwrap(b"context", &wrapped).unwrap(), b"a key");
        assert_eq!(loaded.unwrap(b"other", &wrapped).unwrap_err(), WrapError::Refused);

        let before = fs::read(&path).unwrap();
        assert!(matches!(
            LocalMasterKey::create(&path),
            Err(MasterKeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists
        ));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_open_to_others_or_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        LocalMasterKey::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            LocalMasterKey::load(&path),
            Err(MasterKeyError::Permissions { mode: 0o640, .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "AAAA", &"A".repeat(45), &"A".repeat(300)] {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(LocalMasterKey::load(&path), Err(MasterKeyError::Malformed { .. })),
                "{text}"
            );
        }
    }
}
