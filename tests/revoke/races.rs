//! Resolutions in a tight loop while what allows them is taken away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use credbroker::proto::lock_target::Target;
use tokio::task::JoinSet;

use crate::support::broker::{MEMBER, ORG};
use crate::support::{Caller, TestBroker};
use crate::{lock, remove_member, revoke_agent, revoke_key};

const LOOPS: usize = 8;

/// Callers that resolve again and again, each for a task of its own, and never stop by themselves.
struct Loops {
    over: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    handed_out: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
    running: JoinSet<()>,
}

impl Loops {
    fn start(callers: Vec<(Caller, String)>) -> Self {
        let mut loops = Self {
            over: Arc::default(),
            stop: Arc::default(),
            handed_out: Arc::default(),
            late: Arc::default(),
            running: JoinSet::new(),
        };
        for (caller, task) in callers {
            let (over, stop) = (Arc::clone(&loops.over), Arc::clone(&loops.stop));
            let (handed_out, late) = (Arc::clone(&loops.handed_out), Arc::clone(&loops.late));
            loops.running.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    // Sent after the revocation was answered, or before?
                    let after = over.load(Ordering::SeqCst);
                    if caller.resolve(&task).await.is_ok() {
                        handed_out.fetch_add(1, Ordering::SeqCst);
                        late.fetch_add(usize::from(after), Ordering::SeqCst);
                    }
                }
            });
        }
        loops
    }

    async fn under_way(&self) {
        let busy = async {
            while self.handed_out.load(Ordering::SeqCst) < 4 * LOOPS {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), busy)
            .await
            .expect("nothing is resolved");
    }

    /// What was handed out to calls that were sent after the revocation was answered.
    async fn late(mut self) -> usize {
        self.over.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        self.late.load(Ordering::SeqCst)
    }
}

/// One caller with as many tasks as there are loops, each resolving over the same connection.
async fn tasks(operator: &Caller) -> Vec<String> {
    let mut tasks = Vec::new();
    for _ in 0..LOOPS {
        tasks.push(operator.make_task(ORG, MEMBER).await);
    }
    tasks
}

async fn prepared() -> (TestBroker, Caller, Vec<String>) {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let tasks = tasks(&operator).await;
    (broker, operator, tasks)
}

/// An agent of all the tasks: its id, and a caller a task.
async fn agent(broker: &TestBroker, operator: &Caller, tasks: &[String]) -> (String, Vec<(Caller, String)>) {
    let enrolled = broker.enroll(operator, "").await;
    for task in tasks {
        let request = credbroker::proto::AssignTaskRequest {
            org: ORG.to_owned(),
            task: task.clone(),
            agents: vec![enrolled.agent.clone()],
        };
        operator.tasks().assign_task(request).await.unwrap();
    }
    let caller = broker.agent(&enrolled).await;
    let callers = tasks.iter().map(|task| (caller.clone(), task.clone())).collect();
    (enrolled.agent, callers)
}

// req: D6 D8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_revoked_amid_its_calls_gets_nothing_after_and_no_lease_stands() {
    let (broker, operator, tasks) = prepared().await;
    let (agent, callers) = agent(&broker, &operator, &tasks).await;
    let loops = Loops::start(callers);
    loops.under_way().await;
    let revoked = revoke_agent(&operator, &agent, false).await;
    assert_eq!(loops.late().await, 0);
    // Every lease is listed and has ended; asking again finds no other.
    let listed = |answer: &credbroker::proto::RevokeAgentResponse| answer.outstanding.len();
    assert!(listed(&revoked) > 0 && listed(&revoked) <= LOOPS);
    assert!(revoked.outstanding.iter().all(|held| held.lease_ended));
    let again = revoke_agent(&operator, &agent, false).await;
    assert_eq!(listed(&again), listed(&revoked));
}

// req: D6 K6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_key_revoked_amid_its_calls_gets_nothing_after_and_no_lease_stands() {
    let (broker, operator, tasks) = prepared().await;
    let (id, key) = operator.make_api_key(ORG).await;
    let caller = broker.caller(Some(&key)).await;
    let loops = Loops::start(tasks.iter().map(|task| (caller.clone(), task.clone())).collect());
    loops.under_way().await;
    let revoked = revoke_key(&operator, &id).await;
    assert_eq!(loops.late().await, 0);
    assert!(!revoked.outstanding.is_empty());
    let again = revoke_key(&operator, &id).await;
    assert_eq!(again.outstanding.len(), revoked.outstanding.len());
}

// req: D6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_amid_calls_stops_every_later_one() {
    let (broker, operator, tasks) = prepared().await;
    let credential = operator.set_key(ORG, MEMBER, "the-members-own-key-0").await.id;
    let targets = [
        Target::Member(MEMBER.to_owned()),
        Target::Credential(credential),
        Target::Org(true),
    ];
    for target in targets {
        let (_, callers) = agent(&broker, &operator, &tasks).await;
        let loops = Loops::start(callers);
        loops.under_way().await;
        let locked = lock(&operator, target.clone()).await;
        assert_eq!(loops.late().await, 0, "{target:?}");
        assert!(locked.outstanding.iter().all(|held| !held.lease_ended));
        crate::unlock(&operator, &locked).await;
    }
    let (locked, callers) = agent(&broker, &operator, &tasks).await;
    let loops = Loops::start(callers);
    loops.under_way().await;
    lock(&operator, Target::Agent(locked)).await;
    assert_eq!(loops.late().await, 0);
}

// req: D6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_resolved_for_a_member_who_is_removed_meanwhile() {
    let (broker, operator, tasks) = prepared().await;
    let (_, callers) = agent(&broker, &operator, &tasks).await;
    let loops = Loops::start(callers);
    loops.under_way().await;
    let removed = remove_member(&operator, MEMBER).await;
    assert_eq!(loops.late().await, 0);
    assert_eq!(removed.tasks_ended as usize, LOOPS);
    assert!(removed.leases_ended > 0);
    // A lease that a resolution under way had made would be found now.
    assert_eq!(remove_member(&operator, MEMBER).await.leases_ended, 0);
}
