//! What a second reading of the broker found: small windows and full queues, each with its test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "review/bench.rs"]
mod bench;
mod support;

use bench::{Bench, granted, operator};
use credbroker::domain::reason::Reason;
use credbroker::service::NewNamed;

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
