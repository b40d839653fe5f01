//! The state machine, event by event.

use super::*;

const ME: Incarnation = Incarnation([1; 16]);
const BEFORE: Incarnation = Incarnation([0; 16]);
const ROTATING: ResendRule = ResendRule {
    rotates: true,
    grace: None,
};

fn at(millis: i64) -> Time {
    Time::from_millis(millis)
}

fn needed(state: &Rotation, rule: ResendRule, now: Time) -> (Rotation, Step) {
    let deadline = now + Duration::from_secs(30);
    state
        .on(
            Event::Needed {
                by: ME,
                deadline,
                rule,
            },
            Fence(0),
            now,
        )
        .unwrap()
}

fn claimed() -> Rotation {
    needed(&Rotation::new(), ROTATING, at(0)).0
}

fn report(state: &Rotation, event: Event, now: Time) -> (Rotation, Step) {
    state.on(event, state.fence, now).unwrap()
}

fn lost() -> Event {
    lost_under(ROTATING)
}

fn lost_under(rule: ResendRule) -> Event {
    Event::Lost {
        message: "cut".into(),
        rule,
        retry_after: None,
    }
}

const GRANTED: Event = Event::Granted { not_before: None };

#[test]
fn the_good_way() {
    let (claimed, step) = needed(&Rotation::new(), ROTATING, at(0));
    assert_eq!(step, Step::Exchange(Fence(1)));
    let (staged, step) = report(&claimed, Event::Answered, at(1));
    assert_eq!(step, Step::Adopt(Fence(1)));
    let (live, step) = report(&staged, GRANTED, at(2));
    assert_eq!(
        (live.generation, &live.phase, step),
        (2, &Phase::rested(), Step::Rest)
    );
}

#[test]
fn a_claim_of_an_earlier_run_is_ambiguous_and_never_free() {
    let claim = Rotation {
        phase: Phase::Claimed {
            by: BEFORE,
            deadline: at(30_000),
            sent: Sent {
                first: at(0),
                unanswered: 0,
            },
        },
        ..claimed()
    };
    let started = Event::Started {
        by: ME,
        rule: ROTATING,
    };
    let (state, step) = claim.on(started, Fence(0), at(100)).unwrap();
    assert!(matches!(state.phase, Phase::Ambiguous { .. }), "{state:?}");
    assert_eq!(step, Step::Rest);
    // Met without a start, as in a cluster: left alone until its deadline, then ambiguous.
    assert_eq!(
        needed(&claim, ROTATING, at(100)),
        (claim.clone(), Step::Wait(at(30_000)))
    );
    assert!(matches!(
        needed(&claim, ROTATING, at(30_000)).0.phase,
        Phase::Ambiguous { .. }
    ));
}

#[test]
fn an_ambiguous_token_rests_longer_each_time() {
    let (once, _) = report(&claimed(), lost(), at(1_000));
    assert_eq!(needed(&once, ROTATING, at(2_999)).1, Step::Wait(at(3_000)));
    assert_eq!(needed(&once, ROTATING, at(3_000)).1, Step::Exchange(Fence(2)));
    let (twice, _) = report(&needed(&once, ROTATING, at(3_000)).0, lost(), at(4_000));
    assert_eq!(needed(&twice, ROTATING, at(7_999)).1, Step::Wait(at(8_000)));
    assert_eq!(needed(&twice, ROTATING, at(8_000)).1, Step::Exchange(Fence(3)));
}

#[test]
fn where_sending_again_is_harmless_it_rests_briefly_and_not_at_all_never() {
    let steady = ResendRule {
        rotates: false,
        grace: None,
    };
    let grace = ResendRule {
        rotates: true,
        grace: Some(Duration::from_secs(5)),
    };
    for rule in [steady, grace] {
        let (once, step) = report(&claimed(), lost_under(rule), at(1_000));
        assert_eq!(step, Step::Wait(at(1_250)), "{rule:?}");
        assert_eq!(needed(&once, rule, at(1_249)).1, Step::Wait(at(1_250)));
        assert_eq!(needed(&once, rule, at(1_250)).1, Step::Exchange(Fence(2)));
        let (_, step) = report(&needed(&once, rule, at(1_250)).0, lost_under(rule), at(2_000));
        assert_eq!(step, Step::Wait(at(2_500)), "{rule:?}");
    }
    // The window counts from the first sending. What would come too late for it rests as if there were none.
    let (late, _) = report(&claimed(), lost_under(grace), at(4_800));
    assert_eq!(needed(&late, grace, at(5_100)).1, Step::Wait(at(6_800)));
    // What the provider asked for holds, harmless or not.
    let busy = Event::NotProcessed {
        not_before: at(60_000),
        message: "429".into(),
    };
    let (once, _) = report(&claimed(), lost_under(steady), at(1_000));
    let (busy, _) = report(&needed(&once, steady, at(1_250)).0, busy, at(1_300));
    assert_eq!(needed(&busy, steady, at(59_999)).1, Step::Wait(at(60_000)));
}

#[test]
fn what_a_failing_provider_asks_for_holds_but_where_a_grace_window_would_pass() {
    let asked = |rule, seconds| Event::Lost {
        message: "503".into(),
        rule,
        retry_after: Some(Duration::from_secs(seconds)),
    };
    let grace = ResendRule {
        rotates: true,
        grace: Some(Duration::from_secs(60)),
    };
    let until = |rule, seconds| match report(&claimed(), asked(rule, seconds), at(1_000)).1 {
        Step::Wait(until) => until,
        other => panic!("{other:?}"),
    };
    assert_eq!(until(ROTATING, 1), at(3_000), "the rest is longer");
    assert_eq!(until(ROTATING, 120), at(121_000));
    assert_eq!(until(grace, 30), at(31_000), "within the window");
    assert_eq!(
        until(grace, 120),
        at(1_250),
        "past it: asked for again while it is open"
    );
    assert_eq!(
        until(ROTATING, 100_000),
        at(301_000),
        "no pause is longer than five minutes"
    );
}

#[test]
fn tokens_without_life_are_kept_and_not_asked_for_again_at_once() {
    let (staged, _) = report(&claimed(), Event::Answered, at(1));
    let granted = Event::Granted {
        not_before: Some(at(500)),
    };
    let (state, step) = report(&staged, granted, at(2));
    assert_eq!((state.generation, state.failures, step), (2, 1, Step::Rest));
    assert_eq!(needed(&state, ROTATING, at(499)).1, Step::Wait(at(500)));
    assert_eq!(needed(&state, ROTATING, at(500)).1, Step::Exchange(Fence(2)));
}

/// Where a refusal leaves a grant whose refresh token was sent once, and one whose token was sent before and
/// never answered.
fn refused(told: Told, rotates: bool, expires: Option<Time>) -> [Phase; 2] {
    let once = report(&claimed(), lost(), at(1)).0;
    let resent = needed(&once, ROTATING, at(9_000)).0;
    [claimed(), resent].map(|claim| {
        let staged = report(&claim, Event::Answered, at(9_001)).0;
        let event = Event::Refused(Refused {
            message: "invalid_grant".into(),
            told,
            rotates,
            expires,
        });
        let (after, step) = report(&staged, event, at(9_002));
        assert_eq!(step, Step::Stop);
        assert_eq!(after.message(), "invalid_grant");
        after.phase
    })
}

#[test]
fn a_refusal_is_explained_by_our_own_history_or_it_is_not() {
    let over = Some(at(9_000));
    let running = Some(at(10_000));
    for (told, rotates, expires, causes) in [
        (Told::Nothing, true, None, ["refreshed-elsewhere", "answer-lost"]),
        (
            Told::Nothing,
            true,
            running,
            ["refreshed-elsewhere", "answer-lost"],
        ),
        (Told::Nothing, true, over, ["expired", "answer-lost"]),
        // What is never replaced cannot have been replaced elsewhere, and sending it twice does no harm.
        (Told::Nothing, false, None, ["refused", "refused"]),
        (Told::Reused, true, None, ["refreshed-elsewhere", "answer-lost"]),
        (Told::Reused, true, over, ["refreshed-elsewhere", "answer-lost"]),
        (Told::Withdrawn, true, None, ["withdrawn", "answer-lost"]),
        (Told::Withdrawn, false, None, ["withdrawn", "withdrawn"]),
        (Told::Expired, true, None, ["expired", "expired"]),
    ] {
        let phases = refused(told, rotates, expires);
        let shown = phases.each_ref().map(|phase| phase.cause().unwrap());
        assert_eq!(shown, causes, "{told:?} {rotates} {expires:?}");
    }
}

#[test]
fn what_is_quarantined_rests_until_it_is_replaced() {
    let [phase, _] = refused(Told::Nothing, true, None);
    assert!(matches!(phase, Phase::Quarantined { .. }), "{phase:?}");
    let state = Rotation {
        phase,
        ..Rotation::new()
    };
    for later in [at(9_003), at(1_000_000_000)] {
        assert_eq!(needed(&state, ROTATING, later), (state.clone(), Step::Stop));
    }
    let (healed, _) = state.on(Event::Replaced, Fence(0), at(10_000)).unwrap();
    assert_eq!(
        (healed.generation, healed.phase),
        (state.generation + 1, Phase::rested())
    );
}

#[test]
fn what_was_not_processed_changes_nothing_but_the_time_of_the_next() {
    let busy = || Event::NotProcessed {
        not_before: at(500),
        message: "429".into(),
    };
    let (live, step) = report(&claimed(), busy(), at(1));
    assert_eq!(
        (live.generation, live.failures, step),
        (1, 1, Step::Wait(at(500)))
    );
    assert_eq!(needed(&live, ROTATING, at(499)).1, Step::Wait(at(500)));
    let again = needed(&live, ROTATING, at(500)).0;
    assert_eq!(report(&again, busy(), at(501)).0.failures, 2);

    let once = report(&claimed(), lost(), at(1)).0;
    let resent = needed(&once, ROTATING, at(9_000)).0;
    let after = report(&resent, busy(), at(9_001)).0;
    assert!(matches!(
        after.phase,
        Phase::Ambiguous {
            sent: Sent { unanswered: 1, .. },
            ..
        }
    ));
}

#[test]
fn an_old_fence_changes_nothing() {
    let state = claimed();
    for event in [Event::Answered, GRANTED, lost()] {
        assert_eq!(state.on(event, Fence(0), at(1)), Err(ClaimLost));
    }
    assert_eq!(
        state.on(GRANTED, state.fence, at(1)),
        Err(ClaimLost),
        "granted before staged"
    );
}

#[test]
fn a_dead_grant_is_not_sent_again() {
    let dead = Phase::Dead {
        since: at(0),
        cause: Death::Refused,
        message: String::new(),
    };
    let state = Rotation {
        phase: dead,
        ..Rotation::new()
    };
    assert_eq!(
        needed(&state, ROTATING, at(1_000_000)),
        (state.clone(), Step::Stop)
    );
    assert_eq!(
        state.on(Event::Replaced, Fence(0), at(1)).unwrap().0.generation,
        2
    );
}

#[test]
fn a_clock_that_is_put_back_keeps_no_grant_waiting_for_days() {
    let day = 86_400_000;
    let claimed = needed(&Rotation::new(), ROTATING, at(day)).0;
    let busy = Event::NotProcessed {
        not_before: at(day + 300_000),
        message: "429".into(),
    };
    let (paused, _) = report(&claimed, busy, at(day));
    assert_eq!(
        needed(&paused, ROTATING, at(day)).1,
        Step::Wait(at(day + 300_000))
    );
    assert_eq!(needed(&paused, ROTATING, at(0)).1, Step::Exchange(Fence(2)));

    let (ambiguous, _) = report(&claimed, lost(), at(day));
    assert_eq!(needed(&ambiguous, ROTATING, at(0)).1, Step::Exchange(Fence(2)));
    // Within a pause of the time that was set it is not told from a clock that goes right.
    let grace = ResendRule {
        rotates: true,
        grace: Some(Duration::from_secs(5)),
    };
    assert_eq!(
        needed(&ambiguous, grace, at(day - 1)).1,
        Step::Wait(at(day + 2_000))
    );
}
