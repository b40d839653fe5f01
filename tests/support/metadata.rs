//! A server that publishes what a test tells it, path by path, and remembers what it was asked for. Other servers are
//! reached through it, since the endpoints of an issuer are on its port. Speaks HTTP/1.1 over loopback, one connection
//! a request. Use as `#[path = "support/metadata.rs"] mod metadata;`.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The place of RFC 8414 section 3.1, before the issuer's path.
pub const STANDARD: &str = "/.well-known/oauth-authorization-server";
/// The place of OpenID Connect Discovery, after the issuer's path.
pub const FALLBACK: &str = "/.well-known/openid-configuration";

/// Before the port and path of another server.
const RELAYED: &str = "/relayed/";

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a path is answered with; any other with 404.
#[derive(Clone)]
pub enum Page {
    /// This status and body.
    Says(u16, String),
    /// A redirect to this address.
    Elsewhere(String),
    /// Nothing, ever.
    Silence,
}

pub struct Metadata {
    address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Metadata {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            pages: Arc::default(),
            asked: Arc::default(),
        };
        let (pages, asked) = (Arc::clone(&server.pages), Arc::clone(&server.asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, Arc::clone(&pages), Arc::clone(&asked)));
            }
        });
        server
    }

    /// An issuer of this server.
    pub fn issuer(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn page(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// The address at this server for `url` of another one, to which it passes on what comes there.
    pub fn relay(&self, url: &str) -> String {
        let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let (_, port) = authority.rsplit_once(':').unwrap();
        self.issuer(&format!("{RELAYED}{port}/{path}"))
    }

    /// Publishes the document of the issuer at `/tenant`, which names `token_url` as it is relayed, with `more` over it.
    pub fn publish(&self, token_url: &str, more: serde_json::Value) {
        let mut document = serde_json::json!({
            "issuer": self.issuer("/tenant"), "token_endpoint": self.relay(token_url),
        });
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        self.page(
            &format!("{STANDARD}/tenant"),
            Page::Says(200, document.to_string()),
        );
    }

    /// The paths asked for until now.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked for so many.
    pub async fn was_asked(&self, times: usize) {
        let waiting = async {
            while self.asked.lock().unwrap().len() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }
}

async fn answer(
    mut stream: TcpStream,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => seen.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&seen).into_owned();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    if let Some((port, rest)) = path.strip_prefix(RELAYED).and_then(|to| to.split_once('/')) {
        let Ok(mut there) = TcpStream::connect(format!("127.0.0.1:{port}")).await else {
            return;
        };
        let (method, after) = (
            head.split(' ').next().unwrap(),
            head.find(&path).unwrap() + path.len(),
        );
        let begun = [format!("{method} /{rest}").as_bytes(), &seen[after..]].concat();
        // Either may hang up.
        let _ = there.write_all(&begun).await;
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
        return;
    }
    let page = pages.lock().unwrap().get(&path).cloned();
    asked.lock().unwrap().push(path);
    let (status, more, body) = match page {
        Some(Page::Silence) => std::future::pending().await,
        Some(Page::Elsewhere(to)) => (302, format!("location: {to}\r\n"), String::new()),
        Some(Page::Says(status, body)) => (status, String::new(), body),
        None => (404, String::new(), "<html>not here</html>".to_owned()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Told\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n");
    // Who finds it too long hangs up.
    let _ = stream.write_all((head + &body).as_bytes()).await;
}
