//! Signing in with a browser on this machine: starting it, and taking its answer at a port of this process on
//! loopback (RFC 8252 section 7.3).
//!
//! Any program of this machine can call that port. Only the answer with the state of this sign-in counts; all
//! else is turned away and changes nothing.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::error::{Failure, Kind};

/// How long one connection of the browser may last, and how many there may be.
const CONNECTION: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 32;
/// How long the browser's last answer is given to get there.
const GOODBYE: Duration = Duration::from_secs(1);
/// How many free ports are tried for one that is free at both addresses of `localhost`.
const TRIES: usize = 8;

/// The host of a redirect to this machine, as its URL has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address, such as `127.0.0.1` or `[::1]`.
    Address(IpAddr),
    /// `localhost`, which a browser takes for `127.0.0.1` or for `[::1]`.
    Name,
}

impl Host {
    /// `127.0.0.1`.
    pub const V4: Self = Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// The host that `text` is; `None`: it is not this machine.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "localhost" {
            return Some(Host::Name);
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address = match bare {
            Some(address) => IpAddr::V6(address.parse().ok()?),
            None => IpAddr::V4(text.parse().ok()?),
        };
        address.is_loopback().then_some(Host::Address(address))
    }

    /// Listens at every address that a browser may take for this host. Of `localhost` either address is enough
    /// where the machine has no other, but one that another program listens at is not ours.
    async fn bind(self, port: u16) -> io::Result<Vec<TcpListener>> {
        match self {
            Host::Address(address) => Ok(vec![TcpListener::bind((address, port)).await?]),
            Host::Name => {
                let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
                match TcpListener::bind((Ipv6Addr::LOCALHOST, first.local_addr()?.port())).await {
                    Ok(second) => Ok(vec![first, second]),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                    Err(_) => Ok(vec![first]),
                }
            }
        }
    }
}

/// A port of this process that waits for the browser.
pub struct Listener {
    sockets: Vec<TcpListener>,
    path: String,
    port: u16,
}

/// What the browser brings back: the query of the redirect, with a code in it that works once.
pub struct Answer(Zeroizing<String>);

impl Answer {
    /// The query, as it was in the address.
    pub fn query(&self) -> &str {
        &self.0
    }

    /// The first value of this name.
    pub fn field(&self, wanted: &str) -> Option<String> {
        field(&self.0, wanted)
    }
}

fn field(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
}

impl Listener {
    /// Listens at the first of `ports` that is free, at any where none are listed, for requests of `path`.
    pub async fn bind(host: Host, ports: &[u16], path: &str) -> io::Result<Self> {
        let any = [0; TRIES];
        let ports = if ports.is_empty() { &any[..] } else { ports };
        let mut last = io::ErrorKind::AddrInUse.into();
        for port in ports {
            let bound = host.bind(*port).await;
            match bound.and_then(|sockets| Ok((sockets[0].local_addr()?.port(), sockets))) {
                Ok((port, sockets)) => {
                    return Ok(Self {
                        sockets,
                        path: path.to_owned(),
                        port,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the browser to come back with `state`. `again` is told to who comes with another.
    pub async fn answered(self, state: &str, again: &'static str) -> Result<Answer, Failure> {
        let (sender, mut receiver) = mpsc::channel(1);
        let awaited = Arc::new(Awaited {
            path: self.path,
            state: state.to_owned(),
            again,
            sender,
        });
        let mut connections = JoinSet::new();
        let answer = loop {
            let stream = tokio::select! {
                answer = receiver.recv() => break answer,
                accepted = accept(&self.sockets) => accepted.map_err(no_port)?,
                Some(_) = connections.join_next() => continue,
            };
            if connections.len() >= CONNECTIONS {
                continue;
            }
            let awaited = Arc::clone(&awaited);
            connections.spawn(async move {
                let page = service_fn(|request| {
                    let page = awaited.page(&request);
                    async { Ok::<_, Infallible>(page) }
                });
                let serving = http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), page);
                // A browser that goes away has nothing to be told.
                let _ = tokio::time::timeout(CONNECTION, serving).await;
            });
        };
        drop(self.sockets);
        let goodbye = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        answer.ok_or_else(|| Failure::new(Kind::Internal, "the browser's answer was lost"))
    }
}

/// The next connection to any of the sockets: one, or the two of `localhost`.
async fn accept(sockets: &[TcpListener]) -> io::Result<TcpStream> {
    let (stream, _) = match sockets {
        [one] => one.accept().await,
        [one, other, ..] => tokio::select! {
            accepted = one.accept() => accepted,
            accepted = other.accept() => accepted,
        },
        [] => Err(io::ErrorKind::NotConnected.into()),
    }?;
    Ok(stream)
}

struct Awaited {
    path: String,
    state: String,
    again: &'static str,
    sender: mpsc::Sender<Answer>,
}

impl Awaited {
    fn page(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != self.path || request.method() != hyper::Method::GET {
            return html(StatusCode::NOT_FOUND, "There is nothing here.");
        }
        let query = request.uri().query().unwrap_or_default();
        let given = field(query, "state").unwrap_or_default();
        if !bool::from(given.as_bytes().ct_eq(self.state.as_bytes())) {
            let told = format!(
                "This is not the answer to the sign-in that credbroker waits for. {}",
                self.again
            );
            return html(StatusCode::BAD_REQUEST, &told);
        }
        let told = match field(query, "error") {
            Some(_) => "The sign-in was refused. The terminal has the details; you can close this page.",
            None => "Done here. Go back to the terminal; you can close this page.",
        };
        // A second answer finds the place taken, and is not needed.
        let _ = self.sender.try_send(Answer(Zeroizing::new(query.to_owned())));
        html(StatusCode::OK, told)
    }
}

/// A page of our own words only: nothing of the request is in it.
fn html(status: StatusCode, told: &str) -> Response<Full<Bytes>> {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>credbroker</title>\
         <body style=\"font-family:sans-serif;margin:4em\"><h1>credbroker</h1><p>{told}</p></body></html>\n"
    );
    let mut response = Response::new(Full::new(page.into()));
    *response.status_mut() = status;
    let headers = [
        ("content-type", "text/html; charset=utf-8"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, hyper::header::HeaderValue::from_static(value));
    }
    response
}

/// Whether a browser can be expected to open for this user.
pub fn is_likely() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY"].into_iter().any(set)
}

/// Starts the user's browser; `false`: there is nothing to start it with.
pub fn start_browser(url: &str) -> bool {
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let mut command = Command::new(opener);
    command.arg(url);
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.spawn().is_ok()
}

/// There is no port to listen at.
pub fn no_port(error: io::Error) -> Failure {
    Failure::new(
        Kind::Unavailable,
        format!("no port on this machine for the browser's answer: {error}"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_free_port_is_taken_at_all_addresses_of_the_host() {
        let taken = Listener::bind(Host::Name, &[], "/").await.unwrap();
        let free = Listener::bind(Host::V4, &[], "/").await.unwrap().port();
        let found = Listener::bind(Host::Name, &[taken.port(), free], "/")
            .await
            .unwrap();
        assert_eq!(found.port(), free);
        assert!(Listener::bind(Host::V4, &[taken.port()], "/").await.is_err());
        // A browser may take `localhost` for ::1, where another program would get the code.
        if let Ok(elsewhere) = TcpListener::bind("[::1]:0").await {
            let port = elsewhere.local_addr().unwrap().port();
            assert!(Listener::bind(Host::Name, &[port], "/").await.is_err());
            assert!(Listener::bind(Host::V4, &[port], "/").await.is_ok());
        }
    }

    #[test]
    fn only_this_machine_is_a_host() {
        assert_eq!(Host::parse("localhost"), Some(Host::Name));
        assert_eq!(Host::parse("127.0.0.1"), Some(Host::V4));
        assert_eq!(
            Host::parse("[::1]"),
            Some(Host::Address(Ipv6Addr::LOCALHOST.into()))
        );
        for other in ["192.0.2.1", "::1", "[127.0.0.1]", "localhost.example", ""] {
            assert_eq!(Host::parse(other), None, "{other}");
        }
    }
}
