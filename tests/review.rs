//! What a second reading of the broker found: small windows and full queues, each with its test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "review/bench.rs"]
mod bench;
mod support;

use std::sync::Arc;
use std::time::Duration;

use bench::{Bench, answered, granted, operator};
use credbroker::domain::id::Id;
use credbroker::domain::lease::Lease;
use credbroker::domain::owner::Owner;
use credbroker::domain::reason::Reason;
use credbroker::domain::rotation::Phase;
use credbroker::domain::task::Capacity;
use credbroker::journal::Faults;
use credbroker::proto;
use credbroker::service::{NewNamed, NewTask, OwnerRef, ResolveInput};
use credbroker::store::keys;
use support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT, connector};
use support::provider::Provider;
use support::{NewKey, Options, TestBroker, reason};

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

/// A flight that panics ends that one flight. The next finds a claim without its driver, rests, and goes on.
// req: B5 N1
#[tokio::test]
async fn a_refresh_that_panics_is_not_the_last() {
    let bench = Bench::start(|call| match call {
        1 => panic!("a fault of the endpoint, on purpose"),
        call => granted(call),
    })
    .await;
    bench.import().await;
    assert_eq!(bench.resolve().await.err().unwrap().reason, Reason::Internal);
    assert_eq!(
        bench.resolve().await.err().unwrap().reason,
        Reason::RefreshAmbiguous
    );
    bench.clock.advance(Duration::from_secs(5));
    assert!(bench.resolve().await.is_ok());
    assert_eq!(bench.calls(), 2);
}

/// A flight that still waits for its place when the broker drains sends nothing and is not waited for.
// req: B5
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn draining_does_not_begin_the_exchanges_that_wait_for_a_place() {
    let (gate, held) = (
        Arc::new(std::sync::Barrier::new(2)),
        Arc::new(std::sync::Barrier::new(2)),
    );
    let (entered, leave) = (Arc::clone(&gate), Arc::clone(&held));
    let bench = Bench::start(move |call| {
        if call == 1 {
            entered.wait();
            leave.wait();
        }
        granted(call)
    })
    .await;
    let bench = Arc::new(bench);
    bench.import_for("alex").await;
    bench.import_for("bo").await;
    let resolving = |member: &'static str| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.resolve_for(member).await.map(|_| ()) })
    };
    let first = resolving("alex");
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    let second = resolving("bo");
    // Its flight is under way once it is counted; giving it time can only make the test weaker, never fail.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let draining = tokio::spawn({
        let broker = Arc::clone(&bench.broker);
        async move { broker.refresher().drain().await }
    });
    let refused = second.await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ShuttingDown);
    tokio::task::spawn_blocking(move || held.wait()).await.unwrap();
    draining.await.unwrap();
    assert!(first.await.unwrap().is_ok());
    assert_eq!(bench.calls(), 1);
}

/// An answer is staged and adopted however long the store's queue is full meanwhile.
// req: N1
#[tokio::test]
async fn an_answer_waits_for_a_place_in_the_stores_queue() {
    let bench = Bench::start(granted).await;
    for part in ["credential-answer/", "credential-secret/"] {
        bench.import().await;
        bench.refuse(part, 5);
        assert!(bench.resolve().await.is_ok(), "{part}");
        assert_eq!(bench.refusals_left(), 0, "{part}");
    }
    assert_eq!(bench.calls(), 2);
    assert!(bench.open().await.is_empty());
}

/// A grant that is imported anew while the old one is exchanged: the new one counts, and the record of the
/// exchange says that it came to nothing.
// req: N1 N6
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exchange_that_was_superseded_is_finished() {
    let (gate, held) = (
        Arc::new(std::sync::Barrier::new(2)),
        Arc::new(std::sync::Barrier::new(2)),
    );
    let (entered, leave) = (Arc::clone(&gate), Arc::clone(&held));
    let bench = Bench::start(move |call| {
        if call == 1 {
            entered.wait();
            leave.wait();
        }
        granted(call)
    })
    .await;
    let bench = Arc::new(bench);
    let (org, id) = bench.import().await;
    let resolving = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.resolve().await.map(|resolved| resolved.vended.material) }
    });
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    assert_eq!(bench.import().await, (org, id));
    tokio::task::spawn_blocking(move || held.wait()).await.unwrap();
    let material = resolving.await.unwrap().ok().unwrap();
    // Generation 2 was imported; the answer for generation 1 is gone, and 3 is the second exchange's.
    assert_eq!(material.credential.rotation.generation, 3);
    assert_eq!(bench.calls(), 2);
    assert!(bench.open().await.is_empty(), "{:?}", bench.open().await);
}

/// The journal fails after the claim, so the new generation is stored and its finish record is not. The next
/// start reads off the credential what became of the exchange.
// req: N1 N6
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_was_done_and_not_recorded_is_recorded_as_done() {
    let provider = Provider::start(Duration::from_secs(600)).await;
    let faults = Faults::default();
    let options = Options {
        connectors: connector(&provider.token_url(), "tests", ""),
        journal_faults: faults.clone(),
        ..Options::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.import_grant(ORG, MEMBER, &provider.mint()).await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    // The runtime key's first use, so that the exchange is all that is under way when the disk fills up.
    let first_use = agent.access().who_am_i(proto::WhoAmIRequest {}).await;
    first_use.unwrap();

    provider.hold();
    let resolving = tokio::spawn(async move { agent.resolve("").await.map(|_| ()) });
    provider.called(1).await;
    faults.fill_disk_after(0);
    provider.release();
    let refused = resolving.await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "JOURNAL_UNAVAILABLE");

    let broker = broker
        .restart_with(|options| options.journal_faults = Faults::default())
        .await;
    let refreshes: Vec<_> = broker.operator().await.records().await;
    let refreshes: Vec<_> = refreshes
        .iter()
        .filter(|record| record.action == "credential.refresh")
        .map(|record| (record.phase.as_str(), record.outcome.as_str()))
        .collect();
    assert_eq!(refreshes, [("begin", "allowed"), ("finish", "allowed")]);
    let lease = broker
        .agent(&enrolled)
        .await
        .resolve("")
        .await
        .unwrap()
        .lease
        .unwrap();
    assert_eq!((lease.generation, provider.calls()), (2, 1));
}

/// A staged answer of a connector that was taken out of the configuration waits for it to come back. The other
/// credentials, and the broker, do not.
// req: N1
#[tokio::test]
async fn one_credential_that_cannot_be_recovered_does_not_stop_the_rest() {
    let bench = Bench::start(granted).await;
    let (gone, good) = (bench.import_for("alex").await, bench.import_for("bo").await);
    bench.stage(gone, "no-longer-configured").await;
    bench.stage(good, "demo").await;
    bench.broker.recover(Vec::new()).await.unwrap();

    assert_eq!(bench.credential(good).await.rotation.generation, 2);
    let left = bench.credential(gone).await;
    assert_eq!(left.rotation.generation, 1);
    assert!(matches!(left.rotation.phase, Phase::Staged { .. }));
    assert_eq!(
        bench.resolve_for("alex").await.err().unwrap().reason,
        Reason::ConnectorUnknown
    );
    assert!(bench.resolve_for("bo").await.is_ok());
    assert_eq!(bench.calls(), 0, "no refresh token is sent again");
}

/// A grant with as many scopes and as long messages as are kept is stored, claimed and adopted like any other:
/// an answer that could be staged and not adopted would be a grant lost.
// req: N1
#[tokio::test]
async fn a_grant_with_all_the_scopes_there_may_be_is_refreshed() {
    let scopes: Vec<String> = (0..64).map(|number| format!("{number:0>256}")).collect();
    let (imported, scope) = (scopes.clone(), scopes.join(" "));
    let bench = Bench::start(move |call| match call {
        1 => {
            let words = "\u{1d11e}".repeat(600);
            answered(500, &format!(r#"{{"error_description":"{words}"}}"#))
        }
        call => {
            let access = "a".repeat(32 * 1024);
            let refresh = format!("fake-rt-{call}");
            answered(200, &format!(
                r#"{{"access_token":"{access}","refresh_token":"{refresh}","expires_in":600,"scope":"{scope}"}}"#
            ))
        }
    })
    .await;
    let at = bench.import_scoped("alex", imported).await.unwrap();
    assert_eq!(
        bench.resolve().await.err().unwrap().reason,
        Reason::RefreshAmbiguous
    );
    for generation in 2..4 {
        bench.clock.advance(Duration::from_secs(600));
        bench.resolve().await.map(|_| ()).unwrap();
        let credential = bench.credential(at).await;
        assert_eq!(
            (credential.rotation.generation, &credential.scopes),
            (generation, &scopes)
        );
    }
    let removed = bench
        .broker
        .remove_credential(&operator(), bench::ORG, &at.1.to_string())
        .await;
    removed.unwrap();
}

/// Everything that passes the checks of its fields fits in the store; what does not names the field.
// req: K5 D4
#[tokio::test]
async fn what_may_be_asked_for_can_be_stored() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let pairs = |count: usize| -> std::collections::HashMap<String, String> {
        (0..count)
            .map(|number| (format!("{number:0>48}"), "v".repeat(48)))
            .collect()
    };
    let minting = |count| proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        labels: pairs(count),
        ..Default::default()
    };
    let mut agents = operator.agents();
    let minted = agents
        .create_enrollment_tokens(minting(16))
        .await
        .unwrap()
        .into_inner();
    let token = minted.tokens[0].token.clone();
    let enrolling = |count| proto::EnrollRequest {
        token: token.clone(),
        csr_der: NewKey::generate().csr(),
        attributes: pairs(count),
    };
    let anybody = broker.caller(None).await;
    let refused = anybody.enrollment().enroll(enrolling(17)).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    anybody.enrollment().enroll(enrolling(16)).await.unwrap();

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
    let details = support::details(&refused);
    assert_eq!(
        details.bad_request().unwrap().field_violations[0].field,
        "identities"
    );
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
                    .map(|resolved| resolved.vended.material.credential)
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
        let resolved = bench.broker.resolve(&operator(), input).await;
        resolved.ok().unwrap().vended.material.credential.owner
    };
    assert_eq!(resolve("demo").await, Owner::Org);
    bench
        .set_key(OwnerRef::Member("alex"), "demo", "the-members-key-0000")
        .await;
    assert_eq!(resolve("other").await, Owner::Org);
    assert_eq!(resolve("demo").await, Owner::Org);
}
