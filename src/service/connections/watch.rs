//! Following a connection: how it stands, each step, and last how it ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;

use super::ConnectionStanding;
use crate::domain::actor::{Caller, Shown};
use crate::domain::connection::Connection;
use crate::domain::id::{ConnectionId, OrgId};
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::journal::Place;
use crate::service::live::expired;
use crate::service::streams::OpenStream;

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum FollowedConnection {
    /// It goes on.
    Progress(Arc<Connection>),
    /// It has ended. Nothing comes after this.
    Completion(Arc<Connection>),
    /// Nothing new; the next message comes within this time.
    Heartbeat(Duration),
}

/// A connection that is followed.
pub struct WatchedConnection {
    broker: Arc<Broker>,
    org: OrgId,
    id: ConnectionId,
    changed: Receiver<()>,
    open: OpenStream,
    /// When what the caller showed ends, and what that is.
    expires: Option<(Time, Shown)>,
    told: Option<(Arc<Connection>, ConnectionStanding)>,
    _place: Place,
}

impl Broker {
    /// Follows a connection.
    pub async fn watch_connection(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        id: &str,
    ) -> Result<WatchedConnection, Refusal> {
        let (place, stored) = self.seen_connection(caller, org, id).await?;
        let id = stored.value.id;
        let held = self.followers.of_connections(caller.actor())?;
        let open = self.open_stream(caller).await?;
        Ok(WatchedConnection {
            broker: Arc::clone(self),
            org: place.id(),
            id,
            // Before it is read for the first message, so that no change is missed.
            changed: self.connecting.follow(id),
            open,
            expires: caller.expires().map(|at| (at, caller.shown())),
            told: None,
            _place: held,
        })
    }
}

impl WatchedConnection {
    /// The next message; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<FollowedConnection>, Refusal> {
        loop {
            if matches!(&self.told, Some((_, standing)) if standing.is_over()) {
                return Ok(None);
            }
            let now = self.broker.now();
            if let Some((expires, shown)) = self.expires
                && now >= expires
            {
                return Err(expired(shown));
            }
            self.changed.borrow_and_update();
            let stored = self.broker.connection(self.org, self.id).await?.value;
            let standing = stored.standing(now);
            let known = self.told.as_ref();
            if known.is_none_or(|(told, stood)| *stood != standing || **told != *stored) {
                self.told = Some((Arc::clone(&stored), standing));
                return Ok(Some(match standing.is_over() {
                    true => FollowedConnection::Completion(stored),
                    false => FollowedConnection::Progress(stored),
                }));
            }
            let silence = self.broker.settings().watch_heartbeat;
            // Expiring is no change of the store.
            let ends = match standing {
                ConnectionStanding::Waiting => Some(stored.expires),
                _ => None,
            };
            let ends = [ends, self.expires.map(|(at, _)| at)];
            let soonest = ends.into_iter().flatten().map(|at| at.since(now)).min();
            let wait = soonest.map_or(silence, |left| left.min(silence));
            tokio::select! {
                biased;
                refusal = self.open.ended() => return Err(refusal),
                changed = self.changed.changed() => {
                    // The sender goes only where nobody follows any more.
                    drop(changed);
                }
                () = tokio::time::sleep(wait) => {
                    if soonest.is_none_or(|left| left > silence) {
                        return Ok(Some(FollowedConnection::Heartbeat(silence)));
                    }
                }
            }
        }
    }
}
