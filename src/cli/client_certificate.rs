//! The client certificate of an API key that has to come over mTLS: a folder, mode 0700, with `key.pem` and
//! `cert.pem`, mode 0600.
//!
//! The key is made here and never leaves. It is on disk before the broker is asked, as `pending-key.pem`, and put
//! in place together with the certificate that the broker answers with.

use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use super::client::{ClientIdentity, certificates};
use super::error::{Failure, Kind};
use super::files;
use super::identity::{IdentityError, certificate_request, pem};

const PENDING_KEY: &str = "pending-key.pem";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";

/// The folder of a client certificate.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a key and a PKCS#10 request by it, DER. What is in the folder stays as it is until
    /// [`Folder::install`].
    pub fn request(&self) -> Result<Vec<u8>, Failure> {
        files::exclusive_folder(&self.0)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Key)?;
        let text = Zeroizing::new(key.serialize_pem());
        files::write_private(&self.0.join(PENDING_KEY), text.as_bytes())?;
        Ok(certificate_request(&key)?)
    }

    /// Puts the key of the last request in place, with the certificate that was issued for it.
    pub fn install(&self, chain_der: &[Vec<u8>]) -> Result<(), Failure> {
        if chain_der.is_empty() {
            return Err(Failure::new(
                Kind::Internal,
                "the broker's answer has no certificate",
            ));
        }
        files::rename(&self.0.join(PENDING_KEY), &self.0.join(KEY))?;
        let text = pem("CERTIFICATE", chain_der);
        Ok(files::write_private(&self.0.join(CERTIFICATE), text.as_bytes())?)
    }

    /// What is shown in the handshake.
    pub fn load(&self) -> Result<ClientIdentity, Failure> {
        let path = self.0.join(KEY);
        let bytes = files::read_private(&path)?;
        let key = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| KeyPair::from_pem(text).ok())
            .ok_or_else(|| {
                Failure::config(format!("{} holds no private key in PEM form", path.display()))
                    .remedy("Make a new one with 'credbroker api-key rotate --mtls'.")
            })?;
        Ok(ClientIdentity {
            chain_der: certificates(&self.0.join(CERTIFICATE))?,
            key_pkcs8: Zeroizing::new(key.serialize_der()),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rcgen::{CertificateParams, PublicKeyData};

    use super::*;

    #[test]
    fn a_certificate_comes_into_place_with_its_key_and_both_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("key"));
        assert!(folder.load().is_err());
        let first = folder.request().unwrap();
        let pending = std::fs::read_to_string(folder.path().join(PENDING_KEY)).unwrap();
        let key = KeyPair::from_pem(&pending).unwrap();
        assert!(!first.is_empty());
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        folder.install(&[certificate.der().to_vec()]).unwrap();
        // Another request leaves the pair as it is until it is answered.
        folder.request().unwrap();
        let loaded = folder.load().unwrap();
        assert_eq!(loaded.key_pkcs8.to_vec(), key.serialize_der());
        assert_eq!(loaded.chain_der[0].as_ref(), certificate.der().as_ref());
        assert!(!key.subject_public_key_info().is_empty());
        for name in [KEY, CERTIFICATE] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        assert!(folder.install(&[]).is_err());
    }
}
