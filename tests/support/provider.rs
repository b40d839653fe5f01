//! A token endpoint that does what a test tells it: strict about replays as the strictest providers, and
//! failing in the ways that providers fail. Speaks HTTP/1.1 over loopback, one connection a request.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// In every refresh token it issues, and nowhere else.
pub const REFRESH_MARK: &str = "rT4mWq8ZxK2vLn6";
/// In every access token it issues, and nowhere else.
pub const ACCESS_MARK: &str = "aT9pHs3YcJ7uBd5";

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of one call.
pub enum Reply {
    /// This answer; the grant is as it was.
    Answer {
        status: u16,
        body: String,
        retry_after: Option<u64>,
    },
    /// No answer, after the grant was rotated (or not).
    HangUp { rotated: bool },
}

/// The endpoint. Without a script it rotates the grant and answers with new tokens.
pub struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    calls: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

struct State {
    /// Which provider of this test program it is: no two issue the same token.
    number: usize,
    issued: usize,
    current: String,
    /// The current tokens of further grants.
    others: BTreeSet<String>,
    /// What every call is answered for now, whoever makes it: a status and its `Retry-After`.
    failing: Option<(u16, String, Option<u64>)>,
    script: VecDeque<Reply>,
    life: u64,
    delay: Duration,
    replays: usize,
}

impl State {
    fn issue(&mut self) -> String {
        self.current = self.next_token();
        self.current.clone()
    }

    fn issue_other(&mut self) -> String {
        let token = self.next_token();
        self.others.insert(token.clone());
        token
    }

    fn next_token(&mut self) -> String {
        self.issued += 1;
        format!("rt-{}-{}-{REFRESH_MARK}", self.number, self.issued)
    }
}

impl Provider {
    /// One whose access tokens live for `life` (whole seconds).
    pub async fn start(life: Duration) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let state = State {
            number: STARTED.fetch_add(1, Ordering::Relaxed),
            issued: 0,
            current: String::new(),
            others: BTreeSet::new(),
            failing: None,
            script: VecDeque::new(),
            life: life.as_secs(),
            delay: Duration::ZERO,
            replays: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            calls: watch::Sender::new(0),
            open: watch::Sender::new(true),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Some(tokio::spawn(serve(listener, Arc::clone(&shared))));
        Self {
            address,
            shared,
            serving,
        }
    }

    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// From here on its tokens are numbered from `issued`, so that no two providers issue the same.
    pub fn number_from(&self, issued: usize) {
        self.shared.state.lock().unwrap().issued = issued;
    }

    /// A new grant in place of the one before.
    pub fn mint(&self) -> String {
        self.shared.state.lock().unwrap().issue()
    }

    /// A further grant beside those before, with tokens of its own.
    pub fn mint_another(&self) -> String {
        self.shared.state.lock().unwrap().issue_other()
    }

    /// Every call is answered so, until [`Provider::works`]. The grants are as they were.
    pub fn fails(&self, status: u16, body: &str, retry_after: Option<u64>) {
        self.shared.state.lock().unwrap().failing = Some((status, body.to_owned(), retry_after));
    }

    pub fn works(&self) {
        self.shared.state.lock().unwrap().failing = None;
    }

    /// The refresh token that it takes now.
    pub fn current(&self) -> String {
        self.shared.state.lock().unwrap().current.clone()
    }

    /// The next call without a fate of its own gets this one.
    pub fn next(&self, reply: Reply) {
        self.shared.state.lock().unwrap().script.push_back(reply);
    }

    /// The next call is answered so.
    pub fn answer(&self, status: u16, body: &str) {
        self.next(Reply::Answer {
            status,
            body: body.to_owned(),
            retry_after: None,
        });
    }

    /// Every answer takes so long.
    pub fn delay(&self, delay: Duration) {
        self.shared.state.lock().unwrap().delay = delay;
    }

    /// Takes calls and answers none, until [`Provider::release`].
    pub fn hold(&self) {
        self.shared.open.send_replace(false);
    }

    pub fn release(&self) {
        self.shared.open.send_replace(true);
    }

    /// How many calls have come, answered or not.
    pub fn calls(&self) -> usize {
        *self.shared.calls.borrow()
    }

    /// How many of them presented another token than the current one.
    pub fn replays(&self) -> usize {
        self.shared.state.lock().unwrap().replays
    }

    /// Waits until so many calls have come.
    pub async fn called(&self, calls: usize) {
        let mut seen = self.shared.calls.subscribe();
        let called = seen.wait_for(|seen| *seen >= calls);
        tokio::time::timeout(PATIENCE, called).await.unwrap().unwrap();
    }

    /// Refuses connections, until [`Provider::come_back`].
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
        let presented = presented(&mut stream).await;
        self.calls.send_modify(|calls| *calls += 1);
        let delay = self.state.lock().unwrap().delay;
        tokio::time::sleep(delay).await;
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        if let Some(answer) = self.decide(&presented) {
            // The broker may have given up; that is its business.
            let _gone = stream.write_all(answer.as_bytes()).await;
            let _gone = stream.shutdown().await;
        }
    }

    fn decide(&self, presented: &str) -> Option<String> {
        let mut state = self.state.lock().unwrap();
        if let Some((status, body, retry_after)) = &state.failing {
            return Some(http(*status, body, *retry_after));
        }
        let other = state.others.remove(presented);
        if presented != state.current && !other {
            state.replays += 1;
            state.current.clear();
            let body = r#"{"error":"invalid_grant","error_description":"refresh token already used"}"#;
            return Some(http(400, body, None));
        }
        match state.script.pop_front() {
            Some(Reply::Answer {
                status,
                body,
                retry_after,
            }) => {
                if other {
                    state.others.insert(presented.to_owned());
                }
                Some(http(status, &body, retry_after))
            }
            Some(Reply::HangUp { rotated }) => {
                if other && !rotated {
                    state.others.insert(presented.to_owned());
                } else if rotated {
                    state.issue();
                }
                None
            }
            None => {
                let refresh = if other { state.issue_other() } else { state.issue() };
                let access = format!("at-{}-{ACCESS_MARK}", state.issued);
                let body = serde_json::json!({
                    "access_token": access,
                    "refresh_token": refresh,
                    "token_type": "Bearer",
                    "expires_in": state.life,
                });
                Some(http(200, &body.to_string(), None))
            }
        }
    }
}

fn http(status: u16, body: &str, retry_after: Option<u64>) -> String {
    let retry_after = retry_after.map_or_else(String::new, |after| format!("retry-after: {after}\r\n"));
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\nconnection: close\r\n\
         {retry_after}content-length: {length}\r\n\r\n{body}"
    )
}

/// The refresh token in a form-encoded request. Those issued need no decoding.
async fn presented(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if body.len() >= length {
                let token = body
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("refresh_token="));
                return token.unwrap_or_default().to_owned();
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await.unwrap() {
            0 => return String::new(),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}
