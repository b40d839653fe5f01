//! Between API messages and domain types, where several services need it.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Request, Status};

use super::status::status;
use crate::domain::actor::Caller;
use crate::domain::approval::Posture;
use crate::domain::credential::{Credential, Health};
use crate::domain::mode::{AuthMode, CredentialKind};
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{ActorToken, Exposure, Secret};
use crate::domain::task::Capacity;
use crate::domain::time::Time;
use crate::proto;
use crate::service::{Fate, Outstanding, OutstandingLease};

/// The caller that the gate put into the request.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    // Only rows with callers lead to handlers that ask; one that asks without is a fault of the table.
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| status(Refusal::new(Reason::Internal, "the call has no caller")))
}

pub(super) fn timestamp(time: Time) -> prost_types::Timestamp {
    let millis = time.millis().rem_euclid(1000);
    // Below 10^9, so it fits.
    prost_types::Timestamp {
        seconds: time.seconds(),
        nanos: millis as i32 * 1_000_000,
    }
}

pub(super) fn time(field: &'static str, timestamp: &prost_types::Timestamp) -> Result<Time, Refusal> {
    // Years 1 to 9999, as the message's own documentation has it.
    let fits = (-62_135_596_800..=253_402_300_799).contains(&timestamp.seconds)
        && (0..1_000_000_000).contains(&timestamp.nanos);
    if !fits {
        return Err(Refusal::invalid(field, format!("{field} is no valid timestamp")));
    }
    Ok(Time::from_millis(
        timestamp.seconds * 1000 + i64::from(timestamp.nanos) / 1_000_000,
    ))
}

pub(super) fn duration(
    field: &'static str,
    duration: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Refusal> {
    let invalid = || Refusal::invalid(field, format!("{field} is no valid, positive duration"));
    duration
        .map(|duration| Duration::try_from(duration).map_err(|_| invalid()))
        .transpose()
}

pub(super) fn proto_duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    // Below 10^9, so it fits.
    prost_types::Duration {
        seconds,
        nanos: duration.subsec_nanos() as i32,
    }
}

pub(super) fn mode(mode: AuthMode) -> i32 {
    (match mode {
        AuthMode::OAuth => proto::AuthMode::Oauth,
        AuthMode::Byok => proto::AuthMode::Byok,
        AuthMode::Metered => proto::AuthMode::Metered,
        AuthMode::Shared => proto::AuthMode::Shared,
        AuthMode::HostSession => proto::AuthMode::HostSession,
        AuthMode::Local => proto::AuthMode::Local,
    }) as i32
}

/// The mode that a message names; `None`: it names none.
pub(super) fn mode_named(field: &'static str, value: i32) -> Result<Option<AuthMode>, Refusal> {
    match proto::AuthMode::try_from(value) {
        Ok(proto::AuthMode::Unspecified) => Ok(None),
        _ => AuthMode::ORDER
            .into_iter()
            .find(|known| mode(*known) == value)
            .map(Some)
            .ok_or_else(|| Refusal::invalid(field, format!("{field} is not one this broker knows"))),
    }
}

pub(super) fn kind(kind: CredentialKind) -> i32 {
    (match kind {
        CredentialKind::OAuthGrant => proto::CredentialKind::OauthGrant,
        CredentialKind::ApiKey => proto::CredentialKind::ApiKey,
        CredentialKind::Aws => proto::CredentialKind::Aws,
        CredentialKind::BedrockBearer => proto::CredentialKind::BedrockBearer,
    }) as i32
}

pub(super) fn capacity(value: i32) -> Result<Option<Capacity>, Refusal> {
    match proto::Capacity::try_from(value) {
        Ok(proto::Capacity::Unspecified) => Ok(None),
        Ok(proto::Capacity::Cloud) => Ok(Some(Capacity::Cloud)),
        Ok(proto::Capacity::Local) => Ok(Some(Capacity::Local)),
        Err(_) => Err(Refusal::invalid(
            "capacity",
            "capacity is not one this broker knows",
        )),
    }
}

pub(super) fn proto_capacity(capacity: Capacity) -> i32 {
    (match capacity {
        Capacity::Cloud => proto::Capacity::Cloud,
        Capacity::Local => proto::Capacity::Local,
    }) as i32
}

pub(super) fn posture(value: i32) -> Result<Option<Posture>, Refusal> {
    match proto::ApprovalPosture::try_from(value) {
        Ok(proto::ApprovalPosture::Unspecified) => Ok(None),
        Ok(proto::ApprovalPosture::None) => Ok(Some(Posture::None)),
        Ok(proto::ApprovalPosture::Required) => Ok(Some(Posture::Required)),
        Err(_) => Err(Refusal::invalid(
            "approval",
            "approval is not one this broker knows",
        )),
    }
}

pub(super) fn proto_posture(posture: Posture) -> i32 {
    (match posture {
        Posture::None => proto::ApprovalPosture::None,
        Posture::Required => proto::ApprovalPosture::Required,
    }) as i32
}

pub(super) fn owner(owner: Owner) -> proto::Owner {
    let owner = match owner {
        Owner::Member(member) => proto::owner::Owner::Member(member.to_string()),
        Owner::Org => proto::owner::Owner::Org(true),
    };
    proto::Owner { owner: Some(owner) }
}

/// A token of the broker, to be shown once.
pub(super) fn show_once(token: &Secret<ActorToken>) -> proto::Secret {
    // Tokens are made of ASCII.
    proto::Secret {
        value: token
            .expose_str(Exposure::ShowOnce)
            .unwrap_or_default()
            .to_owned(),
    }
}

/// What a message carries as a secret; empty where it carries none.
pub(super) fn secret_text(secret: Option<proto::Secret>) -> String {
    secret
        .map(|mut secret| std::mem::take(&mut secret.value))
        .unwrap_or_default()
}

pub(super) fn health(health: Health) -> i32 {
    (match health {
        Health::Ok => proto::CredentialHealth::Ok,
        Health::Expiring => proto::CredentialHealth::Expiring,
        Health::Refreshing => proto::CredentialHealth::Refreshing,
        Health::Ambiguous => proto::CredentialHealth::Ambiguous,
        Health::Quarantined => proto::CredentialHealth::Quarantined,
        Health::ReauthRequired => proto::CredentialHealth::ReauthRequired,
        Health::Expired => proto::CredentialHealth::Expired,
        Health::GrantLost => proto::CredentialHealth::GrantLost,
    }) as i32
}

pub(super) fn credential(credential: &Credential, now: Health) -> proto::Credential {
    proto::Credential {
        id: credential.id.to_string(),
        org: credential.org.to_string(),
        owner: Some(owner(credential.owner)),
        provider: credential.provider.clone(),
        kind: kind(credential.kind),
        connector: credential.connector.clone(),
        generation: credential.rotation.generation,
        expire_time: credential.expires.map(timestamp),
        refresh_time: Some(timestamp(credential.refreshed)),
        create_time: Some(timestamp(credential.created)),
        health: health(now),
        last_error: credential.rotation.message().to_owned(),
        hint: credential.hint.clone(),
        scopes: credential.scopes.clone(),
        executor: credential.executor.clone().unwrap_or_default(),
        region: credential.region.clone().unwrap_or_default(),
        parallelism: None,
    }
}

/// A map as pairs, and back.
pub(super) fn pairs(map: HashMap<String, String>) -> Vec<(String, String)> {
    map.into_iter().collect()
}

pub(super) fn map(pairs: &[(String, String)]) -> HashMap<String, String> {
    pairs.iter().cloned().collect()
}

/// What is still out there after a revocation or under a lock.
pub(super) fn outstanding(outstanding: &Outstanding) -> Vec<proto::OutstandingLease> {
    outstanding.leases.iter().map(outstanding_lease).collect()
}

fn outstanding_lease(held: &OutstandingLease) -> proto::OutstandingLease {
    let fate = match held.fate {
        Fate::Expires => proto::MaterialFate::Expires,
        Fate::Rotated => proto::MaterialFate::Rotated,
        Fate::RotatedOldLives => proto::MaterialFate::RotatedOldLives,
        Fate::Shared => proto::MaterialFate::Shared,
        Fate::RotationFailed => proto::MaterialFate::RotationFailed,
        Fate::ReplaceAtProvider => proto::MaterialFate::ReplaceAtProvider,
    };
    proto::OutstandingLease {
        lease: held.lease.to_string(),
        credential: held.credential.map(|id| id.to_string()).unwrap_or_default(),
        generation: held.generation,
        material_expire_time: held.expires.map(timestamp),
        holder: held.holder.to_string(),
        lease_ended: held.ended,
        fate: fate as i32,
        advice: held.fate.advice().to_owned(),
    }
}
