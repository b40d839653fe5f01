//! A provider's API on a loopback port: keeps what it is asked, and answers as it is told. One connection a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it answers.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
    pub(crate) after: Duration,
    pub(crate) hang_up: bool,
}

/// What it was asked: the request line, and headers with their names in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<(Reply, Vec<Asked>)>>,
    serving: JoinHandle<()>,
}

pub(crate) fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        headers: String::new(),
        body: body.to_owned(),
        after: Duration::ZERO,
        hang_up: false,
    }
}

impl Reply {
    pub(crate) fn with(mut self, header: &str) -> Self {
        self.headers.push_str(&format!("{header}\r\n"));
        self
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new((reply(200, r#"{"data":[]}"#), Vec::new())));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            state,
            serving,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request is answered so from now on.
    pub(crate) fn answers(&self, reply: Reply) {
        self.state.lock().unwrap().0 = reply;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().1.clone()
    }

    pub(crate) fn last(&self) -> Asked {
        self.asked().pop().unwrap()
    }

    /// Refuses connections from now on.
    pub(crate) async fn go_away(&mut self) {
        self.serving.abort();
        let _cancelled = (&mut self.serving).await;
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<(Reply, Vec<Asked>)>>) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await.unwrap() {
            0 => return,
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let asked = Asked {
        line,
        headers: headers.collect(),
    };
    let reply = {
        let mut state = state.lock().unwrap();
        state.1.push(asked);
        state.0.clone()
    };
    tokio::time::sleep(reply.after).await;
    if reply.hang_up {
        return;
    }
    let (status, headers, length, body) = (reply.status, &reply.headers, reply.body.len(), &reply.body);
    let text = format!(
        "HTTP/1.1 {status} Told\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    // The broker may have had enough.
    let _gone = stream.write_all(text.as_bytes()).await;
    let _gone = stream.shutdown().await;
}
