//! Who asks, who decides, who sees.

use credbroker::proto::{self, ApprovalState};

use crate::scene::{Asked, Scene, ask, refused, unasked};
use crate::support::Caller;
use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};

fn for_task(task: &str) -> proto::RequestApprovalRequest {
    proto::RequestApprovalRequest {
        org: ORG.to_owned(),
        task: task.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        ..ask(1)
    }
}

async fn fresh(scene: &Scene) -> Asked {
    scene.agent.ask(ask(3)).await.unwrap()
}

// req: D7 D2
#[tokio::test]
async fn it_takes_an_approver_who_is_not_concerned() {
    let scene = Scene::start().await;
    let asked = fresh(&scene).await;
    // An admin of the org without the role; an approver of another project; an auditor; the agent itself.
    let admin = scene.member_with("ada", proto::Role::OrgAdmin, "").await;
    assert_eq!(refused(admin.grant(&asked.id).await), "PERMISSION_DENIED");
    let request = proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: "other".to_owned(),
        ..Default::default()
    };
    scene.operator.directory().create_project(request).await.unwrap();
    let beside = scene.member_with("ben", proto::Role::Approver, "other").await;
    assert_eq!(refused(beside.grant(&asked.id).await), "NOT_FOUND");
    let auditor = scene.member_with("aud", proto::Role::Auditor, "").await;
    assert_eq!(refused(auditor.deny(&asked.id).await), "PERMISSION_DENIED");
    assert_eq!(
        refused(scene.agent.grant(&asked.id).await),
        "WRONG_CREDENTIAL_FAMILY"
    );
    // The one whose task it is, approver or not.
    let owner = scene.member_with("olga", proto::Role::Approver, "").await;
    let task = scene.operator.make_task_with("olga", crate::scene::SPEC).await;
    let enrolled = scene.broker.enroll(&scene.operator, &task).await;
    let agent = scene.broker.agent(&enrolled).await;
    let theirs = agent.ask(ask(1)).await.unwrap();
    assert_eq!(refused(owner.grant(&theirs.id).await), "APPROVAL_OWN");
    assert_eq!(refused(owner.deny(&theirs.id).await), "APPROVAL_OWN");
    // The one who asked.
    let own = owner.ask(for_task(&task)).await.unwrap();
    assert_eq!(refused(owner.grant(&own.id).await), "APPROVAL_OWN");
    // Nor does an approver's own word serve their own task, unasked and by spec hash alone.
    let named = proto::CreateApprovalRequest {
        task: task.clone(),
        spec_hash: String::new(),
        ..unasked("")
    };
    assert_eq!(refused(owner.approve(named).await), "APPROVAL_OWN");
    let around = owner.approve(unasked(crate::scene::SPEC)).await.unwrap();
    assert_eq!(
        refused(agent.resolve_by("", &around.token).await),
        "APPROVAL_MISMATCH"
    );
    scene.agent.resolve_by("", &around.token).await.unwrap();
    // Refusals are recorded as carefully as grants.
    let records = scene.operator.records().await;
    let denied =
        |record: &&proto::JournalRecord| record.action.starts_with("approval.") && record.outcome == "denied";
    assert!(records.iter().filter(denied).count() >= 4);
    // An approver of the project, one of the org, and a system admin.
    let near = scene.member_with("nina", proto::Role::Approver, PROJECT).await;
    near.grant(&asked.id).await.unwrap();
    scene.approver.grant(&fresh(&scene).await.id).await.unwrap();
    scene.operator.grant(&fresh(&scene).await.id).await.unwrap();
}

// req: D7
#[tokio::test]
async fn a_decision_stands() {
    let scene = Scene::start().await;
    let asked = fresh(&scene).await;
    assert_eq!(
        refused(scene.approver.grant_less(&asked.id, 4, None).await),
        "INVALID_ARGUMENT"
    );
    let granted = scene.approver.grant_less(&asked.id, 2, None).await.unwrap();
    assert_eq!((granted.state(), granted.use_limit), (ApprovalState::Granted, 2));
    assert_eq!(granted.message, "go on");
    let again = scene.approver.grant(&asked.id).await.unwrap();
    assert_eq!(again, granted);
    assert_eq!(refused(scene.approver.deny(&asked.id).await), "APPROVAL_DECIDED");
    scene.approver.take_back(&asked.id).await.unwrap();
    assert_eq!(refused(scene.approver.grant(&asked.id).await), "APPROVAL_DECIDED");
}

async fn key_for(scene: &Scene, groups: &[proto::ApiKeyGroup]) -> Caller {
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: groups.iter().map(|group| *group as i32).collect(),
        ..Default::default()
    };
    let made = scene.operator.access().create_api_key(request).await.unwrap();
    let token = made.into_inner().token.unwrap();
    scene.broker.caller(Some(&token.value)).await
}

// req: D7 D2
#[tokio::test]
async fn requesters_see_their_own_and_those_who_oversee_see_all() {
    let scene = Scene::start().await;
    let all = ApprovalState::Unspecified;
    let by_agent = fresh(&scene).await;
    let key = key_for(&scene, &[proto::ApiKeyGroup::Approvals]).await;
    let by_key = key.ask(for_task(&scene.task)).await.unwrap();
    let usual = key_for(&scene, &[]).await;
    assert_eq!(
        refused(usual.ask(for_task(&scene.task)).await),
        "PERMISSION_DENIED"
    );
    assert_eq!(scene.agent.listed(all).await, std::slice::from_ref(&by_agent.id));
    assert_eq!(key.listed(all).await, std::slice::from_ref(&by_key.id));
    let bystander = scene.broker.enroll(&scene.operator, &scene.task).await;
    let bystander = scene.broker.agent(&bystander).await;
    assert_eq!(refused(bystander.approval(&by_agent.id).await), "NOT_FOUND");
    assert_eq!(refused(key.approval(&by_agent.id).await), "NOT_FOUND");

    let both = [by_agent.id.clone(), by_key.id.clone()];
    assert_eq!(scene.approver.listed(all).await, both);
    assert_eq!(scene.operator.listed(all).await, both);
    // The member whose task it is sees what is asked for it; another member does not.
    assert_eq!(scene.token_of(MEMBER).await.listed(all).await, both);
    scene.operator.make_member(ORG, "mia").await;
    let other = scene.token_of("mia").await;
    assert!(other.listed(all).await.is_empty());
    assert_eq!(refused(other.approval(&by_agent.id).await), "NOT_FOUND");
    assert_eq!(refused(other.ask(for_task(&scene.task)).await), "NOT_FOUND");

    scene.approver.grant(&by_key.id).await.unwrap();
    assert_eq!(scene.approver.listed(ApprovalState::Pending).await, [by_agent.id]);
    assert_eq!(scene.approver.listed(ApprovalState::Granted).await, [by_key.id]);
}

// req: D7
#[tokio::test]
async fn an_agent_asks_for_its_own_task_and_environment() {
    let scene = Scene::start().await;
    let other = scene.operator.make_task_with(MEMBER, "sha256:ff").await;
    let foreign = proto::RequestApprovalRequest {
        task: other,
        ..ask(1)
    };
    assert_eq!(refused(scene.agent.ask(foreign).await), "NOT_FOUND");
    let elsewhere = proto::RequestApprovalRequest {
        environment: "env_01hzzzzzzzzzzzzzzzzzzzzzzz".to_owned(),
        ..ask(1)
    };
    assert_eq!(refused(scene.agent.ask(elsewhere).await), "INVALID_ARGUMENT");
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: scene.task.clone(),
    };
    scene.operator.tasks().end_task(end).await.unwrap();
    let ended = proto::RequestApprovalRequest {
        task: scene.task.clone(),
        ..ask(1)
    };
    assert_eq!(refused(scene.agent.ask(ended).await), "TASK_ENDED");
}
