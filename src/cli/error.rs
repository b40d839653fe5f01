//! What a command says when it fails: what happened, why, what to do, and the reason code; and the exit
//! code, after sysexits.h: usage 64, unavailable 69, internal 70, no permission 77, configuration 78,
//! everything else 1. A comparison that found a difference, which is no failure, is told by 2, and an explanation of
//! what would be refused by 1.

use std::error::Error as _;
use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::context::{ContextError, Target};
use super::files::FileError;
use crate::domain::reason::{Class, Reason};

/// The domain of the broker's `google.rpc.ErrorInfo`.
const DOMAIN: &str = "credbroker";

/// What sort of failure it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command was not called as it should be.
    Usage,
    /// The broker or the provider cannot be reached, or not now.
    Unavailable,
    /// A fault of the broker or of this program.
    Internal,
    /// The caller may not.
    Denied,
    /// The configuration of this program is missing or wrong.
    Config,
    /// It was tried and did not work.
    Failed,
    /// What was compared differs.
    Differs,
    /// What was asked about would be refused.
    Refused,
    /// The caller interrupted it (SIGINT).
    Interrupted,
    /// It was told to end (SIGTERM).
    Terminated,
}

impl Kind {
    /// The exit code, after sysexits.h.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 64,
            Kind::Unavailable => 69,
            Kind::Internal => 70,
            Kind::Denied => 77,
            Kind::Config => 78,
            Kind::Failed | Kind::Refused => 1,
            Kind::Differs => 2,
            // As a shell tells of a program that a signal ended: 128 and its number.
            Kind::Interrupted => 130,
            Kind::Terminated => 143,
        }
    }
}

/// A failure as a person reads it. Never holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What sort of failure it is.
    pub kind: Kind,
    /// What happened.
    pub what: String,
    /// Why, a line each.
    pub why: Vec<String>,
    /// What to do.
    pub remedy: Option<String>,
    /// The broker's reason code; see docs/errors.md.
    pub reason: Option<String>,
    /// Which broker was meant.
    pub target: Option<Box<Target>>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            why: Vec::new(),
            remedy: None,
            reason: None,
            target: None,
        }
    }

    /// The command was not called as it should be.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// The configuration of this program is missing or wrong.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(Kind::Config, what)
    }

    /// What the broker told by a reason code outside of an error.
    pub fn of_reason(code: &str, what: impl Into<String>) -> Self {
        let reason = Reason::from_code(code);
        let kind = reason.map_or(Kind::Failed, |reason| kind_of_class(reason.class()));
        let mut failure = Self::new(kind, what);
        failure.remedy = reason.map(|reason| reason.remedy().to_owned());
        failure.reason = Some(code.to_owned()).filter(|code| !code.is_empty());
        failure
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, why: impl std::fmt::Display) -> Self {
        self.why.push(why.to_string());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds which broker was meant.
    #[must_use]
    pub fn at(mut self, target: &Target) -> Self {
        self.target = Some(Box::new(target.clone()));
        self
    }

    /// The whole account, ending with a newline. What came over the network is stripped of control
    /// characters, so that no server can drive the terminal.
    pub fn account(&self) -> String {
        let sort = match self.kind {
            Kind::Differs | Kind::Refused | Kind::Interrupted | Kind::Terminated => "",
            _ => "error: ",
        };
        let mut out = format!("{sort}{}\n", plain(&self.what));
        // Writing to a String does not fail.
        for why in &self.why {
            let _ = writeln!(out, "  {}", plain(why));
        }
        if let Some(reason) = &self.reason {
            let _ = writeln!(out, "reason: {}", plain(reason));
        }
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(out, "what to do: {}", plain(remedy));
        }
        if let Some(target) = &self.target {
            let _ = writeln!(out, "broker: {}", plain(&target.to_string()));
        }
        out
    }
}

/// The text without control characters; line breaks become spaces.
pub fn plain(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' => Some(' '),
            c if c.is_control() => None,
            c => Some(c),
        })
        .collect()
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = info.and_then(|info| Reason::from_code(&info.reason));
        let kind = match (reason, info) {
            (Some(reason), _) => kind_of_class(reason.class()),
            (None, _) => kind_of_code(status.code()),
        };
        let mut failure = match info {
            Some(_) => Failure::new(kind, status.message()),
            None => without_details(kind, &status),
        };
        failure.reason = info.map(|info| info.reason.clone());
        failure.remedy = reason.map(|reason| reason.remedy().to_owned()).or(failure.remedy);
        if let Some(request) = details.bad_request() {
            for violation in &request.field_violations {
                let (field, description) = (&violation.field, &violation.description);
                // A message that says it already is not repeated.
                if description != status.message() {
                    failure = failure.because(format!("{field}: {description}"));
                } else if !description.contains(field.as_str()) {
                    failure = failure.because(format!("field: {field}"));
                }
            }
        }
        if let Some(info) = info {
            let mut metadata: Vec<_> = info.metadata.iter().collect();
            metadata.sort();
            metadata.retain(|(_, value)| !status.message().contains(value.as_str()));
            for (key, value) in metadata {
                failure = failure.because(format!("{key}: {value}"));
            }
        }
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            failure = failure.because(format!(
                "try again after {}",
                humantime::format_duration(std::time::Duration::from_millis(
                    delay.as_millis().try_into().unwrap_or(u64::MAX)
                ))
            ));
        }
        if let Some(help) = details.help() {
            for link in &help.links {
                // The remedy is told already; only where it is explained is not.
                failure = if failure.remedy.as_ref() == Some(&link.description) {
                    failure.because(format!("see {}", link.url))
                } else {
                    failure.because(format!("see {}: {}", link.description, link.url))
                };
            }
        }
        failure
    }
}

/// A status that is not in the broker's own words: made by the transport, or by something in between.
fn without_details(kind: Kind, status: &Status) -> Failure {
    if is_timeout(status) {
        return Failure::new(Kind::Unavailable, "the broker did not answer in time")
            .remedy("Try again, or give it longer with --timeout.");
    }
    let mut failure = match status.source() {
        Some(_) => Failure::new(Kind::Unavailable, "the connection to the broker broke")
            .remedy("Try again. If it stays so, see the broker's log; an agent that was revoked is not let in and has to enroll again."),
        None => Failure::new(
            kind,
            format!("the broker answered {:?}: {}", status.code(), status.message()),
        ),
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if failure.why.last() != Some(&text) {
            failure.why.push(text);
        }
        cause = error.source();
    }
    failure
}

/// The deadline passed here, or at the server, which then cancels the call.
fn is_timeout(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    status.source().is_none() && matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

const fn kind_of_class(class: Class) -> Kind {
    match class {
        Class::Unauthenticated | Class::Denied => Kind::Denied,
        Class::Invalid => Kind::Usage,
        Class::Exhausted | Class::Unavailable | Class::TimedOut => Kind::Unavailable,
        Class::Unimplemented | Class::Internal => Kind::Internal,
        Class::NotFound | Class::Precondition | Class::Exists | Class::Aborted => Kind::Failed,
    }
}

const fn kind_of_code(code: Code) -> Kind {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => Kind::Denied,
        Code::InvalidArgument | Code::OutOfRange => Kind::Usage,
        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Kind::Unavailable
        }
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Unimplemented => Kind::Internal,
        _ => Kind::Failed,
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let remedy = error.remedy();
        Failure::config(error.to_string()).remedy(remedy)
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        let remedy = error.remedy();
        Failure::config(error.to_string()).remedy(remedy)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn the_brokers_details_are_told_in_full() {
        let mut details = ErrorDetails::with_error_info(
            "REFRESH_UNAVAILABLE",
            "credbroker",
            HashMap::from([("connector".to_owned(), "demo".to_owned())]),
        );
        details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::Unavailable, "no answer from the provider", details);
        let target = Target {
            context: Some("dev".into()),
            address: "localhost:7420".into(),
        };
        let failure = Failure::from(status).at(&target);
        assert_eq!(failure.kind, Kind::Unavailable);
        assert_eq!(
            failure.account(),
            "error: no answer from the provider\n  connector: demo\n  try again after 1s 500ms\n\
             reason: REFRESH_UNAVAILABLE\n\
             what to do: The provider's token endpoint could not be reached or did not process the request. \
             The grant is intact; try again after the time given.\n\
             broker: localhost:7420 (context dev)\n"
        );
    }

    #[test]
    fn nothing_is_told_twice() {
        let said = "agent: not an id";
        let facts = HashMap::from([("kind".to_owned(), "agent".to_owned())]);
        let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", "credbroker", facts);
        details.add_bad_request_violation("agent", said);
        details.add_help_link(
            Reason::InvalidArgument.remedy(),
            "docs/errors.md#invalid_argument",
        );
        let failure = Failure::from(Status::with_error_details(Code::InvalidArgument, said, details));
        assert_eq!(
            failure.account(),
            "error: agent: not an id\n  see docs/errors.md#invalid_argument\nreason: INVALID_ARGUMENT\n\
             what to do: Mend the field named in the details.\n"
        );
    }

    #[test]
    fn field_violations_name_the_field_and_are_usage() {
        let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", "credbroker", HashMap::new());
        details.add_bad_request_violation("name", "too long");
        let failure = Failure::from(Status::with_error_details(Code::InvalidArgument, "no", details));
        assert_eq!((failure.kind, failure.kind.exit_code()), (Kind::Usage, 64));
        assert_eq!(failure.why, ["name: too long"]);
    }

    #[test]
    fn a_foreign_domain_or_unknown_reason_gets_no_remedy_of_ours() {
        let details = ErrorDetails::with_error_info("NOT_FOUND", "proxy.example", HashMap::new());
        let failure = Failure::from(Status::with_error_details(Code::PermissionDenied, "no", details));
        assert_eq!((failure.reason, failure.remedy), (None, None));
        assert_eq!(failure.kind.exit_code(), 77);
        let details = ErrorDetails::with_error_info("FROM_THE_FUTURE", "credbroker", HashMap::new());
        let failure = Failure::from(Status::with_error_details(Code::NotFound, "no", details));
        assert_eq!(failure.reason.as_deref(), Some("FROM_THE_FUTURE"));
        assert_eq!(failure.kind, Kind::Failed);
    }

    #[test]
    fn a_server_cannot_drive_the_terminal() {
        let account = Failure::from(Status::internal("a\u{1b}[2Jb\nerror: forged")).account();
        assert_eq!(
            account,
            "error: the broker answered Internal: a[2Jb error: forged\n"
        );
    }
}
