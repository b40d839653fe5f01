//! Orgs, projects, environments and members: made, read, listed and changed, without lost updates.

use credbroker::proto;
use prost_types::FieldMask;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::{TestBroker, reason};

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    })
}

/// One kind of resource: reads by id and by name, a list, changes under an etag, and a lost update.
macro_rules! lifecycle {
    ($test:ident, $noun:ident, $plural:ident, $name:expr, $Message:ident,
        $get:ident $Get:ident { $($by:tt)* }, $list:ident $List:ident { $($in:tt)* }, $update:ident $Update:ident) => {
        // req: K6
        #[tokio::test]
        async fn $test() {
            let broker = TestBroker::start().await;
            let operator = broker.prepare().await;
            let mut directory = operator.directory();
            let get = |reference: &str| proto::$Get { $noun: reference.to_owned(), $($by)* };
            let by_name = directory.$get(get($name)).await.unwrap().into_inner().$noun.unwrap();
            let by_id = directory.$get(get(&by_name.id)).await.unwrap().into_inner().$noun.unwrap();
            assert_eq!(by_id, by_name);
            assert_eq!(by_id.name, $name);
            assert!(by_id.create_time.is_some() && !by_id.etag.is_empty());
            let listed = directory.$list(proto::$List { $($in)* ..Default::default() }).await.unwrap();
            assert_eq!(listed.into_inner().$plural, std::slice::from_ref(&by_id));

            let change = |etag: &str, display_name: &str| proto::$Update {
                $noun: Some(proto::$Message {
                    display_name: display_name.to_owned(),
                    etag: etag.to_owned(),
                    ..by_id.clone()
                }),
                update_mask: mask(&["display_name"]),
            };
            let changed = directory.$update(change(&by_id.etag, "First")).await.unwrap().into_inner();
            let changed = changed.$noun.unwrap();
            let expected = proto::$Message {
                display_name: "First".to_owned(),
                etag: changed.etag.clone(),
                ..by_id.clone()
            };
            assert_eq!(changed, expected);
            assert_ne!(changed.etag, by_id.etag);
            // Whoever read before that would undo it.
            let lost = directory.$update(change(&by_id.etag, "Second")).await.unwrap_err();
            assert_eq!(reason(&lost), "CONFLICT");
            assert_eq!(lost.code(), tonic::Code::Aborted);
            let now = directory.$get(get($name)).await.unwrap().into_inner().$noun.unwrap();
            assert_eq!(now, changed);
            // Without an etag the last one wins, as the caller wants.
            let forced = directory.$update(change("", "Third")).await.unwrap().into_inner().$noun.unwrap();
            assert_eq!(forced.display_name, "Third");

            // Only what the mask names is changed, and only what may be.
            for path in ["name", "id", "create_time", "display_name.x", "*"] {
                let request = proto::$Update {
                    update_mask: mask(&["display_name", path]),
                    ..change("", "Fourth")
                };
                let status = directory.$update(request).await.unwrap_err();
                assert_eq!(reason(&status), "INVALID_ARGUMENT", "{path}");
            }
            let renamed = proto::$Update {
                $noun: Some(proto::$Message {
                    name: "renamed".to_owned(),
                    ..change("", "Fifth").$noun.unwrap()
                }),
                ..change("", "")
            };
            let renamed = directory.$update(renamed).await.unwrap().into_inner().$noun.unwrap();
            assert_eq!((&*renamed.name, &*renamed.display_name), ($name, "Fifth"));
            let now = directory.$get(get(&by_id.id)).await.unwrap().into_inner().$noun.unwrap();
            assert_eq!(now, renamed);
        }
    };
}

lifecycle!(
    an_org, org, orgs, ORG, Org,
    get_org GetOrgRequest { }, list_orgs ListOrgsRequest { }, update_org UpdateOrgRequest
);
lifecycle!(
    a_project, project, projects, PROJECT, Project,
    get_project GetProjectRequest { org: ORG.to_owned() },
    list_projects ListProjectsRequest { org: ORG.to_owned(), },
    update_project UpdateProjectRequest
);
lifecycle!(
    an_environment, environment, environments, ENVIRONMENT, Environment,
    get_environment GetEnvironmentRequest { org: ORG.to_owned(), project: PROJECT.to_owned() },
    list_environments ListEnvironmentsRequest { org: ORG.to_owned(), project: PROJECT.to_owned(), },
    update_environment UpdateEnvironmentRequest
);
lifecycle!(
    a_member, member, members, MEMBER, Member,
    get_member GetMemberRequest { org: ORG.to_owned() },
    list_members ListMembersRequest { org: ORG.to_owned(), },
    update_member UpdateMemberRequest
);

// req: K6
#[tokio::test]
async fn a_name_is_taken_once_in_its_scope() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let mut directory = operator.directory();
    let org = proto::CreateOrgRequest {
        name: ORG.to_owned(),
        ..Default::default()
    };
    let status = directory.create_org(org).await.unwrap_err();
    assert_eq!(
        (&*reason(&status), status.code()),
        ("ALREADY_EXISTS", tonic::Code::AlreadyExists)
    );
    let project = |name: &str| proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(&directory.create_project(project(PROJECT)).await.unwrap_err()),
        "ALREADY_EXISTS"
    );
    directory.create_project(project("second")).await.unwrap();
    let environment = |project: &str| proto::CreateEnvironmentRequest {
        org: ORG.to_owned(),
        project: project.to_owned(),
        name: ENVIRONMENT.to_owned(),
        ..Default::default()
    };
    let taken = directory
        .create_environment(environment(PROJECT))
        .await
        .unwrap_err();
    assert_eq!(reason(&taken), "ALREADY_EXISTS");
    // Another project has names of its own.
    let made = directory
        .create_environment(environment("second"))
        .await
        .unwrap()
        .into_inner();
    let list = |project: &str| proto::ListEnvironmentsRequest {
        org: ORG.to_owned(),
        project: project.to_owned(),
        ..Default::default()
    };
    let of_second = directory
        .list_environments(list("second"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(of_second.environments, [made.environment.unwrap()]);
    assert_eq!(
        directory
            .list_environments(list(""))
            .await
            .unwrap()
            .into_inner()
            .environments
            .len(),
        2
    );
}

// req: B8(core) K6
#[tokio::test]
async fn an_outside_identity_belongs_to_one_member_at_most() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let mut directory = operator.directory();
    let create = |name: &str, identity: &str| proto::CreateMemberRequest {
        org: ORG.to_owned(),
        name: name.to_owned(),
        identities: vec![identity.to_owned()],
        ..Default::default()
    };
    let kim = directory
        .create_member(create("kim", "github:kim"))
        .await
        .unwrap();
    let kim = kim.into_inner().member.unwrap();
    assert_eq!(kim.identities, ["github:kim"]);
    let taken = directory
        .create_member(create("kim-two", "github:kim"))
        .await
        .unwrap_err();
    assert_eq!(reason(&taken), "ALREADY_EXISTS");
    let sam = directory
        .create_member(create("sam", "github:sam"))
        .await
        .unwrap();
    let sam = sam.into_inner().member.unwrap();

    let change = |member: &proto::Member, identities: &[&str]| proto::UpdateMemberRequest {
        member: Some(proto::Member {
            identities: identities.iter().map(|identity| (*identity).to_owned()).collect(),
            etag: String::new(),
            ..member.clone()
        }),
        update_mask: mask(&["identities"]),
    };
    let taken = directory
        .update_member(change(&sam, &["github:sam", "github:kim"]))
        .await;
    assert!(taken.is_err(), "an identity of two members");
    // Given up by the one, it is free for the other; the rest of the member stays.
    let without = directory
        .update_member(change(&kim, &["linear:kim"]))
        .await
        .unwrap();
    assert_eq!(without.into_inner().member.unwrap().name, "kim");
    directory
        .update_member(change(&sam, &["github:kim"]))
        .await
        .unwrap();
    let task = |identity: &str| proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member_identity: identity.to_owned(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    let mut tasks = operator.tasks();
    let made = tasks
        .create_task(task("github:kim"))
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap();
    assert_eq!(made.member, sam.id);
    let made = tasks
        .create_task(task("linear:kim"))
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap();
    assert_eq!(made.member, kim.id);
    let gone = tasks.create_task(task("github:sam")).await.unwrap_err();
    assert_eq!(reason(&gone), "NOT_FOUND");
}
