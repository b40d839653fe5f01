//! Callers that report every new generation as rejected, as fast as they can.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use crate::scene::{Office, direct, lease, report, report_all};
use crate::support::client::{retry_after, secret};
use crate::support::{Caller, reason};

/// Reports over all leases, one after the other and then all at once, until each is refused; returns why, with how
/// often.
async fn storm(caller: &Caller, leases: &[String]) -> BTreeMap<String, usize> {
    let mut why = BTreeMap::new();
    let mut refused = |status| *why.entry(reason(&status)).or_default() += 1;
    for lease in leases {
        refused(report_all(caller, lease, 2).await.1);
    }
    for _ in 0..8 {
        let reports = leases.iter().map(|lease| report_all(caller, lease, 2));
        join_all(reports)
            .await
            .into_iter()
            .for_each(|(_, status)| refused(status));
    }
    why
}

// req: B7
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reports_everything_wears_no_grant_out_over_leases_and_restarts() {
    // As shipped: 6 an hour of a credential, half of them for any one.
    let office = Office::start(1, "").await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(office.task(0).await);
    }
    let (honest_task, tasks) = tasks.split_first().unwrap();
    let mut hostile = office.agent(tasks).await;
    let mut honest = office.agent(&[honest_task]).await;
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(lease(&hostile.caller, task).await.id);
    }
    lease(&honest.caller, honest_task).await;
    let first = office.calls(0);

    let why = storm(&hostile.caller, &leases).await;
    assert_eq!(office.calls(0) - first, 3, "{why:?}");
    assert!(why.contains_key("ROTATION_LIMITED"), "{why:?}");
    // Whoever else works with the grant works on, with a token that the provider takes.
    let held = lease(&honest.caller, honest_task).await;
    assert_eq!(held.generation, 5);

    let mut office = office;
    for _ in 0..3 {
        office = office.restart(&mut [&mut hostile, &mut honest]).await;
        storm(&hostile.caller, &leases).await;
        assert_eq!(office.calls(0) - first, 3, "a restart forgives nothing");
        let again = lease(&honest.caller, honest_task).await;
        assert_eq!(secret(&again), secret(&held));
    }
    // Its own reports are heard: the other half of the hour is not the hostile one's to use up.
    let honest_lease = lease(&honest.caller, honest_task).await.id;
    let replaced = report(&honest.caller, &honest_lease, 5, "401").await.unwrap();
    assert!(replaced.exchanged);
    let refused = report(&hostile.caller, &leases[1], 6, "401").await.unwrap_err();
    assert_eq!(reason(&refused), "ROTATION_LIMITED");
    let wait = retry_after(&refused).unwrap();
    assert!(
        wait > Duration::from_secs(3_000) && wait <= Duration::from_secs(3_600),
        "{wait:?}"
    );

    // The next hour has as many, and no more.
    office.minutes(61);
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(lease(&hostile.caller, task).await.id);
    }
    storm(&hostile.caller, &leases).await;
    assert_eq!(office.calls(0) - first, 7);
    assert_eq!(office.providers[0].replays(), 0);
    assert_eq!(lease(&honest.caller, honest_task).await.generation, 9);
}

const TIGHT: &str = "[refresh]\nforced_rotations_per_hour_per_agent = 4\nrejections_in_a_row = 3600\n";

// req: B7
#[tokio::test]
async fn nor_does_it_many_grants_and_the_limit_is_its_own() {
    let office = Office::start(3, TIGHT).await;
    let mut tasks = Vec::new();
    for member in 0..3 {
        tasks.push(office.task(member).await);
    }
    let mut hostile = office.agent(&tasks).await;
    let honest_task = office.task(2).await;
    let honest = office.agent(&[&honest_task]).await;
    let mut leases = Vec::new();
    for task in &tasks {
        leases.push(lease(&hostile.caller, task).await.id);
    }
    let forced = |office: &Office| (0..3).map(|member| office.calls(member) - 1).sum::<usize>();
    storm(&hostile.caller, &leases).await;
    assert_eq!(forced(&office), 4);
    let office = office.restart(&mut [&mut hostile]).await;
    storm(&hostile.caller, &leases).await;
    assert_eq!(forced(&office), 4);

    // Somebody else has a limit of their own, and all of the credential's.
    let honest = office.broker.agent(&honest.enrolled).await;
    let held = lease(&honest, &honest_task).await;
    let replaced = report(&honest, &held.id, held.generation, "401").await.unwrap();
    assert!(replaced.exchanged);
}

// req: B7 K6
#[tokio::test]
async fn an_api_key_is_limited_as_an_agent_is() {
    let office = Office::start(2, TIGHT).await;
    let automation = office.automation().await;
    let leases = [direct(&automation, 0).await, direct(&automation, 1).await];
    let forced = || (0..2).map(|member| office.calls(member) - 1).sum::<usize>();
    let ids: Vec<_> = leases.iter().map(|lease| lease.id.clone()).collect();
    let why = storm(&automation, &ids).await;
    assert_eq!(forced(), 4);
    assert_eq!(why.into_keys().collect::<Vec<_>>(), ["ROTATION_LIMITED"]);
    let other = office.automation().await;
    let held = direct(&other, 1).await;
    assert!(
        report(&other, &held.id, held.generation, "401")
            .await
            .unwrap()
            .exchanged
    );
}
