//! A store that a test can make refuse, wait, lose an answer or go dark.

#![allow(dead_code, unreachable_pub)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use credbroker::store::sled::SledStore;
use credbroker::store::watch::{Watch, WatchError};
use credbroker::store::{Batch, Commit, Entry, Kv, Revision, StoreError, Versioned, Write};
use tokio::sync::oneshot;

/// A store whose queue is full for some commits, and that can be made to lose an answer or to hold a reader up.
pub struct Crowded {
    pub kv: Arc<SledStore>,
    /// Commits that put a key with these bytes in it are refused, so many times.
    pub refuse: Mutex<(Vec<u8>, usize)>,
    /// The next commit that puts a key with these bytes in it says so and waits.
    pub hold: Mutex<Option<Held>>,
    /// The next scan of a prefix with these bytes in it says so and waits.
    pub hold_scan: Mutex<Option<Held>>,
    /// The next commit that puts a key with these bytes in it is made, but its answer is lost, and nothing can be
    /// read from then on.
    pub lose: Mutex<Option<Vec<u8>>>,
    pub unreadable: AtomicBool,
}

impl Crowded {
    fn readable(&self) -> Result<(), StoreError> {
        let readable = !self.unreadable.load(Ordering::SeqCst);
        readable
            .then_some(())
            .ok_or_else(|| StoreError::Failed("made to".to_owned()))
    }
}

/// Which commit is held, what tells that it is there, and what lets it go on.
pub type Held = (Vec<u8>, oneshot::Sender<()>, oneshot::Receiver<()>);

pub fn hold_at(place: &Mutex<Option<Held>>, part: &str) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
    let ((entered, is_there), (go_on, leave)) = (oneshot::channel(), oneshot::channel());
    *place.lock().unwrap() = Some((part.as_bytes().to_vec(), entered, leave));
    (is_there, go_on)
}

async fn wait(held: Option<Held>) {
    if let Some((_, entered, leave)) = held {
        entered.send(()).unwrap();
        leave.await.unwrap();
    }
}

fn contains(key: &[u8], part: &[u8]) -> bool {
    key.windows(part.len().max(1)).any(|window| window == part)
}

/// Whether the batch puts a key with `part` in it.
fn puts(batch: &Batch, part: &[u8]) -> bool {
    batch.writes.iter().any(|write| match write {
        Write::Put(key, _) => contains(key, part),
        Write::Delete(_) => false,
    })
}

#[async_trait]
impl Kv for Crowded {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.readable()?;
        self.kv.get(key).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.readable()?;
        let held = self
            .hold_scan
            .lock()
            .unwrap()
            .take_if(|(part, ..)| contains(prefix, part));
        wait(held).await;
        self.kv.scan(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, StoreError> {
        {
            let mut refuse = self.refuse.lock().unwrap();
            let (part, times) = &mut *refuse;
            if *times > 0 && puts(&batch, part) {
                *times -= 1;
                return Err(StoreError::Overloaded);
            }
        }
        let held = self.hold.lock().unwrap().take_if(|(part, ..)| puts(&batch, part));
        wait(held).await;
        let lost = self.lose.lock().unwrap().take_if(|part| puts(&batch, part));
        let answer = self.kv.commit(batch).await;
        if lost.is_some() {
            self.unreadable.store(true, Ordering::SeqCst);
            return Err(StoreError::Failed("made to".to_owned()));
        }
        answer
    }

    fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, WatchError> {
        self.kv.watch(prefix, from)
    }

    fn healthy(&self) -> bool {
        self.kv.healthy()
    }
}
