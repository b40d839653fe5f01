//! Places for exchanges: how many are under way at once, over all and for each connector.
//!
//! A flight takes its connector's place first and one of the whole only then, so that those who wait for a slow
//! provider hold nothing that others need; at most a connector's share of them is in the queue for the whole, and both
//! queues are first come, first served. Waiting is bounded. What nobody waits for takes a place only while most are
//! free, and never queues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::domain::name::Name;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::metrics::{Level, Metrics};

/// When to come back after no place became free in time.
const COME_BACK: Duration = Duration::from_secs(1);

/// All places.
pub(super) struct Places {
    all: Arc<Semaphore>,
    total: usize,
    each: usize,
    /// As many entries as there are connectors.
    of: Mutex<BTreeMap<Name, Arc<Semaphore>>>,
    metrics: Arc<Metrics>,
}

/// A place, free again when this is dropped.
pub(super) struct Place {
    _of: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _counted: Level,
}

impl Places {
    /// So many over all, and for `each` connector.
    pub(super) fn new(total: usize, each: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(total)),
            total,
            each: each.min(total),
            of: Mutex::default(),
            metrics,
        }
    }

    /// Takes a place, after waiting for one for `limit` at most.
    pub(super) async fn take(&self, connector: &Name, limit: Duration) -> Result<Place, Refusal> {
        let waiting = self.metrics.exchange_waits(connector);
        let both = async {
            let of = self.of(connector).acquire_owned().await?;
            let all = Arc::clone(&self.all).acquire_owned().await?;
            Ok::<_, AcquireError>((of, all))
        };
        let taken = tokio::time::timeout(limit, both).await;
        drop(waiting);
        match taken {
            Ok(Ok((of, all))) => Ok(self.place(connector, of, all)),
            Ok(Err(_)) => {
                Err(Refusal::new(Reason::ShuttingDown, "the broker is stopping").retry_after(COME_BACK))
            }
            Err(_) => Err(Refusal::new(
                Reason::Overloaded,
                format!("no place for an exchange of connector {connector} became free in time"),
            )
            .retry_after(COME_BACK)
            .with("connector", connector.as_str())),
        }
    }

    /// Takes a place if more than half of the connector's and of the whole are free.
    pub(super) fn take_spare(&self, connector: &Name) -> Option<Place> {
        let spare = |places: &Semaphore, of: usize| places.available_permits() > of / 2;
        let own = self.of(connector);
        if !spare(&own, self.each) || !spare(&self.all, self.total) {
            return None;
        }
        let of = own.try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(self.place(connector, of, all))
    }

    /// Gives out no more places. Who waits is told to come again.
    pub(super) fn close(&self) {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.values().for_each(|places| places.close());
        drop(of);
        self.all.close();
    }

    fn of(&self, connector: &Name) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = of.get(connector) {
            return Arc::clone(places);
        }
        let places = Arc::new(Semaphore::new(self.each));
        of.insert(connector.clone(), Arc::clone(&places));
        places
    }

    fn place(&self, connector: &Name, of: OwnedSemaphorePermit, all: OwnedSemaphorePermit) -> Place {
        Place {
            _of: of,
            _all: all,
            _counted: self.metrics.exchange_under_way(connector),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn places(total: usize, each: usize) -> Places {
        Places::new(total, each, Arc::default())
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_slow_connector_and_its_queue_leave_the_others_their_places() {
        let places = places(4, 2);
        let (slow, quick) = (name("slow"), name("quick"));
        let held = [
            places.take(&slow, LONG).await.unwrap(),
            places.take(&slow, LONG).await.unwrap(),
        ];
        let mut queue: Vec<_> = (0..100).map(|_| Box::pin(places.take(&slow, LONG))).collect();
        for waiting in &mut queue {
            assert!(waiting.now_or_never().is_none());
        }
        let mut quick_ones = Vec::new();
        for _ in 0..2 {
            let place = places.take(&quick, LONG).now_or_never();
            quick_ones.push(place.expect("at once").unwrap());
        }
        // The whole is full now: a third connector waits for it, behind nobody.
        let mut third = Box::pin(async { places.take(&name("third"), LONG).await });
        assert!(third.as_mut().now_or_never().is_none());
        drop(quick_ones.pop());
        assert!(third.now_or_never().is_some());
        drop(held);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_to_come_back() {
        let places = places(1, 1);
        let connector = name("demo");
        let place = places.take(&connector, LONG).await.unwrap();
        let refused = places
            .take(&connector, Duration::from_millis(10))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert_eq!(refused.retry_after, Some(COME_BACK));
        drop(place);
        // And left nothing behind.
        let place = places
            .take(&connector, LONG)
            .now_or_never()
            .expect("at once")
            .unwrap();

        let mut waiting = Box::pin(places.take(&connector, LONG));
        assert!(waiting.as_mut().now_or_never().is_none());
        places.close();
        assert_eq!(waiting.await.err().unwrap().reason, Reason::ShuttingDown);
        drop(place);
        let refused = places.take(&name("new"), LONG).await.err().unwrap();
        assert_eq!(refused.reason, Reason::ShuttingDown);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_leaves_half_of_the_places() {
        let places = places(8, 4);
        let (one, other, third) = (name("one"), name("other"), name("third"));
        let spare = |connector| std::iter::from_fn(|| places.take_spare(connector)).collect::<Vec<_>>();
        let ahead = spare(&one);
        assert_eq!(ahead.len(), 2, "half of the connector's");
        let more = spare(&other);
        assert_eq!(more.len(), 2);
        assert_eq!(spare(&third).len(), 0, "half of the whole");
        let callers = [(); 2].map(|()| {
            let place = places.take(&one, LONG).now_or_never();
            place.expect("a caller has one at once").unwrap()
        });
        drop((ahead, more));
        assert_eq!(spare(&one).len(), 0, "callers have half of them");
        assert_eq!(spare(&third).len(), 2);
        drop(callers);
    }
}
