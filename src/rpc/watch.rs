//! `WatchService`: events, between stream and use case.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use tonic::{Request, Response, Status};

use super::convert::{caller, health, proto_duration, timestamp};
use super::status::status;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::proto::watch_event;
use crate::service::{Broker, Event, Told, Watch, WatchInput, What};

pub(super) struct WatchService(pub(super) Arc<Broker>);

type Messages = Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl proto::watch_service_server::WatchService for WatchService {
    type WatchStream = Messages;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let input = WatchInput {
            cursor: &message.cursor,
            org: &message.org,
        };
        let watch = self.0.watch(&caller, input).await.map_err(status)?;
        Ok(Response::new(messages(watch)))
    }
}

/// The stream of a watch: its messages, and last why there is no further one.
fn messages(watch: Watch) -> Messages {
    Box::pin(unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(told) => Some((Ok(response(told)), Some(watch))),
            Err(refusal) => Some((Err(end(&watch, refusal)), None)),
        }
    }))
}

/// The final status. The request's span is over by now.
fn end(watch: &Watch, refusal: Refusal) -> Status {
    let span = tracing::info_span!("stream", method = "Watch", actor = %watch.actor());
    span.in_scope(|| status(refusal))
}

fn response(told: Told) -> proto::WatchResponse {
    let event = match told.what {
        What::Heartbeat(interval) => watch_event::Event::Heartbeat(proto::StreamHeartbeat {
            interval: Some(proto_duration(interval)),
        }),
        What::Missed => watch_event::Event::EventsMissed(proto::EventsMissed {}),
        What::Event(event) => happened(event),
    };
    proto::WatchResponse {
        event: Some(proto::WatchEvent {
            cursor: told.cursor,
            time: Some(timestamp(told.time)),
            event: Some(event),
        }),
    }
}

fn happened(event: Event) -> watch_event::Event {
    match event {
        Event::CredentialRotated {
            credential,
            generation,
        } => watch_event::Event::CredentialRotated(proto::CredentialRotated {
            credential: credential.to_string(),
            generation,
        }),
        Event::CredentialHealthChanged {
            credential,
            health: now,
        } => watch_event::Event::CredentialHealthChanged(proto::CredentialHealthChanged {
            credential: credential.to_string(),
            health: health(now),
        }),
        Event::AccessEnded {
            subject,
            reason,
            reversible,
        } => watch_event::Event::AccessEnded(proto::AccessEnded {
            subject,
            reason: reason.code().to_owned(),
            reversible,
        }),
        Event::PolicyChanged { version } => watch_event::Event::PolicyChanged(proto::PolicyChanged {
            policy_version: version,
        }),
        Event::ApprovalDecided { approval, granted } => {
            watch_event::Event::ApprovalDecided(proto::ApprovalDecided {
                approval: approval.to_string(),
                granted,
            })
        }
    }
}
