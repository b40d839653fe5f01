//! An open watch, as a test reads it.

use std::time::Duration;

use credbroker::proto;
use credbroker::proto::watch_event::Event;
use tonic::{Status, Streaming};

use super::client::Caller;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open watch.
pub struct Watching {
    messages: Streaming<proto::WatchResponse>,
    /// Of the last message.
    pub cursor: String,
}

impl Caller {
    /// Opens a watch, from now on, and waits until it is open.
    pub async fn watch(&self) -> Watching {
        let mut watching = self.watch_from("").await.unwrap();
        let first = watching.message().await.unwrap();
        assert!(matches!(first, Event::Heartbeat(_)), "{first:?}");
        watching
    }

    /// Asks for a watch that goes on after `cursor`.
    pub async fn watch_from(&self, cursor: &str) -> Result<Watching, Status> {
        self.watch_org(cursor, "").await
    }

    pub async fn watch_org(&self, cursor: &str, org: &str) -> Result<Watching, Status> {
        let request = proto::WatchRequest {
            cursor: cursor.to_owned(),
            org: org.to_owned(),
        };
        let messages = self.watches().watch(request).await?.into_inner();
        Ok(Watching {
            messages,
            cursor: String::new(),
        })
    }
}

impl Watching {
    /// The next message, whatever it says.
    pub async fn message(&mut self) -> Result<Event, Status> {
        let message = tokio::time::timeout(PATIENCE, self.messages.message()).await;
        let message = message.expect("nothing came")?;
        let event = message
            .expect("a watch does not end without a reason")
            .event
            .unwrap();
        assert!(event.time.is_some() && !event.cursor.is_empty());
        self.cursor = event.cursor;
        Ok(event.event.unwrap())
    }

    /// The next message that is no heartbeat.
    pub async fn event(&mut self) -> Result<Event, Status> {
        loop {
            match self.message().await? {
                Event::Heartbeat(_) => {}
                event => return Ok(event),
            }
        }
    }

    /// The next event, which has to be a rotation: credential and generation.
    pub async fn rotated(&mut self) -> (String, u64) {
        match self.event().await.unwrap() {
            Event::CredentialRotated(rotated) => (rotated.credential, rotated.generation),
            other => panic!("{other:?}"),
        }
    }

    /// The next event, which has to be a change of policy: its version.
    pub async fn policy(&mut self) -> u64 {
        match self.event().await.unwrap() {
            Event::PolicyChanged(changed) => changed.policy_version,
            other => panic!("{other:?}"),
        }
    }

    /// The next event, which has to be an end: what ended, and the reason.
    pub async fn ended(&mut self) -> (String, String) {
        match self.event().await.unwrap() {
            Event::AccessEnded(ended) => (ended.subject, ended.reason),
            other => panic!("{other:?}"),
        }
    }

    /// Why the watch ends, heartbeats left out.
    pub async fn end(&mut self) -> Status {
        match self.event().await {
            Err(status) => status,
            Ok(event) => panic!("{event:?}"),
        }
    }
}
