//! Changes of the policy whose end nobody saw, and those that others look into at length.

use std::sync::Arc;
use std::time::Duration;

use crate::bench::{self, Bench, granted, live_operator};
use credbroker::domain::actor::Caller;
use credbroker::domain::matrix::Verdict;
use credbroker::domain::mode::AuthMode;
use credbroker::domain::reason::Reason;
use credbroker::domain::refusal::Refusal;
use credbroker::service::{Broker, CellsInput, Changing, NewCell, OwnerRef, PolicyChanged, ScopeRef};

async fn deny(
    broker: &Arc<Broker>,
    caller: &Caller,
    org: &str,
    mode: AuthMode,
    validate_only: bool,
) -> Result<PolicyChanged, Refusal> {
    let cell = NewCell {
        mode,
        provider: String::new(),
        model: String::new(),
        verdict: Verdict::Deny,
    };
    let input = CellsInput {
        set: vec![cell],
        remove: Vec::new(),
        replace: false,
    };
    let how = Changing {
        validate_only,
        ..Changing::default()
    };
    let scope = ScopeRef { org, project: "" };
    broker.set_cells(caller, scope, input, how).await
}

/// A denial that was stored, and of which nobody heard, comes into force without another change.
// req: E2
#[tokio::test]
async fn a_change_whose_answer_was_lost_is_put_in_force_once_the_store_is_read_again() {
    let bench = Bench::start(granted).await;
    let admin = live_operator(&bench.broker, "admin").await;
    bench.set_key(OwnerRef::Org, "demo", "the-orgs-own-key-000").await;
    assert!(!bench.broker.mend_policy().await.unwrap());

    bench.lose("policy-head");
    let lost = deny(&bench.broker, &admin, bench::ORG, AuthMode::Byok, false).await;
    assert_eq!(lost.unwrap_err().reason, Reason::StoreUnavailable);
    assert_eq!(bench.broker.policy().version, 0, "it could not be read back");
    assert!(bench.broker.mend_policy().await.is_err());
    bench.mend();
    assert!(bench.broker.mend_policy().await.unwrap());
    assert_eq!(bench.broker.policy().version, 1);
    assert!(bench.resolve().await.is_err(), "byok is denied");
    assert!(!bench.broker.mend_policy().await.unwrap());
}

/// A denial in a hurry is made while another change, and a preview, still look at tasks.
// req: E2 E14
#[tokio::test]
async fn a_denial_waits_for_nobody_who_looks_into_another_change() {
    let bench = Arc::new(Bench::start(granted).await);
    let admin = live_operator(&bench.broker, "admin").await;
    for validate_only in [true, false] {
        let (is_there, go_on) = bench.hold_scan("task/");
        let slow = tokio::spawn({
            let (bench, admin) = (Arc::clone(&bench), admin.clone());
            async move { deny(&bench.broker, &admin, "", AuthMode::Metered, validate_only).await }
        });
        is_there.await.unwrap();
        let mode = if validate_only {
            AuthMode::Byok
        } else {
            AuthMode::OAuth
        };
        let quick = deny(&bench.broker, &admin, bench::ORG, mode, false);
        let quick = tokio::time::timeout(Duration::from_secs(20), quick).await;
        let quick = quick.unwrap().unwrap().version;
        go_on.send(()).unwrap();
        let slow = slow.await.unwrap().unwrap();
        // It was looked into before, and is made after.
        let expected = if validate_only { 0 } else { quick + 1 };
        assert_eq!(slow.version, expected);
        let policy = bench.broker.policy();
        assert_eq!(policy.version, quick + u64::from(!validate_only));
        assert_eq!(policy.system.cells().len(), usize::from(!validate_only));
    }
    assert_eq!(bench.broker.policy().orgs.len(), 1);
}

/// Previews past the places there are for them are refused; a change is made all the same, and says that nothing
/// is known of what it does.
// req: E2 E14
#[tokio::test]
async fn past_so_many_previews_there_is_no_other_but_changes_are_made() {
    let bench = Arc::new(Bench::start(granted).await);
    let admin = live_operator(&bench.broker, "admin").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let (is_there, go_on) = bench.hold_scan("task/");
        let looking = tokio::spawn({
            let (bench, admin) = (Arc::clone(&bench), admin.clone());
            async move { deny(&bench.broker, &admin, bench::ORG, AuthMode::Byok, true).await }
        });
        is_there.await.unwrap();
        held.push((looking, go_on));
    }
    let refused = deny(&bench.broker, &admin, bench::ORG, AuthMode::Byok, true).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason, Reason::Overloaded);
    assert!(refused.retry_after.is_some());
    let made = deny(&bench.broker, &admin, bench::ORG, AuthMode::Byok, false)
        .await
        .unwrap();
    assert_eq!((made.version, made.modes.total, made.agents.total), (1, 0, 0));
    assert!(made.modes.at_least && made.agents.at_least);
    for (looking, go_on) in held {
        go_on.send(()).unwrap();
        assert!(!looking.await.unwrap().unwrap().modes.at_least);
    }
    assert!(
        deny(&bench.broker, &admin, bench::ORG, AuthMode::OAuth, true)
            .await
            .is_ok()
    );
}
