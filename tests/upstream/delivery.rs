//! How far a request got, told by raw TCP servers that do one thing each.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a raw server does with a connection.
#[derive(Clone)]
pub(super) enum Act {
    /// Closes it without reading.
    CloseUnread,
    /// Reads the request, then closes.
    CloseRead,
    /// Reads the request, then closes with a TCP reset.
    Reset,
    /// Reads the request and never answers.
    Hang,
    /// Accepts and neither reads nor writes.
    Ignore,
    /// Reads the request, writes this, then closes.
    Say(String),
    /// Reads the request, writes this, then waits.
    SayAndHang(String),
    /// Answers every request on the connection with this.
    KeepAlive(String),
}

pub(super) struct Raw {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    pub(super) async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let raw = Raw {
            addr: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests) = (raw.connections.clone(), raw.requests.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream, act.clone(), requests.clone()));
            }
        });
        raw
    }

    pub(super) fn url(&self) -> String {
        self.at("/token")
    }

    pub(super) fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The last request.
    pub(super) fn request(&self) -> String {
        self.requests.lock().unwrap().last().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn play(mut stream: TcpStream, act: Act, requests: Arc<Mutex<Vec<String>>>) {
    match act {
        Act::CloseUnread => {}
        Act::Ignore => std::future::pending().await,
        Act::KeepAlive(answer) => {
            while let Some(request) = read_request(&mut stream).await {
                requests.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        act => {
            let Some(request) = read_request(&mut stream).await else {
                return;
            };
            requests.lock().unwrap().push(request);
            match act {
                Act::Reset => stream.set_zero_linger().unwrap(),
                Act::Hang => std::future::pending().await,
                Act::Say(answer) => {
                    // The client may hang up on an answer it does not want.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                Act::SayAndHang(answer) => {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    std::future::pending().await
                }
                _ => {}
            }
        }
    }
}

/// A whole request; `None` where the client went away.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&part[..n]),
            _ => return None,
        }
    }
}

pub(super) fn http(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// How far it got, in a word.
pub(super) fn far(delivery: &Delivery) -> &'static str {
    match delivery {
        Delivery::Answered { .. } => "answered",
        Delivery::NotSent(_) => "not sent",
        Delivery::Lost(_) => "lost",
    }
}

// req: N1
#[tokio::test]
async fn whatever_happens_once_connected_is_lost_and_never_retried() {
    let huge = "x".repeat(70_000);
    let chunked = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
            body.len()
        )
    };
    let cases = [
        ("closes unread", Act::CloseUnread),
        ("closes after reading", Act::CloseRead),
        ("resets after reading", Act::Reset),
        ("never answers", Act::Hang),
        ("never reads", Act::Ignore),
        (
            "half a head",
            Act::Say("HTTP/1.1 200 OK\r\ncontent-le".to_owned()),
        ),
        ("no HTTP", Act::Say("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned())),
        (
            "half a body",
            Act::Say("HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{\"access".to_owned()),
        ),
        ("half a chunked body", Act::Say(chunked("{\"access"))),
        (
            "stalls within the body",
            Act::SayAndHang("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned()),
        ),
        ("stalls between chunks", Act::SayAndHang(chunked("{\"access"))),
        ("oversize", Act::Say(http("200 OK", "", &huge))),
        ("oversize in chunks", Act::Say(chunked(&huge))),
    ];
    for (what, act) in cases {
        let raw = Raw::start(act).await;
        let started = Instant::now();
        let delivery = refresh(&connector(&raw.url(), ""), "rt").await;
        assert_eq!(far(&delivery), "lost", "{what}");
        assert!(started.elapsed() < Duration::from_secs(5), "{what}");
        assert_eq!(raw.connections(), 1, "{what}: sent more than once");
    }
}

#[tokio::test]
async fn nothing_listening_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    let delivery = refresh(&connector(&url, ""), "secret-refresh-token").await;
    let Delivery::NotSent(why) = delivery else {
        panic!("{}", far(&delivery));
    };
    assert!(why.contains("refused"), "{why}");
    assert!(!why.contains("secret-refresh-token"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_not_sent() {
    // RFC 6761 section 6.4: never resolves. Resolvers that take long run into the connect time-out.
    let delivery = refresh(&connector("https://id.invalid/token", ""), "rt").await;
    assert_eq!(far(&delivery), "not sent");
}

#[tokio::test]
async fn an_unfinished_tls_handshake_is_not_sent() {
    let acts = [
        ("closes", Act::CloseUnread),
        ("never answers", Act::Ignore),
        ("speaks no TLS", Act::KeepAlive("x".to_owned())),
    ];
    for (what, act) in acts {
        let raw = Raw::start(act).await;
        let url = format!("https://{}/token", raw.addr);
        let delivery = refresh(&connector(&url, ""), "rt").await;
        assert_eq!(far(&delivery), "not sent", "{what}");
        assert_eq!(raw.connections(), 1, "{what}");
    }
}

/// A TLS server with a certificate of its own making; returns its address and certificate.
async fn tls_server() -> (SocketAddr, String, Arc<Mutex<Vec<String>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut part = [0; 4096];
            let n = stream.read(&mut part).await.unwrap_or(0);
            seen.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&part[..n]).into_owned());
            // Ends without close_notify: with a length the answer is whole all the same.
            let _ = stream
                .write_all(http("200 OK", "", "{\"access_token\":\"a\"}").as_bytes())
                .await;
            let _ = stream.flush().await;
        }
    });
    (addr, made.cert.pem(), requests)
}

#[tokio::test]
async fn an_untrusted_server_gets_nothing_and_a_trusted_one_is_spoken_to() {
    let (addr, certificate, requests) = tls_server().await;
    let connector = connector(&format!("https://localhost:{}/token", addr.port()), "");
    let delivery = refresh(&connector, "rt").await;
    assert_eq!(far(&delivery), "not sent");
    assert!(requests.lock().unwrap().is_empty());

    let trusting = HttpOptions {
        extra_roots: vec![certificate.into_bytes()],
        ..options()
    };
    let delivery = refresh_with(&endpoint(&trusting), &connector, "rt").await;
    granted(meaning(&connector, delivery));
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_not_sent() {
    let raw = Raw::start(Act::Say(http("502 Bad Gateway", "", "no"))).await;
    let proxied = HttpOptions {
        proxy: Some(format!("http://{}", raw.addr).parse().unwrap()),
        ..options()
    };
    let connector = connector("https://id.invalid/token", "");
    let delivery = refresh_with(&endpoint(&proxied), &connector, "secret-refresh-token").await;
    assert_eq!(far(&delivery), "not sent");
    let requests = raw.requests.lock().unwrap();
    assert!(requests[0].starts_with("CONNECT id.invalid:443"), "{requests:?}");
    assert!(!requests[0].contains("secret-refresh-token"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Raw::start(Act::Say(http("200 OK", "", "{\"access_token\":\"a\"}"))).await;
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let location = format!("location: {}\r\n", elsewhere.url());
        let raw = Raw::start(Act::Say(http(status, &location, ""))).await;
        let connector = connector(&raw.url(), "");
        let answer = meaning(&connector, refresh(&connector, "rt").await);
        assert!(matches!(answer, Answer::Ambiguous { .. }), "{status}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn retry_after_comes_as_seconds_or_as_a_date() {
    for (header, expected) in [
        ("retry-after: 120\r\n", Some(120)),
        ("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(30)),
        ("retry-after: later\r\n", None),
        ("", None),
    ] {
        let raw = Raw::start(Act::Say(http("429 Too Many Requests", header, ""))).await;
        let connector = connector(&raw.url(), "");
        match meaning(&connector, refresh(&connector, "rt").await) {
            Answer::NotProcessed { retry_after, .. } => {
                assert_eq!(retry_after, expected.map(Duration::from_secs), "{header}");
            }
            _ => panic!("{header}"),
        }
    }
}

#[tokio::test]
async fn each_exchange_has_a_connection_of_its_own() {
    let raw = Raw::start(Act::KeepAlive(http("200 OK", "", "{\"access_token\":\"a\"}"))).await;
    let (endpoint, connector) = (endpoint(&options()), connector(&raw.url(), ""));
    for n in 1..=3 {
        granted(meaning(
            &connector,
            refresh_with(&endpoint, &connector, "rt").await,
        ));
        assert_eq!(raw.connections(), n);
    }
}

#[tokio::test]
async fn the_request_is_what_the_connector_says() {
    let raw = Raw::start(Act::KeepAlive(http("200 OK", "", "{\"access_token\":\"a\"}"))).await;
    let sent = async |more: &str| {
        let connector = connector(&raw.url(), more);
        granted(meaning(&connector, refresh(&connector, "r t/+\"").await));
        let request = raw.requests.lock().unwrap().pop().unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    };

    let (head, body) = sent("").await;
    assert!(head.starts_with("post /token http/1.1\r\n"), "{head}");
    let agent = format!("user-agent: credbroker/{}", env!("CARGO_PKG_VERSION"));
    for line in [
        "content-type: application/x-www-form-urlencoded",
        "accept: application/json",
        &agent,
    ] {
        assert!(head.lines().any(|have| have == line), "{line} is not in {head}");
    }
    assert!(!head.contains("authorization") && !head.contains("cookie"));
    assert_eq!(
        body,
        "grant_type=refresh_token&refresh_token=r+t%2F%2B%22&client_id=test-client"
    );

    let (head, body) = sent("refresh_encoding = \"json\"\nscope_on_refresh = true\n").await;
    assert!(head.lines().any(|have| have == "content-type: application/json"));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = serde_json::json!({
        "grant_type": "refresh_token", "refresh_token": "r t/+\"", "client_id": "test-client", "scope": "one two",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_connector_that_cannot_be_used_contacts_nobody() {
    let raw = Raw::start(Act::Hang).await;
    for (more, expected) in [
        ("enabled = false\n", "enabled = true"),
        (
            "terms = \"t\"\nsharing = \"personal\"\n",
            "connectors.accept_terms",
        ),
        (
            "client_auth = \"post\"\nclient_secret = { file = \"/nonexistent/secret\" }\n",
            "misconfigured at the broker",
        ),
        (
            "client_auth = \"basic\"\nclient_secret = { env = \"CREDBROKER_TEST_UNSET\" }\n",
            "misconfigured at the broker",
        ),
    ] {
        match refresh(&connector(&raw.url(), more), "rt").await {
            Delivery::NotSent(why) => {
                assert!(why.contains(expected), "{why}");
                // What comes of it is told to agents: where the broker has its client secret is not.
                assert!(!why.contains("nonexistent") && !why.contains("UNSET"), "{why}");
            }
            other => panic!("{}", far(&other)),
        }
    }
    assert_eq!(raw.connections(), 0);
}
