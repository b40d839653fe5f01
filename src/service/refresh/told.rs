//! What callers are told of a grant that cannot be refreshed: whose doing it is, and whether to wait. And what the
//! journal is told of a refresh.

use std::time::Duration;

use crate::domain::credential::Credential;
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Death, Fence, Phase};
use crate::domain::time::Time;

/// Why a caller has to wait.
pub(super) fn waiting(credential: &Credential, until: Time, now: Time) -> Refusal {
    let (reason, what) = match credential.rotation.phase {
        Phase::Live { .. } => (
            Reason::RefreshUnavailable,
            "the provider did not process the refresh",
        ),
        _ => (
            Reason::RefreshAmbiguous,
            "a refresh was sent and its answer is not known",
        ),
    };
    let message = credential.rotation.message();
    Refusal::new(
        reason,
        if message.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {message}")
        },
    )
    .retry_after(until.since(now).max(Duration::from_millis(100)))
    .with("credential", credential.id.to_string())
    .with("provider_message", message)
}

/// Why a caller need not wait.
pub(in crate::service) fn stopped(credential: &Credential) -> Refusal {
    let phase = &credential.rotation.phase;
    let message = credential.rotation.message();
    let what = match phase {
        Phase::Quarantined { .. } => {
            "the provider refuses the grant, and nothing that was done with it here explains why: another copy \
             of it was refreshed elsewhere, or its owner took it back; it is kept and not used"
        }
        Phase::Dead { cause, .. } => match cause {
            Death::AnswerLost => {
                "the answer to a refresh was lost, and the provider no longer accepts the grant"
            }
            Death::Expired => "the grant has reached the end of its life",
            Death::Withdrawn => "the grant was taken back at the provider",
            Death::Refused => "the provider no longer accepts the grant",
        },
        _ => "the provider no longer accepts the grant",
    };
    Refusal::new(Reason::ReauthRequired, format!("{what}: {message}"))
        .with("credential", credential.id.to_string())
        .with("cause", phase.cause().unwrap_or_default())
        .with("provider_message", message)
}

pub(super) fn refresh_record(credential: &Credential, fence: Fence) -> Record {
    Record::new(Action::Refresh, "broker", Some(credential.org))
        .about("credential", credential.id)
        .about("provider", &credential.provider)
        .about("connector", &credential.connector)
        .about("generation", credential.rotation.generation)
        .about("fence", fence.0)
}
