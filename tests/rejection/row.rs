//! Tokens that are rejected one right after the other: so many are replaced, and then the caller is told so.

use tonic::Code;

use crate::scene::{Office, lease, report, report_all};
use crate::support::client::{metadata, retry_after, secret};
use crate::support::reason;

const SAID: &str = "403 this organization has been disabled";

// req: B7 C5
#[tokio::test]
async fn tokens_rejected_in_a_row_end_with_the_providers_message() {
    let office = Office::start(1, "").await;
    let task = office.task(0).await;
    let agent = office.agent(&[&task]).await;
    let lease = lease(&agent.caller, &task).await;
    let (last, refused) = report_all(&agent.caller, &lease.id, lease.generation).await;
    assert_eq!((lease.generation, last), (2, 5), "three replacements");
    assert_eq!(reason(&refused), "REAUTH_FAILED");
    // One exchange for the first token, three that were forced.
    assert_eq!((office.calls(0), office.providers[0].replays()), (4, 0));

    for _ in 0..20 {
        let refused = report(&agent.caller, &lease.id, last, SAID).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(&refused), "REAUTH_FAILED");
        assert_eq!(metadata(&refused, "provider_message"), SAID);
        assert_eq!(metadata(&refused, "credential"), office.grants[0]);
        assert!(refused.message().contains(SAID), "{}", refused.message());
        assert!(retry_after(&refused).is_none(), "trying again does not help");
    }
    assert_eq!(office.calls(0), 4, "nobody is asked for it");
    // What is there is still handed out: the provider may have changed its mind.
    let again = crate::scene::lease(&agent.caller, &task).await;
    assert_eq!((again.id, again.generation), (lease.id, last));
}

// req: B7
#[tokio::test]
async fn another_for_whom_the_same_token_works_is_served_and_the_credential_says_who_fails() {
    let office = Office::start(1, "").await;
    let (task, other_task) = (office.task(0).await, office.task(0).await);
    let agent = office.agent(&[&task]).await;
    let other = office.agent(&[&other_task]).await;
    let first = lease(&agent.caller, &task).await;
    let others = lease(&other.caller, &other_task).await;
    assert_eq!(office.shown(0).await.last_error, "");
    let (last, refused) = report_all(&agent.caller, &first.id, 2).await;
    assert_eq!(reason(&refused), "REAUTH_FAILED");

    let held = lease(&other.caller, &other_task).await;
    assert_eq!((&held.id, held.generation), (&others.id, last));
    // A token that is too old for it is replaced without a call, and its own row begins with its own first report.
    let replaced = report(&other.caller, &others.id, 2, "401").await.unwrap();
    assert_eq!(secret(&replaced.lease.unwrap()), secret(&held));
    let calls = office.calls(0);
    assert!(
        report(&other.caller, &others.id, last, "401")
            .await
            .unwrap()
            .exchanged
    );
    assert_eq!(office.calls(0), calls + 1);

    let shown = office.shown(0).await;
    assert_eq!(shown.health(), credbroker::proto::CredentialHealth::Ok);
    assert!(
        shown.last_error.contains(&agent.enrolled.agent),
        "{}",
        shown.last_error
    );
    assert!(
        !shown.last_error.contains(&other.enrolled.agent),
        "{}",
        shown.last_error
    );
    office.minutes(24 * 60);
    assert_eq!(office.shown(0).await.last_error, "", "it is news for a day");
}

// req: B7
#[tokio::test]
async fn a_token_that_worked_and_a_while_and_signing_in_begin_anew() {
    let config = "[refresh]\nforced_rotations_per_hour_per_credential = 100\n\
                  forced_rotations_per_hour_per_agent = 100\n";
    let office = Office::start(1, config).await;
    let task = office.task(0).await;
    let agent = office.agent(&[&task]).await;
    let lease = lease(&agent.caller, &task).await;
    let agent = &agent.caller;

    // Each lasts for five minutes: that is what rejections are like where nothing is wrong.
    let mut generation = lease.generation;
    for _ in 0..8 {
        office.minutes(5);
        let answer = report(agent, &lease.id, generation, "401").await.unwrap();
        generation = answer.lease.unwrap().generation;
    }
    // One of them was the first of this row.
    let (last, refused) = report_all(agent, &lease.id, generation).await;
    assert_eq!(
        (last, reason(&refused).as_str()),
        (generation + 2, "REAUTH_FAILED")
    );

    // The same report does not come to work by being repeated for a while, and then the row is over.
    office.minutes(4);
    assert!(report(agent, &lease.id, last, "401").await.is_err());
    office.minutes(6);
    let (last, refused) = report_all(agent, &lease.id, last).await;
    assert_eq!(
        (last, reason(&refused).as_str()),
        (generation + 5, "REAUTH_FAILED")
    );

    // A new grant has nothing to do with what was rejected of the old.
    office.connect(0).await;
    assert_eq!(office.shown(0).await.last_error, "");
    let found = report(agent, &lease.id, last, "401").await.unwrap();
    let new = found.lease.unwrap().generation;
    let (last, refused) = report_all(agent, &lease.id, new).await;
    assert_eq!((last, reason(&refused).as_str()), (new + 3, "REAUTH_FAILED"));
}

// req: B7
#[tokio::test]
async fn neither_a_restart_nor_a_new_lease_nor_repeating_a_report_forgives() {
    let office = Office::start(1, "[refresh]\nrejections_in_a_row = 2\n").await;
    let task = office.task(0).await;
    let mut agent = office.agent(&[&task]).await;
    let first = lease(&agent.caller, &task).await;
    for _ in 0..5 {
        // An answer that was lost is asked for again: that is one rejection.
        let answer = report(&agent.caller, &first.id, 2, "401").await.unwrap();
        assert_eq!(answer.lease.unwrap().generation, 3);
    }
    let office = office.restart(&mut [&mut agent]).await;
    let given_back = credbroker::proto::ReleaseLeaseRequest {
        lease: first.id.clone(),
    };
    agent.caller.broker().release_lease(given_back).await.unwrap();
    let second = lease(&agent.caller, &task).await;
    assert_ne!(second.id, first.id);
    assert_eq!(second.generation, 3);
    let answer = report(&agent.caller, &second.id, 3, "401").await.unwrap();
    assert_eq!(answer.lease.unwrap().generation, 4);
    let refused = report(&agent.caller, &second.id, 4, "401").await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_FAILED");
    let office = office.restart(&mut [&mut agent]).await;
    let refused = report(&agent.caller, &second.id, 4, "401").await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_FAILED");
    assert_eq!(office.calls(0), 3);
}

// req: B7
#[tokio::test]
async fn what_somebody_else_had_replaced_does_not_count() {
    let office = Office::start(1, "").await;
    let (task, other_task) = (office.task(0).await, office.task(0).await);
    let (agent, other) = (office.agent(&[&task]).await, office.agent(&[&other_task]).await);
    let mine = lease(&agent.caller, &task).await;
    let others = lease(&other.caller, &other_task).await;
    let mut generation = mine.generation;
    for _ in 0..3 {
        let forced = report(&other.caller, &others.id, generation, "401")
            .await
            .unwrap();
        assert!(forced.exchanged);
        // Too late: it makes no call, and shows nothing of the tokens that the provider issues.
        let late = report(&agent.caller, &mine.id, generation, "401").await.unwrap();
        assert!(!late.exchanged);
        generation = late.lease.unwrap().generation;
    }
    let first = report(&agent.caller, &mine.id, generation, "401").await.unwrap();
    assert!(first.exchanged);
}
