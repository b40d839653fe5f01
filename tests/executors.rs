//! What executors can be used by: an admin sees every fault, a member what concerns them.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use credbroker::proto;
use support::broker::{MEMBER, ORG, connector};
use support::provider::Provider;
use support::{Caller, Options, TestBroker, reason};

/// What one way says: readiness, reason, who can mend it.
type Told = (proto::Readiness, String, String);

async fn executors(caller: &Caller, org: &str, member: &str) -> Vec<proto::Executor> {
    let request = proto::ListExecutorsRequest {
        org: org.to_owned(),
        member: member.to_owned(),
        ..Default::default()
    };
    let answer = caller.executors().list_executors(request).await.unwrap();
    answer.into_inner().executors
}

fn way(executors: &[proto::Executor], executor: &str, mode: proto::AuthMode) -> Told {
    let executor = executors.iter().find(|each| each.name == executor).unwrap();
    let way = executor.ways.iter().find(|way| way.mode() == mode).unwrap();
    assert_eq!(way.remedy.is_empty(), way.reason.is_empty());
    (way.readiness(), way.reason.clone(), way.fault.clone())
}

fn told(readiness: proto::Readiness, reason: &str, fault: &str) -> Told {
    (readiness, reason.to_owned(), fault.to_owned())
}

fn ready() -> Told {
    told(proto::Readiness::Ready, "", "")
}

// req: A9
#[tokio::test]
async fn an_admin_sees_every_fault_of_the_org_and_of_a_member() {
    use proto::AuthMode::{Byok, Oauth};
    let provider = Provider::start(std::time::Duration::from_secs(600)).await;
    let broker = TestBroker::start_with(Options {
        connectors: connector(&provider.token_url(), "tests", ""),
        ..Options::default()
    })
    .await;
    let operator = broker.prepare().await;
    let missing = told(proto::Readiness::Fault, "NO_CREDENTIAL_CONFIGURED", "admin");
    let connect = told(proto::Readiness::Connect, "CONNECT_ACCOUNT", "member");

    let listed = executors(&operator, ORG, "").await;
    assert_eq!(way(&listed, "demo-agent", Byok), missing);
    assert_eq!(way(&listed, "demo-agent", Oauth), connect);
    // A connector with terms that nobody accepted is an admin's to mend.
    let off = told(proto::Readiness::Fault, "CONNECTOR_DISABLED", "admin");
    assert_eq!(way(&listed, "claude-code", Oauth), off);
    let demo = listed.iter().find(|each| each.name == "demo-agent").unwrap();
    assert_eq!(demo.readiness(), proto::Readiness::Connect);
    let duo = listed.iter().find(|each| each.name == "duo-agent").unwrap();
    let providers: Vec<_> = duo.ways.iter().map(|way| way.provider.as_str()).collect();
    assert_eq!(
        (duo.readiness(), providers),
        (proto::Readiness::Fault, vec!["demo", "second"])
    );

    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    operator.import_grant(ORG, MEMBER, &provider.mint()).await;
    let listed = executors(&operator, ORG, "").await;
    assert_eq!(way(&listed, "demo-agent", Byok), ready());
    // A member's grant is not the org's.
    assert_eq!(way(&listed, "demo-agent", Oauth), connect);
    let of_member = executors(&operator, ORG, MEMBER).await;
    assert_eq!(way(&of_member, "demo-agent", Oauth), ready());
    let shown = of_member.iter().find(|each| each.name == "demo-agent").unwrap();
    let owner = shown.ways[0].owner.clone().unwrap().owner.unwrap();
    assert!(matches!(owner, proto::owner::Owner::Member(member) if member.starts_with("mbr_")));
    // What shows as ready is what a resolution then takes.
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let lease = agent.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(lease.credential, shown.ways[0].credential);
}

// req: A9 D2
#[tokio::test]
async fn pages_go_on_where_they_stopped_and_other_orgs_are_hidden() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let all = executors(&operator, ORG, "").await;
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListExecutorsRequest {
            org: ORG.to_owned(),
            page_size: 2,
            page_token: token,
            ..Default::default()
        };
        let page = operator.executors().list_executors(request).await.unwrap();
        let page = page.into_inner();
        assert!(page.executors.len() <= 2);
        names.extend(page.executors.into_iter().map(|executor| executor.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = all.iter().map(|executor| executor.name.clone()).collect();
    assert!(names.len() > 4);
    assert_eq!(names, expected);

    operator.make_org("other").await;
    let (_, key) = operator.make_api_key("other").await;
    let stranger = broker.caller(Some(&key)).await;
    let request = |org: &str| proto::ListExecutorsRequest {
        org: org.to_owned(),
        ..Default::default()
    };
    let hidden = stranger.executors().list_executors(request(ORG)).await;
    let absent = stranger.executors().list_executors(request("nowhere")).await;
    assert_eq!(reason(&hidden.unwrap_err()), "NOT_FOUND");
    assert_eq!(reason(&absent.unwrap_err()), "NOT_FOUND");
}

// req: A9 D2
#[tokio::test]
async fn a_member_sees_their_own_ways_and_no_fault_that_only_an_admin_can_mend() {
    let provider = Provider::start(std::time::Duration::from_secs(600)).await;
    let broker = TestBroker::start_with(Options {
        connectors: connector(&provider.token_url(), "tests", ""),
        ..Options::default()
    })
    .await;
    let operator = broker.prepare().await;
    operator.make_member(ORG, "kim").await;
    operator.import_grant(ORG, MEMBER, &provider.mint()).await;
    let mut views = Vec::new();
    for member in [MEMBER, "kim"] {
        let request = proto::CreateOperatorTokenRequest {
            org: ORG.to_owned(),
            member: member.to_owned(),
            ..Default::default()
        };
        let made = operator.access().create_operator_token(request).await.unwrap();
        let caller = broker.caller(Some(&made.into_inner().token.unwrap().value)).await;
        let listed = executors(&caller, "", "").await;
        let ways = listed.iter().flat_map(|executor| &executor.ways);
        assert!(ways.clone().all(|way| way.fault != "admin"));
        assert!(ways.clone().next().is_some());
        views.push(way(&listed, "demo-agent", proto::AuthMode::Oauth));
        // Nobody else's state is theirs to see.
        let other = proto::ListExecutorsRequest {
            member: if member == MEMBER { "kim" } else { MEMBER }.to_owned(),
            ..Default::default()
        };
        let hidden = caller.executors().list_executors(other).await.unwrap_err();
        assert_eq!(reason(&hidden), "NOT_FOUND");
    }
    let connect = told(proto::Readiness::Connect, "CONNECT_ACCOUNT", "member");
    assert_eq!(views, [ready(), connect]);
}

/// An executor that is pinned has no fault in the modes that the pin leaves out; a provider that the pin takes
/// away says so, and only what is denied is called denied.
// req: A3 A9
#[tokio::test]
async fn what_a_pin_leaves_out_is_told_apart_from_what_is_denied() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    for executor in ["demo-agent", "duo-agent"] {
        let pin = proto::PinExecutorRequest {
            org: ORG.to_owned(),
            executor: executor.to_owned(),
            mode: proto::AuthMode::Byok as i32,
            ..Default::default()
        };
        operator.policies().pin_executor(pin).await.unwrap();
    }
    let ways = async |executor: &str| {
        let listed = executors(&operator, ORG, "").await;
        let executor = listed.into_iter().find(|each| each.name == executor).unwrap();
        let ways = executor.ways.into_iter();
        ways.map(|way| (way.provider.clone(), way.mode(), way.reason))
            .collect::<Vec<_>>()
    };
    let byok = |provider: &str, reason: &str| (provider.to_owned(), proto::AuthMode::Byok, reason.to_owned());
    assert_eq!(
        ways("demo-agent").await,
        [byok("demo", "NO_CREDENTIAL_CONFIGURED")]
    );
    let native = byok("demo", "NO_CREDENTIAL_CONFIGURED");
    assert_eq!(
        ways("duo-agent").await,
        [native, byok("second", "MODEL_NOT_AVAILABLE")]
    );

    let deny = proto::SetCellsRequest {
        scope: Some(proto::PolicyScope {
            org: ORG.to_owned(),
            ..Default::default()
        }),
        set: vec![proto::PolicyCell {
            mode: proto::AuthMode::Byok as i32,
            model: "*".to_owned(),
            verdict: proto::Verdict::Deny as i32,
            ..Default::default()
        }],
        ..Default::default()
    };
    operator.policies().set_cells(deny).await.unwrap();
    assert_eq!(ways("demo-agent").await, [byok("demo", "ACCESS_DENIED")]);
}
