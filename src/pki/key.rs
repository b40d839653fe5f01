//! Keys and the numbers by which certificates are told apart.

use std::fmt;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

pub use crate::domain::agent::KeyFingerprint;
use crate::domain::secret::{Exposure, KeyMaterial, Secret};

/// The fingerprint of the key that `spki` (DER) holds.
pub fn fingerprint(spki: &[u8]) -> KeyFingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, spki).as_ref());
    KeyFingerprint(bytes)
}

/// A certificate's serial number: 16 bytes, positive, never beginning with a zero byte, so that the bytes
/// are also the whole DER encoding (RFC 5280 section 4.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A fresh one: 126 random bits.
    pub(super) fn random() -> Result<Self, RandomFailed> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| RandomFailed)?;
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Self(bytes))
    }

    /// The serial whose DER content these bytes are; `None` where this broker would not have made it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        (bytes[0] & 0xc0 == 0x40).then_some(Self(bytes))
    }

    /// The bytes, most significant first.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The system's random source failed. A fault of the machine; nothing was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomFailed;

/// A private key that does not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the private key is no ECDSA P-256 key in PKCS#8")]
pub struct MalformedKey;

/// An ECDSA P-256 key held in this process.
///
/// What a CA signs with is [`rcgen::SigningKey`], and that trait is the seam for a key held elsewhere, such
/// as in an HSM. The crate's own `KeyPair` is not used because it keeps a copy of the encoded private key.
pub(super) struct P256Key {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl P256Key {
    /// A new key, and its PKCS#8 encoding to be stored.
    pub(super) fn generate() -> Result<(Self, Secret<KeyMaterial>), RandomFailed> {
        let random = SystemRandom::new();
        let encoded = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| RandomFailed)?;
        let secret = Secret::new(encoded.as_ref().to_vec());
        let key = Self::load(&secret).map_err(|MalformedKey| RandomFailed)?;
        Ok((key, secret))
    }

    /// Loads a key that [`P256Key::generate`] encoded.
    pub(super) fn load(pkcs8: &Secret<KeyMaterial>) -> Result<Self, MalformedKey> {
        let random = SystemRandom::new();
        let pkcs8 = pkcs8.expose(Exposure::Use);
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random)
            .map(|pair| Self { pair, random })
            .map_err(|_| MalformedKey)
    }
}

impl PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.pair
            .sign(&self.random, message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RingUnspecified)
    }
}
