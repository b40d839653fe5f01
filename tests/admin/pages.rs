//! Lists in pages: everything once, in order; and a page token that leads nowhere else.

use credbroker::proto;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::{Caller, TestBroker, reason};

const OTHER: &str = "other";
/// How many of everything there are.
const MANY: usize = 5;

fn s(text: &str) -> String {
    text.to_owned()
}

/// One page of a list: the ids in it, and the token of the next.
macro_rules! lists {
    ($($list:literal: $service:ident . $call:ident $Request:ident $rows:ident;)*) => {
        const LISTS: &[&str] = &[$($list),*];

        async fn page(
            caller: &Caller,
            list: &str,
            org: &str,
            size: i32,
            token: &str,
        ) -> Result<(Vec<String>, String), String> {
            match list {
                $($list => {
                    // Some of these lists can be narrowed further, some cannot.
                    #[allow(clippy::needless_update)]
                    let request = proto::$Request {
                        org: s(org),
                        page_size: size,
                        page_token: s(token),
                        ..Default::default()
                    };
                    match caller.$service().$call(request).await {
                        Ok(answer) => {
                            let page = answer.into_inner();
                            let ids = page.$rows.into_iter().map(|row| row.id).collect();
                            Ok((ids, page.next_page_token))
                        }
                        Err(status) => Err(reason(&status)),
                    }
                })*
                other => panic!("{other}"),
            }
        }
    };
}

lists! {
    "projects": directory.list_projects ListProjectsRequest projects;
    "environments": directory.list_environments ListEnvironmentsRequest environments;
    "members": directory.list_members ListMembersRequest members;
    "tasks": tasks.list_tasks ListTasksRequest tasks;
    "agents": agents.list_agents ListAgentsRequest agents;
    "enrollment tokens": agents.list_enrollment_tokens ListEnrollmentTokensRequest enrollment_tokens;
    "credentials": credentials.list_credentials ListCredentialsRequest credentials;
    "API keys": access.list_api_keys ListApiKeysRequest api_keys;
}

/// [`MANY`] of everything in the org.
async fn fill(broker: &TestBroker, operator: &Caller, org: &str) {
    operator.make_org(org).await;
    let mut directory = operator.directory();
    for n in 0..MANY {
        if n > 0 {
            let project = proto::CreateProjectRequest {
                org: s(org),
                name: format!("project-{n}"),
                ..Default::default()
            };
            directory.create_project(project).await.unwrap();
            let environment = proto::CreateEnvironmentRequest {
                org: s(org),
                project: s(PROJECT),
                name: format!("{ENVIRONMENT}-{n}"),
                ..Default::default()
            };
            directory.create_environment(environment).await.unwrap();
            operator.make_member(org, &format!("{MEMBER}-{n}")).await;
        }
        let member = if n == 0 {
            s(MEMBER)
        } else {
            format!("{MEMBER}-{n}")
        };
        operator.set_key(org, &member, "a-key-of-this-member").await;
        operator.make_task(org, MEMBER).await;
        operator.make_api_key(org).await;
        let token = operator.enrollment_token(org, "").await;
        let key = crate::support::NewKey::generate();
        broker.enroll_with(&token, &key).await.unwrap();
    }
}

async fn walk(caller: &Caller, list: &str, org: &str, size: i32) -> Vec<Vec<String>> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let (ids, next) = page(caller, list, org, size, &token).await.unwrap();
        pages.push(ids);
        if next.is_empty() {
            return pages;
        }
        assert_ne!(next, token, "{list}: the same page again");
        token = next;
    }
}

// req: K7 K6
#[tokio::test]
async fn every_list_is_paged_and_its_tokens_lead_nowhere_else() {
    let broker = TestBroker::start().await;
    let operator = broker.operator().await;
    fill(&broker, &operator, ORG).await;
    fill(&broker, &operator, OTHER).await;
    let mut tokens = Vec::new();
    for list in LISTS {
        let whole = walk(&operator, list, ORG, 0).await;
        assert_eq!(whole.len(), 1, "{list}");
        assert_eq!(whole[0].len(), MANY, "{list}");
        for size in [1, 2, 4, 5, 6, 1_000] {
            let pages = walk(&operator, list, ORG, size).await;
            let sizes: Vec<_> = pages.iter().map(Vec::len).collect();
            let full = usize::try_from(size).unwrap();
            assert!(
                sizes[..sizes.len() - 1].iter().all(|len| *len == full),
                "{list}: {sizes:?}"
            );
            assert!(
                sizes.iter().all(|len| (1..=full).contains(len)),
                "{list}: {sizes:?}"
            );
            assert_eq!(pages.concat(), whole[0], "{list} by {size}");
        }
        for org in [ORG, OTHER] {
            let (ids, token) = page(&operator, list, org, 2, "").await.unwrap();
            // A token shows no name and no id of what it stands at.
            assert!(!ids.iter().any(|id| token.contains(&id[4..])), "{list}: {token}");
            tokens.push((*list, org, token));
        }
    }
    let (_, key) = operator.make_api_key(OTHER).await;
    let automation = broker.caller(Some(&key)).await;
    for list in LISTS {
        for org in [ORG, OTHER] {
            for (from, of, token) in &tokens {
                if (*from, *of) != (*list, org) {
                    let answer = page(&operator, list, org, 2, token).await;
                    assert_eq!(
                        answer,
                        Err(s("INVALID_ARGUMENT")),
                        "{list} of {org}, by {from} of {of}"
                    );
                }
            }
        }
    }
    // A token is no permission.
    for (list, of, token) in &tokens {
        if *of == ORG && *list != "API keys" {
            let answer = page(&automation, list, ORG, 2, token).await;
            assert_eq!(answer, Err(s("NOT_FOUND")), "{list}");
        }
    }
}

// req: K6
#[tokio::test]
async fn orgs_are_paged_too_and_an_api_key_sees_its_own() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org(OTHER).await;
    let list = |page_token: String| proto::ListOrgsRequest {
        page_size: 1,
        page_token,
    };
    let first = operator
        .directory()
        .list_orgs(list(String::new()))
        .await
        .unwrap()
        .into_inner();
    let second = operator
        .directory()
        .list_orgs(list(first.next_page_token.clone()))
        .await;
    let second = second.unwrap().into_inner();
    assert_eq!((&*first.orgs[0].name, &*second.orgs[0].name), (ORG, OTHER));
    assert_eq!(second.next_page_token, "");
    let (_, key) = operator.make_api_key(OTHER).await;
    let own = broker
        .caller(Some(&key))
        .await
        .directory()
        .list_orgs(list(String::new()))
        .await;
    assert_eq!(own.unwrap().into_inner().orgs, second.orgs);
}
