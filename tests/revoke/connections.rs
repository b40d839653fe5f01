//! The connections of who was revoked.

use std::time::Duration;

use credbroker::proto;

use crate::revoke_agent;
use crate::support::TestBroker;

// req: D6 D5
#[tokio::test]
async fn a_revoked_agents_connections_are_closed_and_new_ones_are_not_let_in() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (enrolled, other) = (
        broker.enroll(&operator, "").await,
        broker.enroll(&operator, "").await,
    );
    let (open, bystander) = (broker.agent(&enrolled).await, broker.agent(&other).await);
    for caller in [&open, &bystander] {
        caller.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap();
    }
    assert!(!broker.is_kept_out(&enrolled).await);
    revoke_agent(&operator, &enrolled.agent, false).await;
    assert!(broker.is_kept_out(&enrolled).await);
    // The connection that was open is closed under it: what its calls are told turns from a reason into the end
    // of a connection that cannot be made anew.
    let closed = async {
        loop {
            let status = open.access().who_am_i(proto::WhoAmIRequest {}).await.unwrap_err();
            if status.code() == tonic::Code::Unavailable || status.code() == tonic::Code::Unknown {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed)
        .await
        .expect("it stays open");
    bystander
        .access()
        .who_am_i(proto::WhoAmIRequest {})
        .await
        .unwrap();
    let text = broker.broker.metrics_text().await;
    assert!(text.contains("credbroker_connected_agents 1\n"), "{text}");
    assert!(
        text.contains("credbroker_revoke_to_deny_seconds_count 1\n"),
        "{text}"
    );
}
