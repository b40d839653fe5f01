//! The store: the contract of [`Kv`] over a map that outlives the broker, with lags, full queues and crashes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use credbroker::store::watch::{Watch, WatchError};
use credbroker::store::{Batch, Commit, Entry, Guard, Kv, Revision, StoreError, Versioned, Write};

use crate::world::{Point, World};

/// What is durable.
#[derive(Clone, Default)]
pub struct Disk {
    pub rows: BTreeMap<Vec<u8>, Versioned>,
    pub revision: u64,
}

impl Disk {
    fn get(&self, key: &[u8]) -> Option<Versioned> {
        self.rows.get(key).cloned()
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Entry> {
        self.rows
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after))
            .take(limit)
            .map(|(key, stored)| Entry {
                key: key.clone(),
                value: stored.value.clone(),
                revision: stored.revision,
            })
            .collect()
    }

    fn commit(&mut self, batch: &Batch) -> Commit {
        let holds = batch.guards.iter().all(|guard| match guard {
            Guard::Absent(key) => !self.rows.contains_key(key),
            Guard::At(key, revision) => self.rows.get(key).is_some_and(|row| row.revision == *revision),
        });
        if !holds {
            return Commit::Conflict;
        }
        self.revision += 1;
        let revision = Revision(self.revision);
        for write in &batch.writes {
            match write {
                Write::Put(key, value) => {
                    let value = value.clone();
                    self.rows.insert(key.clone(), Versioned { value, revision });
                }
                Write::Delete(key) => {
                    self.rows.remove(key);
                }
            }
        }
        Commit::Applied(revision)
    }
}

/// The broker's store.
pub struct SimKv(pub Arc<World>);

#[async_trait]
impl Kv for SimKv {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.0.lag(4).await;
        let found = self.0.disk.lock().unwrap().get(key);
        self.0.lag(4).await;
        Ok(found)
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.0.lag(4).await;
        let found = self.0.disk.lock().unwrap().scan(prefix, after, limit);
        self.0.lag(4).await;
        Ok(found)
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        batch.check()?;
        let world = &self.0;
        world.lag(20).await;
        if world.with(|state| state.store_is_full()) {
            return Err(StoreError::Overloaded);
        }
        let part = world.part_of(&batch);
        world.point(Point::BeforeCommit(part)).await;
        let commit = world.disk.lock().unwrap().commit(&batch);
        if let Commit::Applied(_) = commit {
            world.committed(part);
        }
        world.point(Point::AfterCommit(part)).await;
        world.lag(10).await;
        world.acknowledged(part);
        Ok(commit)
    }

    fn watch(&self, _: &[u8], _: Option<Revision>) -> Result<Watch, WatchError> {
        Err(WatchError::Closed)
    }

    fn healthy(&self) -> bool {
        true
    }
}

/// The same map, read at once: for those who check.
pub struct Glance(pub Arc<Mutex<Disk>>);

#[async_trait]
impl Kv for Glance {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        Ok(self.0.lock().unwrap().get(key))
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        Ok(self.0.lock().unwrap().scan(prefix, after, limit))
    }

    async fn commit(&self, _: Batch) -> Result<Commit, StoreError> {
        Err(StoreError::Closed)
    }

    fn watch(&self, _: &[u8], _: Option<Revision>) -> Result<Watch, WatchError> {
        Err(WatchError::Closed)
    }

    fn healthy(&self) -> bool {
        true
    }
}
