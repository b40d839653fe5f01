//! Very many callers on one expired credential: one call to the provider, everybody answered by it; and what
//! those get who come past the limit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::Clock as _;
use credbroker::domain::actor::Caller;
use credbroker::domain::reason::Reason;
use credbroker::domain::refusal::Refusal;
use credbroker::domain::secret::Exposure;
use credbroker::proto;
use credbroker::service::{Accepts, KeyAccess, Material, Presented, ResolveInput};
use support::broker::ORG;
use support::client::retry_after;
use support::reason;
use support::scene::Scene;
use tokio::task::JoinSet;
use tonic::Code;

/// The generation and the token that one caller got.
type Answer = Result<(u64, String), Refusal>;

/// The caller that an API key is: a control plane that resolves the scene's task.
async fn control_plane(scene: &Scene) -> Caller {
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let answer = scene.operator.access().create_api_key(request).await.unwrap();
    let key = answer.into_inner().token.unwrap();
    let accepts = Accepts {
        humans: None,
        api_key: KeyAccess::Any,
        agent: false,
    };
    let presented = Presented {
        bearer: Some(&key.value),
        certificate: None,
        org: None,
    };
    scene
        .broker
        .broker
        .authenticate(presented, accepts)
        .await
        .unwrap()
}

/// So many callers resolve the scene's task at once, within this process.
fn resolve(scene: &Scene, caller: &Caller, callers: usize) -> JoinSet<Answer> {
    let mut asked = JoinSet::new();
    for _ in 0..callers {
        let (broker, task) = (Arc::clone(&scene.broker.broker), scene.task.clone());
        let caller = caller.clone();
        asked.spawn(async move {
            let input = ResolveInput {
                task: &task,
                minimum_remaining: Some(Duration::ZERO),
                ..ResolveInput::default()
            };
            let material = broker.resolve(&caller, input).await?.vended.material;
            let Material::Stored { credential, secret } = material else {
                panic!("a stored grant was asked for");
            };
            let token = secret.access.as_ref().unwrap();
            let token = token.expose_str(Exposure::Inspect).unwrap().to_owned();
            Ok((credential.rotation.generation, token))
        });
    }
    asked
}

/// The caller's own lease, so that what follows is about the credential alone.
async fn lease(scene: &Scene, caller: &Caller) {
    let answers = resolve(scene, caller, 1).join_all().await;
    assert!(answers[0].is_ok());
}

// req: B5 K4
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_callers_wait_for_one_call() {
    const CALLERS: usize = 10_000;
    const PROVIDER: Duration = Duration::from_secs(3);
    /// For ten thousand journaled answers by an unoptimized build on a busy machine.
    const SLACK: Duration = Duration::from_secs(10);
    let (scene, _) = Scene::leased("", "").await;
    let caller = control_plane(&scene).await;
    lease(&scene, &caller).await;

    scene.expire();
    scene.provider.delay(PROVIDER);
    let began = scene.clock.monotonic();
    let answers = resolve(&scene, &caller, CALLERS).join_all().await;
    let took = scene.clock.monotonic() - began;

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
    const CALLERS: usize = 40;
    let (scene, _) = Scene::leased("", "[refresh]\nmax_waiters = 5\n").await;
    let caller = control_plane(&scene).await;
    lease(&scene, &caller).await;
    scene.expire();
    scene.provider.hold();

    // While the exchange is under way, the surplus is told at once, in process and over the port.
    let mut asked = resolve(&scene, &caller, CALLERS);
    for _ in LIMIT..CALLERS {
        let answer = tokio::time::timeout(Duration::from_secs(30), asked.join_next()).await;
        let refusal = answer.unwrap().unwrap().unwrap().unwrap_err();
        assert_eq!(refusal.reason, Reason::Overloaded);
        assert!(refusal.retry_after.is_some());
    }
    let refused = scene.resolve().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refused), "OVERLOADED");
    assert!(retry_after(&refused).is_some());

    scene.provider.release();
    let served = asked.join_all().await;
    assert_eq!(served.len(), LIMIT);
    assert!(
        served.iter().all(|answer| matches!(answer, Ok((3, _)))),
        "{served:?}"
    );
    assert_eq!(scene.provider.calls(), 2);

    // Nothing is left behind of it: the refused one asks again and is served.
    assert_eq!(scene.resolve().await.unwrap().generation, 3);
}
