//! What a watching agent costs the broker in memory, beside a bare tonic stream over the same mTLS.
//!
//! Each is measured in a server process of its own: resident memory before there is a connection, with all
//! connections, and with all streams, each of which has sent its first message. The bare server has the same
//! accept loop and sends a message as long as a heartbeat. The agents are the same, and hold a lease each.
//!
//! `cargo bench --bench watch` measures; under `cargo test --benches` it only shows that it works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

#[path = "watch/bare.rs"]
mod bare;
#[path = "resolve/beside.rs"]
mod beside;
#[path = "resolve/raw.rs"]
mod raw;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use credbroker::cli::client::Trust;
use credbroker::proto;
use http::uri::PathAndQuery;
use prost::Message as _;
use raw::Raw;
use support::broker::{MEMBER, ORG};
use support::{Caller, Enrolled, NewKey, TestBroker};
use tonic::Streaming;
use tonic::client::Grpc;

/// What makes this process the server.
const SERVE: &str = "--serve";
/// What the harness tells a bench to measure by; `cargo test` does not give it.
const MEASURE: &str = "--bench";
const WATCH: &str = "/credbroker.v1.WatchService/Watch";

/// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    if arguments.iter().any(|word| word == SERVE) {
        runtime.block_on(serve());
    } else {
        let measures = arguments.iter().any(|word| word == MEASURE);
        let shapes: &[(usize, usize)] = if measures {
            &[(500, 1), (80, 25)]
        } else {
            &[(2, 2)]
        };
        runtime.block_on(measure(shapes));
    }
}

async fn serve() {
    let broker = TestBroker::start().await;
    let bare = bare::start(&broker.broker).await;
    println!(
        "{} {} {} {}",
        broker.address,
        bare,
        broker.pin,
        broker.operator_token()
    );
    let ended = tokio::task::spawn_blocking(|| {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    });
    ended.await.unwrap();
    broker.stop().await;
}

async fn measure(shapes: &[(usize, usize)]) {
    for (connections, streams) in shapes {
        let bare = Costs::of(*connections, *streams, |server| (server.bare.clone(), bare::PATH)).await;
        let watch = Costs::of(*connections, *streams, |server| (server.broker.clone(), WATCH)).await;
        let line = |name: &str, costs: &Costs| {
            println!(
                "{name:<6} {:6.1} KiB a connection, {:6.1} KiB a stream",
                costs.connection / 1024.0,
                costs.stream / 1024.0
            );
        };
        println!("{connections} connections, {streams} streams on each");
        line("bare", &bare);
        line("watch", &watch);
        // The connection is the same code for both: the smaller figure is the less disturbed one.
        let connection = bare.connection.min(watch.connection).max(0.0);
        let whole = |costs: &Costs| connection + costs.stream;
        println!(
            "a connection with one stream: {:.2} of a bare one's; a further stream: {:.2}\n",
            whole(&watch) / whole(&bare),
            watch.stream / bare.stream
        );
    }
}

/// What things cost the server, in bytes.
struct Costs {
    connection: f64,
    stream: f64,
}

impl Costs {
    async fn of(
        connections: usize,
        streams: usize,
        called: impl Fn(&Server) -> (String, &'static str),
    ) -> Self {
        let server = Server::start();
        let agents = server.agents(connections).await;
        let (address, path) = called(&server);
        let before = server.resident().await;
        let mut callers = Vec::new();
        for agent in &agents {
            let identity = Some(agent.identity());
            let key = Some(agent.runtime_key.as_str());
            callers.push(Caller::connect(&address, server.trust(), identity, key).await);
        }
        let connected = server.resident().await;
        let mut open = Vec::new();
        for caller in &callers {
            for _ in 0..streams {
                open.push(watch(caller, path).await);
            }
        }
        let streaming = server.resident().await;
        drop(open);
        server.stop();
        let all = connections * streams;
        Self {
            connection: (connected - before) / connections as f64,
            stream: (streaming - connected) / all as f64,
        }
    }
}

/// An open stream that has given its first message.
async fn watch(caller: &Caller, path: &'static str) -> Streaming<Bytes> {
    let mut client = Grpc::new(caller.transport());
    client.ready().await.unwrap();
    let request = Bytes::from(proto::WatchRequest::default().encode_to_vec());
    let answer = client
        .server_streaming(tonic::Request::new(request), PathAndQuery::from_static(path), Raw)
        .await;
    let mut messages = answer.unwrap().into_inner();
    let first = messages.message().await.unwrap().unwrap();
    // As long as the bare stream's, but for the digits of a time.
    assert!(first.len().abs_diff(bare::MESSAGE) < 8, "{} bytes", first.len());
    messages
}

/// The server's process, as its clients see it.
struct Server {
    process: Child,
    broker: String,
    bare: String,
    pin: String,
    operator_token: String,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [broker, bare, pin, operator_token] = words.try_into().expect("the server did not start");
        Self {
            process,
            broker,
            bare,
            pin,
            operator_token,
        }
    }

    fn stop(mut self) {
        let _ = self.process.stdin.take().unwrap().write_all(b"\n");
        let _ = self.process.wait();
    }

    fn trust(&self) -> Trust {
        Trust::Pin(self.pin.parse().unwrap())
    }

    /// Agents with a lease each, whose connections are closed again.
    async fn agents(&self, count: usize) -> Vec<Enrolled> {
        let token = Some(self.operator_token.as_str());
        let operator = Caller::connect(&self.broker, self.trust(), None, token).await;
        operator.make_org(ORG).await;
        operator.set_key(ORG, "", &"k".repeat(100)).await;
        let anonymous = Caller::connect(&self.broker, self.trust(), None, None).await;
        let mut agents = Vec::with_capacity(count);
        for _ in 0..count {
            let task = operator.make_task(ORG, MEMBER).await;
            let token = operator.enrollment_token(ORG, &task).await;
            let key = NewKey::generate();
            let request = proto::EnrollRequest {
                token: Some(proto::Secret { value: token }),
                csr_der: key.csr(),
                attributes: Default::default(),
            };
            let answer = anonymous.enrollment().enroll(request).await.unwrap();
            let enrolled = Enrolled::new(answer.into_inner(), &key);
            let (identity, key) = (Some(enrolled.identity()), Some(enrolled.runtime_key.as_str()));
            let agent = Caller::connect(&self.broker, self.trust(), identity, key).await;
            agent.resolve("").await.unwrap();
            agents.push(enrolled);
        }
        agents
    }

    /// The process's resident memory once it has settled, in bytes: `VmRSS` of `proc(5)`.
    async fn resident(&self) -> f64 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        kib * 1024.0
    }
}
