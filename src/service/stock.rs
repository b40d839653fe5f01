//! How many credentials there are of each health and kind, for the metrics.
//!
//! Health passes with time as well as by events, so it is counted: over and over, in the background, a few records a
//! step with rests between them, so that counting takes at most a tenth of a core however many credentials there are.
//! A scrape reads what the last pass found, and how long ago that was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Broker;
use super::sweep::unhex;
use crate::domain::credential::{Credential, Health};
use crate::domain::directory::Org;
use crate::domain::mode::CredentialKind;
use crate::domain::refusal::Refusal;
use crate::store::StoreError;
use crate::store::keys::{self, Key};
use crate::store::record::{Record, Stored};

/// From the end of a pass to the beginning of the next.
const REST: Duration = Duration::from_secs(10);
/// How many records are read a step.
const STEP: usize = 200;
/// How much longer than a step took is rested after it.
const IDLE: u32 = 9;

/// When the last pass ended, on the clock that only goes forward.
#[derive(Default)]
pub(super) struct Stock(Mutex<Option<Duration>>);

type Counts = HashMap<(Health, CredentialKind), u64>;

impl Broker {
    /// Counts, pass after pass, until `stopping`.
    pub async fn keep_counting_credentials(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            let pass = async {
                if let Err(refusal) = self.count_credentials().await {
                    tracing::warn!(%refusal, "the credentials could not be counted");
                }
                tokio::time::sleep(REST).await;
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = pass => {}
            }
        }
    }

    /// One pass: from its end on the metrics have what it found.
    pub async fn count_credentials(&self) -> Result<(), Refusal> {
        let (mut counts, mut org) = (Counts::new(), None);
        while let Some((key, stored)) = self.step::<Org>(&keys::orgs(), org.take(), 1).await?.pop() {
            let (list, mut after) = (keys::credentials(stored.value.id), None);
            loop {
                let began = self.clock.monotonic();
                let rows = self.step::<Credential>(&list, after.take(), STEP).await?;
                for (_, credential) in &rows {
                    let health = self.health(&credential.value);
                    *counts.entry((health, credential.value.kind)).or_default() += 1;
                }
                let Some((last, _)) = rows.into_iter().last() else {
                    break;
                };
                after = Some(last);
                let took = self.clock.monotonic().saturating_sub(began);
                tokio::time::sleep(took.saturating_mul(IDLE).min(REST)).await;
            }
            org = Some(key);
        }
        for health in Health::WORST_FIRST {
            for kind in CredentialKind::ALL {
                let count = counts.get(&(health, kind)).copied().unwrap_or(0);
                self.metrics.credentials(health, kind, count);
            }
        }
        *self.stock.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.monotonic());
        Ok(())
    }

    /// How long ago the credentials were counted; since the start where they were not yet.
    pub(super) fn credentials_counted_ago(&self) -> Duration {
        let last = *self.stock.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock
            .monotonic()
            .saturating_sub(last.unwrap_or(self.started))
    }

    /// The next rows of a list, none at its end. A damaged one is passed over, and no other with it: those before it are
    /// read again one by one, as reading them together tells nothing but the damage.
    async fn step<T: Record>(
        &self,
        list: &Key,
        mut after: Option<Key>,
        rows: usize,
    ) -> Result<Vec<(Key, Stored<T>)>, Refusal> {
        let (mut found, mut at_once) = (Vec::new(), rows);
        loop {
            let read = self
                .records
                .scan::<T>(list.as_bytes(), after.as_ref(), at_once)
                .await;
            let damaged = match &read {
                Err(StoreError::Damaged { key } | StoreError::Malformed { key }) => unhex(key),
                _ => None,
            };
            match damaged {
                // Only ever onwards.
                Some(key) if Some(&key) > after.as_ref() => {
                    if at_once > 1 {
                        at_once = 1;
                    } else if found.is_empty() {
                        (after, at_once) = (Some(key), rows);
                    } else {
                        // The next step begins at the damaged one.
                        return Ok(found);
                    }
                }
                _ => {
                    let read = read?;
                    after = read.last().map(|(key, _)| key.clone());
                    found.extend(read);
                    if after.is_none() || at_once == rows || found.len() >= rows {
                        return Ok(found);
                    }
                }
            }
        }
    }
}
