//! An account on its way to being connected: what waits for a member to sign in, and how it ends.
//!
//! ```text
//! preparing --(the server has begun its device flow)--> waiting
//! waiting --(a code was handed over, or came by a poll)--> exchanging --(the answer is stored)--> staged --> connected
//! exchanging --(nothing was sent)--> waiting;   --(the answer was lost)--> failed
//! waiting --(a poll's answer is stored: device flow)--> staged;   staged --(refused)--> failed
//! preparing, waiting, exchanging --(the member gave up)--> cancelled
//! preparing, waiting --(its time is over)--> expired
//! failed, cancelled, expired --(begun anew)--> preparing or waiting, the next attempt
//! ```
//!
//! A code works once (RFC 6749 section 4.1.2), so it is sent once: what was sent and not answered has failed. What is
//! given up while an answer is under way stays given up: the tokens that come are not kept. What has been answered is
//! connected, and can be disconnected.

mod pasted;

pub use pasted::{Pasted, Unreadable, pasted};

use std::time::Duration;

use super::actor::Shown;
use super::id::{ApiKeyId, ConnectionId, CredentialId, MemberId, OperatorId, OrgId};
use super::reason::Reason;
use super::time::Time;

/// How long a member may take, where the provider does not say less.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// The longest a provider's device code is waited for.
pub const DEVICE_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The shortest: one that is over when it begins would end before anybody was told of it.
pub const LEAST_LIFETIME: Duration = Duration::from_secs(1);
/// How many connections of a member may be under way at once.
pub const MOST_WAITING: usize = 5;
/// How many are kept of a member, ended ones with them.
pub const MOST_KEPT: usize = 20;
/// How long one that has ended is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How many codes may be handed over in one attempt: what is mistyped may be typed again, and nothing be guessed.
pub const MOST_CODES: u32 = 5;

/// The longest address of a connection, and the longest page with its code filled in, in bytes: both fit one value of
/// the store with all else.
pub const MAX_URL: usize = 2048;
/// See [`MAX_URL`].
pub const MAX_COMPLETE_URL: usize = 1024;

/// How a member signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A page of the provider shows a code.
    Paste {
        /// The page, as the authorization request names it.
        redirect_uri: String,
        /// Whether it shows `CODE#STATE`, otherwise the code alone.
        with_state: bool,
    },
    /// The provider sends the browser to a port of the member's machine.
    Loopback {
        /// Where, as the authorization request names it.
        redirect_uri: String,
    },
    /// The member enters a code on the provider's page.
    Device {
        /// What to enter; empty before the provider has said it, and so are the others.
        user_code: String,
        /// The page with the code filled in.
        complete_uri: Option<String>,
        /// How long to wait between two polls.
        interval: Duration,
    },
}

/// Who began a connection, by what they showed: an account is connected only while that is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginner {
    /// An operator token, a member's or an operator's.
    Token(OperatorId),
    /// A member by an ID token.
    Member(MemberId),
    /// An API key.
    ApiKey(ApiKeyId),
}

impl Beginner {
    /// Who showed this, as the member `me`; `None` of an agent, which connects nothing.
    pub fn of(shown: Shown, me: Option<MemberId>) -> Option<Self> {
        match shown {
            Shown::OperatorToken(token) => Some(Beginner::Token(token)),
            Shown::ApiKey(key) => Some(Beginner::ApiKey(key)),
            Shown::IdToken(_) => me.map(Beginner::Member),
            Shown::RuntimeKey(_) => None,
        }
    }
}

/// Where a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The server is being asked to begin its device flow.
    Preparing,
    /// It waits for the member.
    Waiting,
    /// A code was sent, or is about to be.
    Exchanging,
    /// The provider's answer is stored.
    Staged,
    /// The account is connected.
    Connected {
        /// The credential.
        credential: CredentialId,
    },
    /// It failed.
    Failed {
        /// Why: a code of [`Reason`].
        reason: String,
        /// What happened, redacted.
        message: String,
    },
    /// It was given up.
    Cancelled,
    /// Its time was over before anybody signed in, as far as that was written down.
    Expired,
}

/// A connection, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The org.
    pub org: OrgId,
    /// The member it is for.
    pub member: MemberId,
    /// The connector.
    pub connector: String,
    /// The provider whose calls the account is for.
    pub provider: String,
    /// How the member signs in.
    pub flow: Flow,
    /// Where to sign in; empty while preparing.
    pub url: String,
    /// Who began this attempt.
    pub by: Beginner,
    /// The same, as the journal names them.
    pub actor: String,
    /// Counts the attempts, from 1.
    pub attempt: u32,
    /// How many codes were handed over in this attempt.
    pub codes: u32,
    /// When this attempt began.
    pub created: Time,
    /// When it is given up.
    pub expires: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Where it stands.
    pub phase: Phase,
}

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server has begun its device flow.
    Prepared {
        /// What to enter.
        user_code: String,
        /// Where.
        url: String,
        /// The same with the code filled in.
        complete_uri: Option<String>,
        /// How long to wait between two polls.
        interval: Duration,
        /// How long the server takes it.
        expires_in: Duration,
    },
    /// A code was handed over that is this connection's.
    Presented,
    /// The provider said that the member signed in, and gave a code for it: a device flow of the provider's own.
    Approved,
    /// Nothing of it reached the provider.
    NotSent,
    /// The provider's answer is about to be stored.
    Answered,
    /// The provider did not process the code, and said so.
    NotProcessed,
    /// What was granted is about to be stored.
    Granted(CredentialId),
    /// It came to nothing.
    Failed {
        /// Why.
        reason: Reason,
        /// What happened, redacted.
        message: String,
    },
    /// Whoever began it gave up.
    Cancelled,
    /// Nobody signed in in time.
    TimeOver,
}

/// Why an event cannot happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has ended, or does not wait for this.
    State,
    /// Its time is over.
    Expired,
    /// As many codes were handed over as may be.
    Codes,
}

/// How a connection stands, for who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for the member.
    Waiting,
    /// The provider is asked.
    Exchanging,
    /// Connected.
    Connected,
    /// Failed.
    Failed,
    /// Given up.
    Cancelled,
    /// Its time is over.
    Expired,
}

impl Standing {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        !matches!(self, Standing::Waiting | Standing::Exchanging)
    }
}

impl Connection {
    /// How it stands at `now`.
    pub fn standing(&self, now: Time) -> Standing {
        match self.phase {
            Phase::Preparing | Phase::Waiting if now >= self.expires => Standing::Expired,
            Phase::Preparing | Phase::Waiting => Standing::Waiting,
            Phase::Exchanging | Phase::Staged => Standing::Exchanging,
            Phase::Connected { .. } => Standing::Connected,
            Phase::Failed { .. } => Standing::Failed,
            Phase::Cancelled => Standing::Cancelled,
            Phase::Expired => Standing::Expired,
        }
    }

    /// When it ended, or will have: the time from which it is kept for [`KEPT`].
    pub fn end(&self) -> Time {
        self.ended.unwrap_or(self.expires)
    }

    /// What it is after `event` at `now`.
    pub fn on(&self, event: Event, now: Time) -> Result<Connection, Unfit> {
        let over = now >= self.expires;
        let mut next = self.clone();
        next.phase = match (&self.phase, event) {
            (Phase::Preparing | Phase::Waiting, Event::Prepared { .. } | Event::Presented) if over => {
                return Err(Unfit::Expired);
            }
            (
                Phase::Preparing,
                Event::Prepared {
                    user_code,
                    url,
                    complete_uri,
                    interval,
                    expires_in,
                },
            ) => {
                next.url = url;
                next.flow = Flow::Device {
                    user_code,
                    // The page and the code do without it.
                    complete_uri: complete_uri.filter(|uri| uri.len() <= MAX_COMPLETE_URL),
                    interval,
                };
                next.expires = now + expires_in.clamp(LEAST_LIFETIME, DEVICE_LIFETIME);
                Phase::Waiting
            }
            (Phase::Waiting, Event::Presented) if self.codes >= MOST_CODES => return Err(Unfit::Codes),
            (Phase::Waiting, Event::Presented) if !self.is_device() => {
                next.codes += 1;
                Phase::Exchanging
            }
            (Phase::Waiting, Event::Approved) if self.is_device() => Phase::Exchanging,
            (Phase::Exchanging, Event::NotSent) | (Phase::Staged, Event::NotProcessed) => Phase::Waiting,
            (Phase::Exchanging, Event::Answered) => Phase::Staged,
            // The provider had said yes before its time was over, however late its answer is read.
            (Phase::Waiting, Event::Answered) if self.is_device() => Phase::Staged,
            (Phase::Staged, Event::Granted(credential)) => Phase::Connected { credential },
            (
                Phase::Preparing | Phase::Waiting | Phase::Exchanging | Phase::Staged,
                Event::Failed { reason, message },
            ) => Phase::Failed {
                reason: reason.code().to_owned(),
                message,
            },
            (Phase::Preparing | Phase::Waiting | Phase::Exchanging, Event::Cancelled) => Phase::Cancelled,
            (Phase::Preparing | Phase::Waiting, Event::TimeOver) if over => Phase::Expired,
            _ => return Err(Unfit::State),
        };
        if next.standing(now).is_over() {
            next.ended = Some(now);
            next.url = String::new();
        }
        Ok(next)
    }

    /// Whether the broker waits for the provider to say that the member signed in.
    pub fn is_device(&self) -> bool {
        matches!(self.flow, Flow::Device { .. })
    }

    /// Where the provider sends the browser; `None` in a device flow.
    pub fn redirect_uri(&self) -> Option<&str> {
        match &self.flow {
            Flow::Paste { redirect_uri, .. } | Flow::Loopback { redirect_uri } => Some(redirect_uri),
            Flow::Device { .. } => None,
        }
    }

    /// The same connection begun anew, once it has ended without success.
    pub fn again(&self, flow: Flow, url: String, by: (Beginner, String), now: Time) -> Result<Self, Unfit> {
        match self.standing(now) {
            Standing::Failed | Standing::Cancelled | Standing::Expired => {}
            Standing::Waiting | Standing::Exchanging | Standing::Connected => return Err(Unfit::State),
        }
        let phase = match flow {
            Flow::Device { .. } => Phase::Preparing,
            Flow::Paste { .. } | Flow::Loopback { .. } => Phase::Waiting,
        };
        Ok(Self {
            flow,
            url,
            by: by.0,
            actor: by.1,
            attempt: self.attempt.saturating_add(1),
            codes: 0,
            created: now,
            expires: now + LIFETIME,
            ended: None,
            phase,
            ..self.clone()
        })
    }
}

/// The connections of a member, the oldest first, so that there are never more than may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// Their ids, at most [`MOST_KEPT`].
    pub ids: Vec<ConnectionId>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
