//! The one source of chance for pauses. Not a secret, and not worth failing for.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

/// Draws a fraction, from 0 up to 1.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// From the system's random source. Should it fail, pauses are as long as they may be.
pub fn system_jitter() -> Jitter {
    let random = SystemRandom::new();
    Arc::new(move || {
        let mut bytes = [0; 4];
        let drawn = random
            .fill(&mut bytes)
            .map_or(u32::MAX, |()| u32::from_be_bytes(bytes));
        f64::from(drawn) / (f64::from(u32::MAX) + 1.0)
    })
}
