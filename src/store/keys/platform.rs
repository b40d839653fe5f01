//! Keys of what is the platform's: its own keys, and the key of its proxy grants.

use super::{Key, system};
use crate::domain::managed::Pool;

/// All of the platform's own keys that were stored.
pub fn managed_keys() -> Key {
    system("managed-key", &[])
}

/// One of the platform's own keys.
pub fn managed_key(pool: Pool, provider: &str) -> Key {
    system("managed-key", &[&[tag(pool)], provider.as_bytes()])
}

/// The pool of a key made by [`managed_key`].
pub fn managed_key_pool(key: &Key) -> Option<Pool> {
    let rest = key.as_bytes().strip_prefix(managed_keys().as_bytes())?;
    Pool::ALL
        .into_iter()
        .find(|pool| rest.first() == Some(&tag(*pool)))
}

/// What proxy grants are made and checked with.
pub fn grant_key() -> Key {
    system("grant-key", &[])
}

const fn tag(pool: Pool) -> u8 {
    match pool {
        Pool::Metered => 0,
        Pool::Shared => 1,
    }
}
