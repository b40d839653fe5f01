//! Attempts to get more than one has: each is refused, and what is hidden looks like what does not exist.

use credbroker::proto;

use super::scene::{DAY, Scene, alex, grant, refused, span, token_apart, token_of};
use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::raw::told;
use crate::support::{Caller, reason};

// req: D2
#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let scene = Scene::start().await;
    scene.operator.make_org("other").await;
    let admin = grant(proto::Role::OrgAdmin, "");
    let system = grant(proto::Role::SystemAdmin, "");
    let boss = scene.member_with(ORG, "boss", admin.clone()).await;
    let (_, alex) = alex(&scene).await;
    let auditor = scene
        .member_with(ORG, "audit", grant(proto::Role::Auditor, ""))
        .await;
    let approver = scene
        .member_with(ORG, "ok", grant(proto::Role::Approver, ""))
        .await;

    // An org admin makes org admins and approvers, and no system admins: not by role, not by token.
    boss.give(ORG, MEMBER, grant(proto::Role::Approver, ""))
        .await
        .unwrap();
    boss.take(ORG, MEMBER, grant(proto::Role::Approver, ""))
        .await
        .unwrap();
    assert_eq!(
        refused(boss.give(ORG, "boss", system.clone()).await),
        "PERMISSION_DENIED"
    );
    assert_eq!(
        refused(boss.give("", MEMBER, system.clone()).await),
        "PERMISSION_DENIED"
    );
    let apart = boss.mint(token_apart(&[(proto::Role::OrgAdmin, ORG)])).await;
    assert_eq!(refused(apart), "PERMISSION_DENIED");
    let apart = boss.mint(token_apart(&[(proto::Role::SystemAdmin, "")])).await;
    assert_eq!(refused(apart), "PERMISSION_DENIED");
    let me = scene.operator.who().await.unwrap().actor;
    assert_eq!(
        refused(boss.give_operator(&me, admin.clone()).await),
        "PERMISSION_DENIED"
    );
    assert_eq!(
        refused(boss.take_operator(&me, system.clone()).await),
        "PERMISSION_DENIED"
    );
    assert_eq!(refused(boss.revoke_token(&me).await), "NOT_FOUND");
    assert_eq!(refused(boss.rotate(&me, None, None).await), "NOT_FOUND");
    // A role of another org is not a member's to have.
    let elsewhere = proto::RoleGrant {
        org: "other".to_owned(),
        ..admin.clone()
    };
    assert_eq!(
        refused(boss.give(ORG, MEMBER, elsewhere.clone()).await),
        "NOT_FOUND"
    );
    assert_eq!(
        refused(scene.operator.give(ORG, MEMBER, elsewhere).await),
        "INVALID_ARGUMENT"
    );
    assert_eq!(
        refused(scene.operator.give(ORG, MEMBER, system.clone()).await),
        "INVALID_ARGUMENT"
    );

    // The others give nothing, not even what they have, and not to themselves.
    for (caller, name, role) in [
        (&alex, MEMBER, proto::Role::Member),
        (&auditor, "audit", proto::Role::Auditor),
        (&approver, "ok", proto::Role::Approver),
    ] {
        for role in [role, proto::Role::OrgAdmin, proto::Role::SystemAdmin] {
            let given = caller.give("", name, grant(role, "")).await;
            assert_eq!(refused(given), "PERMISSION_DENIED", "{name} {role:?}");
        }
        // A token for oneself is anybody's; one for somebody else is not.
        caller.mint(token_of("", "")).await.unwrap();
        let stolen = caller.mint(token_of("", "boss")).await;
        assert_eq!(refused(stolen), "NOT_FOUND", "{name}");
        let stolen = caller.mint(token_of("other", MEMBER)).await;
        assert_eq!(refused(stolen), "NOT_FOUND", "{name}");
    }
    // Attempts are recorded.
    let denied = |action: &str| {
        let action = action.to_owned();
        move |record: &proto::JournalRecord| record.action == action && record.outcome == "denied"
    };
    let records = scene.operator.records().await;
    assert!(records.iter().any(denied("role.grant")));
    assert!(records.iter().any(denied("operator.create")));
}

// req: D2
#[tokio::test]
async fn tokens_of_others_are_not_to_be_told_from_none() {
    let scene = Scene::start().await;
    let (_, alex) = alex(&scene).await;
    scene.operator.make_org("other").await;
    let foreign = scene.operator.mint(token_of("other", MEMBER)).await.unwrap();
    scene.operator.make_member(ORG, "boss").await;
    let bosss = scene.operator.mint(token_of(ORG, "boss")).await.unwrap();
    let apart = scene
        .operator
        .mint(token_apart(&[(proto::Role::Auditor, "")]))
        .await
        .unwrap();
    let nobodys = format!("opr_{}", "0".repeat(32));
    let none = alex.revoke_token(&nobodys).await.unwrap_err();
    assert_eq!(reason(&none), "NOT_FOUND");
    for id in [&foreign.id, &bosss.id, &apart.id] {
        assert_eq!(told(&alex.revoke_token(id).await.unwrap_err()), told(&none));
        assert_eq!(told(&alex.rotate(id, None, None).await.unwrap_err()), told(&none));
    }
    let strange = alex.tokens("other", "").await.unwrap_err();
    assert_eq!(
        told(&strange),
        told(&alex.tokens("nowhere", "").await.unwrap_err())
    );
    let strange = alex.tokens("", "boss").await.unwrap_err();
    assert_eq!(
        told(&strange),
        told(&alex.tokens("", "nobody").await.unwrap_err())
    );
    let strange = alex.give("other", MEMBER, grant(proto::Role::Member, "")).await;
    let nowhere = alex.give("nowhere", MEMBER, grant(proto::Role::Member, "")).await;
    assert_eq!(told(&strange.unwrap_err()), told(&nowhere.unwrap_err()));
    // The list has one's own and no more.
    let own = alex.tokens("", "").await.unwrap();
    assert_eq!(own.len(), 1);
    // All still work.
    for minted in [&foreign, &bosss, &apart] {
        assert!(scene.caller(minted).await.who().await.is_ok());
    }
    // Somebody who is no member and no system admin sees and rotates their own, and no other.
    let auditor = scene.caller(&apart).await;
    let seen = auditor.tokens("", "").await.unwrap();
    assert!(seen.len() >= 4, "an auditor of the whole broker reads everything");
    assert_eq!(refused(auditor.revoke_token(&bosss.id).await), "NOT_FOUND");
    auditor.rotate("", Some(DAY), None).await.unwrap();
}

async fn project(scene: &Scene, name: &str) {
    let request = proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    scene.operator.directory().create_project(request).await.unwrap();
}

async fn task_in(caller: &Caller, project: &str) -> String {
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: project.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    let made = caller.tasks().create_task(request).await.unwrap().into_inner();
    made.task.unwrap().id
}

// req: D2 D3 K2
#[tokio::test]
async fn what_is_confined_to_a_project_sees_that_one_only() {
    let scene = Scene::start().await;
    project(&scene, "secret").await;
    let (open, hidden) = (
        task_in(&scene.operator, PROJECT).await,
        task_in(&scene.operator, "secret").await,
    );
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        projects: vec![PROJECT.to_owned()],
        ttl: span(DAY),
        ..Default::default()
    };
    let made = scene
        .operator
        .access()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let shown = made.api_key.unwrap();
    assert_eq!(shown.projects.len(), 1);
    let key = scene.broker.caller(Some(&made.token.unwrap().value)).await;
    assert_eq!(key.who().await.unwrap().projects, shown.projects);
    let auditor = grant(proto::Role::Auditor, PROJECT);
    let auditor = scene.member_with(ORG, "narrow", auditor).await;

    for caller in [&key, &auditor] {
        let list = proto::ListTasksRequest {
            org: ORG.to_owned(),
            ..Default::default()
        };
        let tasks = caller.tasks().list_tasks(list).await.unwrap().into_inner().tasks;
        let tasks: Vec<_> = tasks.into_iter().map(|task| task.id).collect();
        assert_eq!(tasks, std::slice::from_ref(&open));
        let get = |task: &str| proto::GetTaskRequest {
            org: ORG.to_owned(),
            task: task.to_owned(),
        };
        let seen = caller.tasks().get_task(get(&hidden)).await.unwrap_err();
        let absent = format!("tsk_{}", "0".repeat(32));
        let absent = caller.tasks().get_task(get(&absent)).await.unwrap_err();
        assert_eq!(told(&seen), told(&absent));
    }
    // Nor does it make anything there.
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: "secret".to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    let made = key.tasks().create_task(request).await;
    assert_eq!(refused(made), "NOT_FOUND");
    // A role in a project is not given beyond it.
    assert_eq!(
        refused(
            auditor
                .give(ORG, MEMBER, grant(proto::Role::Auditor, PROJECT))
                .await
        ),
        "PERMISSION_DENIED"
    );
}
