//! Very many callers on one expired credential: one call to the provider, everybody answered by it; and what
//! those get who come past the limit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use credbroker::domain::actor::Actor;
use credbroker::domain::reason::{Reason, Refusal};
use credbroker::domain::secret::Exposure;
use credbroker::proto;
use credbroker::service::{Accepts, Presented, ResolveInput};
use futures_util::future::join_all;
use support::broker::ORG;
use support::client::{retry_after, secret};
use support::scene::Scene;
use support::{NewKey, reason};

/// The generation and the token that one caller got.
type Answer = Result<(u64, String), Refusal>;

/// An API key's actor: a control plane that resolves the scene's task.
async fn control_plane(scene: &Scene) -> Actor {
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let answer = scene.operator.access().create_api_key(request).await.unwrap();
    let key = answer.into_inner().token.unwrap();
    let accepts = Accepts {
        operator: false,
        api_key: true,
        agent: false,
    };
    let presented = Presented {
        bearer: Some(&key.value),
        certificate: None,
    };
    scene
        .broker
        .broker
        .authenticate(presented, accepts)
        .await
        .unwrap()
}

/// So many callers resolve the scene's task at once, within this process.
async fn resolve(scene: &Scene, actor: Actor, callers: usize) -> Vec<Answer> {
    let asked = (0..callers).map(|_| {
        let (broker, task) = (Arc::clone(&scene.broker.broker), scene.task.clone());
        tokio::spawn(async move {
            let input = ResolveInput {
                task: &task,
                minimum_remaining: Some(Duration::ZERO),
                ..ResolveInput::default()
            };
            let material = broker.resolve(&actor, input).await?.vended.material;
            let token = material.secret.access.as_ref().unwrap();
            let token = token.expose_str(Exposure::Inspect).unwrap().to_owned();
            Ok((material.credential.rotation.generation, token))
        })
    });
    let answers = join_all(asked).await;
    answers.into_iter().map(Result::unwrap).collect()
}

// req: B5 K4
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_callers_wait_for_one_call() {
    const CALLERS: usize = 10_000;
    const PROVIDER: Duration = Duration::from_secs(3);
    /// For ten thousand journaled answers by an unoptimized build on a busy machine.
    const SLACK: Duration = Duration::from_secs(10);
    let (scene, _) = Scene::leased("", "").await;
    let actor = control_plane(&scene).await;
    // The caller's own lease; what follows is about the credential alone.
    resolve(&scene, actor, 1).await.pop().unwrap().unwrap();

    scene.expire();
    scene.provider.delay(PROVIDER);
    let began = Instant::now();
    let answers = resolve(&scene, actor, CALLERS).await;
    let took = began.elapsed();

    let mut counted = BTreeMap::new();
    for answer in answers {
        let answer = answer.map_err(|refusal| refusal.reason.code());
        *counted.entry(answer).or_insert(0) += 1;
    }
    println!("{CALLERS} callers answered in {took:?} (the provider takes {PROVIDER:?})");
    assert_eq!(scene.provider.calls(), 2, "one for the first lease, one for all");
    let answers: Vec<_> = counted.iter().map(|(answer, count)| (answer, *count)).collect();
    assert!(
        matches!(answers[..], [(Ok((3, _)), CALLERS)]),
        "all got the third generation, and the same token: {answers:?}"
    );
    assert!(
        took >= PROVIDER && took < PROVIDER.mul_f64(1.2) + SLACK,
        "{took:?}"
    );
}

// req: B5
#[tokio::test(flavor = "multi_thread")]
async fn callers_past_the_limit_are_refused_and_the_rest_are_served() {
    const LIMIT: usize = 5;
    let (scene, _) = Scene::leased("", "[refresh]\nmax_waiters = 5\n").await;
    let actor = control_plane(&scene).await;
    resolve(&scene, actor, 1).await.pop().unwrap().unwrap();
    let enrolled = scene.operator.enrollment_token(ORG, &scene.task).await;
    let enrolled = scene
        .broker
        .enroll_with(&enrolled, &NewKey::generate())
        .await
        .unwrap();
    let late = scene.broker.agent(&enrolled).await;

    scene.expire();
    scene.provider.hold();
    let many = async {
        let answers = resolve(&scene, actor, 40).await;
        let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        for refusal in refused.iter().map(|answer| answer.as_ref().unwrap_err()) {
            assert_eq!(refusal.reason, Reason::Overloaded);
            assert!(refusal.retry_after.is_some());
        }
        (served.len(), refused.len())
    };
    let release = async {
        scene.provider.called(2).await;
        // The places are taken, or soon will be: whoever comes over the port now is refused there too.
        let refused = loop {
            match tokio::time::timeout(Duration::from_millis(200), late.resolve(&scene.task)).await {
                Ok(answer) => break answer.unwrap_err(),
                Err(_waiting) => {}
            }
        };
        assert_eq!(reason(&refused), "OVERLOADED");
        assert!(retry_after(&refused).is_some());
        scene.provider.release();
    };
    let (counts, ()) = tokio::join!(many, release);
    assert_eq!(counts, (LIMIT, 40 - LIMIT));
    assert_eq!(scene.provider.calls(), 2);

    // Nothing is left behind of it: the refused one asks again and is served.
    let lease = late.resolve(&scene.task).await.unwrap().lease.unwrap();
    assert_eq!(lease.generation, 3);
    assert!(!secret(&lease).is_empty());
}
