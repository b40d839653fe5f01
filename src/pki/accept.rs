//! The accept loop: TCP connections in, handshaken connections out, as the stream
//! `tonic::transport::Server::serve_with_incoming_shutdown` takes.
//!
//! What a peer can hold is bounded: the number of connections, the number of handshakes at work at once,
//! and the time from the TCP accept to the end of the handshake. A peer that has not sent its whole
//! ClientHello yet waits outside the handshake limit, so silent peers keep nobody else out until they have
//! used up the connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::connections::{Connections, Entry};
use super::identity::{IdentityError, PeerIdentity};
use super::spiffe::TrustDomain;
use super::tls::TlsConfig;

/// How long to wait after `accept` failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Handshaken connections that wait for the server to take them; more wait in their handshake task.
const READY: usize = 64;

/// What peers may hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// From the TCP accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes past their ClientHello at one time; more wait, within their time.
    pub handshakes: usize,
    /// Connections at one time, those in their handshake included; more are closed at once.
    pub connections: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes: 256,
            connections: 16_384,
        }
    }
}

/// What [`Guests::admits`] answers.
pub type Admitted = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Who is let in once a handshake has shown who it is, and who is in.
#[derive(Clone)]
pub struct Guests {
    /// The open connections of agents.
    pub connections: Arc<Connections>,
    /// Whether an agent or API key may come in at all. Asked once a connection, within the time of a handshake.
    pub admits: Arc<dyn Fn(Arc<PeerIdentity>) -> Admitted + Send + Sync>,
}

impl Guests {
    /// Lets everybody in.
    pub fn all() -> Self {
        Self {
            connections: Arc::default(),
            admits: Arc::new(|_| Box::pin(std::future::ready(true))),
        }
    }
}

/// Who is at the other end. In the extensions of every request of the connection.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The agent or API key, where the peer showed a certificate.
    pub identity: Option<Arc<PeerIdentity>>,
}

/// A connection whose handshake is done. Counts against the limit until it is dropped.
#[derive(Debug)]
pub struct Connection {
    io: TlsStream<TcpStream>,
    peer: PeerInfo,
    entry: Option<Entry>,
    _permit: OwnedSemaphorePermit,
}

/// Handshaken connections. Ends when the token given to [`listen`] is cancelled; dropping it closes the
/// port as well. Either way, handshakes under way are given up.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Connection>);

impl Stream for Incoming {
    type Item = Result<Connection, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// Accepts on `listener` until `stop`. Client certificates name agents or API keys of `trust_domain`, or
/// the connection ends. Must be called inside a tokio runtime.
pub fn listen(
    listener: TcpListener,
    tls: Arc<TlsConfig>,
    trust_domain: TrustDomain,
    limits: AcceptLimits,
    guests: Guests,
    stop: CancellationToken,
) -> Incoming {
    let (ready, incoming) = mpsc::channel(READY);
    let port = Port {
        tls,
        trust_domain,
        timeout: limits.handshake_timeout,
        handshakes: Semaphore::new(limits.handshakes),
        guests,
        ready: ready.clone(),
    };
    let connections = Arc::new(Semaphore::new(limits.connections));
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = ready.closed() => {}
            () = accept(listener, Arc::new(port), connections) => {}
        }
    });
    Incoming(incoming)
}

/// What the handshakes of one port share.
struct Port {
    tls: Arc<TlsConfig>,
    trust_domain: TrustDomain,
    timeout: Duration,
    handshakes: Semaphore,
    guests: Guests,
    ready: mpsc::Sender<Connection>,
}

/// Why a peer did not get in. Its own fault or the network's; told to nobody but the debug log.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake took too long")]
    Slow,
    #[error("the handshake failed: {0}")]
    Tls(#[from] io::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the agent was revoked, or is not known here")]
    NotLive,
}

/// Runs until it is dropped, which also ends the handshakes under way.
async fn accept(listener: TcpListener, port: Arc<Port>, connections: Arc<Semaphore>) {
    let mut handshakes = JoinSet::new();
    let (mut failing, mut full) = (false, false);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let (tcp, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_peers(&error) => continue,
            Err(error) => {
                // Trying again at once would spin, and log as fast as it spins.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections; trying on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            if !std::mem::replace(&mut full, true) {
                tracing::warn!("the connection limit is reached; closing new connections");
            }
            continue;
        };
        full = false;
        let port = port.clone();
        handshakes.spawn(async move {
            match port.handshake(tcp, remote, permit).await {
                // An error means that nobody serves any more; the connection is then dropped.
                Ok(connection) => drop(port.ready.send(connection).await),
                Err(reason) => tracing::debug!(%remote, %reason, "connection refused"),
            }
        });
    }
}

/// Whether one connection failed, rather than accepting as such.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

impl Port {
    async fn handshake(
        &self,
        tcp: TcpStream,
        remote: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<Connection, Refused> {
        tcp.set_nodelay(true)?;
        let io = tokio::time::timeout(self.timeout, self.secure(tcp))
            .await
            .map_err(|_| Refused::Slow)??;
        let identity = match io.get_ref().1.peer_certificates() {
            Some([certificate, ..]) => Some(Arc::new(PeerIdentity::from_verified(
                certificate,
                &self.trust_domain,
            )?)),
            _ => None,
        };
        let entry = match &identity {
            Some(identity) => self.admit(identity).await?,
            None => None,
        };
        Ok(Connection {
            io,
            peer: PeerInfo { remote, identity },
            entry,
            _permit: permit,
        })
    }

    /// An agent's place among the connections, if it may come in. It takes the place first: whoever is revoked
    /// from then on has its connections closed, and whoever was revoked before is seen to be. API keys take none:
    /// there are few, and their calls are refused.
    async fn admit(&self, identity: &Arc<PeerIdentity>) -> Result<Option<Entry>, Refused> {
        let entry = identity.agent().map(|agent| self.guests.connections.enter(agent));
        let admits = (self.guests.admits)(Arc::clone(identity));
        match tokio::time::timeout(self.timeout, admits).await {
            Ok(true) => Ok(entry),
            Ok(false) => Err(Refused::NotLive),
            Err(_) => Err(Refused::Slow),
        }
    }

    async fn secure(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        // The semaphore is never closed, so there is always a slot to hold.
        let _slot = self.handshakes.acquire().await.ok();
        hello.into_stream(self.tls.current()).await
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The end of the stream, as if the peer had hung up: the server then ends the connection in good order.
        if self.entry.as_ref().is_some_and(|entry| entry.closed(cx.waker())) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
