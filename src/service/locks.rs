//! Locks: made, listed and removed by admins, and held in memory for every request to look at.
//!
//! The store has the locks; the map here is its copy for the request path, loaded before anything is served. A
//! lock enters the map after its commit and before it is answered, and streams end after that. So when the answer
//! is out, no later call of who is locked succeeds, and a resolution under way finds the lock when it looks
//! around for the last time.
//!
//! An org's lock shuts out all who belong to it, org admins too, so that a thief with an admin's token cannot
//! lift it: operators, who belong to no org, can always come in. A lock that a system admin made is lifted by
//! system admins only. Automation may stop an agent, and not let it go again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Broker;
use super::access::checked_ttl;
use super::effect::{Undone, detached};
use super::outstanding::{Kept, Outstanding};
use super::page::{Page, PageRequest};
use super::request::Repeatable;
use super::scope::{Place, parse_id};
use super::streams::Subject;
use crate::domain::actor::{Actor, Caller};
use crate::domain::agent::Agent;
use crate::domain::credential::Credential;
use crate::domain::id::{AgentId, LockId, OrgId};
use crate::domain::journal::{Action, Record};
use crate::domain::lock::{Lock, LockTarget};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::watch::{Ended, Notice};
use crate::store::keys;
use crate::store::record::{Changes, Stored};
use crate::store::{MAX_SCAN, Revision};

/// What is to be locked, as a request says it.
#[derive(Clone, Copy, Debug)]
pub enum LockRef<'a> {
    /// An agent, by id.
    Agent(&'a str),
    /// A member, by id or name.
    Member(&'a str),
    /// A credential, by id.
    Credential(&'a str),
    /// An environment, by id, or by name with its project.
    Environment {
        /// The project, for an environment given by name.
        project: &'a str,
        /// The environment.
        environment: &'a str,
    },
    /// The org itself.
    Org,
}

/// What is asked for when locking.
#[derive(Clone, Copy, Debug)]
pub struct NewLock<'a> {
    /// The org.
    pub org: &'a str,
    /// What is to be locked.
    pub target: LockRef<'a>,
    /// What those who are stopped are told.
    pub message: &'a str,
    /// After what time it ends by itself; `None`: it does not.
    pub ttl: Option<Duration>,
    /// From the request.
    pub request_id: &'a str,
}

/// A lock that was made, and what its target was handed before.
#[derive(Clone, Debug)]
pub struct Locked {
    /// The lock.
    pub lock: Arc<Lock>,
    /// What stays valid at the providers.
    pub outstanding: Outstanding,
}

const TTL_MAX: Duration = Duration::from_secs(365 * 86_400);
const MAX_MESSAGE: usize = 256;
/// How many locks admins of one org may have standing: each costs memory, and each change of one a copy of the
/// map. Who needs more means the environment or the org.
const MAX_PER_ORG: usize = 2_000;

type Map = HashMap<Subject, Vec<Arc<Lock>>>;

/// All locks, by what they stop.
#[derive(Default)]
pub(super) struct Locks {
    map: ArcSwap<Map>,
    /// Held over each commit and the change of the map that follows it, so that both have one order.
    changing: tokio::sync::Mutex<()>,
}

impl Locks {
    fn add(&self, lock: &Arc<Lock>) {
        self.map.rcu(|map| {
            let mut map = Map::clone(map);
            let under = map.entry(lock.target.subject()).or_default();
            under.retain(|other| other.id != lock.id);
            under.push(Arc::clone(lock));
            map
        });
    }

    fn remove(&self, lock: &Lock) {
        let subject = lock.target.subject();
        self.map.rcu(|map| {
            let mut map = Map::clone(map);
            if let Some(under) = map.get_mut(&subject) {
                under.retain(|other| other.id != lock.id);
                if under.is_empty() {
                    map.remove(&subject);
                }
            }
            map
        });
    }

    fn of_org(&self, org: OrgId) -> usize {
        let map = self.map.load();
        map.values().flatten().filter(|lock| lock.org == org).count()
    }
}

/// All that can be locked about an actor.
fn lockable(actor: &Actor) -> [Option<Subject>; 3] {
    match actor {
        Actor::Operator(_) => [None; 3],
        Actor::Member { id, org } => [Some(*id.as_bytes()), Some(*org.as_bytes()), None],
        Actor::ApiKey { org, .. } => [Some(*org.as_bytes()), None, None],
        Actor::Agent(agent) => [
            Some(*agent.id.as_bytes()),
            Some(*agent.environment.as_bytes()),
            Some(*agent.org.as_bytes()),
        ],
    }
}

impl Broker {
    /// Refuses where one of these is locked. Costs next to nothing while nothing is.
    pub(super) fn unlocked(&self, subjects: &[Subject]) -> Result<(), Refusal> {
        let map = self.locks.map.load();
        if map.is_empty() {
            return Ok(());
        }
        let found = subjects.iter().filter_map(|subject| map.get(subject)).flatten();
        match found.into_iter().find(|lock| lock.holds(self.now())) {
            Some(lock) => Err(lock.refusal()),
            None => Ok(()),
        }
    }

    /// Refuses a caller who is locked, or whose environment or org is. For callers who have shown a good
    /// credential: it tells about the lock.
    pub(super) fn unlocked_actor(&self, actor: &Actor) -> Result<(), Refusal> {
        if self.locks.map.load().is_empty() {
            return Ok(());
        }
        let [one, two, three] = lockable(actor);
        let subjects: Vec<Subject> = [one, two, three].into_iter().flatten().collect();
        self.unlocked(&subjects)
    }

    /// Fills the map from the store. Called once, before anything is served.
    pub(super) async fn load_locks(&self) -> Result<(), Refusal> {
        let mut map = Map::new();
        let mut after = None;
        loop {
            let list = keys::all_locks();
            let rows = self
                .records
                .scan::<Lock>(list.as_bytes(), after.as_ref(), MAX_SCAN);
            let rows = rows.await?;
            for (_, lock) in &rows {
                let under: &mut Vec<_> = map.entry(lock.value.target.subject()).or_default();
                under.push(Arc::clone(&lock.value));
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        self.locks.map.store(Arc::new(map));
        Ok(())
    }

    /// Removes the locks that have expired.
    pub(super) async fn collect_locks(self: &Arc<Self>) -> Result<(), Refusal> {
        let map = self.locks.map.load_full();
        for lock in map.values().flatten().filter(|lock| !lock.holds(self.now())) {
            let record = Record::new(Action::LockRemove, "broker", Some(lock.org))
                .about("lock", lock.id)
                .about("subject", lock.target)
                .about("expired", true);
            self.take_lock(Arc::clone(lock), None, record).await?;
        }
        Ok(())
    }

    /// Removes the locks of an agent that has ended and is removed.
    pub(super) async fn collect_locks_of(self: &Arc<Self>, agent: AgentId) -> Result<(), Refusal> {
        let map = self.locks.map.load_full();
        for lock in map.get(agent.as_bytes()).into_iter().flatten() {
            let record = Record::new(Action::LockRemove, "broker", Some(lock.org))
                .about("lock", lock.id)
                .about("subject", lock.target)
                .about("collected", true);
            self.take_lock(Arc::clone(lock), None, record).await?;
        }
        Ok(())
    }

    /// What a request means, where the call reaches it.
    async fn lock_target(
        &self,
        caller: &Caller,
        place: &Place,
        target: LockRef<'_>,
    ) -> Result<LockTarget, Refusal> {
        let org = place.id();
        if matches!(caller.actor(), Actor::ApiKey { .. }) && !matches!(target, LockRef::Agent(_)) {
            let message = "an API key locks agents, and nothing else";
            return Err(Refusal::new(Reason::PermissionDenied, message));
        }
        Ok(match target {
            LockRef::Agent(text) => {
                let missing = || Refusal::not_found("agent");
                let key = keys::agent(org, parse_id("agent", text)?);
                let stored: Stored<Agent> = self.records.get(&key).await?.ok_or_else(missing)?;
                if !self.reaches(place, stored.value.environment).await? {
                    return Err(missing());
                }
                LockTarget::Agent(stored.value.id)
            }
            LockRef::Member(text) => {
                let id = self.member(org, text).await?.value.id;
                place.admit("member", None, Some(id))?;
                LockTarget::Member(id)
            }
            LockRef::Credential(text) => {
                let stored: Stored<Credential> = self.credential(org, parse_id("credential", text)?).await?;
                place.admit("credential", None, stored.value.owner.member())?;
                LockTarget::Credential(stored.value.id)
            }
            LockRef::Environment { project, environment } => {
                let stored = self.environment(org, project, environment).await?;
                place.admit("environment", Some(stored.value.project), None)?;
                LockTarget::Environment(stored.value.id)
            }
            LockRef::Org if place.within.is_whole() => LockTarget::Org(org),
            LockRef::Org => {
                let message = "locking an org takes a role for the whole of it";
                return Err(Refusal::new(Reason::PermissionDenied, message));
            }
        })
    }

    /// Locks something until it is unlocked or the time is over. When this returns, no later request that the
    /// lock stops succeeds, and the streams of who it stops have ended.
    pub async fn create_lock(self: &Arc<Self>, caller: &Caller, new: NewLock<'_>) -> Result<Locked, Refusal> {
        let place = self.place(caller, new.org).await?;
        let org = place.id();
        let target = self.lock_target(caller, &place, new.target).await?;
        if new.message.chars().count() > MAX_MESSAGE || new.message.chars().any(char::is_control) {
            let message = "message is at most 256 characters, none of them control characters";
            return Err(Refusal::invalid("message", message));
        }
        let ttl = match new.ttl {
            Some(_) => Some(checked_ttl(new.ttl, TTL_MAX, TTL_MAX)?),
            None => None,
        };
        let subject = target.subject();
        let seconds = ttl.map_or(0, |ttl| ttl.as_secs()).to_be_bytes();
        let content: [&[u8]; 3] = [&subject, new.message.as_bytes(), &seconds];
        let create = Repeatable {
            caller,
            call: "lock",
            request_id: new.request_id,
            content: &content,
        };
        let lock = match self.made_before::<crate::domain::id::Lock>(org, create).await? {
            Some(id) => self.read::<Lock>(&keys::lock(org, id), "lock").await?.value,
            None => {
                // Automation leaves room for people, and those who run the broker always get their lock.
                let most = match caller.actor() {
                    _ if caller.reach().is_everywhere() => usize::MAX,
                    Actor::ApiKey { .. } => MAX_PER_ORG / 2,
                    _ => MAX_PER_ORG,
                };
                if self.locks.of_org(org) >= most {
                    let message =
                        "the org has as many locks as it may: lock its environments or the org itself";
                    return Err(Refusal::new(Reason::Overloaded, message));
                }
                let now = self.now();
                let lock = Arc::new(Lock {
                    id: self.new_id()?,
                    org,
                    target,
                    message: new.message.to_owned(),
                    by: caller.to_string(),
                    by_system: caller.reach().is_everywhere(),
                    created: now,
                    expires: ttl.map(|ttl| now + ttl),
                });
                let changes = self.remember(Changes::default(), org, create, lock.id);
                let record = caller.record(Action::LockCreate, Some(org));
                self.put_lock(Arc::clone(&lock), record.request(new.request_id), changes)
                    .await?;
                lock
            }
        };
        // The lock is in force. What it cannot stop is listed as far as it can be read.
        let outstanding = self.outstanding_of(org, lock.target, Kept::WhileLocked).await?;
        Ok(Locked { lock, outstanding })
    }

    /// Locks an agent on the broker's own account, as when a copy of it was seen. Locking again what the broker
    /// has locked changes nothing.
    pub async fn lock_agent(
        self: &Arc<Self>,
        org: OrgId,
        agent: AgentId,
        message: &str,
    ) -> Result<Arc<Lock>, Refusal> {
        let by = "broker";
        let target = LockTarget::Agent(agent);
        let standing = self.locks.map.load().get(&target.subject()).and_then(|locks| {
            let own = locks.iter().find(|lock| lock.by == by && lock.holds(self.now()));
            own.map(Arc::clone)
        });
        if let Some(standing) = standing {
            return Ok(standing);
        }
        let lock = Arc::new(Lock {
            id: self.new_id()?,
            org,
            target,
            message: message.to_owned(),
            by: by.to_owned(),
            by_system: false,
            created: self.now(),
            expires: None,
        });
        let record = Record::new(Action::LockCreate, by, Some(org));
        self.put_lock(Arc::clone(&lock), record, Changes::default())
            .await?;
        Ok(lock)
    }

    /// Stores a lock and puts it in force. Goes to its end even when the caller goes away: a lock that is stored
    /// and not in force would be no lock.
    async fn put_lock(
        self: &Arc<Self>,
        lock: Arc<Lock>,
        record: Record,
        changes: Changes,
    ) -> Result<(), Refusal> {
        let key = keys::lock(lock.org, lock.id);
        let changes = changes.absent(&key).put(&key, &*lock);
        let record = record.about("lock", lock.id).about("subject", lock.target);
        let (arrived, broker) = (self.arrived(), Arc::clone(self));
        detached(async move {
            let _one = broker.locks.changing.lock().await;
            broker.effect(record, changes).await?;
            broker.locks.add(&lock);
            broker.denied_from_now(lock.target.subject(), &lock.refusal(), arrived);
            // It is locked: that its project cannot be read must not keep anybody from being told.
            if let Ok(Some(locked)) = broker.ended(lock.org, lock.target).await {
                broker.publish(Notice::ended(lock.org, locked, Reason::Locked, true));
            }
            Ok(())
        })
        .await
    }

    /// The target of a lock, as watchers are told of it.
    async fn ended(&self, org: OrgId, target: LockTarget) -> Result<Option<Ended>, Refusal> {
        Ok(match target {
            LockTarget::Org(_) => Some(Ended::Org),
            LockTarget::Member(id) => Some(Ended::Member(id)),
            LockTarget::Credential(id) => {
                let stored = self.records.get::<Credential>(&keys::credential(org, id)).await?;
                stored.map(|stored| Ended::Credential(id, stored.value.owner))
            }
            LockTarget::Environment(id) => {
                let project = self.project_of(org, id).await?;
                project.map(|project| Ended::Environment(id, project))
            }
            LockTarget::Agent(id) => {
                let stored = self.records.get::<Agent>(&keys::agent(org, id)).await?;
                let project = match stored {
                    Some(agent) => self.project_of(org, agent.value.environment).await?,
                    None => None,
                };
                Some(Ended::Agent(id, project))
            }
        })
    }

    /// The org's locks, those that expired lately among them.
    pub async fn list_locks(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<Stored<Lock>>, Refusal> {
        let org = self.org_id(caller, org).await?;
        self.page::<Lock>(&keys::locks(org), page).await
    }

    /// Removes a lock. What it stopped goes on.
    pub async fn remove_lock(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        lock: &str,
    ) -> Result<Arc<Lock>, Refusal> {
        let org = self.org_id(caller, org).await?;
        let id: LockId = parse_id("lock", lock)?;
        let stored: Stored<Lock> = self.read(&keys::lock(org, id), "lock").await?;
        let lock = stored.value;
        if lock.by_system && !caller.reach().is_everywhere() {
            let message = "a system admin made this lock, and only a system admin removes it";
            return Err(Refusal::new(Reason::PermissionDenied, message).with("lock", id.to_string()));
        }
        let record = caller
            .record(Action::LockRemove, Some(org))
            .about("lock", id)
            .about("subject", lock.target);
        self.take_lock(Arc::clone(&lock), Some(stored.revision), record)
            .await?;
        Ok(lock)
    }

    async fn take_lock(
        self: &Arc<Self>,
        lock: Arc<Lock>,
        revision: Option<Revision>,
        record: Record,
    ) -> Result<(), Refusal> {
        let key = keys::lock(lock.org, lock.id);
        let mut changes = Changes::default().delete::<Lock>(&key);
        if let Some(revision) = revision {
            changes = changes.at(&key, revision);
        }
        let broker = Arc::clone(self);
        detached(async move {
            let _one = broker.locks.changing.lock().await;
            match broker.effect(record, changes).await {
                Ok(_) => broker.locks.remove(&lock),
                // Somebody else was faster.
                Err(Undone::Conflict) => return Err(Refusal::not_found("lock")),
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
            Ok(())
        })
        .await
    }
}
