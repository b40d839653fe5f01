//! The one error that use cases return, and that the port turns into a status.

use std::time::Duration;

use super::actor::Actor;
use super::decision::Decision;
use super::reason::Reason;

/// The metadata that has a provider's last message.
pub const PROVIDER_MESSAGE: &str = "provider_message";

/// A refusal: the one error the services return. Says what happened, why, and what to do, and nothing
/// internal: causes that only the operator may see go to the log where they arise.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What happened, in a sentence a person reads. Never a secret.
    pub message: String,
    /// Whether the message ends, where it is answered, with the metadata `provider_message`: what somebody else
    /// said, which is kept out of logs.
    pub quotes: bool,
    /// The request field at fault.
    pub field: Option<&'static str>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// More for machines: names and ids, never a secret.
    pub metadata: Vec<(&'static str, String)>,
    /// The decision, where one was made.
    pub decision: Option<Box<Decision>>,
    /// Who was refused, where that was known before the refusal: for the journal, never told.
    pub actor: Option<Box<Actor>>,
}

impl Refusal {
    /// A refusal for `reason`, with what happened.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            quotes: false,
            field: None,
            retry_after: None,
            metadata: Vec::new(),
            decision: None,
            actor: None,
        }
    }

    /// The request field `field` is wrong.
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            ..Self::new(Reason::InvalidArgument, message)
        }
    }

    /// There is no such thing. Takes no detail, so that what is hidden looks like what does not exist.
    pub fn not_found(what: &'static str) -> Self {
        Self::new(Reason::NotFound, format!("no such {what}")).with("kind", what)
    }

    /// Adds metadata.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// Says when trying again may help.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Says who was refused.
    pub fn of(mut self, actor: Actor) -> Self {
        self.actor = Some(Box::new(actor));
        self
    }

    /// Tells what somebody else said, in the metadata and at the end of the message. Never a secret.
    pub fn quoting(mut self, said: impl Into<String>) -> Self {
        self.quotes = true;
        self.with(PROVIDER_MESSAGE, said)
    }

    /// Attaches the decision.
    pub fn decided(mut self, decision: Decision) -> Self {
        self.decision = Some(Box::new(decision));
        self
    }
}
