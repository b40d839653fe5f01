//! What ends a grant, or stops it for a while: from the very next time on that the proxy asks.

use std::time::Duration;

use credbroker::proto::{self, lock_target::Target, material::Material};

use crate::inactive;
use crate::scene::{KEY, Scene, Used};
use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};

async fn is(scene: &Scene, grant: &str, expected: &str) {
    let answer = scene.proxy.introspect_grant(grant).await;
    if expected.is_empty() {
        assert!(answer.active, "{answer:?}");
        assert_eq!(answer.key.unwrap().value, KEY);
    } else {
        assert_eq!(answer, inactive(expected));
    }
}

async fn lock(scene: &Scene, target: Target) -> String {
    let request = proto::CreateLockRequest {
        org: ORG.to_owned(),
        target: Some(proto::LockTarget {
            target: Some(target),
            project: PROJECT.to_owned(),
        }),
        ..Default::default()
    };
    let made = scene.operator.locks().create_lock(request).await.unwrap();
    made.into_inner().lock.unwrap().id
}

async fn unlock(scene: &Scene, lock: String) {
    let request = proto::RemoveLockRequest {
        org: ORG.to_owned(),
        lock,
    };
    scene.operator.locks().remove_lock(request).await.unwrap();
}

/// A grant ends with its lease. One that is asked for near that end works for as long as was asked all the same, and is
/// no other dispatch.
// req: B6 E12
#[tokio::test]
async fn near_the_end_of_its_lease_a_grant_lasts_as_long_as_is_promised() {
    let scene = Scene::start(&[]).await;
    let used = &scene.used[0];
    let agent = scene.broker.agent(&used.agent).await;
    // Five of its sixty minutes are left.
    scene.clock.advance(Duration::from_secs(55 * 60));
    let ten_minutes = Duration::from_secs(600);
    let resolved = agent.resolve_for(&used.task, ten_minutes).await.unwrap();
    let lease = resolved.lease.unwrap();
    assert_eq!(lease.id, used.lease.id);
    assert_eq!(lease.minimum_remaining.unwrap().seconds, 600);
    let Some(Material::ProxyGrant(grant)) = lease.material.unwrap().material else {
        panic!("no proxy grant");
    };
    // Past the first end of the lease, and within what was promised.
    scene.clock.advance(Duration::from_secs(9 * 60));
    is(&scene, &grant.token.unwrap().value, "").await;
    let records = scene.operator.records().await;
    let dispatches = records
        .iter()
        .filter(|record| record.phase == "finish" && record.subject.contains_key("dispatch"));
    assert_eq!(dispatches.count(), 1);
}

async fn demand_approvals(scene: &Scene, posture: proto::ApprovalPosture) {
    let request = proto::GetEnvironmentRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
    };
    let found = scene.operator.directory().get_environment(request).await.unwrap();
    let mut environment = found.into_inner().environment.unwrap();
    environment.approval = posture as i32;
    let request = proto::UpdateEnvironmentRequest {
        environment: Some(environment),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["approval".to_owned()],
        }),
    };
    scene
        .operator
        .directory()
        .update_environment(request)
        .await
        .unwrap();
}

// req: E8 D6 N4
#[tokio::test]
async fn a_lock_stops_a_grant_for_as_long_as_it_holds() {
    let scene = Scene::start(&[]).await;
    let used = &scene.used[0];
    let grant = used.grant.clone();
    for target in [
        Target::Agent(used.agent.agent.clone()),
        Target::Member(MEMBER.to_owned()),
        Target::Environment(ENVIRONMENT.to_owned()),
        Target::Org(true),
    ] {
        is(&scene, &grant, "").await;
        let lock = lock(&scene, target).await;
        is(&scene, &grant, "LOCKED").await;
        unlock(&scene, lock).await;
    }
    is(&scene, &grant, "").await;
    // So does a posture that the lease was not made under.
    demand_approvals(&scene, proto::ApprovalPosture::Required).await;
    is(&scene, &grant, "APPROVAL_REQUIRED").await;
    demand_approvals(&scene, proto::ApprovalPosture::None).await;
    is(&scene, &grant, "").await;
}

async fn release(scene: &Scene, used: &Used) {
    let request = proto::ReleaseLeaseRequest {
        lease: used.lease.id.clone(),
    };
    let agent = scene.broker.agent(&used.agent).await;
    agent.broker().release_lease(request).await.unwrap();
}

async fn revoke(scene: &Scene, used: &Used) {
    let request = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: used.agent.agent.clone(),
        ..Default::default()
    };
    scene.operator.agents().revoke_agent(request).await.unwrap();
}

async fn end_task(scene: &Scene, used: &Used) {
    let request = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: used.task.clone(),
    };
    scene.operator.tasks().end_task(request).await.unwrap();
}

async fn remove_member(scene: &Scene, member: &str) {
    let request = proto::RemoveMemberRequest {
        org: ORG.to_owned(),
        member: member.to_owned(),
    };
    scene.operator.directory().remove_member(request).await.unwrap();
}

// req: E8 D6 A10
#[tokio::test]
async fn what_ends_a_lease_ends_its_grants_and_no_others() {
    let scene = Scene::start(&["kim", "robin", "sam", "toni"]).await;
    let grants: Vec<_> = scene.used.iter().map(|used| used.grant.clone()).collect();
    for grant in &grants {
        is(&scene, grant, "").await;
    }
    let [_, kim, robin, sam, _] = &scene.used[..] else {
        panic!("not five")
    };
    release(&scene, kim).await;
    is(&scene, &grants[1], "LEASE_ENDED").await;
    revoke(&scene, robin).await;
    end_task(&scene, sam).await;
    remove_member(&scene, "toni").await;
    for grant in &grants[2..] {
        let answer = scene.proxy.introspect_grant(grant).await;
        assert!(!answer.active, "{answer:?}");
        assert_eq!(answer, inactive(&answer.inactive_reason), "it tells more");
    }
    is(&scene, &grants[0], "").await;
    // Nor does a restart bring them back; and what was good stays good.
    let scene = scene.restart("").await;
    for grant in &grants[1..] {
        assert!(!scene.proxy.introspect_grant(grant).await.active);
    }
    is(&scene, &grants[0], "").await;
}

// A model proxy whose token was revoked is told nothing more.
// req: E8 D6
#[tokio::test]
async fn a_proxy_that_lost_its_role_is_told_nothing() {
    let scene = Scene::start(&[]).await;
    let grant = scene.used[0].grant.clone();
    is(&scene, &grant, "").await;
    let who = scene.proxy.access().who_am_i(proto::WhoAmIRequest {}).await;
    let request = proto::RevokeOperatorTokenRequest {
        operator_token: who.unwrap().into_inner().actor,
    };
    scene
        .operator
        .access()
        .revoke_operator_token(request)
        .await
        .unwrap();
    let request = proto::IntrospectGrantRequest {
        token: Some(proto::Secret { value: grant }),
        ..Default::default()
    };
    let refused = scene
        .proxy
        .platform()
        .introspect_grant(request)
        .await
        .unwrap_err();
    assert_eq!(crate::support::reason(&refused), "CREDENTIAL_UNKNOWN");
}

// req: E8 A2
#[tokio::test]
async fn metered_use_stops_with_the_credit_and_with_the_orgs_entitlement() {
    let scene = Scene::start(&[]).await;
    let grant = scene.used[0].grant.clone();
    is(&scene, &grant, "").await;
    // The proxy itself reports what was used.
    let event = proto::UsageEvent {
        event_id: "1".to_owned(),
        lease: scene.used[0].lease.id.clone(),
        micros: 1_000_000,
        time: Some(prost_types::Timestamp {
            seconds: scene.now().seconds(),
            nanos: 0,
        }),
        ..Default::default()
    };
    let request = proto::ReportUsageRequest {
        org: ORG.to_owned(),
        events: vec![event],
    };
    scene.proxy.billing().report_usage(request).await.unwrap();
    is(&scene, &grant, "CREDITS_EXHAUSTED").await;
    scene.add_credit(1).await;
    is(&scene, &grant, "").await;

    let entitle = async |metered: proto::Entitlement| {
        let request = proto::UpdateAccountRequest {
            account: Some(proto::Account {
                org: ORG.to_owned(),
                metered: metered as i32,
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["metered".to_owned()],
            }),
        };
        scene.operator.billing().update_account(request).await.unwrap();
    };
    entitle(proto::Entitlement::Withdrawn).await;
    is(&scene, &grant, "METERED_NOT_ENTITLED").await;
    entitle(proto::Entitlement::Granted).await;
    is(&scene, &grant, "").await;
}
