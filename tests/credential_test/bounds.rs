//! Who may test, how often, and what is written down.

use support::broker::MEMBER;
use support::client::{metadata, reason, retry_after};

use super::fake::reply;
use super::*;

const KEY: &str = "sk-proj-a-key-with-enough-letters";

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_together_cause_one_request_and_share_what_it_finds() {
    let scene = Scene::new().await;
    let id = scene.key("openai", KEY).await;
    let slow = fake::Reply {
        after: Duration::from_millis(300),
        ..reply(200, "{}")
    };
    scene.fake.answers(slow);
    let tests: Vec<_> = (0..20)
        .map(|_| {
            let (operator, id) = (scene.operator.clone(), id.clone());
            tokio::spawn(async move { test_as(&operator, &id).await.unwrap() })
        })
        .collect();
    let mut remembered = 0;
    for test in tests {
        let told = test.await.unwrap();
        assert_eq!(told.outcome(), Outcome::Works);
        remembered += usize::from(told.remembered);
    }
    assert_eq!((scene.fake.asked().len(), remembered), (1, 19));

    // Another key in its place is another matter.
    scene.fake.answers(reply(401, "{}"));
    assert_eq!(scene.key("openai", "sk-proj-another-key-altogether").await, id);
    let told = test_as(&scene.operator, &id).await.unwrap();
    assert_eq!(
        (told.outcome(), told.remembered, told.generation),
        (Outcome::Rejected, false, 2)
    );
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn an_org_has_only_so_many_tests_a_minute() {
    let scene = Scene::new().await;
    let id = scene.key("openai", KEY).await;
    // Two a moment, so that the minute is not over before they are.
    let mut done = 0;
    let refused = loop {
        match test_as(&scene.operator, &id).await {
            Ok(told) => done += usize::from(!told.remembered),
            Err(refused) => break refused,
        }
        // A newer secret is not remembered.
        scene.key("openai", KEY).await;
        assert!(done <= 120);
    };
    assert_eq!((done, scene.fake.asked().len()), (120, 120));
    assert_eq!(reason(&refused), "OVERLOADED");
    let wait = retry_after(&refused).unwrap();
    assert!(wait <= Duration::from_secs(60), "{wait:?}");
    scene.clock.advance(wait);
    assert_eq!(
        test_as(&scene.operator, &id).await.unwrap().outcome(),
        Outcome::Works
    );
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn members_test_their_own_and_nothing_that_is_locked_is_sent() {
    let scene = Scene::new().await;
    let key = |value: &str| {
        Key::ApiKey(proto::Secret {
            value: value.to_owned(),
        })
    };
    let mine = scene.store(MEMBER, "openai", key(KEY)).await;
    scene.operator.make_member(ORG, "sam").await;
    let theirs = scene.store("sam", "openai", key(KEY)).await;
    let request = proto::CreateOperatorTokenRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        ..Default::default()
    };
    let token = scene
        .operator
        .access()
        .create_operator_token(request)
        .await
        .unwrap();
    let token = token.into_inner().token.unwrap().value.clone();
    let member = scene.broker.caller(Some(&token)).await;
    assert_eq!(test_as(&member, &mine).await.unwrap().outcome(), Outcome::Works);
    assert_eq!(reason(&test_as(&member, &theirs).await.unwrap_err()), "NOT_FOUND");

    let (_, automation) = scene.operator.make_broad_api_key(ORG).await;
    let automation = scene.broker.caller(Some(&automation)).await;
    assert_eq!(
        test_as(&automation, &theirs).await.unwrap().outcome(),
        Outcome::Works
    );

    let asked = scene.fake.asked().len();
    let request = proto::CreateLockRequest {
        org: ORG.to_owned(),
        target: Some(proto::LockTarget {
            target: Some(proto::lock_target::Target::Credential(theirs.clone())),
            ..Default::default()
        }),
        ..Default::default()
    };
    scene.operator.locks().create_lock(request).await.unwrap();
    scene.clock.advance(Duration::from_secs(6));
    let refused = test_as(&scene.operator, &theirs).await.unwrap_err();
    assert_eq!(reason(&refused), "LOCKED");
    assert!(metadata(&refused, "lock").starts_with("lck_"), "{refused:?}");
    assert_eq!(scene.fake.asked().len(), asked);
}

// req: C4
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_kept_until_the_key_changes_or_goes() {
    let scene = Scene::new().await;
    let id = scene.key("openai", KEY).await;
    assert_eq!(scene.last_check(&id).await, None);
    scene
        .fake
        .answers(reply(401, r#"{"error":{"message":"revoked"}}"#));
    scene.test(&id).await;
    let kept = scene.last_check(&id).await.unwrap();
    assert_eq!(
        (kept.generation, kept.status, kept.message.as_str()),
        (1, 401, "revoked")
    );
    scene.key("openai", "sk-proj-another-key-altogether").await;
    assert_eq!(scene.last_check(&id).await, None);

    scene.fake.answers(reply(200, "{}"));
    scene.test(&id).await;
    assert!(scene.last_check(&id).await.unwrap().message.is_empty());
    let request = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: id.clone(),
    };
    scene
        .operator
        .credentials()
        .remove_credential(request)
        .await
        .unwrap();
    let refused = test_as(&scene.operator, &id).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_FOUND");
}

// req: C4 D1
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_the_test_before_it_is_sent_and_what_it_found_without_the_secret() {
    let scene = Scene::new().await;
    let id = scene.key("openai", KEY).await;
    let quoting = format!(r#"{{"error":{{"message":"{KEY} is wrong"}}}}"#);
    let slow = fake::Reply {
        after: Duration::from_millis(500),
        ..reply(401, &quoting)
    };
    scene.fake.answers(slow);
    let test = tokio::spawn({
        let (operator, id) = (scene.operator.clone(), id.clone());
        async move { test_as(&operator, &id).await.unwrap() }
    });
    while scene.fake.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The provider has it, so the journal does.
    let records = scene.operator.records().await;
    let begun = tests_in(&records);
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0].subject["credential"], id);
    assert!(!begun[0].subject.contains_key("found"));
    let told = test.await.unwrap();
    assert_eq!(told.message, "[redacted] is wrong");
    let records = scene.operator.records().await;
    let both = tests_in(&records);
    assert_eq!(both.len(), 2);
    assert_eq!(
        (
            both[1].subject["found"].as_str(),
            both[1].subject["status"].as_str()
        ),
        ("rejected", "401")
    );
    assert_eq!(both[1].subject["host"], "127.0.0.1");
    assert!(!format!("{records:?}").contains(KEY));

    // What nothing tests is not sent anywhere.
    let unknown = scene.key("demo", "a-key-of-the-demo-provider").await;
    let told = scene.test(&unknown).await;
    assert_eq!((told.outcome(), told.http_status), (Outcome::Untestable, 0));
    assert_eq!(scene.last_check(&unknown).await, None);
    assert_eq!(scene.fake.asked().len(), 1);
}
