//! Certificate signing requests (PKCS #10, RFC 2986), taken for one thing only: the public key and the
//! proof that the caller holds its private half.
//!
//! [`CheckedCsr`] can only be made by [`CheckedCsr::parse`], so whoever has one need not check again.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::key::KeyFingerprint;
use crate::domain::reason::Reason;

/// The longest request taken, in bytes. An honest one has about 200.
pub const MAX_CSR: usize = 8 * 1024;

/// A SubjectPublicKeyInfo up to the uncompressed point's tag: id-ecPublicKey with secp256r1 (RFC 5480
/// sections 2.1.1 and 2.2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// A SubjectPublicKeyInfo up to the key: id-Ed25519, no parameters (RFC 8410 sections 3 and 4).
const ED25519_SPKI: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a request was refused. Always the fault of the caller who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// It is no signing request, or its signature does not fit its key.
    #[error("the certificate signing request is not valid: {0}")]
    Invalid(&'static str),
    /// The key is neither ECDSA P-256 (uncompressed) nor Ed25519.
    #[error("the key of the certificate signing request is neither ECDSA P-256 nor Ed25519")]
    KeyUnsupported,
    /// It names a subject or asks for attributes. The broker decides what a certificate says.
    #[error("the certificate signing request asks for {0}: leave its subject empty and ask for nothing")]
    AsksTooMuch(&'static str),
}

impl CsrError {
    /// The reason the caller is told.
    pub const fn reason(self) -> Reason {
        match self {
            CsrError::Invalid(_) => Reason::CsrInvalid,
            CsrError::KeyUnsupported => Reason::CsrKeyUnsupported,
            CsrError::AsksTooMuch(_) => Reason::CsrAsksTooMuch,
        }
    }
}

/// A public key whose private half the requester has proven to hold.
#[derive(Clone, Debug)]
pub struct CheckedCsr {
    key: CheckedKey,
    fingerprint: KeyFingerprint,
}

/// As `rcgen` wants it: the algorithm and the bytes inside the bit string.
#[derive(Clone, Debug)]
pub(super) struct CheckedKey {
    bytes: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for CheckedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl CheckedKey {
    /// Takes the one encoding of a key of a supported kind, and no other of the same key: the fingerprint
    /// is over these bytes, and has to be the same in the certificate.
    fn from_spki(spki: &[u8]) -> Result<Self, CsrError> {
        let (bytes, algorithm, length) = if spki.starts_with(P256_SPKI) {
            // The point's tag, last in the prefix, belongs to the key.
            (&spki[P256_SPKI.len() - 1..], &PKCS_ECDSA_P256_SHA256, 65)
        } else if let Some(bytes) = spki.strip_prefix(ED25519_SPKI) {
            (bytes, &PKCS_ED25519, 32)
        } else {
            return Err(CsrError::KeyUnsupported);
        };
        if bytes.len() != length {
            return Err(CsrError::Invalid("its key has the wrong length"));
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            algorithm,
        })
    }
}

impl CheckedCsr {
    /// Checks a request in DER: its size, its key, that it asks for nothing, and its signature.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR {
            return Err(CsrError::Invalid("it is longer than 8 KiB"));
        }
        let (rest, csr) = X509CertificationRequest::from_der(der)
            .map_err(|_| CsrError::Invalid("it is not a PKCS #10 request in DER"))?;
        if !rest.is_empty() {
            return Err(CsrError::Invalid("something follows it"));
        }
        let info = &csr.certification_request_info;
        if info.version != X509Version::V1 {
            return Err(CsrError::Invalid("its version is not 0"));
        }
        let key = CheckedKey::from_spki(info.subject_pki.raw)?;
        if info.subject.iter_rdn().next().is_some() {
            return Err(CsrError::AsksTooMuch("a subject"));
        }
        if !info.attributes().is_empty() {
            return Err(CsrError::AsksTooMuch("attributes or extensions"));
        }
        csr.verify_signature()
            .map_err(|_| CsrError::Invalid("its signature does not fit its key"))?;
        Ok(Self {
            fingerprint: KeyFingerprint::of_spki(info.subject_pki.raw),
            key,
        })
    }

    /// Which key it is.
    pub fn key_fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    pub(super) fn key(&self) -> &CheckedKey {
        &self.key
    }
}
