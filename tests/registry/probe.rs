//! Which model servers the broker asks, how often, and what counts as an answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use credbroker::clock::Clock;
use credbroker::upstream::probe::{Prober, ProberSetupError, REMEMBERED};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::clock::MovedClock;
use crate::support::{Options, TestBroker};

/// A server that answers every request with `answer`, after `open` says so, and keeps what it was sent.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    open: watch::Sender<bool>,
}

impl Server {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let open = watch::Sender::new(true);
        let (seen, gate) = (Arc::clone(&requests), open.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&seen), gate.clone()));
            }
        });
        Self {
            address,
            requests,
            open,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &str,
    seen: Arc<Mutex<Vec<String>>>,
    mut open: watch::Receiver<bool>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    seen.lock().unwrap().push(String::from_utf8(request).unwrap());
    let _ = open.wait_for(|open| *open).await;
    let _ = stream.write_all(answer.as_bytes()).await;
    // Open until the other end closes: an endless body.
    let _ = stream.read_u8().await;
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

fn prober(endpoints: &[&str], clock: &Arc<MovedClock>) -> Prober {
    let endpoints: Vec<_> = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
    let clock: Arc<dyn Clock> = Arc::<MovedClock>::clone(clock);
    Prober::new(&endpoints, clock).unwrap()
}

// req: E11
#[tokio::test]
async fn only_listed_servers_are_asked_by_exact_origin_and_always_the_same() {
    let (listed, other) = (Server::start(OK).await, Server::start(OK).await);
    let broker = TestBroker::start_with(Options {
        config: format!("[local]\nprobe_endpoints = [\"{}/base/\"]\n", listed.url()),
        ..Options::default()
    })
    .await;
    let prober = broker.broker.prober();
    let port = listed.address.port();
    for elsewhere in [
        other.url(),
        format!("http://localhost:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.2:{port}"),
        format!("http://127.0.0.1:{port}0"),
        format!("http://user@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}?x"),
        format!("http://127.0.0.1:{port}@{}", other.address),
        "http://127.0.0.1".to_owned(),
        String::new(),
    ] {
        assert_eq!(prober.reachable(&elsewhere).await, None, "{elsewhere}");
    }
    assert_eq!((listed.asked(), other.asked()), (0, 0));

    // The path is the operator's, whatever the caller says.
    let named = format!("{}/admin/shutdown", listed.url());
    assert_eq!(prober.reachable(&named).await, Some(true));
    let request = listed.requests.lock().unwrap().join("");
    assert!(
        request.starts_with("GET /base/v1/models HTTP/1.1\r\n"),
        "{request}"
    );
    let lower = request.to_lowercase();
    for secret in ["authorization", "cookie", "x-api-key", "referer"] {
        assert!(!lower.contains(secret), "{request}");
    }
    assert!(lower.contains("user-agent: credbroker/"), "{request}");
}

// req: E11
#[tokio::test]
async fn any_answer_below_500_tells_of_a_server_and_no_redirect_is_followed() {
    let clock = Arc::<MovedClock>::default();
    let aim = Server::start(OK).await;
    let redirect: &'static str = Box::leak(
        format!(
            "HTTP/1.1 302 Found\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n",
            aim.url()
        )
        .into_boxed_str(),
    );
    for (answer, reachable) in [
        (OK, true),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", true),
        (redirect, true),
        // The body is not waited for, and not read.
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{", true),
        (
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", false),
    ] {
        let server = Server::start(answer).await;
        let url = server.url();
        let told = prober(&[&url], &clock).reachable(&url).await;
        assert_eq!(told, Some(reachable), "{answer}");
        assert_eq!(server.asked(), 1);
    }
    assert_eq!(aim.asked(), 0);

    // Nobody there.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    assert_eq!(prober(&[&url], &clock).reachable(&url).await, Some(false));
}

// req: E11
#[tokio::test]
async fn many_callers_cause_one_request_also_those_that_go_away() {
    let clock = Arc::<MovedClock>::default();
    let server = Server::start(OK).await;
    let url = server.url();
    let prober = Arc::new(prober(&[&url], &clock));
    server.open.send_replace(false);
    let ask = || {
        let (prober, url) = (Arc::clone(&prober), url.clone());
        tokio::spawn(async move { prober.reachable(&url).await })
    };
    // The first is cut off while the server holds its answer back.
    let first = ask();
    while server.asked() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let waiting: Vec<_> = (0..50).map(|_| ask()).collect();
    server.open.send_replace(true);
    for told in waiting {
        assert_eq!(told.await.unwrap(), Some(true));
    }
    assert_eq!(server.asked(), 1);

    // Asked again when what was told is too old.
    clock.advance(REMEMBERED - Duration::from_secs(2));
    assert_eq!(prober.reachable(&url).await, Some(true));
    assert_eq!(server.asked(), 1);
    clock.advance(Duration::from_secs(2));
    assert_eq!(prober.reachable(&url).await, Some(true));
    assert_eq!(server.asked(), 2);
}

// req: E11
#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_not_there() {
    let clock = Arc::<MovedClock>::default();
    let server = Server::start(OK).await;
    server.open.send_replace(false);
    let url = server.url();
    let prober = prober(&[&url], &clock);
    let told = tokio::time::timeout(Duration::from_secs(20), prober.reachable(&url));
    assert_eq!(told.await.unwrap(), Some(false));
}

// req: E11
#[test]
fn a_list_with_what_is_no_base_url_makes_no_prober() {
    let clock: Arc<dyn Clock> = Arc::<MovedClock>::default();
    let made = Prober::new(&["http://h.example?x".to_owned()], clock);
    assert!(matches!(made, Err(ProberSetupError::Endpoint { .. })));
}
