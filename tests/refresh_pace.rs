//! The pace of refreshes at the port: a provider in trouble is left alone and tried by one exchange, a slow one delays
//! nobody else's, a dead grant is not asked for again, and what is in use is refreshed before anybody has to wait.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use futures_util::future::join_all;
use support::broker::{ORG, connector};
use support::client::{metadata, owner, retry_after, secret};
use support::clock::MovedClock;
use support::provider::{Provider, Reply};
use support::{Caller, Options, TestBroker, reason};
use tonic::Status;

/// How long the provider's access tokens live.
const LIFE: Duration = Duration::from_secs(6_000);
/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many credentials have to fail before the provider is left alone.
const TRIP: usize = 5;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A member of the town: the task that is resolved, and its grant.
#[derive(Clone)]
struct Member {
    task: String,
    credential: String,
}

/// Many members, each with a grant of its own, and the control plane that resolves for them.
struct Town {
    broker: TestBroker,
    clock: Arc<MovedClock>,
    provider: Provider,
    operator: Caller,
    control: Caller,
    members: Vec<Member>,
}

type Answer = Result<proto::Lease, Status>;

async fn resolve(control: &Caller, member: &Member) -> Answer {
    let answer = control.resolve_for(&member.task, Duration::ZERO).await?;
    Ok(answer.lease.unwrap())
}

impl Town {
    /// With so many members of connector `demo`, whose first exchange is done. `more`: further connectors.
    async fn new(members: usize, keys: &str, more: &str, config: &str) -> Self {
        let provider = Provider::start(LIFE).await;
        let clock = Arc::new(MovedClock::default());
        let demo = connector(&provider.token_url(), "tests", keys);
        let options = Options {
            config: config.to_owned(),
            connectors: format!("{demo}\n{more}"),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let (_, key) = operator.make_broad_api_key(ORG).await;
        let control = broker.caller(Some(&key)).await;
        let mut town = Self {
            broker,
            clock,
            provider,
            operator,
            control,
            members: Vec::new(),
        };
        for number in 0..members {
            let token = town.provider.mint_another();
            let member = town
                .settle(ORG, &format!("member-{number}"), "demo", &token)
                .await;
            assert_eq!(resolve(&town.control, &member).await.unwrap().generation, 2);
            town.members.push(member);
        }
        assert_eq!(town.provider.calls(), members);
        town
    }

    /// A new member with a grant of this connector.
    async fn settle(&self, org: &str, name: &str, connector: &str, refresh_token: &str) -> Member {
        self.operator.make_member(org, name).await;
        let request = proto::ImportGrantRequest {
            org: org.to_owned(),
            owner: Some(owner(name)),
            connector: connector.to_owned(),
            refresh_token: Some(proto::Secret {
                value: refresh_token.to_owned(),
            }),
            ..Default::default()
        };
        let imported = self.operator.credentials().import_grant(request).await;
        Member {
            task: self.operator.make_task(org, name).await,
            credential: imported.unwrap().into_inner().credential.unwrap().id,
        }
    }

    /// One after the other, in their order.
    async fn resolve_each(&self) -> Vec<Answer> {
        let mut answers = Vec::new();
        for member in &self.members {
            answers.push(resolve(&self.control, member).await);
        }
        answers
    }

    async fn resolve_together(&self) -> Vec<Answer> {
        join_all(self.members.iter().map(|member| resolve(&self.control, member))).await
    }

    /// How the breaker of connector `demo` stands, as the metrics tell.
    async fn breaker(&self) -> u64 {
        self.metric("credbroker_refresh_breaker{connector=\"demo\"}")
            .await
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.broker.broker.metrics_text().await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    async fn generation(&self, member: &Member) -> u64 {
        self.operator.health_of(ORG, &member.credential).await.generation
    }

    /// The begin records of exchanges.
    async fn begun(&self) -> Vec<proto::JournalRecord> {
        let mut records = self.operator.records().await;
        records.retain(|record| record.action == "credential.refresh" && record.phase == "begin");
        records
    }
}

/// Refused for now: with a time, and without a verdict on the grant.
fn unavailable(answer: &Answer) -> Duration {
    let refused = answer.as_ref().unwrap_err();
    assert_eq!(reason(refused), "REFRESH_UNAVAILABLE", "{refused}");
    let wait = retry_after(refused).unwrap();
    assert!(wait > Duration::ZERO && wait <= seconds(305), "{wait:?}");
    wait
}

const BUSY: &str = r#"{"error":"rate_limited","error_description":"slow down"}"#;

// req: B4 N1
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_in_trouble_is_left_alone_and_tried_by_one_exchange() {
    const MEMBERS: usize = 12;
    let town = Town::new(MEMBERS, "", "", "").await;
    town.operator.make_org("other").await;
    let (_, key) = town.operator.make_broad_api_key("other").await;
    let stranger = town.broker.caller(Some(&key)).await;
    let abroad = town
        .settle("other", "kim", "demo", &town.provider.mint_another())
        .await;

    town.clock.advance(LIFE);
    town.provider.fails(429, BUSY, None);
    for answer in town.resolve_each().await {
        unavailable(&answer);
    }
    let calls = MEMBERS + TRIP;
    assert_eq!(
        town.provider.calls(),
        calls,
        "no more than show that it is the provider"
    );
    assert_eq!(town.breaker().await, 2);
    // Who was not asked for learns which connector it is, and what the provider said, but not what it said to others.
    let refused = resolve(&town.control, &town.members[MEMBERS - 1])
        .await
        .unwrap_err();
    assert_eq!(metadata(&refused, "connector"), "demo");
    assert_eq!(metadata(&refused, "provider_message"), "slow down");
    let refused = resolve(&stranger, &abroad).await.unwrap_err();
    assert_eq!(reason(&refused), "REFRESH_UNAVAILABLE");
    assert!(!refused.message().contains("slow down"), "{refused}");
    assert_eq!(metadata(&refused, "provider_message"), "");
    let shown = town
        .operator
        .health_of(ORG, &town.members[MEMBERS - 1].credential)
        .await;
    assert_eq!(shown.health(), proto::CredentialHealth::Expiring, "not touched");

    // The provider is back, which one exchange finds out; the others are not let through until it has.
    town.provider.works();
    town.provider.hold();
    town.clock.advance(seconds(301));
    let together = town.resolve_together();
    let released = async {
        town.provider.called(calls + 1).await;
        let waiting = town.metric("credbroker_refresh_exchanges{connector=\"demo\"}");
        assert!(waiting.await >= 1);
        // Time enough for others to get through, if they could.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(town.provider.calls(), calls + 1, "a single one");
        assert_eq!(town.breaker().await, 1);
        town.provider.release();
    };
    let (answers, ()) = tokio::join!(together, released);
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), refused.len()), (1, MEMBERS - 1));
    refused
        .iter()
        .for_each(|answer| assert!(unavailable(answer) <= seconds(2)));

    assert_eq!(town.breaker().await, 0);
    for answer in town.resolve_together().await {
        assert_eq!(answer.unwrap().generation, 3);
    }
    assert_eq!(town.provider.calls(), MEMBERS + TRIP + MEMBERS);
    assert_eq!(town.provider.replays(), 0);
}

/// A provider that takes no connections: what is begun for nothing is bounded just so, and ever less often.
// req: B4
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_asked_ever_less_often() {
    const MEMBERS: usize = 8;
    let mut town = Town::new(MEMBERS, "", "", "").await;
    town.clock.advance(LIFE);
    town.provider.go_away().await;
    // An hour of callers that come every twenty seconds.
    for _ in 0..180 {
        for answer in town.resolve_together().await {
            unavailable(&answer);
        }
        town.clock.advance(seconds(20));
    }
    let begun = town.begun().await.len() - MEMBERS;
    assert!(
        (TRIP..40).contains(&begun),
        "{begun} exchanges were begun in an hour"
    );
    town.provider.come_back().await;
    town.clock.advance(seconds(301));
    let back = async { while town.resolve_each().await.iter().any(Result::is_err) {} };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
}

// req: B4
#[tokio::test(flavor = "multi_thread")]
async fn what_one_grant_is_asked_to_wait_is_its_own_and_what_many_are_is_everybodys() {
    const MEMBERS: usize = 8;
    let town = Town::new(MEMBERS, "", "", "").await;
    town.clock.advance(LIFE);
    town.provider.next(Reply::Answer {
        status: 429,
        body: BUSY.to_owned(),
        retry_after: Some(120),
    });
    let answers = town.resolve_each().await;
    assert!(unavailable(&answers[0]) > seconds(100));
    assert!(answers[1..].iter().all(Result::is_ok), "the others are served");
    assert_eq!(town.provider.calls(), 2 * MEMBERS);

    town.clock.advance(LIFE);
    town.provider.fails(429, BUSY, Some(200));
    let answers = town.resolve_each().await;
    assert!(answers.iter().all(|answer| unavailable(answer) > seconds(190)));
    assert_eq!(town.provider.calls(), 2 * MEMBERS + TRIP);
    town.provider.works();
    town.clock.advance(seconds(190));
    town.resolve_each().await.iter().for_each(|answer| {
        unavailable(answer);
    });
    assert_eq!(town.provider.calls(), 2 * MEMBERS + TRIP, "as it asked");
    town.clock.advance(seconds(15));
    assert!(town.resolve_each().await.iter().all(Result::is_ok));
}

/// Only the configuration helps, and no grant is the worse for it.
// req: B4 N10
#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_client_is_shown_to_the_provider_once_a_minute() {
    const MEMBERS: usize = 8;
    let town = Town::new(MEMBERS, "", "", "").await;
    town.clock.advance(LIFE);
    town.provider.fails(401, r#"{"error":"invalid_client"}"#, None);
    // The first comes alone: any that come with it may be on their way before its answer is there.
    unavailable(&resolve(&town.control, &town.members[0]).await);
    for minute in 1..=5 {
        for answer in town.resolve_together().await {
            unavailable(&answer);
        }
        let calls = town.provider.calls() - MEMBERS;
        assert_eq!(calls, minute, "in minute {minute}");
        town.clock.advance(seconds(61));
    }
    town.provider.works();
    assert!(town.resolve_each().await.iter().all(Result::is_ok));
}

/// What is known of a generation is not asked again, however many come.
// req: B4 B5 N8
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_causes_no_storm() {
    const CALLERS: usize = 200;
    let town = Town::new(2, "", "", "").await;
    town.clock.advance(LIFE);
    let dead = &town.members[0];
    town.provider.answer(400, r#"{"error":"invalid_grant"}"#);
    let refused = resolve(&town.control, dead).await.unwrap_err();
    assert_eq!(reason(&refused), "REAUTH_REQUIRED");
    let calls = town.provider.calls();
    let answers = join_all((0..CALLERS).map(|_| resolve(&town.control, dead))).await;
    for answer in answers {
        assert_eq!(reason(&answer.unwrap_err()), "REAUTH_REQUIRED");
    }
    assert_eq!(town.provider.calls(), calls);
    assert_eq!(town.breaker().await, 0, "who refuses, works");
    assert!(resolve(&town.control, &town.members[1]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_connector_does_not_delay_another() {
    let slow = Provider::start(LIFE).await;
    // Another server's grants are other grants.
    (0..100).for_each(|_| drop(slow.mint()));
    let more = connector(&slow.token_url(), "tests", "").replace("[connectors.demo]", "[connectors.slow]");
    let config = "[refresh]\nmax_concurrent_exchanges = 4\nmax_concurrent_exchanges_per_connector = 2\n";
    let town = Town::new(4, "", &more, config).await;
    let mut crowd = Vec::new();
    for number in 0..10 {
        crowd.push(
            town.settle(ORG, &format!("slow-{number}"), "slow", &slow.mint_another())
                .await,
        );
    }
    slow.hold();
    let held: Vec<_> = crowd
        .iter()
        .map(|member| {
            let (control, member) = (town.control.clone(), member.clone());
            tokio::spawn(async move { resolve(&control, &member).await })
        })
        .collect();
    slow.called(2).await;
    let queued = async {
        while town
            .metric("credbroker_refresh_waiting{connector=\"slow\"}")
            .await
            != 8
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, queued).await.unwrap();

    // Eight wait for the slow one, and nobody does for the other.
    town.clock.advance(LIFE);
    let answers = tokio::time::timeout(PATIENCE, town.resolve_together())
        .await
        .unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(slow.calls(), 2, "its own places are all it has");
    slow.release();
    for answer in join_all(held).await {
        assert_eq!(answer.unwrap().unwrap().generation, 2);
    }
}

/// While the exchange is under way, and its answer is held back, the caller has its token already. The other member's
/// grant, which nobody used for a while, is left as it is.
// req: B5 N1
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_refreshed_before_anybody_has_to_wait() {
    let config = "[refresh]\nahead = true\n[leases]\nlifetime = \"2m\"\n";
    let town = Town::new(2, "old_access_survives = true", "", config).await;
    let [used, idle] = &town.members[..] else {
        panic!("two members");
    };
    // Due from 4 499 s to 5 849 s; in use by what was handed out in the last two minutes.
    assert_eq!(town.metric("credbroker_refresh_ahead_scheduled").await, 2);
    town.provider.hold();
    town.clock.advance(seconds(4_400));
    let old = resolve(&town.control, used).await.unwrap();
    town.clock.advance(seconds(1_350));
    resolve(&town.control, used).await.unwrap();
    town.clock.advance(seconds(110));
    town.provider.called(3).await;
    let lease = tokio::time::timeout(PATIENCE, resolve(&town.control, used))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (lease.generation, secret(&lease)),
        (2, secret(&old)),
        "without waiting"
    );

    town.provider.release();
    let renewed = async {
        while town.generation(used).await != 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    assert_eq!(resolve(&town.control, used).await.unwrap().generation, 3);
    let (begun, calls) = (town.begun().await, town.provider.calls());
    assert_eq!((begun.len(), calls), (3, 3));
    let because = begun.last().unwrap().subject.get("because");
    assert_eq!(because.map(String::as_str), Some("ahead"));
    assert!(
        begun[..2]
            .iter()
            .all(|record| !record.subject.contains_key("because"))
    );

    // The idle one was looked at and dropped; its next caller refreshes it.
    assert_eq!(town.generation(idle).await, 2);
    assert_eq!(town.metric("credbroker_refresh_ahead_scheduled").await, 1);
    assert_eq!(
        town.metric("credbroker_refreshes_ahead_total{outcome=\"granted\"}")
            .await,
        1
    );
    town.clock.advance(seconds(200));
    assert_eq!(resolve(&town.control, idle).await.unwrap().generation, 3);
    assert_eq!(town.provider.calls(), 4);
}
