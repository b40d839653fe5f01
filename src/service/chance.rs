//! Random bytes, for ids, tokens and nonces: the system's. A simulation puts its own in their place, so that a seed
//! is a whole run: ids are keys, and where a key goes in a cache is part of what happens.

use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Where random bytes come from.
pub(super) struct Chance {
    system: SystemRandom,
    #[cfg(feature = "testing")]
    seeded: std::sync::OnceLock<Seeded>,
}

/// What fills bytes in place of the system.
#[cfg(feature = "testing")]
pub(super) type Seeded = Box<dyn Fn(&mut [u8]) + Send + Sync>;

impl Chance {
    pub(super) fn new() -> Self {
        Self {
            system: SystemRandom::new(),
            #[cfg(feature = "testing")]
            seeded: std::sync::OnceLock::new(),
        }
    }

    pub(super) fn fill(&self, bytes: &mut [u8]) -> Result<(), Unspecified> {
        #[cfg(feature = "testing")]
        if let Some(seeded) = self.seeded.get() {
            seeded(bytes);
            return Ok(());
        }
        self.system.fill(bytes)
    }
}

#[cfg(feature = "testing")]
impl super::Broker {
    /// Takes random bytes from here from now on. Only the first call counts.
    pub fn seed_chance(&self, seeded: Seeded) {
        let _first = self.chance.seeded.set(seeded);
    }
}
