//! The walk of a person through a sign-in: what to open, what to paste, how it goes, and how it is given up.
//!
//! What was begun at the broker and is not finished here is cancelled there, whatever the reason.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tonic::Status;
use zeroize::Zeroizing;

use super::connect::port;
use super::dialog::{Answers, Dialog};
use super::follow::{Following, is_open};
use super::{outcome, way};
use crate::cli::client::Session;
use crate::cli::error::{Failure, Kind};
use crate::cli::loopback::{Answer, Listener};
use crate::cli::qr::When;
use crate::domain::reason::Reason;
use crate::proto;
use crate::proto::{ConnectionFlow, ConnectionState};

/// How long cancelling may hold up the end of this program.
const GOODBYE: Duration = Duration::from_secs(5);
/// What the browser brought is handed over again where the broker was away, so often and after such a rest.
const RESENDS: u32 = 3;
const REST: Duration = Duration::from_secs(2);
/// What a browser is told that comes with another sign-in's answer.
const AGAIN: &str = "Run 'credbroker account connect' again.";

/// The signals that end this program, as Ctrl-C does.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Kind::Internal, format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn come(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => Failure::new(Kind::Interrupted, "interrupted"),
            _ = self.terminate.recv() => Failure::new(Kind::Terminated, "terminated"),
        }
    }
}

/// What a walk needs all along.
pub(super) struct Walk<'a> {
    pub(super) session: &'a Session,
    pub(super) org: String,
    pub(super) dialog: Dialog,
    pub(super) signals: Signals,
    /// Whether a browser is to be opened here.
    pub(super) browser: bool,
    pub(super) qr: When,
    /// Where the connector comes back to on this machine.
    pub(super) redirect: Option<proto::ConnectorRedirect>,
}

type Browsing = Pin<Box<dyn Future<Output = Result<Answer, Failure>>>>;
/// What the browser brought, and how often it may still be handed over again.
type Brought = (Zeroizing<String>, u32);
type Handing = Pin<Box<dyn Future<Output = Result<proto::Connection, Status>>>>;

impl Walk<'_> {
    /// Begins a connection.
    pub(super) async fn begin(
        &mut self,
        request: proto::BeginConnectionRequest,
    ) -> Result<proto::Connection, Failure> {
        let session = self.session;
        let mut accounts = session.accounts();
        let begun = async move {
            let answer = accounts.begin_connection(request).await;
            Ok(answer?.into_inner().connection.unwrap_or_default())
        };
        self.begun(begun).await
    }

    /// Begins a connection anew that has ended.
    pub(super) async fn again(
        &mut self,
        before: &proto::Connection,
    ) -> Result<(proto::Connection, Option<Listener>), Failure> {
        let listener = match (before.flow(), &self.redirect) {
            (ConnectionFlow::Loopback, Some(redirect)) => Some(way::listen(redirect).await?),
            _ => None,
        };
        let request = proto::RetryConnectionRequest {
            org: self.org.clone(),
            connection: before.id.clone(),
            loopback_port: port(listener.as_ref()),
        };
        let mut accounts = self.session.accounts();
        let begun = async move {
            let answer = accounts.retry_connection(request).await;
            Ok(answer?.into_inner().connection.unwrap_or_default())
        };
        Ok((self.begun(begun).await?, listener))
    }

    /// Who interrupts just while something begins does not leave it behind.
    async fn begun(
        &mut self,
        begun: impl Future<Output = Result<proto::Connection, Status>>,
    ) -> Result<proto::Connection, Failure> {
        tokio::pin!(begun);
        tokio::select! {
            connection = &mut begun => connection.map_err(|status| self.session.failure(status)),
            failure = self.signals.come() => match timeout(GOODBYE, begun).await {
                Ok(Ok(connection)) => Err(self.give_up(&connection, failure).await),
                _ => Err(failure),
            },
        }
    }

    /// Walks on until the account is connected, with a new try where one ended and the person wants another.
    pub(super) async fn walk_on(
        &mut self,
        mut connection: proto::Connection,
        mut listener: Option<Listener>,
    ) -> Result<proto::Connection, Failure> {
        loop {
            let opened = self.present(&connection);
            let ended = match self.wait(&connection, listener, opened).await {
                Ok(ended) => ended,
                Err(failure) => return Err(self.give_up(&connection, failure).await),
            };
            self.dialog.quiet();
            let Some(failure) = outcome::failure(&ended) else {
                return Ok(ended);
            };
            if !self.wants_another(&ended, &failure).await? {
                return Err(failure.at(&self.session.target));
            }
            (connection, listener) = self.again(&ended).await?;
        }
    }

    /// Waits for the end of this try. `Err`: this program cannot go on, whatever becomes of the connection.
    async fn wait(
        &mut self,
        connection: &proto::Connection,
        listener: Option<Listener>,
        opened: bool,
    ) -> Result<proto::Connection, Failure> {
        let mut following = Following::begin(self.session, &self.org, &connection.id);
        let mut question = question(connection.flow(), opened);
        let state = state_in(&connection.url).unwrap_or_default();
        let mut browser: Option<Browsing> = match listener {
            Some(listener) => Some(Box::pin(async move { listener.answered(&state, AGAIN).await })),
            None => None,
        };
        let mut handing: Option<Handing> = None;
        let mut brought: Option<Brought> = None;
        // Why no answer came to what was handed over and is being exchanged.
        let mut late = None;
        let mut last = None;
        let mut state = connection.state();
        self.ask(question);
        loop {
            let not_taken = tokio::select! {
                failure = self.signals.come() => return Err(failure),
                next = following.next() => {
                    let next = next?;
                    if !is_open(&next) {
                        return Ok(next);
                    }
                    self.tell_step(state, next.state());
                    let back = state != ConnectionState::Waiting && next.state() == ConnectionState::Waiting;
                    state = next.state();
                    let not_taken = if back { late.take() } else { None };
                    if back && not_taken.is_none() && handing.is_none() && brought.is_none() {
                        self.ask(question);
                    }
                    not_taken
                }
                answer = of(&mut browser) => {
                    browser = None;
                    self.dialog.quiet();
                    let address = Zeroizing::new(format!("{}?{}", connection.redirect_uri, answer?.query()));
                    handing = Some(self.hand_over(connection, &address, Duration::ZERO));
                    brought = Some((address, RESENDS));
                    None
                }
                line = self.dialog.line(), if question.is_some()
                    && state == ConnectionState::Waiting
                    && handing.is_none()
                    && brought.is_none() =>
                {
                    match line {
                        Some(Ok(code)) if !code.is_empty() => {
                            handing = Some(self.hand_over(connection, &code, Duration::ZERO));
                        }
                        Some(Ok(_)) => self.ask(question),
                        Some(Err(bad)) => {
                            self.dialog.tell(&format!("{bad}."));
                            self.ask(question);
                        }
                        None if connection.flow() == ConnectionFlow::Paste => {
                            return Err(last.unwrap_or_else(no_code));
                        }
                        // The browser may still come.
                        None => question = None,
                    }
                    None
                }
                handed = of(&mut handing) => {
                    handing = None;
                    let status = match handed {
                        Ok(connected) => return Ok(connected),
                        Err(status) => status,
                    };
                    let failure = self.session.failure(status);
                    let now = match self.look(connection).await {
                        Ok(now) if !is_open(&now) => return Ok(now),
                        Ok(now) => now.state(),
                        // As far as it is known.
                        Err(away) if away.kind == Kind::Unavailable => state,
                        Err(fault) => return Err(fault),
                    };
                    if now == ConnectionState::Exchanging {
                        // It is taken, and exchanged whoever waits for it: what comes of it is followed.
                        self.tell_step(state, now);
                        self.dialog.tell("The provider takes its time; the broker waits for it.");
                        state = now;
                        late = Some(failure);
                        None
                    } else {
                        Some(failure)
                    }
                }
            };
            if let Some(failure) = not_taken {
                handing = self.hand_over_again(connection, &mut brought, &failure)?;
                if handing.is_none() {
                    self.refused(&failure);
                    last = Some(failure);
                    self.ask(question);
                }
            }
        }
    }

    /// Hands over again what the browser brought and the broker did not take; `None`: nothing came by a browser.
    fn hand_over_again(
        &self,
        connection: &proto::Connection,
        brought: &mut Option<Brought>,
        failure: &Failure,
    ) -> Result<Option<Handing>, Failure> {
        match brought {
            None => Ok(None),
            Some((address, tries)) if passes(failure) && *tries > 0 => {
                *tries -= 1;
                Ok(Some(self.hand_over(connection, address, REST)))
            }
            Some(_) => Err(failure.clone()),
        }
    }

    fn ask(&mut self, question: Option<&str>) {
        if let Some(question) = question {
            self.dialog.ask(question, true);
        }
    }

    /// A code was not taken, and there may be another.
    fn refused(&mut self, failure: &Failure) {
        self.dialog.tell(&format!("Not taken: {}", failure.what));
        // What the field is called in the API, and where errors are explained, is of no help here.
        let beside = |why: &&String| !why.starts_with("field: ") && !why.starts_with("see ");
        for why in failure.why.iter().filter(beside).chain(&failure.remedy) {
            self.dialog.tell(&format!("  {why}"));
        }
    }

    fn tell_step(&mut self, before: ConnectionState, now: ConnectionState) {
        if before != now && now == ConnectionState::Exchanging {
            self.dialog
                .tell("Signed in; the provider is asked for the tokens.");
        }
    }

    /// Hands a code over after a rest.
    fn hand_over(&self, connection: &proto::Connection, code: &str, rest: Duration) -> Handing {
        let request = proto::CompleteConnectionRequest {
            org: self.org.clone(),
            connection: connection.id.clone(),
            code: Some(proto::Secret {
                value: code.to_owned(),
            }),
            state: String::new(),
        };
        let mut accounts = self.session.accounts();
        Box::pin(async move {
            sleep(rest).await;
            let answer = accounts.complete_connection(request).await?;
            Ok(answer.into_inner().connection.unwrap_or_default())
        })
    }

    async fn look(&self, connection: &proto::Connection) -> Result<proto::Connection, Failure> {
        let request = proto::GetConnectionRequest {
            org: self.org.clone(),
            connection: connection.id.clone(),
        };
        let answer = self.session.accounts().get_connection(request).await;
        let answer = answer.map_err(|status| self.session.failure(status))?;
        Ok(answer.into_inner().connection.unwrap_or_default())
    }

    /// Cancels at the broker what ends here; gives the failure to end with.
    async fn give_up(&mut self, connection: &proto::Connection, failure: Failure) -> Failure {
        self.dialog.quiet();
        let request = proto::CancelConnectionRequest {
            org: self.org.clone(),
            connection: connection.id.clone(),
        };
        let id = &connection.id;
        let mut accounts = self.session.accounts();
        match timeout(GOODBYE, accounts.cancel_connection(request)).await {
            Ok(Ok(_)) => failure.because(format!("the connection {id} is cancelled")),
            Ok(Err(status)) => failure.because(format!(
                "the connection {id} was not cancelled: {}",
                self.session.failure(status)
            )),
            Err(_) => failure.because(format!(
                "the connection {id} was not cancelled: no answer in time"
            )),
        }
    }

    /// Whether a person asks for a new try after one that failed.
    async fn wants_another(&mut self, ended: &proto::Connection, failure: &Failure) -> Result<bool, Failure> {
        let again = matches!(ended.state(), ConnectionState::Failed | ConnectionState::Expired);
        if !again || self.dialog.answers() != Answers::Terminal {
            return Ok(false);
        }
        self.dialog.tell(&format!("Not connected: {}.", failure.what));
        self.dialog.ask("[r]etry, or Enter to end: ", false);
        tokio::select! {
            failure = self.signals.come() => {
                self.dialog.quiet();
                Err(failure)
            }
            line = self.dialog.line() => {
                self.dialog.quiet();
                Ok(matches!(line, Some(Ok(line)) if ["r", "R", "retry"].contains(&line.as_str())))
            }
        }
    }
}

/// What is asked for. A browser that was opened here comes back by itself.
fn question(flow: ConnectionFlow, opened: bool) -> Option<&'static str> {
    match flow {
        ConnectionFlow::Paste => Some("Code (not shown): "),
        ConnectionFlow::Loopback if !opened => Some("Address (not shown): "),
        _ => None,
    }
}

/// The state of a sign-in, which its address has.
fn state_in(url: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next()?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(name, _)| name == "state")
        .map(|(_, value)| value.into_owned())
}

/// What comes of it, where it is under way.
async fn of<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Whether the same may be taken later: the broker was away, or busy with this very connection.
fn passes(failure: &Failure) -> bool {
    let busy = [Reason::ConnectionState, Reason::Conflict].map(Reason::code);
    let reason = failure.reason.as_deref().unwrap_or_default();
    failure.kind == Kind::Unavailable || busy.contains(&reason)
}

fn no_code() -> Failure {
    Failure::usage("no code came on standard input")
}
