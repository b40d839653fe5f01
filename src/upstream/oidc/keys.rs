//! An issuer's published keys (RFC 7517), as far as they can verify a signature we accept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;

use super::error::TokenFault;
use super::jws::Jws;
use crate::domain::oidc::Algorithm;

/// The most keys of one issuer. Big ones publish about ten.
pub(super) const MAX_KEYS: usize = 64;

/// The keys, without those that are for something else.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The only algorithm it is for, where its issuer says so.
    algorithm: Option<String>,
    material: Material,
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The uncompressed point (SEC 1 section 2.3.3).
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
pub(super) struct RawKeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// `None`: more keys than are taken.
    pub(super) fn of(raw: RawKeySet) -> Option<Self> {
        if raw.keys.len() > MAX_KEYS {
            return None;
        }
        // A key of a kind we do not know is not ours to refuse (RFC 7517 section 5).
        let known = raw
            .keys
            .into_iter()
            .filter_map(|key| Key::of(serde_json::from_value(key).ok()?));
        Some(Self(known.collect()))
    }

    /// Whether any key may have signed it.
    pub(super) fn has_key_for(&self, jws: &Jws<'_>) -> bool {
        self.candidates(jws).next().is_some()
    }

    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<(), TokenFault> {
        if !self.has_key_for(jws) {
            return Err(TokenFault::Key);
        }
        if self.candidates(jws).any(|key| key.verify(jws)) {
            Ok(())
        } else {
            Err(TokenFault::Signature)
        }
    }

    /// The keys with the token's key id that fit its algorithm. A token without a key id is one of an issuer
    /// with one key (OpenID Connect Core 1.0 section 10.1).
    fn candidates(&self, jws: &Jws<'_>) -> impl Iterator<Item = &Key> {
        let fitting = |key: &&Key| key.fits(jws.algorithm);
        let only = jws.key_id.is_none() && self.0.iter().filter(fitting).count() == 1;
        self.0
            .iter()
            .filter(move |key| fitting(key) && (only || (jws.key_id.is_some() && key.id == jws.key_id)))
    }
}

impl Key {
    fn of(raw: RawKey) -> Option<Self> {
        let verifies = raw.usage.as_deref().is_none_or(|usage| usage == "sig")
            && raw
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !verifies {
            return None;
        }
        let part = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let point = |size: usize| {
            let (x, y) = (part(&raw.x)?, part(&raw.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", _) => Material::Rsa {
                n: part(&raw.n)?,
                e: part(&raw.e)?,
            },
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(part(&raw.x)?),
            _ => return None,
        };
        Some(Self {
            id: raw.kid,
            algorithm: raw.alg,
            material,
        })
    }

    /// The key's type decides which algorithms are possible, never the token alone: otherwise a public key
    /// could be taken for a shared one.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let kind = match self.material {
            Material::Rsa { .. } => rsa(algorithm).is_some(),
            Material::P256(_) => algorithm == Algorithm::Es256,
            Material::P384(_) => algorithm == Algorithm::Es384,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        kind && self
            .algorithm
            .as_deref()
            .is_none_or(|only| only == algorithm.name())
    }

    fn verify(&self, jws: &Jws<'_>) -> bool {
        let by = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            let key = UnparsedPublicKey::new(algorithm, key);
            key.verify(jws.message, &jws.signature).is_ok()
        };
        match &self.material {
            Material::Rsa { n, e } => rsa(jws.algorithm).is_some_and(|parameters| {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, jws.message, &jws.signature).is_ok()
            }),
            Material::P256(point) => by(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => by(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(point) => by(&signature::ED25519, point),
        }
    }
}

/// RSA keys have 2048 to 8192 bits.
fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => None,
    }
}
