//! Resolutions where the environment demands an approval.

use std::time::Duration;

use credbroker::proto::{self, ApprovalPosture, ApprovalState, CapabilityScope};
use futures_util::future::join_all;

use crate::scene::{Scene, ask, demand, fitting, refused, scope, unasked};
use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::client::{metadata, secret};
use crate::support::{Caller, reason};

// req: D7
#[tokio::test]
async fn the_posture_decides_whether_an_agent_needs_one() {
    let scene = Scene::start().await;
    demand(&scene.operator, ApprovalPosture::None).await;
    let free = scene.agent.resolve_by("", "").await.unwrap();
    let shown = demand(&scene.operator, ApprovalPosture::Required).await;
    // Not even what it holds already: that was made without one.
    let status = scene.agent.resolve_by("", "").await.unwrap_err();
    assert_eq!(reason(&status), "APPROVAL_REQUIRED");
    for (key, value) in [
        ("environment", shown.id.as_str()),
        ("spec_hash", crate::scene::SPEC),
        ("executor", "demo-agent"),
        ("provider", "demo"),
        ("mode", "byok"),
    ] {
        assert_eq!(metadata(&status, key), value, "{key}");
    }
    assert_eq!(
        refused(scene.agent.reject(&free.id, 1).await),
        "APPROVAL_REQUIRED"
    );
    // An API key is in no environment.
    let (_, key) = scene.operator.make_api_key(ORG).await;
    let automation = scene.broker.caller(Some(&key)).await;
    automation.resolve_by(&scene.task, "").await.unwrap();
    demand(&scene.operator, ApprovalPosture::None).await;
    assert_eq!(scene.agent.resolve_by("", "").await.unwrap().id, free.id);
}

// req: D7
#[tokio::test]
async fn an_environment_says_what_it_demands_and_is_not_changed_by_silence() {
    let scene = Scene::start().await;
    let mut directory = scene.operator.directory();
    let request = proto::CreateEnvironmentRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        name: "guarded".to_owned(),
        approval: ApprovalPosture::Required as i32,
        ..Default::default()
    };
    let made = directory.create_environment(request).await.unwrap().into_inner();
    let made = made.environment.unwrap();
    assert_eq!(made.approval(), ApprovalPosture::Required);
    let update = |posture: i32| proto::UpdateEnvironmentRequest {
        environment: Some(proto::Environment {
            approval: posture,
            ..made.clone()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["approval".to_owned()],
        }),
    };
    assert_eq!(
        refused(directory.update_environment(update(0)).await),
        "INVALID_ARGUMENT"
    );
    assert_eq!(
        refused(directory.update_environment(update(9)).await),
        "INVALID_ARGUMENT"
    );
    let records = scene.operator.records().await;
    let change = records
        .iter()
        .find(|one| one.action == "environment.update")
        .unwrap();
    assert!(
        change.subject.values().any(|value| value == "required"),
        "{change:?}"
    );
}

// req: D7 B6
#[tokio::test]
async fn an_approval_is_used_once_for_a_lease_and_again_for_another() {
    let scene = Scene::start().await;
    let mut told = scene.agent.watch().await;
    let asked = scene.agent.ask(ask(1)).await.unwrap();
    assert_eq!(asked.shown.state(), ApprovalState::Pending);
    assert_eq!(
        refused(scene.agent.resolve_by("", &asked.token).await),
        "APPROVAL_PENDING"
    );
    scene.approver.grant(&asked.id).await.unwrap();
    match told.event().await.unwrap() {
        proto::watch_event::Event::ApprovalDecided(decided) => {
            assert_eq!((decided.approval, decided.granted), (asked.id.clone(), true));
        }
        other => panic!("{other:?}"),
    }
    let lease = scene.agent.resolve_by("", &asked.token).await.unwrap();
    assert_eq!(secret(&lease), "the-orgs-own-key-000");
    // The lease that stands is handed out again: with the token, and without.
    for token in [asked.token.as_str(), ""] {
        assert_eq!(scene.agent.resolve_by("", token).await.unwrap().id, lease.id);
    }
    let shown = scene.agent.approval(&asked.id).await.unwrap();
    assert_eq!((shown.uses, shown.state()), (1, ApprovalState::Spent));
    // Given back, the next would be another use.
    scene.agent.give_back(&lease.id).await;
    assert_eq!(refused(scene.agent.resolve_by("", "").await), "APPROVAL_REQUIRED");
    assert_eq!(
        refused(scene.agent.resolve_by("", &asked.token).await),
        "APPROVAL_SPENT"
    );
    let records = scene.operator.records().await;
    let named = |record: &&proto::JournalRecord| {
        record.action == "credential.resolve"
            && record.outcome == "allowed"
            && record.subject.values().any(|value| *value == asked.id)
    };
    // One begin, one finish.
    assert_eq!(records.iter().filter(named).count(), 2);
}

// req: D7 D1
#[tokio::test]
async fn what_does_not_fit_is_told_apart() {
    let scene = Scene::start().await;
    let enrollment = scene.operator.enrollment_token(ORG, "").await;
    for token in [enrollment.as_str(), &scene.enrolled.runtime_key, "sk-ant-hello"] {
        assert_eq!(
            refused(scene.agent.resolve_by("", token).await),
            "WRONG_CREDENTIAL_FAMILY"
        );
    }
    let good = scene.granted(5).await;
    let cut = &good.token[..good.token.len() - 1];
    assert_eq!(
        refused(scene.agent.resolve_by("", cut).await),
        "CREDENTIAL_MALFORMED"
    );
    let forged = forged(&good.id);
    assert_eq!(
        refused(scene.agent.resolve_by("", &forged).await),
        "APPROVAL_UNKNOWN"
    );

    let with = |capability: CapabilityScope| proto::CreateApprovalRequest {
        capability: Some(capability),
        ..unasked(crate::scene::SPEC)
    };
    let other = proto::CreateEnvironmentRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        name: "other".to_owned(),
        ..Default::default()
    };
    scene
        .operator
        .directory()
        .create_environment(other)
        .await
        .unwrap();
    let elsewhere = proto::CreateApprovalRequest {
        environment: "other".to_owned(),
        ..unasked(crate::scene::SPEC)
    };
    for (request, field) in [
        (unasked("sha256:0012"), "spec_hash"),
        (elsewhere, "environment"),
        (with(scope("duo-agent", "demo", "byok")), "executor"),
        (with(scope("demo-agent", "second", "byok")), "provider"),
        (with(scope("demo-agent", "demo", "oauth")), "mode"),
    ] {
        let wrong = scene.approver.approve(request).await.unwrap();
        let status = scene.agent.resolve_by("", &wrong.token).await.unwrap_err();
        assert_eq!(reason(&status), "APPROVAL_MISMATCH", "{field}");
        assert_eq!(metadata(&status, "field"), field);
        assert_eq!(scene.approver.approval(&wrong.id).await.unwrap().uses, 0);
    }
    let denied = scene.agent.ask(ask(1)).await.unwrap();
    assert_eq!(
        scene.approver.deny(&denied.id).await.unwrap().state(),
        ApprovalState::Denied
    );
    assert_eq!(
        refused(scene.agent.resolve_by("", &denied.token).await),
        "APPROVAL_DENIED"
    );
    scene.agent.resolve_by("", &good.token).await.unwrap();
}

/// A well-formed token of an approval that exists, with another secret.
fn forged(id: &str) -> String {
    use credbroker::domain::secret::Exposure;
    use credbroker::domain::token::{ApprovalFamily, Token};
    let token = Token::<ApprovalFamily>::new(id.parse().unwrap(), [9; 32]).reveal();
    token.expose_str(Exposure::Inspect).unwrap().to_owned()
}

// req: D7
#[tokio::test]
async fn stars_mean_any_and_only_when_they_are_written() {
    let scene = Scene::start().await;
    let any = proto::CreateApprovalRequest {
        capability: Some(scope("*", "*", "*")),
        ..unasked(crate::scene::SPEC)
    };
    let any = scene.approver.approve(any).await.unwrap();
    scene.agent.resolve_by("", &any.token).await.unwrap();
    for capability in [
        CapabilityScope {
            modes: vec![],
            ..fitting()
        },
        CapabilityScope {
            providers: vec!["*".to_owned(), "demo".to_owned()],
            ..fitting()
        },
        scope("no-such-agent", "demo", "byok"),
    ] {
        let request = proto::CreateApprovalRequest {
            capability: Some(capability),
            ..unasked(crate::scene::SPEC)
        };
        assert_eq!(refused(scene.approver.approve(request).await), "INVALID_ARGUMENT");
    }
}

// req: D7
#[tokio::test]
async fn nothing_is_handed_out_by_an_approval_that_is_over() {
    let scene = Scene::start().await;
    let asked = scene.agent.ask(ask(2)).await.unwrap();
    let ttl = Some(Duration::from_secs(120));
    let granted = scene.approver.grant_less(&asked.id, 0, ttl).await.unwrap();
    let lease = scene.agent.resolve_by("", &asked.token).await.unwrap();
    let (ends, over) = (lease.expire_time.unwrap(), granted.expire_time.unwrap());
    assert!(ends.seconds <= over.seconds, "the lease outlives its approval");
    scene.clock.advance(Duration::from_secs(121));
    assert_eq!(refused(scene.agent.resolve_by("", "").await), "APPROVAL_REQUIRED");
    assert_eq!(
        refused(scene.agent.resolve_by("", &asked.token).await),
        "APPROVAL_EXPIRED"
    );
    assert_eq!(refused(scene.agent.reject(&lease.id, 1).await), "LEASE_ENDED");
}

// req: D7 D6
#[tokio::test]
async fn what_is_taken_back_ends_what_it_was_used_for() {
    let scene = Scene::start().await;
    let asked = scene.granted(2).await;
    let lease = scene.agent.resolve_by("", &asked.token).await.unwrap();
    let answer = scene.approver.take_back(&asked.id).await.unwrap();
    assert_eq!(answer.ended_leases, std::slice::from_ref(&lease.id));
    assert_eq!(answer.approval.unwrap().state(), ApprovalState::Revoked);
    assert_eq!(refused(scene.agent.resolve_by("", "").await), "APPROVAL_REQUIRED");
    assert_eq!(
        refused(scene.agent.resolve_by("", &asked.token).await),
        "APPROVAL_REVOKED"
    );
    assert_eq!(refused(scene.agent.reject(&lease.id, 1).await), "LEASE_ENDED");
    let again = scene.approver.take_back(&asked.id).await.unwrap();
    assert_eq!(again.ended_leases, [lease.id]);
}

async fn agents(scene: &Scene, count: usize) -> Vec<Caller> {
    let mut agents = Vec::new();
    for _ in 0..count {
        let enrolled = scene.broker.enroll(&scene.operator, &scene.task).await;
        agents.push(scene.broker.agent(&enrolled).await);
    }
    agents
}

// req: D7
#[tokio::test]
async fn many_agents_share_as_many_uses_as_there_are() {
    let scene = Scene::start().await;
    let agents = agents(&scene, 12).await;
    // The first lease pins the task, by a guard that would serve a broken approval too.
    for uses in [1u32, 5, 1] {
        let asked = scene.granted(uses).await;
        let tries = agents.iter().map(|agent| agent.resolve_by("", &asked.token));
        let answers = join_all(tries).await;
        let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(good.len(), uses as usize);
        assert!(bad.into_iter().all(|answer| refused(answer) == "APPROVAL_SPENT"));
        assert_eq!(scene.approver.approval(&asked.id).await.unwrap().uses, uses);
        for lease in good {
            let lease = lease.unwrap();
            for agent in &agents {
                let request = proto::ReleaseLeaseRequest {
                    lease: lease.id.clone(),
                };
                // Somebody else's looks like none.
                let _ = agent.broker().release_lease(request).await;
            }
        }
    }
}

// req: D7 B6
#[tokio::test]
async fn one_agent_asking_many_times_at_once_uses_it_once() {
    let scene = Scene::start().await;
    let asked = scene.granted(1).await;
    let tries = (0..50).map(|_| scene.agent.resolve_by("", &asked.token));
    let leases: Vec<_> = join_all(tries)
        .await
        .into_iter()
        .map(|lease| lease.unwrap().id)
        .collect();
    assert!(leases.iter().all(|lease| *lease == leases[0]), "{leases:?}");
    assert_eq!(scene.approver.approval(&asked.id).await.unwrap().uses, 1);
    // Nor does a restart: the lease stands under it, and is handed out again without.
    let broker = scene.broker.restart().await;
    let agent = broker.agent(&scene.enrolled).await;
    assert_eq!(agent.resolve("").await.unwrap().lease.unwrap().id, leases[0]);
}

// req: D7
#[tokio::test]
async fn a_task_without_a_spec_hash_is_not_approved() {
    let scene = Scene::start().await;
    let task = scene.operator.make_task(ORG, MEMBER).await;
    let enrolled = scene.broker.enroll(&scene.operator, &task).await;
    let agent = scene.broker.agent(&enrolled).await;
    assert_eq!(refused(agent.ask(ask(1)).await), "INVALID_ARGUMENT");
    assert_eq!(refused(agent.resolve_by("", "").await), "APPROVAL_REQUIRED");
    let none = proto::CreateApprovalRequest {
        environment: ENVIRONMENT.to_owned(),
        ..unasked("")
    };
    assert_eq!(refused(scene.approver.approve(none).await), "INVALID_ARGUMENT");
}
