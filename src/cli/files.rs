//! Files that hold secrets or identity: written whole or not at all, and readable by their owner only.
//!
//! A reader sees the old content or the new, never a mixture, whatever interrupts the writer.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The most that is read of any of our files; all of them are far smaller.
pub const MAX_BYTES: u64 = 256 * 1024;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else may read it: what it holds may be known to others already.
    #[error("{} is open to other users of this machine (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not one of ours.
    #[error("{} is larger than {MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{} is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            FileError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "Run as the user who owns it, or mend its permissions.".to_owned()
            }
            FileError::Io { path, .. } => format!("Check that {} can be used.", path.display()),
            FileError::Exposed { path, .. } => format!(
                "Run 'chmod 600 {}'; replace the secret if others may have read it.",
                path.display()
            ),
            FileError::TooLarge { .. } | FileError::NotText { .. } => {
                "Check that the path is right.".to_owned()
            }
        }
    }

    /// Whether the file is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}

/// Makes the folder and its parents, each mode 0700 where it is new.
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make the folder", path))
}

/// As [`private_folder`], and takes group and others their access to a folder that was there before.
pub fn exclusive_folder(path: &Path) -> Result<(), FileError> {
    private_folder(path)?;
    let mode = fs::metadata(path).map_err(failed("look at", path))?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(failed("set the permissions of", path))
}

/// Replaces the content of `path` in one step, with mode 0600, and returns once it would survive a power cut.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut random = [0; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| failed("draw a random name beside", path)(io::Error::other("no random bytes")))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", u64::from_le_bytes(random)));
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("write", path)));
    if written.is_err() {
        // The failure that matters is the one above; a stray temporary file is private and empty or whole.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder_of(path)
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("make", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", path))
}

/// A lock that is this process's alone while it is held; `None` where another process has it.
pub fn try_lock(path: &Path) -> Result<Option<File>, FileError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("make", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", path)(source)),
    }
}

/// Moves a file within its folder, durably.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    sync_folder_of(to)
}

/// Removes a file, durably; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(source)),
        _ => sync_folder_of(path),
    }
}

/// Removes a file, durably, where there is one; its folder may be missing too.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    if path.exists() { remove(path) } else { Ok(()) }
}

fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync", folder))
}

/// Reads text that need not be kept from others.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let mut content = read(path, false)?;
    String::from_utf8(std::mem::take(&mut *content)).map_err(|_| FileError::NotText {
        path: path.to_owned(),
    })
}

/// Reads a secret, and refuses one that other users can read or change.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, true)
}

fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(failed("read", path))?;
    // Asked of the open file, so that what is judged is what is read.
    let metadata = file.metadata().map_err(failed("look at", path))?;
    let mode = metadata.mode() & 0o777;
    if private && metadata.is_file() && mode & 0o077 != 0 {
        return Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    if content.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(content)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_private_even_over_an_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            read_private(&path),
            Err(FileError::Exposed { mode: 0o644, .. })
        ));
        write_private(&path, b"new").unwrap();
        assert_eq!(&**read_private(&path).unwrap(), b"new");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn an_exposed_file_says_how_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).err().unwrap();
        assert!(error.to_string().contains("mode 640"), "{error}");
        assert!(error.remedy().contains("chmod 600"));
    }

    #[test]
    fn an_exclusive_folder_loses_the_access_others_had() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        exclusive_folder(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        assert!(matches!(
            read_text(Path::new("/dev/zero")),
            Err(FileError::TooLarge { .. })
        ));
    }
}
