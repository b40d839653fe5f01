//! A hundred answers lost at random, with a grace window and without: how often somebody has to sign in again.
//! With one: never. Without: once for each answer with new tokens that was lost, and for nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::faulty_proxy::{Counts, Fault, FaultyProxy};
use crate::random::Random;
use crate::scene::{ANSWER_LOST, told_to_come_again, told_to_sign_in_again};
use crate::support::broker::{ORG, connector};
use crate::support::client::{retry_after, secret};
use crate::support::clock::MovedClock;
use crate::support::oidc::{Grant, OidcServer, PUBLIC_CLIENT};
use crate::support::{Caller, Options, TestBroker, reason};

const CREDENTIALS: usize = 4;
const LOST: u64 = 100;
/// Short, so that a run stays within the life of tasks and certificates.
const LIFE: Duration = Duration::from_secs(60);
/// More asking than any run of bad luck needs.
const ASKED: usize = 200;

struct Member {
    name: String,
    task: String,
    agent: Caller,
    grant: tokio::sync::Mutex<Grant>,
}

struct Soak {
    server: OidcServer,
    proxy: FaultyProxy,
    clock: Arc<MovedClock>,
    _broker: TestBroker,
    operator: Caller,
    members: Vec<Member>,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    served: usize,
    ambiguous: usize,
    sign_ins: u64,
}

impl Soak {
    async fn new(connector_keys: &str) -> Self {
        let server = OidcServer::start().await;
        let proxy = FaultyProxy::start(server.port()).await;
        let clock = Arc::new(MovedClock::default());
        let options = Options {
            connectors: connector(&proxy.token_url(), PUBLIC_CLIENT, connector_keys),
            clock: Some(Arc::clone(&clock) as _),
            ..Options::default()
        };
        let broker = TestBroker::start_with(options).await;
        let operator = broker.prepare().await;
        let members = (0..CREDENTIALS).map(async |number| {
            let name = format!("member-{number}");
            operator.make_member(ORG, &name).await;
            let grant = server.mint_as(&name, LIFE).await;
            operator.import_grant(ORG, &name, &grant.refresh_token).await;
            let task = operator.make_task(ORG, &name).await;
            let agent = broker.agent(&broker.enroll(&operator, &task).await).await;
            Member {
                name,
                task,
                agent,
                grant: tokio::sync::Mutex::new(grant),
            }
        });
        let members = join_all(members).await;
        Self {
            server,
            proxy,
            clock,
            _broker: broker,
            operator,
            members,
        }
    }

    /// Half of all requests go wrong somehow, until enough answers are lost.
    fn go_wrong(&self, mut random: Random) {
        let mut lost = 0;
        self.proxy.otherwise(move || {
            let fault = match random.below(14) {
                0 => Fault::DropAnswer,
                1 => Fault::Reset,
                2 => Fault::CutHead,
                3 => Fault::CutBody,
                4 => Fault::Gateway(502),
                5 => Fault::Gateway(504),
                6 => return Fault::CloseUnforwarded,
                _ => return Fault::Pass,
            };
            lost += 1;
            if lost > LOST { Fault::Pass } else { fault }
        });
    }

    /// One member's agent asks until it is served, by its own member's token, which works. Returns how often it
    /// was told to come again, and how often somebody had to sign in.
    async fn serve(&self, member: &Member) -> (usize, u64) {
        let (mut ambiguous, mut sign_ins) = (0, 0);
        for _ in 0..ASKED {
            match member.agent.resolve(&member.task).await {
                Ok(answer) => {
                    let account = self.server.account_of(secret(&answer.lease.unwrap())).await;
                    assert_eq!(account.as_ref(), Some(&member.name), "a wrong token");
                    return (ambiguous, sign_ins);
                }
                Err(refused) if reason(&refused) == "REAUTH_REQUIRED" => {
                    told_to_sign_in_again(&refused, ANSWER_LOST);
                    let mut grant = member.grant.lock().await;
                    assert!(!self.server.stats(&grant).await.alive, "given up too early");
                    sign_ins += 1;
                    *grant = self.server.mint_as(&member.name, LIFE).await;
                    self.operator
                        .import_grant(ORG, &member.name, &grant.refresh_token)
                        .await;
                }
                Err(refused) => {
                    told_to_come_again(&refused, "REFRESH_AMBIGUOUS");
                    ambiguous += 1;
                    self.clock.advance(retry_after(&refused).unwrap());
                }
            }
        }
        panic!("{} is never served", member.name);
    }

    /// Expiry after expiry, until all that was to be lost is lost and all agents have been served after it.
    async fn run(&self) -> (Tally, Counts) {
        let mut tally = Tally::default();
        while self.proxy.counts().lost_answers < LOST {
            self.clock.advance(LIFE);
            for (ambiguous, sign_ins) in join_all(self.members.iter().map(|member| self.serve(member))).await
            {
                tally.served += 1;
                tally.ambiguous += ambiguous;
                tally.sign_ins += sign_ins;
            }
            tally.rounds += 1;
        }
        let calm = BTreeMap::from_iter([(true, CREDENTIALS)]);
        let mut alive = BTreeMap::new();
        for member in &self.members {
            let stats = self.server.stats(&*member.grant.lock().await).await;
            *alive.entry(stats.alive).or_default() += 1;
        }
        assert_eq!(alive, calm);
        (tally, self.proxy.counts())
    }
}

/// The seed of a run where `OIDC_FAULTS_SEED` says no other.
const SEED: u64 = 0x5eed;

/// The seed of this run.
fn seed(of: &str) -> u64 {
    let given = std::env::var("OIDC_FAULTS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(SEED);
    println!("{of}: OIDC_FAULTS_SEED={seed}");
    seed
}

// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn with_a_grace_window_a_hundred_lost_answers_cost_no_sign_in() {
    let soak = Soak::new("grace_seconds = 3600").await;
    soak.proxy.begin_grace();
    soak.go_wrong(Random::new(seed("with a grace window")));
    let (tally, counts) = soak.run().await;
    println!("with a grace window: {tally:?}, {counts:?}");
    assert_eq!((counts.lost_answers, tally.sign_ins), (LOST, 0));
    assert!(counts.lost_grants > 0 && counts.repeated > 0);
}

// req: N1 N8
#[tokio::test(flavor = "multi_thread")]
async fn without_one_they_cost_those_that_were_lost_after_the_provider_acted() {
    let soak = Soak::new("").await;
    soak.go_wrong(Random::new(seed("without")));
    let (tally, counts) = soak.run().await;
    println!("without: {tally:?}, {counts:?}");
    assert_eq!((counts.lost_answers, tally.sign_ins), (LOST, counts.lost_grants));
    assert!(counts.lost_grants > 0 && counts.lost_grants < LOST);
}
