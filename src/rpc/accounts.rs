//! `AccountService`: connecting and disconnecting accounts, between message and use case. Codes come in here; no token
//! ever goes out.

mod disconnect;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use tonic::{Request, Response, Status};

use super::convert::{caller, proto_duration, secret_text, timestamp};
use super::status::status;
use crate::domain::actor::Caller;
use crate::domain::connection::Connection;
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use crate::proto;
use crate::service::{
    BeginConnection, Broker, CompleteConnection, ConnectionPhase, ConnectionStanding, Flow, FlowKind,
    FollowedConnection, PageRequest, WatchedConnection,
};

pub(super) struct AccountService(pub(super) Arc<Broker>);

fn port(port: u32) -> Result<u16, Refusal> {
    u16::try_from(port).map_err(|_| Refusal::invalid("loopback_port", "loopback_port is at most 65535"))
}

fn flow(flow: proto::ConnectionFlow, loopback_port: u32) -> Result<Option<FlowKind>, Refusal> {
    Ok(match flow {
        proto::ConnectionFlow::Unspecified => None,
        proto::ConnectionFlow::Paste => Some(FlowKind::Paste),
        proto::ConnectionFlow::Loopback => Some(FlowKind::Loopback {
            port: port(loopback_port)?,
        }),
        proto::ConnectionFlow::Device => Some(FlowKind::Device),
    })
}

fn standing(standing: ConnectionStanding) -> proto::ConnectionState {
    match standing {
        ConnectionStanding::Waiting => proto::ConnectionState::Waiting,
        ConnectionStanding::Exchanging => proto::ConnectionState::Exchanging,
        ConnectionStanding::Connected => proto::ConnectionState::Connected,
        ConnectionStanding::Failed => proto::ConnectionState::Failed,
        ConnectionStanding::Cancelled => proto::ConnectionState::Cancelled,
        ConnectionStanding::Expired => proto::ConnectionState::Expired,
    }
}

impl AccountService {
    fn shown(&self, caller: &Caller, connection: &Connection) -> proto::Connection {
        let stands = self.0.connection_standing(connection);
        let mut shown = proto::Connection {
            id: connection.id.to_string(),
            org: connection.org.to_string(),
            member: connection.member.to_string(),
            connector: connection.connector.clone(),
            provider: connection.provider.clone(),
            state: standing(stands) as i32,
            create_time: Some(timestamp(connection.created)),
            expire_time: Some(timestamp(connection.expires)),
            end_time: stands.is_over().then(|| timestamp(connection.end())),
            attempt: connection.attempt,
            redirect_uri: connection.redirect_uri().unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let waiting = stands == ConnectionStanding::Waiting && self.0.may_sign_in(caller, connection);
        if waiting {
            shown.url.clone_from(&connection.url);
        }
        let flow = match &connection.flow {
            Flow::Paste { with_state, .. } => {
                shown.code_and_state = *with_state;
                proto::ConnectionFlow::Paste
            }
            Flow::Loopback { .. } => proto::ConnectionFlow::Loopback,
            Flow::Device {
                user_code,
                complete_uri,
                ..
            } => {
                if waiting {
                    shown.user_code.clone_from(user_code);
                    shown.url_complete = complete_uri.clone().unwrap_or_default();
                }
                proto::ConnectionFlow::Device
            }
        };
        shown.flow = flow as i32;
        match &connection.phase {
            ConnectionPhase::Connected { credential } => shown.credential = credential.to_string(),
            ConnectionPhase::Failed { reason, message } => {
                shown.reason.clone_from(reason);
                shown.message.clone_from(message);
            }
            _ => {}
        }
        shown
    }

    fn told(&self, caller: &Caller, told: &FollowedConnection) -> proto::WatchConnectionResponse {
        use proto::watch_connection_response::Event;
        let event = match told {
            FollowedConnection::Progress(connection) => Event::Progress(self.shown(caller, connection)),
            FollowedConnection::Completion(connection) => Event::Completion(self.shown(caller, connection)),
            FollowedConnection::Heartbeat(interval) => Event::Heartbeat(proto::StreamHeartbeat {
                interval: Some(proto_duration(*interval)),
            }),
        };
        proto::WatchConnectionResponse { event: Some(event) }
    }

    fn messages(self, caller: Caller, watched: WatchedConnection) -> Messages {
        Box::pin(unfold(Some((self, caller, watched)), |state| async {
            let (service, caller, mut watched) = state?;
            match watched.next().await {
                Ok(Some(told)) => {
                    let message = service.told(&caller, &told);
                    Some((Ok(message), Some((service, caller, watched))))
                }
                Ok(None) => None,
                Err(refusal) => Some((Err(status(refusal)), None)),
            }
        }))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<proto::WatchConnectionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl proto::account_service_server::AccountService for AccountService {
    type WatchConnectionStream = Messages;

    async fn begin_connection(
        &self,
        request: Request<proto::BeginConnectionRequest>,
    ) -> Result<Response<proto::BeginConnectionResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let begin = BeginConnection {
            org: &message.org,
            member: &message.member,
            connector: &message.connector,
            flow: flow(message.flow(), message.loopback_port).map_err(status)?,
        };
        let begun = self.0.begin_connection(&caller, begin).await.map_err(status)?;
        Ok(Response::new(proto::BeginConnectionResponse {
            connection: Some(self.shown(&caller, &begun)),
        }))
    }

    async fn complete_connection(
        &self,
        request: Request<proto::CompleteConnectionRequest>,
    ) -> Result<Response<proto::CompleteConnectionResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let complete = CompleteConnection {
            org: &message.org,
            connection: &message.connection,
            code: Secret::from(secret_text(message.code)),
            state: &message.state,
        };
        let done = self.0.complete_connection(&caller, complete).await;
        let done = done.map_err(status)?;
        Ok(Response::new(proto::CompleteConnectionResponse {
            connection: Some(self.shown(&caller, &done)),
        }))
    }

    async fn retry_connection(
        &self,
        request: Request<proto::RetryConnectionRequest>,
    ) -> Result<Response<proto::RetryConnectionResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let port = port(message.loopback_port).map_err(status)?;
        let begun = self
            .0
            .retry_connection(&caller, &message.org, &message.connection, port)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::RetryConnectionResponse {
            connection: Some(self.shown(&caller, &begun)),
        }))
    }

    async fn cancel_connection(
        &self,
        request: Request<proto::CancelConnectionRequest>,
    ) -> Result<Response<proto::CancelConnectionResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let cancelled = self
            .0
            .cancel_connection(&caller, &message.org, &message.connection)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::CancelConnectionResponse {
            connection: Some(self.shown(&caller, &cancelled)),
        }))
    }

    async fn get_connection(
        &self,
        request: Request<proto::GetConnectionRequest>,
    ) -> Result<Response<proto::GetConnectionResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let found = self
            .0
            .get_connection(&caller, &message.org, &message.connection)
            .await
            .map_err(status)?;
        Ok(Response::new(proto::GetConnectionResponse {
            connection: Some(self.shown(&caller, &found)),
        }))
    }

    async fn list_connections(
        &self,
        request: Request<proto::ListConnectionsRequest>,
    ) -> Result<Response<proto::ListConnectionsResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let page = PageRequest {
            size: message.page_size,
            token: &message.page_token,
        };
        let page = self.0.list_connections(&caller, &message.org, page).await;
        let page = page.map_err(status)?;
        Ok(Response::new(proto::ListConnectionsResponse {
            connections: page.rows.iter().map(|each| self.shown(&caller, each)).collect(),
            next_page_token: page.next,
        }))
    }

    async fn watch_connection(
        &self,
        request: Request<proto::WatchConnectionRequest>,
    ) -> Result<Response<Self::WatchConnectionStream>, Status> {
        let caller = caller(&request)?;
        let message = request.get_ref();
        let watched = self
            .0
            .watch_connection(&caller, &message.org, &message.connection)
            .await
            .map_err(status)?;
        let service = Self(Arc::clone(&self.0));
        Ok(Response::new(service.messages(caller, watched)))
    }

    async fn disconnect_account(
        &self,
        request: Request<proto::DisconnectAccountRequest>,
    ) -> Result<Response<proto::DisconnectAccountResponse>, Status> {
        disconnect::disconnect_account(&self.0, &request).await
    }

    async fn get_revocation(
        &self,
        request: Request<proto::GetRevocationRequest>,
    ) -> Result<Response<proto::GetRevocationResponse>, Status> {
        disconnect::get_revocation(&self.0, &request).await
    }

    async fn list_revocations(
        &self,
        request: Request<proto::ListRevocationsRequest>,
    ) -> Result<Response<proto::ListRevocationsResponse>, Status> {
        disconnect::list_revocations(&self.0, &request).await
    }
}
