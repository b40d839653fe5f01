//! What operators do with the journal over the port: find records, follow them, prune them; and what a flood of
//! refusals leaves in it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "journal_admin/filters.rs"]
mod filters;
#[path = "journal_admin/flood.rs"]
mod flood;
#[path = "journal_admin/follow.rs"]
mod follow;
#[path = "journal_admin/prune.rs"]
mod prune;

use std::time::Duration;

use credbroker::domain::journal::Action;
use credbroker::proto;
use support::{Caller, TestBroker};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes `count` records that concern nobody.
async fn fill(broker: &TestBroker, count: usize) {
    for _ in 0..count {
        broker.broker.record_lifecycle(Action::BrokerStart).await.unwrap();
    }
}

/// All records that fit, page by page, as a patient caller reads them.
async fn found(
    caller: &Caller,
    org: &str,
    filter: proto::RecordFilter,
    page_size: i32,
) -> Vec<proto::JournalRecord> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let request = proto::ListRecordsRequest {
            org: org.to_owned(),
            page_size,
            after_position: after,
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let page = caller.journal().list_records(request).await.unwrap().into_inner();
        assert_eq!(page.next_page_token, page.position.to_string());
        all.extend(page.records);
        after = page.position;
        if after >= page.tip_position {
            return all;
        }
    }
}
