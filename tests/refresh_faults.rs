//! Providers that fail: what is known not to have happened is tried again, what is not known is not guessed.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use credbroker::proto::CredentialHealth;
use futures_util::future::join_all;
use support::client::{metadata, retry_after, secret};
use support::provider::Reply;
use support::reason;
use support::scene::Scene;
use tonic::{Code, Status};

/// Long enough for the rests and pauses after a first failure.
const REST: Duration = Duration::from_secs(5);

fn ambiguous(refused: &Status) {
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(reason(refused), "REFRESH_AMBIGUOUS");
    let wait = retry_after(refused).unwrap();
    assert!(wait > Duration::ZERO && wait <= REST, "{wait:?}");
}

/// A scene whose first token has half its life, after an exchange that ended with a server error.
async fn after_a_server_error(survives: bool) -> (Scene, String) {
    let (scene, first) = Scene::leased(&format!("old_access_survives = {survives}"), "").await;
    scene.clock.advance(Duration::from_secs(300));
    scene.provider.answer(
        502,
        r#"{"error":"invalid_grant","error_description":"upstream went away"}"#,
    );
    let refused = scene.resolve_for(Duration::from_secs(400)).await.unwrap_err();
    ambiguous(&refused);
    assert!(metadata(&refused, "provider_message").contains("upstream went away"));
    assert_eq!(scene.shown().await.health(), CredentialHealth::Ambiguous);
    assert_eq!(scene.provider.calls(), 2);
    let token = secret(&first).to_owned();
    (scene, token)
}

/// The provider may have rotated the grant, and where that ends the old access token, nobody gets it any more.
// req: N1 N9 B4
#[tokio::test(flavor = "multi_thread")]
async fn after_a_server_error_an_access_token_that_may_be_dead_is_withheld() {
    let (scene, old) = after_a_server_error(false).await;
    let asked = join_all((0..16).map(|_| scene.resolve())).await;
    asked
        .iter()
        .for_each(|answer| ambiguous(answer.as_ref().unwrap_err()));
    assert_eq!(scene.provider.calls(), 2, "it rests");

    scene.clock.advance(REST);
    let lease = scene.resolve().await.unwrap();
    assert_ne!(secret(&lease), old);
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (3, 0));
    assert_eq!(scene.shown().await.health(), CredentialHealth::Ok);
}

// req: N1 N9 B4
#[tokio::test]
async fn after_a_server_error_an_access_token_that_survives_is_handed_out() {
    let (scene, old) = after_a_server_error(true).await;
    let lease = scene.resolve().await.unwrap();
    assert_eq!((lease.generation, secret(&lease)), (2, old.as_str()));
    ambiguous(&scene.resolve_for(Duration::from_secs(400)).await.unwrap_err());
    assert_eq!(scene.provider.calls(), 2);
    assert_eq!(scene.shown().await.health(), CredentialHealth::Ambiguous);

    scene.clock.advance(REST);
    let lease = scene.resolve_for(Duration::from_secs(400)).await.unwrap();
    assert_eq!(lease.generation, 3);
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (3, 0));
}

/// The provider rotated the grant and its answer was lost. The one resend proves that, and nothing follows it.
// req: N1 N8
#[tokio::test]
async fn a_lost_answer_is_ambiguous_until_a_resend_proves_the_grant_dead() {
    let (scene, _) = Scene::leased("", "").await;
    scene.expire();
    scene.provider.next(Reply::HangUp { rotated: true });
    ambiguous(&scene.resolve().await.unwrap_err());
    ambiguous(&scene.resolve().await.unwrap_err());
    assert_eq!(scene.provider.calls(), 2);

    scene.clock.advance(REST);
    for _ in 0..3 {
        let refused = scene.resolve().await.unwrap_err();
        assert_eq!(reason(&refused), "REAUTH_REQUIRED");
        assert!(
            refused.message().contains("answer to a refresh was lost"),
            "{refused}"
        );
        scene.clock.advance(REST);
    }
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (3, 1));
    assert_eq!(scene.shown().await.health(), CredentialHealth::GrantLost);
}

/// The same where the provider had not got as far as rotating: the resend is what saves the grant.
// req: N1
#[tokio::test]
async fn a_request_that_was_lost_is_sent_again_after_a_rest() {
    let (scene, _) = Scene::leased("", "").await;
    scene.expire();
    scene.provider.next(Reply::HangUp { rotated: false });
    ambiguous(&scene.resolve().await.unwrap_err());
    scene.clock.advance(REST);
    assert_eq!(scene.resolve().await.unwrap().generation, 3);
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (3, 0));
}

// req: B4 B5
#[tokio::test]
async fn a_provider_that_cannot_be_reached_costs_nothing() {
    let (mut scene, _) = Scene::leased("", "").await;
    scene.expire();
    scene.provider.go_away().await;
    for _ in 0..3 {
        let refused = scene.resolve().await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(reason(&refused), "REFRESH_UNAVAILABLE");
        let wait = retry_after(&refused).unwrap();
        assert!(wait > Duration::ZERO && wait <= REST, "{wait:?}");
    }
    let shown = scene.shown().await;
    assert_eq!(shown.health(), CredentialHealth::Expiring);
    assert!(!shown.last_error.is_empty());
    assert_eq!(scene.provider.calls(), 1);

    scene.provider.come_back().await;
    scene.clock.advance(Duration::from_secs(60));
    assert_eq!(scene.resolve().await.unwrap().generation, 3);
    let shown = scene.shown().await;
    assert_eq!(
        (shown.health(), shown.last_error.as_str()),
        (CredentialHealth::Ok, "")
    );
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (2, 0));
}

// req: B4
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_provider_is_left_alone_for_as_long_as_it_asks() {
    let (scene, _) = Scene::leased("", "").await;
    scene.expire();
    scene.provider.next(Reply::Answer {
        status: 429,
        body: r#"{"error":"rate_limited","error_description":"slow down"}"#.to_owned(),
        retry_after: Some(90),
    });
    let busy = |refused: &Status| {
        assert_eq!(reason(refused), "REFRESH_UNAVAILABLE");
        assert_eq!(metadata(refused, "provider_message"), "slow down");
        retry_after(refused).unwrap()
    };
    let wait = busy(&scene.resolve().await.unwrap_err());
    assert!(
        wait > Duration::from_secs(60) && wait <= Duration::from_secs(90),
        "{wait:?}"
    );

    scene.clock.advance(Duration::from_secs(30));
    let asked = join_all((0..16).map(|_| scene.resolve())).await;
    for answer in &asked {
        assert!(busy(answer.as_ref().unwrap_err()) <= Duration::from_secs(60));
    }
    assert_eq!(scene.provider.calls(), 2);
    scene.clock.advance(Duration::from_secs(60));
    assert_eq!(scene.resolve().await.unwrap().generation, 3);
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (3, 0));
}

/// Inside the grace window the broker asks again by itself: the window may be over before any caller does, and
/// callers need not know that an answer was lost.
// req: N1 N10
#[tokio::test(flavor = "multi_thread")]
async fn inside_a_grace_window_a_lost_answer_is_asked_for_again_at_once() {
    for keys in ["grace_seconds = 30\n", "rotates = false\n"] {
        let (scene, _) = Scene::leased(keys, "").await;
        scene.expire();
        scene.provider.next(Reply::HangUp { rotated: false });
        scene.provider.answer(502, "<html>bad gateway</html>");
        let asked = join_all((0..16).map(|_| scene.resolve())).await;
        for lease in asked {
            assert_eq!(lease.unwrap().generation, 3, "{keys}");
        }
        assert_eq!(
            (scene.provider.calls(), scene.provider.replays()),
            (4, 0),
            "{keys}"
        );
    }

    // It does not hammer at a server that stays broken: callers are told to wait.
    let (scene, _) = Scene::leased("rotates = false\n", "").await;
    scene.expire();
    for _ in 0..16 {
        scene.provider.answer(500, "{}");
    }
    let refused = scene.resolve().await.unwrap_err();
    assert_eq!(reason(&refused), "REFRESH_AMBIGUOUS");
    let calls = scene.provider.calls();
    assert!(calls <= 5, "{calls}");
    assert!(retry_after(&refused).unwrap() >= Duration::from_secs(1));
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "REFRESH_AMBIGUOUS");
    assert_eq!(scene.provider.calls(), calls, "it rests");
}

/// A provider that fails and says for how long is left alone for that long, ambiguous or not.
// req: N1
#[tokio::test]
async fn what_a_failing_provider_asks_for_is_kept() {
    for keys in ["", "rotates = false\n"] {
        let (scene, _) = Scene::leased(keys, "").await;
        scene.expire();
        scene.provider.next(Reply::Answer {
            status: 503,
            body: "<html>maintenance</html>".to_owned(),
            retry_after: Some(120),
        });
        let refused = scene.resolve().await.unwrap_err();
        assert_eq!(reason(&refused), "REFRESH_AMBIGUOUS");
        let wait = retry_after(&refused).unwrap();
        assert!(
            wait > Duration::from_secs(110) && wait <= Duration::from_secs(120),
            "{wait:?}"
        );
        scene.clock.advance(Duration::from_secs(100));
        scene.resolve().await.unwrap_err();
        assert_eq!(scene.provider.calls(), 2, "left alone");
        scene.clock.advance(Duration::from_secs(21));
        assert!(scene.resolve().await.is_ok());
    }
}

/// Tokens that are over when they come are kept, since they replaced others, and are not asked for again and again.
// req: N1
#[tokio::test]
async fn tokens_that_are_over_on_arrival_wear_no_grant_out() {
    let (scene, _) = Scene::leased("", "").await;
    scene.expire();
    for _ in 0..32 {
        scene
            .provider
            .answer(200, r#"{"access_token":"over","expires_in":0}"#);
    }
    for _ in 0..32 {
        let _served_or_not = scene.resolve().await;
    }
    let calls = scene.provider.calls();
    assert!(calls <= 12, "{calls}");
    assert_eq!(scene.provider.replays(), 0);
}
