//! A token endpoint that rotates, writes down every refresh token it is sent, and takes its time to answer.
//!
//! The numbers tell all: the grant of member `m` gives `at-m-0`, `rt-m-0`, then `at-m-1`, `rt-m-1`, …, so a
//! broker that adopts each answer holds `rt-m-(generation - 1)`. The refresh token used last is answered again
//! alike; an older one ends the grant (RFC 9700 section 4.14.2).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::random::Random;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// New tokens.
    Rotated,
    /// The tokens given for this refresh token before.
    Repeated,
    /// An old refresh token: the grant is dead from here on.
    Killed,
}

/// A refresh token that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub member: usize,
    pub number: u64,
    pub outcome: Outcome,
}

#[derive(Clone)]
struct Grant {
    newest: u64,
    alive: bool,
    /// The life of its access tokens, in seconds.
    life: u64,
}

struct State {
    grants: Mutex<(Vec<Grant>, Vec<Sent>, Random)>,
    answers: watch::Sender<u64>,
}

/// The running endpoint. It outlives every daemon.
pub struct Provider {
    address: SocketAddr,
    state: Arc<State>,
}

pub fn refresh_token(member: usize, number: u64) -> String {
    format!("rt-{member}-{number}")
}

pub fn access_token(member: usize, number: u64) -> String {
    format!("at-{member}-{number}")
}

impl Provider {
    /// Half of the members' access tokens live for one second, the others' for two.
    pub async fn start(members: usize, random: Random) -> Self {
        let grant = |member| Grant {
            newest: 0,
            alive: true,
            life: 1 + member as u64 % 2,
        };
        let grants = (0..members).map(grant).collect();
        let state = Arc::new(State {
            grants: Mutex::new((grants, Vec::new(), random)),
            answers: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state }
    }

    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// Counts the answers that are about to go out.
    pub fn answers(&self) -> watch::Receiver<u64> {
        self.state.answers.subscribe()
    }

    /// All refresh tokens it was sent, in order.
    pub fn sent(&self) -> Vec<Sent> {
        self.state.grants.lock().unwrap().1.clone()
    }

    /// How many it was sent.
    pub fn count(&self) -> usize {
        self.state.grants.lock().unwrap().1.len()
    }

    /// The number of the newest tokens of a member.
    pub fn newest(&self, member: usize) -> u64 {
        self.state.grants.lock().unwrap().0[member].newest
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Ends early where the daemon was killed.
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else {
        return Ok(reply(400, "{}".to_owned()));
    };
    let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let form = body.split('&').filter_map(|pair| pair.split_once('='));
    let (_, token) = form.into_iter().find(|(key, _)| *key == "refresh_token").unwrap();
    let (member, number) = token.strip_prefix("rt-").unwrap().split_once('-').unwrap();
    let (member, number): (usize, u64) = (member.parse().unwrap(), number.parse().unwrap());
    // What a real provider has begun it also ends, though nobody waits for the answer any more.
    let worked = tokio::spawn(async move {
        state.pause(10).await;
        let answer = state.redeem(member, number);
        state.pause(30).await;
        state.answers.send_modify(|count| *count += 1);
        answer
    });
    Ok(worked.await.unwrap())
}

impl State {
    /// Up to so many milliseconds.
    async fn pause(&self, most: u64) {
        let micros = self.grants.lock().unwrap().2.below(most * 1_000);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    fn redeem(&self, member: usize, number: u64) -> Response<Full<Bytes>> {
        let (grants, sent, _) = &mut *self.grants.lock().unwrap();
        let grant = &mut grants[member];
        let outcome = match number {
            _ if !grant.alive => Outcome::Killed,
            newest if newest == grant.newest => {
                grant.newest += 1;
                Outcome::Rotated
            }
            last if last + 1 == grant.newest => Outcome::Repeated,
            _ => Outcome::Killed,
        };
        sent.push(Sent {
            member,
            number,
            outcome,
        });
        if outcome == Outcome::Killed {
            grant.alive = false;
            return reply(400, r#"{"error":"invalid_grant"}"#.to_owned());
        }
        let (newest, life) = (grant.newest, grant.life);
        let (access, refresh) = (access_token(member, newest), refresh_token(member, newest));
        reply(
            200,
            format!(
                r#"{{"access_token":"{access}","refresh_token":"{refresh}","token_type":"Bearer","expires_in":{life}}}"#
            ),
        )
    }
}

fn reply(status: u16, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    response
        .header("content-type", "application/json")
        .body(Full::from(body))
        .unwrap()
}
