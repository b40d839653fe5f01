//! What a crash left of connections, and what is removed of them in time.

use std::sync::Arc;

use super::ended;
use crate::domain::connection::{Begun, Connection, KEPT, Phase};
use crate::domain::id::{ConnectionId, OrgId};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::model::{Mark, StagedAnswer};
use crate::store::record::Changes;
use crate::store::{MAX_SCAN, keys};

/// How many connections one commit removes.
const AT_ONCE: usize = 25;

impl Broker {
    /// Takes up what the last run left under way: stored answers are read, device flows waited for, and a code that was
    /// sent and not answered has failed. Nothing of it keeps the broker from starting.
    pub(in crate::service) async fn resume_connections(self: &Arc<Self>) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let rows = self
                .records
                .scan::<Mark>(keys::all_connecting().as_bytes(), after.as_ref(), MAX_SCAN)
                .await?;
            for (key, _) in &rows {
                let Some((org, id)) = keys::connecting_ids(key) else {
                    continue;
                };
                let resumed = match self.connection(org, id).await {
                    Ok(stored) => self.resume_connection(stored.value).await,
                    Err(refusal) => Err(refusal),
                };
                if let Err(refusal) = resumed {
                    tracing::warn!(connection = %id, %refusal, "a connection that was under way was not taken up");
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    async fn resume_connection(self: &Arc<Self>, connection: Arc<Connection>) -> Result<(), Refusal> {
        let lost = |message: &str| (Reason::ConnectionLost, message.to_owned());
        let (reason, message) = match connection.phase {
            Phase::Preparing => lost("the broker was restarted while it was begun"),
            Phase::Exchanging => lost("the broker was restarted while the code was being exchanged"),
            Phase::Staged => {
                self.keep_at(&connection);
                return Ok(());
            }
            Phase::Waiting if connection.is_device() => {
                match Arc::clone(&self.connecting.polled).try_acquire_owned() {
                    Ok(place) => {
                        tokio::spawn(self.polling(connection, place));
                        return Ok(());
                    }
                    Err(_) => lost("as many device flows are waited for as may be at once"),
                }
            }
            Phase::Waiting
            | Phase::Connected { .. }
            | Phase::Failed { .. }
            | Phase::Cancelled
            | Phase::Expired => return Ok(()),
        };
        match self.fail_connection(&connection, reason, message).await {
            // That it failed is what was wanted.
            Err(refusal) if refusal.reason == reason => Ok(()),
            other => {
                self.keep_at(&connection);
                other.map(drop)
            }
        }
    }

    /// Removes an org's connections that ended long enough ago.
    pub(in crate::service) async fn collect_connections(&self, org: OrgId) -> Result<(), Refusal> {
        let (list, mut after) = (keys::connections(org), None);
        loop {
            let rows = self
                .records
                .scan::<Connection>(list.as_bytes(), after.as_ref(), AT_ONCE)
                .await?;
            let now = self.now();
            let mut changes = Changes::default();
            let mut any = false;
            for (key, stored) in &rows {
                let over = stored.value.standing(now).is_over() && now >= stored.value.end() + KEPT;
                if over {
                    any = true;
                    changes = changes.at(key, stored.revision).delete::<Connection>(key);
                    changes = ended(changes, org, stored.value.id);
                }
            }
            if any {
                // One that was begun anew meanwhile stays, and the others with it until the next time.
                let _applied = self.records.commit(changes).await?;
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Removes what is kept of a removed member's connections.
    pub(in crate::service) async fn forget_connections(
        &self,
        org: OrgId,
        member: crate::domain::id::MemberId,
    ) -> Result<(), Refusal> {
        let key = keys::connections_of(org, member);
        // Nothing is begun for a member who is being removed: what is read here is all there is.
        let Some(begun) = self.records.get::<Begun>(&key).await? else {
            return Ok(());
        };
        // One a commit: a stored answer alone is many keys.
        for id in &begun.value.ids {
            self.give_back_staged(org, *id).await?;
            let changes = ended(Changes::default(), org, *id)
                .delete::<Connection>(&keys::connection(org, *id))
                .delete::<StagedAnswer>(&keys::connection_answer(org, *id));
            let _applied = self.records.commit(changes).await?;
        }
        let changes = Changes::default().at(&key, begun.revision).delete::<Begun>(&key);
        let _applied = self.records.commit(changes).await?;
        for id in &begun.value.ids {
            self.connecting.changed(*id);
        }
        Ok(())
    }

    /// Puts up for revocation what a stored answer granted that nobody takes in any more.
    async fn give_back_staged(&self, org: OrgId, id: ConnectionId) -> Result<(), Refusal> {
        let Some(connection) = self.records.get::<Connection>(&keys::connection(org, id)).await? else {
            return Ok(());
        };
        if connection.value.phase == Phase::Staged {
            let key = keys::connection_answer(org, id);
            if let Some(answer) = self.records.get::<StagedAnswer>(&key).await? {
                self.unwanted(&connection.value, &answer.value).await;
            }
        }
        Ok(())
    }
}
