//! Revoking at the provider what an account had, once the account is gone from here.
//!
//! A [`Revocation`] is committed together with what it is about: with the removal of the credential, or with whatever
//! else leaves a grant to be withdrawn. From then on it is in the store's queue, which is ordered by when each is to be
//! tried next, and it leaves that queue only when it has ended. So no crash loses one; a try that a crash cut short is
//! made again, which does no harm (RFC 7009 section 2.2). What a token became is written down before the next one is
//! asked about, and the token wiped with it.
//!
//! Nothing of the queue is in memory but what is under way, and what could not be tried here at all ([`rest`]). None is
//! begun in the background while [`IN_BACKGROUND`] are under way that nobody waits for, or [`FOR_EACH`] of the same
//! connector, so that a provider that hangs does not hold up the others.

mod attempt;
mod read;
mod rest;
mod tokens;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::chance::Chance;
use super::refresh::Jitter;
use super::{Broker, random_bytes};
use crate::clock::Clock;
use crate::domain::credential::Credential;
use crate::domain::id::{CredentialId, Id, MemberId, OrgId, RevocationId};
use crate::domain::refusal::Refusal;
use crate::domain::revocation::{Revocation, RevokedToken};
use crate::domain::time::Time;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::store::keys::Key;
use crate::store::model::{Pointer, RevocationDue, RevocationSecret};
use crate::store::record::{Changes, Records};
use crate::store::{MAX_SCAN, keys};
use crate::upstream::connector::load::Connectors;
use crate::upstream::http::HttpTokenEndpoint;
use rest::Resting;
pub(super) use tokens::{Tokens, told};

/// How many tries run at once that nobody waits for.
const IN_BACKGROUND: usize = 8;
/// How many of one connector are under way, callers' too, when none of it is begun in the background.
const FOR_EACH: usize = 2;
/// How many tries that callers wait for run at once. Past it, they wait for one in the background.
const AT_ONCE: usize = 8;
/// How many of the queue are read at once.
const LOOKED_AT: usize = 256;
/// How many times [`LOOKED_AT`] one turn reads, past those that have to wait for their connector. The next turn goes on
/// from there.
const PAGES: usize = 16;
/// How often it is looked what is due while anything is in the queue, and while nothing is: then whoever adds to it says
/// so.
const TICK: Duration = Duration::from_secs(1);
/// See [`TICK`].
const IDLE: Duration = Duration::from_secs(60);
/// How long a stop waits for what is under way.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the engine is made of.
pub(super) struct Parts {
    pub records: Arc<Records>,
    pub journal: Journal,
    pub clock: Arc<dyn Clock>,
    pub connectors: Arc<Connectors>,
    pub oauth: Arc<HttpTokenEndpoint>,
    pub metrics: Arc<Metrics>,
    pub jitter: Jitter,
}

/// The engine.
pub struct Revoker {
    parts: Parts,
    chance: Chance,
    /// What is being tried.
    under_way: Mutex<BTreeMap<RevocationId, Try>>,
    resting: Resting,
    at_once: Arc<Semaphore>,
    woken: Notify,
    /// Counts what was written down, for those who wait.
    told: watch::Sender<u64>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// A try that is under way.
struct Try {
    connector: String,
    /// Whether a caller waits for it.
    awaited: bool,
}

/// What a place in the queue says of those after it.
enum Look {
    /// Nothing.
    Next,
    /// They are for later, as this one is.
    Later,
    /// They have to wait: all places are taken.
    Full,
}

/// What is to be revoked at its provider: a grant.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The org.
    pub org: OrgId,
    /// Whose it was; `None`: the org's.
    pub member: Option<MemberId>,
    /// Its connector.
    pub connector: String,
    /// The credential that it was; `None`: none was made of it.
    pub credential: Option<CredentialId>,
}

/// Takes a try off the list of those under way, however it ends.
struct UnderWay(Arc<Revoker>, RevocationId);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.list().remove(&self.1);
    }
}

impl Revoker {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            chance: Chance::new(),
            under_way: Mutex::default(),
            resting: Resting::default(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            woken: Notify::new(),
            told: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    fn now(&self) -> Time {
        self.parts.clock.wall()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, BTreeMap<RevocationId, Try>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to `changes`, which take a credential away and leave its secret and any staged answer where they are, that
    /// what these hold is to be revoked. `tokens` is what is known of it so far.
    pub(super) fn revoking_left(
        &self,
        changes: Changes,
        credential: &Credential,
        tokens: Vec<RevokedToken>,
    ) -> Result<(Changes, Revocation), Refusal> {
        let Credential { org, id, owner, .. } = *credential;
        let subject = Subject {
            org,
            member: owner.member(),
            connector: credential.connector.clone(),
            credential: Some(id),
        };
        let revocation = Revocation {
            with_credential: true,
            ..self.begun(subject, tokens)?
        };
        let pointer = Pointer {
            id: (*revocation.id.as_bytes()).into(),
        };
        let changes = queued(changes, &revocation).put(&keys::revocation_of(org, id), &pointer);
        Ok((changes, revocation))
    }

    fn begun(&self, subject: Subject, tokens: Vec<RevokedToken>) -> Result<Revocation, Refusal> {
        let now = self.now();
        Ok(Revocation {
            id: Id::new(now, random_bytes(&self.chance)?),
            org: subject.org,
            member: subject.member,
            connector: subject.connector,
            credential: subject.credential,
            with_credential: false,
            tokens,
            attempts: 0,
            next: Some(now),
            created: now,
            ended: None,
        })
    }

    /// Has tokens revoked that came for nobody: stored though the store is busy, since nobody else has them.
    pub(super) async fn give_back(&self, subject: Subject, tokens: Tokens) -> Result<(), Refusal> {
        let (told, secret) = tokens.into_parts();
        let revocation = self.begun(subject, told)?;
        self.commit_surely(|| added(Changes::default(), &revocation, &secret))
            .await?;
        self.wake();
        Ok(())
    }

    /// Has what was added to the queue tried soon.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Tries a revocation now, for a caller who waits for it; as soon as there is a place where all are taken.
    pub(super) fn try_now(self: &Arc<Self>, revocation: &Revocation) {
        match Arc::clone(&self.at_once).try_acquire_owned() {
            Ok(place) => self.start(revocation.org, revocation.id, &revocation.connector, Some(place)),
            Err(_) => self.wake(),
        }
    }

    /// A revocation as it stands once it has ended, or when `patience` is over.
    pub(super) async fn settled(
        &self,
        revocation: &Revocation,
        patience: Duration,
    ) -> Result<Revocation, Refusal> {
        let key = keys::revocation(revocation.org, revocation.id);
        let mut told = self.told.subscribe();
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        loop {
            told.mark_unchanged();
            let stored = self.parts.records.get::<Revocation>(&key).await?;
            let now = stored.map_or_else(|| revocation.clone(), |stored| Revocation::clone(&stored.value));
            if now.ended.is_some() {
                return Ok(now);
            }
            tokio::select! {
                biased;
                () = &mut over => return Ok(now),
                changed = told.changed() => if changed.is_err() { return Ok(now) },
            }
        }
    }

    fn start(
        self: &Arc<Self>,
        org: OrgId,
        id: RevocationId,
        connector: &str,
        place: Option<OwnedSemaphorePermit>,
    ) {
        if self.tasks.is_closed() {
            return;
        }
        match self.list().entry(id) {
            Entry::Occupied(_) => return,
            Entry::Vacant(free) => free.insert(Try {
                connector: connector.to_owned(),
                awaited: place.is_some(),
            }),
        };
        let under_way = UnderWay(Arc::clone(self), id);
        let revoker = Arc::clone(self);
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = revoker.attempt(org, id) => ended,
                // Cut short it is made again.
                () = revoker.closing.cancelled() => return,
            };
            match &ended {
                Ok(()) => revoker.resting.ends(id),
                Err(refusal) => revoker.rests(id, refusal),
            }
            drop((under_way, place));
            if ended.is_ok() {
                revoker.wake();
            }
        });
    }

    /// Has one whose try failed here, and not at the provider, rest for longer each time: what is damaged stays so, and
    /// the provider is not asked for ever about what cannot be written down.
    fn rests(&self, id: RevocationId, refusal: &Refusal) {
        let pause = self.resting.begins(id, self.parts.clock.monotonic());
        tracing::warn!(revocation = %id, %refusal, pause_seconds = pause.as_secs(), "a revocation could not be tried");
    }

    /// Tries what is due, until `stopping`.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut after = None;
        loop {
            let rest = match self.turn(&mut after).await {
                Ok(false) => IDLE,
                Ok(true) => TICK,
                Err(refusal) => {
                    tracing::warn!(%refusal, "the queue of revocations cannot be read");
                    TICK
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.woken.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Begins what is due, as far as there are places, and says whether anything may be in the queue. Goes on from
    /// `after`, and leaves there where the next turn goes on; `None`: at the front.
    async fn turn(self: &Arc<Self>, after: &mut Option<Key>) -> Result<bool, Refusal> {
        let (now, mut from) = (self.now(), after.take());
        let mut any = from.is_some();
        for _ in 0..PAGES {
            let rows = self.due_after(from.as_ref()).await?;
            any |= !rows.is_empty();
            let mut later = false;
            for (key, due) in &rows {
                match self.begin_due(key, &due.value.connector, now).await {
                    Ok(Look::Full) => return Ok(any),
                    Ok(Look::Later) => later = true,
                    Ok(Look::Next) => {}
                    // One that cannot be read must not stop the others.
                    Err(refusal) => {
                        if let Some((_, _, id)) = keys::revocation_due_of(key) {
                            self.rests(id, &refusal);
                        }
                    }
                }
            }
            if later {
                return Ok(any);
            }
            let Some((last, _)) = rows.into_iter().last() else {
                return Ok(any);
            };
            from = Some(last);
        }
        *after = from;
        Ok(any)
    }

    /// Begins the try at a place of the queue, if it is due and may run now.
    async fn begin_due(self: &Arc<Self>, key: &Key, connector: &str, now: Time) -> Result<Look, Refusal> {
        let Some((next, org, id)) = keys::revocation_due_of(key) else {
            return Ok(Look::Next);
        };
        if !Revocation::is_due(next, now) {
            return Ok(Look::Later);
        }
        let (all, same, already) = {
            let list = self.list();
            let same = list.values().filter(|one| one.connector == connector).count();
            let all = list.values().filter(|one| !one.awaited).count();
            (all, same, list.contains_key(&id))
        };
        if all >= IN_BACKGROUND {
            return Ok(Look::Full);
        }
        let rests = self.resting.rests(id, self.parts.clock.monotonic());
        if already || rests || same >= FOR_EACH {
            return Ok(Look::Next);
        }
        if self.is_queued(key, next, org, id).await? {
            self.start(org, id, connector, None);
        }
        Ok(Look::Next)
    }

    /// Whether a place in the queue is that of its revocation. One that is not goes: it would be due for good.
    async fn is_queued(
        &self,
        place: &Key,
        next: Time,
        org: OrgId,
        id: RevocationId,
    ) -> Result<bool, Refusal> {
        let key = keys::revocation(org, id);
        let stored = self.parts.records.get::<Revocation>(&key).await?;
        let queued = stored.is_some_and(|stored| stored.value.next == Some(next));
        // One that moved on meanwhile has its new place already, and this one is gone with that.
        if !queued {
            let changes = Changes::default().delete::<RevocationDue>(place);
            let _applied = self.parts.records.commit(changes).await?;
        }
        Ok(queued)
    }

    /// How many revocations are in the queue; of very many, as many as one look tells.
    pub(super) async fn pending(&self) -> usize {
        let list = keys::revocations_due();
        let rows = self
            .parts
            .records
            .scan::<RevocationDue>(list.as_bytes(), None, MAX_SCAN);
        rows.await.map_or(0, |rows| rows.len())
    }

    /// Begins nothing more and waits a little for what is under way. A provider that takes longer holds no stop up: the
    /// next start asks it again.
    pub async fn drain(&self) {
        self.tasks.close();
        if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
            self.closing.cancel();
            self.tasks.wait().await;
        }
    }
}

/// Adds a revocation, its tokens and its place in the queue.
fn added(changes: Changes, revocation: &Revocation, secret: &RevocationSecret) -> Changes {
    let key = keys::revocation_secret(revocation.org, revocation.id);
    queued(changes, revocation).put(&key, secret)
}

/// Adds a revocation and its place in the queue.
fn queued(changes: Changes, revocation: &Revocation) -> Changes {
    let Revocation { org, id, .. } = *revocation;
    in_queue(changes.put(&keys::revocation(org, id), revocation), revocation)
}

/// Adds its place in the queue, where it has any.
fn in_queue(changes: Changes, revocation: &Revocation) -> Changes {
    let Some(next) = revocation.next else {
        return changes;
    };
    let due = RevocationDue {
        connector: revocation.connector.clone(),
    };
    changes.put(&keys::revocation_due(next, revocation.org, revocation.id), &due)
}

impl Broker {
    /// What revokes at providers.
    pub fn revoker(&self) -> &Arc<Revoker> {
        &self.revoker
    }
}
