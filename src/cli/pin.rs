//! The CA pin: the broker's root is recognized by the hash of its public key, so that an enrollment token
//! goes to no one in the middle.
//!
//! The broker presents its leaf, the issuing certificate and the root. The certificate with the pinned key
//! becomes the only trust anchor; signatures, dates, usage and the server's name are then checked as always.

use std::sync::Arc;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

const PREFIX: &str = "sha256:";

/// The SHA-256 of a root's SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), DER. Written `sha256:` and 64 hex
/// digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// A text that is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is 'sha256:' followed by 64 hexadecimal digits")]
pub struct MalformedPin;

impl Pin {
    /// The pin of these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The pin of a certificate's public key; `None` where it cannot be parsed.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).ok()?;
        let anchor = store.roots.first()?;
        let mut spki = digest::Context::new(&digest::SHA256);
        // The anchor holds the inside of the SubjectPublicKeyInfo; the hash is over the SEQUENCE around it.
        spki.update(&sequence_header(anchor.subject_public_key_info.len())?);
        spki.update(&anchor.subject_public_key_info);
        spki.finish().as_ref().try_into().ok().map(Self)
    }
}

/// Tag and length of a DER SEQUENCE (X.690 sections 8.1.3 and 10.1); `None` past 65 535 bytes.
fn sequence_header(length: usize) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
    Some(match (high, low) {
        (0, 0..=0x7f) => vec![SEQUENCE, low],
        (0, _) => vec![SEQUENCE, 0x81, low],
        _ => vec![SEQUENCE, 0x82, high, low],
    })
}

impl std::str::FromStr for Pin {
    type Err = MalformedPin;

    fn from_str(text: &str) -> Result<Self, MalformedPin> {
        let hex = text.trim().strip_prefix(PREFIX).ok_or(MalformedPin)?;
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(MalformedPin);
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| MalformedPin)?;
        }
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The broker presented a chain without the pinned key.
#[derive(Debug, thiserror::Error)]
#[error("no certificate the broker presents has the pinned key {expected}")]
pub struct PinMismatch {
    /// The pin.
    pub expected: Pin,
}

/// Accepts a server whose chain ends in the pinned key.
#[derive(Debug)]
pub struct PinVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    /// A verifier for `pin`.
    pub fn new(pin: Pin, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The leaf itself is no candidate: a pin is of a CA.
        let anchor = intermediates
            .iter()
            .find(|certificate| Pin::of_certificate(certificate) == Some(self.pin))
            .ok_or_else(|| {
                let mismatch = PinMismatch { expected: self.pin };
                CertificateError::Other(OtherError(Arc::new(mismatch)))
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    #[test]
    fn the_pin_is_over_the_whole_public_key_info() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_ECDSA_P384_SHA384,
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            let expected = digest::digest(&digest::SHA256, &key.subject_public_key_info());
            let pin = Pin::of_certificate(certificate.der()).unwrap();
            assert_eq!(pin.0, expected.as_ref());
        }
    }

    #[test]
    fn long_lengths_are_encoded_in_the_shortest_form() {
        assert_eq!(sequence_header(0x7f), Some(vec![0x30, 0x7f]));
        assert_eq!(sequence_header(0x80), Some(vec![0x30, 0x81, 0x80]));
        assert_eq!(sequence_header(0x122), Some(vec![0x30, 0x82, 0x01, 0x22]));
        assert_eq!(sequence_header(0x10000), None);
    }

    #[test]
    fn the_text_form_is_read_back_and_nothing_else_is() {
        let pin = Pin::from_bytes([0xa1; 32]);
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for wrong in [
            "",
            "sha256:",
            "a1",
            &pin.to_string()[7..],
            &format!("{pin}00"),
            "sha256:+1",
        ] {
            assert_eq!(wrong.parse::<Pin>(), Err(MalformedPin), "{wrong}");
        }
    }
}
