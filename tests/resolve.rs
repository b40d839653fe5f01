//! Resolution over the port: whose credential, the same lease again, and what it leaves in the journal.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use support::broker::{MEMBER, ORG};
use support::client::secret;
use support::{TestBroker, reason};

// req: K2 K3 B2 D8
#[tokio::test]
async fn an_agent_gets_its_members_key_before_the_orgs() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;

    let nothing = agent.resolve(&task).await.unwrap_err();
    assert_eq!(reason(&nothing), "NO_CREDENTIAL_CONFIGURED");

    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let by_org = agent.resolve("").await.unwrap().lease.unwrap();
    assert_eq!(secret(&by_org), "the-orgs-own-key-000");

    // A task keeps what it started with; the next one gets the member's.
    operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    assert_eq!(
        secret(&agent.resolve(&task).await.unwrap().lease.unwrap()),
        "the-orgs-own-key-000"
    );
    let next = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &next).await;
    let agent = broker.agent(&enrolled).await;
    let by_member = agent.resolve(&next).await.unwrap().lease.unwrap();
    assert_eq!(secret(&by_member), "the-members-key-0000");
}
