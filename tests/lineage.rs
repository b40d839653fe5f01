//! Where a grant comes from, and what a refusal that nothing here explains comes to: the grant is kept and not
//! used, those who depend on it are told, and a new sign-in heals them where they wait.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use credbroker::proto::watch_event::Event;
use credbroker::proto::{self, CredentialHealth};
use futures_util::future::join_all;
use support::broker::{MEMBER, ORG};
use support::client::{metadata, retry_after, secret};
use support::provider::{ACCESS_MARK, REFRESH_MARK, Reply};
use support::reason;
use support::scene::Scene;
use tonic::Status;

const GONE: &str = r#"{"error":"invalid_grant","error_description":"Grant not found."}"#;

fn import(member: &str, refresh_token: &str) -> proto::ImportGrantRequest {
    proto::ImportGrantRequest {
        org: ORG.to_owned(),
        owner: Some(proto::Owner {
            owner: Some(proto::owner::Owner::Member(member.to_owned())),
        }),
        connector: "demo".to_owned(),
        refresh_token: Some(proto::Secret {
            value: refresh_token.to_owned(),
        }),
        ..Default::default()
    }
}

async fn imported(scene: &Scene, refresh_token: &str) -> Result<proto::Credential, Status> {
    let request = import(MEMBER, refresh_token);
    let answer = scene.operator.credentials().import_grant(request).await?;
    Ok(answer.into_inner().credential.unwrap())
}

/// Another copy of the grant is refreshed elsewhere: the provider refuses ours, which was never sent before.
/// That is named, nothing is thrown away, whoever depends on it is listed, and nobody asks the provider again.
// req: N8 N9 C5
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refreshed_elsewhere_is_named_and_kept() {
    let (scene, lease) = Scene::leased("", "").await;
    let ours = scene.provider.current();
    let theirs = scene.provider.mint();
    scene.expire();
    let refused = scene.resolve().await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    assert_eq!(metadata(&refused, "cause"), "refreshed-elsewhere");
    assert!(
        refused
            .message()
            .contains("another copy of it was refreshed elsewhere"),
        "{}",
        refused.message()
    );
    assert!(metadata(&refused, "provider_message").contains("already used"));

    let calls = scene.provider.calls();
    // Nor after any pause that there could be.
    for wait in [0, 1_200] {
        scene.clock.advance(Duration::from_secs(wait));
        let asked = join_all((0..64).map(|_| scene.resolve())).await;
        assert!(
            asked
                .iter()
                .all(|answer| reason(answer.as_ref().unwrap_err()) == "REAUTH_REQUIRED")
        );
        assert_eq!(scene.provider.calls(), calls, "asked again after {wait} s");
    }

    let told = scene.operator.described(ORG, &scene.credential).await;
    let credential = told.credential.unwrap();
    assert_eq!(credential.health(), CredentialHealth::Quarantined);
    assert_eq!(told.cause, "refreshed-elsewhere");
    let origins: Vec<_> = told
        .generations
        .iter()
        .map(|link| (link.generation, link.origin.as_str()))
        .collect();
    assert_eq!(origins, [(1, "brought"), (2, "refreshed")], "kept, not blanked");
    let [dependent] = told.dependents.as_slice() else {
        panic!("{:?}", told.dependents);
    };
    assert_eq!((&dependent.lease, dependent.generation), (&lease.id, 2));
    assert_eq!(dependent.task, scene.task);

    // Neither token can be had out of it.
    let told = format!("{:?}", scene.operator.described(ORG, &scene.credential).await);
    for hidden in [ours.as_str(), theirs.as_str(), REFRESH_MARK, ACCESS_MARK] {
        assert!(!told.contains(hidden));
    }
    let records = scene.operator.records().await;
    let last = records
        .iter()
        .rfind(|record| record.action == "credential.refresh")
        .unwrap();
    assert_eq!(last.subject["cause"], "refreshed-elsewhere", "{last:?}");
}

/// An agent that waits on its watch is told, and told again once somebody has signed in; it goes on with the
/// lease that it has, and neither it nor the broker starts anew.
// req: N8 B7 N4
#[tokio::test(flavor = "multi_thread")]
async fn a_new_sign_in_heals_an_agent_that_waits_on_its_watch() {
    let (scene, lease) = Scene::leased("", "").await;
    let mut watch = scene.agent.watch().await;
    scene.provider.mint();
    scene.expire();
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "REAUTH_REQUIRED");
    let health = loop {
        if let Event::CredentialHealthChanged(changed) = watch.message().await.unwrap() {
            break changed.health();
        }
    };
    assert_eq!(health, CredentialHealth::Quarantined);

    let healed = imported(&scene, &scene.provider.mint()).await.unwrap();
    assert_eq!(healed.id, scene.credential, "in its place");
    let generation = loop {
        if let Event::CredentialRotated(rotated) = watch.message().await.unwrap() {
            break rotated.generation;
        }
    };
    assert_eq!(generation, healed.generation);
    let again = scene.resolve().await.unwrap();
    assert_eq!(again.id, lease.id, "the same lease");
    assert_ne!(secret(&again), secret(&lease));
    assert_eq!(scene.shown().await.health(), CredentialHealth::Ok);
    let told = scene.operator.described(ORG, &scene.credential).await;
    assert_eq!(told.cause, "");
    let origins: Vec<_> = told.generations.iter().map(|link| link.origin.as_str()).collect();
    assert_eq!(origins, ["brought", "refreshed", "brought", "refreshed"]);
}

/// What the broker's own history explains is told as what it is, and is no quarantine.
// req: N8 N1
#[tokio::test(flavor = "multi_thread")]
async fn what_our_own_history_explains_is_told_as_that() {
    // The answer to our own refresh was lost, so that the resend is a replay.
    let (scene, _) = Scene::leased("", "").await;
    scene.provider.next(Reply::HangUp { rotated: true });
    scene.expire();
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "REFRESH_AMBIGUOUS");
    scene.clock.advance(Duration::from_secs(10));
    let refused = scene.resolve().await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    assert_eq!(metadata(&refused, "cause"), "answer-lost");
    assert_eq!(scene.shown().await.health(), CredentialHealth::GrantLost);

    // A provider that never replaces refresh tokens: there is no copy that could have been refreshed.
    let (scene, _) = Scene::leased("rotates = false\n", "").await;
    scene.provider.answer(400, GONE);
    scene.expire();
    let refused = scene.resolve().await.unwrap_err();
    assert_eq!(metadata(&refused, "cause"), "refused");
    assert_eq!(scene.shown().await.health(), CredentialHealth::ReauthRequired);

    // The provider's own word for it.
    let words =
        "permanent_errors = [\"invalid_grant\", \"token_old\"]\nerror_causes = { token_old = \"expired\" }\n";
    let (scene, _) = Scene::leased(words, "").await;
    scene.provider.answer(400, r#"{"error":"token_old"}"#);
    scene.expire();
    assert_eq!(metadata(&scene.resolve().await.unwrap_err(), "cause"), "expired");

    // The provider had said how long the refresh token lasts.
    let scene = Scene::imported("", "").await;
    scene.provider.answer(
        200,
        r#"{"access_token":"a-1","refresh_token":"r-1","expires_in":60,"refresh_token_expires_in":600}"#,
    );
    scene.resolve().await.unwrap();
    let told = scene.operator.described(ORG, &scene.credential).await;
    assert!(told.grant_expire_time.is_some());
    scene.expire();
    assert_eq!(metadata(&scene.resolve().await.unwrap_err(), "cause"), "expired");
}

/// A copy that is older than what the broker has is not taken: sending it would end the grant. The present one
/// may be brought again, which is how a quarantine is lifted by hand.
// req: N8
#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_copy_is_not_taken_and_the_present_one_is() {
    let scene = Scene::imported("", "").await;
    let first = scene.provider.current();
    scene.resolve().await.unwrap();
    let second = scene.provider.current();
    assert_ne!(first, second);
    let refused = imported(&scene, &first).await.unwrap_err();
    assert_eq!(reason(&refused), "GRANT_OUTDATED");
    assert!(
        refused.message().contains("generation 1"),
        "{}",
        refused.message()
    );
    assert!(!refused.message().contains(&first));

    scene.provider.answer(400, GONE);
    scene.expire();
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "REAUTH_REQUIRED");
    // The provider was wrong about it, as somebody found out.
    imported(&scene, &second).await.unwrap();
    assert!(scene.resolve().await.is_ok());
    assert_eq!(scene.provider.replays(), 0);
}

/// Bringing a grant once more while it is on its way to the provider would make the broker drop the answer, and with it
/// the only refresh token there is.
// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_being_refreshed_is_not_brought_again() {
    let (scene, _) = Scene::leased("", "").await;
    let current = scene.provider.current();
    scene.expire();
    scene.provider.hold();
    let (agent, task) = (scene.agent.clone(), scene.task.clone());
    let waiting = tokio::spawn(async move { agent.resolve(&task).await });
    scene.provider.called(2).await;
    let refused = imported(&scene, &current).await.unwrap_err();
    assert_eq!(reason(&refused), "CONFLICT");
    assert!(retry_after(&refused).is_some());
    scene.provider.release();
    assert!(waiting.await.unwrap().is_ok(), "its answer was taken in");
    assert_eq!((scene.provider.calls(), scene.provider.replays()), (2, 0));
    // By then it is an outdated copy; and another sign-in may replace a grant at any time.
    assert_eq!(
        reason(&imported(&scene, &current).await.unwrap_err()),
        "GRANT_OUTDATED"
    );

    scene.expire();
    scene.provider.next(Reply::HangUp { rotated: true });
    let current = scene.provider.current();
    assert_eq!(reason(&scene.resolve().await.unwrap_err()), "REFRESH_AMBIGUOUS");
    assert_eq!(reason(&imported(&scene, &current).await.unwrap_err()), "CONFLICT");
    imported(&scene, &scene.provider.mint()).await.unwrap();
    assert!(scene.resolve().await.is_ok());
}

/// One grant for two members would be two copies of it in the broker itself.
// req: N8 B5
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_not_kept_twice() {
    let scene = Scene::imported("", "").await;
    scene.resolve().await.unwrap();
    let current = scene.provider.current();
    let (operator, other) = (&scene.operator, "sam");
    operator.make_member(ORG, other).await;
    let other_import = || async { operator.credentials().import_grant(import(other, &current)).await };
    let refused = other_import().await.unwrap_err();
    assert_eq!(reason(&refused), "GRANT_KEPT_ALREADY");
    assert!(!refused.message().contains(&current));

    // Nor is an older copy of it taken for somebody else.
    scene.expire();
    scene.resolve().await.unwrap();
    let refused = other_import().await.unwrap_err();
    assert_eq!(reason(&refused), "GRANT_OUTDATED");
    assert!(
        !refused.message().contains(&scene.credential),
        "whose it is is not told"
    );

    // At the same moment, for two owners: one gets it.
    let fresh = scene.provider.mint();
    let both = join_all([MEMBER, other].map(|member| {
        let mut credentials = operator.credentials();
        let request = import(member, &fresh);
        async move { credentials.import_grant(request).await.is_ok() }
    }))
    .await;
    assert_eq!(both.iter().filter(|taken| **taken).count(), 1, "{both:?}");

    // Once the one is gone, the other may have it.
    for member in [MEMBER, other] {
        let listed = operator
            .credentials()
            .list_credentials(proto::ListCredentialsRequest {
                org: ORG.to_owned(),
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        for credential in listed.credentials {
            let request = proto::RemoveCredentialRequest {
                org: ORG.to_owned(),
                credential: credential.id,
            };
            operator.credentials().remove_credential(request).await.unwrap();
        }
        let taken = operator.credentials().import_grant(import(member, &fresh)).await;
        assert!(taken.is_ok(), "{member}: {taken:?}");
    }
}
