//! A forwarder between a broker and a token endpoint that does to each request what a test tells it: before the
//! provider has seen it, or after the provider has acted. HTTP/1.1 over loopback, one connection a request.
//! Use as `#[path = "support/faulty_proxy.rs"] mod faulty_proxy;`.
//!
//! Promises: whatever happens to an answer happens after the whole of it has come from the provider, so that the
//! provider has acted for certain; and what is counted was counted before the caller could know of it.

#![allow(dead_code, unreachable_pub)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the provider's answer is handed back.
    Pass,
    /// The connection is closed before any of the request is read.
    CloseUnread,
    /// The request is read whole, and the connection closed: the provider never sees it.
    CloseUnforwarded,
    /// The provider answers, and the connection is closed without a byte.
    DropAnswer,
    /// The provider answers, and the connection is reset.
    Reset,
    /// The provider answers, and the answer is handed back so much later.
    Delay(Duration),
    /// The answer ends in the middle of its header fields.
    CutHead,
    /// The answer ends in the middle of its body.
    CutBody,
    /// A gateway's answer of this status is handed back in place of the provider's.
    Gateway(u16),
    /// The answer comes byte by byte, so long after each other.
    Trickle(Duration),
    /// The provider gets the request twice; its first answer is handed back.
    TwiceFirst,
    /// The provider gets the request twice; its second answer is handed back.
    TwiceSecond,
    /// The answer is handed back twice over the one connection.
    AnswerTwice,
    /// The provider answers, and the answer is kept until [`FaultyProxy::release`].
    Hold,
}

impl Fault {
    /// Whether the caller is not told what the provider answered.
    fn withholds(self) -> bool {
        matches!(
            self,
            Fault::DropAnswer | Fault::Reset | Fault::CutHead | Fault::CutBody | Fault::Gateway(_)
        )
    }
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections made to it.
    pub connections: u64,
    /// Requests read whole.
    pub requests: u64,
    /// Requests that the provider was sent and answered.
    pub forwarded: u64,
    /// Requests answered from the grace window.
    pub repeated: u64,
    /// Answers that were withheld, the provider's and those of the grace window.
    pub lost_answers: u64,
    /// New tokens that the provider gave and whose answer was withheld.
    pub lost_grants: u64,
}

/// Tokens that the provider gave.
#[derive(Clone, Debug)]
pub struct Issued {
    pub access: String,
    pub refresh: String,
}

#[derive(Default)]
struct State {
    script: VecDeque<Fault>,
    /// What becomes of requests that the script says nothing of; all pass where there is none.
    otherwise: Option<Box<dyn FnMut() -> Fault + Send>>,
    counts: Counts,
    /// The first answer to each refresh token, where there is a grace window.
    grace: Option<HashMap<String, Answer>>,
    newest: Option<Issued>,
}

struct Shared {
    provider: SocketAddr,
    state: Mutex<State>,
    held: watch::Sender<u32>,
    /// Set when answers are let go: how far apart.
    released: watch::Sender<Option<Duration>>,
}

/// The running forwarder. It ends with this value.
pub struct FaultyProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl FaultyProxy {
    /// Stands before the provider at this port of the loopback address.
    pub async fn start(provider_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            provider: ([127, 0, 0, 1], provider_port).into(),
            state: Mutex::default(),
            held: watch::Sender::new(0),
            released: watch::Sender::new(None),
        });
        Self {
            address,
            serving: tokio::spawn(serve(listener, Arc::clone(&shared))),
            shared,
        }
    }

    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// What becomes of the next request that nothing was said of yet.
    pub fn next(&self, fault: Fault) {
        self.shared.state.lock().unwrap().script.push_back(fault);
    }

    /// What becomes of all requests that nothing else was said of.
    pub fn otherwise(&self, choose: impl FnMut() -> Fault + Send + 'static) {
        self.shared.state.lock().unwrap().otherwise = Some(Box::new(choose));
    }

    /// From now on a refresh token that was used is answered again as the first time, as a provider with a grace
    /// window does, until [`FaultyProxy::end_grace`].
    pub fn begin_grace(&self) {
        self.shared.state.lock().unwrap().grace = Some(HashMap::new());
    }

    /// The window has closed over every refresh token used so far, and is none any more.
    pub fn end_grace(&self) {
        self.shared.state.lock().unwrap().grace = None;
    }

    pub fn counts(&self) -> Counts {
        self.shared.state.lock().unwrap().counts
    }

    /// The newest tokens that the provider gave, whether they were handed on or not.
    pub fn newest(&self) -> Issued {
        self.shared.state.lock().unwrap().newest.clone().unwrap()
    }

    /// Waits until so many answers are held.
    pub async fn holds(&self, answers: u32) {
        let mut held = self.shared.held.subscribe();
        let held = held.wait_for(|held| *held >= answers);
        tokio::time::timeout(PATIENCE, held).await.unwrap().unwrap();
    }

    /// Lets the answers go that are held, and those to come, each so long after the one before.
    pub fn release(&self, apart: Duration) {
        self.shared.released.send_replace(Some(apart));
    }

    /// Holds again what is to be held, counting from none.
    pub fn hold_again(&self) {
        self.shared.released.send_replace(None);
        self.shared.held.send_replace(0);
    }

    /// Refuses connections, until [`FaultyProxy::come_back`].
    pub async fn go_away(&mut self) {
        self.serving.abort();
        let _cancelled = (&mut self.serving).await;
    }

    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = tokio::spawn(serve(listener, Arc::clone(&self.shared)));
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        // The caller may have given up, or be dead; that is its business.
        tokio::spawn(async move { drop(shared.call(stream).await) });
    }
}

/// An answer as it came.
#[derive(Clone)]
struct Answer {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Answer {
    fn gateway(status: u16) -> Self {
        let body = "<html><h1>the server behind this one did not answer</h1></html>";
        let head = format!(
            "HTTP/1.1 {status} Gateway\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self {
            head: head.into_bytes(),
            body: body.into(),
        }
    }

    /// The tokens in it, where it grants any.
    fn issued(&self) -> Option<Issued> {
        if !self.head.starts_with(b"HTTP/1.1 200 ") {
            return None;
        }
        let told: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let token = |name: &str| told[name].as_str().map(str::to_owned);
        Some(Issued {
            access: token("access_token")?,
            refresh: token("refresh_token")?,
        })
    }

    fn whole(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.body].concat()
    }
}

impl Shared {
    fn choose(&self) -> Fault {
        let mut state = self.state.lock().unwrap();
        state.counts.connections += 1;
        let scripted = state.script.pop_front();
        scripted.unwrap_or_else(|| state.otherwise.as_mut().map_or(Fault::Pass, |choose| choose()))
    }

    async fn call(&self, mut stream: TcpStream) -> io::Result<()> {
        let fault = self.choose();
        if fault == Fault::CloseUnread {
            return Ok(());
        }
        let (head, body) = message(&mut stream).await?;
        self.state.lock().unwrap().counts.requests += 1;
        if fault == Fault::CloseUnforwarded {
            return Ok(());
        }
        let request = Answer { head, body };
        let (first, granted) = self.ask(&request).await?;
        let answer = match fault {
            Fault::TwiceFirst => {
                self.ask(&request).await?;
                first
            }
            Fault::TwiceSecond => self.ask(&request).await?.0,
            _ => first,
        };
        if fault.withholds() {
            let counts = &mut self.state.lock().unwrap().counts;
            counts.lost_answers += 1;
            counts.lost_grants += u64::from(granted);
        }
        self.hand_back(stream, fault, answer).await
    }

    /// The provider's answer, or that of the grace window; and whether new tokens were given for it just now.
    async fn ask(&self, request: &Answer) -> io::Result<(Answer, bool)> {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
        let token = pairs.find(|(key, _)| *key == "refresh_token");
        let token = token.map_or_else(String::new, |(_, token)| token.to_owned());
        {
            let mut state = self.state.lock().unwrap();
            let earlier = state.grace.as_ref().and_then(|grace| grace.get(&token)).cloned();
            if let Some(answer) = earlier {
                state.counts.repeated += 1;
                return Ok((answer, false));
            }
        }
        let mut provider = TcpStream::connect(self.provider).await?;
        provider.write_all(&request.whole()).await?;
        let (head, body) = message(&mut provider).await?;
        let answer = Answer { head, body };
        let issued = answer.issued();
        let granted = issued.is_some();
        let mut state = self.state.lock().unwrap();
        state.counts.forwarded += 1;
        if granted {
            state.newest = issued;
            if let Some(grace) = &mut state.grace {
                grace.insert(token, answer.clone());
            }
        }
        Ok((answer, granted))
    }

    async fn hand_back(&self, mut stream: TcpStream, fault: Fault, answer: Answer) -> io::Result<()> {
        let whole = answer.whole();
        match fault {
            Fault::CloseUnread | Fault::CloseUnforwarded | Fault::DropAnswer => return Ok(()),
            Fault::Reset => return stream.set_zero_linger(),
            Fault::CutHead => stream.write_all(&answer.head[..answer.head.len() / 2]).await?,
            Fault::CutBody => {
                let cut = answer.head.len() + answer.body.len() / 2;
                stream.write_all(&whole[..cut]).await?;
            }
            Fault::Gateway(status) => stream.write_all(&Answer::gateway(status).whole()).await?,
            Fault::Trickle(apart) => {
                for byte in whole {
                    stream.write_all(&[byte]).await?;
                    if !apart.is_zero() {
                        tokio::time::sleep(apart).await;
                    }
                }
            }
            Fault::AnswerTwice => stream.write_all(&[whole.as_slice(), &whole].concat()).await?,
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                stream.write_all(&whole).await?;
            }
            Fault::Hold => {
                let mut released = self.released.subscribe();
                let mut before = 0;
                self.held.send_modify(|held| {
                    before = *held;
                    *held += 1;
                });
                let apart = released.wait_for(Option::is_some).await;
                let apart = apart.map_or(Duration::ZERO, |apart| apart.unwrap_or_default());
                tokio::time::sleep(apart * before).await;
                stream.write_all(&whole).await?;
            }
            Fault::Pass | Fault::TwiceFirst | Fault::TwiceSecond => stream.write_all(&whole).await?,
        }
        stream.shutdown().await
    }
}

/// One message: its start line and header fields with the empty line, and its body.
async fn message(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    const EMPTY: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(EMPTY.len()).position(|window| window == EMPTY) {
            let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            let body = at + EMPTY.len();
            if bytes.len() >= body + length {
                let rest = bytes.split_off(body);
                return Ok((bytes, rest));
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}
