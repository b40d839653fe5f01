//! The journal's disk fails: nothing leaves unrecorded, and the health service says so.

use std::time::Duration;

use credbroker::journal::Faults;
use credbroker::proto;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::broker::{MEMBER, ORG};
use crate::support::client::secret;
use crate::support::{Caller, NewKey, Options, TestBroker, details, reason};

async fn health(caller: &Caller, service: &str) -> i32 {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(caller.transport())
        .check(request)
        .await
        .unwrap();
    answer.into_inner().status
}

async fn turns(caller: &Caller, service: &str, status: ServingStatus) {
    let turned = async {
        while health(caller, service).await != status as i32 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, turned)
        .await
        .unwrap_or_else(|_| panic!("{service}: never {status}"));
}

// req: N6 K1 D8
#[tokio::test]
async fn without_its_journal_the_broker_hands_nothing_out() {
    let faults = Faults::default();
    let options = Options {
        journal_faults: faults.clone(),
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let lease = agent.resolve("").await.unwrap().lease.unwrap();
    let never_used = broker.enroll(&operator, &task).await;
    let newcomer = broker.agent(&never_used).await;
    let token = operator.enrollment_token(ORG, "").await;
    turns(&operator, "", ServingStatus::Serving).await;
    let last = operator.records().await.last().unwrap().position;

    // The next write stops after a few bytes.
    faults.fill_disk_after(10);
    let failed = |status: tonic::Status, what: &str| {
        assert_eq!(reason(&status), "JOURNAL_UNAVAILABLE", "{what}");
        assert_eq!(status.code(), tonic::Code::Unavailable, "{what}");
        assert!(details(&status).retry_info().is_some(), "{what}");
        assert!(!format!("{status:?}").contains("the-orgs-own-key"), "{what}");
    };
    failed(agent.resolve("").await.unwrap_err(), "a lease that stands");
    failed(agent.resolve("").await.unwrap_err(), "again");
    failed(newcomer.resolve("").await.unwrap_err(), "the first use of a key");
    let unknown = format!("tsk_{}", "0".repeat(32));
    failed(agent.resolve(&unknown).await.unwrap_err(), "a refusal");
    let release = proto::ReleaseLeaseRequest { lease: lease.id };
    failed(
        agent.broker().release_lease(release).await.unwrap_err(),
        "an effect",
    );
    let new = broker
        .enroll_with(&token, &NewKey::generate())
        .await
        .err()
        .unwrap();
    failed(new, "an enrollment");
    let member = proto::CreateMemberRequest {
        org: ORG.to_owned(),
        name: "kim".to_owned(),
        ..Default::default()
    };
    failed(
        operator.directory().create_member(member).await.unwrap_err(),
        "a create",
    );

    for service in [
        "",
        "credbroker.v1.BrokerService",
        "credbroker.v1.EnrollmentService",
    ] {
        turns(&operator, service, ServingStatus::NotServing).await;
    }
    // What was durable can still be read, and nothing came after it.
    assert_eq!(operator.records().await.last().unwrap().position, last);

    // With room on the disk, a restart goes on where it stopped, and the effects did not happen.
    let (mut options, dir, token_of_operator) = broker.stop().await;
    options.journal_faults = Faults::default();
    let broker = TestBroker::start_over(options, dir, token_of_operator).await;
    let operator = broker.operator().await;
    turns(&operator, "", ServingStatus::Serving).await;
    let request = proto::ListMembersRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let members = operator
        .directory()
        .list_members(request)
        .await
        .unwrap()
        .into_inner()
        .members;
    assert_eq!(members.len(), 1);
    let agent = broker.agent(&enrolled).await;
    assert_eq!(
        secret(&agent.resolve("").await.unwrap().lease.unwrap()),
        "the-orgs-own-key-000"
    );
    broker.agent(&never_used).await.resolve("").await.unwrap();
    broker.enroll_with(&token, &NewKey::generate()).await.unwrap();
}
