//! What callers see of a refresh: hanging up, reporting a rejection, asking for more life, being refused.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use credbroker::proto::{CredentialHealth, Lease, RemoveCredentialRequest};
use futures_util::future::join_all;
use support::broker::{MEMBER, ORG};
use support::client::{metadata, retry_after, secret};
use support::provider::REFRESH_MARK;
use support::scene::{LIFE, Scene};
use support::{Caller, reason};
use tonic::Code;

/// More agents of the scene's task, each with a lease of its own.
async fn colleagues(scene: &Scene, count: usize) -> Vec<(Caller, Lease)> {
    let enrolled = (0..count).map(|_| async {
        let enrolled = scene.broker.enroll(&scene.operator, &scene.task).await;
        let agent = scene.broker.agent(&enrolled).await;
        let lease = agent.resolve(&scene.task).await.unwrap().lease.unwrap();
        (agent, lease)
    });
    join_all(enrolled).await
}

/// A caller that goes away takes nothing with it: the exchange goes on, and its result is there for the next.
// req: N1 B5
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_loses_nothing() {
    let (scene, first) = Scene::leased("", "").await;
    let mut others = colleagues(&scene, 1).await;
    let (leaver, _) = others.pop().unwrap();
    scene.expire();
    scene.provider.hold();
    let task = scene.task.clone();
    let call = tokio::spawn(async move { leaver.resolve(&task).await.map(|_| ()) });
    scene.provider.called(2).await;
    // The call and its connection go: the broker's side of it is dropped.
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(300)).await;
    scene.provider.release();

    // Nobody asks for a token meanwhile, and there is a new generation all the same.
    let renewed = async {
        while scene.shown().await.generation != 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap();
    let lease = scene.resolve().await.unwrap();
    assert_eq!(lease.generation, 3);
    assert_ne!(secret(&lease), secret(&first));
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (2, 0));
}

// req: B6 B7
#[tokio::test]
async fn a_stale_report_gets_the_newer_token_without_a_call() {
    let (scene, first) = Scene::leased("", "").await;
    scene.expire();
    let second = scene.resolve().await.unwrap();
    assert_eq!((second.id.as_str(), second.generation), (first.id.as_str(), 3));
    let calls = scene.provider.calls();

    let answer = scene.agent.reject(&first.id, first.generation).await.unwrap();
    assert!(!answer.exchanged);
    let replaced = answer.lease.unwrap();
    assert_eq!(replaced.generation, 3);
    assert_eq!(secret(&replaced), secret(&second));
    assert_eq!(scene.provider.calls(), calls);

    for made_up in [0, 4, u64::MAX] {
        let refused = scene.agent.reject(&first.id, made_up).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert_eq!(scene.provider.calls(), calls);
}

/// A revoked token is rejected for everybody who holds it: that is one rotation, however many report it, and
/// counts as one towards the limit.
// req: B7 B5
#[tokio::test(flavor = "multi_thread")]
async fn many_reports_of_one_generation_force_one_rotation() {
    let (scene, first) = Scene::leased("", "").await;
    let agents = colleagues(&scene, 16).await;
    scene.provider.delay(Duration::from_millis(300));
    let answers = join_all(agents.iter().map(|(agent, lease)| agent.reject(&lease.id, 2))).await;
    let leases: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().lease.unwrap())
        .collect();
    let tokens: BTreeSet<_> = leases.iter().map(secret).collect();
    assert_eq!(tokens.len(), 1);
    assert!(!tokens.contains(secret(&first)));
    assert!(leases.iter().all(|lease| lease.generation == 3));
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (2, 0));
}

// req: B7
#[tokio::test]
async fn forced_rotations_are_limited() {
    let config = "[refresh]\nforced_rotations_per_hour_per_credential = 3\n\
                  forced_rotations_per_hour_per_agent = 2\n";
    let (scene, first) = Scene::leased("", config).await;
    let mut others = colleagues(&scene, 1).await;
    let (other, others) = others.pop().unwrap();
    for generation in [2, 3] {
        let answer = scene.agent.reject(&first.id, generation).await.unwrap();
        assert!(answer.exchanged);
        assert_eq!(answer.lease.unwrap().generation, generation + 1);
    }
    let limited = async |agent: &Caller, lease: &Lease, generation| {
        let calls = scene.provider.calls();
        let refused = agent.reject(&lease.id, generation).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(reason(&refused), "ROTATION_LIMITED");
        let wait = retry_after(&refused).unwrap();
        assert!(
            wait > Duration::from_secs(3_000) && wait <= Duration::from_secs(3_600),
            "{wait:?}"
        );
        assert_eq!(scene.provider.calls(), calls);
    };
    limited(&scene.agent, &first, 4).await;
    // Another agent has its own limit, and both have the credential's.
    assert!(other.reject(&others.id, 4).await.unwrap().exchanged);
    limited(&other, &others, 5).await;
    // What is there is still handed out.
    assert_eq!(scene.resolve().await.unwrap().generation, 5);
}

// req: B4 C5 N8 N9
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_grant_is_told_with_the_providers_words_and_not_sent_again() {
    let (scene, first) = Scene::leased("", "").await;
    let refresh_token = scene.provider.current();
    let body = format!(
        r#"{{"error":"invalid_grant","error_description":"The token {refresh_token} was revoked by its owner."}}"#
    );
    scene.provider.answer(400, &body);
    scene.expire();
    let refused = scene.resolve().await.unwrap_err();
    let calls = scene.provider.calls();
    let told = |refused: &tonic::Status| {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(refused), "REAUTH_REQUIRED");
        let message = metadata(refused, "provider_message");
        assert!(message.contains("invalid_grant"), "{message}");
        assert!(message.contains("was revoked by its owner"), "{message}");
        assert!(!message.contains(REFRESH_MARK) && !refused.message().contains(REFRESH_MARK));
        assert_eq!(metadata(refused, "credential"), scene.credential);
        assert_eq!(metadata(refused, "cause"), "refreshed-elsewhere");
    };
    told(&refused);
    let shown = scene.shown().await;
    assert_eq!(shown.health(), CredentialHealth::Quarantined);
    assert!(
        shown.last_error.contains("was revoked by its owner"),
        "{}",
        shown.last_error
    );

    // However many ask, and however they ask, nothing more is sent.
    let asked = join_all((0..32).map(|_| scene.resolve())).await;
    asked.iter().for_each(|answer| told(answer.as_ref().unwrap_err()));
    told(&scene.agent.reject(&first.id, first.generation).await.unwrap_err());
    scene.clock.advance(Duration::from_secs(600));
    told(&scene.resolve().await.unwrap_err());
    assert_eq!(scene.provider.calls(), calls);

    // Signing in again brings it back to life.
    scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint())
        .await;
    let lease = scene.resolve().await.unwrap();
    assert_eq!((lease.id.as_str(), lease.generation), (first.id.as_str(), 4));
    assert_eq!(scene.shown().await.health(), CredentialHealth::Ok);
}

// req: B6
#[tokio::test]
async fn a_token_with_too_little_life_is_refreshed_first() {
    let (scene, first) = Scene::leased("", "").await;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let promised = |lease: &Lease| Duration::try_from(lease.minimum_remaining.unwrap()).unwrap();
    scene.clock.advance(minutes(4));
    let same = scene.resolve_for(minutes(5)).await.unwrap();
    assert_eq!((same.generation, promised(&same)), (2, minutes(5)));
    assert_eq!(scene.provider.calls(), 1);

    let newer = scene.resolve_for(minutes(7)).await.unwrap();
    assert_eq!((newer.generation, promised(&newer)), (3, minutes(7)));
    assert_eq!(newer.id, first.id, "the same lease");
    assert_eq!(scene.provider.calls(), 2);
}

/// A caller that asks for more than the provider's tokens ever live gets a fresh one and the truth about it,
/// and wears the grant out neither in one call nor in many.
// req: B6 B5
#[tokio::test]
async fn asking_for_more_life_than_tokens_have_costs_one_refresh() {
    let (scene, _) = Scene::leased("", "").await;
    scene.clock.advance(LIFE / 2);
    for _ in 0..8 {
        let lease = scene.resolve_for(Duration::from_secs(86_400)).await.unwrap();
        let promised = Duration::try_from(lease.minimum_remaining.unwrap()).unwrap();
        assert_eq!(lease.generation, 3);
        assert!(
            promised <= LIFE && promised > LIFE - Duration::from_secs(60),
            "{promised:?}"
        );
    }
    assert_eq!(scene.provider.calls(), 2);
}

/// A sandbox that slept through the end of its token, and then of its lease: what it wakes up to is the credential
/// as it stands now, with the life that was asked for, however many of its programs ask at once.
// req: B6 B5
#[tokio::test(flavor = "multi_thread")]
async fn after_a_sleep_fifty_calls_at_once_get_one_lease_and_one_new_token() {
    let (scene, first) = Scene::leased("", "").await;
    let five_minutes = Duration::from_secs(300);
    let mut ids = BTreeSet::from([first.id.clone()]);
    for (slept, generation, leases) in [(LIFE, 3, 1), (Duration::from_secs(7_200), 4, 2)] {
        scene.clock.advance(slept);
        let woken = join_all((0..50).map(|_| scene.resolve_for(five_minutes))).await;
        for lease in woken {
            let lease = lease.unwrap();
            assert_eq!(lease.generation, generation);
            assert_eq!(lease.minimum_remaining.unwrap().seconds, 300);
            ids.insert(lease.id);
        }
        assert_eq!(scene.provider.calls(), leases + 1);
        assert_eq!(ids.len(), leases);
    }
    // The second lease is of the same task: one cost event for both.
    let records = scene.operator.records().await;
    let done = records
        .iter()
        .filter(|record| record.action == "credential.resolve" && record.outcome == "allowed");
    let finished: Vec<_> = done.filter(|record| record.phase == "finish").collect();
    let with = |what: &str| {
        let with = finished.iter().filter(|record| record.subject.contains_key(what));
        with.count()
    };
    assert_eq!((with("first"), with("dispatch")), (2, 1));
}

/// What is promised of a token that cannot be had longer-lived, as when its provider does not answer, is what is left.
// req: B6
#[tokio::test]
async fn a_token_that_cannot_be_refreshed_now_is_promised_for_what_it_has_left() {
    let (scene, _) = Scene::leased("", "").await;
    scene.clock.advance(LIFE / 2);
    scene.provider.fails(429, "{}", None);
    // More than is left: nothing that would do can be had.
    let refused = scene.resolve_for(LIFE).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(retry_after(&refused).is_some());
    // What is left does: it is handed out, and no more is promised than was asked for.
    let lease = scene.resolve_for(LIFE / 4).await.unwrap();
    assert_eq!(lease.generation, 2);
    let promised = Duration::try_from(lease.minimum_remaining.unwrap()).unwrap();
    assert_eq!(promised, LIFE / 4);
}

/// All that is kept of a long-lived grant goes with it, however often it was rotated.
// req: A12(core)
#[tokio::test]
async fn a_grant_that_was_rotated_many_times_can_be_removed() {
    let (scene, _) = Scene::leased("", "").await;
    for generation in 3..32 {
        scene.expire();
        assert_eq!(scene.resolve().await.unwrap().generation, generation);
    }
    let request = RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: scene.credential.clone(),
    };
    let mut credentials = scene.operator.credentials();
    credentials.remove_credential(request).await.unwrap();
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "CONNECT_ACCOUNT");
}
