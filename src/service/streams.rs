//! Open streams, and how they end when their caller may no longer be served.
//!
//! Every call is checked when it comes in; a stream outlives that check. So each stream is entered here, under
//! everything that can be taken away from its caller, and whoever takes one of those away ends the streams with
//! the reason before it answers. A stream that is entered late is safe too: it is looked over once more, by
//! [`Broker::open_stream`], after it is entered.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Broker;
use crate::clock::Clock;
use crate::domain::actor::{Actor, Caller, Shown};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::metrics::Metrics;

/// Something that a caller can lose, by the 16 bytes of its id. Ids are unique over all kinds.
pub(super) type Subject = [u8; 16];

/// How many streams may be open at once; past it callers are told to come again.
const MAX_STREAMS: usize = 65_536;

/// Measures how long it takes until the last stream has heard: each is handed a share of it.
pub(super) struct Telling {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    arrived: Duration,
    any: bool,
}

impl Telling {
    /// A measure since `arrived`, by the monotonic clock.
    pub(super) fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>, arrived: Duration) -> Self {
        Self {
            metrics,
            clock,
            arrived,
            any: false,
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if self.any {
            let elapsed = self.clock.monotonic().saturating_sub(self.arrived);
            self.metrics.streams_told_after(elapsed);
        }
    }
}

/// What a stream is told, and its share of the measure.
struct Told(
    Refusal,
    #[expect(dead_code, reason = "kept until it was heard")] Option<Arc<Telling>>,
);

#[derive(Default)]
struct Entries {
    closed: bool,
    next: u64,
    streams: HashMap<u64, (Vec<Subject>, oneshot::Sender<Told>)>,
    by_subject: HashMap<Subject, HashSet<u64>>,
}

/// All open streams.
#[derive(Default)]
pub(super) struct Streams(Mutex<Entries>);

/// An open stream's place. Dropping it takes the stream off the list.
pub struct OpenStream {
    streams: Arc<Streams>,
    entry: u64,
    ended: oneshot::Receiver<Told>,
}

impl OpenStream {
    /// Waits for the moment from which the caller may no longer be served; says why. Cancel safe.
    pub async fn ended(&mut self) -> Refusal {
        // The sender goes with the entry, and the entry only with this place or the broker.
        (&mut self.ended).await.map_or_else(|_| stopping(), |told| told.0)
    }
}

fn stopping() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "the broker is stopping").retry_after(super::BACK_OFF)
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.remove(self.entry);
    }
}

impl Streams {
    fn enter(self: &Arc<Self>, subjects: Vec<Subject>) -> Result<OpenStream, Refusal> {
        let (sender, ended) = oneshot::channel();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.closed {
            return Err(stopping());
        }
        if entries.streams.len() >= MAX_STREAMS {
            return Err(
                Refusal::new(Reason::Overloaded, "too many streams are open").retry_after(super::BACK_OFF)
            );
        }
        let entry = entries.next;
        entries.next += 1;
        for subject in &subjects {
            entries.by_subject.entry(*subject).or_default().insert(entry);
        }
        entries.streams.insert(entry, (subjects, sender));
        Ok(OpenStream {
            streams: Arc::clone(self),
            entry,
            ended,
        })
    }

    fn remove(&self, entry: u64) -> Option<oneshot::Sender<Told>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (subjects, sender) = entries.streams.remove(&entry)?;
        for subject in subjects {
            if let Some(under) = entries.by_subject.get_mut(&subject) {
                under.remove(&entry);
                if under.is_empty() {
                    entries.by_subject.remove(&subject);
                }
            }
        }
        Some(sender)
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .streams
            .len()
    }

    /// Ends every stream entered under `subject`, for this reason; says how many.
    pub(super) fn end(&self, subject: Subject, refusal: &Refusal) -> usize {
        self.tell(subject, refusal, None)
    }

    /// As [`Streams::end`]; where there are any streams, `telling` is dropped when the last of them has heard.
    pub(super) fn tell(&self, subject: Subject, refusal: &Refusal, telling: Option<Telling>) -> usize {
        let entries: Vec<u64> = {
            let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let under = entries.by_subject.get(&subject);
            under
                .map(|under| under.iter().copied().collect())
                .unwrap_or_default()
        };
        let senders: Vec<_> = entries
            .into_iter()
            .filter_map(|entry| self.remove(entry))
            .collect();
        let count = senders.len();
        let telling = telling.map(|mut telling| {
            telling.any = count > 0;
            Arc::new(telling)
        });
        for sender in senders {
            // One whose stream ended by itself meanwhile has nobody to tell.
            let _ = sender.send(Told(refusal.clone(), telling.clone()));
        }
        count
    }
}

impl Streams {
    /// Ends all streams because the broker stops, and takes no new ones.
    fn close(&self) {
        let senders: Vec<_> = {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.closed = true;
            entries.by_subject.clear();
            entries.streams.drain().map(|(_, (_, sender))| sender).collect()
        };
        for sender in senders {
            let _ = sender.send(Told(stopping(), None));
        }
    }
}

/// All that `caller` can lose and that ends its streams.
fn subjects(caller: &Caller) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = caller.org().iter().map(|org| *org.as_bytes()).collect();
    match caller.actor() {
        Actor::Operator(id) => subjects.push(*id.as_bytes()),
        Actor::Member { id, .. } => subjects.push(*id.as_bytes()),
        Actor::ApiKey { id, .. } => subjects.push(*id.as_bytes()),
        Actor::Agent(agent) => {
            subjects.push(*agent.id.as_bytes());
            subjects.push(*agent.environment.as_bytes());
        }
    }
    match caller.shown() {
        Shown::OperatorToken(token) if !subjects.contains(token.as_bytes()) => {
            subjects.push(*token.as_bytes());
        }
        Shown::IdToken(link) => subjects.push(*link.as_bytes()),
        _ => {}
    }
    subjects
}

impl Broker {
    /// Ends all streams: the broker stops.
    pub fn end_streams(&self) {
        self.streams.close();
    }

    /// Enters a stream of this caller. The stream goes on until [`OpenStream::ended`] says why not, or until what
    /// the caller showed expires, which is the stream's own affair.
    pub async fn open_stream(&self, caller: &Caller) -> Result<OpenStream, Refusal> {
        let stream = self.streams.enter(subjects(caller))?;
        self.still_live(caller).await?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Refusal {
        Refusal::new(Reason::CredentialUnknown, "revoked")
    }

    #[tokio::test]
    async fn streams_end_by_any_of_their_subjects_and_leave_nothing_behind() {
        let streams = Arc::new(Streams::default());
        let mut one = streams.enter(vec![[1; 16], [2; 16]]).unwrap();
        let other = streams.enter(vec![[2; 16], [3; 16]]).unwrap();
        assert_eq!(streams.end([1; 16], &gone()), 1);
        assert_eq!(one.ended().await.reason, Reason::CredentialUnknown);
        assert_eq!(streams.end([1; 16], &gone()), 0);
        assert_eq!(streams.end([2; 16], &gone()), 1);
        drop((one, other));
        let kept = streams.enter(vec![[4; 16]]).unwrap();
        drop(kept);
        let entries = streams.0.lock().unwrap();
        assert!(entries.streams.is_empty() && entries.by_subject.is_empty());
    }
}
