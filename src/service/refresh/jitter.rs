//! The randomness of pauses. A simulation takes its own in its place, so that a seed is a whole run.

use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes for jitter: the system's.
pub(super) struct Jitter {
    system: SystemRandom,
    #[cfg(feature = "testing")]
    seeded: std::sync::OnceLock<Seeded>,
}

/// What is taken in place of the system's randomness.
#[cfg(feature = "testing")]
pub(super) type Seeded = Box<dyn Fn(&mut [u8]) + Send + Sync>;

impl Jitter {
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
impl super::Refresher {
    /// Takes pauses from here instead, from now on; the first call counts.
    pub fn seed_jitter(&self, seeded: Seeded) {
        let _first = self.random.seeded.set(seeded);
    }
}
