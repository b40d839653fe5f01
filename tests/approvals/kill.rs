//! `kill -9` while agents use an approval: it is never used more often than it may be, and what a use was spent
//! on is still there.

use std::time::Duration;

use credbroker::proto::ApprovalState;
use futures_util::future::join_all;

use crate::scene::{demand, refused, unasked};
use crate::support::broker::ORG;
use crate::support::process::Installation;

const ROUNDS: u64 = 10;
const AGENTS: usize = 6;

// req: D7 N1
#[tokio::test]
async fn a_crash_never_releases_twice_and_never_loses_a_use() {
    let made = Installation::make("", "").await;
    let mut daemon = made.start().await;
    let operator = daemon.operator().await;
    operator.make_org(ORG).await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    demand(&operator, credbroker::proto::ApprovalPosture::Required).await;
    let (_, api_key) = operator.make_api_key(ORG).await;
    for round in 0..ROUNDS {
        let operator = daemon.operator().await;
        let automation = daemon.caller(Some(&api_key)).await;
        // A task a round, so that no lease of an earlier one stands.
        let spec = format!("sha256:{round}");
        let task = operator
            .make_task_with(crate::support::broker::MEMBER, &spec)
            .await;
        // Pins the task, so that it is the approval and nothing else that the agents race for.
        automation.resolve_by(&task, "").await.unwrap();
        let mut enrolled = Vec::new();
        for _ in 0..AGENTS {
            enrolled.push(daemon.enroll(&operator, &task).await);
        }
        let request = credbroker::proto::CreateApprovalRequest {
            org: ORG.to_owned(),
            ..unasked(&spec)
        };
        let approval = operator.approve(request).await.unwrap();
        let mut agents = Vec::new();
        for one in &enrolled {
            let agent = daemon.agent(one).await;
            // The first use of its key is behind it, so that the race is for the approval.
            let _ = agent.resolve_by(&task, "").await;
            agents.push(agent);
        }
        let storm = agents
            .iter()
            .map(|agent| agent.resolve_by(&task, &approval.token));
        let storm = join_all(storm);
        let killing = async {
            tokio::time::sleep(Duration::from_micros(round * round * 120)).await;
            daemon.kill().await;
        };
        let (before, ()) = tokio::join!(storm, killing);
        let given: Vec<_> = before.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert!(given.len() <= 1, "given out twice before the crash");

        daemon = made.start().await;
        let operator = daemon.operator().await;
        let spent = operator.approval(&approval.id).await.unwrap().uses;
        assert!(spent <= 1);
        assert!(given.len() <= spent as usize, "what was answered is not spent");
        let mut after = Vec::new();
        for one in &enrolled {
            let agent = daemon.agent(one).await;
            after.push(agent.resolve_by(&task, &approval.token).await);
        }
        let held: Vec<_> = after.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(held.len(), 1, "round {round}: the use is lost, or there are two");
        if let [first] = given[..] {
            assert_eq!(held[0].id, first.id, "another lease than was answered");
        }
        let shown = operator.approval(&approval.id).await.unwrap();
        assert_eq!((shown.uses, shown.state()), (1, ApprovalState::Spent));
        for answer in after.into_iter().filter(Result::is_err) {
            assert_eq!(refused(answer), "APPROVAL_SPENT");
        }
        let records = operator.records().await;
        let of_this = records
            .iter()
            .filter(|record| record.subject.values().any(|value| *value == approval.id));
        assert!(of_this.count() > 1, "released without a record");
    }
}
