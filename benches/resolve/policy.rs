//! A resolution under a large policy beside the same one under a small policy, in two brokers of one run.
//!
//! Both begin small, with one cell and one profile, and are measured so: two processes differ a little whatever
//! they do, and that ratio is what the other is held against. Then one of them is filled, over the port, and both
//! are measured again in turns. Also told is how long a change takes with all of it there, and a start.

use std::collections::HashMap;
use std::time::Duration;

use credbroker::clock::{Clock as _, SystemClock};
use credbroker::proto::{self, AuthMode, OnRejection, Verdict};

use super::load::{Client, Run, Shape};
use super::report::{median, quartiles};
use super::server::Server;
use super::support::Caller;
use super::support::broker::{MEMBER, ORG, PROJECT};

/// How much there is, and how long it is measured.
pub struct Size {
    /// In all scopes together.
    pub cells: usize,
    pub profiles: usize,
    /// Rounds of both, in turns.
    pub rounds: usize,
    pub length: Duration,
    pub changes: usize,
}

const SHAPE: Shape = Shape {
    connections: 8,
    streams: 8,
};
/// The profile that the tasks name, on both sides, and its model.
const PROFILE: &str = "main";
const MODEL: &str = "claude-sonnet-4-5";
/// What the tasks run: it has two providers, and each resolution asks the matrices about both.
const EXECUTOR: &str = "duo-agent";
/// How many profiles one document adds; a change may write a hundred rows.
const STEP: usize = 90;

/// A broker, and the clients that load it.
struct Side {
    server: Server,
    operator: Caller,
    client: Client,
}

/// One run of each, one after the other.
struct Pair {
    small: Run,
    large: Run,
}

pub async fn measure(size: &Size) {
    let (small, large) = (Side::small().await, Side::small().await);
    for side in [&small, &large] {
        side.run(size.length).await;
    }
    let before = pairs(&small, &large, size).await;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    large.fill(size).await;
    println!(
        "policy: {} cells in three scopes and {} profiles, filled by SetCells and ApplyPolicy in {:.1} s",
        size.cells,
        size.profiles,
        (clock.monotonic() - start).as_secs_f64()
    );
    let after = pairs(&small, &large, size).await;
    print("both small", &before);
    print("second large", &after);
    for (name, side) in [("small", &small), ("large", &large)] {
        side.time_changes(name, size.changes).await;
    }
    let [small, large] = [small, large].map(|mut side| {
        let start = side.server.restart();
        side.server.stop();
        start.as_secs_f64() * 1e3
    });
    println!("  start: small {small:.0} ms, large {large:.0} ms\n");
}

/// Rounds of both sides, in turns, each of which goes first every other time.
async fn pairs(small: &Side, large: &Side, size: &Size) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(size.rounds);
    for round in 0..size.rounds {
        pairs.push(if round % 2 == 0 {
            let small = small.run(size.length).await;
            let large = large.run(size.length).await;
            Pair { small, large }
        } else {
            let large = large.run(size.length).await;
            let small = small.run(size.length).await;
            Pair { small, large }
        });
    }
    pairs
}

fn print(name: &str, pairs: &[Pair]) {
    let line = |what: &str, unit: &str, figure: &dyn Fn(&Run) -> f64| {
        let of = |run: &dyn Fn(&Pair) -> f64| pairs.iter().map(run).collect::<Vec<_>>();
        let (first, second) = (
            median(of(&|pair| figure(&pair.small))),
            median(of(&|pair| figure(&pair.large))),
        );
        let [low, ratio, high] = quartiles(of(&|pair| figure(&pair.large) / figure(&pair.small)));
        println!(
            "  {name:<12} {what:<10} {first:>9.1} -> {second:>9.1} {unit}, ratio {ratio:.3} ({low:.3} to {high:.3})"
        );
    };
    line("server CPU", "us", &|run| run.cpu());
    line("throughput", "/s", &|run| run.throughput());
    line("p50", "us", &|run| run.latency(0.5));
}

impl Side {
    async fn small() -> Self {
        let server = Server::start().await;
        let operator = server.prepare().await;
        operator.set_cells(ORG, "", vec![first()]).await;
        let request = proto::CreateProfileRequest {
            org: ORG.to_owned(),
            profile: Some(profile(0)),
            ..Default::default()
        };
        operator.policies().create_profile(request).await.unwrap();
        let mut tasks = Vec::new();
        for _ in 0..SHAPE.connections {
            let request = proto::CreateTaskRequest {
                org: ORG.to_owned(),
                member: MEMBER.to_owned(),
                project: PROJECT.to_owned(),
                executor: EXECUTOR.to_owned(),
                profile: PROFILE.to_owned(),
                ..Default::default()
            };
            let made = operator.tasks().create_task(request).await.unwrap();
            tasks.push(made.into_inner().task.unwrap().id);
        }
        let agents = server.enrolled(&operator, tasks).await;
        let client = Client::connect(&server, &agents, SHAPE).await;
        Self {
            server,
            operator,
            client,
        }
    }

    async fn run(&self, length: Duration) -> Run {
        self.server.measured(self.client.run_resolve(length)).await
    }

    /// Fills all three scopes and the org's profiles.
    async fn fill(&self, size: &Size) {
        let third = size.cells / 3;
        self.operator.set_cells("", "", cells(third)).await;
        self.operator.set_cells(ORG, PROJECT, cells(third)).await;
        let mut own = cells(size.cells - 2 * third - 1);
        own.push(first());
        let mut there = 1;
        while there < size.profiles {
            there = size.profiles.min(there + STEP);
            let rules = proto::OrgRules {
                matrix: own.clone(),
                pins: Vec::new(),
                profiles: (0..there).map(profile).collect(),
            };
            let org = proto::OrgPolicy {
                org: ORG.to_owned(),
                rules: Some(rules),
                ..Default::default()
            };
            let document = proto::PolicyDocument {
                system: None,
                orgs: vec![org],
            };
            let request = proto::ApplyPolicyRequest {
                document: Some(document),
                ..Default::default()
            };
            self.operator.policies().apply_policy(request).await.unwrap();
        }
    }

    /// Turns a cell of the org, and a profile, over and over.
    async fn time_changes(&self, name: &str, count: usize) {
        let clock = SystemClock::new();
        let (mut cell, mut other) = (Vec::new(), Vec::new());
        for number in 0..count {
            let start = clock.monotonic();
            let turned = proto::PolicyCell {
                verdict: [Verdict::Inherit, Verdict::Allow][number % 2] as i32,
                ..first()
            };
            self.operator.turn_cell(turned).await;
            let between = clock.monotonic();
            cell.push((between - start).as_secs_f64() * 1e3);
            let request = proto::UpdateProfileRequest {
                org: ORG.to_owned(),
                profile: Some(proto::Profile {
                    on_rejection: [OnRejection::Fail, OnRejection::Next][number % 2] as i32,
                    ..profile(0)
                }),
                ..Default::default()
            };
            self.operator.policies().update_profile(request).await.unwrap();
            other.push((clock.monotonic() - between).as_secs_f64() * 1e3);
        }
        let most = cell.iter().copied().fold(0.0, f64::max);
        println!(
            "  changes, {name}: one cell {:.1} ms (at most {most:.1} ms), one profile {:.1} ms",
            median(cell),
            median(other)
        );
    }
}

impl Caller {
    /// Makes these the cells of a scope.
    async fn set_cells(&self, org: &str, project: &str, set: Vec<proto::PolicyCell>) {
        self.change_cells(org, project, set, true).await;
    }

    /// Sets one cell of the org, beside the others.
    async fn turn_cell(&self, cell: proto::PolicyCell) {
        self.change_cells(ORG, "", vec![cell], false).await;
    }

    async fn change_cells(&self, org: &str, project: &str, set: Vec<proto::PolicyCell>, replace: bool) {
        let scope = proto::PolicyScope {
            org: org.to_owned(),
            project: project.to_owned(),
            ..Default::default()
        };
        let request = proto::SetCellsRequest {
            scope: Some(scope),
            set,
            replace,
            ..Default::default()
        };
        let answer = self.policies().set_cells(request).await.unwrap();
        assert!(answer.into_inner().change.unwrap().differs);
    }
}

/// The one cell of the small policy; it is in the large one as well.
fn first() -> proto::PolicyCell {
    proto::PolicyCell {
        mode: AuthMode::Byok as i32,
        provider: "demo".to_owned(),
        model: "claude-*".to_owned(),
        verdict: Verdict::Allow as i32,
    }
}

/// Cells of one scope: for all modes, for single providers and for any, for exact names, prefixes and, every
/// twentieth, a star in the middle. No denial is of the model that is resolved.
fn cells(count: usize) -> Vec<proto::PolicyCell> {
    const PROVIDERS: [&str; 7] = ["demo", "anthropic", "", "openai", "second", "google", "bedrock"];
    const FAMILIES: [&str; 5] = [
        "claude-sonnet-4",
        "gpt-5",
        "claude-opus-4",
        "gemini-2.5",
        "claude-haiku-4",
    ];
    let cell = |number: usize| {
        let family = FAMILIES[number / 2 % FAMILIES.len()];
        let numbered = 1000 + number;
        proto::PolicyCell {
            mode: i32::try_from(1 + number % 6).unwrap(),
            provider: PROVIDERS[number % PROVIDERS.len()].to_owned(),
            model: match number % 20 {
                0 => format!("*-preview-{numbered}-*"),
                1..=6 => format!("{family}-{numbered}*"),
                _ => format!("{family}-{numbered}"),
            },
            verdict: match number / 7 % 5 {
                0 => Verdict::Inherit,
                1 => Verdict::Allow,
                _ => Verdict::Deny,
            } as i32,
        }
    };
    // These match what is resolved, in the order of precedence.
    let matching = ["claude-sonnet-*", "*-sonnet-*", "claude*", "*"].map(|model| proto::PolicyCell {
        mode: AuthMode::Byok as i32,
        provider: String::new(),
        model: model.to_owned(),
        verdict: Verdict::Inherit as i32,
    });
    let others = count.saturating_sub(matching.len());
    matching.into_iter().chain((0..others).map(cell)).collect()
}

/// A profile of the org; the first is the one that is resolved.
fn profile(number: usize) -> proto::Profile {
    let name = match number {
        0 => PROFILE.to_owned(),
        number => format!("team-{number}"),
    };
    let models = ["demo", "second"].map(|provider| (provider.to_owned(), MODEL.to_owned()));
    proto::Profile {
        name,
        modes: vec![AuthMode::Byok as i32, AuthMode::Metered as i32],
        on_rejection: OnRejection::Next as i32,
        credential: String::new(),
        models: HashMap::from(models),
    }
}
