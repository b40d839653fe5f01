//! Presence: when agents, API keys and operator tokens were last seen, without a durable write a request.
//!
//! Each authenticated request notes its moment in memory, in one of some shards. Once a minute, and when the
//! broker stops, what was noted is written to the store in batches, unguarded. What a crash loses is the last
//! minute. Nothing is decided by presence alone: who is to expire for want of it is decided by a guarded commit
//! on its own record.
//!
//! Memory is bounded: when a shard is full, newcomers are not noted until the next flush, which is then due at
//! once. Who is missed so is seen again at its next request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Broker;
use crate::domain::actor::{Actor, Caller, Shown};
use crate::domain::id::{AgentId, ApiKeyId, OperatorId, OrgId};
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::keys::{self, Key};
use crate::store::model::Seen;
use crate::store::record::Changes;

/// Who is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Present {
    /// An agent.
    Agent(OrgId, AgentId),
    /// An org API key.
    ApiKey(OrgId, ApiKeyId),
    /// An operator token, an operator's or a member's.
    OperatorToken(OperatorId),
}

impl Present {
    /// Whose presence a call is; `None` where nothing is kept of it.
    pub fn of(caller: &Caller) -> Option<Present> {
        match (caller.shown(), caller.actor()) {
            (Shown::RuntimeKey(agent), Actor::Agent(actor)) => Some(Present::Agent(actor.org, agent)),
            (Shown::ApiKey(key), Actor::ApiKey { org, .. }) => Some(Present::ApiKey(*org, key)),
            (Shown::OperatorToken(token), _) => Some(Present::OperatorToken(token)),
            _ => None,
        }
    }

    fn key(self) -> Key {
        match self {
            Present::Agent(org, id) => keys::agent_seen(org, id),
            Present::ApiKey(org, id) => keys::api_key_seen(org, id),
            Present::OperatorToken(id) => keys::operator_seen(id),
        }
    }

    /// By the last byte of an id, which is random.
    fn shard(self) -> usize {
        let id = match self {
            Present::Agent(_, id) => *id.as_bytes(),
            Present::ApiKey(_, id) => *id.as_bytes(),
            Present::OperatorToken(id) => *id.as_bytes(),
        };
        usize::from(id[15]) % SHARDS
    }
}

/// What an agent says of itself in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) version: String,
    pub(super) attributes: Vec<(String, String)>,
}

/// Noted and not written yet.
#[derive(Clone, Debug)]
struct Noted {
    at: Time,
    address: Option<IpAddr>,
    /// `None`: what is stored still holds.
    said: Option<Box<Said>>,
}

impl Noted {
    /// What is to be written over what is stored.
    fn over(&self, stored: Option<&Seen>) -> Seen {
        let (version, attributes) = match &self.said {
            Some(said) => (Some(said.version.clone()), Some(said.attributes.clone())),
            None => stored.map_or((None, None), |seen| {
                (seen.version.clone(), seen.attributes.clone())
            }),
        };
        Seen {
            at: stored.map_or(self.at, |seen| seen.at.max(self.at)),
            address: self
                .address
                .map(|address| address.to_string())
                .or_else(|| stored.and_then(|seen| seen.address.clone())),
            version,
            attributes,
        }
    }
}

const SHARDS: usize = 32;
/// Some 65 000 in all.
const MAX_IN_SHARD: usize = 2_048;
/// How many one commit writes.
const WRITTEN_AT_ONCE: usize = 64;

type Shard = HashMap<Present, Noted>;

/// Who was seen since the last flush.
pub(super) struct Presence {
    shards: [Mutex<Shard>; SHARDS],
    full: Notify,
    /// Held while what was noted is written, so that nobody who is removed meanwhile is written again.
    writing: tokio::sync::Mutex<()>,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            full: Notify::new(),
            writing: tokio::sync::Mutex::default(),
        }
    }
}

impl Presence {
    fn shard(&self, who: Present) -> MutexGuard<'_, Shard> {
        self.shards[who.shard()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `who` was seen `now`, and what it said, where it did.
    fn note(&self, who: Present, now: Time, address: Option<IpAddr>, said: Option<Box<Said>>) {
        let mut shard = self.shard(who);
        if let Some(noted) = shard.get_mut(&who) {
            noted.at = noted.at.max(now);
            noted.address = address.or(noted.address);
            if said.is_some() {
                noted.said = said;
            }
        } else if shard.len() < MAX_IN_SHARD {
            let at = now;
            shard.insert(who, Noted { at, address, said });
        } else {
            self.full.notify_one();
        }
    }

    fn noted(&self, who: Present) -> Option<Noted> {
        self.shard(who).get(&who).cloned()
    }

    /// Forgets what was written, unless it has been seen again since.
    fn written(&self, who: Present, at: Time) {
        let mut shard = self.shard(who);
        if shard.get(&who).is_some_and(|noted| noted.at <= at) {
            shard.remove(&who);
        }
    }

    /// Keeps whoever is being removed from being written again. While the guard lives, nothing is written.
    pub(super) async fn forgetting(&self, who: Present) -> tokio::sync::MutexGuard<'_, ()> {
        let guard = self.writing.lock().await;
        self.shard(who).remove(&who);
        guard
    }
}

impl Broker {
    /// Notes that `who` was seen `now`. Takes no more than a look into a map.
    pub fn touch(&self, who: Present, now: Time, address: Option<IpAddr>) {
        self.presence.note(who, now, address, None);
    }

    /// Notes that the caller was seen.
    pub fn touch_caller(&self, caller: &Caller, address: Option<IpAddr>) {
        if let Some(who) = Present::of(caller) {
            self.touch(who, self.now(), address);
        }
    }

    /// Notes what an agent said of itself.
    pub(super) fn touch_saying(&self, who: Present, said: Said) {
        self.presence.note(who, self.now(), None, Some(Box::new(said)));
    }

    /// When `who` was last seen, and what is known with it; `None`: never, or it was never written down.
    pub async fn last(&self, who: Present) -> Result<Option<Seen>, Refusal> {
        let noted = self.presence.noted(who);
        let stored = self.records.get::<Seen>(&who.key()).await?;
        let stored = stored.map(|stored| Seen::clone(&stored.value));
        Ok(match noted {
            Some(noted) => Some(noted.over(stored.as_ref())),
            None => stored,
        })
    }

    /// Ready when so many were seen that they have to be written before the minute is over.
    pub async fn presence_is_full(&self) {
        self.presence.full.notified().await;
    }

    /// Writes who was seen. What cannot be written now stays noted for the next time.
    pub async fn flush_presence(&self) -> Result<(), Refusal> {
        // It can wait: what is noted is not lost while the broker runs.
        if !self.records.has_room(self.settings().reserved_bytes) {
            return Ok(());
        }
        let _writing = self.presence.writing.lock().await;
        for shard in &self.presence.shards {
            let noted: Vec<(Present, Noted)> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.iter().map(|(who, noted)| (*who, noted.clone())).collect()
            };
            for some in noted.chunks(WRITTEN_AT_ONCE) {
                let mut changes = Changes::default();
                for (who, noted) in some {
                    let key = who.key();
                    let stored = self.records.get::<Seen>(&key).await?;
                    let stored = stored.as_ref().map(|stored| &*stored.value);
                    changes = changes.put(&key, &noted.over(stored));
                }
                let _applied = self.records.commit(changes).await?;
                for (who, noted) in some {
                    self.presence.written(*who, noted.at);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn agent(n: u16) -> Present {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Present::Agent(Id::from_bytes([1; 16]), Id::from_bytes(bytes))
    }

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds)
    }

    #[test]
    fn who_is_seen_again_while_it_is_written_stays_noted() {
        let presence = Presence::default();
        presence.note(agent(1), at(1), None, None);
        let snapshot = presence.noted(agent(1)).unwrap();
        presence.note(agent(1), at(2), None, None);
        presence.written(agent(1), snapshot.at);
        assert_eq!(presence.noted(agent(1)).unwrap().at, at(2));
        presence.written(agent(1), at(2));
        assert!(presence.noted(agent(1)).is_none());
    }

    #[test]
    fn a_full_shard_takes_no_newcomers_and_asks_to_be_written() {
        let presence = Presence::default();
        // All of one shard: their last bytes are the same.
        let all = u16::try_from(MAX_IN_SHARD).unwrap();
        (0..all).for_each(|n| presence.note(agent(n), at(1), None, None));
        assert!(futures_util::FutureExt::now_or_never(presence.full.notified()).is_none());
        presence.note(agent(all), at(1), None, None);
        presence.note(agent(0), at(5), None, None);
        assert!(presence.noted(agent(all)).is_none());
        assert_eq!(presence.noted(agent(0)).unwrap().at, at(5));
        assert!(futures_util::FutureExt::now_or_never(presence.full.notified()).is_some());
    }

    #[test]
    fn what_was_said_holds_until_something_else_is() {
        let said = |version: &str| {
            Some(Box::new(Said {
                version: version.to_owned(),
                attributes: vec![],
            }))
        };
        let presence = Presence::default();
        presence.note(agent(1), at(1), Some("::1".parse().unwrap()), said("1"));
        presence.note(agent(1), at(2), None, None);
        let first = presence.noted(agent(1)).unwrap().over(None);
        assert_eq!(
            (first.version.as_deref(), first.address.as_deref()),
            (Some("1"), Some("::1"))
        );
        let silent = Noted {
            at: at(3),
            address: None,
            said: None,
        };
        let second = silent.over(Some(&first));
        assert_eq!(second, Seen { at: at(3), ..first });
    }
}
