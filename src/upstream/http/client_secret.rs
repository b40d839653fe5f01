//! The client secret that a connector refers to, read at each use and wiped after it.
//!
//! A reference is the operator's, and what it leads to may be anything: only a regular file is read, and only so much
//! of it as a secret can have.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::upstream::connector::{Connector, SecretRef};

/// The longest file with a secret, in bytes.
const MAX_FILE: usize = 64 * 1024;

/// Why a client secret cannot be had. Nothing of it is told.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("the environment variable {0} with the client secret is not set; set it and restart")]
    Unset(String),
    #[error(
        "the file {path} with the client secret cannot be read: {source}; check that it exists and its mode"
    )]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0} with the client secret is no regular file; name one")]
    NoFile(PathBuf),
    #[error(
        "the file {0} with the client secret has more than {MAX_FILE} bytes; it has to hold the secret alone"
    )]
    TooLong(PathBuf),
    #[error("the client secret is empty or no UTF-8; mend it")]
    Text,
}

/// The secret of `connector`; `None` where it has none.
pub(super) async fn read(connector: &Connector) -> Result<Option<Zeroizing<String>>, SecretError> {
    let mut secret = match connector.client_secret.clone() {
        None => return Ok(None),
        Some(SecretRef::Env(name)) => {
            let value = std::env::var(&name);
            Zeroizing::new(value.map_err(|_| SecretError::Unset(name))?)
        }
        Some(SecretRef::File(path)) => {
            let asked = path.clone();
            let read = tokio::task::spawn_blocking(move || file(&asked)).await;
            // Only a runtime that is being shut down does not get to it.
            let stopped = |stopped| SecretError::File {
                path,
                source: std::io::Error::other(stopped),
            };
            read.map_err(stopped)??
        }
    };
    if secret.ends_with('\n') {
        secret.pop();
        if secret.ends_with('\r') {
            secret.pop();
        }
    }
    if secret.is_empty() {
        Err(SecretError::Text)
    } else {
        Ok(Some(secret))
    }
}

/// The text of the file at `path`.
fn file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a pipe waits for whoever writes into it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::NoFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    // As large as it may get, so that growing leaves no copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MAX_FILE {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::Text)?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::upstream::connector::load::Connectors;

    async fn told(reference: &str) -> Result<Option<Zeroizing<String>>, String> {
        let text = format!(
            "[connectors.acme]\ntoken_url = \"https://id.example/t\"\nclient_id = \"c\"\n\
             client_auth = \"post\"\nclient_secret = {reference}\n"
        );
        let connectors = Connectors::load_text("test", &text).unwrap();
        let connector = connectors.get("acme").unwrap();
        read(connector).await.map_err(|fault| fault.to_string())
    }

    #[tokio::test]
    async fn only_a_regular_file_of_bounded_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let reference = |path: &Path| format!("{{ file = '{}' }}", path.display());
        for (content, secret) in [
            ("s3cret".to_owned(), "s3cret".to_owned()),
            ("s3cret\r\n".to_owned(), "s3cret".to_owned()),
            ("x".repeat(65_536), "x".repeat(65_536)),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(*told(&reference(&path)).await.unwrap().unwrap(), secret);
        }
        for (content, says) in [
            ("x".repeat(65_537).into_bytes(), "more than 65536 bytes"),
            (b"\n".to_vec(), "is empty or no UTF-8"),
            (b"s3cret\xff".to_vec(), "is empty or no UTF-8"),
        ] {
            std::fs::write(&path, content).unwrap();
            let fault = told(&reference(&path)).await.unwrap_err();
            assert!(fault.contains(says) && !fault.contains("s3cret"), "{fault}");
        }
        // What never ends, or never begins.
        for path in [Path::new("/dev/zero"), folder.path()] {
            let fault = told(&reference(path)).await.unwrap_err();
            assert!(fault.contains("is no regular file"), "{fault}");
        }
        let fault = told(&reference(&folder.path().join("none"))).await.unwrap_err();
        assert!(fault.contains("check that it exists"), "{fault}");
        let fault = told("{ env = \"CREDBROKER_TEST_UNSET\" }").await.unwrap_err();
        assert!(fault.contains("set it and restart"), "{fault}");
    }
}
