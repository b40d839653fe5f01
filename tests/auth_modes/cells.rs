//! Every cell of the table: the condition is brought about in the mode, and what comes over the port is what the
//! table says.

use credbroker::domain::conditions::{Chosen, Condition, Outcome, nothing_left, outcome};
use credbroker::domain::mode::AuthMode as Mode;
use credbroker::domain::reason::Reason;
use credbroker::proto::KeyPool;
use tonic::Status;

use crate::scene::{Scene, World, pinned, profile, wire, with_profile};
use crate::support::reason;

/// How the mode is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It is one of a profile's set.
    Set,
    /// The executor's policy pins it.
    Policy,
    /// The task runs on it when the condition comes about.
    Running,
}

impl Settled {
    const fn chosen(self) -> Chosen {
        match self {
            Settled::Set => Chosen::FromSet,
            Settled::Policy | Settled::Running => Chosen::Pinned,
        }
    }
}

/// What does not come about for a task that runs, and why. With a set and with a pinned policy every cell can be made.
const NOT_WHILE_RUNNING: [(Mode, Condition, &str); 12] = {
    const REVOKED: &str = "it was there when the task began: what is gone since was revoked";
    const FIXED: &str = "the task fixes its capacity";
    const NEXT_TASK: &str = "a lapse begins with the next task";
    [
        (Mode::OAuth, Condition::Unconnected, REVOKED),
        (Mode::OAuth, Condition::Lapsed, NEXT_TASK),
        (
            Mode::OAuth,
            Condition::Rejected,
            "the profile it began with says what follows",
        ),
        (
            Mode::OAuth,
            Condition::AtLimit,
            "a lease that stands has its place",
        ),
        (Mode::Byok, Condition::NoKey, REVOKED),
        (Mode::Byok, Condition::Lapsed, NEXT_TASK),
        (Mode::Metered, Condition::NoKey, REVOKED),
        (Mode::Shared, Condition::NoKey, REVOKED),
        (
            Mode::Shared,
            Condition::OverQuota,
            "a dispatch under way has its place",
        ),
        (Mode::HostSession, Condition::Unconnected, REVOKED),
        (Mode::HostSession, Condition::WrongCapacity, FIXED),
        (Mode::Local, Condition::WrongCapacity, FIXED),
    ]
};

/// What has to come over the port.
#[derive(Debug)]
enum Expected {
    /// This mode, and this for the reason of it.
    Given(Mode, Reason),
    Refused(Reason),
}

/// The mode that a set has beside the one in question: the one after it. A condition of the machine holds for all
/// modes that come after; there it is one before, with nothing in it.
fn beside(mode: Mode, condition: Condition) -> Option<Mode> {
    let after = Mode::ORDER.into_iter().skip_while(|of| *of != mode).nth(1);
    after.filter(|_| condition != Condition::WrongCapacity)
}

fn expected(mode: Mode, condition: Condition, settled: Settled) -> Option<Expected> {
    Some(match outcome(mode, condition, settled.chosen()) {
        Outcome::Never => return None,
        Outcome::Stop(reason) => Expected::Refused(reason),
        Outcome::Skip(reason) => match beside(mode, condition) {
            Some(next) => Expected::Given(next, reason),
            None => Expected::Refused(nothing_left([Reason::NoCredentialConfigured, reason])),
        },
        Outcome::FallBack(reason) if condition == Condition::Lapsed => Expected::Given(Mode::Metered, reason),
        Outcome::FallBack(reason) => Expected::Given(Mode::Byok, reason),
    })
}

/// Brings the condition about, and looks at what comes.
async fn walk(world: &World, mode: Mode, condition: Condition, settled: Settled) -> bool {
    let Some(expected) = expected(mode, condition, settled) else {
        return false;
    };
    let mut scene = world.org().await;
    let beside = beside(mode, condition);
    if let Some(beside) = beside {
        scene.enable(beside).await;
    }
    if condition == Condition::Lapsed {
        scene.enable(Mode::Metered).await;
    }
    let credential = scene.enable(mode).await;
    // What a lapsed key gives way to need not be the profile's.
    let others = match (mode, condition) {
        (Mode::Byok, Condition::Lapsed) => vec![],
        _ => vec![wire(beside.unwrap_or(Mode::Byok))],
    };
    let mut set = profile("set", &[&[wire(mode)], &others[..]].concat());
    if condition == Condition::NamedMissing {
        set.credential = credential.clone();
        scene.store_key(crate::support::broker::MEMBER).await;
    }
    let mut rules = with_profile(&[]);
    rules.profiles = vec![set];
    if settled == Settled::Policy {
        rules = pinned(wire(mode), rules);
    }
    scene.rules(rules).await;

    let before = match (settled, condition) {
        (Settled::Running, _) | (_, Condition::Revoked) => Some(begin(&scene, mode).await),
        _ => None,
    };
    scene.befall(mode, condition, &credential).await;
    let task = match (settled, before) {
        (Settled::Running, Some(task)) => task,
        _ => scene.task("set").await,
    };
    let answer = scene.resolve(&task).await;
    let what = format!("{mode:?} {condition:?} {settled:?}");
    match (&expected, condition, mode) {
        (_, Condition::Rejected, Mode::OAuth) => compare(&expected, answer.map(told), &what),
        // Whoever calls the provider is told, and reports it.
        (_, Condition::Rejected, _) => {
            let lease = answer.unwrap().lease.unwrap();
            assert_eq!(lease.mode(), wire(mode), "{what}");
            let reported = scene.automation.reject(&lease.id, lease.generation).await;
            let told = |answer: credbroker::proto::RefreshTokenResponse| {
                (answer.lease.unwrap().mode(), answer.fallback_reason)
            };
            compare(&expected, reported.map(told), &what);
        }
        _ => compare(&expected, answer.map(told), &what),
    }
    match (mode, condition) {
        (Mode::Metered, Condition::NoKey | Condition::Revoked) => {
            world.set_platform_key(KeyPool::Metered).await;
        }
        (Mode::Shared, Condition::NoKey | Condition::Revoked) => {
            world.set_platform_key(KeyPool::Shared).await;
        }
        _ => {}
    }
    true
}

/// A task that resolves to the mode.
async fn begin(scene: &Scene<'_>, mode: Mode) -> String {
    let task = scene.task("set").await;
    let lease = scene.resolve(&task).await.unwrap().lease.unwrap();
    assert_eq!(lease.mode(), wire(mode));
    task
}

type Told = (credbroker::proto::AuthMode, String);

fn told(answer: credbroker::proto::ResolveCredentialResponse) -> Told {
    (answer.lease.unwrap().mode(), answer.fallback_reason)
}

fn compare(expected: &Expected, answer: Result<Told, Status>, what: &str) {
    match (expected, answer) {
        (Expected::Given(mode, because), Ok(told)) => {
            assert_eq!(told, (wire(*mode), because.code().to_owned()), "{what}");
        }
        (Expected::Refused(expected), Err(refused)) => {
            assert_eq!(reason(&refused), expected.code(), "{what}");
        }
        (expected, answer) => panic!("{what}: {expected:?}, and came {answer:?}"),
    }
}

async fn walk_all(settled: Settled) -> usize {
    let world = World::start().await;
    let mut cells = 0;
    for mode in Mode::ORDER {
        for condition in Condition::ALL.iter().copied() {
            cells += usize::from(walk(&world, mode, condition, settled).await);
        }
    }
    cells
}

/// What was revoked is met as what is not there: the two rows of a mode are one.
#[test]
fn what_is_gone_is_treated_as_what_never_was() {
    for mode in Mode::ORDER {
        for chosen in Chosen::ALL {
            let of = |condition| outcome(mode, condition, chosen);
            let never = match of(Condition::NoKey) {
                Outcome::Never => of(Condition::Unconnected),
                found => found,
            };
            assert_eq!(of(Condition::Revoked), never, "{mode:?}");
        }
    }
}

// req: E4 E8 E9 E10 E11 E13 A5 A6 B3 B4 C9 N5
#[tokio::test]
async fn every_cell_of_a_set_is_as_the_table_says() {
    assert_eq!(walk_all(Settled::Set).await, 28);
}

// req: A1 A5 A6 E8 E9 E11 E13 B3 B4 C9 N5
#[tokio::test]
async fn every_cell_of_a_pinned_policy_is_as_the_table_says() {
    assert_eq!(walk_all(Settled::Policy).await, 28);
}

// req: A10 E8 E9 E11 N5
#[tokio::test]
async fn every_cell_that_a_running_task_can_come_to_is_as_the_table_says() {
    let world = World::start().await;
    let mut excepted = Vec::new();
    for mode in Mode::ORDER {
        for condition in Condition::ALL.iter().copied() {
            let listed = NOT_WHILE_RUNNING
                .iter()
                .find(|(of, at, _)| (*of, *at) == (mode, condition));
            match listed {
                Some(cell) => {
                    let there = expected(mode, condition, Settled::Running).is_some();
                    assert!(there, "the table has no cell {cell:?}");
                    excepted.push(cell);
                }
                None => {
                    walk(&world, mode, condition, Settled::Running).await;
                }
            }
        }
    }
    assert_eq!(excepted.len(), NOT_WHILE_RUNNING.len(), "no cell is listed twice");
}
