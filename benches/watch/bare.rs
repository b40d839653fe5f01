//! The bare stream.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use credbroker::service::Broker;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

use super::beside;
use super::raw::Raw;

/// The path of its only call.
pub const PATH: &str = "/bench.Bare/Watch";
/// How long its messages are: as a heartbeat of the broker.
pub const MESSAGE: usize = 66;
/// How often there is one: as the broker's heartbeats.
const INTERVAL: Duration = Duration::from_secs(15);

/// Serves on a port of its own until the process ends.
pub async fn start(broker: &Broker) -> SocketAddr {
    beside::start(broker, Bare).await
}

#[derive(Clone)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = "bench.Bare";
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(Raw).server_streaming(Answer, request).await) })
    }
}

struct Answer;

impl ServerStreamingService<Bytes> for Answer {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        static MESSAGES: [u8; MESSAGE] = [0x61; MESSAGE];
        let messages = stream::unfold(false, |greeted| async move {
            if greeted {
                tokio::time::sleep(INTERVAL).await;
            }
            Some((Ok(Bytes::from_static(&MESSAGES)), true))
        });
        ready(Ok(Response::new(messages.boxed())))
    }
}
