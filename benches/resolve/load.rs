//! The clients: a number of connections, each of another agent, each with a number of calls under way.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use credbroker::cli::client::{Bearer, Transport, connect};
use credbroker::clock::{Clock, SystemClock};
use credbroker::domain::secret::Secret;
use credbroker::proto;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::service::interceptor::InterceptedService;

use super::echo;
use super::raw::Raw;
use super::server::{Agent, Server};

const RESOLVE: &str = "/credbroker.v1.BrokerService/ResolveCredential";

/// How many connections, and how many calls each has under way.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    pub streams: usize,
}

impl FromStr for Shape {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (connections, streams) = text.split_once('x').ok_or(())?;
        Ok(Self {
            connections: connections.parse().ok().ok_or(())?,
            streams: streams.parse().ok().ok_or(())?,
        })
    }
}

/// What came of a run.
pub struct Run {
    /// How long each call took, shortest first.
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
    pub server_cpu: Duration,
}

/// Connections to both services.
pub struct Client {
    shape: Shape,
    clock: Arc<SystemClock>,
    resolve: Vec<Call>,
    echo: Vec<Call>,
}

/// A connection and what is called over it.
#[derive(Clone)]
struct Call {
    transport: Transport,
    path: PathAndQuery,
    request: Bytes,
}

impl Call {
    async fn call(&self) -> Bytes {
        let mut client = Grpc::new(self.transport.clone());
        client.ready().await.unwrap();
        let request = tonic::Request::new(self.request.clone());
        let answer = client.unary(request, self.path.clone(), Raw).await;
        answer.unwrap().into_inner()
    }
}

impl Client {
    pub async fn connect(server: &Server, agents: &[Agent], shape: Shape) -> Self {
        let mut client = Self {
            shape,
            clock: Arc::new(SystemClock::new()),
            resolve: Vec::new(),
            echo: Vec::new(),
        };
        for agent in &agents[..shape.connections] {
            let request = proto::ResolveCredentialRequest {
                task: agent.task.clone(),
                ..Default::default()
            };
            let request = Bytes::from(request.encode_to_vec());
            let resolve = open(server, &server.broker, agent, RESOLVE, request.clone()).await;
            // The first resolution makes the lease; those measured find it.
            let answer = resolve.call().await;
            let answer_length = proto::ResolveCredentialResponse::decode(answer.clone())
                .map(|resolved| {
                    assert!(resolved.lease.unwrap().material.is_some());
                    answer.len()
                })
                .unwrap();
            let request = echo::request(request.len(), answer_length);
            client
                .echo
                .push(open(server, &server.echo, agent, echo::PATH, request).await);
            client.resolve.push(resolve);
        }
        client
    }

    pub async fn run_echo(&self, length: Duration) -> Run {
        self.run(&self.echo, length).await
    }

    pub async fn run_resolve(&self, length: Duration) -> Run {
        self.run(&self.resolve, length).await
    }

    async fn run(&self, calls: &[Call], length: Duration) -> Run {
        let start = self.clock.monotonic();
        let mut streams = Vec::new();
        for call in calls {
            for _ in 0..self.shape.streams {
                let (call, clock) = (call.clone(), Arc::clone(&self.clock));
                streams.push(tokio::spawn(async move {
                    let mut latencies = Vec::with_capacity(1 << 14);
                    let mut now = clock.monotonic();
                    while now - start < length {
                        let answer = call.call().await;
                        assert!(!answer.is_empty());
                        let after = clock.monotonic();
                        latencies.push(after - now);
                        now = after;
                    }
                    latencies
                }));
            }
        }
        let mut latencies = Vec::new();
        for stream in streams {
            latencies.append(&mut stream.await.unwrap());
        }
        let elapsed = self.clock.monotonic() - start;
        latencies.sort_unstable();
        Run {
            latencies,
            elapsed,
            server_cpu: Duration::ZERO,
        }
    }
}

async fn open(server: &Server, address: &str, agent: &Agent, path: &'static str, request: Bytes) -> Call {
    let identity = Some(agent.enrolled.identity());
    let channel = connect(address, server.trust(), identity).await.unwrap();
    let token = Secret::from(agent.enrolled.runtime_key.clone());
    let bearer = Bearer::new(Some(&token), Duration::from_secs(60)).ok().unwrap();
    Call {
        transport: InterceptedService::new(channel, bearer),
        path: PathAndQuery::from_static(path),
        request,
    }
}
