//! Removing a member ends what was theirs.

use credbroker::proto::{self, CredentialKind};

use crate::remove_member;
use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::{TestBroker, reason};

// req: D6 D2
#[tokio::test]
async fn all_that_was_a_members_ends_and_the_answer_says_what_lives_on_elsewhere() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (member, other) = (
        operator.make_member(ORG, "robin").await,
        operator.make_member(ORG, "kim").await,
    );
    let key = operator.set_key(ORG, "robin", "a-key-of-robins-own-0").await;
    operator.set_key(ORG, "kim", "a-key-that-kim-brought").await;
    let (task, kims) = (
        operator.make_task(ORG, "robin").await,
        operator.make_task(ORG, "kim").await,
    );
    let (agent, bystander) = (
        broker.agent(&broker.enroll(&operator, &task).await).await,
        broker.agent(&broker.enroll(&operator, &kims).await).await,
    );
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    bystander.resolve("").await.unwrap();
    let request = proto::CreateOperatorTokenRequest {
        org: ORG.to_owned(),
        member: "robin".to_owned(),
        ..Default::default()
    };
    let token = operator
        .access()
        .create_operator_token(request)
        .await
        .unwrap()
        .into_inner();
    let robin = broker.caller(Some(&token.token.as_ref().unwrap().value)).await;
    robin.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();

    let removed = remove_member(&operator, "robin").await;
    assert_eq!(
        (
            removed.operator_tokens_revoked,
            removed.tasks_ended,
            removed.leases_ended
        ),
        (1, 1, 1)
    );
    assert!(removed.member.as_ref().unwrap().remove_time.is_some());
    let gone: Vec<_> = removed
        .credentials
        .iter()
        .map(|gone| (gone.credential.as_str(), gone.kind()))
        .collect();
    assert_eq!(gone, [(key.id.as_str(), CredentialKind::ApiKey)]);
    assert_eq!(removed.outstanding[0].lease, lease.id);

    let status = robin
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "CREDENTIAL_UNKNOWN");
    let status = agent.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&status), "TASK_ENDED");
    bystander.resolve("").await.unwrap();
    for member in ["robin", &member.id] {
        let request = proto::GetMemberRequest {
            org: ORG.to_owned(),
            member: member.to_owned(),
        };
        let status = operator.directory().get_member(request).await.unwrap_err();
        assert_eq!(reason(&status), "NOT_FOUND");
    }
    let request = proto::ListMembersRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator
        .directory()
        .list_members(request)
        .await
        .unwrap()
        .into_inner()
        .members;
    let names: Vec<_> = listed.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, [MEMBER, "kim"]);
    assert!(listed.iter().any(|listed| listed.id == other.id));
    let request = proto::GetCredentialRequest {
        org: ORG.to_owned(),
        credential: key.id,
    };
    let status = operator.credentials().get_credential(request).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_FOUND");
    // Nothing new is made for them, and again changes nothing.
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: member.id.clone(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(&operator.tasks().create_task(request).await.unwrap_err()),
        "NOT_FOUND"
    );
    let again = remove_member(&operator, &member.id).await;
    assert_eq!(
        (
            again.operator_tokens_revoked,
            again.tasks_ended,
            again.leases_ended,
            again.credentials.len()
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(again.member, removed.member);
}

// req: D6 B8
#[tokio::test]
async fn a_removed_members_outside_identities_are_free_and_the_name_is_not() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let create = |name: &str| proto::CreateMemberRequest {
        org: ORG.to_owned(),
        name: name.to_owned(),
        identities: vec!["github:octocat".to_owned()],
        ..Default::default()
    };
    let mut directory = operator.directory();
    directory.create_member(create("robin")).await.unwrap();
    let taken = directory.create_member(create("kim")).await.unwrap_err();
    assert_eq!(reason(&taken), "ALREADY_EXISTS");
    remove_member(&operator, "robin").await;
    directory.create_member(create("kim")).await.unwrap();
    let taken = directory.create_member(create("robin")).await.unwrap_err();
    assert_eq!(reason(&taken), "ALREADY_EXISTS");
}
