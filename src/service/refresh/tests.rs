//! What may be handed out, by the state alone.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::domain::rotation::{Death, Sent};

fn standing(generation: u64, phase: Phase) -> Rotation {
    Rotation {
        generation,
        phase,
        ..Rotation::new()
    }
}

#[test]
fn what_died_or_may_have_died_since_it_was_chosen_is_not_handed_out() {
    let at = Time::from_millis(0);
    let sent = Sent {
        first: at,
        unanswered: 0,
    };
    let message = String::new();
    let under_way = [
        Phase::Claimed {
            by: Incarnation([1; 16]),
            deadline: at,
            sent,
        },
        Phase::Staged { sent },
        Phase::Ambiguous {
            sent,
            not_before: at,
            message: message.clone(),
        },
    ];
    let over = [
        Phase::Quarantined {
            since: at,
            message: message.clone(),
        },
        Phase::Dead {
            since: at,
            cause: Death::Refused,
            message,
        },
    ];
    let chosen = standing(2, Phase::rested());
    for survives in [false, true] {
        let rules = Rules {
            lead: Duration::ZERO,
            survives,
        };
        assert!(rules.still_good(&chosen, &chosen));
        assert!(!rules.still_good(&chosen, &standing(3, Phase::rested())));
        for phase in &under_way {
            let now = standing(2, phase.clone());
            assert_eq!(rules.still_good(&chosen, &now), survives, "{phase:?}");
        }
        for phase in &over {
            assert!(
                !rules.still_good(&chosen, &standing(2, phase.clone())),
                "{phase:?}"
            );
        }
    }
}
