//! Accounts, usage, cost events and sums of spend: every amount counts once, whatever is repeated, raced or killed.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "billing/accounts.rs"]
mod accounts;
#[path = "review/bench.rs"]
mod bench;
#[path = "billing/events.rs"]
mod events;
#[path = "billing/kill.rs"]
mod kill;
#[path = "billing/modes.rs"]
mod modes;
#[path = "billing/quota.rs"]
mod quota;
#[allow(dead_code)]
#[path = "tokens/scene.rs"]
mod scene;
#[path = "review/store.rs"]
mod store;
#[path = "billing/sums.rs"]
mod sums;
mod support;
#[path = "billing/usage.rs"]
mod usage;

use std::time::Duration;

use credbroker::proto::{self, ListCostEventsRequest, SummarizeSpendRequest};
use support::broker::{MEMBER, ORG};
use support::{Caller, TestBroker};
use tonic::Status;

/// How long anything may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// An org with a key of its own, and automation that resolves for its tasks: each task's first resolution is a
/// dispatch.
struct Shop {
    broker: TestBroker,
    operator: Caller,
    api_key: String,
}

impl Shop {
    async fn open(options: support::Options) -> Self {
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        operator.set_key(ORG, "", "the-orgs-own-key-000").await;
        let (_, api_key) = operator.make_broad_api_key(ORG).await;
        Self {
            broker,
            operator,
            api_key,
        }
    }

    async fn automation(&self) -> Caller {
        self.broker.caller(Some(&self.api_key)).await
    }

    /// Dispatches as often, each for a task of its own; returns the leases.
    async fn dispatch(&self, times: usize) -> Vec<proto::Lease> {
        let automation = self.automation().await;
        let mut leases = Vec::new();
        for _ in 0..times {
            let task = self.operator.make_task(ORG, MEMBER).await;
            leases.push(automation.resolve(&task).await.unwrap().lease.unwrap());
        }
        leases
    }

    async fn restart(self) -> Self {
        let broker = self.broker.restart().await;
        let operator = broker.operator().await;
        Self {
            broker,
            operator,
            api_key: self.api_key,
        }
    }
}

/// All cost events that the caller sees.
async fn cost_events(caller: &Caller, filter: Option<proto::CostFilter>) -> Vec<proto::CostEvent> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListCostEventsRequest {
            org: ORG.to_owned(),
            filter: filter.clone(),
            page_size: 3,
            page_token,
            ..Default::default()
        };
        let page = caller.billing().list_cost_events(request).await.unwrap();
        let page = page.into_inner();
        all.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn try_spend(
    caller: &Caller,
    request: SummarizeSpendRequest,
) -> Result<proto::SummarizeSpendResponse, Status> {
    let org = ORG.to_owned();
    let request = SummarizeSpendRequest { org, ..request };
    Ok(caller.billing().summarize_spend(request).await?.into_inner())
}

/// The sum of all that the caller sees.
async fn total(caller: &Caller) -> proto::SpendRow {
    let sums = try_spend(caller, SummarizeSpendRequest::default()).await;
    sums.unwrap().total.unwrap()
}

fn by(dimensions: &[proto::SpendDimension]) -> SummarizeSpendRequest {
    SummarizeSpendRequest {
        group_by: dimensions.iter().map(|dimension| *dimension as i32).collect(),
        ..Default::default()
    }
}
