//! Outside identities linked in bulk: each link with its own result, safe to repeat, one record a commit.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use credbroker::proto;
use proto::IdentityLinkOutcome::{AlreadyLinked, Linked, Refused};
use support::broker::{MEMBER, ORG, PROJECT};
use support::state::State;
use support::{Caller, TestBroker, reason};
use tonic::Status;

fn link(member: &str, identity: &str) -> proto::IdentityLink {
    proto::IdentityLink {
        member: member.to_owned(),
        identity: identity.to_owned(),
    }
}

async fn linked(
    caller: &Caller,
    links: Vec<proto::IdentityLink>,
    validate_only: bool,
) -> Result<proto::LinkIdentitiesResponse, Status> {
    let request = proto::LinkIdentitiesRequest {
        org: ORG.to_owned(),
        links,
        request_id: "import-of-monday".to_owned(),
        validate_only,
    };
    Ok(caller.directory().link_identities(request).await?.into_inner())
}

fn outcomes(told: &proto::LinkIdentitiesResponse) -> Vec<(proto::IdentityLinkOutcome, &str)> {
    let results = told.results.iter();
    results
        .map(|result| (result.outcome(), &*result.reason))
        .collect()
}

async fn identities(operator: &Caller, member: &str) -> Vec<String> {
    let request = proto::GetMemberRequest {
        org: ORG.to_owned(),
        member: member.to_owned(),
    };
    let found = operator
        .directory()
        .get_member(request)
        .await
        .unwrap()
        .into_inner();
    found.member.unwrap().identities
}

async fn task_of(operator: &Caller, identity: &str) -> Result<String, Status> {
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member_identity: identity.to_owned(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    let made = operator.tasks().create_task(request).await?.into_inner();
    Ok(made.task.unwrap().member)
}

// req: B8
#[tokio::test]
async fn every_link_has_its_own_result_and_a_repeat_changes_nothing() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let kim = operator.make_member(ORG, "kim").await;
    operator.make_member(ORG, "gone").await;
    linked(&operator, vec![link("gone", "github:gone")], false)
        .await
        .unwrap();
    let request = proto::RemoveMemberRequest {
        org: ORG.to_owned(),
        member: "gone".to_owned(),
    };
    operator.directory().remove_member(request).await.unwrap();
    linked(&operator, vec![link(&kim.id, "github:kim")], false)
        .await
        .unwrap();

    let links = vec![
        link(MEMBER, "github:octocat"),
        link(MEMBER, "linear:alex@example.org"),
        link("kim", "github:kim"),
        link(MEMBER, "github:kim"),
        link("kim", "github:octocat"),
        link("nobody", "github:nobody"),
        link("Not A Name", "github:odd"),
        link("gone", "github:back"),
        link("kim", "octocat"),
        link("kim", "oidc:https://id.example#sub"),
        // What a removed member had is free, and the same line twice is one link.
        link("kim", "github:gone"),
        link("kim", "github:gone"),
    ];
    let expected = [
        (Linked, ""),
        (Linked, ""),
        (AlreadyLinked, ""),
        (Refused, "ALREADY_EXISTS"),
        (Refused, "ALREADY_EXISTS"),
        (Refused, "NOT_FOUND"),
        (Refused, "INVALID_ARGUMENT"),
        (Refused, "NOT_FOUND"),
        (Refused, "INVALID_ARGUMENT"),
        (Refused, "ISSUER_UNKNOWN"),
        (Linked, ""),
        (AlreadyLinked, ""),
    ];
    let before = State::of(&operator, ORG).await;
    let tried = linked(&operator, links.clone(), true).await.unwrap();
    assert_eq!(outcomes(&tried), expected);
    assert_eq!(State::of(&operator, ORG).await, before, "nothing was done");

    let told = linked(&operator, links.clone(), false).await.unwrap();
    assert_eq!(told, tried, "what was promised");
    assert_eq!((told.linked, told.already_linked, told.refused), (3, 2, 7));
    for (result, asked) in told.results.iter().zip(&links) {
        assert_eq!(
            (&result.member, &result.identity),
            (&asked.member, &asked.identity)
        );
        assert_eq!(result.message.is_empty(), result.outcome() != Refused);
    }
    // An admin of the whole org sees who has it.
    assert_eq!(told.results[3].holder, kim.id);
    assert_eq!(told.results[4].holder, told.results[0].holder);
    assert_eq!(
        identities(&operator, MEMBER).await,
        ["github:octocat", "linear:alex@example.org"]
    );
    assert_eq!(identities(&operator, "kim").await, ["github:gone", "github:kim"]);
    assert_eq!(task_of(&operator, "github:gone").await.unwrap(), kim.id);
    assert_eq!(
        task_of(&operator, "linear:alex@example.org").await.unwrap(),
        told.results[1].holder
    );

    let after = State::of(&operator, ORG).await;
    let again = linked(&operator, links, false).await.unwrap();
    assert_eq!((again.linked, again.already_linked, again.refused), (0, 5, 7));
    assert_eq!(State::of(&operator, ORG).await, after, "a repeat");
}

// req: B8 C6(core)
#[tokio::test]
async fn many_links_are_made_in_commits_that_are_recorded_one_by_one() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    for number in 0..30 {
        operator.make_member(ORG, &format!("member-{number}")).await;
    }
    // All members round and round; one of them gets past what a member can have.
    let mut links: Vec<_> = (0..300)
        .map(|number| {
            link(
                &format!("member-{}", number % 30),
                &format!("github:user-{number}"),
            )
        })
        .collect();
    links.extend((0..40).map(|number| link(MEMBER, &format!("linear:{number}"))));
    let told = linked(&operator, links.clone(), false).await.unwrap();
    assert_eq!((told.linked, told.refused), (332, 8));
    assert!(
        told.results[..332]
            .iter()
            .all(|result| result.outcome() == Linked)
    );
    assert_eq!(identities(&operator, "member-29").await.len(), 10);
    assert_eq!(identities(&operator, MEMBER).await.len(), 32);

    let records = operator.records().await;
    let of_links = records
        .iter()
        .filter(|record| record.action == "member.link_identities");
    let done: Vec<_> = of_links.filter(|record| record.phase == "finish").collect();
    assert!(done.iter().all(|record| record.outcome == "allowed"));
    assert!(done.iter().all(|record| record.request_id == "import-of-monday"));
    let links_in = |record: &&proto::JournalRecord| record.subject["links"].parse::<usize>().unwrap();
    assert_eq!(done.iter().map(links_in).sum::<usize>(), 332);
    assert!(
        done.iter()
            .all(|record| record.subject["members"].starts_with("mbr_"))
    );
    // A restart keeps them.
    let broker = broker.restart().await;
    let operator = broker.operator().await;
    let again = linked(&operator, links, false).await.unwrap();
    assert_eq!((again.linked, again.already_linked, again.refused), (0, 332, 8));
    assert!(task_of(&operator, "github:user-299").await.is_ok());
}

// req: B8
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_link_one_identity_at_the_same_moment_one_does() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let names: Vec<_> = (0..8).map(|number| format!("member-{number}")).collect();
    for name in &names {
        operator.make_member(ORG, name).await;
    }
    let calls = names.iter().map(|name| {
        // An identity for which all contend, and one of each member's own beside it.
        let links = vec![link(name, "github:wanted"), link(name, &format!("github:{name}"))];
        linked(&operator, links, false)
    });
    let told = futures_util::future::join_all(calls).await;
    let (mut won, mut own) = (0, 0);
    for told in told.into_iter().map(Result::unwrap) {
        match told.results[0].outcome() {
            Linked => won += 1,
            outcome => assert_eq!((outcome, &*told.results[0].reason), (Refused, "ALREADY_EXISTS")),
        }
        own += usize::from(told.results[1].outcome() == Linked);
    }
    assert_eq!((won, own), (1, names.len()));
}

// req: B8 D2
#[tokio::test]
async fn links_are_bounded_and_for_those_who_run_the_whole_org() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let many = (0..1001)
        .map(|number| link(MEMBER, &format!("g:{number}")))
        .collect();
    for links in [Vec::new(), many] {
        for validate_only in [false, true] {
            let refused = linked(&operator, links.clone(), validate_only).await.unwrap_err();
            assert_eq!(reason(&refused), "INVALID_ARGUMENT");
        }
    }
    // Linking lets people sign in: neither a key nor a member may.
    let (_, key) = operator.make_broad_api_key(ORG).await;
    let request = proto::CreateOperatorTokenRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        ..Default::default()
    };
    let made = operator.access().create_operator_token(request).await.unwrap();
    let member = made.into_inner().token.unwrap().value.clone();
    for token in [key, member] {
        let caller = broker.caller(Some(&token)).await;
        linked(&caller, vec![link(MEMBER, "github:me")], true)
            .await
            .unwrap_err();
    }
    assert_eq!(identities(&operator, MEMBER).await, Vec::<String>::new());
}
