//! `kill -9` of the real daemon at random moments, fifty times, while grants are refreshed all the time.
//!
//! Whatever was acknowledged is there after the restart; no grant is lost; and a refresh token reaches the
//! provider a second time only where the journal says that the answer to the first is not known.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "crash/audit.rs"]
mod audit;
#[path = "crash/load.rs"]
mod load;
#[path = "crash/provider.rs"]
mod provider;
#[path = "crash/random.rs"]
mod random;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use audit::Audit;
use credbroker::proto;
use futures_util::future::join_all;
use load::{Acknowledged, Given, Ledger, Worker};
use provider::{Outcome, Provider, access_token, refresh_token};
use random::Random;
use support::Caller;
use support::broker::{ORG, connector, now};
use support::process::{Daemon, Installation};

const KILLS: usize = 50;
const MEMBERS: usize = 6;
const AGENTS: usize = 8;

const CONFIG: &str = r#"
[refresh]
minimum_remaining_default = "0s"
forced_rotations_per_hour_per_credential = 3600
forced_rotations_per_hour_per_agent = 3600
rejections_in_a_row = 3600
[journal]
segment_bytes = 1048576
"#;

/// What is known of the broker from outside.
struct Observer {
    provider: Provider,
    workers: Vec<Arc<Worker>>,
    /// The member of each credential.
    members: HashMap<String, usize>,
    /// The newest generation that a client was given, by member.
    generations: Vec<u64>,
    audit: Audit,
    tasks: Vec<String>,
    api_keys: usize,
    given: usize,
    staged: usize,
    ambiguous: usize,
    /// Each refresh token whose answer was found staged, by member and number, and how often it had been sent
    /// by the time of the kill.
    settled: Vec<(usize, u64, usize)>,
}

fn times_sent(sent: &[provider::Sent], member: usize, number: u64) -> usize {
    sent.iter()
        .filter(|one| (one.member, one.number) == (member, number))
        .count()
}

impl Observer {
    /// Makes the members, their grants and their agents.
    async fn set_up(daemon: &Daemon, provider: Provider) -> Self {
        let operator = daemon.operator().await;
        operator.make_org(ORG).await;
        let mut members = HashMap::new();
        let mut workers = Vec::new();
        for member in 0..MEMBERS {
            let name = format!("member-{member}");
            operator.make_member(ORG, &name).await;
            let grant = operator.import_grant(ORG, &name, &refresh_token(member, 0)).await;
            members.insert(grant.id, member);
        }
        for agent in 0..AGENTS {
            let member = agent % MEMBERS;
            let task = operator.make_task(ORG, &format!("member-{member}")).await;
            let enrolled = daemon.enroll(&operator, &task).await;
            workers.push(Arc::new(Worker { member, enrolled }));
        }
        Self {
            provider,
            workers,
            members,
            generations: vec![0; MEMBERS],
            audit: Audit::begin(&operator).await,
            tasks: Vec::new(),
            api_keys: 0,
            given: 0,
            staged: 0,
            ambiguous: 0,
            settled: Vec::new(),
        }
    }

    /// After a restart: everything acknowledged before is there, every agent gets its member's credential.
    /// `sent` is how many refresh tokens the provider had been sent at the kill.
    async fn inspect(&mut self, daemon: &Daemon, before: Acknowledged, sent: usize) {
        assert!(before.refused.is_empty(), "{:#?}", before.refused);
        let operator = daemon.operator().await;
        let news = self.audit.read_on(&operator).await;
        self.staged += news.staged.len();
        self.ambiguous += news.ambiguous;
        let log = self.provider.sent();
        for (credential, generation) in news.staged {
            let (member, number) = (self.members[&credential], generation - 1);
            let times = times_sent(&log[..sent], member, number);
            assert!(times > 0, "an answer was staged to what was never sent");
            self.settled.push((member, number, times));
        }
        for given in &before.given {
            self.audit.holds(given);
            self.belongs(given);
            let newest = &mut self.generations[given.member];
            *newest = (*newest).max(given.generation);
        }
        self.given += before.given.len();
        for task in &before.tasks {
            let request = proto::GetTaskRequest {
                org: ORG.to_owned(),
                task: task.clone(),
            };
            operator.tasks().get_task(request).await.unwrap();
        }
        self.tasks.extend(before.tasks);
        for key in &before.api_keys {
            assert_eq!(family(daemon, key).await, "api-key");
        }
        self.api_keys += before.api_keys.len();
        let resolving = self.workers.iter().map(|worker| async {
            let agent = daemon.agent(&worker.enrolled).await;
            worker.resolve(&agent).await.unwrap()
        });
        for given in join_all(resolving).await {
            self.belongs(&given);
            let newest = self.generations[given.member];
            assert!(
                given.generation >= newest,
                "generation {newest} was lost: {given:?}"
            );
        }
    }

    /// The token is the member's own, and of the generation it is said to be.
    fn belongs(&self, given: &Given) {
        assert_eq!(self.members[&given.credential], given.member);
        assert_eq!(given.token, access_token(given.member, given.generation - 1));
    }

    /// A refresh token is sent once for each claim, and again only where the claim before was found without
    /// an answer; never after its answer was found staged.
    fn judge_what_was_sent(&self) -> usize {
        let sent = self.provider.sent();
        let killed = sent.iter().find(|one| one.outcome == Outcome::Killed);
        assert!(killed.is_none(), "an old refresh token was sent: {killed:?}");
        let mut resent = 0;
        for (credential, generations) in &self.audit.exchanges {
            let member = self.members[credential];
            for (generation, exchanges) in generations {
                let times = times_sent(&sent, member, generation - 1);
                let most = (1 + exchanges.ambiguous.len()).min(exchanges.begun.len());
                assert!(
                    times <= most,
                    "member {member}: sent {times} times, but {exchanges:?}"
                );
                if let Some(staged) = exchanges.staged.first() {
                    assert_eq!(
                        exchanges.begun.last(),
                        Some(staged),
                        "a claim after a staged answer"
                    );
                    assert!(!exchanges.ambiguous.contains(staged));
                }
                resent += times.saturating_sub(1);
            }
        }
        let begun: usize = self.audit.exchanges.values().map(|all| all.len()).sum();
        assert!(begun > 0, "the journal tells of no exchange");
        for (member, number, times) in &self.settled {
            let again = times_sent(&sent, *member, *number) - times;
            assert_eq!(
                again, 0,
                "rt-{member}-{number} was sent after its answer had been staged"
            );
        }
        resent
    }

    /// At the end, at rest: broker and provider are at the same generation of every grant.
    async fn judge_grants(&self, daemon: &Daemon) {
        for worker in &self.workers {
            let agent = daemon.agent(&worker.enrolled).await;
            let given = worker.resolve(&agent).await.unwrap();
            let given = worker.replace(&agent, &given).await.unwrap();
            self.belongs(&given);
            assert_eq!(given.generation - 1, self.provider.newest(worker.member));
        }
    }

    /// All tasks that were acknowledged, in any of the rounds.
    async fn judge_tasks(&self, operator: &Caller) {
        let (mut known, mut page_token) = (std::collections::HashSet::new(), String::new());
        loop {
            let request = proto::ListTasksRequest {
                org: ORG.to_owned(),
                page_size: 200,
                page_token,
            };
            let page = operator.tasks().list_tasks(request).await.unwrap().into_inner();
            known.extend(page.tasks.into_iter().map(|task| task.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let lost: Vec<_> = self.tasks.iter().filter(|task| !known.contains(*task)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
}

async fn family(daemon: &Daemon, token: &str) -> String {
    let caller = daemon.caller(Some(token)).await;
    let answer = caller.access().who_am_i(proto::WhoAmIRequest {}).await;
    answer.unwrap().into_inner().family
}

/// The seed of this run: `CRASH_SEED`, or one of its own.
fn seed() -> u64 {
    let given = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::try_from(now().millis()).unwrap())
}

// req: K5 N1 B5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_under_refresh_load() {
    let seed = seed();
    println!("seed {seed}: run again with CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let provider = Provider::start(MEMBERS, random.clone()).await;
    let connectors = connector(&provider.token_url(), "client", "grace_seconds = 3600");
    let made = Installation::make(CONFIG, &connectors).await;
    let mut daemon = made.start().await;
    let mut observer = Observer::set_up(&daemon, provider).await;
    let ledger = Ledger::default();
    let mut amid_start = 0;
    for round in 0..KILLS {
        let load = load::start(&daemon, &observer.workers, &ledger).await;
        tokio::time::sleep(random.millis(30, 400)).await;
        if round % 2 == 1 {
            // Aimed at the moments between an answer, its staging and its commit.
            let mut answers = observer.provider.answers();
            let _ = tokio::time::timeout(Duration::from_secs(5), answers.changed()).await;
            tokio::time::sleep(random.millis(0, 8)).await;
        }
        daemon.kill().await;
        let sent = observer.provider.count();
        load.join_all().await;
        if round % 5 == 4 {
            let mut starting = made.spawn();
            tokio::time::sleep(random.millis(0, 150)).await;
            starting.kill().await;
            amid_start += 1;
        }
        daemon = made.start().await;
        observer.inspect(&daemon, ledger.take(), sent).await;
    }
    observer.judge_grants(&daemon).await;
    let operator = daemon.operator().await;
    observer
        .inspect(&daemon, Acknowledged::default(), observer.provider.count())
        .await;
    observer.judge_tasks(&operator).await;
    observer.audit.verify_whole(&operator).await;
    let resent = observer.judge_what_was_sent();
    let refreshed = observer.provider.sent().len() - resent;
    println!(
        "{KILLS} kills, {amid_start} more amid a start; {refreshed} refreshes; {} staged answers adopted; \
         {} ambiguous claims; {resent} resends; acknowledged: {} tasks, {} API keys, {} credentials; {} \
         records of the journal",
        observer.staged,
        observer.ambiguous,
        observer.tasks.len(),
        observer.api_keys,
        observer.given,
        observer.audit.records,
    );
    // Otherwise the kills came at no interesting moment, and the rest proves little.
    assert!(observer.staged > 0 && observer.ambiguous > 0 && resent > 0);
}
