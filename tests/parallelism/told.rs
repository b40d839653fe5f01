//! What those who are turned away are told, what is told to whom, and who says how many may.

use std::time::Duration;

use credbroker::proto;

use crate::scene::{PERSONAL, Scene, set};
use crate::support::broker::{MEMBER, ORG};
use crate::support::client::{metadata, retry_after};
use crate::support::{Caller, details, reason};

async fn explain(caller: &Caller, task: &str) -> proto::ExplainResolutionResponse {
    let request = proto::ExplainResolutionRequest {
        resolution: Some(proto::ResolveCredentialRequest {
            org: ORG.to_owned(),
            task: task.to_owned(),
            ..Default::default()
        }),
    };
    caller
        .broker()
        .explain_resolution(request)
        .await
        .unwrap()
        .into_inner()
}

// req: C9
#[tokio::test]
async fn an_agent_is_told_the_cap_and_when_to_come_again_and_not_of_others() {
    let scene = Scene::start("", PERSONAL).await;
    let first = scene.holding(1).await.remove(0);
    scene.clock.advance(Duration::from_secs(1_800));
    scene.holding(2).await;
    let waiting = scene.worker().await;
    let refused = waiting.is_refused().await;
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    let told = ["cap", "standing", "credential", "mode"].map(|key| metadata(&refused, key));
    assert_eq!(told, ["3", "3", &*scene.credential, "oauth"]);
    assert!(metadata(&refused, "candidates").contains("=PARALLELISM_LIMIT"));
    let next_end: jiff::Timestamp = metadata(&refused, "next_end_time").parse().unwrap();
    let ends = first.1.expire_time.unwrap();
    assert_eq!(
        (next_end.as_second(), next_end.subsec_nanosecond()),
        (ends.seconds, ends.nanos)
    );
    assert_eq!(retry_after(&refused), Some(Duration::from_secs(60)));
    let all = format!("{:?}", details(&refused)) + refused.message();
    for secret in [&first.0.enrolled.agent, &first.0.task, &first.1.id] {
        assert!(!all.contains(secret), "{all}");
    }

    // An explanation says the same, and takes no place.
    let explained = explain(&waiting.caller, &waiting.task).await;
    let decision = explained.decision.unwrap();
    assert!(!decision.allowed && decision.credential.is_empty());
    assert_eq!(decision.reason, "PARALLELISM_LIMIT");
    assert_eq!(explained.message, refused.message());
    assert_eq!(explained.fault, "member");
    let served = explain(&first.0.caller, &first.0.task).await;
    assert!(served.decision.unwrap().allowed, "it has its lease");

    // People who answer for the account are told who has the places, and of a task that is served that it is.
    let told = explain(&scene.operator, &waiting.task).await;
    assert_eq!(told.decision.unwrap().reason, "PARALLELISM_LIMIT");
    assert!(told.message.contains(&first.0.enrolled.agent) && told.message.contains(&first.0.task));
    assert!(
        explain(&scene.operator, &first.0.task)
            .await
            .decision
            .unwrap()
            .allowed
    );

    // The refusal is in the journal, with its reason.
    let records = scene.operator.records().await;
    let denied = records
        .iter()
        .filter(|record| record.action == "credential.resolve" && record.reason == "PARALLELISM_LIMIT");
    assert!(denied.count() >= 1);
}

/// Too many at once says nothing against the account: no other way is taken for it.
// req: C9
#[tokio::test]
async fn nothing_else_fills_in() {
    let scene = Scene::start("", PERSONAL).await;
    let holding = scene.holding(3).await;
    scene.operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    scene.operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let waiting = scene.worker().await;
    let calls = scene.provider.calls();
    waiting.is_refused().await;
    assert_eq!(
        scene.provider.calls(),
        calls,
        "nothing was asked of the provider for it"
    );
    holding[0].0.release(&holding[0].1).await;
    assert_eq!(waiting.resolve().await.unwrap().mode(), proto::AuthMode::Oauth);
}

// req: C9
#[tokio::test]
async fn an_admin_raises_and_lowers_the_cap_of_one_credential() {
    let scene = Scene::start("", PERSONAL).await;
    let holding = scene.holding(3).await;
    let waiting = scene.worker().await;
    waiting.is_refused().await;
    let shown = scene.set(5).await.parallelism.unwrap();
    assert_eq!((shown.cap, shown.set, shown.standing), (5, true, 3));
    let mut more = scene.holding(1).await;
    more.push({
        let lease = waiting.resolve().await.unwrap();
        (waiting, lease)
    });
    let sixth = scene.worker().await;
    sixth.is_refused().await;

    // Lowered below what stands: nothing ends, and no other begins until there is room.
    scene.set(2).await;
    assert_eq!(scene.standing().await, (5, 2));
    let scene = scene.restart(PERSONAL).await;
    let mut all = Vec::new();
    for (worker, lease) in holding.into_iter().chain(more) {
        let worker = scene.again(worker).await;
        assert_eq!(worker.resolve().await.unwrap().id, lease.id);
        all.push((worker, lease));
    }
    let sixth = scene.again(sixth).await;
    for (worker, lease) in &all[..4] {
        sixth.is_refused().await;
        worker.release(lease).await;
    }
    sixth.resolve().await.unwrap();
    let shown = scene.set(0).await.parallelism.unwrap();
    assert_eq!((shown.cap, shown.set, shown.standing), (3, false, 2));

    let records = scene.operator.records().await;
    let raised: Vec<_> = records
        .iter()
        .filter(|record| record.action == "credential.set_parallelism" && record.phase == "finish")
        .map(|record| (&*record.subject["before"], &*record.subject["parallelism"]))
        .collect();
    assert_eq!(raised, [("3", "5"), ("5", "2"), ("2", "3")]);
}

// req: C9
#[tokio::test]
async fn only_personal_grants_have_a_cap_and_only_within_bounds() {
    let scene = Scene::start("", PERSONAL).await;
    let refused = set(&scene.operator, &scene.credential, 201).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    let key = scene.operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let refused = set(&scene.operator, &key.id, 5).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    assert!(scene.operator.health_of(ORG, &key.id).await.parallelism.is_none());

    // Five of the org's key, and five of a grant that may be anybody's.
    let request = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: scene.credential.clone(),
    };
    let mut credentials = scene.operator.credentials();
    credentials.remove_credential(request).await.unwrap();
    assert_eq!(scene.holding(5).await[4].1.mode(), proto::AuthMode::Byok);
    let scene = Scene::start("", "sharing = \"any\"").await;
    assert_eq!(scene.holding(5).await[4].1.mode(), proto::AuthMode::Oauth);
}

// req: C9
#[tokio::test]
async fn the_configuration_says_how_many_for_all() {
    let scene = Scene::start("[leases]\npersonal_parallelism = 1\n", PERSONAL).await;
    scene.holding(1).await;
    scene.worker().await.is_refused().await;
    assert_eq!(scene.standing().await, (1, 1));
}
