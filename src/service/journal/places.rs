//! The places that followers take: of the journal's records, of costs, and of connections.
//!
//! Those who audit have places of their own: every member may follow costs, and must not keep an auditor out. Of
//! the places for costs and for connections one caller takes only some, so that it does not keep the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::actor::Actor;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;

/// How many may follow the journal's records.
const RECORDS: usize = 64;
/// How many may follow costs, and how many streams of them one caller may have.
const COSTS: usize = 64;
const COSTS_EACH: usize = 4;
/// How many may follow connections, and how many one caller.
const CONNECTIONS: usize = 1024;
const CONNECTIONS_EACH: usize = 32;
/// When one that found no place may try again.
const RETRY: Duration = Duration::from_secs(10);

/// Streams of one sort, by the id of who has them; nobody with none.
type Held = Arc<Mutex<HashMap<[u8; 16], usize>>>;

/// The places.
pub(in super::super) struct Followers {
    records: Arc<Semaphore>,
    costs: Arc<Semaphore>,
    held: Held,
    connections: Arc<Semaphore>,
    connected: Held,
}

/// A place. It is given back when this is dropped.
pub(in super::super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

/// One of the streams that a caller may have.
struct Share {
    held: Held,
    who: [u8; 16],
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.who);
            }
        }
    }
}

impl Default for Followers {
    fn default() -> Self {
        Self {
            records: Arc::new(Semaphore::new(RECORDS)),
            costs: Arc::new(Semaphore::new(COSTS)),
            held: Held::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            connected: Held::default(),
        }
    }
}

impl Followers {
    /// A place for following records.
    pub(super) fn of_records(&self) -> Result<Place, Refusal> {
        Ok(Place {
            _permit: permit(&self.records)?,
            _share: None,
        })
    }

    /// A place for following costs.
    pub(in super::super) fn of_costs(&self, actor: &Actor) -> Result<Place, Refusal> {
        let share = share(&self.held, actor.id_bytes(), COSTS_EACH, "costs")?;
        Ok(Place {
            _permit: permit(&self.costs)?,
            _share: Some(share),
        })
    }

    /// A place for following a connection.
    pub(in super::super) fn of_connections(&self, actor: &Actor) -> Result<Place, Refusal> {
        let share = share(&self.connected, actor.id_bytes(), CONNECTIONS_EACH, "connections")?;
        Ok(Place {
            _permit: permit(&self.connections)?,
            _share: Some(share),
        })
    }
}

fn share(all: &Held, who: [u8; 16], most: usize, what: &str) -> Result<Share, Refusal> {
    let mut held = all.lock().unwrap_or_else(PoisonError::into_inner);
    let count = held.entry(who).or_default();
    if *count >= most {
        let message = format!("at most {most} streams of {what} at once");
        return Err(Refusal::new(Reason::Overloaded, message).retry_after(RETRY));
    }
    *count += 1;
    Ok(Share {
        held: Arc::clone(all),
        who,
    })
}

fn permit(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        let message = "there are as many followers as are taken";
        Refusal::new(Reason::Overloaded, message).retry_after(RETRY)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn member(id: u8) -> Actor {
        Actor::Member {
            id: Id::from_bytes([id; 16]),
            org: Id::from_bytes([200; 16]),
        }
    }

    #[test]
    fn one_keeps_neither_the_others_nor_auditors_out() {
        let followers = Followers::default();
        let mut all = Vec::new();
        for id in 0..16 {
            let theirs = (0..COSTS_EACH).map(|_| followers.of_costs(&member(id)).unwrap());
            all.extend(theirs);
            assert!(followers.of_costs(&member(id)).is_err());
        }
        assert!(followers.of_costs(&member(100)).is_err(), "all places are taken");
        let auditors: Vec<_> = (0..RECORDS).map(|_| followers.of_records().unwrap()).collect();
        assert!(followers.of_records().is_err());
        all.pop();
        let _other = followers.of_costs(&member(100)).unwrap();
        assert!(followers.of_costs(&member(15)).is_err(), "there is no place");
        drop((all, auditors));
        let _again = followers.of_costs(&member(0)).unwrap();
        assert_eq!(
            followers.held.lock().unwrap().len(),
            2,
            "who has none is forgotten"
        );
    }
}
