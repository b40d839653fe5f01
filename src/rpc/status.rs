//! The only place where a refusal becomes a gRPC status: the code from its class, and `google.rpc` details.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::{PROVIDER_MESSAGE, Refusal};
use crate::service::redact;

/// The domain of every `ErrorInfo`.
const DOMAIN: &str = "credbroker";
/// Where a reason is explained: in the documentation that comes with the broker.
const HELP: &str = "docs/errors.md";

/// How much of a message is logged, in characters.
const MAX_WHY: usize = 512;

/// How much of a message, or of a value of the metadata, is answered, in characters.
const MAX_TEXT: usize = 512;

/// The code of a class.
fn code(reason: Reason) -> Code {
    match reason.class() {
        Class::Unauthenticated => Code::Unauthenticated,
        Class::Denied => Code::PermissionDenied,
        Class::NotFound => Code::NotFound,
        Class::Invalid => Code::InvalidArgument,
        Class::Precondition => Code::FailedPrecondition,
        Class::Exists => Code::AlreadyExists,
        Class::Aborted => Code::Aborted,
        Class::Exhausted => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
        Class::TimedOut => Code::DeadlineExceeded,
        Class::Unimplemented => Code::Unimplemented,
        Class::Internal => Code::Internal,
    }
}

/// A text as it goes into the answer. It travels in the trailers, up to three times, and a client takes 16 KiB
/// of those by default; past that the connection breaks, not the call.
fn short(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The status of a refusal.
pub(super) fn status(mut refusal: Refusal) -> Status {
    let reason = refusal.reason;
    refusal.message = short(refusal.message);
    // A message may repeat what the caller sent, who may have put a token where a name belongs.
    let why = || redact(&refusal.message, MAX_WHY);
    match reason.class() {
        Class::Internal => tracing::error!(reason = reason.code(), why = why(), "failed"),
        _ => tracing::info!(reason = reason.code(), why = why(), "refused"),
    }
    let said = refusal.metadata.iter().find(|(key, _)| *key == PROVIDER_MESSAGE);
    if refusal.quotes
        && let Some((_, said)) = said
    {
        refusal.message = short(format!("{}: {said}", refusal.message));
    }
    let mut metadata: HashMap<String, String> = refusal
        .metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), short(value)))
        .collect();
    if let Some(decision) = &refusal.decision {
        let looked_at = decision.candidates.iter().map(|candidate| {
            let outcome = candidate.passed_over.map_or("chosen", Reason::code);
            let mode = candidate.mode.name();
            match candidate.owner {
                Some(owner) => format!("{mode}/{owner}={outcome}"),
                None => format!("{mode}={outcome}"),
            }
        });
        metadata.insert("candidates".to_owned(), looked_at.collect::<Vec<_>>().join(" "));
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.code(), DOMAIN, metadata);
    if let Some(field) = refusal.field {
        details.add_bad_request_violation(field, refusal.message.clone());
    }
    let retry_after = refusal.retry_after.or_else(|| {
        matches!(reason.class(), Class::Exhausted | Class::Unavailable).then_some(Duration::from_secs(1))
    });
    details.set_retry_info(retry_after);
    if reason.class() == Class::Precondition {
        details.add_precondition_failure_violation(reason.code(), DOMAIN, reason.remedy());
    }
    details.add_help_link(
        reason.remedy(),
        format!("{HELP}#{}", reason.code().to_lowercase()),
    );
    Status::with_error_details(code(reason), refusal.message, details)
}

/// A status that the transport made by itself, without details, as the refusal it stands for.
pub(super) fn transport_refusal(code: Code) -> Option<Refusal> {
    Some(match code {
        Code::OutOfRange => Refusal::new(
            Reason::MessageTooLarge,
            "the message is larger than the broker takes",
        ),
        // tonic answers INTERNAL where a message does not decode; handlers never do without details.
        Code::Internal => Refusal::new(Reason::MessageMalformed, "the message does not decode"),
        Code::Unimplemented => Refusal::new(Reason::UnknownMethod, "there is no such call"),
        _ => return None,
    })
}
