//! Each state, made for real, and seen in the status, the list, the events and the metrics.

use std::time::Duration;

use credbroker::domain::credential::Health;
use proto::watch_event::Event;

use super::*;
use crate::support::broker::{MEMBER, now};
use crate::support::provider::{ACCESS_MARK, REFRESH_MARK, Reply};
use crate::support::scene::{LIFE, Scene};
use crate::support::watching::Watching;

/// Longer than an ambiguous grant rests.
const REST: Duration = Duration::from_secs(10);
const REVOKED: &str =
    "permanent_errors = [\"invalid_grant\", \"revoked\"]\nerror_causes = { revoked = \"withdrawn\" }\n";

const ALL: [CredentialHealth; 8] = [
    CredentialHealth::Ok,
    CredentialHealth::Expiring,
    CredentialHealth::Refreshing,
    CredentialHealth::Ambiguous,
    CredentialHealth::Quarantined,
    CredentialHealth::ReauthRequired,
    CredentialHealth::Expired,
    CredentialHealth::GrantLost,
];

/// Sees the one grant in this state everywhere, and nowhere in another.
async fn seen(scene: &Scene, health: CredentialHealth) -> proto::CredentialStatus {
    let told = status(&scene.operator, &scene.credential).await;
    let credential = told.credential.as_ref().unwrap();
    assert_eq!(credential.health(), health);
    let one = [scene.credential.clone()];
    for other in ALL {
        let listed = listed(&scene.operator, "", &[other]).await.unwrap();
        assert_eq!(listed == one, other == health, "{other:?}: {listed:?}");
    }
    assert_eq!(listed(&scene.operator, MEMBER, &ALL).await.unwrap(), one);
    scene.broker.broker.count_credentials().await.unwrap();
    let text = scene.broker.broker.metrics_text().await;
    let name = health.as_str_name().strip_prefix("CREDENTIAL_HEALTH_").unwrap();
    let name = name.to_lowercase().replace('_', "-");
    let mut rows = 0;
    for line in text
        .lines()
        .filter(|line| line.starts_with("credbroker_credentials{"))
    {
        let here = line.contains(&format!("state=\"{name}\"")) && line.contains("kind=\"oauth-grant\"");
        let count = if here { " 1" } else { " 0" };
        assert!(line.ends_with(count), "{line}");
        rows += 1;
    }
    assert_eq!(
        rows,
        Health::WORST_FIRST.len() * 4,
        "each state of each kind has its row"
    );
    let told_at = told.state_since.unwrap().seconds;
    assert!(told_at <= (scene.clock_now()).seconds(), "since {told_at}");
    let said = format!("{told:?}");
    assert!(
        !said.contains(ACCESS_MARK) && !said.contains(REFRESH_MARK),
        "{said}"
    );
    told
}

impl Scene {
    fn clock_now(&self) -> credbroker::domain::time::Time {
        use credbroker::clock::Clock as _;
        self.clock.wall()
    }
}

async fn hears(watch: &mut Watching, health: CredentialHealth) {
    loop {
        if let Event::CredentialHealthChanged(changed) = watch.message().await.unwrap() {
            assert_eq!(changed.health(), health);
            return;
        }
    }
}

// req: N9 C6
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_told_from_its_beginning_to_its_end() {
    let (scene, lease) = Scene::leased("", "").await;
    let mut watch = scene.operator.watch().await;
    let ok = seen(&scene, CredentialHealth::Ok).await;
    let credential = ok.credential.unwrap();
    assert_eq!(
        (credential.generation, ok.dependents, ok.dependents_truncated),
        (2, 1, false)
    );
    assert_eq!(ok.state_since, credential.refresh_time);
    assert!(credential.expire_time.unwrap().seconds > now().seconds());
    assert_eq!(
        (ok.cause.as_str(), ok.next_step.as_str(), ok.last_error_time),
        ("", "", None)
    );

    scene.expire();
    let expiring = seen(&scene, CredentialHealth::Expiring).await;
    let expires = expiring.credential.unwrap().expire_time.unwrap().seconds;
    assert_eq!(
        expiring.state_since.unwrap().seconds,
        expires - 1,
        "its lead is a second"
    );

    scene.provider.hold();
    scene.provider.next(Reply::HangUp { rotated: true });
    let agent = scene.agent.clone();
    let task = scene.task.clone();
    let asked = tokio::spawn(async move { agent.resolve(&task).await });
    scene.provider.called(2).await;
    let refreshing = seen(&scene, CredentialHealth::Refreshing).await;
    assert_eq!(refreshing.next_step, "");

    scene.provider.release();
    asked.await.unwrap().unwrap_err();
    let ambiguous = seen(&scene, CredentialHealth::Ambiguous).await;
    assert!(!ambiguous.credential.unwrap().last_error.is_empty());
    assert!(
        ambiguous.next_step.starts_with("wait:"),
        "{}",
        ambiguous.next_step
    );
    assert_eq!(ambiguous.state_since, refreshing.state_since);
    hears(&mut watch, CredentialHealth::Ambiguous).await;

    scene.clock.advance(REST);
    scene.resolve().await.unwrap_err();
    let lost = seen(&scene, CredentialHealth::GrantLost).await;
    let said = lost.credential.unwrap().last_error;
    assert!(said.contains("refresh token already used"), "{said}");
    assert_eq!(lost.cause, "answer-lost");
    assert_eq!(lost.next_step, "sign in again: credbroker account connect demo");
    assert_eq!((lost.last_error_time, lost.dependents), (lost.state_since, 1));
    hears(&mut watch, CredentialHealth::GrantLost).await;

    scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint())
        .await;
    hears(&mut watch, CredentialHealth::Ok).await;
    scene.resolve().await.unwrap();
    seen(&scene, CredentialHealth::Ok).await;
    scene
        .agent
        .broker()
        .release_lease(proto::ReleaseLeaseRequest { lease: lease.id })
        .await
        .unwrap();
    // What was counted a moment ago serves for a moment.
    for _ in 0..100 {
        if status(&scene.operator, &scene.credential).await.dependents == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the released lease is counted still");
}

// req: N9 C5
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_grant_is_quarantined_or_to_be_signed_in_for_again() {
    let (scene, _) = Scene::leased(REVOKED, "").await;
    let mut watch = scene.operator.watch().await;
    scene.expire();
    scene
        .provider
        .answer(429, r#"{"error":"slow_down","error_description":"too many"}"#);
    scene.resolve().await.unwrap_err();
    let failing = seen(&scene, CredentialHealth::Expiring).await;
    assert!(failing.credential.unwrap().last_error.contains("too many"));
    assert!(failing.next_step.starts_with("wait:"), "{}", failing.next_step);
    scene.clock.advance(LIFE);

    scene.provider.answer(
        400,
        r#"{"error":"invalid_grant","error_description":"unknown token"}"#,
    );
    scene.resolve().await.unwrap_err();
    let quarantined = seen(&scene, CredentialHealth::Quarantined).await;
    assert_eq!(quarantined.cause, "refreshed-elsewhere");
    assert!(
        quarantined.next_step.contains("other copy"),
        "{}",
        quarantined.next_step
    );
    hears(&mut watch, CredentialHealth::Quarantined).await;

    scene
        .operator
        .import_grant(ORG, MEMBER, &scene.provider.mint())
        .await;
    hears(&mut watch, CredentialHealth::Ok).await;
    scene
        .provider
        .answer(400, r#"{"error":"revoked","error_description":"by its owner"}"#);
    scene.resolve().await.unwrap_err();
    let refused = seen(&scene, CredentialHealth::ReauthRequired).await;
    assert_eq!(refused.cause, "withdrawn");
    assert!(refused.credential.unwrap().last_error.contains("by its owner"));
    hears(&mut watch, CredentialHealth::ReauthRequired).await;
    // Stored, and so the same after a restart.
    let credential = scene.credential.clone();
    // By the machine's clock: clients know no other.
    let broker = scene.broker.restart_with(|options| options.clock = None).await;
    let operator = broker.operator().await;
    assert_eq!(
        listed(&operator, "", &[CredentialHealth::ReauthRequired])
            .await
            .unwrap(),
        [credential]
    );
}
