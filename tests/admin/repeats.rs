//! A create that is repeated under its request id makes nothing twice.

use credbroker::proto;
use tokio::task::JoinSet;

use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::state::State;
use crate::support::{TestBroker, reason};

const REQUEST: &str = "0198f000-0000-7000-8000-000000000001";

/// One kind of create: repeated one after the other, with other content, by somebody else, and all at once.
macro_rules! repeats {
    ($test:ident, $service:ident . $create:ident, $noun:ident, $rows:ident,
        $Request:ident { $($same:tt)* }, $other:expr) => {
        // req: K6
        #[tokio::test]
        async fn $test() {
            let broker = TestBroker::start().await;
            let operator = broker.prepare().await;
            let new = proto::$Request { request_id: REQUEST.to_owned(), org: ORG.to_owned(), $($same)* };
            let first = operator.$service().$create(new.clone()).await.unwrap().into_inner().$noun.unwrap();
            let after_first = State::of(&operator, ORG).await;
            // Whoever compares UUIDs does not care for case.
            for request_id in [REQUEST.to_owned(), REQUEST.to_uppercase()] {
                let again = proto::$Request { request_id, ..new.clone() };
                let again = operator.$service().$create(again).await.unwrap().into_inner().$noun.unwrap();
                assert_eq!(again, first);
            }
            let mut other = new.clone();
            let change: fn(&mut proto::$Request) = $other;
            change(&mut other);
            let status = operator.$service().$create(other).await.unwrap_err();
            assert_eq!(reason(&status), "REQUEST_ID_REUSED");
            assert_eq!(State::of(&operator, ORG).await, after_first);

            let broker = broker.restart().await;
            let operator = broker.operator().await;
            let again = operator.$service().$create(new.clone()).await.unwrap().into_inner().$noun.unwrap();
            assert_eq!(again, first);

            let before = State::of(&operator, ORG).await.$rows.len();
            let request_id = REQUEST.replace('1', "2");
            let mut racing = proto::$Request { request_id, ..new };
            // A name of its own, where there are names.
            change(&mut racing);
            let mut all = JoinSet::new();
            for _ in 0..8 {
                let (operator, racing) = (operator.clone(), racing.clone());
                all.spawn(async move {
                    let made = operator.$service().$create(racing).await;
                    made.map(|made| made.into_inner().$noun.unwrap().id)
                });
            }
            let ids: Vec<String> = all.join_all().await.into_iter().map(Result::unwrap).collect();
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            assert_ne!(ids[0], first.id);
            assert_eq!(State::of(&operator, ORG).await.$rows.len(), before + 1);
        }
    };
}

fn s(text: &str) -> String {
    text.to_owned()
}

repeats!(
    a_project_is_made_once,
    directory.create_project,
    project,
    projects,
    CreateProjectRequest {
        name: s("new"),
        display_name: s("New")
    },
    |request| request.name = s("newer")
);
repeats!(
    an_environment_is_made_once,
    directory.create_environment,
    environment,
    environments,
    CreateEnvironmentRequest {
        project: s(PROJECT),
        name: s("new"),
        display_name: s(""),
        approval: 0
    },
    |request| request.name = s("newer")
);
repeats!(
    a_member_is_made_once,
    directory.create_member,
    member,
    members,
    CreateMemberRequest {
        name: s("kim"),
        identities: vec![s("github:kim")],
        display_name: s("")
    },
    |request| {
        request.name = s("sam");
        request.identities = vec![s("github:sam")];
    }
);
repeats!(
    a_task_is_made_once,
    tasks.create_task,
    task,
    tasks,
    CreateTaskRequest {
        member: s(MEMBER),
        project: s(PROJECT),
        executor: s("demo-agent"),
        ..Default::default()
    },
    |request| request.spec_hash = s("another")
);

// req: K6
#[tokio::test]
async fn a_request_id_is_its_callers_and_its_orgs() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.make_org("other").await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;
    let new = |org: &str| proto::CreateTaskRequest {
        org: org.to_owned(),
        member: s(MEMBER),
        project: s(PROJECT),
        executor: s("demo-agent"),
        request_id: s(REQUEST),
        ..Default::default()
    };
    let mut ids = Vec::new();
    for (caller, org) in [(&operator, ORG), (&automation, ORG), (&operator, "other")] {
        let made = caller.tasks().create_task(new(org)).await.unwrap().into_inner();
        ids.push(made.task.unwrap().id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    // An org too, though there is no org yet to remember it in.
    let org = |display_name: &str| proto::CreateOrgRequest {
        name: s("third"),
        display_name: s(display_name),
        request_id: s(REQUEST),
    };
    let mut directory = operator.directory();
    let first = directory.create_org(org("Third")).await.unwrap().into_inner();
    assert_eq!(
        directory.create_org(org("Third")).await.unwrap().into_inner(),
        first
    );
    assert_eq!(
        reason(&directory.create_org(org("Fourth")).await.unwrap_err()),
        "REQUEST_ID_REUSED"
    );
}
