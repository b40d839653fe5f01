//! What becomes of tokens, try by try.

use proptest::prelude::*;

use super::*;
use crate::domain::id::Id;

const NOW: Time = Time::from_seconds(1_700_000_000);

const REVOKED: Heard = Heard::Revoked { with_grant: false };

fn after(seconds: u64) -> Time {
    NOW + Duration::from_secs(seconds)
}

fn begun() -> Revocation {
    Revocation {
        id: Id::from_bytes([1; 16]),
        org: Id::from_bytes([2; 16]),
        member: Some(Id::from_bytes([3; 16])),
        connector: "demo".to_owned(),
        credential: Some(Id::from_bytes([4; 16])),
        with_credential: false,
        tokens: vec![
            RevokedToken::pending(TokenKind::Refresh, None),
            RevokedToken::pending(TokenKind::Access, Some(after(600))),
        ],
        attempts: 0,
        next: Some(NOW),
        created: NOW,
        ended: None,
    }
}

fn not_now(retry_after: Option<Duration>) -> Heard {
    Heard::NotNow {
        message: "status 503".to_owned(),
        retry_after,
    }
}

fn fates(revocation: &Revocation) -> Vec<Fate> {
    revocation.tokens.iter().map(|token| token.fate).collect()
}

#[test]
fn the_refresh_token_comes_first_and_the_last_confirmation_ends_it() {
    let one = begun();
    assert_eq!(one.next_token(), Some(0));
    let two = one.on(Event::Heard(0, REVOKED), NOW, 0.5);
    assert_eq!(two.next_token(), Some(1));
    assert_eq!((two.attempts, two.ended), (0, None), "one try asks about both");
    let done = two.on(Event::Heard(1, REVOKED), after(1), 0.5);
    assert_eq!((done.attempts, done.next, done.ended), (1, None, Some(after(1))));
    assert!(done.is_confirmed());
}

#[test]
fn what_the_provider_asks_for_is_waited_for_and_what_was_revoked_stays_so() {
    let two = begun().on(Event::Heard(0, REVOKED), NOW, 0.5);
    let wait = Duration::from_secs(3_600);
    let later = two.on(Event::Heard(1, not_now(Some(wait))), NOW, 0.5);
    assert_eq!(fates(&later), [Fate::Revoked, Fate::Pending]);
    assert_eq!((later.attempts, later.next), (1, Some(NOW + wait)));
    assert_eq!(later.tokens[1].message, "status 503");
    assert_eq!(later.tokens[0].message, "");
}

#[test]
fn access_tokens_go_with_their_grant_only_where_that_is_known() {
    let unsupported = || Heard::Unsupported {
        message: "unsupported_token_type".to_owned(),
    };
    let known = begun().on(Event::Heard(0, Heard::Revoked { with_grant: true }), NOW, 0.5);
    assert_eq!(fates(&known), [Fate::Revoked, Fate::WithGrant]);
    assert!(known.is_confirmed());
    let two = begun().on(Event::Heard(0, REVOKED), NOW, 0.5);
    let unknown = two.on(Event::Heard(1, unsupported()), NOW, 0.5);
    assert_eq!(fates(&unknown), [Fate::Revoked, Fate::Expires]);
    assert_eq!(unknown.tokens[1].expires, Some(after(600)));
    assert!(!unknown.is_confirmed());
    // Nothing goes with a refresh token that is not revoked, and nothing with an access token.
    let one = begun().on(Event::Heard(0, unsupported()), NOW, 0.5);
    let neither = one.on(Event::Heard(1, Heard::Revoked { with_grant: true }), NOW, 0.5);
    assert_eq!(fates(&neither), [Fate::Expires, Fate::Revoked]);
}

/// A confirmation is of the token that was shown, not of one that may have taken its place.
#[test]
fn what_may_have_been_replaced_is_told_so_whatever_is_confirmed() {
    let mut one = begun();
    one.tokens[0].doubt();
    let doubt = one.tokens[0].message.clone();
    let later = one.on(Event::Heard(0, not_now(None)), NOW, 0.5);
    assert_eq!(later.tokens[0].message, format!("{doubt}; status 503"));
    assert_eq!(later.tokens[1].message, "status 503");
    let done = later.on(Event::Heard(0, REVOKED), NOW, 0.5);
    assert_eq!(
        (done.tokens[0].fate, &done.tokens[0].message),
        (Fate::Revoked, &doubt)
    );
}

#[test]
fn a_refusal_of_one_token_says_nothing_of_the_other() {
    let message = "invalid_client".to_owned();
    let one = begun().on(Event::Heard(0, Heard::Refused { message }), NOW, 0.5);
    assert_eq!(fates(&one), [Fate::GivenUp, Fate::Pending]);
    let done = one.on(Event::Heard(1, REVOKED), NOW, 0.5);
    assert_eq!(fates(&done), [Fate::GivenUp, Fate::Revoked]);
    assert_eq!(done.ended, Some(NOW));
}

#[test]
fn without_an_endpoint_nobody_was_asked() {
    let done = begun().on(Event::Pointless("no endpoint".to_owned()), NOW, 0.5);
    assert_eq!(fates(&done), [Fate::Expires, Fate::Expires]);
    assert_eq!((done.attempts, done.ended), (0, Some(NOW)));
}

#[test]
fn what_has_expired_is_not_asked_for() {
    let later = begun().on(Event::Begun, after(600), 0.5);
    assert_eq!(fates(&later), [Fate::Pending, Fate::Expires]);
    assert_eq!(later.ended, None);
    let earlier = begun().on(Event::Begun, after(599), 0.5);
    assert_eq!(fates(&earlier), [Fate::Pending, Fate::Pending]);
}

#[test]
fn it_does_not_end_before_its_tokens_were_looked_for() {
    let hidden = Revocation {
        with_credential: true,
        tokens: Vec::new(),
        ..begun()
    };
    assert_eq!(hidden.on(Event::Begun, NOW, 0.5).ended, None);
    let access = RevokedToken::pending(TokenKind::Access, None);
    let refresh = RevokedToken::pending(TokenKind::Refresh, None);
    let found = hidden.on(Event::Gathered(vec![access, refresh.clone()]), NOW, 0.5);
    assert_eq!(found.tokens[0], refresh);
    let none = hidden.on(Event::Gathered(Vec::new()), NOW, 0.5);
    assert_eq!(none.ended, Some(NOW));
    // Nor does it wait for them for good.
    let tokens = begun().tokens;
    let attempts = MAX_ATTEMPTS - 1;
    let last = Revocation {
        tokens,
        attempts,
        ..hidden
    };
    let given_up = last.on(Event::Heard(0, not_now(None)), NOW, 0.5);
    assert_eq!((given_up.with_credential, given_up.ended), (false, Some(NOW)));
}

#[test]
fn tries_that_fail_take_days_and_come_to_an_end() {
    let (mut revocation, mut now, mut tries) = (begun(), NOW, 0);
    while let Some(next) = revocation.next {
        now = next;
        revocation = revocation.on(Event::Heard(0, not_now(None)), now, 0.5);
        tries += 1;
    }
    assert_eq!((tries, revocation.attempts), (MAX_ATTEMPTS, MAX_ATTEMPTS));
    assert_eq!(fates(&revocation), [Fate::GivenUp, Fate::GivenUp]);
    let days = now.since(NOW).as_secs() / 86_400;
    assert!((2..=3).contains(&days), "{days} days");
    // Of what has ended nothing changes any more.
    let again = revocation.on(Event::Heard(0, REVOKED), now, 0.5);
    assert_eq!(again, revocation);
    assert!(!revocation.is_over(now + (KEPT - Duration::from_millis(1))));
    assert!(revocation.is_over(now + KEPT));
}

#[test]
fn a_clock_that_was_put_back_stops_nothing() {
    assert!(Revocation::is_due(NOW, NOW));
    assert!(!Revocation::is_due(after(1), NOW));
    assert!(!Revocation::is_due(NOW + RETRY_AFTER_MAX, NOW));
    assert!(Revocation::is_due(after(366 * 86_400), NOW));
}

fn heard() -> impl Strategy<Value = Heard> {
    let message = || "said".to_owned();
    prop_oneof![
        any::<bool>().prop_map(|with_grant| Heard::Revoked { with_grant }),
        Just(Heard::Unsupported { message: message() }),
        proptest::option::of(0u64..10_000_000).prop_map(move |after| not_now(after.map(Duration::from_secs))),
        Just(Heard::Refused { message: message() }),
    ]
}

proptest! {
    /// Whatever a provider says, in whatever order: a token that has ended stays as it is, there is a next try as long
    /// as any is pending and only then, none is further off than is believed, and their number is bounded.
    #[test]
    fn every_course_ends(said in proptest::collection::vec((0usize..3, heard()), 0..64), fraction in 0.0f64..1.0) {
        let (mut revocation, mut now) = (begun(), NOW);
        for (place, heard) in said {
            let before = revocation.clone();
            revocation = before.on(Event::Heard(place, heard), now, fraction);
            for (was, is) in before.tokens.iter().zip(&revocation.tokens) {
                prop_assert!(was.fate == Fate::Pending || was == is);
            }
            let pending = revocation.next_token().is_some();
            prop_assert_eq!(pending, revocation.ended.is_none());
            prop_assert_eq!(pending, revocation.next.is_some());
            prop_assert!(revocation.attempts <= MAX_ATTEMPTS);
            if let Some(next) = revocation.next {
                prop_assert!(next.since(now) <= RETRY_AFTER_MAX);
                now = now.max(next);
            }
        }
    }
}
