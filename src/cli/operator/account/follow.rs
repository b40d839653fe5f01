//! How a connection goes, as the broker tells it: the stream is opened anew where it breaks.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::proto;
use crate::proto::watch_connection_response::Event;

/// How often in a row it is tried, and how long it rests in between: a broker that restarts is waited for.
const TRIES: u32 = 30;
const REST: Duration = Duration::from_secs(2);
/// A stream on which nothing comes for so long, no heartbeat either, is broken.
const SILENCE: Duration = Duration::from_secs(120);

/// The connections' states as they come, the last of them an ended one.
pub(super) struct Following {
    states: mpsc::Receiver<Result<proto::Connection, Failure>>,
    _task: AbortOnDropHandle<()>,
}

impl Following {
    /// Follows a connection.
    pub(super) fn begin(session: &Session, org: &str, connection: &str) -> Self {
        let (sender, states) = mpsc::channel(8);
        let request = proto::WatchConnectionRequest {
            org: org.to_owned(),
            connection: connection.to_owned(),
        };
        let task = tokio::spawn(follow(session.clone(), request, sender));
        Self {
            states,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next state. Safe to give up waiting for.
    pub(super) async fn next(&mut self) -> Result<proto::Connection, Failure> {
        let lost = || {
            Err(Failure::new(
                Kind::Internal,
                "the watch of the connection was lost",
            ))
        };
        self.states.recv().await.unwrap_or_else(lost)
    }
}

/// Whether a connection goes on.
pub(super) fn is_open(connection: &proto::Connection) -> bool {
    matches!(
        connection.state(),
        proto::ConnectionState::Waiting | proto::ConnectionState::Exchanging
    )
}

async fn follow(
    session: Session,
    request: proto::WatchConnectionRequest,
    sender: mpsc::Sender<Result<proto::Connection, Failure>>,
) {
    let mut tries = 0;
    loop {
        let broken = match once(&session, &request, &sender, &mut tries).await {
            Ok(()) => return,
            Err(broken) => broken,
        };
        tries += 1;
        let passing = matches!(
            broken.code(),
            Code::Unavailable
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
        );
        if !passing || tries > TRIES {
            // Who does not listen any more has ended.
            let _ = sender.send(Err(session.failure(broken))).await;
            return;
        }
        tokio::time::sleep(REST).await;
    }
}

/// One stream to its end; `Err`: it broke.
async fn once(
    session: &Session,
    request: &proto::WatchConnectionRequest,
    sender: &mpsc::Sender<Result<proto::Connection, Failure>>,
    tries: &mut u32,
) -> Result<(), Status> {
    let answer = session
        .account_watches()
        .watch_connection(request.clone())
        .await?;
    let mut stream = answer.into_inner();
    loop {
        let message = tokio::time::timeout(SILENCE, stream.message()).await;
        let message = message.map_err(|_| Status::unavailable("the stream is silent"))??;
        let message = message.ok_or_else(|| Status::unavailable("the stream ended too early"))?;
        *tries = 0;
        let (connection, last) = match message.event {
            Some(Event::Progress(connection)) => (connection, false),
            Some(Event::Completion(connection)) => (connection, true),
            Some(Event::Heartbeat(_)) | None => continue,
        };
        if sender.send(Ok(connection)).await.is_err() || last {
            return Ok(());
        }
    }
}
