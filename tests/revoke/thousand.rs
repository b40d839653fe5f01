//! A thousand agents, each with a connection of its own and an open watch, some of them resolving: how long a
//! revocation and locks take until nothing of their subject succeeds and the last of its streams has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use credbroker::proto::{self, lock_target::Target};
use futures_util::{StreamExt as _, stream};
use tokio::task::JoinSet;

use crate::support::broker::{ENVIRONMENT, MEMBER, ORG, PROJECT};
use crate::support::{Caller, NewKey, Options, TestBroker, reason};
use crate::{lock, revoke_agent, unlock};

const AGENTS: usize = 1_000;
const RESOLVING: usize = 8;
const AT_ONCE: usize = 16;
/// Generous: an unoptimized broker with all its clients in one process, beside other tests.
const BOUND: Duration = Duration::from_secs(10);

struct Agent {
    id: String,
    caller: Caller,
}

/// Enrolled by one pool token, connected.
async fn agents(broker: &TestBroker, operator: &Caller) -> Vec<Agent> {
    let request = proto::CreateEnrollmentTokensRequest {
        org: ORG.to_owned(),
        project: PROJECT.to_owned(),
        environment: ENVIRONMENT.to_owned(),
        task: operator.make_task(ORG, MEMBER).await,
        count: AT_ONCE as u32,
        max_agents: AGENTS.div_ceil(AT_ONCE) as u32,
        ..Default::default()
    };
    let minted = operator
        .agents()
        .create_enrollment_tokens(request)
        .await
        .unwrap()
        .into_inner();
    let enrolling = broker.caller(None).await;
    // A token is one record, and its slots are taken one after the other: so each line has a token of its own.
    let lines = minted.tokens.into_iter().map(|token| {
        let (enrolling, token) = (enrolling.clone(), token.token.unwrap().value.clone());
        async move {
            let mut agents = Vec::new();
            for _ in 0..AGENTS.div_ceil(AT_ONCE) {
                let key = NewKey::generate();
                let request = proto::EnrollRequest {
                    token: Some(proto::Secret { value: token.clone() }),
                    csr_der: key.csr(),
                    attributes: Default::default(),
                };
                let answer = enrolling.enrollment().enroll(request).await.unwrap().into_inner();
                let enrolled = crate::support::Enrolled::new(answer, &key);
                let caller = broker.agent(&enrolled).await;
                agents.push(Agent {
                    id: enrolled.agent,
                    caller,
                });
            }
            agents
        }
    });
    let mut agents: Vec<_> = stream::iter(lines).buffer_unordered(AT_ONCE).concat().await;
    agents.truncate(AGENTS);
    agents
}

/// Open watches; each says when it ended.
async fn watches(agents: &[Agent]) -> JoinSet<(Instant, String)> {
    let opened = agents.iter().map(|agent| agent.caller.watch());
    let opened: Vec<_> = stream::iter(opened).buffer_unordered(AT_ONCE).collect().await;
    let mut watching = JoinSet::new();
    for mut watch in opened {
        watching.spawn(async move {
            loop {
                if let Err(end) = watch.message().await {
                    return (Instant::now(), reason(&end));
                }
            }
        });
    }
    watching
}

/// Resolves without a pause; counts what succeeded although it was sent after `over`.
fn resolving(agents: &[Agent], over: &Arc<AtomicBool>, late: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    for agent in agents.iter().take(RESOLVING) {
        let (caller, over, late) = (agent.caller.clone(), Arc::clone(over), Arc::clone(late));
        loops.spawn(async move {
            loop {
                let after = over.load(Ordering::SeqCst);
                if caller.resolve("").await.is_ok() && after {
                    late.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    loops
}

/// How long until the answer, and until the last of `count` watches ended, since the request was sent.
async fn measured(
    what: &str,
    watching: &mut JoinSet<(Instant, String)>,
    count: usize,
    expected: &str,
    stopping: impl Future<Output = ()>,
) -> (Duration, Duration) {
    let sent = Instant::now();
    stopping.await;
    let answered = sent.elapsed();
    let mut last = Duration::ZERO;
    for _ in 0..count {
        let ended = tokio::time::timeout(BOUND, watching.join_next()).await;
        let (at, told) = ended.expect("a watch stays open").unwrap().unwrap();
        assert_eq!(told, expected, "{what}");
        last = last.max(at.saturating_duration_since(sent));
    }
    println!("{what}: answered after {answered:?}, the last of {count} streams ended after {last:?}");
    assert!(answered < BOUND && last < BOUND, "{what}: {answered:?}, {last:?}");
    (answered, last)
}

// req: D6 N4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_connected_agents_the_stopped_ones_are_stopped_at_once() {
    let options = Options {
        config: "[watch]\nheartbeat = \"60s\"\n".to_owned(),
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let begun = Instant::now();
    let agents = agents(&broker, &operator).await;
    assert_eq!(agents.len(), AGENTS);
    let mut watching = watches(&agents).await;
    println!(
        "{AGENTS} agents enrolled, connected and watching after {:?}",
        begun.elapsed()
    );

    let (over, late) = (Arc::default(), Arc::default());
    let mut loops = resolving(&agents[1..], &over, &late);
    let one = agents[0].id.clone();
    let revoke = async { drop(revoke_agent(&operator, &one, false).await) };
    measured(
        "one agent revoked",
        &mut watching,
        1,
        "CREDENTIAL_UNKNOWN",
        revoke,
    )
    .await;
    let refused = agents[0].caller.resolve("").await.unwrap_err();
    assert_eq!(reason(&refused), "CREDENTIAL_UNKNOWN");

    for (what, target) in [
        (
            "its environment locked",
            Target::Environment(ENVIRONMENT.to_owned()),
        ),
        ("its org locked", Target::Org(true)),
    ] {
        let mut made = None;
        let locking = async {
            made = Some(lock(&operator, target).await);
            over.store(true, Ordering::SeqCst);
        };
        measured(what, &mut watching, AGENTS - 1, "LOCKED", locking).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            late.load(Ordering::SeqCst),
            0,
            "{what}: calls sent after the answer succeeded"
        );
        over.store(false, Ordering::SeqCst);
        unlock(&operator, &made.unwrap()).await;
        watching = watches(&agents[1..]).await;
    }
    loops.abort_all();
    while loops.join_next().await.is_some() {}
    let text = broker.broker.metrics_text().await;
    for line in text
        .lines()
        .filter(|line| line.starts_with("credbroker_revoke_to"))
    {
        println!("{line}");
    }
    assert!(
        text.contains("credbroker_revoke_to_deny_seconds_count 3\n"),
        "{text}"
    );
    assert!(
        text.contains("credbroker_revoke_to_stream_end_seconds_count 3\n"),
        "{text}"
    );
}
