//! What keeps at a connection that goes on without its member: nothing stays half done because the store or the journal
//! was busy, full or away at the wrong moment.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::domain::connection::{Connection, Phase};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;

/// The first pause; doubled each time.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

impl Broker {
    /// Has this attempt of a connection brought to its end, should nobody be at it any more: a stored answer is read, and
    /// a code that was sent or is sent by nobody has failed. Costs nothing where it has ended or waits.
    pub(super) fn keep_at(self: &Arc<Self>, connection: &Connection) {
        let broker = Arc::downgrade(self);
        tokio::spawn(keep(broker, connection.clone()));
    }

    async fn bring_on(self: &Arc<Self>, connection: &Connection) -> Result<bool, Refusal> {
        let now = match self.connection(connection.org, connection.id).await {
            Err(refusal) if refusal.reason == Reason::NotFound => return Ok(true),
            found => found?.value,
        };
        if now.attempt != connection.attempt {
            return Ok(true);
        }
        let done = match now.phase {
            Phase::Exchanging => {
                let message = "what became of the code is not known".to_owned();
                self.fail_connection(&now, Reason::ConnectionLost, message).await
            }
            Phase::Staged => self.settle_once(now).await,
            _ => return Ok(true),
        };
        match done {
            Ok(_) => Ok(true),
            // Whether that was its end shows at the next look.
            Err(refusal) => {
                tracing::debug!(connection = %connection.id, %refusal, "a connection was brought on");
                Ok(false)
            }
        }
    }
}

async fn keep(broker: Weak<Broker>, connection: Connection) {
    let mut pause = FIRST;
    loop {
        let Some(alive) = broker.upgrade() else {
            return;
        };
        let under_way = alive.connecting.under_way.clone();
        if under_way.is_closed() {
            return;
        }
        match under_way.track_future(alive.bring_on(&connection)).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(refusal) => {
                tracing::warn!(connection = %connection.id, %refusal, "a connection waits for the store");
            }
        }
        drop(alive);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}
