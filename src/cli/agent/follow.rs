//! Following the broker's events for as long as it takes: through broken connections, stops of the broker and
//! renewals of the caller's certificate.
//!
//! A follower remembers the cursor of what it handed on, so that a stream that breaks costs nothing. Where
//! nobody can tell what happened in between, it says so with [`Seen::Anew`]: whatever is remembered of earlier
//! answers has to be asked anew. That comes first of all, too, so one way of dealing with it does for both.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use super::IdentityArgs;
use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::{Failure, Kind};
use crate::domain::reason::Reason;
use crate::proto;
use crate::proto::watch_event::Event;

/// The first pause after a stream broke, doubled each time, and the longest.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a stream may be silent before its first heartbeat tells how long it is at most.
const FIRST_SILENCE: Duration = Duration::from_secs(30);
/// How much later than told a message may come.
const LATE: Duration = Duration::from_secs(10);
/// How many tries after a refusal have to fail before it is taken for final.
const TRIES_REFUSED: u32 = 3;

/// What a follower sees.
#[derive(Debug)]
pub enum Seen {
    /// From this message on nothing is missed; what was before is not known: ask anew.
    Anew(proto::WatchEvent),
    /// Something happened. Heartbeats are not handed on.
    Event(proto::WatchEvent),
    /// The stream broke, and is opened again after this pause. Nothing is missed by that alone.
    Broken(Failure, Duration),
}

/// Follows events, as one caller.
pub struct Follower {
    connection: ConnectionArgs,
    /// `None`: as whom the connection names, whatever identity there is.
    identity: Option<IdentityArgs>,
    cursor: String,
    stream: Option<Streaming<proto::WatchResponse>>,
    silence: Duration,
    /// What is waited for before the next try.
    pause: Option<Duration>,
    pauses: Pauses,
    /// How the caller was refused for who it is, and how many tries since then failed. Once may be a key that was
    /// just replaced; and who is revoked may get no connection to be told so.
    refused: Option<(Failure, u32)>,
}

/// Why there is no next message, and whether trying again may help.
struct Broken {
    failure: Failure,
    reason: Option<Reason>,
    retry_after: Option<Duration>,
}

impl Broken {
    fn here(what: &str) -> Self {
        Self {
            failure: Failure::new(Kind::Unavailable, what),
            reason: None,
            retry_after: None,
        }
    }
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            reason: info.and_then(|info| Reason::from_code(&info.reason)),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            failure: Failure::from(status),
        }
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.reason.as_deref().and_then(Reason::from_code),
            retry_after: None,
            failure,
        }
    }
}

/// Pauses between tries: exponential, with full jitter.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let ceiling = PAUSE.saturating_mul(1 << self.0.min(10)).min(PAUSE_MAX);
        self.0 = self.0.saturating_add(1);
        let mut random = [0; 4];
        // Without randomness the pause is the longest of those that jitter chooses from.
        let part = SystemRandom::new()
            .fill(&mut random)
            .map_or(u32::MAX, |()| u32::from_be_bytes(random));
        let jittered = ceiling.mul_f64(f64::from(part) / f64::from(u32::MAX));
        // All who were sent away together were told the same time.
        at_least.unwrap_or_default().min(PAUSE_MAX) + jittered
    }
}

impl Follower {
    /// Goes on after `cursor`; empty: begins now.
    pub fn new(connection: ConnectionArgs, identity: IdentityArgs, cursor: String) -> Self {
        Self::acting(connection, Some(identity), cursor)
    }

    /// Begins now, as the actor whose token the connection names.
    pub fn of_token(connection: ConnectionArgs) -> Self {
        Self::acting(connection, None, String::new())
    }

    fn acting(connection: ConnectionArgs, identity: Option<IdentityArgs>, cursor: String) -> Self {
        Self {
            connection,
            identity,
            cursor,
            stream: None,
            silence: FIRST_SILENCE,
            pause: None,
            pauses: Pauses::default(),
            refused: None,
        }
    }

    /// What comes next; an error where trying again would not help. Cancel safe.
    pub async fn next(&mut self) -> Result<Seen, Failure> {
        loop {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
                self.pause = None;
            }
            match self.message().await {
                Ok(event) => {
                    self.pauses = Pauses::default();
                    self.refused = None;
                    let first = self.cursor.is_empty();
                    self.cursor.clone_from(&event.cursor);
                    match &event.event {
                        Some(Event::Heartbeat(beat)) => {
                            let interval = beat.interval.and_then(|interval| interval.try_into().ok());
                            self.silence =
                                interval.map_or(self.silence, |interval: Duration| interval + LATE);
                            if first {
                                return Ok(Seen::Anew(event));
                            }
                        }
                        Some(Event::EventsMissed(_)) => return Ok(Seen::Anew(event)),
                        // One that this program does not know yet means nothing to it.
                        None => {}
                        Some(_) => return Ok(Seen::Event(event)),
                    }
                }
                Err(broken) => {
                    self.stream = None;
                    self.silence = FIRST_SILENCE;
                    return self.broke(broken);
                }
            }
        }
    }

    /// The next message of the stream, which is opened where there is none.
    async fn message(&mut self) -> Result<proto::WatchEvent, Broken> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let session = match &self.identity {
                    Some(identity) => super::open(&self.connection, identity).await?,
                    None => Session::open(&self.connection).await?,
                };
                let stream = open(&session, &self.cursor).await?;
                self.stream.insert(stream)
            }
        };
        let message = tokio::time::timeout(self.silence, stream.message())
            .await
            .map_err(|_| Broken::here("the broker's stream of events fell silent"))??;
        let message = message.ok_or_else(|| Broken::here("the broker's stream of events ended"))?;
        message
            .event
            .ok_or_else(|| Broken::here("the broker sent an event with nothing in it"))
    }

    fn broke(&mut self, broken: Broken) -> Result<Seen, Failure> {
        let again = match (broken.reason, broken.failure.kind) {
            // A cursor that is not this caller's: there is nothing to go on with.
            (Some(Reason::InvalidArgument), _) if !self.cursor.is_empty() => {
                self.cursor.clear();
                true
            }
            (_, Kind::Unavailable) => true,
            (_, Kind::Denied) => self.refused.is_none(),
            _ => false,
        };
        if !again {
            return Err(broken.failure);
        }
        match &mut self.refused {
            Some((_, tries)) if *tries + 1 < TRIES_REFUSED => *tries += 1,
            Some((refused, _)) => return Err(refused.clone()),
            None if broken.failure.kind == Kind::Denied => self.refused = Some((broken.failure.clone(), 0)),
            None => {}
        }
        let pause = self.pauses.next(broken.retry_after);
        self.pause = Some(pause);
        Ok(Seen::Broken(broken.failure, pause))
    }
}

async fn open(session: &Session, cursor: &str) -> Result<Streaming<proto::WatchResponse>, Broken> {
    let request = proto::WatchRequest {
        cursor: cursor.to_owned(),
        org: session.org_or_own(),
    };
    let opened = tokio::time::timeout(FIRST_SILENCE, session.watches().watch(request))
        .await
        .map_err(|_| Broken::here("the broker did not open its stream of events"))?;
    opened.map(tonic::Response::into_inner).map_err(|status| {
        let mut broken = Broken::from(status);
        broken.failure = broken.failure.at(&session.target);
        broken
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_heed_the_broker() {
        let mut pauses = Pauses::default();
        for round in 0..40 {
            let ceiling = PAUSE.saturating_mul(1 << round.min(10)).min(PAUSE_MAX);
            assert!(pauses.next(None) <= ceiling);
        }
        let asked = Duration::from_secs(5);
        assert!((asked..=asked + PAUSE_MAX).contains(&pauses.next(Some(asked))));
        let first: Vec<_> = (0..8).map(|_| Pauses::default().next(None)).collect();
        assert!(first.iter().any(|pause| *pause != first[0]), "no jitter");
    }
}
