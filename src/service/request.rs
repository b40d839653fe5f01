//! Creates that are safe to repeat: what a request id made is remembered for the rest of its UTC day and
//! the next (AIP-155).

use ring::digest::{Context, SHA256};

use super::Broker;
use crate::domain::actor::Caller;
use crate::domain::id::{Id, Kind, OrgId};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::time::Time;
use crate::store::record::Changes;
use crate::store::{keys, model::RequestOutcome};

/// A create, as far as telling a repeat from a new one needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeatable<'a> {
    pub(super) caller: &'a Caller,
    pub(super) call: &'static str,
    /// From the request; empty: the create is not safe to repeat.
    pub(super) request_id: &'a str,
    /// Everything that makes two requests the same.
    pub(super) content: &'a [&'a [u8]],
}

const DAY_MILLIS: i64 = 86_400_000;

/// The UTC day, counted from the epoch.
pub(super) fn day(now: Time) -> u32 {
    u32::try_from(now.millis().div_euclid(DAY_MILLIS)).unwrap_or(0)
}

impl Repeatable<'_> {
    /// A request id, where there is one, is a UUID.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if !self.request_id.is_empty() && uuid::Uuid::try_parse(self.request_id).is_err() {
            return Err(Refusal::invalid("request_id", "request_id is a UUID"));
        }
        Ok(())
    }

    fn key_hash(&self) -> [u8; 32] {
        let caller = self.caller.to_string();
        digest(&[
            caller.as_bytes(),
            self.call.as_bytes(),
            self.request_id.to_ascii_lowercase().as_bytes(),
        ])
    }
}

/// SHA-256 over the parts, each with its length, so that no two lists of parts collide.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl Broker {
    /// The id that this very create made before, if it did.
    pub(super) async fn made_before<K: Kind>(
        &self,
        org: OrgId,
        create: Repeatable<'_>,
    ) -> Result<Option<Id<K>>, Refusal> {
        if create.request_id.is_empty() {
            return Ok(None);
        }
        create.check()?;
        let today = day(self.now());
        for day in [today, today.saturating_sub(1)] {
            let key = keys::request(org, day, &create.key_hash());
            let Some(outcome) = self.records.get::<RequestOutcome>(&key).await? else {
                continue;
            };
            if *outcome.value.content != digest(create.content) {
                return Err(Refusal {
                    field: Some("request_id"),
                    ..Refusal::new(
                        Reason::RequestIdReused,
                        "this request_id made something else before",
                    )
                });
            }
            return Ok(Some(Id::from_bytes(*outcome.value.id)));
        }
        Ok(None)
    }

    /// Adds to `changes` that this create made `id`.
    pub(super) fn remember<K: Kind>(
        &self,
        changes: Changes,
        org: OrgId,
        create: Repeatable<'_>,
        id: Id<K>,
    ) -> Changes {
        if create.request_id.is_empty() {
            return changes;
        }
        let now = self.now();
        let key = keys::request(org, day(now), &create.key_hash());
        let outcome = RequestOutcome {
            content: digest(create.content).into(),
            id: (*id.as_bytes()).into(),
            at: now,
        };
        changes.absent(&key).put(&key, &outcome)
    }

    pub(super) async fn collect_requests(&self, org: OrgId, today: u32) -> Result<(), Refusal> {
        let first_kept = keys::request(org, today.saturating_sub(1), &[0; 32]);
        loop {
            let rows = self
                .records
                .scan::<RequestOutcome>(keys::requests(org).as_bytes(), None, 100)
                .await?;
            let mut changes = Changes::default();
            let old: Vec<_> = rows.iter().filter(|(key, _)| *key < first_kept).collect();
            if old.is_empty() {
                return Ok(());
            }
            for (key, _) in old {
                changes = changes.delete::<RequestOutcome>(key);
            }
            let _applied = self.records.commit(changes).await?;
        }
    }
}
