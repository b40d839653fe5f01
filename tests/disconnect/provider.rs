//! A revocation endpoint (RFC 7009) that does what a test tells it, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A status, a body and what `Retry-After` says.
pub type Answer = (u16, &'static str, Option<u64>);

const OK: Answer = (200, "", None);

/// One request: the hint and the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub hint: String,
    pub token: String,
}

/// The endpoint. Without a script it revokes whatever it is shown.
pub struct Revocations {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    held: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    always: Option<Answer>,
    asked: Vec<Asked>,
    hold: bool,
}

impl Revocations {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&shared))));
        Self {
            address,
            shared,
            serving,
        }
    }

    /// The key of a connector that has it.
    pub fn key(&self) -> String {
        format!("revoke_url = \"http://{}/revoke\"\n", self.address)
    }

    /// The next requests are answered so, one after the other.
    pub fn answers(&self, answers: &[Answer]) {
        self.shared.state.lock().unwrap().script.extend(answers);
    }

    /// Every request without an answer of its own is answered so.
    pub fn always(&self, answer: Answer) {
        self.shared.state.lock().unwrap().always = Some(answer);
    }

    /// Takes requests and answers none, until [`Revocations::release`].
    pub fn hold(&self) {
        self.shared.state.lock().unwrap().hold = true;
    }

    pub fn release(&self) {
        self.shared.state.lock().unwrap().hold = false;
        self.shared.held.notify_waiters();
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state.lock().unwrap().asked.clone()
    }

    pub fn hints(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.hint).collect()
    }

    /// Waits until it was asked so often.
    pub async fn was_asked(&self, times: usize) {
        for _ in 0..600 {
            if self.asked().len() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("asked {:?}, not {times} times", self.asked());
    }

    /// Refuses connections, until [`Revocations::come_back`].
    pub async fn go_away(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _cancelled = serving.await;
    }

    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { shared.call(stream).await });
    }
}

impl Shared {
    async fn call(&self, mut stream: TcpStream) {
        let body = body(&mut stream).await;
        let field = |name: &str| {
            let value = body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        let asked = Asked {
            hint: field("token_type_hint"),
            token: field("token"),
        };
        let (status, text, retry_after) = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(asked);
            let scripted = state.script.pop_front();
            scripted.or(state.always).unwrap_or(OK)
        };
        loop {
            let held = self.held.notified();
            if !self.state.lock().unwrap().hold {
                break;
            }
            held.await;
        }
        let retry_after = retry_after.map_or_else(String::new, |after| format!("retry-after: {after}\r\n"));
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\nconnection: close\r\n\
             {retry_after}content-length: {length}\r\n\r\n{text}"
        );
        // The broker may have given up; that is its business.
        let _gone = stream.write_all(answer.as_bytes()).await;
        let _gone = stream.shutdown().await;
    }
}

/// The body of a request. The tokens that tests use need no decoding.
async fn body(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length {
                return body.to_owned();
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return String::new(),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}
