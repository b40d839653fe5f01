//! Following the journal: records as they become durable, for whoever keeps reading.
//!
//! A follower is driven by its reader alone. It holds one look's worth of records, no task and no queue, so one
//! that reads slowly costs nobody else anything: it looks again when it has been read. It ends when the journal
//! does, or when the future it was given says so, with a refusal that its caller is told.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::watch;

use super::super::Broker;
use super::super::live::expired;
use super::filter::{FilterInput, Fits};
use super::places::Place;
use super::{Bounds, look};
use crate::clock::Clock;
use crate::domain::actor::{Caller, Shown};
use crate::domain::journal::Position;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::journal::{Journal, StoredRecord};

/// What one holds in memory at most, give or take a record.
const HELD: Bounds = Bounds {
    records: 256,
    bytes: 256 << 10,
};
/// How long a follower waits after it was woken: a busy journal costs it that many looks at most.
const PAUSE: Duration = Duration::from_millis(10);
const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// What is followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct FollowInput<'a> {
    /// Which records.
    pub filter: FilterInput<'a>,
    /// After which position; `None`: from now on.
    pub after: Option<Position>,
    /// How long the stream may be silent; `None`: the default.
    pub heartbeat: Option<Duration>,
}

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum Followed {
    /// A record that fits.
    Record(Box<StoredRecord>),
    /// All up to `position` was told or does not fit; `tip` is the last position there was.
    Progress {
        /// Where to go on.
        position: Position,
        /// The last position.
        tip: Position,
    },
}

impl Broker {
    /// Follows the journal. `ended` is what ends it from outside: when it is ready, the stream gives its refusal
    /// as the last item.
    pub async fn follow_journal(
        &self,
        caller: &Caller,
        input: FollowInput<'_>,
        ended: BoxFuture<'static, Refusal>,
    ) -> Result<impl Stream<Item = Result<Followed, Refusal>> + Send + use<>, Refusal> {
        let filter = self.record_filter(caller, input.filter).await?;
        let place = self.followers.of_records()?;
        self.follow(caller, (filter, place), input.after, input.heartbeat, ended)
    }

    /// As [`Broker::follow_journal`], for who was looked over already and has a place.
    pub(in super::super) fn follow<F: Fits>(
        &self,
        caller: &Caller,
        (filter, place): (F, Place),
        after: Option<Position>,
        heartbeat: Option<Duration>,
        ended: BoxFuture<'static, Refusal>,
    ) -> Result<impl Stream<Item = Result<Followed, Refusal>> + Send + use<F>, Refusal> {
        let heartbeat = heartbeat.unwrap_or(HEARTBEAT);
        if !HEARTBEATS.contains(&heartbeat) {
            return Err(Refusal::invalid("heartbeat", "heartbeat is from 1 s to 5 min"));
        }
        let tip = self.journal.tip();
        let now = *tip.borrow();
        let follower = Follower {
            journal: self.journal.clone(),
            filter: Arc::new(filter),
            position: after.unwrap_or(now),
            tip,
            found: VecDeque::new(),
            heartbeat,
            begun: false,
            silence: None,
            overdue: None,
            ended,
            expires: caller.expires().map(|at| (at, caller.shown())),
            clock: Arc::clone(&self.clock),
            _place: place,
        };
        Ok(unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(told) => {
                    follower.silence = None;
                    Some((Ok(told), Some(follower)))
                }
                Err(refusal) => Some((Err(refusal), None)),
            }
        }))
    }
}

struct Follower<F> {
    journal: Journal,
    filter: Arc<F>,
    /// All up to here was told, is in `found`, or does not fit.
    position: Position,
    tip: watch::Receiver<Position>,
    found: VecDeque<StoredRecord>,
    heartbeat: Duration,
    /// The first message, which says where the stream begins, was told.
    begun: bool,
    /// Runs since the last message, once something is waited for.
    silence: Option<Pin<Box<tokio::time::Sleep>>>,
    /// A heartbeat that is due.
    overdue: Option<Followed>,
    ended: BoxFuture<'static, Refusal>,
    /// When what the caller showed is good no more.
    expires: Option<(Time, Shown)>,
    clock: Arc<dyn Clock>,
    _place: Place,
}

impl<F: Fits> Follower<F> {
    /// The next message, or why there are no more.
    async fn next(&mut self) -> Result<Followed, Refusal> {
        loop {
            if let Some(refusal) = (&mut self.ended).now_or_never() {
                return Err(refusal);
            }
            // What the caller showed may have ended since: then at the next message, a heartbeat at the latest.
            if let Some((expires, shown)) = self.expires
                && self.clock.wall() >= expires
            {
                return Err(expired(shown));
            }
            if !std::mem::replace(&mut self.begun, true) {
                return Ok(self.progress());
            }
            if let Some(progress) = self.overdue.take() {
                return Ok(progress);
            }
            if let Some(record) = self.found.pop_front() {
                return Ok(Followed::Record(Box::new(record)));
            }
            let tip = *self.tip.borrow_and_update();
            if self.silence.as_ref().is_some_and(|silence| silence.is_elapsed()) || self.position >= tip {
                self.overdue = self.wait(tip).await?;
                continue;
            }
            let looking = look(
                self.journal.clone(),
                Arc::clone(&self.filter),
                self.position,
                HELD,
            );
            let page = tokio::select! {
                biased;
                refusal = &mut self.ended => return Err(refusal),
                page = looking => page?,
            };
            let looked = page.next != self.position;
            self.position = page.next;
            self.found = page.records.into();
            // Many were passed over: so far need not be looked at again.
            if self.found.is_empty() && looked && self.position < tip {
                return Ok(self.progress());
            }
        }
    }

    /// Waits for records, or until the silence has lasted.
    async fn wait(&mut self, tip: Position) -> Result<Option<Followed>, Refusal> {
        let heartbeat = self.heartbeat;
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(heartbeat)));
        let grown = tokio::select! {
            biased;
            refusal = &mut self.ended => return Err(refusal),
            () = silence => None,
            grown = self.tip.wait_for(|now| *now > tip) => Some(grown.is_ok()),
        };
        match grown {
            None => Ok(Some(self.progress())),
            Some(false) => Err(self.why_ended()),
            Some(true) => {
                tokio::time::sleep(PAUSE).await;
                Ok(None)
            }
        }
    }

    fn progress(&self) -> Followed {
        Followed::Progress {
            position: self.position,
            tip: *self.tip.borrow(),
        }
    }

    fn why_ended(&self) -> Refusal {
        match self.journal.failure().borrow().clone() {
            Some(failure) => failure.into(),
            None => Refusal::new(Reason::ShuttingDown, "the journal is closed"),
        }
    }
}
