//! The statuses of `CredentialService`: how credentials stand, between message and use case.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert::{caller, credential, timestamp};
use super::status::status;
use crate::domain::credential::Health;
use crate::domain::mode::CredentialKind;
use crate::domain::refusal::Refusal;
use crate::proto;
use crate::service::{Broker, CredentialStatus, PageRequest, StatusFilter};

/// How many healths a filter names at most; there are fewer.
const MAX_HEALTHS: usize = 16;

pub(super) async fn get(
    broker: &Arc<Broker>,
    request: &Request<proto::GetCredentialStatusRequest>,
) -> Result<Response<proto::GetCredentialStatusResponse>, Status> {
    let caller = caller(request)?;
    let message = request.get_ref();
    let found = broker
        .credential_status(&caller, &message.org, &message.credential)
        .await
        .map_err(status)?;
    Ok(Response::new(proto::GetCredentialStatusResponse {
        status: Some(shown(&found)),
    }))
}

pub(super) async fn list(
    broker: &Arc<Broker>,
    request: &Request<proto::ListCredentialStatusesRequest>,
) -> Result<Response<proto::ListCredentialStatusesResponse>, Status> {
    let caller = caller(request)?;
    let message = request.get_ref();
    let wanted = healths(&message.health).map_err(status)?;
    let filter = StatusFilter {
        member: &message.member,
        health: &wanted,
    };
    let page = PageRequest {
        size: message.page_size,
        token: &message.page_token,
    };
    let page = broker
        .credential_statuses(&caller, &message.org, filter, page)
        .await
        .map_err(status)?;
    Ok(Response::new(proto::ListCredentialStatusesResponse {
        statuses: page.rows.iter().map(shown).collect(),
        next_page_token: page.next,
    }))
}

fn healths(wanted: &[i32]) -> Result<Vec<Health>, Refusal> {
    if wanted.len() > MAX_HEALTHS {
        return Err(Refusal::invalid("health", "health names too many"));
    }
    wanted.iter().map(|health| from_wire(*health)).collect()
}

fn from_wire(health: i32) -> Result<Health, Refusal> {
    Ok(match proto::CredentialHealth::try_from(health) {
        Ok(proto::CredentialHealth::Ok) => Health::Ok,
        Ok(proto::CredentialHealth::Expiring) => Health::Expiring,
        Ok(proto::CredentialHealth::Refreshing) => Health::Refreshing,
        Ok(proto::CredentialHealth::Ambiguous) => Health::Ambiguous,
        Ok(proto::CredentialHealth::Quarantined) => Health::Quarantined,
        Ok(proto::CredentialHealth::ReauthRequired) => Health::ReauthRequired,
        Ok(proto::CredentialHealth::Expired) => Health::Expired,
        Ok(proto::CredentialHealth::GrantLost) => Health::GrantLost,
        Ok(proto::CredentialHealth::Unspecified) | Err(_) => {
            return Err(Refusal::invalid("health", "health is not one this broker knows"));
        }
    })
}

fn shown(found: &CredentialStatus) -> proto::CredentialStatus {
    let (subscription, tier) = found.plan();
    let phase = &found.credential.rotation.phase;
    // What tests tell of AWS keys is whose they are.
    let tested = found
        .tested
        .as_ref()
        .filter(|_| found.credential.kind != CredentialKind::Aws);
    let figures = tested.map(|tested| tested.facts.as_slice()).unwrap_or_default();
    proto::CredentialStatus {
        credential: Some(proto::Credential {
            last_error: found.last_error.message.clone(),
            ..credential(&found.credential, found.health)
        }),
        state_since: Some(timestamp(found.since)),
        subscription: subscription.unwrap_or_default().to_owned(),
        tier: tier.unwrap_or_default().to_owned(),
        consumption: figures.iter().map(figure).collect(),
        consumption_time: tested
            .filter(|_| !figures.is_empty())
            .map(|tested| timestamp(tested.facts_told())),
        dependents: found.dependents,
        dependents_truncated: found.more_dependents,
        cause: phase.cause().unwrap_or_default().to_owned(),
        next_step: found.next_step.clone(),
        last_error_time: found.last_error.at.map(timestamp),
    }
}

fn figure((label, value): &(String, String)) -> proto::ConsumptionFigure {
    proto::ConsumptionFigure {
        label: label.clone(),
        value: value.clone(),
    }
}
