//! Envelope encryption: every record is sealed with AES-256-GCM under a data key, and the data keys are stored
//! wrapped by the master key, which is never in the store.
//!
//! Promises:
//! - What is sealed for one key of the store opens at no other: the key is authenticated with it, and the
//!   tenant with the key, for keys name the org.
//! - No data key seals more than 2^28 times. Nonces are random, and for those NIST SP 800-38D section 8.3
//!   allows 2^32 invocations at a collision probability of 2^-32; 2^28 keeps it below 2^-40. Uses are reserved
//!   durably, in blocks, before they are made, so no restart forgets any.
//! - The bytes of keys are zeroized. The exception is the expanded key inside `ring`, which does not zeroize;
//!   there is one copy of each, for as long as the store is open.
//!
//! Sealing does not keep a whole store from being set back to an older copy: a head of the journal kept elsewhere
//! shows that.

mod master;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{Meta, StoreError};
pub use master::{KeyWrap, LocalMasterKey, MasterKeyError, WrapError};

/// The format of what is sealed.
const FORMAT: u8 = 1;
/// Format, number of the data key, nonce.
const HEADER: usize = 1 + 4 + NONCE_LEN;
/// What sealing adds to the length, in bytes.
pub const OVERHEAD: usize = HEADER + 16;

/// How often a data key may be used, and how many uses are reserved at a time.
#[derive(Clone, Copy, Debug)]
pub struct KeyUse {
    /// The most seals under one data key.
    pub cap: u64,
    /// Seals reserved by one durable write. What is left of a block at a restart is lost.
    pub block: u64,
}

impl Default for KeyUse {
    fn default() -> Self {
        Self {
            cap: 1 << 28,
            block: 1 << 16,
        }
    }
}

/// What was to be opened is not what was sealed for this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes were changed, or belong to another key")]
pub struct Unopened;

/// The data key in use.
struct Current {
    number: u32,
    key: Option<Arc<LessSafeKey>>,
    used: u64,
    reserved: u64,
}

/// Seals and opens.
pub struct Sealer {
    meta: Arc<dyn Meta>,
    master: Arc<dyn KeyWrap>,
    store: Vec<u8>,
    limits: KeyUse,
    random: SystemRandom,
    current: Mutex<Current>,
    keys: RwLock<HashMap<u32, Arc<LessSafeKey>>>,
}

mod name {
    pub(super) const STORE: &str = "store.id";
    pub(super) const CHECK: &str = "key.check";
    /// The number of the data key in use, 4 bytes, and its reserved uses, 8 bytes, big-endian.
    pub(super) const CURRENT: &str = "key.current";

    pub(super) fn key(number: u32) -> String {
        format!("key.{number:08x}")
    }
}

/// What the master key's check value says, wrapped.
const CHECK: &[u8] = b"credbroker master key check";

impl Sealer {
    /// A sealer over the data keys in `meta`. A store without any takes `master` for its own; for any other,
    /// [`StoreError::WrongMasterKey`] says that it is not, and nothing was changed.
    pub fn open(meta: Arc<dyn Meta>, master: Arc<dyn KeyWrap>) -> Result<Self, StoreError> {
        Self::open_with(meta, master, KeyUse::default())
    }

    /// As [`Sealer::open`], with other limits.
    pub fn open_with(
        meta: Arc<dyn Meta>,
        master: Arc<dyn KeyWrap>,
        limits: KeyUse,
    ) -> Result<Self, StoreError> {
        let store = meta.meta(name::STORE)?.ok_or_else(|| missing(name::STORE))?;
        let current = meta.meta(name::CURRENT)?;
        match meta.meta(name::CHECK)? {
            Some(wrapped) => {
                let opened = master.unwrap(&context(&store, "check"), &wrapped)?;
                if *opened != CHECK {
                    return Err(StoreError::WrongMasterKey);
                }
            }
            None if current.is_some() => return Err(missing(name::CHECK)),
            None => {
                let wrapped = master.wrap(&context(&store, "check"), CHECK)?;
                meta.set_meta(&[(name::CHECK, &wrapped)])?;
            }
        }
        let (number, reserved) = match current {
            Some(bytes) => split_current(&bytes).ok_or_else(|| missing(name::CURRENT))?,
            None => (0, 0),
        };
        let mut keys = HashMap::new();
        for number in 1..=number {
            let name = name::key(number);
            let wrapped = meta.meta(&name)?.ok_or_else(|| missing(&name))?;
            let bytes = master.unwrap(&context(&store, &name), &wrapped)?;
            keys.insert(number, Arc::new(expand(&bytes)?));
        }
        Ok(Self {
            current: Mutex::new(Current {
                number,
                key: keys.get(&number).cloned(),
                used: reserved,
                reserved,
            }),
            keys: RwLock::new(keys),
            meta,
            master,
            store,
            limits,
            random: SystemRandom::new(),
        })
    }

    /// Seals `plaintext` for the store's key `aad_key`.
    ///
    /// Once in a block of uses this waits for a durable write, and once in a data key for the master key too.
    pub fn seal(&self, aad_key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (number, key) = self.take_use()?;
        let mut nonce = [0; NONCE_LEN];
        self.fill(&mut nonce)?;
        // Reserved whole, so that no plaintext is left behind by growing.
        let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&number.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        let aad = aad(&sealed, aad_key);
        sealed.extend_from_slice(plaintext);
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut sealed[HEADER..],
            )
            .map_err(|_| StoreError::Limit("the length of what is sealed"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what was sealed for the store's key `aad_key`.
    pub fn open_sealed(&self, aad_key: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (header, ciphertext) = sealed.split_at_checked(HEADER).ok_or(Unopened)?;
        let (format, rest) = header.split_first().ok_or(Unopened)?;
        let (number, nonce) = rest.split_first_chunk::<4>().ok_or(Unopened)?;
        if *format != FORMAT {
            return Err(Unopened);
        }
        let number = u32::from_be_bytes(*number);
        let key = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.get(&number).cloned().ok_or(Unopened)?
        };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened)?;
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(aad(header, aad_key)), &mut opened)
            .map_err(|_| Unopened)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }

    /// Accounts for one use of the current data key, durably reserved.
    fn take_use(&self) -> Result<(u32, Arc<LessSafeKey>), StoreError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.used >= current.reserved {
            if current.key.is_none() || current.reserved >= self.limits.cap {
                self.make_key(&mut current)?;
            } else {
                let reserved = (current.reserved + self.limits.block).min(self.limits.cap);
                self.meta
                    .set_meta(&[(name::CURRENT, &join_current(current.number, reserved))])?;
                current.reserved = reserved;
            }
        }
        let key = current.key.clone().ok_or_else(|| missing(name::CURRENT))?;
        current.used += 1;
        Ok((current.number, key))
    }

    /// Makes the next data key and reserves its first uses.
    fn make_key(&self, current: &mut Current) -> Result<(), StoreError> {
        let number = current.number + 1;
        let mut bytes = Zeroizing::new([0; 32]);
        self.fill(&mut *bytes)?;
        let name = name::key(number);
        let wrapped = self.master.wrap(&context(&self.store, &name), &*bytes)?;
        let reserved = self.limits.block.min(self.limits.cap);
        self.meta.set_meta(&[
            (&name, &wrapped),
            (name::CURRENT, &join_current(number, reserved)),
        ])?;
        let key = Arc::new(expand(&*bytes)?);
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, Arc::clone(&key));
        *current = Current {
            number,
            key: Some(key),
            used: 0,
            reserved,
        };
        Ok(())
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.random
            .fill(bytes)
            .map_err(|_| StoreError::Failed("the system gives no random numbers".to_owned()))
    }
}

/// The header is authenticated with the key.
fn aad(header: &[u8], key: &[u8]) -> Vec<u8> {
    [header, key].concat()
}

/// What a wrapped key is bound to: its store and its name.
fn context(store: &[u8], name: &str) -> Vec<u8> {
    [store, name.as_bytes()].concat()
}

fn expand(bytes: &[u8]) -> Result<LessSafeKey, StoreError> {
    UnboundKey::new(&AES_256_GCM, bytes)
        .map(LessSafeKey::new)
        .map_err(|_| StoreError::Failed("a data key has the wrong length".to_owned()))
}

fn join_current(number: u32, reserved: u64) -> Vec<u8> {
    [&number.to_be_bytes()[..], &reserved.to_be_bytes()[..]].concat()
}

fn split_current(bytes: &[u8]) -> Option<(u32, u64)> {
    let (number, reserved) = bytes.split_first_chunk()?;
    Some((
        u32::from_be_bytes(*number),
        u64::from_be_bytes(reserved.try_into().ok()?),
    ))
}

fn missing(name: &str) -> StoreError {
    StoreError::Failed(format!("the store's {name} is missing or damaged"))
}
