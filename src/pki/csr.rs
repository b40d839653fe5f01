//! Certificate signing requests (PKCS #10, RFC 2986), taken for one thing only: the public key and the
//! proof that the caller holds its private half.
//!
//! [`CheckedCsr`] can only be made by [`CheckedCsr::parse`], so whoever has one need not check again.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::key::{KeyFingerprint, fingerprint};
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
            fingerprint: fingerprint(info.subject_pki.raw),
            key,
        })
    }

    /// Which key it is.
    pub fn key_fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// Whether the key has signed `message`: ECDSA P-256 with SHA-256 in DER (RFC 3279 section 2.2.3), or
    /// Ed25519 (RFC 8032).
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = if self.key.algorithm == &PKCS_ED25519 {
            &ED25519
        } else {
            &ECDSA_P256_SHA256_ASN1
        };
        UnparsedPublicKey::new(algorithm, &self.key.bytes)
            .verify(message, signature)
            .is_ok()
    }

    pub(super) fn key(&self) -> &CheckedKey {
        &self.key
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::Engine;
    use rcgen::{
        Attribute, BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
    };

    use super::*;

    // `openssl req -new -subj / -outform DER`, and the Python package `cryptography` with `x509.Name([])`.
    const OPENSSL_P256: &str = concat!(
        "MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAkztGWXYrUThR6m+YjG3TNU41FniUC+L7WU+xnF2PJvW45dkuUP",
        "U+wt7mt9hUD5CAKiMwQYzCyserFlt1FsATKgADAKBggqhkjOPQQDAgNIADBFAiEA0Os2eimtV9CXji7jRLrEfMzxkHuwOKSqrjgx",
        "o7er7QoCIDaBzTzc5JEkW8oVTEdyGdwyo/ESbilzmV0soCECfRxp",
    );
    const OPENSSL_ED25519: &str = concat!(
        "MH8wMwIBADAAMCowBQYDK2VwAyEALdbIKe+BKTjpiGMnNIyabnnf6A2w3tkhbC0TAJxVK6WgADAFBgMrZXADQQC2LacyQUNofA7K",
        "lR9yZeaqRBLFIWHnTq/PP1qhvhuX91zSeQZ4GXtQCo1yDFlNm51rVpD351C97M4qB3jOk+MB",
    );
    const PYTHON_P256: &str = concat!(
        "MIG7MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAbXOnFR7ns9ibjbrZkBJLuIi2D7aYIrdjs9qGUHzRQuqS1AlGh1",
        "/RXo1xU2H52pwl7tYBsh/NqdmnMlXDsqvLygADAKBggqhkjOPQQDAgNJADBGAiEAyWMlk4d6r1NdFpD/F0sjPQg4KskojlFnvDL3",
        "LnKIsk8CIQDBByTaTZElc9im45TyJvUcX4evSuhqUf0p15pFX1xxJw==",
    );
    const PYTHON_ED25519: &str = concat!(
        "MH8wMwIBADAAMCowBQYDK2VwAyEAzHiczSU3jw15N3PiNTXsuqH16xQiaq9HnsuwZfSmiVCgADAFBgMrZXADQQCyveuFh3aN+Wms",
        "4DUiH8c2O6+FR9YGqH/o3rrIUlj1chyIAOz1O2oAVGARTo+Ai8CV5WWp/5SbrB/5Gu6SxZQG",
    );
    const OPENSSL_SECP256K1: &str = concat!(
        "MIG3MF8CAQAwADBWMBAGByqGSM49AgEGBSuBBAAKA0IABLRBvUUwj5y06IMSFncfY2X5vpVnvizSwNf4SDlkv3uy+aSevKk7vMAp",
        "n56kCvBWSNihEmiZItOS80p2cjFqB4mgADAKBggqhkjOPQQDAgNIADBFAiEArFC4nYInD3CE2ycMXuBDZyI/LsIITnVval21VXe9",
        "1EUCIAvYgv5eJeDVGIRBG22Zal+M2p2DKbxzjV9lAbcdwFSy",
    );
    const OPENSSL_RSA_2048: &str = concat!(
        "MIICRTCCAS0CAQAwADCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBALd6OJeZkuDJHjsVn7Vs2Y44Pd3/h9X15FMtu8So",
        "7nQTYmhGtvk3fa9rrkUVlrpwXDcURQxAVb0NpcSvKBO4eei8KSVYkXpb3MrMJAmQUnnVQEtkPDD1AJtVs0tvG8yPiKgfGQwHiZHH",
        "/ZLs6Dw5jvGNcXyFi9ocX1Zox9ZIB7Ea7lyPQZeyqcAApckYRomoswDrnAV2qIuyV6E+3+DKNzd5e63HQrohhHKDOknoi2dRAZI0",
        "4x6ZwHQlF3qQgnd5sHeGUUJSXUfTQgB6sm0KSlch04iQUNmOLh8xOmVpdDV83Bu/wNeR+awD4qIjyz+z3cxrKx3NaXefZ7wWisld",
        "WKkCAwEAAaAAMA0GCSqGSIb3DQEBCwUAA4IBAQBgVpLyXRB4G2RDCuoUrca7zhtzk3IoVV8KSpu3DU6sAQnRdJaW/U0Gl1KeE6tq",
        "bBLmArJ/gqCYxpF9rTDJrutoaQSKAMZcgYdF2wBjvxf0kKJ1ihvtu0F/++nOh+h5Hu/g9XmyJfxu7DtL4Cnf/zuQp+v8Crlq20MD",
        "4kpysv1xwbtLilyZ/nLSu4Cut/ZN3CO6+0XvSnktN3rvj4ubvAqo1tGCoHAAde6fRjwQq3vvz7S7Chtw6JuD9EJ+57NhqFJIQtnG",
        "NUDuEF2FAnN4PKBW5ZDiwE4kX39bSfl6BufzFou4ou9lwMY9THZqAoSXG34e+aeMdymtuhHEIKbznz2+",
    );

    fn fixture(base64: &str) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
    }

    fn nameless() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
    }

    fn csr_der(key: &KeyPair) -> Vec<u8> {
        nameless().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn honest_requests_pass_whoever_made_them() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(
                CheckedCsr::parse(&csr_der(&key)).unwrap().key_fingerprint(),
                fingerprint(&key.subject_public_key_info())
            );
        }
        for request in [OPENSSL_P256, OPENSSL_ED25519, PYTHON_P256, PYTHON_ED25519] {
            CheckedCsr::parse(&fixture(request)).unwrap();
        }
    }

    #[test]
    fn a_request_that_asks_for_anything_is_refused() {
        let asking = |ask: fn(&mut CertificateParams)| {
            let mut params = nameless();
            ask(&mut params);
            params
        };
        for params in [
            asking(|p| p.distinguished_name.push(DnType::CommonName, "admin")),
            asking(|p| p.subject_alt_names = vec![SanType::DnsName("broker.example".try_into().unwrap())]),
            asking(|p| {
                let uri = "spiffe://broker.example/admin";
                p.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
            }),
            asking(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            asking(|p| p.is_ca = IsCa::ExplicitNoCa),
            asking(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            asking(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            asking(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
            asking(|p| {
                p.custom_extensions = vec![CustomExtension::from_oid_content(
                    &[1, 3, 6, 1, 4, 1, 99999],
                    vec![5, 0],
                )];
            }),
        ] {
            let key = KeyPair::generate().unwrap();
            let request = params.serialize_request(&key).unwrap();
            let refused = CheckedCsr::parse(request.der()).unwrap_err();
            assert_eq!(refused.reason(), Reason::CsrAsksTooMuch, "{params:?}");
        }
        let challenge_password = Attribute {
            oid: &[1, 2, 840, 113549, 1, 9, 7],
            values: [&[0x31, 0x09, 0x0c, 0x07][..], b"hunter2"].concat(),
        };
        let key = KeyPair::generate().unwrap();
        let request = nameless()
            .serialize_request_with_attributes(&key, vec![challenge_password])
            .unwrap();
        let refused = CheckedCsr::parse(request.der()).unwrap_err();
        assert_eq!(refused.reason(), Reason::CsrAsksTooMuch);
    }

    #[test]
    fn a_request_changed_in_any_signed_bit_is_refused() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let der = csr_der(&KeyPair::generate_for(algorithm).unwrap());
            let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
            let signed = csr.certification_request_info.raw.len();
            let signature = csr.signature_value.data.len();
            // What is left out is the framing around the two, which is not signed and says nothing.
            let start = if der[1] < 0x80 { 2 } else { 3 };
            assert_eq!(&der[start..start + signed], csr.certification_request_info.raw);
            let bytes = (start..start + signed).chain(der.len() - signature..der.len());
            for (byte, bit) in bytes.flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                let mut spoilt = der.clone();
                spoilt[byte] ^= 1 << bit;
                assert!(CheckedCsr::parse(&spoilt).is_err(), "byte {byte}, bit {bit}");
            }
            for length in 0..der.len() {
                assert!(CheckedCsr::parse(&der[..length]).is_err(), "cut at {length}");
            }
            let refused = CheckedCsr::parse(&[der, vec![0]].concat()).unwrap_err();
            assert_eq!(refused.reason(), Reason::CsrInvalid);
        }
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        // Two requests of one length: the signature and what it is over are then at the same places.
        let keys = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let [mut mine, theirs] = keys.map(|key| csr_der(&key));
        let signature = mine.len() - 64;
        mine[signature..].copy_from_slice(&theirs[signature..]);
        let refused = CheckedCsr::parse(&mine).unwrap_err();
        assert_eq!(refused, CsrError::Invalid("its signature does not fit its key"));
    }

    #[test]
    fn a_long_request_is_refused_unread() {
        let refused = CheckedCsr::parse(&vec![0x30; MAX_CSR + 1]).unwrap_err();
        assert_eq!(refused, CsrError::Invalid("it is longer than 8 KiB"));
    }

    #[test]
    fn other_keys_are_refused() {
        let p384 = csr_der(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
        for request in [p384, fixture(OPENSSL_RSA_2048), fixture(OPENSSL_SECP256K1)] {
            let refused = CheckedCsr::parse(&request).unwrap_err();
            assert_eq!(refused.reason(), Reason::CsrKeyUnsupported);
        }
    }
}
