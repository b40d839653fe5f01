//! Disconnecting, and what becomes of tokens at their provider, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::domain::revocation::{Fate, Revocation, RevokedToken};
use crate::proto;
use crate::rpc::convert::{caller, duration, timestamp};
use crate::rpc::status::status;
use crate::service::{Broker, Disconnect, PageRequest};

fn fate(fate: Fate) -> proto::TokenFate {
    match fate {
        Fate::Revoked => proto::TokenFate::Revoked,
        Fate::WithGrant => proto::TokenFate::RevokedWithGrant,
        Fate::Pending => proto::TokenFate::Pending,
        Fate::Expires => proto::TokenFate::Expires,
        Fate::GivenUp => proto::TokenFate::GivenUp,
    }
}

fn token(token: &RevokedToken) -> proto::RevokedToken {
    proto::RevokedToken {
        token: token.kind.name().to_owned(),
        fate: fate(token.fate) as i32,
        expire_time: token.expires.map(timestamp),
        message: token.message.clone(),
    }
}

fn revocation(shown: &Revocation) -> proto::Revocation {
    proto::Revocation {
        id: shown.id.to_string(),
        org: shown.org.to_string(),
        member: shown.member.map(|member| member.to_string()).unwrap_or_default(),
        connector: shown.connector.clone(),
        credential: shown.credential.map(|id| id.to_string()).unwrap_or_default(),
        tokens: shown.tokens.iter().map(token).collect(),
        attempts: shown.attempts,
        next_time: shown.next.map(timestamp),
        create_time: Some(timestamp(shown.created)),
        end_time: shown.ended.map(timestamp),
    }
}

pub(super) async fn disconnect_account(
    broker: &Arc<Broker>,
    request: &Request<proto::DisconnectAccountRequest>,
) -> Result<Response<proto::DisconnectAccountResponse>, Status> {
    let caller = caller(request)?;
    let message = request.get_ref();
    let disconnect = Disconnect {
        org: &message.org,
        credential: &message.credential,
        keep_upstream: message.keep_upstream,
        wait: duration("wait", message.wait).map_err(status)?,
    };
    let done = broker.disconnect_account(&caller, disconnect).await;
    let done = done.map_err(status)?;
    Ok(Response::new(proto::DisconnectAccountResponse {
        tokens: done.tokens.iter().map(token).collect(),
        revocation: done.revocation.map(|id| id.to_string()).unwrap_or_default(),
        leases_ended: u32::try_from(done.leases_ended).unwrap_or(u32::MAX),
    }))
}

pub(super) async fn get_revocation(
    broker: &Arc<Broker>,
    request: &Request<proto::GetRevocationRequest>,
) -> Result<Response<proto::GetRevocationResponse>, Status> {
    let caller = caller(request)?;
    let message = request.get_ref();
    let found = broker
        .get_revocation(&caller, &message.org, &message.revocation)
        .await
        .map_err(status)?;
    Ok(Response::new(proto::GetRevocationResponse {
        revocation: Some(revocation(&found)),
    }))
}

pub(super) async fn list_revocations(
    broker: &Arc<Broker>,
    request: &Request<proto::ListRevocationsRequest>,
) -> Result<Response<proto::ListRevocationsResponse>, Status> {
    let caller = caller(request)?;
    let message = request.get_ref();
    let page = PageRequest {
        size: message.page_size,
        token: &message.page_token,
    };
    let page = broker.list_revocations(&caller, &message.org, page).await;
    let page = page.map_err(status)?;
    Ok(Response::new(proto::ListRevocationsResponse {
        revocations: page.rows.iter().map(|one| revocation(one)).collect(),
        next_page_token: page.next,
    }))
}
