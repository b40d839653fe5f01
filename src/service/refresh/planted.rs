//! Mistakes that this engine does not make, to be made on purpose: the simulator has to find each of them.
//! Compiled to nothing without the tests' feature.

use super::Refresher;
use crate::domain::rotation::{Phase, Rotation};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A flight does not look again at what is stored before it begins.
    SkipReread = 1,
    /// Waiters are woken before the new generation is committed.
    WakeEarly,
    /// The exchange runs in the future of the caller who came first, and ends with it.
    CancelWithCaller,
    /// A request whose answer was lost counts as not processed.
    LostIsNotProcessed,
    /// A claim that is found without its driver is given up as if nothing had been sent.
    FoundClaimIsFree,
    /// The request is sent before its claim is durable.
    ClaimAfterSending,
    /// A staged answer that is found at the start is dropped.
    StagedIsDropped,
    /// Commits are not guarded by the revision that was read.
    Unguarded,
    /// An answer without a refresh token takes the old one away.
    BlankRefresh,
    /// Answers are not staged before they are parsed.
    Unstaged,
    /// A flight leaves the map before it has landed.
    LeaveEarly,
    /// An exchange may take for ever.
    NoTimeout,
    /// A refresh token whose answer was lost is sent again without a rest.
    NoRest,
    /// An answer of 500 and above proves the grant dead.
    FailureKills,
    /// What `Retry-After` says does not matter.
    RetryAfterIgnored,
    /// A rejected generation is handed out again.
    RejectedIsServed,
    /// What is handed out is not recorded first.
    Unrecorded,
}

/// A rotation that has forgotten what was under way.
pub(super) fn forgetful(rotation: &Rotation) -> Rotation {
    Rotation {
        phase: Phase::rested(),
        ..rotation.clone()
    }
}

/// Ends a flight when it is dropped.
pub(super) struct Tied(pub(super) tokio::task::AbortHandle);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(feature = "testing")]
#[derive(Default)]
pub(super) struct Plot(std::sync::atomic::AtomicU8);

impl Refresher {
    /// Whether this mistake is to be made. Never, but in tests that plant it.
    #[cfg(feature = "testing")]
    pub(in crate::service) fn planted(&self, mistake: Planted) -> bool {
        self.planted.0.load(std::sync::atomic::Ordering::Relaxed) == mistake as u8
    }

    /// Whether this mistake is to be made. Never.
    #[cfg(not(feature = "testing"))]
    #[inline(always)]
    pub(in crate::service) const fn planted(&self, _: Planted) -> bool {
        false
    }

    /// Makes this mistake from now on.
    #[cfg(feature = "testing")]
    pub fn plant(&self, mistake: Planted) {
        self.planted
            .0
            .store(mistake as u8, std::sync::atomic::Ordering::Relaxed);
    }
}
