//! An agent's identity on disk: a folder, mode 0700, that enrollment fills and every later call reads.
//!
//! `key.pem`, `cert.pem`, `ca.pem`, `runtime-key` and, written last, `identity.toml`: where that is, the
//! identity is complete. A new key is stored as `pending-key.pem` before anything is sent, so that an
//! enrollment that breaks off is taken up again with the same key; an identity that is there already stays
//! usable until the broker has answered.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcetera::BaseStrategy;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::client::ClientIdentity;
use super::error::{Failure, Kind};
use super::files::{self, FileError};
use crate::domain::secret::{ActorToken, Exposure, Secret};

const ABOUT: &str = "identity.toml";
const PENDING_KEY: &str = "pending-key.pem";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const ROOTS: &str = "ca.pem";
const RUNTIME_KEY: &str = "runtime-key";

/// Why an identity cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the folder is not what it should be.
    #[error("{} is not valid: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// `identity.toml` cannot be written as TOML.
    #[error("the identity cannot be written: {0}")]
    Unwritable(#[from] toml::ser::Error),
    /// A key or a certificate request cannot be made.
    #[error("cannot make a key or a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// The broker's answer cannot be an identity.
    #[error("the broker's answer is incomplete: {0}")]
    Answer(&'static str),
    /// There is no identity.
    #[error("there is no identity in {}", .0.display())]
    Missing(PathBuf),
    /// The machine does not say where data belongs.
    #[error("the home folder of this user is not known")]
    NoHome,
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let what = error.to_string();
        match error {
            IdentityError::File(error) => error.into(),
            IdentityError::Malformed { .. } | IdentityError::Unwritable(_) | IdentityError::Missing(_) => {
                Failure::config(what)
                    .remedy("Enroll with 'credbroker enroll' (--force replaces an identity).")
            }
            IdentityError::Key(_) => Failure::new(Kind::Internal, what),
            IdentityError::Answer(_) => {
                Failure::new(Kind::Internal, what).remedy("Compare this program's version with the broker's.")
            }
            IdentityError::NoHome => {
                Failure::config(what).remedy("Give --identity, or set CREDBROKER_IDENTITY.")
            }
        }
    }
}

/// What is told of an identity; no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The agent, `agt_…`.
    pub agent: String,
    /// Its org.
    pub org: String,
    /// Its environment.
    pub environment: String,
    /// The broker, `HOST:PORT`.
    pub address: String,
    /// When the certificate ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expire_time: Option<String>,
}

/// What enrollment brings.
pub struct Enrolled {
    /// Who and where.
    pub about: About,
    /// The runtime key.
    pub runtime_key: Secret<ActorToken>,
    /// The certificate chain, DER, the agent's own first.
    pub chain_der: Vec<Vec<u8>>,
    /// The roots to trust, DER.
    pub roots_der: Vec<Vec<u8>>,
}

/// An identity ready for use.
pub struct Identity {
    /// Who and where.
    pub about: About,
    /// The runtime key.
    pub runtime_key: Secret<ActorToken>,
    /// What is shown in the handshake.
    pub client: ClientIdentity,
    /// The roots to trust.
    pub roots: Vec<CertificateDer<'static>>,
}

/// The folder of an identity.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder at `path`, otherwise `credbroker/identity` under the XDG data folder.
    pub fn or_default(path: Option<&Path>) -> Result<Self, IdentityError> {
        match path {
            Some(path) => Ok(Self::at(path)),
            None => etcetera::choose_base_strategy()
                .map(|strategy| Self::at(strategy.data_dir().join("credbroker").join("identity")))
                .map_err(|_| IdentityError::NoHome),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is told of the identity; `None` where there is no complete one.
    pub fn about(&self) -> Result<Option<About>, IdentityError> {
        let path = self.path.join(ABOUT);
        let text = match files::read_text(&path) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|error| IdentityError::Malformed {
                path,
                message: error.message().to_owned(),
            })
    }

    /// The key to enroll with: that of an enrollment that broke off, otherwise a new one, which is on disk
    /// when this returns.
    pub fn key_for_enrollment(&self) -> Result<KeyPair, IdentityError> {
        files::exclusive_folder(&self.path)?;
        if let Some(key) = self.key_in(PENDING_KEY)? {
            return Ok(key);
        }
        // The key was put in place, but the identity was not completed.
        if self.about()?.is_none()
            && let Some(key) = self.key_in(KEY)?
        {
            return Ok(key);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = Zeroizing::new(key.serialize_pem());
        files::write_private(&self.path.join(PENDING_KEY), pem.as_bytes())?;
        Ok(key)
    }

    fn key_in(&self, name: &str) -> Result<Option<KeyPair>, IdentityError> {
        let path = self.path.join(name);
        let pem = match files::read_private(&path) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let text = std::str::from_utf8(&pem).unwrap_or_default();
        KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
            .map(Some)
            .map_err(|error| IdentityError::Malformed {
                path,
                message: error.to_string(),
            })
    }

    /// Puts an identity in place, complete once this returns. Broken off halfway, enrolling again with the
    /// same token completes it.
    pub fn install(&self, enrolled: &Enrolled) -> Result<(), IdentityError> {
        if enrolled.chain_der.is_empty() {
            return Err(IdentityError::Answer("it has no certificate"));
        }
        if enrolled.roots_der.is_empty() {
            return Err(IdentityError::Answer("it has no roots to trust"));
        }
        if enrolled.runtime_key.is_empty() {
            return Err(IdentityError::Answer("it has no runtime key"));
        }
        let about = toml::to_string(&enrolled.about)?;
        let at = |name: &str| self.path.join(name);
        files::remove(&at(ABOUT))?;
        match files::rename(&at(PENDING_KEY), &at(KEY)) {
            // There is none where an enrollment is completed whose key is in place.
            Err(error) if error.is_missing() => {}
            other => other?,
        }
        files::write_private(
            &at(CERTIFICATE),
            pem("CERTIFICATE", &enrolled.chain_der).as_bytes(),
        )?;
        files::write_private(&at(ROOTS), pem("CERTIFICATE", &enrolled.roots_der).as_bytes())?;
        files::write_private(&at(RUNTIME_KEY), enrolled.runtime_key.expose(Exposure::Present))?;
        Ok(files::write_private(&at(ABOUT), about.as_bytes())?)
    }

    /// Puts a renewed certificate in place of the earlier one for the same key. Each file is replaced in one
    /// step, and any mixture of old and new ones works.
    pub fn replace_certificate(
        &self,
        chain_der: &[Vec<u8>],
        roots_der: &[Vec<u8>],
        about: &About,
    ) -> Result<(), IdentityError> {
        if chain_der.is_empty() || roots_der.is_empty() {
            return Err(IdentityError::Answer(
                "it has no certificate, or no roots to trust",
            ));
        }
        let about = toml::to_string(about)?;
        let at = |name: &str| self.path.join(name);
        files::write_private(&at(ROOTS), pem("CERTIFICATE", roots_der).as_bytes())?;
        files::write_private(&at(CERTIFICATE), pem("CERTIFICATE", chain_der).as_bytes())?;
        Ok(files::write_private(&at(ABOUT), about.as_bytes())?)
    }

    /// A request for a new certificate for the key there is.
    pub fn renewal_request(&self) -> Result<Vec<u8>, IdentityError> {
        let key = self
            .key_in(KEY)?
            .ok_or_else(|| IdentityError::Missing(self.path.clone()))?;
        certificate_request(&key)
    }

    /// A signature by the identity's key: ECDSA with SHA-256, in DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let key = self
            .key_in(KEY)?
            .ok_or_else(|| IdentityError::Missing(self.path.clone()))?;
        Ok(key.sign(message)?)
    }

    /// Reads a complete identity.
    pub fn load(&self) -> Result<Identity, IdentityError> {
        let missing = || IdentityError::Missing(self.path.clone());
        let about = self.about()?.ok_or_else(missing)?;
        let key = self.key_in(KEY)?.ok_or_else(missing)?;
        let runtime_key = files::read_private(&self.path.join(RUNTIME_KEY))?;
        Ok(Identity {
            about,
            runtime_key: Secret::new(runtime_key.trim_ascii().to_vec()),
            client: ClientIdentity {
                chain_der: self.certificates_in(CERTIFICATE)?,
                key_pkcs8: Zeroizing::new(key.serialize_der()),
            },
            roots: self.certificates_in(ROOTS)?,
        })
    }

    fn certificates_in(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let path = self.path.join(name);
        let text = files::read_text(&path)?;
        match CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(IdentityError::Malformed {
                path,
                message: "it holds no certificate in PEM form".to_owned(),
            }),
        }
    }
}

/// A PKCS#10 request (RFC 2986) by `key`, DER, with an empty subject and no extensions: the broker decides
/// the names.
pub fn certificate_request(key: &KeyPair) -> Result<Vec<u8>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Textual encoding (RFC 7468).
pub(super) fn pem(label: &str, ders: &[Vec<u8>]) -> String {
    let mut out = String::new();
    for der in ders {
        let text = STANDARD.encode(der);
        out += &format!("-----BEGIN {label}-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            out += line;
            out.push('\n');
            rest = after;
        }
        out += &format!("-----END {label}-----\n");
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rcgen::PublicKeyData;

    use super::*;

    fn enrolled(key: &KeyPair, runtime_key: &str) -> Enrolled {
        let certificate = CertificateParams::default().self_signed(key).unwrap();
        Enrolled {
            about: About {
                agent: "agt_1".into(),
                org: "org_1".into(),
                environment: "env_1".into(),
                address: "broker:7420".into(),
                certificate_expire_time: None,
            },
            runtime_key: Secret::from(runtime_key.to_owned()),
            chain_der: vec![certificate.der().to_vec(), certificate.der().to_vec()],
            roots_der: vec![certificate.der().to_vec()],
        }
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path().join("identity"));
        (temp, folder)
    }

    #[test]
    fn what_is_installed_loads_and_is_private() {
        let (_temp, folder) = folder();
        let key = folder.key_for_enrollment().unwrap();
        folder.install(&enrolled(&key, "cbr_1")).unwrap();
        let identity = folder.load().unwrap();
        assert_eq!(identity.about.agent, "agt_1");
        assert_eq!(identity.runtime_key.expose_str(Exposure::Inspect), Some("cbr_1"));
        assert_eq!(identity.client.chain_der.len(), 2);
        assert_eq!(&*identity.client.key_pkcs8, key.serialized_der());
        assert_eq!(std::fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(
                entry.metadata().unwrap().mode() & 0o777,
                0o600,
                "{:?}",
                entry.path()
            );
        }
    }

    #[test]
    fn a_broken_off_enrollment_goes_on_with_the_same_key() {
        let (_temp, folder) = folder();
        let first = folder.key_for_enrollment().unwrap();
        let second = folder.key_for_enrollment().unwrap();
        assert_eq!(first.public_key_raw(), second.public_key_raw());
        assert!(matches!(folder.load(), Err(IdentityError::Missing(_))));

        // Broken off while the answer was being written: the key is in place, the rest is not.
        folder.install(&enrolled(&first, "cbr_1")).unwrap();
        std::fs::remove_file(folder.path().join(ABOUT)).unwrap();
        let third = folder.key_for_enrollment().unwrap();
        assert_eq!(first.public_key_raw(), third.public_key_raw());
        folder.install(&enrolled(&third, "cbr_2")).unwrap();
        assert_eq!(
            folder.load().unwrap().runtime_key.expose_str(Exposure::Inspect),
            Some("cbr_2")
        );
    }

    #[test]
    fn enrolling_anew_takes_a_new_key_and_spares_the_old_identity_until_it_is_done() {
        let (_temp, folder) = folder();
        let old = folder.key_for_enrollment().unwrap();
        folder.install(&enrolled(&old, "cbr_old")).unwrap();
        let new = folder.key_for_enrollment().unwrap();
        assert_ne!(old.public_key_raw(), new.public_key_raw());
        assert_eq!(&*folder.load().unwrap().client.key_pkcs8, old.serialized_der());
        folder.install(&enrolled(&new, "cbr_new")).unwrap();
        assert_eq!(&*folder.load().unwrap().client.key_pkcs8, new.serialized_der());
        assert!(!folder.path().join(PENDING_KEY).exists());
    }

    #[test]
    fn an_incomplete_answer_touches_nothing() {
        let (_temp, folder) = folder();
        let key = folder.key_for_enrollment().unwrap();
        folder.install(&enrolled(&key, "cbr_1")).unwrap();
        let mut wrong = enrolled(&key, "cbr_2");
        wrong.roots_der.clear();
        assert!(matches!(folder.install(&wrong), Err(IdentityError::Answer(_))));
        assert_eq!(
            folder.load().unwrap().runtime_key.expose_str(Exposure::Inspect),
            Some("cbr_1")
        );
    }

    #[test]
    fn the_request_asks_for_no_name_and_no_extension() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let der = certificate_request(&key).unwrap();
        let parsed = rcgen::CertificateSigningRequestParams::from_der(&der.as_slice().into()).unwrap();
        assert_eq!(parsed.params.distinguished_name.iter().count(), 0);
        assert!(parsed.params.subject_alt_names.is_empty() && parsed.params.custom_extensions.is_empty());
        assert_eq!(parsed.public_key.der_bytes(), key.der_bytes());
        // An empty subject (30 00) and, after the key, the empty attribute set (a0 00).
        let info = &der[4..];
        assert!(info.windows(5).any(|w| w == [0x02, 0x01, 0x00, 0x30, 0x00]));
        let spki = key.subject_public_key_info();
        let end = der.windows(spki.len()).position(|w| w == spki).unwrap() + spki.len();
        assert_eq!(&der[end..end + 2], [0xa0, 0x00]);
    }
}
