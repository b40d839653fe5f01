//! `kill -9` amid dispatches and reports: one cost event a lease, one draw an event, in the journal and the sums.

use std::collections::BTreeSet;
use std::time::Duration;

use credbroker::proto;
use futures_util::future::join_all;

use crate::support::broker::{MEMBER, ORG, now};
use crate::support::process::Installation;
use crate::{cost_events, total};

const ROUNDS: u64 = 8;
const AT_ONCE: usize = 12;

// req: E12 N1
#[tokio::test]
async fn after_a_crash_there_is_one_event_for_each_lease() {
    let made = Installation::make("", "").await;
    let mut daemon = made.start().await;
    let operator = daemon.operator().await;
    operator.make_org(ORG).await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let (_, api_key) = operator.make_broad_api_key(ORG).await;
    let (mut leases, mut usage) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        let operator = daemon.operator().await;
        let automation = daemon.caller(Some(&api_key)).await;
        let mut tasks = Vec::new();
        for _ in 0..AT_ONCE {
            tasks.push(operator.make_task(ORG, MEMBER).await);
        }
        let event = |lease: &str, task: &str| proto::ReportUsageRequest {
            events: vec![proto::UsageEvent {
                event_id: task.to_owned(),
                lease: lease.to_owned(),
                micros: 7,
                time: Some(prost_types::Timestamp {
                    seconds: now().seconds() - 1,
                    nanos: 0,
                }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let dispatching = join_all(tasks.iter().map(|task| async {
            let lease = automation.resolve(task).await.ok()?.lease?;
            let request = event(&lease.id, task);
            let mut billing = automation.billing();
            let _ = billing.report_usage(request.clone()).await;
            Some((lease.id, request))
        }));
        let killing = async {
            tokio::time::sleep(Duration::from_micros(500 + round * round * 500)).await;
            daemon.kill().await;
        };
        let (before, ()) = tokio::join!(dispatching, killing);
        daemon = made.start().await;
        let automation = daemon.caller(Some(&api_key)).await;
        // Asking and reporting again settles what nobody was told about, and counts nothing twice.
        for (task, answered) in tasks.iter().zip(before) {
            let lease = automation.resolve(task).await.unwrap().lease.unwrap().id;
            let request = match answered {
                Some((first, request)) => {
                    assert_eq!(lease, first, "another lease than was answered");
                    request
                }
                None => event(&lease, task),
            };
            for _ in 0..2 {
                automation.billing().report_usage(request.clone()).await.unwrap();
            }
            assert!(leases.insert(lease));
            usage += 1;
        }
        let operator = daemon.operator().await;
        let events = cost_events(&operator, None).await;
        let told: Vec<_> = events.iter().map(|event| event.lease.clone()).collect();
        assert_eq!(told.len(), leases.len(), "round {round}: {events:?}");
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), leases);
        assert!(
            events
                .iter()
                .all(|event| event.holder.starts_with("key_") && !event.project.is_empty())
        );
        let total = total(&operator).await;
        assert_eq!(
            (total.dispatches, total.events, total.micros),
            (leases.len() as u64, usage, 7 * usage as i64)
        );
    }
}
