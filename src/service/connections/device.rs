//! Device flows: the broker asks the provider again and again whether the member has signed in (RFC 8628 section 3.4).
//!
//! One task a connection, which ends with it. It keeps the pace that the provider sets: `slow_down` adds five seconds
//! for good, and what cannot be reached is tried half as often each time (section 3.5).

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch::Receiver;

use super::ConnectionStanding;
use super::complete::Code;
use super::put;
use super::settle::{rejected_client, told};
use crate::domain::connection::{Connection, Event, Flow, MAX_URL, Phase};
use crate::domain::journal::Action;
use crate::domain::reason::{Class, Reason};
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::effect::detached;
use crate::store::model::{ConnectionSecret, StagedAnswer};
use crate::store::record::Changes;
use crate::store::{Commit, keys};
use crate::upstream::Delivery;
use crate::upstream::answer::{DeviceAnswer, classify_device};
use crate::upstream::oauth::{DeviceFault, DeviceGrant, DevicePoll};

/// What a server that wants to be asked less often adds to the pause (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest pause after a server could not be reached.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest pause that a server gets by asking for it (RFC 9110 section 10.2.3).
const LONGEST_REST: Duration = Duration::from_secs(300);

impl Broker {
    /// Has the server begin its device flow, and begins to wait for the member.
    pub(super) async fn begin_device(
        self: &Arc<Self>,
        preparing: Arc<Connection>,
    ) -> Result<Arc<Connection>, Refusal> {
        let Ok(place) = Arc::clone(&self.connecting.polled).try_acquire_owned() else {
            let message = "as many device flows are waited for as may be at once";
            self.fail_connection(&preparing, Reason::ConnectionLimit, message.to_owned())
                .await?;
            return Err(Refusal::new(Reason::ConnectionLimit, message));
        };
        let broker = Arc::clone(self);
        detached(async move { broker.start_device(preparing, place).await }).await
    }

    async fn start_device(
        self: Arc<Self>,
        preparing: Arc<Connection>,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Connection>, Refusal> {
        let connector = self.connector(&preparing.connector)?;
        let begun = match self.oauth.begin_device(connector).await {
            Ok(begun) => begun,
            Err(fault) => {
                let (reason, message) = match fault {
                    DeviceFault::Unsupported => (
                        Reason::FlowUnsupported,
                        "the server has no device flow".to_owned(),
                    ),
                    DeviceFault::Unavailable { message, .. } => (Reason::ConnectionUnavailable, message),
                    DeviceFault::Refused { code, message } => {
                        (Reason::ConnectionRefused, format!("{code}: {message}"))
                    }
                };
                return self.fail_connection(&preparing, reason, message).await;
            }
        };
        if begun.verification_uri.len() > MAX_URL {
            let message = "the server's page for device codes has too long an address".to_owned();
            return self
                .fail_connection(&preparing, Reason::ConnectionRefused, message)
                .await;
        }
        let Some(waiting) = self.prepared_device(&preparing, begun).await? else {
            return Err(Refusal::new(
                Reason::ConnectionState,
                "the connection was given up while it was begun",
            ));
        };
        tokio::spawn(self.polling(Arc::clone(&waiting), place));
        Ok(waiting)
    }

    /// Stores what the server has given for the member to enter.
    async fn prepared_device(
        &self,
        preparing: &Connection,
        begun: DeviceGrant,
    ) -> Result<Option<Arc<Connection>>, Refusal> {
        let stored = self.connection(preparing.org, preparing.id).await?;
        let now = self.now();
        let event = Event::Prepared {
            user_code: begun.user_code,
            url: begun.verification_uri,
            complete_uri: begun.verification_uri_complete,
            interval: begun.interval,
            expires_in: begun.expires_in,
        };
        let next = match stored.value.on(event, now) {
            Ok(next) if next.attempt == preparing.attempt => next,
            _ => return Ok(None),
        };
        let secret = ConnectionSecret {
            attempt: next.attempt,
            state: crate::domain::secret::Secret::new(Vec::new()),
            verifier: None,
            device_code: Some(begun.device_code),
        };
        let changes = put(Changes::default(), &stored, &next, now)
            .put(&keys::connection_secret(next.org, next.id), &secret);
        match self.records.commit(changes).await? {
            Commit::Applied(_) => {
                self.connecting.changed(next.id);
                Ok(Some(Arc::new(next)))
            }
            // Only giving it up gets in the way here.
            Commit::Conflict => Ok(None),
        }
    }

    /// Asks until the member has signed in, or the connection has ended. Keeps its place for as long, and the broker
    /// only while it asks.
    pub(super) fn polling(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + use<> {
        let broker = Arc::downgrade(self);
        let changed = self.connecting.follow(connection.id);
        async move {
            poll(broker, &connection, changed).await;
            drop(place);
        }
    }

    async fn poll_once(self: &Arc<Self>, connection: &Arc<Connection>) -> Result<Polled, Refusal> {
        let stored = self.connection(connection.org, connection.id).await;
        let now = match stored {
            Err(refusal) if refusal.reason == Reason::NotFound => return Ok(Polled::Ended),
            stored => stored?.value,
        };
        if now.attempt != connection.attempt {
            return Ok(Polled::Ended);
        }
        match (&now.phase, now.standing(self.now())) {
            (Phase::Waiting, ConnectionStanding::Waiting) => {}
            (Phase::Waiting, ConnectionStanding::Expired) => {
                self.moves(&now, Event::TimeOver, Some(Action::ConnectionFail))
                    .await?;
                return Ok(Polled::Ended);
            }
            // What was answered is taken in by whoever was at it.
            _ => return Ok(Polled::Ended),
        }
        let beginner = self.standing_beginner(now.org, now.by).await.map(drop);
        let member = self.standing_member(now.org, now.member).await.map(drop);
        if let Err(refusal) = beginner.and(member) {
            if refusal.reason.class() == Class::Unavailable {
                return Err(refusal);
            }
            let message = format!("whoever began it may no longer: {}", refusal.message);
            return self.failed(&now, Reason::PermissionDenied, message).await;
        }
        // Before the member is told yes for what could not be kept.
        self.room_for(Action::ConnectionExchange)?;
        self.ask(&now).await
    }

    async fn ask(self: &Arc<Self>, now: &Arc<Connection>) -> Result<Polled, Refusal> {
        let connector = match self.connector(&now.connector) {
            Ok(connector) => connector,
            Err(refusal) => {
                return self.failed(now, refusal.reason, refusal.message).await;
            }
        };
        let secret = self.connection_secret(now).await?;
        let (Some(device_code), Flow::Device { user_code, .. }) = (&secret.device_code, &now.flow) else {
            return Ok(Polled::Ended);
        };
        let poll = DevicePoll {
            connector,
            device_code,
            user_code,
        };
        let (status, retry_after, body) = match self.oauth.poll_device(poll).await {
            Delivery::NotSent(_) | Delivery::Lost(_) => return Ok(Polled::Missed),
            Delivery::Answered {
                status,
                retry_after,
                body,
            } => (status, retry_after, body),
        };
        match classify_device(connector, status, retry_after, &body) {
            DeviceAnswer::Pending => Ok(Polled::Again),
            DeviceAnswer::SlowDown => Ok(Polled::Slower),
            DeviceAnswer::NotProcessed { retry_after, .. } | DeviceAnswer::Ambiguous { retry_after, .. } => {
                Ok(retry_after.map_or(Polled::Missed, Polled::Rest))
            }
            DeviceAnswer::Granted => {
                let answer = StagedAnswer {
                    fence: u64::from(now.attempt),
                    status,
                    retry_after_ms: None,
                    body,
                    received: self.now(),
                };
                // What becomes of it is told to those who follow it.
                let _settled = self.stage_and_settle(Arc::clone(now), answer).await;
                Ok(Polled::Missed)
            }
            DeviceAnswer::Code {
                code,
                verifier,
                redirect_uri,
            } => {
                let Some(exchanging) = self
                    .moves(now, Event::Approved, Some(Action::ConnectionExchange))
                    .await?
                else {
                    return Ok(Polled::Ended);
                };
                let code = Code {
                    code,
                    redirect_uri,
                    verifier,
                    state: String::new(),
                };
                let _settled = self.exchange_connection(exchanging, code).await;
                // Where nothing was sent it waits again.
                Ok(Polled::Missed)
            }
            DeviceAnswer::Denied { message } => self.failed(now, Reason::ConnectionRefused, message).await,
            DeviceAnswer::Refused { code, message } => {
                let message = told(code, message);
                self.failed(now, Reason::ConnectionRefused, message).await
            }
            DeviceAnswer::Misconfigured { code, message } => {
                let message = rejected_client(connector, code, message);
                self.failed(now, Reason::ConnectionRefused, message).await
            }
            DeviceAnswer::Expired => {
                let message = "the provider waits no longer".to_owned();
                self.failed(now, Reason::ConnectionExpired, message).await
            }
        }
    }

    /// Ends a connection; at the next look it has ended, or that is tried again.
    async fn failed(
        self: &Arc<Self>,
        now: &Connection,
        reason: Reason,
        message: String,
    ) -> Result<Polled, Refusal> {
        match self.fail_connection(now, reason, message).await {
            Err(refusal) if refusal.reason != reason => Err(refusal),
            _ => Ok(Polled::Ended),
        }
    }
}

async fn poll(broker: Weak<Broker>, connection: &Arc<Connection>, mut changed: Receiver<()>) {
    let Flow::Device { interval, .. } = connection.flow else {
        return;
    };
    let (mut pace, mut failures, mut rest) = (interval, 0_u32, Duration::ZERO);
    while let Some(left) = broker
        .upgrade()
        .map(|broker| connection.expires.since(broker.now()))
    {
        let slower = 2_u32.saturating_pow(failures.min(8));
        let pause = pace.saturating_mul(slower).min(pace.max(LONGEST));
        let pause = pause.max(std::mem::take(&mut rest));
        // Its end is told when it comes; what then cannot be stored is tried again at the pace of failures.
        let pause = match left.is_zero() {
            true => pause,
            false => pause.min(left),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // It was given up, or begun anew. The broker may have gone as well.
            _ = changed.changed() => {}
        }
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let under_way = &broker.connecting.under_way;
        if under_way.is_closed() {
            return;
        }
        match under_way.track_future(broker.poll_once(connection)).await {
            Ok(Polled::Again) => failures = 0,
            Ok(Polled::Slower) => {
                failures = 0;
                pace += SLOWER;
            }
            Ok(Polled::Missed) => failures += 1,
            Ok(Polled::Rest(wanted)) => {
                failures += 1;
                rest = wanted.min(LONGEST_REST);
            }
            Ok(Polled::Ended) => return,
            Err(refusal) => {
                tracing::warn!(connection = %connection.id, %refusal, "a device flow was not asked for");
                failures += 1;
            }
        }
        // What this very poll has changed is no news.
        changed.borrow_and_update();
    }
}

/// What came of asking once.
enum Polled {
    /// Nothing yet.
    Again,
    /// Nothing yet, and it was asked too often.
    Slower,
    /// It could not be asked.
    Missed,
    /// It could not be asked, and the server wants to be left alone for so long.
    Rest(Duration),
    /// There is nothing to ask for any more.
    Ended,
}
