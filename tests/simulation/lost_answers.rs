//! Lost answers, one a schedule: how many of them cost a sign-in, with a provider that has a grace window and with
//! one that has none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dice::Dice;
use crate::fleet::{each, number_of};
use crate::provider::Rules;
use crate::report::failure;
use crate::schedule::{Ended, Weather, run_in};
use crate::truth::Part;
use crate::world::Point;

/// Where an answer gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// On its way back.
    OnTheWay,
    /// By a crash after the provider had acted, or once the answer had come.
    BeforeStaging(Point),
    /// By a crash when the answer was stored.
    AfterStaging(Point),
}

const LOSSES: [Loss; 7] = [
    Loss::OnTheWay,
    Loss::BeforeStaging(Point::AfterProvider),
    Loss::BeforeStaging(Point::AfterAnswer),
    Loss::BeforeStaging(Point::BeforeCommit(Some(Part::Answer(0)))),
    Loss::AfterStaging(Point::AfterCommit(Some(Part::Answer(0)))),
    Loss::AfterStaging(Point::BeforeCommit(Some(Part::Secret(0)))),
    Loss::AfterStaging(Point::AfterCommit(Some(Part::Secret(0)))),
];

impl Loss {
    fn aim(self) -> Option<Point> {
        match self {
            Loss::OnTheWay => None,
            Loss::BeforeStaging(at) | Loss::AfterStaging(at) => Some(at),
        }
    }

    fn is_before_staging(self) -> bool {
        !matches!(self, Loss::AfterStaging(_))
    }
}

/// A schedule in which the answer to the first exchange gets lost, and nothing else happens.
fn lose(seed: u64, grace: Option<u64>) -> (Loss, Ended) {
    let mut dice = Dice::new(!seed);
    let loss = dice.pick(&LOSSES);
    let weather = Weather {
        rules: Rules {
            rotates: true,
            survives: dice.percent(50),
            grace,
            life: dice.pick(&[60_000, 3_600_000]),
            tells_life: true,
        },
        agents: [dice.between(1, 4) as usize, 0],
        calls: dice.between(1, 2),
        pause: dice.pick(&[5, 500, 3_000]),
        hang_up: dice.pick(&[0, 20]),
        downtime: 5_000,
        first_fate: Some(loss == Loss::OnTheWay),
        ..Weather::calm()
    };
    (loss, run_in(seed, weather, loss.aim(), false))
}

/// How many of `count` lost answers cost a sign-in, and how many were lost between the provider and the store.
fn sign_ins(count: u64, grace: Option<u64>) -> (u64, u64) {
    let (needed, before_staging) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(None);
    each(0, count, |seed| {
        let (loss, ended) = lose(seed, grace);
        before_staging.fetch_add(u64::from(loss.is_before_staging()), Ordering::Relaxed);
        needed.fetch_add(u64::from(ended.sign_ins > 0), Ordering::Relaxed);
        let expected = loss.is_before_staging() && grace.is_none();
        let fault = match &ended.violation {
            Some(violation) => Some(failure(seed, violation)),
            None if (ended.sign_ins > 0) != expected => Some(format!(
                "seed {seed}, lost {loss:?}, grace {grace:?}: {} sign-ins",
                ended.sign_ins
            )),
            None => None,
        };
        let good = fault.is_none();
        if let Some(fault) = fault {
            *failed.lock().unwrap() = Some(fault);
        }
        good
    });
    if let Some(fault) = failed.into_inner().unwrap() {
        panic!("{fault}");
    }
    (needed.into_inner(), before_staging.into_inner())
}

// req: B5 N1
#[test]
fn a_lost_answer_costs_a_sign_in_only_where_nothing_else_is_possible() {
    let count = number_of("CREDBROKER_SIM_LOST").unwrap_or(200);
    let (with, _) = sign_ins(count, Some(60_000));
    let (without, before_staging) = sign_ins(count, None);
    println!(
        "{count} lost answers: {with} sign-ins with a grace window; {without} without, \
         of {before_staging} that were lost between the provider and the store"
    );
    assert_eq!((with, without), (0, before_staging));
}
