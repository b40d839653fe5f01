//! The lock map: at most one flight a credential, shared by all who need it.
//!
//! The map's own lock is held for a look-up only, never across an await. An entry is gone as soon as its
//! flight has landed, so the map is as large as what is under way.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::domain::id::CredentialId;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;

/// How a flight ended.
#[derive(Clone)]
pub(super) enum Landing {
    /// There is a newer generation.
    Renewed,
    /// What is stored served already.
    Current,
    /// There is no newer generation.
    Refused(Arc<Refusal>),
}

impl Landing {
    pub(super) fn refused(refusal: Refusal) -> Self {
        Landing::Refused(Arc::new(refusal))
    }
}

type Flight = Shared<BoxFuture<'static, Landing>>;

pub(super) struct Flights {
    under_way: Mutex<HashMap<CredentialId, Flight>>,
    waiters: Arc<AtomicUsize>,
    max_waiters: usize,
}

/// Counts a waiter for as long as it waits.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Flights {
    pub(super) fn new(max_waiters: usize) -> Self {
        Self {
            under_way: Mutex::default(),
            waiters: Arc::default(),
            max_waiters,
        }
    }

    /// Joins the credential's flight, or starts one with `start`. Where the broker is `closing`, joins only.
    pub(super) fn join<F, S>(
        &self,
        id: CredentialId,
        closing: bool,
        start: S,
    ) -> Result<impl Future<Output = Landing> + use<F, S>, Refusal>
    where
        S: FnOnce() -> F,
        F: Future<Output = Landing> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = Waiting(Arc::clone(&self.waiters));
        if self.waiters.fetch_add(1, Ordering::Relaxed) >= self.max_waiters {
            return Err(
                Refusal::new(Reason::Overloaded, "too many callers wait for refreshes")
                    .retry_after(std::time::Duration::from_secs(1)),
            );
        }
        let flight = match under_way.get(&id) {
            Some(flight) => flight.clone(),
            None if closing => {
                return Err(Refusal::new(Reason::ShuttingDown, "the broker is stopping")
                    .retry_after(std::time::Duration::from_secs(1)));
            }
            None => {
                let flight = start().boxed().shared();
                under_way.insert(id, flight.clone());
                flight
            }
        };
        drop(under_way);
        Ok(async move {
            let landing = flight.await;
            drop(waiting);
            landing
        })
    }
}

/// Takes a flight out of the map when it is dropped.
pub(super) struct Landed<'a>(pub(super) &'a Flights, pub(super) CredentialId);

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.1);
    }
}
