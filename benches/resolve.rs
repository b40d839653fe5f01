//! A resolution over the port beside a bare echo over the same mTLS, in one run.
//!
//! The server is a process of its own, so that its CPU time is told from the clients'. It serves both: the
//! broker (journal and store on disk, as configured by default), and beside it on another port an echo with
//! nothing but tonic behind the same accept loop. Rounds alternate between the two; what is printed are
//! medians over the rounds, and medians of the rounds' ratios. Then a broker with a large policy is measured
//! beside one with a small one.
//!
//! `cargo bench --bench resolve` measures; `-- 8x8 --seconds 20` measures one shape for longer, for a
//! profiler, and `-- policy` only the policies. Under `cargo test --benches` it only shows that it works. `docs/performance.md` has figures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "resolve/beside.rs"]
mod beside;
#[path = "resolve/echo.rs"]
mod echo;
#[path = "resolve/load.rs"]
mod load;
#[path = "resolve/policy.rs"]
mod policy;
#[path = "resolve/raw.rs"]
mod raw;
#[path = "resolve/report.rs"]
mod report;
#[path = "resolve/server.rs"]
mod server;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use load::{Client, Shape};
use report::Round;
use server::Server;

/// What makes this process the server.
const SERVE: &str = "--serve";
/// What the harness tells a bench to measure by; `cargo test` does not give it.
const MEASURE: &str = "--bench";
/// What names the policies among the shapes.
const POLICY: &str = "policy";

/// How long, how often and what is measured.
struct Plan {
    shapes: Vec<Shape>,
    rounds: usize,
    length: Duration,
    warm_up: Duration,
    policy: Option<policy::Size>,
}

impl Plan {
    fn new(arguments: &[String]) -> Self {
        let named: Vec<Shape> = arguments.iter().filter_map(|word| word.parse().ok()).collect();
        let seconds = arguments.iter().skip_while(|word| *word != "--seconds").nth(1);
        let seconds: Option<f64> = seconds.and_then(|seconds| seconds.parse().ok());
        let shapes = [(8, 8), (64, 4), (1, 1)].map(|(connections, streams)| Shape { connections, streams });
        if !arguments.iter().any(|word| word == MEASURE) {
            return Self {
                shapes: vec![shapes[2]],
                rounds: 1,
                length: Duration::from_millis(200),
                warm_up: Duration::ZERO,
                policy: Some(policy::Size {
                    cells: 60,
                    profiles: 200,
                    rounds: 1,
                    length: Duration::from_millis(200),
                    changes: 2,
                }),
            };
        }
        let policy = arguments.iter().any(|word| word == POLICY);
        let all = named.is_empty() && !policy;
        Self {
            shapes: if all { shapes.to_vec() } else { named },
            rounds: if seconds.is_some() { 1 } else { 5 },
            length: Duration::from_secs_f64(seconds.unwrap_or(1.5)),
            warm_up: Duration::from_millis(500),
            policy: (all || policy).then_some(policy::Size {
                cells: 1_000,
                profiles: 10_000,
                rounds: 30,
                length: Duration::from_millis(700),
                changes: 11,
            }),
        }
    }
}

/// The daemon's, for both servers and the clients.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if arguments.iter().any(|word| word == SERVE) {
        runtime.block_on(server::serve());
    } else {
        let plan = Plan::new(&arguments);
        if !plan.shapes.is_empty() {
            runtime.block_on(measure(&plan));
        }
        if let Some(size) = &plan.policy {
            runtime.block_on(policy::measure(size));
        }
    }
}

async fn measure(plan: &Plan) {
    let server = Server::start().await;
    let fsync = report::fsync();
    println!(
        "one fdatasync of 512 bytes, appended: median {:.0} us, p99 {:.0} us\n",
        fsync.median, fsync.p99
    );
    let most = plan.shapes.iter().map(|shape| shape.connections).max().unwrap();
    let agents = server.agents(most).await;
    for shape in &plan.shapes {
        let client = Client::connect(&server, &agents, *shape).await;
        client.run_echo(plan.warm_up).await;
        client.run_resolve(plan.warm_up).await;
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            rounds.push(Round {
                echo: server.measured(client.run_echo(plan.length)).await,
                resolve: server.measured(client.run_resolve(plan.length)).await,
            });
        }
        report::print(*shape, &rounds, &fsync);
    }
    server.stop();
}
