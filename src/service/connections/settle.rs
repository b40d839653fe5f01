//! The exchange of a code, and what its answer comes to: stored before it is read, as the answer to a refresh is.

use std::sync::Arc;
use std::time::Duration;

use super::complete::{Code, refused};
use super::{ATTEMPTS, busy, by_beginner, put};
use crate::domain::connection::{Connection, Event, Phase};
use crate::domain::journal::Action;
use crate::domain::mode::CredentialKind;
use crate::domain::owner::Owner;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{RefreshToken, Secret};
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::credentials::{BEARER, Incoming};
use crate::service::refresh::bounded_account;
use crate::service::revocations::{Subject, Tokens};
use crate::store::model::StagedAnswer;
use crate::store::record::Changes;
use crate::store::{Commit, StoreError, keys};
use crate::upstream::Delivery;
use crate::upstream::answer::{ExchangeAnswer, Granted, classify_exchange};
use crate::upstream::connector::Connector;
use crate::upstream::oauth::CodeRequest;

/// When to hand a code over again that was not processed, where the provider says nothing.
const RETRY: Duration = Duration::from_secs(5);

/// How often an answer is offered to a store that has no place for it, and after which pause each time.
const STAGINGS: usize = 100;
const STAGING_PAUSE: Duration = Duration::from_millis(50);

/// What an answer says of a connection.
enum Says {
    Granted(Box<Granted>),
    /// What a refresh brings an access token for.
    RefreshOnly(Secret<RefreshToken>),
    /// The code may be handed over again.
    Later(Refusal),
    Failed(Reason, String),
}

impl Broker {
    /// Sends a code once, and settles what comes of it.
    pub(super) async fn exchange_connection(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        code: Code,
    ) -> Result<Arc<Connection>, Refusal> {
        let connector = match self.connector(&connection.connector) {
            Ok(connector) => connector,
            Err(refusal) => {
                return self
                    .fail_connection(&connection, refusal.reason, refusal.message)
                    .await;
            }
        };
        let request = CodeRequest {
            connector,
            code: &code.code,
            redirect_uri: &code.redirect_uri,
            verifier: code.verifier.as_ref(),
            state: &code.state,
        };
        match self.oauth.exchange_code(request).await {
            Delivery::NotSent(message) => {
                let back = self.moves(&connection, Event::NotSent, None).await;
                // Where that could not be stored, it has to end: nobody sends the code any more.
                self.keep_at(&connection);
                back?;
                Err(unavailable(message))
            }
            Delivery::Lost(message) => {
                let failed = self.fail_connection(&connection, Reason::ConnectionLost, message);
                let failed = failed.await;
                self.keep_at(&connection);
                failed
            }
            Delivery::Answered {
                status,
                retry_after,
                body,
            } => {
                let answer = StagedAnswer {
                    fence: u64::from(connection.attempt),
                    status,
                    retry_after_ms: retry_after
                        .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
                    body,
                    received: self.now(),
                };
                self.stage_and_settle(connection, answer).await
            }
        }
    }

    /// Stores an answer, and settles it. One that comes for a connection that was given up is not kept, and what it
    /// grants is revoked.
    pub(super) async fn stage_and_settle(
        self: &Arc<Self>,
        connection: Arc<Connection>,
        answer: StagedAnswer,
    ) -> Result<Arc<Connection>, Refusal> {
        let staged = self.stage(&connection, &answer).await;
        if staged.is_err() {
            self.keep_at(&connection);
        }
        match staged? {
            Some(staged) => self.settle_connection(staged).await,
            None => {
                self.unwanted(&connection, &answer).await;
                self.over(&connection).await
            }
        }
    }

    /// Stores an answer; `None`: nobody wants it any more.
    async fn stage(
        &self,
        connection: &Connection,
        answer: &StagedAnswer,
    ) -> Result<Option<Arc<Connection>>, Refusal> {
        for _ in 0..STAGINGS {
            let stored = match self.connection(connection.org, connection.id).await {
                // Its member was removed meanwhile.
                Err(refusal) if refusal.reason == Reason::NotFound => return Ok(None),
                stored => stored?,
            };
            let next = match stored.value.on(Event::Answered, self.now()) {
                Ok(next) if next.attempt == connection.attempt => next,
                _ => return Ok(None),
            };
            let changes = put(Changes::default(), &stored, &next, self.now())
                .put(&keys::connection_answer(next.org, next.id), answer);
            match self.records.commit(changes).await {
                Ok(Commit::Applied(_)) => {
                    self.connecting.changed(next.id);
                    return Ok(Some(Arc::new(next)));
                }
                Ok(Commit::Conflict) => {}
                // An answer cannot be asked for twice.
                Err(StoreError::Overloaded) => tokio::time::sleep(STAGING_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy())
    }

    /// Reads a staged answer and does what it says. What cannot be done now is tried again in the background.
    pub(super) async fn settle_connection(
        self: &Arc<Self>,
        connection: Arc<Connection>,
    ) -> Result<Arc<Connection>, Refusal> {
        let settled = self.settle_once(Arc::clone(&connection)).await;
        if settled.is_err() {
            self.keep_at(&connection);
        }
        settled
    }

    /// As [`Broker::settle_connection`], once. One at a time: of two who read one answer, the later must not take what
    /// the earlier has connected for a grant that nobody wants.
    pub(super) async fn settle_once(
        self: &Arc<Self>,
        connection: Arc<Connection>,
    ) -> Result<Arc<Connection>, Refusal> {
        let _turn = self.connecting.turns.take(connection.id).await;
        let mut last = busy();
        for _ in 0..ATTEMPTS {
            let now = self.connection(connection.org, connection.id).await?.value;
            if now.attempt != connection.attempt || now.phase != Phase::Staged {
                return self.over(&connection).await;
            }
            let key = keys::connection_answer(connection.org, connection.id);
            let stored = self.records.get::<StagedAnswer>(&key).await?;
            let Some(answer) = stored.filter(|stored| stored.value.fence == u64::from(connection.attempt))
            else {
                return self.over(&connection).await;
            };
            let connector = match self.connector(&connection.connector) {
                Ok(connector) => connector,
                // The configuration was changed meanwhile.
                Err(refusal) => {
                    return self
                        .fail_connection(&connection, refusal.reason, refusal.message)
                        .await;
                }
            };
            let received = answer.value.received;
            let incoming = match says(connector, &answer.value) {
                Says::Granted(granted) => incoming(&connection, connector, *granted, received),
                Says::RefreshOnly(refresh) => Incoming {
                    refresh: Some(refresh),
                    ..nothing_yet(&connection, connector, received)
                },
                Says::Later(refusal) => {
                    self.moves(&connection, Event::NotProcessed, None).await?;
                    return Err(refusal);
                }
                Says::Failed(reason, message) => {
                    return self.fail_connection(&connection, reason, message).await;
                }
            };
            match self.connect(&connection, incoming).await {
                Ok(Some(connected)) => return Ok(connected),
                Ok(None) => {
                    self.unwanted(&connection, &answer.value).await;
                    return self.over(&connection).await;
                }
                // The credential, the member or the connection was changed at the same time.
                Err(refusal) if refusal.reason == Reason::Conflict => last = refusal,
                Err(refusal) if is_final(refusal.reason) => {
                    self.unwanted(&connection, &answer.value).await;
                    return self
                        .fail_connection(&connection, refusal.reason, refusal.message)
                        .await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(last)
    }

    /// Stores the grant, and that the connection is connected, in one commit; `None`: it was given up meanwhile.
    async fn connect(
        self: &Arc<Self>,
        connection: &Connection,
        incoming: Incoming,
    ) -> Result<Option<Arc<Connection>>, Refusal> {
        let stored = self.connection(connection.org, connection.id).await?;
        if stored.value.attempt != connection.attempt || stored.value.phase != Phase::Staged {
            return Ok(None);
        }
        let (live, revision) = self.standing_beginner(connection.org, connection.by).await?;
        // Its locks; the store guards that the member is there.
        let _present = self.standing_member(connection.org, connection.member).await?;
        let now = self.now();
        let record = by_beginner(Action::AccountConnect, connection);
        let member_key = keys::member(connection.org, connection.member);
        let credential = self
            .store_with(record, incoming, &|changes, credential| {
                let changes = match live == member_key {
                    // The store guards the member itself.
                    true => changes,
                    false => changes.at(&live, revision),
                };
                match stored.value.on(Event::Granted(credential.id), now) {
                    Ok(connected) => put(changes, &stored, &connected, now),
                    // Cannot be: it is staged. A guard that never holds keeps it from being half done.
                    Err(_) => changes.absent(&keys::connection(connection.org, connection.id)),
                }
            })
            .await?;
        self.connecting.changed(connection.id);
        tracing::info!(connection = %connection.id, credential = %credential.id, "an account is connected");
        Ok(Some(self.connection(connection.org, connection.id).await?.value))
    }

    /// Ends a connection that came to nothing; what whoever waits for it is told.
    pub(super) async fn fail_connection(
        self: &Arc<Self>,
        connection: &Connection,
        reason: Reason,
        message: String,
    ) -> Result<Arc<Connection>, Refusal> {
        let event = Event::Failed {
            reason,
            message: message.clone(),
        };
        match self
            .moves(connection, event, Some(Action::ConnectionFail))
            .await?
        {
            Some(_) => Err(refused(reason, message).with("connection", connection.id.to_string())),
            None => self.over(connection).await,
        }
    }

    /// What was granted and nobody wants any more goes back to the provider.
    pub(super) async fn unwanted(&self, connection: &Connection, answer: &StagedAnswer) {
        let Ok(connector) = self.connector(&connection.connector) else {
            return;
        };
        let tokens = Tokens::of_answer(connector, answer);
        if tokens.is_empty() {
            return;
        }
        if let Err(refusal) = self.give_back(connection, tokens).await {
            // The grant stays with the provider, known to nobody, until it ends there by itself.
            tracing::warn!(connection = %connection.id, %refusal, "an unwanted grant could not be put up for revocation");
        }
    }

    async fn give_back(&self, connection: &Connection, tokens: Tokens) -> Result<(), Refusal> {
        let subject = Subject {
            org: connection.org,
            member: Some(connection.member),
            connector: connection.connector.clone(),
            credential: None,
        };
        self.revoker.give_back(subject, tokens).await
    }

    /// What is told of a connection that somebody else ended.
    async fn over(&self, connection: &Connection) -> Result<Arc<Connection>, Refusal> {
        let stored = self.connection(connection.org, connection.id).await?.value;
        let attempt = stored.attempt == connection.attempt;
        match &stored.phase {
            Phase::Connected { .. } if attempt => Ok(stored),
            Phase::Failed { reason, message } if attempt => {
                let reason = Reason::from_code(reason).unwrap_or(Reason::ConnectionRefused);
                Err(refused(reason, message.clone()))
            }
            _ => Err(Refusal::new(
                Reason::ConnectionState,
                "the connection was given up while it was being completed",
            )),
        }
    }
}

/// Whether trying again with the same answer leads nowhere else.
fn is_final(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::GrantOutdated
            | Reason::GrantKeptAlready
            | Reason::NotFound
            | Reason::CredentialUnknown
            | Reason::Locked
            | Reason::InvalidArgument
    )
}

fn unavailable(message: String) -> Refusal {
    Refusal::new(Reason::ConnectionUnavailable, message).retry_after(RETRY)
}

/// A provider's code, with what it said.
pub(super) fn told(code: String, message: String) -> String {
    match message.is_empty() {
        true => code,
        false => format!("{code}: {message}"),
    }
}

/// What is told where the provider rejects the broker itself; its operator is, in the log.
pub(super) fn rejected_client(connector: &Connector, code: String, message: String) -> String {
    tracing::error!(connector = %connector.name, code, why = message, "the provider rejects this client");
    format!(
        "the provider rejects the broker's client: {}",
        told(code, message)
    )
}

fn says(connector: &Connector, answer: &StagedAnswer) -> Says {
    let retry_after = answer.retry_after_ms.map(Duration::from_millis);
    match classify_exchange(connector, answer.status, retry_after, &answer.body) {
        ExchangeAnswer::Granted(granted) if granted.refresh_token.is_none() && granted.expiry.is_some() => {
            let message = "the provider gave no refresh token: the account would be logged out as soon as its access \
                           token ends. The connector has to ask for offline access (scopes or authorize_params)";
            Says::Failed(Reason::ConnectionRefused, message.to_owned())
        }
        ExchangeAnswer::Granted(granted) => Says::Granted(Box::new(granted)),
        ExchangeAnswer::RefreshOnly(refresh) => Says::RefreshOnly(refresh),
        ExchangeAnswer::Refused { code, message } => {
            Says::Failed(Reason::ConnectionRefused, told(code, message))
        }
        ExchangeAnswer::Misconfigured { code, message } => Says::Failed(
            Reason::ConnectionRefused,
            rejected_client(connector, code, message),
        ),
        ExchangeAnswer::NotProcessed { retry_after, message } => {
            let refusal = Refusal::new(Reason::ConnectionUnavailable, message);
            Says::Later(refusal.retry_after(retry_after.unwrap_or(RETRY)))
        }
        ExchangeAnswer::Ambiguous { message, .. } => Says::Failed(Reason::ConnectionLost, message),
    }
}

fn incoming(connection: &Connection, connector: &Connector, granted: Granted, received: Time) -> Incoming {
    let mut account = granted.account;
    bounded_account(&mut account);
    Incoming {
        expires: granted.expiry.map(|expiry| expiry.at(received)),
        // Left out: those that were asked for (RFC 6749 section 5.1).
        scopes: granted.scopes.unwrap_or_else(|| connector.scopes.clone()),
        account,
        access: Some(granted.access_token),
        refresh: granted.refresh_token,
        token_type: granted.token_type,
        refresh_expires: granted.refresh_expires_in.map(|life| received + life),
        ..nothing_yet(connection, connector, received)
    }
}

/// A grant of this connection, without any token.
fn nothing_yet(connection: &Connection, connector: &Connector, received: Time) -> Incoming {
    Incoming {
        org: connection.org,
        owner: Owner::Member(connection.member),
        provider: connector.provider.clone(),
        kind: CredentialKind::OAuthGrant,
        connector: connection.connector.clone(),
        // Without an access token there is nothing to hand out until the first refresh.
        expires: Some(received),
        hint: String::new(),
        scopes: connector.scopes.clone(),
        account: Vec::new(),
        access: None,
        refresh: None,
        aws: None,
        executor: None,
        region: None,
        token_type: BEARER.to_owned(),
        refresh_expires: None,
    }
}
