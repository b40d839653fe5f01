//! `GET /metrics` over plain HTTP, for a scraper on the same machine. Nothing else is served there.
//!
//! Off unless `metrics.listen` names an address. What a peer can hold is bounded: a few connections at a time,
//! one request each, a short head, a short time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::service::Broker;

const CONNECTIONS: usize = 8;
const TIME: Duration = Duration::from_secs(5);
const MAX_HEAD: usize = 8 * 1024;
/// How much more of a request is read and dropped once it was answered.
const MAX_REST: usize = 64 * 1024;
/// How long to wait after `accept` failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers scrapers on `listener` until `stopping`.
pub(super) async fn serve(listener: TcpListener, broker: Arc<Broker>, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((peer, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // One too many is closed.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            // A scraper that goes away has nobody to be told.
            let _ended = tokio::time::timeout(TIME, answer(peer, || broker.metrics_text())).await;
            drop(place);
        });
    }
}

async fn answer<F>(mut peer: TcpStream, text: impl FnOnce() -> F) -> std::io::Result<()>
where
    F: Future<Output = String>,
{
    let response = match head(&mut peer).await? {
        Some(head) => match head.split(' ').collect::<Vec<_>>()[..] {
            ["GET", "/metrics", version] if version.starts_with("HTTP/1.") => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response("200 OK", kind, &text().await)
            }
            ["GET", ..] => response("404 Not Found", "text/plain", "only /metrics is here\n"),
            [_, _, version] if version.starts_with("HTTP/1.") => {
                response("405 Method Not Allowed", "text/plain", "only GET is taken\n")
            }
            _ => response("400 Bad Request", "text/plain", "this is no HTTP/1.1 request\n"),
        },
        None => response(
            "431 Request Header Fields Too Large",
            "text/plain",
            "the request is too long\n",
        ),
    };
    peer.write_all(response.as_bytes()).await?;
    peer.shutdown().await?;
    // What is still on its way is read: closing over it would reset the connection under the answer.
    let (mut rest, mut part) = (MAX_REST, [0; 1024]);
    while rest > 0 {
        match peer.read(&mut part).await? {
            0 => return Ok(()),
            read => rest = rest.saturating_sub(read),
        }
    }
    Ok(())
}

/// The request line, once the whole head is in; `None` where that is longer than taken.
async fn head(peer: &mut TcpStream) -> std::io::Result<Option<String>> {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = peer.read(&mut part).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&part[..read]);
        if head.len() > MAX_HEAD {
            return Ok(None);
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

fn response(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
