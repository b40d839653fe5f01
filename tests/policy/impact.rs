//! The preview: whose mode changes, and which agents that concerns, how.

use credbroker::proto::{AuthMode, PolicyEffect, Verdict};

use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::{Caller, TestBroker};
use crate::*;

/// The rows of the preview for an executor: profile, before, after.
fn rows(change: &proto::PolicyChange, executor: &str) -> Vec<(String, AuthMode, AuthMode)> {
    let impact = change.impact.as_ref().unwrap();
    let own = impact.modes.iter().filter(|row| {
        let scope = row.scope.as_ref().unwrap();
        row.executor == executor && row.provider == "demo" && !scope.org.is_empty()
    });
    own.map(|row| (row.profile.clone(), row.before(), row.after()))
        .collect()
}

async fn make_task(operator: &Caller, profile: &str) -> String {
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        profile: profile.to_owned(),
        ..Default::default()
    };
    let made = operator.tasks().create_task(request).await.unwrap();
    made.into_inner().task.unwrap().id
}

// req: E14
#[tokio::test]
async fn the_profiles_that_lose_or_change_their_mode_are_told() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let own = proto::OrgRules {
        profiles: vec![
            profile("account", &[AuthMode::Oauth]),
            profile("either", &[AuthMode::Oauth, AuthMode::Byok]),
            profile("paid", &[AuthMode::Byok]),
        ],
        ..Default::default()
    };
    apply(&operator, of_org(ORG, Some(own), &[])).await.unwrap();
    let told = preview(&operator, of_system(&[deny(AuthMode::Oauth)])).await;
    let (oauth, byok, none) = (AuthMode::Oauth, AuthMode::Byok, AuthMode::Unspecified);
    assert_eq!(
        rows(&told, "demo-agent"),
        [
            (String::new(), oauth, byok),
            ("account".to_owned(), oauth, none),
            ("either".to_owned(), oauth, byok),
        ]
    );
    // Orgs that say nothing have the same change as a row of their own.
    let impact = told.impact.unwrap();
    let others = impact
        .modes
        .iter()
        .filter(|row| row.scope.as_ref().unwrap().org.is_empty());
    assert!(
        others
            .into_iter()
            .any(|row| row.executor == "demo-agent" && row.profile.is_empty())
    );
    assert_eq!((impact.agents_total, impact.modes_at_least), (0, false));
    let project = preview(&operator, of_org(ORG, None, &[(PROJECT, &[deny(oauth)])])).await;
    let places = &project.impact.as_ref().unwrap().modes;
    assert!(!places.is_empty());
    assert!(
        places
            .iter()
            .all(|row| row.scope.as_ref().unwrap().project_name == PROJECT)
    );
    assert_eq!(version(&operator).await, 1, "only looked at");
}

// req: A10 E14
#[tokio::test]
async fn agents_are_told_apart_by_whether_they_run_and_whether_their_mode_is_denied() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let own = proto::OrgRules {
        profiles: vec![profile("paid", &[AuthMode::Byok])],
        ..Default::default()
    };
    apply(&operator, of_org(ORG, Some(own), &[])).await.unwrap();
    let (runs, waits) = (
        make_task(&operator, "paid").await,
        make_task(&operator, "paid").await,
    );
    let running = broker.enroll(&operator, &runs).await;
    let waiting = broker.enroll(&operator, &waits).await;
    let lease = broker.agent(&running).await.resolve(&runs).await.unwrap();
    assert_eq!(lease.lease.unwrap().mode(), AuthMode::Byok);
    // None of these is concerned: another org's, one whose task has ended, one that was revoked.
    let elsewhere = operator.make_task("other", MEMBER).await;
    let token = operator.enrollment_token("other", &elsewhere).await;
    broker
        .enroll_with(&token, &crate::support::NewKey::generate())
        .await
        .unwrap();
    let over = make_task(&operator, "paid").await;
    broker.enroll(&operator, &over).await;
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: over,
    };
    operator.tasks().end_task(end).await.unwrap();
    let revoked = broker.enroll(&operator, &waits).await;
    let revoke = proto::RevokeAgentRequest {
        org: ORG.to_owned(),
        agent: revoked.agent,
        ..Default::default()
    };
    operator.agents().revoke_agent(revoke).await.unwrap();

    let told = |change: proto::PolicyChange| {
        let impact = change.impact.unwrap();
        assert_eq!(impact.agents.len() as u64, impact.agents_total);
        assert!(!impact.agents_at_least);
        let effect = |agent: &str| {
            let row = impact.agents.iter().find(|row| row.agent == agent);
            row.map(|row| (row.effect(), row.before(), row.after()))
        };
        (
            impact.agents.len(),
            effect(&running.agent),
            effect(&waiting.agent),
        )
    };
    let (byok, none) = (AuthMode::Byok, AuthMode::Unspecified);
    let denied = of_org(ORG, None, &[(PROJECT, &[deny(byok)])]);
    let at_once = Some((PolicyEffect::AtOnce, byok, none));
    let first = Some((PolicyEffect::FirstResolution, byok, none));
    assert_eq!(told(preview(&operator, denied).await), (2, at_once, first));
    // A mode that is no longer wanted is not denied: who runs goes on.
    let update = proto::UpdateProfileRequest {
        org: ORG.to_owned(),
        profile: Some(profile("paid", &[AuthMode::Oauth])),
        validate_only: true,
        ..Default::default()
    };
    let changed = operator.policies().update_profile(update).await.unwrap();
    let changed = changed.into_inner().change.unwrap();
    let next = Some((PolicyEffect::NextTask, byok, AuthMode::Oauth));
    let first = Some((PolicyEffect::FirstResolution, byok, AuthMode::Oauth));
    assert_eq!(told(changed), (2, next, first));
    // A denial at another provider concerns none of them.
    let beside = of_org(
        ORG,
        Some(proto::OrgRules {
            profiles: vec![profile("paid", &[byok])],
            matrix: vec![cell(byok, "second", "*", Verdict::Deny)],
            ..Default::default()
        }),
        &[],
    );
    assert_eq!(told(preview(&operator, beside).await), (0, None, None));
    // What is applied tells the same as its preview.
    let everywhere = of_system(&[deny(byok), deny(AuthMode::Oauth)]);
    let shown = preview(&operator, everywhere.clone()).await;
    let done = apply(&operator, everywhere).await.unwrap();
    assert_eq!(done.impact, shown.impact);
    assert_eq!(
        told(done),
        (3, at_once, Some((PolicyEffect::FirstResolution, byok, none)))
    );
}
