//! The bare echo.
//!
//! The first four bytes of a request say how long an answer to send, so that its messages are as long as the
//! broker's.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use credbroker::service::Broker;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

use super::beside;
use super::raw::Raw;

/// The path of its only call.
pub const PATH: &str = "/bench.Echo/Echo";

static ANSWER: [u8; 4096] = [0x61; 4096];

/// A request that asks for an answer of `answer` bytes.
pub fn request(length: usize, answer: usize) -> Bytes {
    let mut request = vec![0; length.max(4)];
    request[..4].copy_from_slice(&u32::try_from(answer).unwrap().to_be_bytes());
    request.into()
}

/// Serves on a port of its own until the process ends.
pub async fn start(broker: &Broker) -> SocketAddr {
    beside::start(broker, Echo).await
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(Raw).unary(Answer, request).await) })
    }
}

struct Answer;

impl UnaryService<Bytes> for Answer {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let wanted = request.get_ref().first_chunk().copied().map(u32::from_be_bytes);
        let length = wanted.map_or(0, |length| length as usize).min(ANSWER.len());
        ready(Ok(Response::new(Bytes::from_static(&ANSWER[..length]))))
    }
}
