//! Mistakes that this engine does not make, to be made on purpose: the simulator has to find each of them.
//! Compiled to nothing without the tests' feature.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};

use super::flights::Landed;
use super::{Held, Need, Refresher};
use crate::domain::credential::Credential;
use crate::domain::rotation::{Phase, Rotation, Step};
use crate::domain::time::Time;
use crate::store::record::Changes;
use crate::upstream::Delivery;
use crate::upstream::answer::Answer;

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
    /// A gateway's answer, of 500 and above, counts as not processed.
    GatewayIsNotProcessed,
    /// Who waited for an exchange gets what there was before it.
    StaleWaiter,
}

/// Ends a flight when it is dropped.
#[derive(Default)]
pub(super) struct Tied(OnceLock<AbortHandle>);

impl Drop for Tied {
    fn drop(&mut self) {
        if let Some(flight) = self.0.get() {
            flight.abort();
        }
    }
}

/// How each mistake is made. Without one planted, all of this leaves things as they are.
impl Refresher {
    pub(super) fn forgiving(&self, need: Need) -> Need {
        let newer_than = need
            .newer_than
            .filter(|_| !self.planted(Planted::RejectedIsServed));
        Need { newer_than, ..need }
    }

    pub(super) fn is_behind(&self, held: &Held) -> bool {
        let under_way = matches!(
            held.credential.value.rotation.phase,
            Phase::Claimed { .. } | Phase::Staged { .. }
        );
        under_way && held.secret.value.access.is_some() && self.planted(Planted::StaleWaiter)
    }

    pub(super) fn until_landed<'a>(&self, landed: Landed<'a>) -> Option<Landed<'a>> {
        (!self.planted(Planted::LeaveEarly)).then_some(landed)
    }

    pub(super) fn tie<T>(&self, tied: &Tied, flight: &JoinHandle<T>) {
        if self.planted(Planted::CancelWithCaller) {
            tied.0.get_or_init(|| flight.abort_handle());
        }
    }

    pub(super) fn patience(&self, limit: Duration) -> Duration {
        if self.planted(Planted::NoTimeout) {
            limit * 1_000_000
        } else {
            limit
        }
    }

    pub(super) fn impatient<'a>(&self, rotation: &'a Rotation) -> Cow<'a, Rotation> {
        let mut rotation = Cow::Borrowed(rotation);
        if self.planted(Planted::NoRest)
            && let Phase::Ambiguous { not_before, .. } = &mut rotation.to_mut().phase
        {
            *not_before = Time::from_millis(0);
        }
        rotation
    }

    pub(super) fn misread(&self, delivery: Delivery) -> Delivery {
        match delivery {
            Delivery::Lost(message) if self.planted(Planted::LostIsNotProcessed) => {
                Delivery::NotSent(message)
            }
            delivery => delivery,
        }
    }

    pub(super) fn blamed(&self, answer: Answer, status: u16) -> Answer {
        match answer {
            Answer::Ambiguous { retry_after, message }
                if status >= 500 && self.planted(Planted::GatewayIsNotProcessed) =>
            {
                Answer::NotProcessed { retry_after, message }
            }
            Answer::Ambiguous { message, .. } if self.planted(Planted::FailureKills) => Answer::Refused {
                code: "failed".to_owned(),
                told: crate::domain::rotation::Told::Withdrawn,
                message,
            },
            answer => answer,
        }
    }

    pub(super) fn unawaited(&self, phase: &Phase) -> bool {
        match phase {
            Phase::Live { .. } => self.planted(Planted::WakeEarly),
            Phase::Claimed { .. } => self.planted(Planted::ClaimAfterSending),
            _ => false,
        }
    }

    pub(super) fn commit_later(&self, changes: Changes) {
        let records = std::sync::Arc::clone(&self.parts.records);
        tokio::spawn(async move { records.commit(changes).await });
    }

    pub(super) fn found(&self, rotation: &Rotation, next: Rotation, step: Step) -> (Rotation, Step) {
        let claim = matches!(rotation.phase, Phase::Claimed { .. });
        let staged = matches!(rotation.phase, Phase::Staged { .. });
        if claim && self.planted(Planted::FoundClaimIsFree)
            || staged && self.planted(Planted::StagedIsDropped)
        {
            let phase = Phase::rested();
            return (Rotation { phase, ..next }, Step::Rest);
        }
        (next, step)
    }

    pub(super) fn dropped(&self, credential: &Credential) -> Changes {
        if self.planted(Planted::StagedIsDropped) {
            return self.settled(credential);
        }
        Changes::default()
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
