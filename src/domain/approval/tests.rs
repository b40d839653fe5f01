//! Approvals, judged and decided.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::domain::id::Id;

fn hash(byte: u8) -> TokenHash {
    TokenHash::from_bytes([byte; 32])
}

fn at(seconds: i64) -> Time {
    Time::from_seconds(seconds)
}

fn only(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn capability(executors: &[&str], providers: &[&str], modes: &[&str]) -> Result<Capability, BadList> {
    let any = |_: &str| true;
    Capability::of(&only(executors), &only(providers), &only(modes), any, any)
}

const MEMBER: [u8; 16] = [5; 16];

fn approver() -> Party {
    Party::Member(Id::from_bytes([6; 16]))
}

/// Asked for at 0, for an hour and one use.
fn request() -> Approval {
    Approval {
        id: Id::from_bytes([1; 16]),
        org: Id::from_bytes([2; 16]),
        project: Id::from_bytes([3; 16]),
        environment: Id::from_bytes([4; 16]),
        task: None,
        member: Some(Id::from_bytes(MEMBER)),
        spec_hash: "abc".into(),
        capability: capability(&["claude-code"], &["anthropic"], &["oauth", "byok"]).unwrap(),
        token: hash(1),
        requester: Some(Party::Agent(Id::from_bytes([7; 16]))),
        reason: String::new(),
        ttl_ms: 3_600_000,
        use_limit: 1,
        created: at(0),
        expires: at(0) + PENDING_FOR,
        ruling: None,
        revoked: None,
    }
}

fn granted() -> Approval {
    request().granted(approver(), at(100), None, None, "").unwrap()
}

fn sought() -> Sought<'static> {
    Sought {
        environment: Id::from_bytes([4; 16]),
        member: Id::from_bytes(MEMBER),
        spec_hash: "abc",
        executor: "claude-code",
        provider: "anthropic",
        mode: AuthMode::OAuth,
    }
}

fn judge(approval: &Approval, now: i64) -> Result<Approved, Unapproved> {
    approval.judge(&hash(1), sought(), at(now), &[], 0)
}

#[test]
fn an_approval_is_good_from_its_grant_to_its_end() {
    assert_eq!(judge(&request(), 50), Err(Unapproved::Stands(State::Pending)));
    assert!(judge(&granted(), 100).is_ok() && judge(&granted(), 3_699).is_ok());
    assert_eq!(judge(&granted(), 3_700), Err(Unapproved::Stands(State::Expired)));
    assert_eq!(judge(&request(), 86_400), Err(Unapproved::Stands(State::Expired)));
    let denied = request().denied(approver(), at(100), "no").unwrap();
    assert_eq!(judge(&denied, 101), Err(Unapproved::Stands(State::Denied)));
    let revoked = Approval {
        revoked: Some(at(102)),
        ..granted()
    };
    assert_eq!(judge(&revoked, 103), Err(Unapproved::Stands(State::Revoked)));
}

#[test]
fn another_token_learns_nothing_of_how_the_approval_stands() {
    for approval in [request(), granted()] {
        let judged = approval.judge(&hash(2), sought(), at(101), &[0], 0);
        assert_eq!(judged, Err(Unapproved::Unknown));
    }
}

#[test]
fn each_thing_that_differs_is_named() {
    let right = sought();
    for (other, field) in [
        (
            Sought {
                environment: Id::from_bytes([9; 16]),
                ..right
            },
            "environment",
        ),
        (
            Sought {
                spec_hash: "abcd",
                ..right
            },
            "spec_hash",
        ),
        (
            Sought {
                spec_hash: "",
                ..right
            },
            "spec_hash",
        ),
        (
            Sought {
                executor: "claude-cod",
                ..right
            },
            "executor",
        ),
        (
            Sought {
                provider: "Anthropic",
                ..right
            },
            "provider",
        ),
        (
            Sought {
                mode: AuthMode::Metered,
                ..right
            },
            "mode",
        ),
        (
            Sought {
                member: Id::from_bytes([6; 16]),
                ..right
            },
            "member",
        ),
    ] {
        let judged = granted().judge(&hash(1), other, at(101), &[], 0);
        assert_eq!(judged, Err(Unapproved::Mismatch(field)));
    }
}

#[test]
fn nobody_decides_what_they_asked_for_or_what_is_done_in_their_name() {
    let own = Err(Undecidable::Own);
    let grant = |approval: &Approval, by| approval.granted(by, at(1), None, None, "").map(|_| ());
    assert_eq!(grant(&request(), Party::Member(Id::from_bytes(MEMBER))), own);
    let asked = Approval {
        requester: Some(approver()),
        ..request()
    };
    assert_eq!(grant(&asked, approver()), own);
    assert_eq!(asked.denied(approver(), at(1), "").map(|_| ()), own);
    assert_eq!(grant(&request(), approver()), Ok(()));
}

#[test]
fn a_decision_stands_and_grants_no_more_than_was_asked_for() {
    let again = granted().denied(approver(), at(200), "").map(|_| ());
    assert_eq!(again, Err(Undecidable::Decided(State::Granted)));
    let late = request().granted(approver(), at(86_400), None, None, "");
    assert_eq!(late.map(|_| ()), Err(Undecidable::Decided(State::Expired)));
    let longer = Some(Duration::from_secs(3_601));
    let grant = |ttl, uses| request().granted(approver(), at(1), ttl, uses, "").map(|_| ());
    assert_eq!(grant(longer, None), Err(Undecidable::Wider("ttl")));
    assert_eq!(grant(None, Some(2)), Err(Undecidable::Wider("use_limit")));
    assert_eq!(grant(None, Some(0)), Err(Undecidable::Wider("use_limit")));
    let shorter = request().granted(approver(), at(1), Some(TTL_MIN), None, "");
    assert_eq!(shorter.unwrap().expires, at(61));
}

#[test]
fn a_list_says_what_it_means_or_is_refused() {
    let field = |capability: Result<Capability, BadList>| capability.unwrap_err().field;
    assert_eq!(field(capability(&[], &["*"], &["*"])), "capability.executors");
    assert_eq!(
        field(capability(&["*"], &["*", "anthropic"], &["*"])),
        "capability.providers"
    );
    assert_eq!(field(capability(&["*"], &["*"], &["oauth2"])), "capability.modes");
    assert_eq!(
        field(capability(&["*"; 17], &["*"], &["*"])),
        "capability.executors"
    );
    let unknown = Capability::of(&only(&["x"]), &only(&["*"]), &only(&["*"]), |_| false, |_| true);
    assert_eq!(field(unknown), "capability.executors");
    let any = capability(&["*"], &["*"], &["*"]).unwrap();
    assert_eq!(any.lacks("whatever", "*", AuthMode::Local), None);
    // A star within a name is a letter like any other.
    let named = capability(&["claude*"], &["*"], &["*"]).unwrap();
    assert_eq!(named.lacks("claude-code", "p", AuthMode::Byok), Some("executor"));
}

#[test]
fn clearance_comes_from_an_approval_or_from_an_environment_that_demands_none() {
    assert!(Clearance::by_posture(Posture::Required).is_none());
    let free = Clearance::by_posture(Posture::None).unwrap();
    assert_eq!((free.approved(), free.bound(at(9))), (None, at(9)));
    let approved = Clearance::by_approval(judge(&granted(), 101).unwrap());
    assert_eq!(approved.bound(at(90_000)), at(3_700));
    assert_eq!(approved.bound(at(200)), at(200));
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        Just(vec![ANY.to_owned()]),
        proptest::collection::vec("[ab]{1,2}", 1..4)
    ]
}

fn listed(names: &[String], name: &str) -> bool {
    names == [ANY] || names.iter().any(|one| one == name)
}

proptest! {
    #[test]
    fn a_capability_allows_what_its_lists_say_and_nothing_else(
        executors in names(), providers in names(), executor in "[ab]{1,2}", provider in "[ab]{1,2}",
        modes in proptest::sample::subsequence(&AuthMode::ORDER[..], 1..=6), mode in 0usize..6,
    ) {
        let mode = AuthMode::ORDER[mode];
        let mode_names: Vec<String> = modes.iter().map(|mode| mode.name().to_owned()).collect();
        let capability = Capability::of(&executors, &providers, &mode_names, |_| true, |_| true).unwrap();
        let allowed = listed(&executors, &executor) && listed(&providers, &provider) && modes.contains(&mode);
        prop_assert_eq!(capability.lacks(&executor, &provider, mode).is_none(), allowed);
    }

    #[test]
    fn uses_take_free_slots_until_there_are_none(limit in 1u32..40, starts in proptest::collection::vec(any::<u16>(), 50)) {
        let approval = Approval { use_limit: limit, ..granted() };
        let mut taken = Vec::new();
        for start in starts {
            match approval.judge(&hash(1), sought(), at(101), &taken, start) {
                Ok(approved) => {
                    prop_assert!(!taken.contains(&approved.slot()) && u32::from(approved.slot()) < limit);
                    taken.push(approved.slot());
                }
                Err(why) => {
                    prop_assert_eq!(why, Unapproved::Stands(State::Spent));
                    prop_assert_eq!(taken.len(), limit as usize);
                }
            }
        }
        prop_assert!(taken.len() <= limit as usize);
    }
}
