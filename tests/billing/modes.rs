//! The platform's own keys over the port: metered until the credit is used up, shared until the day's quota is.

use std::sync::Arc;
use std::time::Duration;

use credbroker::clock::Clock as _;
use credbroker::proto::{self, AddCreditRequest, AuthMode, KeyPool, SpendDimension};
use futures_util::future::join_all;
use prost_types::FieldMask;
use tonic::Status;

use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::client::{metadata, retry_after};
use crate::support::clock::MovedClock;
use crate::support::{Caller, Options, TestBroker, reason};
use crate::{by, cost_events, total, try_spend};

const REGISTRY: &str = r#"
[executors.metered-agent]
native_provider = "demo"
providers = { demo = ["metered"] }

[executors.shared-agent]
native_provider = "demo"
providers = { demo = ["shared"] }
"#;

const CONFIG: &str = "[proxy]\nbase_url = \"https://proxy.example\"\n[shared]\ndispatches_per_day = 30\n";

/// A broker with platform keys, and automation of an org.
struct Platform {
    broker: TestBroker,
    clock: Arc<MovedClock>,
    operator: Caller,
    api_key: String,
}

impl Platform {
    async fn start() -> Self {
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            config: CONFIG.to_owned(),
            registry: REGISTRY.to_owned(),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        for pool in [KeyPool::Metered, KeyPool::Shared] {
            let key = "the-platforms-own-key-000";
            operator.set_managed_key(pool, "demo", key).await.unwrap();
        }
        let (_, api_key) = operator.make_broad_api_key(ORG).await;
        Self {
            broker,
            clock,
            operator,
            api_key,
        }
    }

    async fn restart(self) -> Self {
        let broker = self.broker.restart().await;
        let operator = broker.operator().await;
        Self {
            broker,
            operator,
            ..self
        }
    }

    async fn automation(&self) -> Caller {
        self.broker.caller(Some(&self.api_key)).await
    }

    async fn task(&self, executor: &str) -> String {
        let request = proto::CreateTaskRequest {
            org: ORG.to_owned(),
            member: MEMBER.to_owned(),
            project: PROJECT.to_owned(),
            executor: executor.to_owned(),
            ..Default::default()
        };
        let made = self.operator.tasks().create_task(request).await.unwrap();
        made.into_inner().task.unwrap().id
    }

    async fn dispatch(&self, executor: &str) -> Result<proto::Lease, Status> {
        let task = self.task(executor).await;
        let answer = self.automation().await.resolve(&task).await?;
        Ok(answer.lease.unwrap())
    }

    async fn add_credit(&self, micros: i64, number: u8) {
        let request = AddCreditRequest {
            org: ORG.to_owned(),
            micros,
            request_id: format!("00000000-0000-4000-8000-0000000000{number:02x}"),
            note: String::new(),
        };
        self.operator.billing().add_credit(request).await.unwrap();
    }

    /// Reports one event of usage; the balance after it.
    async fn used(&self, lease: &str, micros: i64) -> i64 {
        self.report("call-1", lease, micros).await.balance_micros
    }

    async fn report(&self, event_id: &str, lease: &str, micros: i64) -> proto::ReportUsageResponse {
        let event = proto::UsageEvent {
            event_id: event_id.to_owned(),
            lease: lease.to_owned(),
            micros,
            time: Some(prost_types::Timestamp {
                seconds: self.clock.wall().seconds(),
                nanos: 0,
            }),
            ..Default::default()
        };
        let request = proto::ReportUsageRequest {
            org: String::new(),
            events: vec![event],
        };
        let answer = self.automation().await.billing().report_usage(request).await;
        answer.unwrap().into_inner()
    }

    async fn release(&self, lease: &str) {
        let request = proto::ReleaseLeaseRequest {
            lease: lease.to_owned(),
        };
        self.automation()
            .await
            .broker()
            .release_lease(request)
            .await
            .unwrap();
    }
}

/// Giving the lease back and asking anew makes nothing free, and fills no store.
// req: A2 E8 E12
#[tokio::test]
async fn usage_is_drawn_whatever_became_of_the_lease() {
    let platform = Platform::start().await;
    platform.add_credit(1_000, 1).await;
    let task = platform.task("metered-agent").await;
    let resolve = || async {
        let answer = platform.automation().await.resolve(&task).await.unwrap();
        answer.lease.unwrap().id
    };
    let first = resolve().await;
    for _ in 0..4 {
        platform.release(&first).await;
        assert_eq!(resolve().await, first, "another lease for each time");
    }
    platform.release(&first).await;
    assert_eq!(platform.report("released", &first, 100).await.balance_micros, 900);
    assert_eq!(resolve().await, first);
    assert_eq!(
        platform.report("made-again", &first, 100).await.balance_micros,
        800
    );

    // Over, and followed by another one.
    platform.clock.advance(Duration::from_secs(3_601));
    let second = resolve().await;
    assert_ne!(second, first);
    assert_eq!(
        platform.report("straddled", &first, 100).await.balance_micros,
        700
    );
    assert_eq!(total(&platform.operator).await.dispatches, 1);

    // Past the time after which other leases are collected, and past that of these.
    let day = Duration::from_secs(86_400);
    platform.clock.advance(30 * day);
    let _swept = platform.broker.broker.sweep().await.unwrap();
    for lease in [&first, &second] {
        let balance = platform.report(&format!("late-{lease}"), lease, 100).await;
        assert_eq!(
            balance.results[0].outcome(),
            proto::UsageOutcome::Recorded,
            "{balance:?}"
        );
    }
    platform.clock.advance(2 * day);
    let swept = platform.broker.broker.sweep().await.unwrap();
    assert_eq!(swept.leases, 2);
    let gone = platform.report("gone", &first, 100).await;
    assert_eq!(gone.results[0].outcome(), proto::UsageOutcome::Refused);
    assert_eq!(gone.balance_micros, 500);
}

// req: A2 E8 E12
#[tokio::test]
async fn metered_is_blocked_without_credit_and_goes_on_with_it() {
    let platform = Platform::start().await;
    let refused = platform.dispatch("metered-agent").await.unwrap_err();
    assert_eq!(reason(&refused), "CREDITS_EXHAUSTED");
    assert_eq!(
        total(&platform.operator).await.dispatches,
        0,
        "what is refused costs nothing"
    );

    platform.add_credit(1_000, 1).await;
    let task = platform.task("metered-agent").await;
    let automation = platform.automation().await;
    let lease = automation.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(lease.mode(), AuthMode::Metered);
    assert_eq!(platform.used(&lease.id, 1_000).await, 0);
    let refused = platform.dispatch("metered-agent").await.unwrap_err();
    assert_eq!(reason(&refused), "CREDITS_EXHAUSTED");

    let platform = platform.restart().await;
    let refused = platform.dispatch("metered-agent").await.unwrap_err();
    assert_eq!(reason(&refused), "CREDITS_EXHAUSTED", "the balance survives");
    platform.add_credit(1, 2).await;
    platform.dispatch("metered-agent").await.unwrap();
    assert_eq!(
        platform.used(&lease.id, 1_000).await,
        1,
        "counted once also across a restart"
    );
    let events = cost_events(&platform.operator, None).await;
    assert_eq!(events.len(), 2);
    assert!(
        events.iter().all(|event| event.pool == "metered_pool_demo"),
        "{events:?}"
    );
    let withdrawn = proto::UpdateAccountRequest {
        account: Some(proto::Account {
            org: ORG.to_owned(),
            metered: proto::Entitlement::Withdrawn as i32,
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["metered".to_owned()],
        }),
    };
    platform
        .operator
        .billing()
        .update_account(withdrawn)
        .await
        .unwrap();
    let refused = platform.dispatch("metered-agent").await.unwrap_err();
    assert_eq!(reason(&refused), "METERED_NOT_ENTITLED");
}

// req: E9 E12 N1
#[tokio::test(flavor = "multi_thread")]
async fn of_200_shared_dispatches_at_once_exactly_the_quota_comes_about() {
    let platform = Platform::start().await;
    let tasks = join_all((0..200).map(|_| platform.task("shared-agent"))).await;
    let automation = platform.automation().await;
    let storm = join_all(tasks.iter().map(|task| automation.resolve(task))).await;
    let came = storm.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(came, 30);
    for refused in storm.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(reason(refused), "SHARED_QUOTA_EXCEEDED");
        assert_eq!(metadata(refused, "limit"), "30");
        assert!(metadata(refused, "resets_at").ends_with("T00:00:00Z"));
        assert!(retry_after(refused).unwrap() <= Duration::from_secs(86_400));
    }
    // Asking again for what came about takes no other place.
    let held = storm.iter().position(Result::is_ok).unwrap();
    automation.resolve(&tasks[held]).await.unwrap();
    assert_eq!(cost_events(&platform.operator, None).await.len(), 30);
    let sums = try_spend(&platform.operator, by(&[SpendDimension::Mode]))
        .await
        .unwrap();
    assert_eq!(
        (sums.rows[0].keys[0].as_str(), sums.rows[0].dispatches),
        ("shared", 30)
    );

    let platform = platform.restart().await;
    let refused = platform.dispatch("shared-agent").await.unwrap_err();
    assert_eq!(
        reason(&refused),
        "SHARED_QUOTA_EXCEEDED",
        "a restart gives nothing back"
    );
    let more = proto::UpdateAccountRequest {
        account: Some(proto::Account {
            org: ORG.to_owned(),
            shared_per_day: Some(31),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["shared_per_day".to_owned()],
        }),
    };
    platform.operator.billing().update_account(more).await.unwrap();
    platform.dispatch("shared-agent").await.unwrap();
    assert!(platform.dispatch("shared-agent").await.is_err());
    platform.clock.advance(Duration::from_secs(86_400));
    platform.dispatch("shared-agent").await.unwrap();
}
