//! Connecting accounts: a member signs in at the provider, and the broker takes the grant over.
//!
//! What crosses a crash is stored before it counts: the state and the verifier before the member sees the address, that
//! a code is being exchanged before it is sent, and the provider's answer before it is read. A code that was sent and
//! not answered has failed; it is not sent again. What comes for a connection that was given up meanwhile is not kept.

mod begin;
mod complete;
mod device;
mod keep;
mod recover;
mod settle;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch as signal};
use tokio_util::task::TaskTracker;

use super::Broker;
use super::page::{Page, PageRequest};
use super::scope::{Place, parse_id};
use crate::domain::actor::Caller;
use crate::domain::connection::{Beginner, Connection, Event, Unfit};
use crate::domain::id::{ConnectionId, OrgId};
use crate::domain::journal::{Action, Record};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::service::effect::{Undone, detached};
use crate::service::turns::Turns;
use crate::store::keys;
use crate::store::model::{ConnectionSecret, Mark, StagedAnswer};
use crate::store::record::{Changes, Stored};

pub use crate::domain::connection::{Flow, Phase as ConnectionPhase, Standing as ConnectionStanding};
pub use begin::{BeginConnection, FlowKind};
pub use complete::CompleteConnection;
pub use watch::{FollowedConnection, WatchedConnection};

/// How many device flows are polled for at once, over all members.
const MOST_DEVICE_FLOWS: usize = 1024;
/// How often a change is tried again that somebody else's got in the way of.
const ATTEMPTS: usize = 5;

/// What is known of connections beside the store.
pub(super) struct Connecting {
    /// Those who wait for news of a connection.
    followed: Mutex<HashMap<ConnectionId, signal::Sender<()>>>,
    /// Places for device flows.
    polled: Arc<Semaphore>,
    /// What is under way with a provider, or with what it answered.
    under_way: TaskTracker,
    /// Who reads a connection's stored answer: one at a time.
    turns: Turns<ConnectionId>,
}

impl Default for Connecting {
    fn default() -> Self {
        Self {
            followed: Mutex::default(),
            polled: Arc::new(Semaphore::new(MOST_DEVICE_FLOWS)),
            under_way: TaskTracker::new(),
            turns: Turns::default(),
        }
    }
}

impl Connecting {
    /// Hears of every change of a connection from now on.
    fn follow(&self, id: ConnectionId) -> signal::Receiver<()> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has gone is forgotten by who comes.
        followed.retain(|_, told| told.receiver_count() > 0);
        let told = followed.entry(id).or_insert_with(|| signal::Sender::new(()));
        told.subscribe()
    }

    /// Tells that a connection has changed.
    fn changed(&self, id: ConnectionId) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.get(&id).is_some_and(|told| told.send(()).is_err()) {
            followed.remove(&id);
        }
    }
}

/// What a caller is told of an event that does not fit.
fn unfit(connection: &Connection, unfit: Unfit, now: Time) -> Refusal {
    match unfit {
        Unfit::Expired => Refusal::new(Reason::ConnectionExpired, "the time to sign in is over"),
        Unfit::Codes => Refusal::new(
            Reason::ConnectionLimit,
            "as many codes were handed over for this sign-in as are taken: begin anew",
        ),
        Unfit::State => {
            let stands = match connection.standing(now) {
                ConnectionStanding::Waiting if connection.is_device() => {
                    "waits for the provider, and takes no code"
                }
                ConnectionStanding::Waiting => "still waits",
                ConnectionStanding::Exchanging => "is being completed",
                ConnectionStanding::Connected => "is connected already",
                ConnectionStanding::Failed => "has failed",
                ConnectionStanding::Cancelled => "was cancelled",
                ConnectionStanding::Expired => "has expired",
            };
            Refusal::new(Reason::ConnectionState, format!("the connection {stands}"))
        }
    }
}

/// A record about a connection.
fn about(record: Record, connection: &Connection) -> Record {
    record
        .about("connection", connection.id)
        .about("member", connection.member)
        .about("connector", &connection.connector)
        .about("attempt", connection.attempt)
}

/// As [`about`], of what the broker does on behalf of who began it.
fn by_beginner(action: Action, connection: &Connection) -> Record {
    about(
        Record::new(action, connection.actor.clone(), Some(connection.org)),
        connection,
    )
}

/// Puts a connection as it is now, guarded by what was read of it; one that has ended leaves nothing of its secrets.
fn put(changes: Changes, before: &Stored<Connection>, now: &Connection, at: Time) -> Changes {
    let key = keys::connection(now.org, now.id);
    let changes = changes.at(&key, before.revision).put(&key, now);
    let changes = match before.value.phase {
        ConnectionPhase::Staged => changes.delete::<StagedAnswer>(&keys::connection_answer(now.org, now.id)),
        _ => changes,
    };
    match now.standing(at).is_over() {
        true => ended(changes, now.org, now.id),
        false => changes,
    }
}

/// Removes what a connection needs only while it goes on. A stored answer is not among it: that goes with the step that
/// reads it.
fn ended(changes: Changes, org: OrgId, id: ConnectionId) -> Changes {
    changes
        .delete::<ConnectionSecret>(&keys::connection_secret(org, id))
        .delete::<Mark>(&keys::connecting(org, id))
}

impl Broker {
    /// Waits for what is under way with providers; nothing new is begun with them by the broker itself.
    pub async fn drain_connections(&self) {
        self.connecting.under_way.close();
        self.connecting.under_way.wait().await;
    }

    /// Runs `work` to its end even when its caller goes away or the broker is about to stop.
    async fn tracked<T, E>(&self, work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Refusal> + Send + 'static,
    {
        detached(self.connecting.under_way.track_future(work)).await
    }

    pub(super) async fn connection(
        &self,
        org: OrgId,
        id: ConnectionId,
    ) -> Result<Stored<Connection>, Refusal> {
        let stored = self.records.get(&keys::connection(org, id)).await?;
        stored.ok_or_else(|| Refusal::not_found("connection"))
    }

    /// A connection that the caller may see, by the texts of a request.
    async fn seen_connection(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<(Place, Stored<Connection>), Refusal> {
        let place = self.place(caller, org).await?;
        let stored = self.connection(place.id(), parse_id("connection", id)?).await?;
        place.admit("connection", None, Some(stored.value.member))?;
        Ok((place, stored))
    }

    /// Whether the caller is told where to sign in and with what: whoever began it, and the member. Others who see the
    /// connection could sign in there as themselves, and would have connected their account to the member.
    pub fn may_sign_in(&self, caller: &Caller, connection: &Connection) -> bool {
        let me = caller.member_of(connection.org);
        me == Some(connection.member) || Beginner::of(caller.shown(), me) == Some(connection.by)
    }

    /// How a connection stands now.
    pub fn connection_standing(&self, connection: &Connection) -> ConnectionStanding {
        connection.standing(self.now())
    }

    /// One connection.
    pub async fn get_connection(
        &self,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<Connection>, Refusal> {
        Ok(self.seen_connection(caller, org, id).await?.1.value)
    }

    /// The org's connections, as far as the caller may see them.
    pub async fn list_connections(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Arc<Connection>>, Refusal> {
        let place = self.place(caller, org).await?;
        let list = keys::connections(place.id());
        let mut page = self
            .page::<Connection>(&list, page)
            .await?
            .map(|stored| stored.value);
        page.rows
            .retain(|connection| place.within.admits(None, Some(connection.member)));
        Ok(page)
    }

    /// Gives a connection up.
    pub async fn cancel_connection(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<Arc<Connection>, Refusal> {
        for _ in 0..ATTEMPTS {
            let (_, stored) = self.seen_connection(caller, org, id).await?;
            let now = self.now();
            if stored.value.standing(now) == ConnectionStanding::Cancelled {
                return Ok(stored.value);
            }
            let cancelled = stored
                .value
                .on(Event::Cancelled, now)
                .map_err(|why| unfit(&stored.value, why, now))?;
            let record = caller.record(Action::ConnectionCancel, Some(cancelled.org));
            let changes = put(Changes::default(), &stored, &cancelled, now);
            match self
                .connection_effect(about(record, &cancelled), changes, cancelled)
                .await
            {
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
                Ok(cancelled) => return Ok(cancelled),
            }
        }
        Err(busy())
    }

    /// Makes a change of a connection happen, and tells those who follow it.
    async fn connection_effect(
        self: &Arc<Self>,
        record: Record,
        changes: Changes,
        connection: Connection,
    ) -> Result<Arc<Connection>, Undone> {
        self.effect(record, changes).await?;
        self.connecting.changed(connection.id);
        Ok(Arc::new(connection))
    }
}

fn busy() -> Refusal {
    Refusal::new(
        Reason::Conflict,
        "the connection is changed by others at the same time",
    )
    .retry_after(Duration::from_secs(1))
}
