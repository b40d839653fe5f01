//! When a task goes on to another credential: on the provider's own refusal, and on nothing else.

use std::time::Duration;

use credbroker::proto::{self, AuthMode, OnRejection, set_credential_request::Key};
use tonic::{Code, Status};

use crate::scene::{Agent, Office, lease, report, report_all};
use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::client::{metadata, owner, retry_after};
use crate::support::provider::Reply;
use crate::support::reason;

const REFUSED: &str = r#"{"error":"invalid_grant","error_description":"signed out by the user"}"#;
const MODEL: &str = "claude-sonnet-4-6";

/// The profiles `next` and `fail`, of oauth, byok and metered; `cloud-agent` pinned to oauth where it is said so.
async fn rules(office: &Office, pinned: bool) {
    let profile = |name: &str, on_rejection: OnRejection| proto::Profile {
        name: name.to_owned(),
        modes: [AuthMode::Oauth, AuthMode::Byok, AuthMode::Metered]
            .map(|mode| mode as i32)
            .to_vec(),
        on_rejection: on_rejection as i32,
        ..Default::default()
    };
    let pin = proto::ExecutorPin {
        executor: "cloud-agent".to_owned(),
        mode: AuthMode::Oauth as i32,
    };
    let rules = proto::OrgRules {
        profiles: vec![
            profile("next", OnRejection::Next),
            profile("fail", OnRejection::Fail),
        ],
        pins: if pinned { vec![pin] } else { Vec::new() },
        ..Default::default()
    };
    let document = proto::PolicyDocument {
        system: None,
        orgs: vec![proto::OrgPolicy {
            org: ORG.to_owned(),
            rules: Some(rules),
            ..Default::default()
        }],
    };
    let request = proto::ApplyPolicyRequest {
        document: Some(document),
        ..Default::default()
    };
    office.operator.policies().apply_policy(request).await.unwrap();
}

async fn task_of(office: &Office, member: &str, profile: &str) -> String {
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: member.to_owned(),
        project: PROJECT.to_owned(),
        executor: "cloud-agent".to_owned(),
        profile: profile.to_owned(),
        ..Default::default()
    };
    let made = office.operator.tasks().create_task(request).await.unwrap();
    made.into_inner().task.unwrap().id
}

/// An agent with a task of the member's, and its lease on the member's account.
async fn begin(office: &Office, number: usize, profile: &str) -> (Agent, String, proto::Lease) {
    let task = task_of(office, &format!("m{number}"), profile).await;
    let agent = office.agent(&[&task]).await;
    let lease = resolve(&agent, &task).await.unwrap().lease.unwrap();
    assert_eq!(lease.credential, office.grants[number]);
    (agent, task, lease)
}

async fn resolve(agent: &Agent, task: &str) -> Result<proto::ResolveCredentialResponse, Status> {
    let request = proto::ResolveCredentialRequest {
        task: task.to_owned(),
        model: MODEL.to_owned(),
        ..Default::default()
    };
    let answer = agent.caller.broker().resolve_credential(request).await?;
    Ok(answer.into_inner())
}

async fn store_aws(office: &Office) -> String {
    let keys = proto::AwsKeys {
        access_key_id: "AKIAABCDEFGHIJKLMNOP".to_owned(),
        secret_access_key: Some(proto::Secret {
            value: "s".repeat(40),
        }),
        session_token: None,
        region: "eu-central-1".to_owned(),
    };
    let request = proto::SetCredentialRequest {
        org: ORG.to_owned(),
        owner: Some(owner("")),
        provider: "bedrock".to_owned(),
        key: Some(Key::AwsKeys(keys)),
        ..Default::default()
    };
    let stored = office.operator.credentials().set_credential(request).await;
    stored.unwrap().into_inner().credential.unwrap().id
}

/// The records of what followed the rejection of a lease's material.
async fn switches(office: &Office, lease: &proto::Lease) -> Vec<proto::JournalRecord> {
    let mut records = office.operator.records().await;
    records.retain(|record| record.subject.get("rejected") == Some(&lease.id));
    records
}

/// How a provider fails without refusing the grant.
#[derive(Clone, Copy, Debug)]
enum Failing {
    Down,
    Silent,
    Answers(u16, &'static str),
}

// req: B4 C5
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_moves_nothing() {
    let failing = [
        (Failing::Down, "REFRESH_UNAVAILABLE"),
        (Failing::Answers(500, "oops"), "REFRESH_AMBIGUOUS"),
        (Failing::Answers(502, "invalid_grant"), "REFRESH_AMBIGUOUS"),
        (Failing::Answers(503, "busy"), "REFRESH_AMBIGUOUS"),
        (Failing::Answers(429, "slow_down"), "REFRESH_UNAVAILABLE"),
        (Failing::Answers(401, "invalid_client"), "REFRESH_UNAVAILABLE"),
    ];
    moves_nothing(&failing, "").await;
}

// req: B4 C5
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_silent_moves_nothing() {
    let failing = [(Failing::Silent, "REFRESH_AMBIGUOUS")];
    moves_nothing(&failing, "[refresh]\nexchange_timeout = \"1s\"\n").await;
}

async fn moves_nothing(failing: &[(Failing, &str)], config: &str) {
    let mut office = Office::start(failing.len(), config).await;
    rules(&office, false).await;
    // There is something to go on to.
    office.operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    for (number, &(how, expected)) in failing.iter().enumerate() {
        let (agent, task, lease) = begin(&office, number, "next").await;
        let provider = &mut office.providers[number];
        match how {
            Failing::Down => provider.go_away().await,
            // It gives up what it is asked without having acted, later than anybody waits.
            Failing::Silent => {
                provider.delay(Duration::from_secs(3));
                provider.next(Reply::HangUp { rotated: false });
            }
            Failing::Answers(status, error) => {
                provider.answer(
                    status,
                    &format!(r#"{{"error":"{error}","error_description":"so it is"}}"#),
                );
            }
        }
        let refused = report(&agent.caller, &lease.id, 2, "401").await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::Unavailable, expected),
            "{how:?}"
        );
        assert!(retry_after(&refused).is_some(), "{how:?}");
        assert!(!metadata(&refused, "provider_message").is_empty(), "{how:?}");
        if let Failing::Answers(401, _) = how {
            assert!(
                refused.message().contains("rejects the broker's client"),
                "{refused:?}"
            );
        }
        let provider = &mut office.providers[number];
        match how {
            Failing::Down => provider.come_back().await,
            Failing::Silent => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                provider.delay(Duration::ZERO);
            }
            Failing::Answers(..) => {}
        }
        office.minutes(6);
        assert!(switches(&office, &lease).await.is_empty(), "{how:?}");
        let resolved = resolve(&agent, &task).await.unwrap();
        assert_eq!(resolved.fallback_reason, "", "{how:?}");
        assert_eq!(resolved.lease.unwrap().id, lease.id, "{how:?}");
        // The report was not forgotten for it: it is answered now.
        let answer = report(&agent.caller, &lease.id, 2, "401").await.unwrap();
        assert_eq!(answer.lease.unwrap().credential, office.grants[number], "{how:?}");
        assert_eq!(office.providers[number].replays(), 0, "{how:?}");
    }
}

// req: B4
#[tokio::test]
async fn the_switch_is_one_record_that_names_both_and_the_task_stays_there() {
    let office = Office::start(1, "").await;
    rules(&office, false).await;
    let key = office.operator.set_key(ORG, "", "the-orgs-own-key-000").await.id;
    let (agent, task, lease) = begin(&office, 0, "next").await;
    office.providers[0].answer(400, REFUSED);
    let answer = report(&agent.caller, &lease.id, 2, "401").await.unwrap();
    assert_eq!(answer.fallback_reason, "REAUTH_REQUIRED");
    let next = answer.lease.unwrap();
    assert_eq!((next.mode(), &next.credential), (AuthMode::Byok, &key));

    let records = switches(&office, &lease).await;
    // A first lease is an effect: what is to be done, and that it was.
    let [record, done] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert_eq!((done.begins, done.outcome.as_str()), (record.position, "allowed"));
    let about = |what: &str| record.subject[what].as_str();
    assert_eq!(record.action, "credential.resolve");
    assert_eq!(
        (
            about("rejected_credential"),
            about("rejected_generation"),
            about("because")
        ),
        (office.grants[0].as_str(), "2", "REAUTH_REQUIRED")
    );
    assert_eq!(
        (about("credential"), about("lease"), about("mode"), about("task")),
        (key.as_str(), next.id.as_str(), "byok", task.as_str())
    );
    let again = resolve(&agent, &task).await.unwrap();
    assert_eq!(
        (again.lease.unwrap().id, again.fallback_reason.as_str()),
        (next.id.clone(), "REAUTH_REQUIRED")
    );
    // The old lease, reported once more, leads to the same.
    let repeated = report(&agent.caller, &lease.id, 2, "401").await.unwrap();
    assert_eq!(repeated.lease.unwrap().id, next.id);

    // The key is rejected as well: a caller's word moves nothing, and the provider's is told.
    let aws = store_aws(&office).await;
    let said = "401 invalid x-api-key the-orgs-own-key-000";
    let refused = report(&agent.caller, &next.id, next.generation, said)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    assert_eq!(
        metadata(&refused, "provider_message"),
        "401 invalid x-api-key [redacted]"
    );
    assert_ne!(
        resolve(&agent, &task).await.unwrap().lease.unwrap().credential,
        aws
    );
}

// req: B4
#[tokio::test]
async fn a_permit_that_is_used_up_ends_with_the_refusal_that_began_it() {
    let office = Office::start(1, "").await;
    rules(&office, false).await;
    let (agent, _, lease) = begin(&office, 0, "next").await;
    office.providers[0].answer(400, REFUSED);
    let refused = report(&agent.caller, &lease.id, 2, "401").await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    assert_eq!(metadata(&refused, "credential"), office.grants[0]);
    assert!(metadata(&refused, "provider_message").contains("signed out by the user"));
    // Once there is something, the next report goes on to it: AWS, by the name that the model has there.
    let aws = store_aws(&office).await;
    let next = report(&agent.caller, &lease.id, 2, "401")
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!(
        (
            next.credential.as_str(),
            next.provider.as_str(),
            next.model.as_str()
        ),
        (aws.as_str(), "bedrock", "anthropic.claude-sonnet-4-6")
    );
}

// req: B4
#[tokio::test]
async fn fail_and_a_pin_go_nowhere() {
    for pinned in [false, true] {
        let office = Office::start(1, "").await;
        rules(&office, pinned).await;
        office.operator.set_key(ORG, "", "the-orgs-own-key-000").await;
        let profile = if pinned { "next" } else { "fail" };
        let (agent, task, lease) = begin(&office, 0, profile).await;
        office.providers[0].answer(400, REFUSED);
        let refused = report(&agent.caller, &lease.id, 2, "401").await.unwrap_err();
        assert_eq!(reason(&refused), "REAUTH_REQUIRED");
        assert!(metadata(&refused, "provider_message").contains("signed out by the user"));
        assert_eq!(
            reason(&resolve(&agent, &task).await.unwrap_err()),
            "REAUTH_REQUIRED"
        );
        assert!(switches(&office, &lease).await.is_empty());
    }
}

// req: B4
#[tokio::test]
async fn an_account_that_is_not_connected_is_no_rejection() {
    let office = Office::start(1, "").await;
    let key = office.operator.set_key(ORG, "", "the-orgs-own-key-000").await.id;
    rules(&office, false).await;
    let task = task_of(&office, MEMBER, "fail").await;
    let agent = office.agent(&[&task]).await;
    let resolved = resolve(&agent, &task).await.unwrap();
    assert_eq!(resolved.fallback_reason, "CONNECT_ACCOUNT");
    assert_eq!(resolved.lease.unwrap().credential, key);
    rules(&office, true).await;
    let task = task_of(&office, MEMBER, "next").await;
    let agent = office.agent(&[&task]).await;
    assert_eq!(
        reason(&resolve(&agent, &task).await.unwrap_err()),
        "CONNECT_ACCOUNT"
    );
}

// req: B4 B7
#[tokio::test]
async fn an_agents_word_that_new_tokens_are_rejected_moves_nothing() {
    let office = Office::start(1, "").await;
    rules(&office, false).await;
    office.operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let (agent, task, first) = begin(&office, 0, "next").await;
    let (_, refused) = report_all(&agent.caller, &first.id, 2).await;
    assert_eq!(reason(&refused), "REAUTH_FAILED");
    assert!(switches(&office, &first).await.is_empty());
    assert_eq!(lease(&agent.caller, &task).await.id, first.id);

    // The provider's own word does, however many of its tokens were rejected before.
    office.clock.advance(crate::scene::LIFE);
    office.providers[0].answer(400, REFUSED);
    let resolved = resolve(&agent, &task).await.unwrap();
    assert_eq!(resolved.fallback_reason, "REAUTH_REQUIRED");
    assert_eq!(resolved.lease.unwrap().mode(), AuthMode::Byok);
}

/// A row that is full does not hide what the provider itself says.
// req: B4 B7
#[tokio::test]
async fn a_full_row_gives_way_to_the_providers_refusal() {
    let office = Office::start(1, "").await;
    rules(&office, false).await;
    let key = office.operator.set_key(ORG, "", "the-orgs-own-key-000").await.id;
    let (agent, _, first) = begin(&office, 0, "next").await;
    let (other, _, others) = begin(&office, 0, "fail").await;
    let (last, refused) = report_all(&agent.caller, &first.id, 2).await;
    assert_eq!(reason(&refused), "REAUTH_FAILED");
    office.providers[0].answer(400, REFUSED);
    let refused = report(&other.caller, &others.id, last, "401").await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    let moved = report(&agent.caller, &first.id, last, "401").await.unwrap();
    assert_eq!(moved.fallback_reason, "REAUTH_REQUIRED");
    assert_eq!(moved.lease.unwrap().credential, key);
}

/// Nothing is pinned for a caller without a task: it names member, profile and executor each time, and goes on by
/// asking again.
// req: B4
#[tokio::test]
async fn a_direct_resolution_goes_on_when_it_is_asked_again() {
    let office = Office::start(1, "").await;
    rules(&office, false).await;
    let key = office.operator.set_key(ORG, "", "the-orgs-own-key-000").await.id;
    let automation = office.automation().await;
    let ask = async |profile: &str| {
        let request = proto::ResolveCredentialRequest {
            member: "m0".to_owned(),
            project: PROJECT.to_owned(),
            executor: "cloud-agent".to_owned(),
            profile: profile.to_owned(),
            minimum_remaining: Some(Duration::ZERO.try_into().unwrap()),
            ..Default::default()
        };
        let resolved = automation.broker().resolve_credential(request).await;
        resolved.map(tonic::Response::into_inner)
    };
    let first = ask("next").await.unwrap().lease.unwrap();
    assert_eq!(first.credential, office.grants[0]);
    office.providers[0].next(Reply::Answer {
        status: 400,
        body: REFUSED.to_owned(),
        retry_after: None,
    });
    let refused = report(&automation, &first.id, 2, "401").await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    let resolved = ask("next").await.unwrap();
    assert_eq!(resolved.fallback_reason, "REAUTH_REQUIRED");
    assert_eq!(resolved.lease.unwrap().credential, key);
    assert_eq!(reason(&ask("fail").await.unwrap_err()), "REAUTH_REQUIRED");
}

// req: B4 B7
#[tokio::test]
async fn limits_do_not_hide_that_the_provider_refuses_the_grant() {
    let config = "[refresh]\nforced_rotations_per_hour_per_agent = 1\n[leases]\nlifetime = \"12h\"\n";
    let office = Office::start(2, config).await;
    let tasks = [office.task(0).await, office.task(1).await];
    let agent = office.agent(&tasks).await.caller;
    let dying = lease(&agent, &tasks[0]).await;
    // Within the hour before the token ends, this agent uses its place up on another grant.
    office.minutes(495);
    let other = lease(&agent, &tasks[1]).await;
    assert!(report(&agent, &other.id, other.generation, "401").await.is_ok());
    office.minutes(10);
    office.providers[0].answer(400, REFUSED);
    let refused = agent.resolve(&tasks[0]).await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    for _ in 0..3 {
        let refused = report(&agent, &dying.id, dying.generation, "401").await;
        assert_eq!(reason(&refused.unwrap_err()), "REAUTH_REQUIRED");
    }
    // Of a grant that is well, the limit is told.
    let next = lease(&agent, &tasks[1]).await;
    let refused = report(&agent, &next.id, next.generation, "401").await;
    assert_eq!(reason(&refused.unwrap_err()), "ROTATION_LIMITED");
}
