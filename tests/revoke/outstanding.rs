//! What stays valid at the providers, and what was done about it.

use credbroker::proto::{self, MaterialFate};

use crate::support::broker::{MEMBER, ORG};
use crate::support::scene::Scene;
use crate::{lock, revoke_agent};

async fn id(caller: &crate::support::Caller) -> String {
    let who = caller.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();
    who.into_inner().actor
}

// req: D6 B6
#[tokio::test]
async fn an_answer_tells_the_generation_that_was_handed_out_last() {
    let (scene, lease) = Scene::leased("old_access_survives = true", "").await;
    // Somebody else has the grant rotated: the agent still holds the generation that it was given.
    let second = scene.operator.make_task(ORG, MEMBER).await;
    let other = scene
        .broker
        .agent(&scene.broker.enroll(&scene.operator, &second).await)
        .await;
    let theirs = other.resolve("").await.unwrap().lease.unwrap();
    let newer = other
        .reject(&theirs.id, theirs.generation)
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!((lease.generation, newer.generation), (2, 3));
    let agent = id(&scene.agent).await;
    let locked = lock(&scene.operator, proto::lock_target::Target::Agent(agent.clone())).await;
    assert_eq!(locked.outstanding.len(), 1);
    assert_eq!(
        (
            locked.outstanding[0].generation,
            locked.outstanding[0].lease_ended
        ),
        (2, false)
    );
    let revoked = revoke_agent(&scene.operator, &agent, false).await;
    let held = &revoked.outstanding[0];
    assert_eq!(
        (held.generation, held.lease_ended, held.fate()),
        (2, true, MaterialFate::Expires)
    );
    assert!(held.material_expire_time.is_some() && held.advice.contains("until it expires"));
    assert_eq!(
        (held.holder.as_str(), held.lease.as_str()),
        (agent.as_str(), lease.id.as_str())
    );
    // The other one was handed the newer.
    let revoked = revoke_agent(&scene.operator, &id(&other).await, false).await;
    assert_eq!(revoked.outstanding[0].generation, 3);
}

// req: D6
#[tokio::test]
async fn a_grant_that_only_the_revoked_agent_held_is_rotated_where_asked_for() {
    let (scene, lease) = Scene::leased("", "").await;
    let calls = scene.provider.calls();
    let agent = id(&scene.agent).await;
    let revoked = revoke_agent(&scene.operator, &agent, true).await;
    let held = &revoked.outstanding[0];
    assert_eq!(
        (held.generation, held.fate()),
        (lease.generation, MaterialFate::Rotated)
    );
    assert_eq!(scene.provider.calls(), calls + 1);
    assert_eq!(scene.shown().await.generation, lease.generation + 1);
    // What it held is dead at the provider by now, and rotating again would help nobody.
    let again = revoke_agent(&scene.operator, &agent, true).await;
    assert_eq!((again.outstanding, scene.provider.calls()), (vec![], calls + 1));
}

// req: D6
#[tokio::test]
async fn a_grant_that_others_hold_and_a_key_are_not_rotated() {
    let (scene, _) = Scene::leased("", "").await;
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let other = scene
        .broker
        .agent(&scene.broker.enroll(&scene.operator, &task).await)
        .await;
    other.resolve("").await.unwrap();
    let calls = scene.provider.calls();
    let revoked = revoke_agent(&scene.operator, &id(&scene.agent).await, true).await;
    assert_eq!(revoked.outstanding[0].fate(), MaterialFate::Shared);
    assert_eq!(scene.provider.calls(), calls);

    let third = scene.operator.make_member(ORG, "robin").await;
    scene
        .operator
        .set_key(ORG, &third.id, "a-key-of-robins-own-0")
        .await;
    let task = scene.operator.make_task(ORG, "robin").await;
    let agent = scene
        .broker
        .agent(&scene.broker.enroll(&scene.operator, &task).await)
        .await;
    agent.resolve("").await.unwrap();
    let revoked = revoke_agent(&scene.operator, &id(&agent).await, true).await;
    let held = &revoked.outstanding[0];
    assert_eq!(held.fate(), MaterialFate::ReplaceAtProvider);
    assert!(held.advice.contains("at the provider") && held.material_expire_time.is_none());
}

// req: D6 N8
#[tokio::test]
async fn a_new_sign_in_does_not_end_what_was_handed_out_of_the_earlier_grant() {
    let (scene, lease) = Scene::leased("", "").await;
    let again = scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint_another())
        .await;
    assert_eq!(
        (again.id.as_str(), again.generation),
        (scene.credential.as_str(), 3)
    );
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let other = scene
        .broker
        .agent(&scene.broker.enroll(&scene.operator, &task).await)
        .await;
    let newer = other.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(newer.generation, 4);

    // Nobody told the provider about the first grant: its token works there, and rotating the second changes nothing.
    let calls = scene.provider.calls();
    let agent = id(&scene.agent).await;
    let locked = lock(
        &scene.operator,
        proto::lock_target::Target::Member(MEMBER.to_owned()),
    )
    .await;
    let mut generations: Vec<_> = locked.outstanding.iter().map(|held| held.generation).collect();
    generations.sort_unstable();
    assert_eq!(generations, [lease.generation, newer.generation]);
    crate::unlock(&scene.operator, &locked).await;
    revoke_agent(&scene.operator, &id(&other).await, false).await;
    let revoked = revoke_agent(&scene.operator, &agent, true).await;
    let [held] = revoked.outstanding.as_slice() else {
        panic!("{:?}", revoked.outstanding)
    };
    assert_eq!((held.generation, held.fate()), (2, MaterialFate::Expires));
    assert_eq!(scene.provider.calls(), calls);
}
