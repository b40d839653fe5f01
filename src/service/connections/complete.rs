//! Handing over what the provider gave: checked against this sign-in, then exchanged once.

use std::sync::Arc;

use super::begin::is_state;
use super::{ATTEMPTS, about, busy, put, unfit};
use crate::domain::actor::Caller;
use crate::domain::connection::{Connection, Event, Flow, Phase, Unreadable, pasted};
use crate::domain::journal::Action;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::secret::{AuthorizationCode, CodeVerifier, Exposure, Secret};
use crate::service::Broker;
use crate::service::effect::Undone;
use crate::store::keys;
use crate::store::model::{ConnectionSecret, Mark};
use crate::store::record::{Changes, Stored};
use crate::upstream::redact;

/// What is handed over.
pub struct CompleteConnection<'a> {
    /// The org.
    pub org: &'a str,
    /// The connection.
    pub connection: &'a str,
    /// What the page showed, or the address that the browser was sent to.
    pub code: Secret<AuthorizationCode>,
    /// The state, where it is not part of it; empty: none.
    pub state: &'a str,
}

/// A code that is sent once.
pub(super) struct Code {
    pub(super) code: Secret<AuthorizationCode>,
    pub(super) redirect_uri: String,
    pub(super) verifier: Option<Secret<CodeVerifier>>,
    pub(super) state: String,
}

fn mismatch(message: &str) -> Refusal {
    Refusal {
        field: Some("code"),
        ..Refusal::new(Reason::ConnectionMismatch, message)
    }
}

/// What is told of a connection that came to nothing, in the provider's words where it was the provider's doing.
pub(super) fn refused(reason: Reason, message: String) -> Refusal {
    match reason {
        Reason::ConnectionRefused => {
            Refusal::new(reason, "the provider refused the sign-in").quoting(message)
        }
        _ => Refusal::new(reason, message),
    }
}

fn unreadable(why: &Unreadable) -> Refusal {
    let message = match why {
        Unreadable::Empty => "there is no code in it",
        Unreadable::TooLong => "no code is as long as that",
        Unreadable::Characters => "it has characters that no code has",
        Unreadable::Refused { .. } => "the provider refused the sign-in",
    };
    Refusal::invalid("code", message)
}

impl Broker {
    /// Takes what the provider gave the member, and connects the account.
    pub async fn complete_connection(
        self: &Arc<Self>,
        caller: &Caller,
        complete: CompleteConnection<'_>,
    ) -> Result<Arc<Connection>, Refusal> {
        let (_, stored) = self
            .seen_connection(caller, complete.org, complete.connection)
            .await?;
        let (connection, now) = (&stored.value, self.now());
        self.connector(&connection.connector)?;
        if connection.phase == Phase::Staged {
            // Its answer is here already, and could not be taken in before.
            let (broker, staged) = (Arc::clone(self), Arc::clone(connection));
            return self
                .tracked(async move { broker.settle_connection(staged).await })
                .await;
        }
        // Before anything is read of the code: one that has ended is no place to try codes at.
        let exchanging = connection
            .on(Event::Presented, now)
            .map_err(|why| unfit(connection, why, now))?;
        let secret = self.connection_secret(connection).await?;
        let given = pasted(&complete.code);
        let state = |state: &[u8]| is_state(&secret, state);
        let (code, bound) = match given {
            Ok(pasted) => {
                let bound = match (&pasted.state, complete.state) {
                    (Some(with), "") => Some(state(with.expose(Exposure::Inspect))),
                    (Some(with), said) => {
                        Some(state(with.expose(Exposure::Inspect)) && state(said.as_bytes()))
                    }
                    (None, "") => None,
                    (None, said) => Some(state(said.as_bytes())),
                };
                // Another server's code is not for this one's token endpoint (RFC 9207 section 2.4).
                let issuer = &self.connector(&connection.connector)?.issuer;
                if let (Some(said), Some(known)) = (&pasted.issuer, issuer)
                    && said != known
                {
                    let what = "this is the answer of another provider";
                    return Err(self.mismatched(caller, connection, what).await);
                }
                (pasted.code, bound)
            }
            Err(Unreadable::Refused {
                error,
                description,
                state: with,
            }) => {
                // Only the answer to this very sign-in ends it.
                if !with.is_some_and(|with| state(with.expose(Exposure::Inspect))) {
                    return Err(mismatch("this is the answer to another sign-in"));
                }
                let said = redact(&format!("{error}: {description}"), 512);
                return Err(self
                    .fail_by(caller, &stored, Reason::ConnectionRefused, said)
                    .await?);
            }
            Err(why) => return Err(unreadable(&why)),
        };
        let needs_state = !matches!(
            connection.flow,
            Flow::Paste {
                with_state: false,
                ..
            }
        );
        match bound {
            Some(true) => {}
            Some(false) => {
                return Err(self
                    .mismatched(caller, connection, "the code is of another sign-in")
                    .await);
            }
            None if needs_state => {
                let what = "a part is missing: paste all that the page shows, with what stands after the #, or the \
                            whole address";
                return Err(mismatch(what));
            }
            None => {}
        }
        let Some(redirect_uri) = connection.redirect_uri() else {
            return Err(Refusal::new(
                Reason::ConnectionState,
                "the connection takes no code",
            ));
        };
        let ready = Code {
            code,
            redirect_uri: redirect_uri.to_owned(),
            state: secret
                .state
                .expose_str(Exposure::Upstream)
                .unwrap_or_default()
                .to_owned(),
            verifier: secret.verifier,
        };
        let (broker, caller) = (Arc::clone(self), caller.clone());
        // Whoever waits for it may go away: the code is used up all the same.
        let work = async move {
            let connection = Arc::clone(&stored.value);
            match broker.claim(&caller, &stored, exchanging).await {
                Ok(sent) => broker.exchange_connection(sent, ready).await,
                Err(refusal) => {
                    // It may have come about all the same. Then nobody sends the code any more.
                    broker.keep_at(&connection);
                    Err(refusal)
                }
            }
        };
        self.tracked(work).await
    }

    /// Notes that a code is about to be sent, for as long as the caller is live and the connection waits.
    async fn claim(
        self: &Arc<Self>,
        caller: &Caller,
        stored: &Stored<Connection>,
        exchanging: Connection,
    ) -> Result<Arc<Connection>, Refusal> {
        let (live, revision) = self.still_live(caller).await?;
        let changes = Changes::default().at(&live, revision);
        let changes = put(changes, stored, &exchanging, self.now()).put(
            &keys::connecting(exchanging.org, exchanging.id),
            &Mark { since: self.now() },
        );
        let record = caller.record(Action::ConnectionExchange, Some(exchanging.org));
        let done = self
            .connection_effect(about(record, &exchanging), changes, exchanging)
            .await;
        match done {
            Ok(sent) => Ok(sent),
            Err(Undone::Conflict) => Err(busy()),
            Err(Undone::Refused(refusal)) => Err(refusal),
        }
    }

    pub(super) async fn connection_secret(
        &self,
        connection: &Connection,
    ) -> Result<ConnectionSecret, Refusal> {
        let key = keys::connection_secret(connection.org, connection.id);
        let stored = self.records.get::<ConnectionSecret>(&key).await?;
        let secret = stored.and_then(|stored| Arc::into_inner(stored.value));
        // Not that of an attempt before, should the two have been read apart.
        let secret = secret.filter(|secret| secret.attempt == connection.attempt);
        secret.ok_or_else(busy)
    }

    async fn mismatched(&self, caller: &Caller, connection: &Connection, what: &str) -> Refusal {
        let record = caller.record(Action::ConnectionExchange, Some(connection.org));
        self.denied(about(record, connection), mismatch(what)).await
    }

    /// Ends a connection that its caller brought a refusal for; what the caller is told.
    async fn fail_by(
        self: &Arc<Self>,
        caller: &Caller,
        stored: &Stored<Connection>,
        reason: Reason,
        message: String,
    ) -> Result<Refusal, Refusal> {
        let now = self.now();
        let event = Event::Failed {
            reason,
            message: message.clone(),
        };
        let failed = stored
            .value
            .on(event, now)
            .map_err(|why| unfit(&stored.value, why, now))?;
        let record = about(caller.record(Action::ConnectionFail, Some(failed.org)), &failed);
        let changes = put(Changes::default(), stored, &failed, now);
        self.connection_effect(record.about("reason", reason.code()), changes, failed)
            .await?;
        Ok(refused(reason, message))
    }

    /// Applies `event` to a connection, again and again until nothing gets in the way; `None`: it does not fit any
    /// more, because somebody else ended the connection or began it anew.
    pub(super) async fn moves(
        self: &Arc<Self>,
        connection: &Connection,
        event: Event,
        action: Option<Action>,
    ) -> Result<Option<Arc<Connection>>, Refusal> {
        for _ in 0..ATTEMPTS {
            let stored = self.connection(connection.org, connection.id).await?;
            let now = self.now();
            if stored.value.attempt != connection.attempt {
                return Ok(None);
            }
            let Ok(next) = stored.value.on(event.clone(), now) else {
                return Ok(None);
            };
            let mut changes = put(Changes::default(), &stored, &next, now);
            if matches!(next.phase, Phase::Waiting) && !next.is_device() && !next.standing(now).is_over() {
                changes = changes.delete::<Mark>(&keys::connecting(next.org, next.id));
            }
            let done = match action {
                Some(action) => {
                    let mut record = super::by_beginner(action, &next);
                    if let Phase::Failed { reason, .. } = &next.phase {
                        record = record.about("reason", reason);
                    }
                    self.connection_effect(record, changes, next).await
                }
                None => match self.records.commit(changes).await.map_err(Refusal::from)? {
                    crate::store::Commit::Applied(_) => {
                        self.connecting.changed(next.id);
                        Ok(Arc::new(next))
                    }
                    crate::store::Commit::Conflict => Err(Undone::Conflict),
                },
            };
            match done {
                Ok(next) => return Ok(Some(next)),
                Err(Undone::Conflict) => {}
                Err(Undone::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(busy())
    }
}
