//! The promise of one refresh, against a real OAuth server that rotates refresh tokens and revokes the whole
//! grant when a used one comes again: many agents, each over its own connection, cross the same expiry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use credbroker::proto;
use futures_util::future::join_all;
use support::broker::{MEMBER, ORG, connector};
use support::client::secret;
use support::clock::MovedClock;
use support::oidc::{Grant, OidcServer, PUBLIC_CLIENT, Stats};
use support::{Caller, NewKey, Options, TestBroker, reason};
use tokio::sync::Barrier;

const AGENTS: usize = 64;

/// Many agents of one task, whose member's grant was imported and not used yet.
struct Fleet {
    server: OidcServer,
    grant: Grant,
    broker: TestBroker,
    operator: Caller,
    task: String,
    agents: Vec<Caller>,
}

type Answer = Result<proto::Lease, tonic::Status>;

impl Fleet {
    async fn new(ttl: Duration, clock: Option<Arc<MovedClock>>) -> Self {
        let server = OidcServer::start().await;
        let grant = server.mint(ttl).await;
        let options = Options {
            connectors: connector(&server.token_url(), PUBLIC_CLIENT, ""),
            clock: clock.map(|clock| clock as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        operator.import_grant(ORG, MEMBER, &grant.refresh_token).await;
        let task = operator.make_task(ORG, MEMBER).await;
        let enrolled = join_all((0..AGENTS).map(|_| async {
            let token = operator.enrollment_token(ORG, &task).await;
            let enrolled = broker.enroll_with(&token, &NewKey::generate()).await.unwrap();
            (enrolled.agent.clone(), broker.agent(&enrolled).await)
        }))
        .await;
        let ids: BTreeSet<_> = enrolled.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(ids.len(), AGENTS, "each has an identity of its own");
        Self {
            server,
            grant,
            broker,
            operator,
            task,
            agents: enrolled.into_iter().map(|(_, agent)| agent).collect(),
        }
    }

    /// All agents resolve at the same moment.
    async fn resolve(&self) -> Vec<Answer> {
        let barrier = Arc::new(Barrier::new(AGENTS));
        let asked = self.agents.iter().map(|agent| {
            let (agent, task, barrier) = (agent.clone(), self.task.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                Ok(agent.resolve(&task).await?.lease.unwrap())
            })
        });
        let answers = join_all(asked).await;
        answers.into_iter().map(Result::unwrap).collect()
    }

    async fn stats(&self) -> Stats {
        self.server.stats(&self.grant).await
    }

    /// All got one and the same token, of this generation, in a lease of their own.
    fn agree(answers: Vec<Answer>, generation: u64) -> String {
        let leases: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let own: BTreeSet<_> = leases.iter().map(|lease| &lease.id).collect();
        assert_eq!(own.len(), AGENTS);
        assert!(leases.iter().all(|lease| lease.generation == generation));
        let tokens: BTreeSet<_> = leases.iter().map(secret).collect();
        assert_eq!(tokens.len(), 1, "one token for all");
        tokens.into_iter().next().unwrap().to_owned()
    }

    /// Each of so many exchanges was recorded before it began and when it had ended.
    async fn journaled(&self, exchanges: usize) {
        let records = self.operator.records().await;
        let of = |phase| {
            let refreshes = records
                .iter()
                .filter(|record| record.action == "credential.refresh");
            refreshes
                .filter(|record| record.phase == phase)
                .collect::<Vec<_>>()
        };
        let (begins, finishes) = (of("begin"), of("finish"));
        assert_eq!((begins.len(), finishes.len()), (exchanges, exchanges));
        for (begin, finish) in begins.iter().zip(&finishes) {
            assert_eq!(finish.begins, begin.position);
            assert_eq!(finish.outcome, "allowed");
        }
    }
}

// req: B5 K4 N1
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_agents_cross_twenty_expiries_with_twenty_refreshes() {
    const ROUNDS: u64 = 20;
    const TTL: Duration = Duration::from_secs(600);
    let clock = Arc::new(MovedClock::default());
    let fleet = Fleet::new(TTL, Some(Arc::clone(&clock))).await;

    let mut tokens = BTreeSet::new();
    for round in 1..=ROUNDS {
        // In the first round there is no access token yet; before each other one the token expires.
        let token = Fleet::agree(fleet.resolve().await, 1 + round);
        assert!(tokens.insert(token), "round {round} brought a new token");
        assert_eq!(fleet.stats().await.calls, round);
        clock.advance(TTL);
    }
    let stats = fleet.stats().await;
    let expected = Stats {
        alive: true,
        ttl: TTL.as_secs(),
        calls: ROUNDS,
        successes: ROUNDS,
        refused: 0,
        replays: 0,
    };
    assert_eq!(stats, expected);
    fleet.journaled(20).await;
    println!("{AGENTS} agents, {ROUNDS} expiries: {stats:?}");
}

/// The same by the machine's own clock, nothing moved: the tokens really expire.
// req: B5 K4
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_agents_live_through_real_expiries() {
    const ROUNDS: u64 = 4;
    // Refreshed a second before its end: a round may take five seconds before it would see a second refresh.
    const TTL: Duration = Duration::from_secs(6);
    let fleet = Fleet::new(TTL, None).await;
    for round in 1..=ROUNDS {
        Fleet::agree(fleet.resolve().await, 1 + round);
        assert_eq!(fleet.stats().await.calls, round);
        if round < ROUNDS {
            tokio::time::sleep(TTL - Duration::from_millis(900)).await;
        }
    }
    let stats = fleet.stats().await;
    assert!(stats.alive);
    assert_eq!((stats.successes, stats.replays), (ROUNDS, 0));
    fleet.journaled(4).await;
}

/// What the tests above would see if every caller refreshed for itself.
// req: B5 K4
#[tokio::test(flavor = "multi_thread")]
async fn without_the_lock_map_the_grant_dies() {
    let fleet = Fleet::new(Duration::from_secs(600), None).await;
    fleet.broker.broker.refresher().bypass_single_flight();
    let answers = fleet.resolve().await;
    let stats = fleet.stats().await;
    println!("{AGENTS} agents, lock bypassed: {stats:?}");
    assert!(!stats.alive, "{stats:?}");
    assert!(stats.calls > 1 && stats.replays > 0, "{stats:?}");
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.map(reason).any(|reason| reason == "REAUTH_REQUIRED"));
}
