//! Profiles one by one, and tasks that name them.

use credbroker::proto::AuthMode;

use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::client::metadata;
use crate::support::{TestBroker, reason};
use crate::*;

async fn create(caller: &Caller, new: proto::Profile, request_id: &str) -> Result<bool, Status> {
    let request = proto::CreateProfileRequest {
        org: ORG.to_owned(),
        profile: Some(new),
        request_id: request_id.to_owned(),
    };
    let made = caller.policies().create_profile(request).await?.into_inner();
    assert!(made.profile.is_some());
    Ok(made.change.is_some())
}

async fn task(caller: &Caller, profile: &str) -> Result<proto::Task, Status> {
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        profile: profile.to_owned(),
        ..Default::default()
    };
    let made = caller.tasks().create_task(request).await?;
    Ok(made.into_inner().task.unwrap())
}

// req: E1
#[tokio::test]
async fn a_profile_is_made_once_shown_replaced_and_removed() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let credential = operator.set_key(ORG, "", "the-orgs-own-key-000").await.id;
    let new = proto::Profile {
        credential,
        on_rejection: proto::OnRejection::Next as i32,
        models: [("demo".to_owned(), "m-1".to_owned())].into(),
        ..profile("fast", &[AuthMode::Oauth, AuthMode::Byok])
    };
    let id = "0198f000-0000-7000-8000-000000000001";
    assert!(create(&operator, new.clone(), id).await.unwrap());
    assert!(!create(&operator, new.clone(), id).await.unwrap(), "a repeat");
    let other = profile("other", &[AuthMode::Byok]);
    let reused = create(&operator, other.clone(), id).await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    let taken = create(&operator, new.clone(), "").await.unwrap_err();
    assert_eq!(reason(&taken), "ALREADY_EXISTS");
    assert_eq!(version(&operator).await, 1);
    create(&operator, other, "").await.unwrap();
    assert_eq!(profiles_of(&operator, ORG).await[0], new);

    let changed = proto::Profile {
        modes: vec![AuthMode::Byok as i32],
        ..new.clone()
    };
    let update = |expected_version| proto::UpdateProfileRequest {
        org: ORG.to_owned(),
        profile: Some(changed.clone()),
        expected_version,
        validate_only: false,
    };
    let stale = operator.policies().update_profile(update(Some(1))).await;
    assert_eq!(reason(&stale.unwrap_err()), "CONFLICT");
    let updated = operator.policies().update_profile(update(Some(2))).await.unwrap();
    assert_eq!(updated.into_inner().profile.unwrap(), changed);
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    assert_eq!(profiles_of(&operator, ORG).await[0], changed);

    let remove = |name: &str| proto::RemoveProfileRequest {
        org: ORG.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    operator.policies().remove_profile(remove("fast")).await.unwrap();
    let gone = operator
        .policies()
        .remove_profile(remove("fast"))
        .await
        .unwrap_err();
    assert_eq!(
        (reason(&gone), metadata(&gone, "kind")),
        ("NOT_FOUND".to_owned(), "profile".to_owned())
    );
    let missing = operator
        .policies()
        .update_profile(update(None))
        .await
        .unwrap_err();
    assert_eq!(reason(&missing), "NOT_FOUND");
    assert_eq!(profiles_of(&operator, ORG).await.len(), 1);
}

// req: E1
#[tokio::test]
async fn profiles_are_listed_page_by_page() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let own = proto::OrgRules {
        profiles: (0..7)
            .map(|number| profile(&format!("p-{number}"), &[AuthMode::Byok]))
            .collect(),
        ..Default::default()
    };
    apply(&operator, of_org(ORG, Some(own), &[])).await.unwrap();
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListProfilesRequest {
            org: ORG.to_owned(),
            page_size: 3,
            page_token: token,
        };
        let page = operator
            .policies()
            .list_profiles(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.profiles.len() <= 3 && page.version == 1);
        names.extend(page.profiles.into_iter().map(|profile| profile.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = (0..7).map(|number| format!("p-{number}")).collect();
    assert_eq!(names, expected);
}

// req: E1 E14
#[tokio::test]
async fn a_task_names_a_profile_that_is_there_and_its_removal_tells_of_the_task() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let missing = task(&operator, "fast").await.unwrap_err();
    assert_eq!(
        (reason(&missing), metadata(&missing, "kind")),
        ("NOT_FOUND".to_owned(), "profile".to_owned())
    );
    task(&operator, "").await.unwrap();
    create(&operator, profile("fast", &[AuthMode::Byok]), "")
        .await
        .unwrap();
    let made = task(&operator, "fast").await.unwrap();
    assert_eq!(made.profile, "fast");
    let enrolled = broker.enroll(&operator, &made.id).await;

    let mut remove = proto::RemoveProfileRequest {
        org: ORG.to_owned(),
        name: "fast".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    let preview = operator.policies().remove_profile(remove.clone()).await.unwrap();
    let impact = preview.into_inner().change.unwrap().impact.unwrap();
    assert_eq!(
        (impact.agents_total, &impact.agents[0].agent),
        (1, &enrolled.agent)
    );
    assert_eq!(impact.agents[0].before(), AuthMode::Byok);
    assert_eq!(impact.agents[0].after(), AuthMode::Unspecified);
    assert_eq!(profiles_of(&operator, ORG).await.len(), 1, "only looked at");
    remove.validate_only = false;
    operator.policies().remove_profile(remove).await.unwrap();
    assert!(profiles_of(&operator, ORG).await.is_empty());
}
