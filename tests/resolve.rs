//! Resolution over the port: whose credential, for which task, the same lease again, who loses when something
//! ends meanwhile, and what is left in the journal.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "resolve/control.rs"]
mod control;
#[path = "resolve/endings.rs"]
mod endings;
#[path = "resolve/failing.rs"]
mod failing;
#[path = "resolve/held.rs"]
mod held;

use std::time::Duration;

use credbroker::proto;
use support::broker::{MEMBER, ORG, PROJECT};
use support::client::{owner, secret};
use support::{Caller, Options, TestBroker, broker, details, reason};
use tokio::task::JoinSet;

/// What a request says beside its task.
async fn claim(
    caller: &Caller,
    task: &str,
    change: impl FnOnce(&mut proto::ResolveCredentialRequest),
) -> Result<proto::ResolveCredentialResponse, tonic::Status> {
    let mut request = proto::ResolveCredentialRequest {
        task: task.to_owned(),
        ..Default::default()
    };
    change(&mut request);
    Ok(caller.broker().resolve_credential(request).await?.into_inner())
}

/// A task with a change to what [`Caller::make_task`] asks for.
async fn task_with(operator: &Caller, change: impl FnOnce(&mut proto::CreateTaskRequest)) -> String {
    let mut request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: "demo-agent".to_owned(),
        ..Default::default()
    };
    change(&mut request);
    let made = operator.tasks().create_task(request).await.unwrap().into_inner();
    made.task.unwrap().id
}

async fn set_key_of(operator: &Caller, provider: &str, key: &str) {
    let request = proto::SetCredentialRequest {
        org: ORG.to_owned(),
        owner: Some(owner("")),
        provider: provider.to_owned(),
        key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
            value: key.to_owned(),
        })),
        force: false,
        ..Default::default()
    };
    operator.credentials().set_credential(request).await.unwrap();
}

/// The allowed resolutions in the journal that handed a lease out for the first time, and all of them.
async fn resolutions(operator: &Caller) -> (usize, usize) {
    let records = operator.records().await;
    let done = records.iter().filter(|record| {
        record.action == "credential.resolve" && record.outcome == "allowed" && record.phase != "begin"
    });
    let first = done.clone().filter(|record| record.subject.contains_key("first"));
    (first.count(), done.count())
}

// req: K2 K3 B2 D8
#[tokio::test]
async fn an_agent_gets_its_members_key_before_the_orgs() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;

    let nothing = agent.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&nothing), "NO_CREDENTIAL_CONFIGURED");

    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let by_org = agent.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(secret(&by_org), "the-orgs-own-key-000");

    // A task keeps what it started with; the next one gets the member's.
    operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    assert_eq!(
        secret(&agent.resolve(&task).await.unwrap().lease.unwrap()),
        "the-orgs-own-key-000"
    );
    let next = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &next).await;
    let agent = broker.agent(&enrolled).await;
    let by_member = agent.resolve(&next).await.unwrap().lease.unwrap();
    assert_eq!(secret(&by_member), "the-members-key-0000");
}

// req: B3
#[tokio::test]
async fn what_is_missing_is_named_with_all_that_was_looked_at() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let status = agent.resolve("").await.unwrap_err();
    assert_eq!(reason(&status), "NO_CREDENTIAL_CONFIGURED");
    let details = details(&status);
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["executor"], "demo-agent");
    assert_eq!(metadata["provider"], "demo");
    assert_eq!(
        metadata["candidates"].split(' ').count(),
        4,
        "{}",
        metadata["candidates"]
    );
    assert!(details.precondition_failure().is_some() && details.help().is_some());
}

// req: B3 B6
#[tokio::test]
async fn asking_again_gives_the_same_lease_and_one_first_record() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let key = operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let answer = claim(&agent, "", |request| {
        request.request_id = "call-1".to_owned();
        request.model = "big-model".to_owned();
    });
    let answer = answer.await.unwrap();
    let first = answer.lease.clone().unwrap();
    assert_eq!((&*first.task, &*first.credential), (&*task, &*key.id));
    assert_eq!(
        (&*first.provider, &*first.model, first.generation),
        ("demo", "big-model", 1)
    );
    assert_eq!(first.mode(), proto::AuthMode::Byok);
    assert_eq!(first.permit_position, 1);
    assert!(first.expire_time.is_some() && first.material_expire_time.is_none());
    let decision = answer.decision.unwrap();
    assert!(decision.allowed && decision.reason.is_empty());
    assert_eq!(decision.credential, key.id);
    let modes: Vec<_> = decision.permit.iter().map(|entry| entry.mode()).collect();
    assert_eq!(modes, [proto::AuthMode::Oauth, proto::AuthMode::Byok]);
    let chosen: Vec<_> = decision
        .candidates
        .iter()
        .map(|candidate| candidate.chosen)
        .collect();
    assert_eq!(chosen, [false, false, false, true]);

    for _ in 0..3 {
        assert_eq!(agent.resolve("").await.unwrap().lease.unwrap().id, first.id);
    }
    let mut racing = JoinSet::new();
    for _ in 0..8 {
        let (agent, task) = (agent.clone(), task.clone());
        racing.spawn(async move { agent.resolve(&task).await.unwrap().lease.unwrap().id });
    }
    assert!(racing.join_all().await.iter().all(|id| *id == first.id));
    assert_eq!(resolutions(&operator).await, (1, 12));
    // A new connection and a new process are nothing new.
    let broker = broker.restart().await;
    let agent = broker.agent(&enrolled).await;
    assert_eq!(agent.resolve("").await.unwrap().lease.unwrap().id, first.id);
    assert_eq!(resolutions(&broker.operator().await).await, (1, 13));
}

// req: B6
#[tokio::test]
async fn of_many_first_calls_at_once_one_makes_the_lease() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let mut racing = JoinSet::new();
    for _ in 0..8 {
        let agent = agent.clone();
        racing.spawn(async move { agent.resolve("").await.unwrap().lease.unwrap().id });
    }
    let ids = racing.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(resolutions(&operator).await, (1, 8));
}

// req: B6 D8
#[tokio::test]
async fn each_agent_and_each_task_has_a_lease_of_its_own() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let (one, two) = (
        operator.make_task(ORG, MEMBER).await,
        operator.make_task(ORG, MEMBER).await,
    );
    let (first, second) = (
        broker.enroll(&operator, &one).await,
        broker.enroll(&operator, &one).await,
    );
    let assign = proto::AssignTaskRequest {
        org: ORG.to_owned(),
        task: two.clone(),
        agents: vec![first.agent.clone()],
    };
    operator.tasks().assign_task(assign).await.unwrap();
    let (first, second) = (broker.agent(&first).await, broker.agent(&second).await);
    let mut leases = vec![second.resolve("").await.unwrap().lease.unwrap().id];
    for task in [&one, &two] {
        leases.push(first.resolve(task).await.unwrap().lease.unwrap().id);
    }
    leases.sort();
    leases.dedup();
    assert_eq!(leases.len(), 3);
    // With two tasks the agent has to say which.
    let status = first.resolve("").await.unwrap_err();
    assert_eq!(reason(&status), "TASK_REQUIRED");
    // With none there is nothing to resolve for.
    let idle = broker.agent(&broker.enroll(&operator, "").await).await;
    assert_eq!(reason(&idle.resolve("").await.unwrap_err()), "TASK_REQUIRED");
}

// req: D8
#[tokio::test]
async fn a_request_cannot_differ_from_what_the_task_fixes() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    set_key_of(&operator, "demo", "the-key-for-demo-000").await;
    set_key_of(&operator, "second", "the-key-for-second-0").await;
    for name in ["careful", "quick"] {
        let request = proto::CreateProfileRequest {
            org: ORG.to_owned(),
            profile: Some(proto::Profile {
                name: name.to_owned(),
                modes: vec![proto::AuthMode::Byok as i32],
                ..Default::default()
            }),
            ..Default::default()
        };
        let _made = operator.policies().create_profile(request).await.unwrap();
    }
    let task = task_with(&operator, |task| {
        task.executor = "duo-agent".to_owned();
        task.provider = "second".to_owned();
        task.profile = "careful".to_owned();
        task.spec_hash = "sha256:1".to_owned();
    });
    let task = task.await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    type Change = fn(&mut proto::ResolveCredentialRequest);
    let changes: [(&str, Change); 5] = [
        ("executor", |request| request.executor = "demo-agent".to_owned()),
        ("provider", |request| request.provider = "demo".to_owned()),
        ("profile", |request| request.profile = "quick".to_owned()),
        ("spec_hash", |request| request.spec_hash = "sha256:2".to_owned()),
        ("capacity", |request| request.set_capacity(proto::Capacity::Local)),
    ];
    for (field, change) in changes {
        let status = claim(&agent, "", change).await.unwrap_err();
        assert_eq!(reason(&status), "TASK_MISMATCH", "{field}");
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        let details = details(&status);
        assert_eq!(details.error_info().unwrap().metadata["field"], field);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    assert_eq!(resolutions(&operator).await, (0, 0));
    let same = claim(&agent, "", |request| {
        request.executor = "duo-agent".to_owned();
        request.provider = "second".to_owned();
        request.profile = "careful".to_owned();
        request.spec_hash = "sha256:1".to_owned();
        request.set_capacity(proto::Capacity::Cloud);
    });
    let lease = same.await.unwrap().lease.unwrap();
    assert_eq!(secret(&lease), "the-key-for-second-0");
    assert_eq!(
        secret(&agent.resolve("").await.unwrap().lease.unwrap()),
        "the-key-for-second-0"
    );

    // A task that names no provider leaves the choice among those its executor has, and no others.
    let open = task_with(&operator, |task| task.executor = "duo-agent".to_owned()).await;
    let agent = broker.agent(&broker.enroll(&operator, &open).await).await;
    assert_eq!(
        secret(&agent.resolve("").await.unwrap().lease.unwrap()),
        "the-key-for-demo-000"
    );
    let foreign = claim(&agent, "", |request| request.provider = "openai".to_owned()).await;
    assert_eq!(reason(&foreign.unwrap_err()), "PROVIDER_UNSUPPORTED");
}

/// A broker with a connector whose token endpoint nobody answers at.
fn with_connector() -> Options {
    Options {
        connectors: broker::connector("http://127.0.0.1:9/token", "client", ""),
        ..Default::default()
    }
}

// req: N2 E4(core)
#[tokio::test]
async fn a_grant_goes_before_a_key_and_its_refresh_token_stays() {
    let broker = TestBroker::start_with(with_connector()).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let in_an_hour = support::broker::now() + Duration::from_secs(3_600);
    let request = proto::ImportGrantRequest {
        org: ORG.to_owned(),
        owner: Some(owner(MEMBER)),
        connector: "demo".to_owned(),
        refresh_token: Some(proto::Secret {
            value: "the-refresh-token-000".to_owned(),
        }),
        access_token: Some(proto::Secret {
            value: "the-access-token-0000".to_owned(),
        }),
        access_token_expire_time: Some(prost_types::Timestamp {
            seconds: in_an_hour.seconds(),
            nanos: 0,
        }),
        scopes: vec!["read".to_owned()],
        account: [("account_id".to_owned(), "17".to_owned())].into(),
    };
    operator.credentials().import_grant(request).await.unwrap();
    let task = operator.make_task(ORG, MEMBER).await;
    let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
    let answer = agent.resolve("").await.unwrap();
    let bytes = prost::Message::encode_to_vec(&answer);
    assert!(!bytes.windows(21).any(|window| window == b"the-refresh-token-000"));
    let lease = answer.lease.unwrap();
    assert_eq!((lease.mode(), lease.permit_position), (proto::AuthMode::Oauth, 0));
    assert_eq!(secret(&lease), "the-access-token-0000");
    assert_eq!(lease.material_expire_time.unwrap().seconds, in_an_hour.seconds());
    let Some(proto::material::Material::OauthAccessToken(token)) = lease.material.unwrap().material else {
        panic!("no access token");
    };
    assert_eq!(
        (&*token.token_type, &token.scopes[..]),
        ("Bearer", &["read".to_owned()][..])
    );
    assert_eq!(token.account["account_id"], "17");
}
