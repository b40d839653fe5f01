//! What every request passes before its handler: limits, its span, the access table, authentication.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::access::{Access, access};
use super::status::{status, transport_refusal};
use crate::domain::actor::{Actor, Caller};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::pki::accept::PeerInfo;
use crate::service::{Broker, Presented, RefusedRequest};

/// The gate, as a layer over the services.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) broker: Arc<Broker>,
    /// A place for every request in flight.
    pub(super) places: Arc<Semaphore>,
    /// Places among those for who has shown nothing yet: strangers who come and say nothing take no more.
    pub(super) strangers: Arc<Semaphore>,
    /// How long a request may take, streams left out.
    pub(super) time_limit: Duration,
    /// The longest message taken, in bytes.
    pub(super) max_message: usize,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: self.clone(),
            inner,
        }
    }
}

/// The services behind the gate.
#[derive(Clone)]
pub(super) struct Gated<S> {
    gate: Gate,
    inner: S,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let gate = self.gate.clone();
        // The clone is the one left behind, so that the service called is the one that was ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        // What is no call of ours has no name: callers could make up as many as they like.
        let method = access(request.uri().path()).map_or("unknown", |row| row.path);
        Box::pin(async move {
            let Ok(_place) = Arc::clone(&gate.places).try_acquire_owned() else {
                let refusal = Refusal::new(Reason::Overloaded, "too many requests are in flight");
                return Ok(gate.counted(method, answer(refusal.retry_after(Duration::from_millis(200)))));
            };
            let peer = request.extensions().get::<PeerInfo>().cloned();
            let certificate = peer.as_ref().and_then(|peer| peer.identity.as_deref());
            // All that is known goes in at once: adding a field later costs as much as the span itself.
            let span = tracing::info_span!(
                "request",
                method = request.uri().path(),
                peer = peer.as_ref().map(|peer| tracing::field::display(peer.remote)),
                agent = certificate
                    .and_then(|certificate| certificate.agent())
                    .map(tracing::field::display),
                actor = tracing::field::Empty,
            );
            let handled = async {
                match gate.admit(&mut request, peer.as_ref()).await {
                    Ok((caller, _place)) => {
                        let response = inner.call(request).await.map(with_details)?;
                        Ok(gate.recorded(caller, response).await)
                    }
                    Err(refusal) => Ok(answer(refusal)),
                }
            };
            let limited = async {
                // A panic costs its own call, not the connection and all calls on it.
                let handled = AssertUnwindSafe(handled).catch_unwind();
                match tokio::time::timeout(gate.time_limit, handled).await {
                    Ok(Ok(handled)) => handled,
                    Ok(Err(_)) => Ok(answer(Refusal::new(
                        Reason::Internal,
                        "the call ended abnormally",
                    ))),
                    Err(_) => Ok(answer(late())),
                }
            };
            let answered = limited.instrument(span).await;
            answered.map(|answered| gate.counted(method, answered))
        })
    }
}

impl Gate {
    /// Counts an answer, by what its head says: of a stream, that it began.
    fn counted(&self, method: &'static str, answered: Response<Body>) -> Response<Body> {
        let code = answered.headers().get("grpc-status");
        let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        self.broker.metrics().request(method, code_name(code));
        answered
    }

    /// Lets the request in, with its actor in the extensions, or refuses it. The request's span names the
    /// agent of the connection's certificate; it gets an actor only where that is somebody else.
    ///
    /// Also says who calls what, where a refusal of the handler is still to be recorded.
    async fn admit(
        &self,
        request: &mut Request<Body>,
        peer: Option<&PeerInfo>,
    ) -> Result<(Option<(Caller, &'static str)>, Option<OwnedSemaphorePermit>), Refusal> {
        let Some(row) = access(request.uri().path()) else {
            return Err(Refusal::new(Reason::UnknownMethod, "there is no such call"));
        };
        let Access::Actors(accepts) = row.access else {
            return Ok((None, self.stranger(row.path, request).await?));
        };
        let bearer = request.headers_mut().remove(http::header::AUTHORIZATION);
        let bearer = bearer
            .as_ref()
            .and_then(|value| value.to_str().ok())
            .and_then(bearer_token);
        let certificate = peer.and_then(|peer| peer.identity.as_deref());
        let org = request.headers().get(ORG).cloned();
        let presented = Presented {
            bearer,
            certificate,
            org: org.as_ref().and_then(|value| value.to_str().ok()),
        };
        let refused = RefusedRequest {
            call: row.path,
            peer: peer.map(|peer| peer.remote.ip()),
            certificate,
        };
        let mut shown = self.broker.authenticate(presented, accepts).await;
        // Who is refused is told so before it sends anything. Who is let in and takes its time to send the message is
        // looked at again when the message is there: what was revoked meanwhile gets nothing done.
        if shown.is_ok() && self.whole(request).await? {
            shown = self.broker.authenticate(presented, accepts).await;
        }
        let caller = match shown {
            Ok(caller) => caller,
            Err(refusal) => return Err(self.broker.refuse_request(refused, refusal).await),
        };
        self.broker
            .touch_caller(&caller, peer.map(|peer| peer.remote.ip()));
        if !matches!(caller.actor(), Actor::Agent(_)) {
            tracing::Span::current().record("actor", tracing::field::display(&caller));
        }
        let recorded = (!row.path.starts_with(RECORDS_ITSELF)).then(|| (caller.clone(), row.path));
        request.extensions_mut().insert(caller);
        Ok((recorded, None))
    }

    /// Takes the whole message in; every call of ours has one. Says whether it was waited for.
    async fn whole(&self, request: &mut Request<Body>) -> Result<bool, Refusal> {
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let mut all = std::pin::pin!(Limited::new(body, self.max_message + FRAME).collect());
        let (waited, got) = match (&mut all).now_or_never() {
            Some(got) => (false, got),
            None => (true, all.await),
        };
        let bytes = got.map_err(|error| match error.is::<LengthLimitError>() {
            true => Refusal::new(
                Reason::MessageTooLarge,
                "the message is larger than the broker takes",
            ),
            false => Refusal::new(Reason::MessageMalformed, "the message did not come through"),
        })?;
        *request.body_mut() = Body::new(Full::new(bytes.to_bytes()));
        Ok(waited)
    }

    /// Lets a call in that anybody may make, with its message, which has to come at once. Health and reflection
    /// are not ours, and some of their calls go on sending.
    async fn stranger(
        &self,
        path: &str,
        request: &mut Request<Body>,
    ) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let Ok(place) = Arc::clone(&self.strangers).try_acquire_owned() else {
            let refusal = Refusal::new(Reason::Overloaded, "too many strangers are calling");
            return Err(refusal.retry_after(Duration::from_millis(200)));
        };
        if path.starts_with("/credbroker.") {
            let whole = tokio::time::timeout(STRANGERS_MESSAGE, self.whole(request)).await;
            let _waited = whole.map_err(|_| late())??;
        }
        Ok(Some(place))
    }

    /// Records that the handler found its caller to have no right to what was asked for.
    async fn recorded(
        &self,
        caller: Option<(Caller, &'static str)>,
        response: Response<Body>,
    ) -> Response<Body> {
        let denied = Code::PermissionDenied as i32;
        let code = response.headers().get("grpc-status");
        let Some((caller, call)) = caller.filter(|_| code.is_some_and(|code| *code == *denied.to_string()))
        else {
            return response;
        };
        let refused = Reason::PermissionDenied;
        let told = Status::from_header_map(response.headers());
        let told = told.and_then(|status| status.get_details_error_info());
        if told.is_none_or(|info| info.reason != refused.code()) {
            return response;
        }
        let refusal = Refusal::new(refused, "the call was refused");
        match self.broker.refuse_call(&caller, call, refusal).await {
            recorded if recorded.reason == refused => response,
            unrecorded => answer(unrecorded),
        }
    }
}

/// The service whose use cases record their refusals with all that they are about.
const RECORDS_ITSELF: &str = "/credbroker.v1.BrokerService/";

/// What gRPC puts before a message.
const FRAME: usize = 5;

/// How long the message of a call by a stranger may take.
const STRANGERS_MESSAGE: Duration = Duration::from_secs(5);

/// The metadata that says which org is meant.
const ORG: &str = "credbroker-org";

/// The token of an `authorization` value; the scheme is case-insensitive (RFC 9110 section 11.1).
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn late() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the call took longer than it may")
}

fn answer(refusal: Refusal) -> Response<Body> {
    status(refusal).into_http()
}

/// Gives a failure that the transport made by itself the details every failure has.
fn with_details(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    // Where all is well there is no status yet: it comes in the trailers.
    let Some(code) = headers.get("grpc-status") else {
        return response;
    };
    if headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    match transport_refusal(Code::from_bytes(code.as_bytes())) {
        Some(refusal) => answer(refusal),
        None => response,
    }
}

/// A code's name, as gRPC's documentation has it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
