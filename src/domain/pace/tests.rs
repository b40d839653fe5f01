//! Pauses, breakers and due times: what is promised of them, at their edges and for whatever happens.

use std::time::Duration;

use proptest::prelude::*;

use super::ahead::{due, spread};
use super::breaker::{Admission, Breaker, Heard, OPEN_FIRST, PAUSE_REJECTED, PROBE_LIMIT, Standing, TRIP};
use super::*;
use crate::domain::id::{CredentialId, Id};
use crate::domain::time::Time;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn credential(number: u8) -> CredentialId {
    Id::from_bytes([number; 16])
}

const FAILED: Heard = Heard::Failed { retry_after: None };

fn busy(after: u64) -> Heard {
    Heard::Failed {
        retry_after: Some(seconds(after)),
    }
}

/// One whose provider failed for [`TRIP`] credentials at `now`.
fn opened(heard: Heard, now: Duration) -> Breaker {
    let mut breaker = Breaker::default();
    for number in 0..TRIP as u8 {
        assert_eq!(breaker.admit(now), Admission::Pass);
        breaker.hear(credential(number), false, heard, 1.0, now);
    }
    assert_eq!(breaker.standing(), Standing::Open);
    breaker
}

fn wait(breaker: &Breaker, now: Duration) -> Duration {
    match breaker.look(now) {
        Admission::Wait(left) => left,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_ceiling_of_a_pause_doubles_up_to_its_cap() {
    let ceilings: Vec<u64> = (0..11)
        .map(|failures| back_off(failures, 1.0, None).as_secs())
        .collect();
    assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(
        back_off(3, 0.5, None),
        seconds(4),
        "anything below it is as likely"
    );
    assert_eq!(back_off(u32::MAX, f64::NAN, None), PAUSE_MAX);
    assert_eq!(back_off(0, 0.5, Some(seconds(90))), seconds(90));
    assert_eq!(back_off(0, 0.5, Some(seconds(86_400))), PAUSE_MAX);
    assert_eq!(
        back_off(4, 0.5, Some(Duration::ZERO)),
        seconds(8),
        "no wait is no answer"
    );
}

#[test]
fn one_credential_that_fails_for_ever_stops_no_other() {
    let mut breaker = Breaker::default();
    for second in 0..1_000 {
        breaker.hear(credential(1), false, busy(300), 0.5, seconds(second));
        assert_eq!(breaker.admit(seconds(second)), Admission::Pass);
    }
    // Nor do many, as long as others get through in between.
    for second in 1_000..2_000 {
        let number = (second % 250) as u8;
        let heard = if second % 4 == 0 { Heard::Works } else { FAILED };
        breaker.hear(credential(number), false, heard, 0.5, seconds(second));
        assert_eq!(breaker.standing(), Standing::Closed);
    }
}

#[test]
fn failures_that_are_far_apart_are_not_in_a_row() {
    let mut breaker = Breaker::default();
    for number in 0..100 {
        breaker.hear(
            credential(number),
            false,
            FAILED,
            0.5,
            seconds(u64::from(number) * 301),
        );
        assert_eq!(breaker.standing(), Standing::Closed);
    }
}

#[test]
fn what_many_are_asked_to_wait_is_waited_by_all() {
    let mut breaker = Breaker::default();
    for (number, after) in [(1, 10), (2, 90), (3, 20), (4, 5), (5, 1)] {
        breaker.hear(credential(number), false, busy(after), 0.5, seconds(7));
    }
    assert_eq!(wait(&breaker, seconds(7)), seconds(90));
}

#[test]
fn a_single_probe_shows_whether_the_provider_is_back() {
    let mut breaker = opened(FAILED, seconds(100));
    assert_eq!(wait(&breaker, seconds(100)), OPEN_FIRST);
    let over = seconds(100) + OPEN_FIRST;
    assert_eq!(breaker.admit(over), Admission::Probe);
    for _ in 0..100 {
        assert!(matches!(breaker.admit(over), Admission::Wait(_)), "one probe");
    }
    // An exchange that was sent before it opened comes back late, and says nothing of the probe.
    breaker.hear(credential(9), false, FAILED, 1.0, over);
    assert_eq!(breaker.standing(), Standing::Probing);
    breaker.hear(credential(7), true, FAILED, 1.0, over);
    assert_eq!(wait(&breaker, over), OPEN_FIRST * 2, "longer than before");

    let over = over + OPEN_FIRST * 2;
    assert_eq!(breaker.admit(over), Admission::Probe);
    breaker.hear(credential(7), true, Heard::Works, 1.0, over);
    assert_eq!(breaker.admit(over), Admission::Pass);
    // What failed before it closed is forgotten.
    breaker.hear(credential(1), false, FAILED, 1.0, over);
    assert_eq!(breaker.standing(), Standing::Closed);
}

#[test]
fn a_rejected_client_is_shown_once_a_minute_for_all_of_its_credentials() {
    let mut breaker = Breaker::default();
    let mut exchanges = 0;
    for second in 0..3_600 {
        for number in 0..50 {
            let admission = breaker.admit(seconds(second));
            if let Admission::Wait(_) = admission {
                continue;
            }
            exchanges += 1;
            let probe = admission == Admission::Probe;
            breaker.hear(
                credential(number),
                probe,
                Heard::ClientRejected,
                0.1,
                seconds(second),
            );
        }
    }
    assert_eq!(exchanges, 3_600 / PAUSE_REJECTED.as_secs());
}

#[test]
fn a_probe_that_was_not_sent_leaves_its_place_to_the_next() {
    let mut breaker = opened(FAILED, seconds(100));
    assert_eq!(breaker.admit(seconds(200)), Admission::Probe);
    breaker.give_back(seconds(200));
    assert_eq!(breaker.admit(seconds(200)), Admission::Probe);
    // One that is never heard of again does so too.
    assert!(matches!(breaker.admit(seconds(500)), Admission::Wait(_)));
    assert_eq!(breaker.admit(seconds(200) + PROBE_LIMIT), Admission::Probe);
}

/// What may happen to a breaker, at times that also go back.
fn happenings() -> impl Strategy<Value = Vec<(u8, u8, i64, f64)>> {
    let step = prop_oneof![4 => 0_i64..20, 1 => -10_000_i64..10_000];
    proptest::collection::vec((0_u8..6, 0_u8..12, step, 0.0..1.0), 1..200)
}

proptest! {
    #[test]
    fn a_pause_is_never_longer_than_its_ceiling_and_none_is_endless(
        failures in 0_u32..100, fraction in -1.0..2.0, after in proptest::option::of(0_u64..1_000_000),
    ) {
        let pause = back_off(failures, fraction, after.map(seconds));
        prop_assert!(pause >= PAUSE_LEAST && pause <= PAUSE_MAX);
        prop_assert!(back_off(failures + 1, fraction, None) >= back_off(failures, fraction, None));
        let told = come_back(pause, fraction);
        prop_assert!(told >= pause && told <= pause + seconds(5));
    }

    /// Whatever it heard and however the clock jumped: it never asks for more than the longest pause, and after that
    /// pause something gets through.
    #[test]
    fn no_breaker_stays_shut(events in happenings()) {
        let (mut breaker, mut now) = (Breaker::default(), 100_000_i64);
        let at = |now: i64| Duration::from_secs(now.unsigned_abs());
        for (what, who, step, fraction) in events {
            now = (now + step).max(0);
            let admission = breaker.admit(at(now));
            if let Admission::Wait(left) = admission {
                prop_assert!(left <= PAUSE_MAX && !left.is_zero());
            }
            let heard = match what {
                0 => Heard::Works,
                1 => Heard::ClientRejected,
                2 => busy(u64::from(who) * 60),
                _ => FAILED,
            };
            match admission {
                Admission::Probe if what == 5 => breaker.give_back(at(now)),
                // A probe that nobody hears of.
                Admission::Probe if what == 4 => {}
                _ => breaker.hear(credential(who), admission == Admission::Probe, heard, fraction, at(now)),
            }
        }
        let later = at(now) + PAUSE_MAX.max(PROBE_LIMIT);
        prop_assert!(!matches!(breaker.admit(later), Admission::Wait(_)));
    }

    /// A clock that is put back while it is open: the pause is over at once, or has no more left than it had.
    #[test]
    fn a_clock_put_back_does_not_keep_it_open(
        at in 1_000_u64..1_000_000, back in prop_oneof![1_u64..600, 600_u64..1_000], later in 0_u64..2_000,
    ) {
        let breaker = opened(busy(300), seconds(at));
        prop_assert!(breaker.clone().admit(seconds(at - back)) == Admission::Probe);
        match breaker.clone().admit(seconds(at - back + later)) {
            Admission::Probe => prop_assert!(later < back || later - back >= 300),
            Admission::Wait(left) => prop_assert!(left <= PAUSE_MAX),
            Admission::Pass => prop_assert!(false, "it is open"),
        }
    }

    #[test]
    fn a_token_is_due_in_the_second_half_of_its_life_and_before_callers_notice(
        life in 1_u64..10_000_000, lead in 0_u64..100_000, window in 0_u64..100_000, spread: u64,
    ) {
        let (refreshed, expires) = (Time::from_seconds(1_000), Time::from_seconds(1_000) + seconds(life));
        let at = due(refreshed, expires, seconds(lead), seconds(window), spread).unwrap();
        prop_assert!(at.since(refreshed) >= seconds(life) / 2);
        prop_assert!(at < expires);
        if lead < life / 2 {
            let noticed = expires.since(at);
            prop_assert!(noticed >= seconds(lead), "callers do not wait for it");
            prop_assert!(noticed <= seconds(lead + window.min(life / 4)) + seconds(1), "nor is it far ahead");
        }
        let later = due(refreshed, expires, seconds(lead), seconds(window), u64::MAX).unwrap();
        prop_assert!(at <= later, "by its spread");
    }
}

#[test]
fn a_token_without_a_life_is_never_due() {
    let now = Time::from_seconds(1_000);
    assert_eq!(due(now, now, seconds(1), seconds(1), 0), None);
    assert_eq!(due(now, Time::from_seconds(1), seconds(1), seconds(1), 0), None);
}

/// Ids that differ in little, as those made at one moment do, are spread as evenly as any.
#[test]
fn what_was_made_together_is_spread_out() {
    const BINS: usize = 64;
    let mut bins = [0_u32; BINS];
    for number in 0..64_000_u64 {
        let mut bytes = [7; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        bins[(spread(Id::from_bytes(bytes), 2) >> 58) as usize] += 1;
    }
    assert!(bins.iter().all(|count| (850..1_150).contains(count)), "{bins:?}");
    assert_ne!(spread(credential(1), 1), spread(credential(1), 2));
}
