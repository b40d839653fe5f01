//! `kill -9` amid a crowd.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::scene::PERSONAL;
use crate::support::broker::{MEMBER, ORG, connector};
use crate::support::process::Installation;
use crate::support::provider::Provider;
use crate::support::reason;

const ROUNDS: u64 = 8;
const AT_ONCE: usize = 12;
const CAP: usize = 3;

// req: C9
#[tokio::test]
async fn after_a_crash_exactly_as_many_stand_as_may() {
    let provider = Provider::start(Duration::from_secs(86_400)).await;
    let made = Installation::make("", &connector(&provider.token_url(), "tests", PERSONAL)).await;
    let mut daemon = made.start().await;
    let operator = daemon.operator().await;
    operator.make_org(ORG).await;
    let grant = operator.import_grant(ORG, MEMBER, &provider.mint()).await.id;
    let (_, api_key) = operator.make_broad_api_key(ORG).await;
    // The grant has its token from here on: what is killed below are leases.
    let task = operator.make_task(ORG, MEMBER).await;
    let automation = daemon.caller(Some(&api_key)).await;
    let lease = automation.resolve(&task).await.unwrap().lease.unwrap().id;
    let release = |lease: String| credbroker::proto::ReleaseLeaseRequest { lease };
    automation.broker().release_lease(release(lease)).await.unwrap();

    for round in 0..ROUNDS {
        let operator = daemon.operator().await;
        let automation = daemon.caller(Some(&api_key)).await;
        let mut tasks = Vec::new();
        for _ in 0..AT_ONCE {
            tasks.push(operator.make_task(ORG, MEMBER).await);
        }
        let resolving = join_all(tasks.iter().map(|task| automation.resolve(task)));
        let killing = async {
            tokio::time::sleep(Duration::from_micros(500 + round * round * 500)).await;
            daemon.kill().await;
        };
        let (before, ()) = tokio::join!(resolving, killing);
        daemon = made.start().await;
        let automation = daemon.caller(Some(&api_key)).await;
        let mut served = BTreeSet::new();
        for (task, before) in tasks.iter().zip(before) {
            match (automation.resolve(task).await, before) {
                (Ok(now), before) => {
                    let lease = now.lease.unwrap().id;
                    if let Ok(before) = before {
                        assert_eq!(before.lease.unwrap().id, lease, "another lease than was answered");
                    }
                    served.insert(lease);
                }
                (Err(refused), before) => {
                    assert_eq!(reason(&refused), "PARALLELISM_LIMIT");
                    assert!(before.is_err(), "a lease that was answered has lost its place");
                }
            }
        }
        assert_eq!(served.len(), CAP, "round {round}");
        let shown = daemon.operator().await.health_of(ORG, &grant).await;
        assert_eq!(shown.parallelism.unwrap().standing as usize, CAP);
        for lease in served {
            automation.broker().release_lease(release(lease)).await.unwrap();
        }
    }
}
