//! Secrets: zeroized when dropped, never printed, never cloned, each kind its own type.
//!
//! A secret is looked at through [`Secret::expose`] only, which takes the reason, so that
//! `grep expose` lists every place where one is read.

use std::marker::PhantomData;

use zeroize::Zeroizing;

/// A secret of kind `K`. Has no `Debug`, `Display`, `Clone` or serialization.
pub struct Secret<K>(Zeroizing<Vec<u8>>, PhantomData<fn() -> K>);

/// Why a secret is looked at. Each is a way out of the broker's custody, so the list is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// To be sealed before it is stored.
    Seal,
    /// To be sent to the provider it came from.
    Upstream,
    /// To be handed to a caller whose lease says so.
    Vend,
    /// To be compared, hashed or checked for its shape; it goes nowhere.
    Inspect,
    /// To be used as a key inside this process; it goes nowhere.
    Use,
    /// To be presented to the broker by the program that was given it.
    Present,
    /// To be shown once to the person who asked for it to be made.
    ShowOnce,
}

impl<K> Secret<K> {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes), PhantomData)
    }

    /// The bytes, for the stated reason.
    pub fn expose(&self, _why: Exposure) -> &[u8] {
        &self.0
    }

    /// The bytes as text, for the stated reason; `None` where they are no UTF-8.
    pub fn expose_str(&self, _why: Exposure) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K> From<String> for Secret<K> {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

/// An OAuth refresh token. Never leaves the process but to its token endpoint.
pub enum RefreshToken {}
/// An OAuth access token.
pub enum AccessToken {}
/// A provider's API key.
pub enum ApiKey {}
/// An AWS secret access key.
pub enum AwsSecretKey {}
/// The session token of temporary AWS keys.
pub enum AwsSessionToken {}
/// What a token endpoint answered, unparsed.
pub enum RawAnswer {}
/// A key of the broker itself.
pub enum KeyMaterial {}
/// The credential of an actor: a token of one of the five families.
pub enum ActorToken {}
/// The value of an extension's secret.
pub enum ExtensionValue {}
/// A proxy grant.
pub enum ProxyGrantToken {}
/// An authorization code (RFC 6749 section 4.1.2).
pub enum AuthorizationCode {}
/// What ties the answer to an authorization request to it (RFC 6749 section 10.12).
pub enum AuthorizationState {}
/// The verifier of a code challenge (RFC 7636 section 4.1).
pub enum CodeVerifier {}
/// A device code (RFC 8628 section 3.2). Never leaves the process but to its token endpoint.
pub enum DeviceCode {}
