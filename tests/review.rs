//! What a second reading of the broker found: small windows and full queues, each with its test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "review/bench.rs"]
mod bench;
#[path = "review/cut_short.rs"]
mod cut_short;
#[path = "review/policy.rs"]
mod policy;
#[path = "review/refresh.rs"]
mod refresh;
#[path = "review/store.rs"]
mod store;
mod support;

use std::sync::Arc;
use std::time::Duration;

use bench::{Bench, granted, operator};
use credbroker::domain::id::Id;
use credbroker::domain::lease::Lease;
use credbroker::domain::owner::Owner;
use credbroker::domain::reason::Reason;
use credbroker::domain::task::Capacity;
use credbroker::proto;
use credbroker::service::{NewNamed, NewTask, OwnerRef, ResolveInput};
use credbroker::store::keys;
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use support::{NewKey, TestBroker, reason};

/// What the store had no room for is known not to have happened. Were its begin left open, so many refusals
/// would leave the journal taking no more effects until the next start.
// req: N6
#[tokio::test]
async fn an_effect_that_the_store_had_no_room_for_is_finished() {
    let bench = Bench::start(granted).await;
    bench.refuse("org-name/", 1);
    let new = NewNamed {
        name: "other",
        display_name: "",
        request_id: "",
    };
    let refused = bench.broker.create_org(&operator(), new).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
    assert!(bench.open().await.is_empty());
    let last = bench.journal().await.pop().unwrap();
    assert_eq!(
        (last.entry.verdict.name(), last.entry.reason.as_str()),
        ("failed", "OVERLOADED")
    );
    bench.broker.create_org(&operator(), new).await.unwrap();
}

/// Everything that passes the checks of its fields fits in the store; what does not names the field.
// req: K5 D4
#[tokio::test]
async fn what_may_be_asked_for_can_be_stored() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let pairs = |bytes: usize| -> std::collections::HashMap<String, String> {
        (0..16)
            .map(|number| {
                (
                    format!("{number:0>width$}", width = bytes / 2),
                    "v".repeat(bytes / 2),
                )
            })
            .collect()
    };
    let minting = |bytes| proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        labels: pairs(bytes),
        ..Default::default()
    };
    let field = |refused: &tonic::Status| {
        let details = support::details(refused);
        details.bad_request().unwrap().field_violations[0].field.clone()
    };
    let mut agents = operator.agents();
    let refused = agents.create_enrollment_tokens(minting(128)).await.unwrap_err();
    assert_eq!(field(&refused), "labels");
    let minted = agents
        .create_enrollment_tokens(minting(96))
        .await
        .unwrap()
        .into_inner();
    let token = minted.tokens[0].token.clone();
    let enrolling = |bytes| proto::EnrollRequest {
        token: token.clone(),
        csr_der: NewKey::generate().csr(),
        attributes: pairs(bytes),
    };
    let anybody = broker.caller(None).await;
    let refused = anybody.enrollment().enroll(enrolling(128)).await.unwrap_err();
    assert_eq!(field(&refused), "attributes");
    anybody.enrollment().enroll(enrolling(96)).await.unwrap();

    let identities = |bytes: usize| {
        (0..32)
            .map(|n| format!("s:{n:0>width$}", width = bytes - 2))
            .collect()
    };
    let member = |name: &str, identities| proto::CreateMemberRequest {
        org: ORG.to_owned(),
        name: name.to_owned(),
        display_name: "\u{1d11e}".repeat(128),
        identities,
        ..Default::default()
    };
    let mut directory = operator.directory();
    directory
        .create_member(member("bo", identities(96)))
        .await
        .unwrap();
    let refused = directory
        .create_member(member("cy", identities(97)))
        .await
        .unwrap_err();
    assert_eq!(field(&refused), "identities");
}

/// What a caller sends comes back cut short, so that the answer reaches it: trailers past a client's limit break
/// its connection. And no record grows with it.
// req: K1 N6
#[tokio::test]
async fn a_long_name_is_refused_in_a_short_answer() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (_, key) = operator.make_api_key(ORG).await;
    let service = broker.caller(Some(&key)).await;
    let long = "x".repeat(100_000);
    let request = proto::ResolveCredentialRequest {
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: long.clone(),
        ..Default::default()
    };
    let refused = service.broker().resolve_credential(request).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    let request = proto::CreateTaskRequest {
        org: ORG.to_owned(),
        member: MEMBER.to_owned(),
        project: PROJECT.to_owned(),
        executor: long,
        ..Default::default()
    };
    let refused = service.tasks().create_task(request).await.unwrap_err();
    assert_eq!(reason(&refused), "EXECUTOR_UNKNOWN");
    assert!(refused.message().len() < 1_000, "{}", refused.message().len());
}

/// Giving a lease back and asking anew, over and over, leaves one lease behind.
// req: B6
#[tokio::test]
async fn leases_that_are_given_back_do_not_pile_up() {
    let bench = Bench::start(granted).await;
    let (org, _) = bench.import().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let lease = bench.resolve().await.ok().unwrap().vended.lease;
        assert!(seen.insert(lease.id), "a new one each time");
        bench.clock.advance(Duration::from_secs(3_600));
    }
    let prefix = keys::lease(org, Id::from_bytes([0; 16])).into_bytes();
    let rows = bench
        .records
        .scan::<Lease>(&prefix[..prefix.len() - 16], None, 10)
        .await;
    assert_eq!(rows.unwrap().len(), 1);
}

/// A credential that is removed while a resolution is on its way is not handed out after the removal was
/// acknowledged. One that is replaced is handed out as it is by then.
// req: D6 B6
#[tokio::test]
async fn a_resolution_that_races_a_removal_loses() {
    let bench = Arc::new(Bench::start(granted).await);
    let (_, id) = bench.import().await;
    let racing = |hold| {
        let (bench, (is_there, go_on)) = (Arc::clone(&bench), hold);
        let resolving = tokio::spawn({
            let bench = Arc::clone(&bench);
            async move {
                bench
                    .resolve()
                    .await
                    .map(|resolved| Arc::clone(resolved.vended.material.credential().unwrap()))
            }
        });
        (resolving, is_there, go_on)
    };
    let (resolving, is_there, go_on) = racing(bench.hold("lease-for/"));
    is_there.await.unwrap();
    assert_eq!(bench.import().await.1, id);
    go_on.send(()).unwrap();
    let handed_out = resolving.await.unwrap().unwrap();
    assert_eq!(handed_out.rotation.generation, 4, "imported as 3, and refreshed");

    bench.clock.advance(Duration::from_secs(3_600));
    let (resolving, is_there, go_on) = racing(bench.hold("lease-for/"));
    is_there.await.unwrap();
    let removed = bench
        .broker
        .remove_credential(&operator(), bench::ORG, &id.to_string())
        .await;
    removed.unwrap();
    go_on.send(()).unwrap();
    let refused = resolving.await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::NoCredentialConfigured);
}

/// A task keeps the credential it started with at one provider, whatever it asks of another in between.
// req: A10 B2
#[tokio::test]
async fn a_pin_at_one_provider_outlives_the_use_of_another() {
    let bench = Bench::start(granted).await;
    for provider in ["demo", "other"] {
        bench
            .set_key(OwnerRef::Org, provider, "the-orgs-own-key-000")
            .await;
    }
    let new = NewTask {
        org: bench::ORG,
        member: "alex",
        member_identity: "",
        project: "web",
        executor: "both",
        provider: "",
        profile: "",
        capacity: Capacity::Cloud,
        pool: "",
        spec_hash: "",
        ttl: None,
        agents: &[],
        request_id: "",
    };
    let task = bench
        .broker
        .create_task(&operator(), new)
        .await
        .unwrap()
        .task
        .id
        .to_string();
    let resolve = async |provider| {
        let input = ResolveInput {
            org: bench::ORG,
            task: &task,
            provider,
            ..ResolveInput::default()
        };
        let resolved = bench.broker.resolve(&bench.resolver, input).await;
        resolved.ok().unwrap().vended.material.credential().unwrap().owner
    };
    assert_eq!(resolve("demo").await, Owner::Org);
    bench
        .set_key(OwnerRef::Member("alex"), "demo", "the-members-key-0000")
        .await;
    assert_eq!(resolve("other").await, Owner::Org);
    assert_eq!(resolve("demo").await, Owner::Org);
}
